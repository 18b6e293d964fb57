"""Robustness curves: what a model's score is worth when its media come distorted, by level and by kind.

A few samples of each class are shown again, distorted by the project's table of distortions: at each of its levels
(each holds what the one below does), and by each group of distortions alone. They run as a small round of their own,
by the same engine and in the same sandbox, so that order, failures and resuming follow the same rules.

What is covered: cost doesn't grow with the plan. What is not: the curves are no part of the score, for which the fixed
sharing chain stands; with a few samples each, their intervals are wide, and they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Pass
from gas.bench.engine import evaluate
from gas.bench.journal import Journal, run_identity
from gas.bench.records import SampleRecord
from gas.bench.runs import Progress, RunConfig
from gas.clock import Clock, derive_rng, derive_seed
from gas.datasets.plan import Round, freeze_round
from gas.errors import MediaRejected, ModelFailed
from gas.media.distortions.table import LEVELS, VERSION, Distortion, draw_distortion, steps_of
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.target import DEFAULT_SAMPLE_RATE, Target
from gas.sandbox.base import ModelSpec, Sandbox
from gas.scoring.detection import evaluate_detection
from gas.types import Modality, Sample, SampleStatus

__all__ = ["CurvePoint", "DistortedMedia", "RobustnessCurves", "choose_for_levels", "distortions_of", "measure_levels"]

_MOST: Final[Mapping[Modality, int]] = {Modality.IMAGE: 24, Modality.VIDEO: 12, Modality.AUDIO: 24}
"""Samples of each class at most; a distorted clip costs some ten times a picture."""
_FRAME_CODECS: Final = frozenset({"jpeg", "webp"})
"""Codecs of pictures, which nobody uses for clips."""


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a model makes of one kind or strength of distortion, unweighted.

    Attributes:
        name: ``level 0`` (as it is) to ``level 3``, or a group of distortions, e.g. ``codec``.
        level: 0..3; None for a group alone.
        count: Samples that count.
        correct: Right decisions; the model's failures are wrong ones.
        tpr: Share of the fakes called fake; None without fakes.
        tnr: Share of the real media called real; None without real ones.
        sn34: Score of these samples; None without both classes.
        low: Lower end of its 95 % interval, by originals; None where there is none.
        high: Upper end.
    """

    name: str
    level: int | None
    count: int
    correct: int
    tpr: float | None
    tnr: float | None
    sn34: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class RobustnessCurves:
    """Scores by strength and by kind of distortion.

    Attributes:
        samples: Different samples that were shown at each point.
        levels: Levels 0 to 3.
        groups: Each group of distortions alone.
        model_errors: Showings on which the model failed.
        version: Of the table of distortions.
    """

    samples: int
    levels: tuple[CurvePoint, ...]
    groups: tuple[CurvePoint, ...]
    model_errors: int
    version: str = VERSION

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return asdict(self)


def choose_for_levels(samples: Sequence[Sample], most: int, seed: int) -> tuple[Sample, ...]:
    """Draw the samples of the curves: as many of each class, ``most`` of each at most.

    The draw depends on the seed and the samples' ids alone; within a class the data sets take turns.
    """
    chosen: list[Sample] = []
    for fake in (False, True):
        turns: dict[str, int] = {}
        ranked: list[tuple[int, int, Sample]] = []
        mine = [sample for sample in samples if sample.media_type.is_fake is fake]
        for sample in sorted(mine, key=lambda s: (derive_seed(seed, "levels", s.sample_id), s.sample_id)):
            turn = turns[sample.dataset] = turns.get(sample.dataset, -1) + 1
            ranked.append((turn, len(ranked), sample))
        chosen += [sample for _, _, sample in sorted(ranked, key=lambda row: row[:2])[:most]]
    return tuple(chosen)


