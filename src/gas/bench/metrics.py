"""What the records of a run are worth: the score, everything reported beside it, and what generators earn by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Pass
from gas.bench.records import SampleRecord
from gas.datasets.plan import Round, check_shares
from gas.errors import ConfigurationError
from gas.scoring.detection import DetectionMetrics, GroupRates, evaluate_detection
from gas.scoring.sn34 import ALPHA, BETA, ROBUST_WEIGHT, final_score, sample_weights
from gas.types import Provenance, Sample, SampleStatus

__all__ = ["Decisions", "RunMetrics", "SourceCount", "clusters_of", "compute_metrics", "judgements"]


@dataclass(frozen=True, slots=True)
class SourceCount:
    """Right answers of the base pass on one source of one kind of media.

    Attributes:
        source: Package of photos, or generator.
        media_type: ``real``, ``synthetic`` or ``semisynthetic``.
        correct: Right decisions, unweighted.
        count: Samples that count, model errors included; at least 1.
        model_errors: Samples on which the model failed.
    """

    source: str
    media_type: str
    correct: int
    count: int
    model_errors: int

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "source": self.source,
            "media_type": self.media_type,
            "correct": self.correct,
            "count": self.count,
            "model_errors": self.model_errors,
        }


@dataclass(frozen=True, slots=True)
class Decisions:
    """Weighted confusion of the base pass's decisions, "fake" being the positive class.

    Attributes:
        tp: Weight of the fakes called fake.
        fp: Weight of the real media called fake.
        fn: Weight of the fakes called real.
        tn: Weight of the real media called real.
    """

    tp: float
    fp: float
    fn: float
    tn: float

    @property
    def precision(self) -> float | None:
        """Share of fakes among what was called fake; None when nothing was."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp > 0 else None

    @property
    def recall(self) -> float | None:
        """Share of the fakes that was called fake (TPR); None without fakes."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn > 0 else None

    @property
    def specificity(self) -> float | None:
        """Share of the real media that was called real (TNR); None without real media."""
        return self.tn / (self.tn + self.fp) if self.tn + self.fp > 0 else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None when nothing is fake and nothing was called fake."""
        weight = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / weight if weight > 0 else None

    def as_dict(self) -> dict[str, float | None]:
        """JSON form: the four weights and the rates."""
        rates = {name: getattr(self, name) for name in ("precision", "recall", "specificity", "f1")}
        return {"tp": self.tp, "fp": self.fp, "fn": self.fn, "tn": self.tn, **rates}


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """Every figure of one run.

    Attributes:
        base: Metrics of the base pass.
        robust: Metrics after the sharing chain; None when there was no such pass.
        final: The score that decides, in [0, 1]: base alone, or base and robust combined; None when unscored.
        unscored: Why there is no score; None when there is one.
        sources: Right answers for each source.
        model_errors: Model errors of both passes by code; each counts as a wrong answer.
        media_errors: Samples left out because their medium can't be decoded.
        decisions: Confusion of the base pass, with the weights of the score.
        clustered_by: What the interval draws: ``source``, or ``original`` where there are too few sources.
    """

    base: DetectionMetrics
    robust: DetectionMetrics | None
    final: float | None
    unscored: str | None
    sources: tuple[SourceCount, ...]
    model_errors: dict[str, int]
    media_errors: int
    decisions: Decisions = Decisions(0.0, 0.0, 0.0, 0.0)
    clustered_by: str = "source"

    def as_dict(self) -> dict[str, object]:
        """JSON form: the final score, both passes, rates by group, and errors."""
        return {
            "sn34_score": self.final,
            "unscored": self.unscored,
            "base": self.base.as_dict(),
            "robust": None if self.robust is None else self.robust.as_dict(),
            "groups": [_group(rates) for rates in self.base.groups],
            "sources": [source.as_dict() for source in self.sources],
            "worst_group": None
            if (worst := self.base.worst_group) is None
            else {"kind": worst.kind, "name": worst.name, "rate": worst.rate, "value": worst.value, "n": worst.n},
            "model_errors": self.model_errors,
            "media_errors": self.media_errors,
        }


def compute_metrics(records: Iterable[SampleRecord], round_: Round) -> RunMetrics:
    """Score a run.

    The round's parameters decide: ``shares`` of the provenance classes, ``alpha``, ``beta``, ``robust_weight``.
    The bootstrap's seed is the round's.

    Raises:
        gas.errors.ConfigurationError: A record of a sample that the round doesn't have, a sample without a record
            of the base pass or with two, or a parameter that is no number.
    """
    rows = _checked(records, round_)
    base_rows = [row for row in rows if row[1].variant is Pass.BASE]
    robust_rows = [row for row in rows if row[1].variant is Pass.ROBUST]
    base = _metrics(base_rows, round_)
    robust = _metrics(robust_rows, round_) if robust_rows else None
    if robust is None:
        final, unscored = base.sn34_score, base.unscored
    else:
        final = final_score(
            base.sn34_score, robust.sn34_score, _number(round_.parameters, "robust_weight", ROBUST_WEIGHT)
        )
        unscored = base.unscored or (f"Robust pass: {robust.unscored}" if robust.unscored else None)
    errors = Counter(r.error or "unknown" for _, r in rows if r.status is SampleStatus.MODEL_ERROR)
    return RunMetrics(
        base=base,
        robust=robust,
        final=final,
        unscored=unscored,
        sources=_sources(base_rows),
        model_errors=dict(sorted(errors.items())),
        media_errors=sum(record.status is SampleStatus.MEDIA_ERROR for _, record in base_rows),
        decisions=_decisions(base_rows, round_),
        clustered_by=clusters_of([sample for sample, record in base_rows if record.fake is not None])[1],
    )


