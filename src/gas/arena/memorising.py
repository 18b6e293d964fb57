"""Does a model know the pictures, or these very bytes of them?

Two findings. In the exam a few pictures are shown once more, half of them as they are and half encoded again at
quality 98, which no person can see; an honest model's answers hardly move, those of a table keyed by a hash of the
input fall back to guessing, or to no answer at all. That counts as a changed one: no honest model answers a picture in
one of its forms only. And in the full run the accuracy on public data, which anybody can learn by heart, is set against
that on held-out data, with an interval.

What is covered: exact look-ups, by whatever hash. What is not: tables by similarity, which survive the encoding; the
gap shows those that know only public data. The extra showings are a small round of their own by the same engine, with
the same secret mixing, so that a model can't tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Pass
from gas.bench.engine import evaluate
from gas.bench.levels import DistortedMedia, choose_for_levels
from gas.bench.records import SampleRecord
from gas.bench.runs import Progress, RunConfig
from gas.clock import Clock, derive_rng, derive_seed
from gas.datasets.plan import Round, freeze_round
from gas.errors import ModelFailed
from gas.media.distortions.table import Distortion, Step
from gas.sandbox.base import ModelSpec, Sandbox
from gas.types import Modality, Provenance, Sample, SampleStatus

__all__ = ["HoldoutGap", "Reencoding", "compare_answers", "holdout_gap", "measure_reencoding"]

_QUALITY: Final = 98
_EACH: Final = 24
"""Pictures of each class that are shown again."""
_LEAST: Final = 16
"""Below this many pairs nothing is said."""
_MOVED: Final = 0.25
"""How far p_fake must move for a flip to count: a picture at the threshold flips for honest models too."""
_MOST_FLIPS: Final = 0.15
_DRAWS: Final = 1000

Answers = tuple[float | None, float | None]
"""p_fake of a picture as it is, and encoded again; None where the model gave no usable answer."""


@dataclass(frozen=True, slots=True)
class Reencoding:
    """What encoding again did to a model's answers.

    Attributes:
        asked: Pictures answered at least one way.
        flipped: Those whose decision changed, with p_fake moving by more than 0.25, or that were answered in one form
            only.
        median_move: Median of the absolute change of p_fake, of those answered both ways; 0 when there are none.
        worst: Up to five of the flips: p_fake as it is and after, None where there was no answer, these and then the
            largest change first.
    """

    asked: int
    flipped: int
    median_move: float
    worst: tuple[Answers, ...] = ()

    @property
    def memorised(self) -> bool:
        """Whether so many answers flip that the model must know the bytes."""
        return self.asked >= _LEAST and self.flipped > _MOST_FLIPS * self.asked

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {**asdict(self), "memorised": self.memorised, "quality": _QUALITY}


@dataclass(frozen=True, slots=True)
class HoldoutGap:
    """Balanced accuracy on public data minus that on held-out data.

    Attributes:
        public: On public data, in [0, 1].
        holdout: On held-out data.
        gap: The difference; large and positive where a model knows the public data.
        low: Lower end of its 95 % interval.
        high: Upper end.
        public_count: Samples.
        holdout_count: Samples.
    """

    public: float
    holdout: float
    gap: float
    low: float
    high: float
    public_count: int
    holdout_count: int

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return asdict(self)


def measure_reencoding(
    spec: ModelSpec,
    round_: Round,
    media: Callable[[str], bytes],
    sandbox: Sandbox,
    config: RunConfig,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    classes: Sequence[str] | None = None,
    clock: Clock | None = None,
) -> Reencoding | None:
    """Show a few pictures of an exam as they are, and encoded again.

    Args:
        spec: The checked, unpacked package.
        round_: The exam.
        media: Encoded bytes of a sample.
        sandbox: Where the model runs.
        config: Of the exam's run.
        on_progress: As for :func:`gas.bench.engine.evaluate`.
        classes: Names of the model's classes, when its package gives them.
        clock: For times.

    Returns:
        None where the exam has no pictures, or too few.

    Raises:
        gas.errors.ModelFailed: The model answers next to nothing this time (``unanswered``), can't be loaded again, or
            takes longer than the exam may: whoever could choose not to be asked would not be found.
        gas.errors.InfrastructureError: Our own machinery failed.
    """
    pictures = [sample for sample in round_.samples if sample.modality is Modality.IMAGE]
    chosen = choose_for_levels(pictures, _EACH, derive_seed(round_.seed, "reencoding"))
    if len(chosen) < _LEAST:
        return None
    forms = {
        "kept": Distortion(Modality.IMAGE),
        "encoded": Distortion(Modality.IMAGE, (Step("jpeg", (("quality", _QUALITY),)),)),
    }
    showings = {f"{sample.sample_id}:{form}": (sample, form) for sample in chosen for form in forms}
    derived = freeze_round(
        (replace(sample, sample_id=name) for name, (sample, _) in showings.items()),
        round_.seed,
        {"reencoding": _QUALITY},
        code_version=round_.code_version,
    )
    shown = DistortedMedia(
        {name: forms[form] for name, (_, form) in showings.items()},
        {name: sample.sample_id for name, (sample, _) in showings.items()},
        media,
    )
    quiet = replace(config, robustness_per_dataset=0, reask_share=0.0, reask_least=0, processes=1)
    try:
        run = evaluate(spec, derived, shown, sandbox, quiet, on_progress, classes=classes, clock=clock)
    except ModelFailed as error:
        raise ModelFailed(
            f"When pictures of the exam were shown again: {error.message}", code=error.error_code, hint=error.hint
        ) from error
    told = {r.sample_id: r.p_fake if r.status is SampleStatus.OK else None for r in run.records}
    # A form that we can't decode says nothing of the model.
    ours = {r.sample_id for r in run.records if r.status is SampleStatus.MEDIA_ERROR}
    names = [(f"{sample.sample_id}:kept", f"{sample.sample_id}:encoded") for sample in chosen]
    usable = [(told.get(kept), told.get(encoded)) for kept, encoded in names if not ours & {kept, encoded}]
    pairs = [pair for pair in usable if pair != (None, None)]
    if len(pairs) < _LEAST <= len(usable):
        raise ModelFailed(
            f"Of {len(usable)} pictures of the exam that were shown again the model answered {len(pairs)}.",
            code="unanswered",
            hint="It must answer every picture, whatever it was shown before.",
        )
    return compare_answers(pairs)


def compare_answers(pairs: Sequence[Answers]) -> Reencoding | None:
    """What moved between two showings of each picture.

    Args:
        pairs: p_fake as it is, and after; of each at least one.
    """
    if not pairs:
        return None
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    silent: list[Answers] = [pair for pair in pairs if None in pair]
    flips = [(a, b) for a, b in both if (a > 0.5) != (b > 0.5) and abs(a - b) > _MOVED]
    flips.sort(key=lambda pair: -abs(pair[0] - pair[1]))
    moves = float(np.median([abs(a - b) for a, b in both])) if both else 0.0
    return Reencoding(len(pairs), len(silent) + len(flips), moves, (*silent, *flips)[:5])


def holdout_gap(records: Iterable[SampleRecord], round_: Round) -> HoldoutGap | None:
    """How much better a model is on public than on held-out data.

    Balanced accuracy of the base pass, unweighted; failures count as wrong. The interval is the percentile bootstrap
    (Efron 1979) over originals within each class of each side, seeded by the round.

    Args:
        records: Of a run.
        round_: That it was on.

    Returns:
        None where a side lacks a class.
    """
    samples = {sample.sample_id: sample for sample in round_.samples}
    rows = [
        (samples[r.sample_id], r.fake)
        for r in records
        if r.variant is Pass.BASE and r.fake is not None and r.sample_id in samples
    ]
    sides: list[tuple[float, NDArray[np.float64], int]] = []
    for provenance in (Provenance.PUBLIC, Provenance.HOLDOUT):
        mine = [(sample, fake) for sample, fake in rows if sample.provenance is provenance]
        if len({sample.media_type.is_fake for sample, _ in mine}) < 2:
            return None
        rng = derive_rng(round_.seed, "holdout-gap", provenance.value)
        rates, drawn = 0.0, np.zeros(_DRAWS)
        for kind in (False, True):
            counts = _by_original([(s, fake == kind) for s, fake in mine if s.media_type.is_fake is kind])
            picks = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=_DRAWS)
            sums = picks @ counts
            rates += counts[:, 0].sum() / counts[:, 1].sum() / 2
            drawn += sums[:, 0] / sums[:, 1] / 2
        sides.append((float(rates), drawn, len(mine)))
    (public, public_draws, public_count), (holdout, holdout_draws, holdout_count) = sides
    low, high = np.percentile(public_draws - holdout_draws, [2.5, 97.5])
    return HoldoutGap(public, holdout, public - holdout, float(low), float(high), public_count, holdout_count)


def _by_original(answers: Sequence[tuple[Sample, bool]]) -> NDArray[np.float64]:
    """Right answers and all answers of each original, shape (originals, 2)."""
    found: dict[str, list[int]] = {}
    for sample, right in answers:
        row = found.setdefault(sample.origin, [0, 0])
        row[0] += right
        row[1] += 1
    return np.array([found[name] for name in sorted(found)], dtype=np.float64)