def distortions_of(sample_id: str, modality: Modality, seed: int) -> dict[str, Distortion]:
    """Every distortion that one sample is shown with, by the name of its point.

    Args:
        sample_id: Of the sample; every sample has draws of its own, the same on every machine.
        modality: Of the sample.
        seed: The round's.
    """
    found = {f"level {level}": draw_distortion(level, seed, sample_id, modality) for level in LEVELS[1:]}
    kinds = [k for k in steps_of(modality) if modality is not Modality.VIDEO or k.name not in _FRAME_CODECS]
    for group in dict.fromkeys(kind.group for kind in kinds):
        mine = [kind for kind in kinds if kind.group == group]
        rng = derive_rng(seed, "levels", VERSION, str(modality), group, sample_id)
        kind = mine[int(rng.integers(len(mine)))]
        found[group] = Distortion(modality, (kind.step(kind.draw(rng)),))
    return found


class DistortedMedia:
    """The media of the curves' round; implements ``gas.bench.feed.RoundMedia``.

    Args:
        distortions: What each showing is distorted with, by its name.
        originals: Sample that each showing is of.
        media: Encoded bytes of a sample.
        limits: What one medium may cost.
    """

    def __init__(
        self,
        distortions: Mapping[str, Distortion],
        originals: Mapping[str, str],
        media: Callable[[str], bytes],
        limits: MediaLimits = DEFAULT_LIMITS,
    ) -> None:
        self._distortions, self._originals = distortions, originals
        self._media, self._limits = media, limits

    def fetch(
        self, sample_ids: Sequence[str], target: Target, *, robust: bool
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Inputs of some showings; see ``gas.bench.feed.RoundMedia``.

        Raises:
            gas.errors.StorageError: The media can't be read.
        """
        del robust
        out = np.zeros((len(sample_ids), *target.shape), target.dtype)
        usable = np.ones(len(sample_ids), np.bool_)
        for k, name in enumerate(sample_ids):
            try:
                out[k] = _distorted(self._media(self._originals[name]), target, self._distortions[name], self._limits)
            except MediaRejected:
                usable[k] = False
        return out, usable


def measure_levels(
    spec: ModelSpec,
    round_: Round,
    records: Iterable[SampleRecord],
    media: Callable[[str], bytes],
    sandbox: Sandbox,
    config: RunConfig,
    *,
    package_sha256: str,
    folder: Path,
    classes: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> RobustnessCurves | None:
    """Show a few samples of a finished run again, distorted.

    Args:
        spec: The checked, unpacked package.
        round_: That the run was on.
        records: Of the run; the undistorted answers are taken from them.
        media: Encoded bytes of a sample.
        sandbox: Where the model runs.
        config: Of the run; its robustness says how many samples of each class there are, up to a limit.
        package_sha256: Of the package's zip.
        folder: Of the run; a killed measurement goes on from there.
        classes: Names of the model's classes, when its package gives them.
        on_progress: As for :func:`gas.bench.engine.evaluate`.
        clock: Likewise.

    Returns:
        The curves; None when nothing is asked for, a class is missing, or the model can't be loaded again.

    Raises:
        gas.errors.SandboxUnavailable: Our isolation broke.
        gas.errors.StorageError: The media can't be read, or the folder not be written.
    """
    base = {r.sample_id: r for r in records if r.variant is Pass.BASE and r.status is not SampleStatus.MEDIA_ERROR}
    known = [sample for sample in round_.samples if sample.sample_id in base]
    if not known:
        return None
    modality = known[0].modality
    most = min(config.robustness_per_dataset, _MOST[modality], *_class_sizes(known))
    chosen = choose_for_levels(known, most, round_.seed)
    if not chosen:
        return None
    showings: dict[str, tuple[str, Sample, Distortion]] = {}
    for sample in chosen:
        for point, distortion in distortions_of(sample.sample_id, modality, round_.seed).items():
            showings[f"{sample.sample_id}:{point}"] = (point, sample, distortion)
    derived = freeze_round(
        (replace(sample, sample_id=name) for name, (_, sample, _) in showings.items()),
        round_.seed,
        {"levels": VERSION},
        code_version=round_.code_version,
    )
    quiet = replace(config, robustness_per_dataset=0, reask_share=0.0, reask_least=0)
    with Journal(folder, run_identity(package_sha256, derived, quiet), config.nonce) as journal:
        try:
            run = evaluate(
                spec,
                derived,
                DistortedMedia(
                    {name: distortion for name, (_, _, distortion) in showings.items()},
                    {name: sample.sample_id for name, (_, sample, _) in showings.items()},
                    media,
                ),
                sandbox,
                replace(quiet, nonce=journal.nonce),
                on_progress,
                classes=classes,
                clock=clock,
                journal=journal,
            )
        except ModelFailed:
            # The run itself is complete: what a second start doesn't give must not take it away.
            journal.remove()
            return None
        journal.remove()
    return _curves(chosen, showings, base, run.records, round_.seed)


def _class_sizes(samples: Iterable[Sample]) -> tuple[int, int]:
    fakes = [sample.media_type.is_fake for sample in samples]
    return sum(fakes), len(fakes) - sum(fakes)


def _distorted(data: bytes, target: Target, distortion: Distortion, limits: MediaLimits) -> NDArray[np.generic]:
    """Decode, distort, and bring to the model's shape, in that order.

    Raises:
        MediaRejected: It can't be decoded within its limits.
    """
    from gas.media.distortions.apply import apply_audio, apply_image, apply_video

    if target.modality is Modality.IMAGE:
        from gas.media.image import decode_image, preprocess_image

        picture, _ = apply_image(decode_image(data, limits), distortion)
        return preprocess_image(picture, (target.shape[1], target.shape[2]))
    if target.modality is Modality.VIDEO:
        from gas.media.video import decode_video, preprocess_video

        count = target.shape[0]
        frames, _ = apply_video(decode_video(data, count, target.rate, limits), distortion)
        return preprocess_video(frames, (target.shape[2], target.shape[3]), count)
    from gas.media.audio import decode_audio, preprocess_audio

    sound, source_rate = decode_audio(data, limits)
    rate = round(target.rate or DEFAULT_SAMPLE_RATE)
    distorted = apply_audio(sound, source_rate, distortion)
    return preprocess_audio(distorted, source_rate, target_rate=rate, seconds=target.shape[0] / rate)


def _curves(
    chosen: Sequence[Sample],
    showings: Mapping[str, tuple[str, Sample, Distortion]],
    base: Mapping[str, SampleRecord],
    records: Iterable[SampleRecord],
    seed: int,
) -> RobustnessCurves:
    rows: dict[str, list[tuple[Sample, SampleRecord]]] = {}
    rows["level 0"] = [(sample, base[sample.sample_id]) for sample in chosen]
    found = {record.sample_id: record for record in records}
    for name, (point, sample, _) in showings.items():
        rows.setdefault(point, []).append((sample, found[name]))
    points = {name: _point(name, mine, seed) for name, mine in rows.items()}
    return RobustnessCurves(
        samples=len(chosen),
        levels=tuple(points[f"level {level}"] for level in LEVELS),
        groups=tuple(point for point in points.values() if point.level is None),
        model_errors=sum(record.status is SampleStatus.MODEL_ERROR for record in found.values()),
    )


def _point(name: str, rows: Sequence[tuple[Sample, SampleRecord]], seed: int) -> CurvePoint:
    counted = [(s, r.p_fake, r.fake) for s, r in rows if r.p_fake is not None and r.fake is not None]
    labels = [int(sample.media_type.is_fake) for sample, _, _ in counted]
    decisions = [int(fake) for _, _, fake in counted]
    figures = evaluate_detection(
        labels, [p for _, p, _ in counted], decisions, sources=[s.origin for s, _, _ in counted], seed=seed
    )
    bounds = figures.sn34_ci95 or (None, None)
    caught = [d for d, y in zip(decisions, labels, strict=True) if y]
    passed = [1 - d for d, y in zip(decisions, labels, strict=True) if not y]
    return CurvePoint(
        name=name,
        level=int(name.removeprefix("level ")) if name.startswith("level ") else None,
        count=len(counted),
        correct=sum(caught) + sum(passed),
        tpr=sum(caught) / len(caught) if caught else None,
        tnr=sum(passed) / len(passed) if passed else None,
        sn34=figures.sn34_score,
        low=bounds[0],
        high=bounds[1],
    )
