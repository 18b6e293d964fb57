"""Curves of a scoring classifier, with sample weights: ROC, precision, calibration; and the numbers read off them.

Labels are 0 (real) and 1 (fake); a higher score means "more likely fake". Every sum is a sum of weights, so a sample of
weight w counts as w copies. A number that a sample doesn't define (no real or no fake medium) is None, never 0.

Source: specification "Scoring", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ReliabilityCurve",
    "RocCurve",
    "average_precision",
    "expected_calibration_error",
    "reliability_curve",
    "roc_auc",
    "roc_curve",
]

Floats = NDArray[np.float64]

CALIBRATION_BINS: Final = 15
_ROUNDING: Final = 1e-12


@dataclass(frozen=True, slots=True)
class RocCurve:
    """What every threshold achieves, from "nothing is fake" to "everything is".

    Attributes:
        fpr: Share of the real weight called fake, float64, rising from 0 to 1.
        tpr: Share of the fake weight called fake, float64, rising from 0 to 1.
        thresholds: Scores at or above this are called fake; the first is infinite.
    """

    fpr: Floats
    tpr: Floats
    thresholds: Floats

    @property
    def area(self) -> float:
        """Area under the curve by the trapezoidal rule, in [0, 1]: ties count half."""
        return float(np.clip(np.trapezoid(self.tpr, self.fpr), 0.0, 1.0))

    @property
    def equal_error_rate(self) -> float:
        """Where the rate of false alarms equals the rate of misses, in [0, 1].

        FPR and FNR = 1 - TPR are taken as linear between the thresholds of the ROC, and the point at which they cross
        is interpolated linearly.
        """
        gap = self.fpr + self.tpr - 1.0
        after = int(np.argmax(gap >= 0.0))
        before = after - 1
        # The gap rises from -1 at the first point, so there is a point before the first that isn't negative.
        share = -gap[before] / (gap[after] - gap[before])
        return float(self.fpr[before] + share * (self.fpr[after] - self.fpr[before]))

    def tpr_at_fpr(self, limit: float) -> float:
        """The best TPR among thresholds whose FPR is at most ``limit``: a rate that a deployment can really have."""
        return float(self.tpr[self.fpr <= limit + _ROUNDING].max())


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """Promised against actual share of fakes, one entry a non-empty bin.

    Attributes:
        predicted: Weighted mean of p_fake in the bin.
        observed: Weighted share of fakes in the bin.
        share: The bin's share of the weight; sums to 1.
    """

    predicted: Floats
    observed: Floats
    share: Floats


def roc_curve(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> RocCurve | None:
    """The receiver operating characteristic, one point a distinct score; None without both classes.

    Args:
        labels: 0 or 1, shape (n,).
        scores: Finite, shape (n,).
        weights: Non-negative, shape (n,); all 1 when left out.
    """
    fakes, reals, thresholds = _cumulative(labels, scores, weights)
    if not fakes.size or fakes[-1] <= 0.0 or reals[-1] <= 0.0:
        return None
    return RocCurve(
        fpr=np.concatenate([[0.0], reals / reals[-1]]),
        tpr=np.concatenate([[0.0], fakes / fakes[-1]]),
        thresholds=np.concatenate([[np.inf], thresholds]),
    )


def roc_auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Chance that a fake scores above a real one, ties counting half; None without both classes."""
    curve = roc_curve(labels, scores, weights)
    return None if curve is None else curve.area


def average_precision(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Precision averaged over recall, sum of (R_k - R_(k-1)) * P_k without interpolation; None without fakes."""
    fakes, reals, _ = _cumulative(labels, scores, weights)
    if not fakes.size or fakes[-1] <= 0.0:
        return None
    called = fakes + reals
    precision = np.divide(fakes, called, out=np.zeros_like(fakes), where=called > 0.0)
    return float(np.clip(np.sum(np.diff(fakes, prepend=0.0) * precision) / fakes[-1], 0.0, 1.0))


def reliability_curve(
    labels: ArrayLike, p_fake: ArrayLike, weights: ArrayLike | None = None, bins: int = CALIBRATION_BINS
) -> ReliabilityCurve | None:
    """Compare p_fake with the share of fakes in bins of equal width over [0, 1]; None without weight.

    Args:
        labels: 0 or 1, shape (n,).
        p_fake: In [0, 1], shape (n,). A bin holds [lower, upper); the last holds 1 too.
        weights: Non-negative, shape (n,); all 1 when left out.
        bins: Number of bins.
    """
    y, p, w = _arrays(labels, p_fake, weights)
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    weight = np.bincount(index, w, minlength=bins)
    total = weight.sum()
    if total <= 0.0:
        return None
    filled = weight > 0.0
    return ReliabilityCurve(
        predicted=np.bincount(index, w * p, minlength=bins)[filled] / weight[filled],
        observed=np.bincount(index, w * y, minlength=bins)[filled] / weight[filled],
        share=weight[filled] / total,
    )


def expected_calibration_error(
    labels: ArrayLike, p_fake: ArrayLike, weights: ArrayLike | None = None, bins: int = CALIBRATION_BINS
) -> float | None:
    """Mean distance between p_fake and the share of fakes over the bins of :func:`reliability_curve`, in [0, 1]."""
    curve = reliability_curve(labels, p_fake, weights, bins)
    return None if curve is None else float(np.sum(curve.share * np.abs(curve.predicted - curve.observed)))


def _cumulative(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Weight of fakes and of reals at or above each distinct score, from the highest score down."""
    y, s, w = _arrays(labels, scores, weights)
    # A sample without weight is as good as absent; leaving it in would add thresholds that nothing reaches.
    y, s, w = y[w > 0.0], s[w > 0.0], w[w > 0.0]
    order = np.argsort(-s, kind="stable")
    y, s, w = y[order], s[order], w[order]
    last = np.flatnonzero(np.diff(s, append=np.nan) != 0.0)
    return np.cumsum(w * y)[last], np.cumsum(w * (1.0 - y))[last], s[last]


def _arrays(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    y = np.asarray(labels, dtype=np.float64)
    s = np.asarray(scores, dtype=np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, dtype=np.float64)
    if not y.shape == s.shape == w.shape or y.ndim != 1:
        raise ValueError(f"Labels, scores and weights must be 1-D and of one length: {y.shape}, {s.shape}, {w.shape}.")
    return y, s, w
