"""From a run to what the report shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Pass
from gas.bench.metrics import RunMetrics
from gas.bench.records import SampleRecord
from gas.bench.report.data import CalibrationBin, DetectorScores, Picture, SourceRate
from gas.bench.report.thumbnails import thumbnail
from gas.datasets.plan import Round
from gas.scoring.curves import reliability_curve, roc_curve
from gas.types import SampleStatus

__all__ = ["detector_scores", "worst_pictures"]


def detector_scores(
    metrics: RunMetrics, records: Iterable[SampleRecord], round_: Round, *, inconsistent: int = 0
) -> DetectorScores:
    """Figures and curves of one run for the report.

    The curves count every sample once, whatever its share of the score, so that they show what was seen.

    Args:
        metrics: Of the run.
        records: Of the same run.
        round_: That it ran on.
        inconsistent: Samples that were answered differently when asked again.
    """
    fakes = {sample.sample_id: sample.media_type.is_fake for sample in round_.samples}
    rows = [(fakes[r.sample_id], r.p_fake) for r in records if r.variant is Pass.BASE and r.p_fake is not None]
    labels = np.array([int(fake) for fake, _ in rows], dtype=np.int64)
    p_fake = np.array([p for _, p in rows], dtype=np.float64)
    roc = roc_curve(labels, p_fake)
    bins = reliability_curve(labels, p_fake)
    base, robust = metrics.base, metrics.robust
    return DetectorScores(
        sn34=metrics.final,
        sn34_base=base.sn34_score,
        sn34_robust=None if robust is None else robust.sn34_score,
        ci95=base.sn34_ci95,
        mcc=base.mcc,
        brier=base.brier,
        accuracy=base.accuracy,
        roc_auc=base.roc_auc,
        ece=base.ece,
        count=base.n,
        model_errors=sum(source.model_errors for source in metrics.sources),
        inconsistent=inconsistent,
        roc=() if roc is None else tuple(zip(roc.fpr.tolist(), roc.tpr.tolist(), strict=True)),
        calibration=()
        if bins is None
        else tuple(
            CalibrationBin(predicted, observed, round(share * len(rows)))
            for predicted, observed, share in zip(
                bins.predicted.tolist(), bins.observed.tolist(), bins.share.tolist(), strict=True
            )
        ),
        rates=tuple(SourceRate(s.source, s.media_type, s.correct, s.count) for s in metrics.sources),
    )


def worst_pictures(
    runs: Mapping[str, Sequence[SampleRecord]],
    round_: Round,
    pixels: Callable[[str], NDArray[np.uint8]],
    *,
    fake: bool,
    count: int = 12,
) -> tuple[Picture, ...]:
    """The samples that misled the detectors most, worst first.

    Args:
        runs: Records of each detector, by its name.
        round_: That they ran on.
        pixels: Decoded pixels of a sample, (H, W, 3), asked for the chosen ones only.
        fake: True for the fakes with the lowest p_fake, False for the real media with the highest.
        count: How many at most.

    Returns:
        Only samples that misled at least one detector, ordered by the number of detectors misled and then by
        their mean error. Answers that a model failed to give don't count as misled.
    """
    answers: dict[str, list[tuple[str, float, bool]]] = {}
    for name, records in runs.items():
        for r in records:
            if r.variant is Pass.BASE and r.status is SampleStatus.OK and r.p_fake is not None and r.fake is not None:
                answers.setdefault(r.sample_id, []).append((name, r.p_fake, r.fake is not fake))
    ranked = []
    for sample in round_.samples:
        given = answers.get(sample.sample_id, [])
        misled = sum(wrong for _, _, wrong in given)
        if sample.media_type.is_fake is fake and misled:
            error = sum(abs(p - float(fake)) for _, p, _ in given) / len(given)
            ranked.append((-misled, -error, sample.sample_id, sample))
    return tuple(
        Picture(
            jpeg=thumbnail(pixels(sample.sample_id)),
            source=sample.source,
            kind=sample.media_type.value,
            p_fake=tuple((name, p) for name, p, _ in answers[sample.sample_id]),
        )
        for _, _, _, sample in sorted(ranked, key=lambda row: row[:3])[:count]
    )