def clusters_of(samples: Sequence[Sample], least: int = 2) -> tuple[list[str], str]:
    """What the bootstrap draws, one name a sample: sources, or originals where a class has too few sources.

    Drawn from a single source a class, every draw would be the same set of samples, and any difference certain. By
    originals the interval says how sure a figure is on these sources; on others nobody can say.

    Args:
        samples: That count.
        least: Sources that each class must have for sources to be drawn.

    Returns:
        The names, and ``source`` or ``original``.
    """
    found: dict[bool, set[str]] = {}
    for sample in samples:
        found.setdefault(sample.media_type.is_fake, set()).add(sample.source)
    if all(len(sources) >= least for sources in found.values()):
        return [sample.source for sample in samples], "source"
    return [sample.origin for sample in samples], "original"


def judgements(records: Iterable[SampleRecord], round_: Round) -> list[tuple[str, bool]]:
    """What a run says about the media of the network's generators: (sample id, whether the detector was fooled).

    Only the base pass of arena media with a known maker counts. A detector is fooled when it answered, and took the
    medium for real. When the model failed, the medium was judged but fooled nobody: a generator must not earn by
    media that crash detectors. Media that can't be decoded were not judged.
    """
    makers = {
        s.sample_id for s in round_.samples if s.provenance is Provenance.ARENA and s.generator_hotkey is not None
    }
    return [
        (record.sample_id, record.status is SampleStatus.OK and record.fake is False)
        for record in records
        if record.variant is Pass.BASE and record.status is not SampleStatus.MEDIA_ERROR and record.sample_id in makers
    ]


def _checked(records: Iterable[SampleRecord], round_: Round) -> list[tuple[Sample, SampleRecord]]:
    known = {sample.sample_id: sample for sample in round_.samples}
    rows: list[tuple[Sample, SampleRecord]] = []
    for record in records:
        if record.sample_id not in known:
            raise ConfigurationError("A record is about a sample that the round does not have.", code="other_round")
        rows.append((known[record.sample_id], record))
    keys = Counter((record.sample_id, record.variant) for _, record in rows)
    base = sum(variant is Pass.BASE for _, variant in keys)
    if base != len(known) or len(keys) != len(rows):
        raise ConfigurationError("A run needs one record of the base pass for every sample.", code="other_round")
    return rows


def _metrics(rows: Sequence[tuple[Sample, SampleRecord]], round_: Round) -> DetectionMetrics:
    counted = [(s, r.p_fake, r.fake) for s, r in rows if r.p_fake is not None and r.fake is not None]
    samples = [sample for sample, _, _ in counted]
    return evaluate_detection(
        labels=[int(sample.media_type.is_fake) for sample in samples],
        p_fake=[p_fake for _, p_fake, _ in counted],
        decisions=[int(fake) for _, _, fake in counted],
        weights=_weights(samples, round_),
        sources=clusters_of(samples)[0],
        groups={
            "dataset": [sample.dataset for sample in samples],
            "source": [sample.source for sample in samples],
            "generator": [sample.generator_hotkey for sample in samples],
        },
        seed=round_.seed,
        alpha=_number(round_.parameters, "alpha", ALPHA),
        beta=_number(round_.parameters, "beta", BETA),
    )


def _weights(samples: Sequence[Sample], round_: Round) -> NDArray[np.float64]:
    table = round_.parameters.get("shares")
    shares = {str(k): v for k, v in check_shares(table).items()} if isinstance(table, Mapping) else None
    return sample_weights([sample.provenance for sample in samples], shares)


def _decisions(rows: Sequence[tuple[Sample, SampleRecord]], round_: Round) -> Decisions:
    counted = [(sample, record.fake) for sample, record in rows if record.fake is not None]
    weights = _weights([sample for sample, _ in counted], round_)
    truth = np.array([sample.media_type.is_fake for sample, _ in counted], dtype=np.bool_)
    called = np.array([fake for _, fake in counted], dtype=np.bool_)
    return Decisions(
        tp=float(weights[truth & called].sum()),
        fp=float(weights[~truth & called].sum()),
        fn=float(weights[truth & ~called].sum()),
        tn=float(weights[~truth & ~called].sum()),
    )


def _sources(rows: Sequence[tuple[Sample, SampleRecord]]) -> tuple[SourceCount, ...]:
    groups: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for sample, record in rows:
        if record.fake is not None:
            right = record.fake == sample.media_type.is_fake
            failed = record.status is SampleStatus.MODEL_ERROR
            groups.setdefault((sample.media_type.value, sample.source), []).append((right, failed))
    return tuple(
        SourceCount(source, kind, sum(r for r, _ in found), len(found), sum(f for _, f in found))
        for (kind, source), found in sorted(groups.items())
    )


def _group(rates: GroupRates) -> dict[str, object]:
    return {"kind": rates.kind, "name": rates.name, "n": rates.n, "tpr": rates.tpr, "tnr": rates.tnr}


def _number(parameters: Mapping[str, object], name: str, default: float) -> float:
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"The round's parameter {name!r} must be a number.")
    return float(value)
