"""``results.json``: everything that a run has to say, under names that stay."""

from __future__ import annotations

import datetime
import json
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gas.bench.batches import Pass
from gas.bench.records import SampleRecord, records_sha256
from gas.errors import StorageError
from gas.scoring.multiclass import multiclass_mcc
from gas.types import MediaType, Sample, SampleStatus
from gas.versions import installed

if TYPE_CHECKING:
    from gas.bench.levels import RobustnessCurves
    from gas.bench.metrics import RunMetrics
    from gas.bench.runs import RunResult
    from gas.bench.settings import BenchSettings
    from gas.datasets.plan import Round
    from gas.datasets.plan_file import Plan
    from gas.submissions.check import CheckReport
    from gas.submissions.package import Package

__all__ = ["RunFacts", "inference_milliseconds", "make_results", "read_results", "versions", "write_results"]

_LIBRARIES: Final = (
    "numpy", "torch", "onnxruntime", "pyarrow", "opencv-python-headless", "pillow", "av", "soundfile", "soxr",
)  # fmt: skip
_METRICS: Final = (
    "balanced_accuracy", "roc_auc", "average_precision", "eer", "ece", "tpr_at_fpr_01", "tpr_at_fpr_05",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known about a run beside its plan, its records and its figures.

    Attributes:
        run_id: Name of its folder.
        model_path: As the user named it.
        began: Seconds since the epoch.
        duration_seconds: Of this go, the drawing of the plan and the report included.
        settings: What was asked for.
        check: Outcome of the static checks.
        result: Of the engine.
        metrics: Of the run.
        media_reasons: Why media could not be decoded, by sample.
        revisions: Of each data set of the plan: source's revision and content hash.
        curves: Scores on distorted media; None when they were not measured.
        device: Where the model computed.
    """

    run_id: str
    model_path: Path
    began: float
    duration_seconds: float
    settings: BenchSettings
    check: CheckReport
    result: RunResult
    metrics: RunMetrics
    media_reasons: Mapping[str, str]
    revisions: Mapping[str, Mapping[str, object]]
    curves: RobustnessCurves | None = None
    device: str = "cpu"


def make_results(facts: RunFacts, plan: Plan, round_: Round) -> dict[str, object]:
    """The JSON form of a run; floats are finite, null where there is no figure.

    ``accuracy``, ``binary_mcc``, ``binary_brier`` and ``binary_cross_entropy`` (nats) are weighted by the shares of
    the provenance classes, as the score is, and so is everything of scoring.md; counts are counts. ``sn34_score`` in
    ``results`` is that of the base pass, to which the interval belongs; ``overall_score`` adds the robust pass.
    """
    base, robust = facts.metrics.base, facts.metrics.robust
    records = [record for record in facts.result.records if record.variant is Pass.BASE]
    rows = list(zip(round_.samples, _ordered(records, round_), strict=True))
    mean, tail = inference_milliseconds(facts.result.batch_seconds)
    tally = _Tally.of(rows)
    return {
        "metadata": {
            "run_id": facts.run_id,
            "timestamp": datetime.datetime.fromtimestamp(facts.began, datetime.UTC).isoformat(timespec="seconds"),
            "model_path": str(facts.model_path),
            "modality": str(plan.modality),
            "mode": str(plan.mode),
            "duration_seconds": round(facts.duration_seconds, 3),
            "versions": versions(),
        },
        "overall_score": facts.metrics.final,
        "validation": facts.check.as_dict(),
        "errors": {
            "model": facts.metrics.model_errors,
            "media": [
                {"sample_id": s.sample_id, "dataset": s.dataset, "reason": facts.media_reasons.get(s.sample_id, "")}
                for s, record in rows
                if record.status is SampleStatus.MEDIA_ERROR
            ],
        },
        "results": {
            "total_samples": len(rows),
            "correct_predictions": tally.correct,
            "accuracy": base.accuracy,
            "binary_mcc": base.mcc,
            "binary_brier": base.brier,
            "binary_cross_entropy": base.log_loss,
            "sn34_score": base.sn34_score,
            "sn34_ci95": None if base.sn34_ci95 is None else list(base.sn34_ci95),
            "sn34_ci95_clusters": base.interval.clusters,
            "sn34_ci95_by": facts.metrics.clustered_by,
            "model_errors": tally.model_errors,
            "media_errors": tally.media_errors,
            "avg_inference_time_ms": mean,
            "p95_inference_time_ms": tail,
            **{name: getattr(base, name) for name in _METRICS},
            "decisions": facts.metrics.decisions.as_dict(),
            "multiclass_mcc": _multiclass(rows, facts.check.package),
            "unscored": facts.metrics.unscored,
            "worst_group": facts.metrics.as_dict()["worst_group"],
            "robust": None if robust is None else robust.as_dict(),
            "robustness_curves": None if facts.curves is None else facts.curves.as_dict(),
            "reasked": facts.result.reasked,
            "inconsistent": list(facts.result.inconsistent),
            "records_sha256": records_sha256(facts.result.records),
        },
        "accuracy_by_media_type": {
            str(kind): _Tally.of([row for row in rows if row[0].media_type is kind]).as_dict()
            for kind in MediaType
            if any(sample.media_type is kind for sample, _ in rows)
        },
        "per_dataset_results": _datasets(rows),
        "generator_stats": _generators(rows, plan),
        "dataset_info": {
            "plan_id": plan.plan_id,
            "round_id": round_.round_id,
            "data_hash": plan.data_hash,
            "seed": plan.seed,
            "samples": len(plan),
            "sizes": plan.sizes,
            "datasets": {name: dict(found) for name, found in facts.revisions.items()},
            "left_out": dict(plan.dropped),
        },
        "sandbox": {
            "tier": facts.result.tier.name.lower(),
            "executor": facts.settings.executor,
            "device": facts.device,
            "batch_size": facts.settings.batch_size,
            "restarts": facts.result.restarts,
            "gave_up": facts.result.gave_up,
            "timings": facts.result.timings.as_dict(),
        },
    }


def write_results(path: Path, results: Mapping[str, object]) -> None:
    """Write ``results.json``; a reader sees the whole file or none.

    Raises:
        StorageError: ``results_unwritable``.
    """
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise StorageError(
            f"The results can't be written ({error.strerror}).",
            code="results_unwritable",
            hint="Make room and start the same command again; what was answered is kept.",
        ) from error


def read_results(path: Path) -> dict[str, Any] | None:
    """What :func:`write_results` has written; None where there is nothing, or something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "overall_score" in found else None


def inference_milliseconds(batches: Sequence[tuple[int, float]]) -> tuple[float | None, float | None]:
    """Mean and 95th percentile of the time a sample, in milliseconds; None for both when there is no batch.

    A sample's time is that of its batch by the number of its samples, so the percentile is over samples.
    """
    count = np.array([number for number, _ in batches], np.int64)
    seconds = np.array([second for _, second in batches], np.float64)
    if not count.sum():
        return None, None
    times = np.repeat(1000 * seconds / np.maximum(count, 1), count)
    return float(times.mean()), float(np.percentile(times, 95))


def versions() -> dict[str, str]:
    """Versions of what a score may depend on; packages that are not here are left out."""
    return installed(_LIBRARIES) | {"python": platform.python_version()}


@dataclass(frozen=True, slots=True)
class _Tally:
    """Counts over some samples of the base pass; ``correct`` is of those that count."""

    total: int
    correct: int
    model_errors: int
    media_errors: int

    @classmethod
    def of(cls, rows: Iterable[tuple[Sample, SampleRecord]]) -> _Tally:
        found = list(rows)
        return cls(
            total=len(found),
            correct=sum(r.fake is not None and r.fake == s.media_type.is_fake for s, r in found),
            model_errors=sum(r.status is SampleStatus.MODEL_ERROR for _, r in found),
            media_errors=sum(r.status is SampleStatus.MEDIA_ERROR for _, r in found),
        )

    def as_dict(self) -> dict[str, object]:
        counted = self.total - self.media_errors
        return {
            "total": self.total,
            "correct": self.correct,
            "accuracy": self.correct / counted if counted else None,
            "model_errors": self.model_errors,
            "media_errors": self.media_errors,
        }


def _multiclass(rows: Sequence[tuple[Sample, SampleRecord]], package: Package | None) -> float | None:
    """Unweighted correlation of the three classes; None for a model that only tells real from fake."""
    if package is None or package.num_classes < len(MediaType):
        return None
    said = [(sample.media_type.label, record.predicted) for sample, record in rows if record.predicted is not None]
    return multiclass_mcc([label for label, _ in said], [answer for _, answer in said]) if said else None


def _ordered(records: Iterable[SampleRecord], round_: Round) -> list[SampleRecord]:
    by_id = {record.sample_id: record for record in records}
    return [by_id[sample.sample_id] for sample in round_.samples]


def _datasets(rows: Sequence[tuple[Sample, SampleRecord]]) -> dict[str, dict[str, object]]:
    out: dict[str, dict[str, object]] = {}
    groups: dict[str, list[tuple[Sample, SampleRecord]]] = defaultdict(list)
    for row in rows:
        groups[row[0].dataset].append(row)
    for name, mine in sorted(groups.items()):
        sides = {
            key: _Tally.of([row for row in mine if row[0].media_type.is_fake is fake]).as_dict()["accuracy"]
            for key, fake in (("tpr", True), ("tnr", False))
        }
        out[name] = {
            **_Tally.of(mine).as_dict(),
            **sides,
            "provenance": str(mine[0][0].provenance),
            "media_types": sorted({str(sample.media_type) for sample, _ in mine}),
        }
    return out


def _generators(rows: Sequence[tuple[Sample, SampleRecord]], plan: Plan) -> dict[str, dict[str, object]]:
    """Fakes by who made them: the network's generators by address, others by their family."""
    families = dict(zip(plan.table["sample_id"].to_pylist(), plan.table["generator"].to_pylist(), strict=True))
    groups: dict[str, list[tuple[Sample, SampleRecord]]] = defaultdict(list)
    for sample, record in rows:
        if sample.media_type is not MediaType.REAL:
            groups[sample.generator_hotkey or families.get(sample.sample_id) or "unknown"].append((sample, record))
    out: dict[str, dict[str, object]] = {}
    for name, mine in sorted(groups.items()):
        said = [r.p_fake for _, r in mine if r.status is SampleStatus.OK and r.p_fake is not None]
        tally = _Tally.of(mine)
        out[name] = {
            "kind": "hotkey" if mine[0][0].generator_hotkey else "family",
            "total": tally.total,
            "caught": tally.correct,
            "fooled": sum(r.status is SampleStatus.OK and r.fake is False for _, r in mine),
            "model_errors": tally.model_errors,
            "media_errors": tally.media_errors,
            "mean_p_fake": float(np.mean(said)) if said else None,
        }
    return out
