"""A detector's answers judged: its score, and everything that is reported beside it, in one frozen record.

Source: specification "Scoring", sections 1 to 3. All metrics take the same sample weights as the score. The score
itself is defined in :mod:`gas.scoring.sn34`, the curves in :mod:`gas.scoring.curves`; callers find all of it here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gas.scoring.bootstrap import RESAMPLES, BootstrapInterval, bootstrap_sn34
from gas.scoring.curves import average_precision, expected_calibration_error, roc_curve
from gas.scoring.sn34 import (
    ALPHA,
    BETA,
    CLIP,
    Answers,
    Score,
    answers_from_logits,
    brier,
    checked,
    final_score,
    mcc,
    sample_weights,
    sn34_score,
    with_failures,
)

__all__ = [
    "ALPHA",
    "BETA",
    "Answers",
    "BootstrapInterval",
    "DetectionMetrics",
    "GroupRates",
    "Score",
    "WorstGroup",
    "answers_from_logits",
    "bootstrap_sn34",
    "brier",
    "evaluate_detection",
    "final_score",
    "mcc",
    "sample_weights",
    "sn34_score",
    "with_failures",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupRates:
    """How a detector does on one data set or generator.

    Attributes:
        kind: What the groups are, e.g. ``dataset``.
        name: Which one.
        n: Number of samples.
        tpr: Share of fakes called fake; None without fakes.
        tnr: Share of real media called real; None without real media.
    """

    kind: str
    name: str
    n: int
    tpr: float | None
    tnr: float | None


@dataclass(frozen=True, slots=True)
class WorstGroup:
    """The lowest rate of all groups: where the detector is weakest."""

    kind: str
    name: str
    rate: str
    value: float
    n: int


@dataclass(frozen=True, slots=True)
class DetectionMetrics:
    """Every metric of one run; None where the samples don't define it.

    Attributes:
        n: Number of samples.
        accuracy: Share of right decisions.
        balanced_accuracy: Mean of TPR and TNR.
        mcc: Matthews correlation, in [-1, 1]; 0 when a margin is empty.
        brier: Mean squared error of p_fake.
        log_loss: Mean negative log-likelihood in nats, p_fake clipped as in the Brier score.
        roc_auc: Area under the ROC.
        average_precision: Precision averaged over recall, "fake" being the positive class.
        eer: Equal error rate, by linear interpolation of the ROC.
        ece: Expected calibration error of p_fake, 15 bins of equal width.
        tpr_at_fpr_01: Best TPR at no more than 1 % of false alarms.
        tpr_at_fpr_05: Best TPR at no more than 5 % of false alarms.
        sn34_score: The score.
        interval: Its bootstrap interval.
        unscored: Why there is no score; None when there is one.
        groups: Rates of each group, by kind and name.
        worst_group: The lowest of these rates; None without groups.
    """

    n: int
    accuracy: float | None
    balanced_accuracy: float | None
    mcc: float | None
    brier: float | None
    log_loss: float | None
    roc_auc: float | None
    average_precision: float | None
    eer: float | None
    ece: float | None
    tpr_at_fpr_01: float | None
    tpr_at_fpr_05: float | None
    sn34_score: float | None
    interval: BootstrapInterval
    unscored: str | None
    groups: tuple[GroupRates, ...] = ()
    worst_group: WorstGroup | None = None

    @property
    def sn34_ci95(self) -> tuple[float, float] | None:
        """Ends of the score's 95 % interval."""
        return self.interval.bounds

    def as_dict(self) -> dict[str, object]:
        """JSON form: the metrics by name, null where there is none, and ``unscored`` only when there is no score."""
        out: dict[str, object] = {name: getattr(self, name) for name in _JSON_KEYS}
        out["sn34_ci95"] = None if self.sn34_ci95 is None else list(self.sn34_ci95)
        if self.unscored is not None:
            out["unscored"] = self.unscored
        return out


_JSON_KEYS: Final = (
    "n",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "brier",
    "log_loss",
    "roc_auc",
    "average_precision",
    "eer",
    "ece",
    "tpr_at_fpr_01",
    "tpr_at_fpr_05",
    "sn34_score",
)


def evaluate_detection(
    labels: ArrayLike,
    p_fake: ArrayLike,
    decisions: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    beta: float = BETA,
    resamples: int = RESAMPLES,
) -> DetectionMetrics:
    """Compute every metric of section 3.

    Args:
        labels: 0 (real) or 1 (fake), shape (n,).
        p_fake: In [0, 1], shape (n,).
        decisions: 0 or 1, shape (n,); p_fake > 0.5 when left out.
        weights: Non-negative, shape (n,); all 1 when left out.
        sources: Cluster of each sample for the bootstrap; each sample is its own when left out.
        groups: For each kind of group, e.g. ``dataset`` or ``generator``, the group of each sample or None.
        seed: Of the bootstrap.
        alpha: Exponent of the MCC's part of the score.
        beta: Exponent of the Brier score's part.
        resamples: Of the bootstrap.

    Raises:
        ValueError: Arrays of different lengths or with values out of range.
    """
    y, p, w = checked(labels, p_fake, weights)
    if ((p < 0.0) | (p > 1.0)).any():
        raise ValueError("Probabilities must lie in [0, 1].")
    d = (p > 0.5).astype(np.float64) if decisions is None else checked(decisions, p, None)[0]
    score = sn34_score(y, p, d, w, alpha, beta)
    total = float(w.sum())
    tpr, tnr = _rates(y, d, w)
    curve = roc_curve(y, p, w)
    clipped = np.clip(p, CLIP, 1.0 - CLIP)
    surprise = -np.where(y == 1.0, np.log(clipped), np.log1p(-clipped))
    rates = tuple(rate for kind, names in sorted((groups or {}).items()) for rate in _group_rates(kind, names, y, d, w))
    return DetectionMetrics(
        n=y.size,
        accuracy=float(w[y == d].sum() / total) if total > 0.0 else None,
        balanced_accuracy=None if tpr is None or tnr is None else (tpr + tnr) / 2.0,
        mcc=score.mcc if total > 0.0 else None,
        brier=score.brier if total > 0.0 else None,
        log_loss=float(np.sum(w * surprise) / total) if total > 0.0 else None,
        roc_auc=None if curve is None else curve.area,
        average_precision=average_precision(y, p, w),
        eer=None if curve is None else curve.equal_error_rate,
        ece=expected_calibration_error(y, p, w),
        tpr_at_fpr_01=None if curve is None else curve.tpr_at_fpr(0.01),
        tpr_at_fpr_05=None if curve is None else curve.tpr_at_fpr(0.05),
        sn34_score=score.value,
        interval=bootstrap_sn34(y, p, d, w, sources, seed=seed, alpha=alpha, beta=beta, resamples=resamples),
        unscored=score.unscored,
        groups=rates,
        worst_group=_worst(rates),
    )


def _rates(labels: Floats, decisions: Floats, weights: Floats) -> tuple[float | None, float | None]:
    """TPR and TNR, each None when its class has no weight."""
    fake, real = weights * labels, weights * (1.0 - labels)
    tpr = float((fake * decisions).sum() / fake.sum()) if fake.sum() > 0.0 else None
    tnr = float((real * (1.0 - decisions)).sum() / real.sum()) if real.sum() > 0.0 else None
    return tpr, tnr


def _group_rates(
    kind: str, names: Sequence[str | None], labels: Floats, decisions: Floats, weights: Floats
) -> list[GroupRates]:
    if len(names) != labels.size:
        raise ValueError(f"There are {len(names)} groups of the kind {kind!r} for {labels.size} samples.")
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name is not None:
            members.setdefault(name, []).append(i)
    rates = []
    for name, indices in sorted(members.items()):
        tpr, tnr = _rates(labels[indices], decisions[indices], weights[indices])
        rates.append(GroupRates(kind=kind, name=name, n=len(indices), tpr=tpr, tnr=tnr))
    return rates


def _worst(rates: Sequence[GroupRates]) -> WorstGroup | None:
    found = [
        WorstGroup(kind=group.kind, name=group.name, rate=rate, value=value, n=group.n)
        for group in rates
        for rate, value in (("tpr", group.tpr), ("tnr", group.tnr))
        if value is not None
    ]
    return min(found, key=lambda worst: worst.value, default=None)
