"""How sure a score is, and which of two detectors is better: the cluster bootstrap.

Source: specification "Scoring", section 3. Samples of one source aren't independent, so whole sources are drawn, with
replacement. The score is a function of five sums, so each source is reduced to its sums first and a resample is one
row of a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gas.clock import derive_rng
from gas.scoring.sn34 import ALPHA, BETA, CLIP, checked, combine_sn34, mcc_of_counts

__all__ = [
    "RESAMPLES",
    "BootstrapInterval",
    "PairedDifference",
    "bootstrap_sn34",
    "cluster_sums",
    "paired_difference",
    "scores_of_sums",
]

Floats = NDArray[np.float64]

RESAMPLES: Final = 1000
_DRAWS_AT_ONCE: Final = 1 << 20
_TIE: Final = 1e-12


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """A 95 % percentile interval of sn34_score from resampled clusters.

    Attributes:
        low: 2.5th percentile; None when no interval can be given.
        high: 97.5th percentile; None when no interval can be given.
        clusters: How many clusters were drawn from; fewer than two give no interval.
        used: Resamples that had a score.
        skipped: Resamples without both classes, which are left out.
    """

    low: float | None
    high: float | None
    clusters: int
    used: int
    skipped: int

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def bootstrap_sn34(
    labels: ArrayLike,
    p_fake: ArrayLike,
    decisions: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    beta: float = BETA,
    resamples: int = RESAMPLES,
) -> BootstrapInterval:
    """A 95 % interval of sn34_score by the cluster bootstrap (section 3).

    Samples of one source aren't independent, so whole sources are drawn, with replacement, as many as there are. The
    score is a function of five sums, so each source is first reduced to its sums, and a resample is one row of a
    matrix product. The same seed gives the same interval whatever the order of samples within a source.

    Args:
        labels: 0 or 1, shape (n,).
        p_fake: In [0, 1], shape (n,).
        decisions: 0 or 1, shape (n,); p_fake > 0.5 when left out.
        weights: Non-negative, shape (n,); all 1 when left out.
        sources: Cluster of each sample; each sample is its own when left out.
        seed: Of the draws.
        alpha: Exponent of the MCC's part of the score.
        beta: Exponent of the Brier score's part.
        resamples: How many to draw.
    """
    y, p, w = checked(labels, p_fake, weights)
    d = (p > 0.5).astype(np.float64) if decisions is None else np.asarray(decisions, dtype=np.float64)
    sums = cluster_sums(y, p, d, w, sources)
    count = sums.shape[0]
    if count < 2:
        return BootstrapInterval(low=None, high=None, clusters=count, used=0, skipped=0)
    drawn = np.concatenate(list(_resamples(sums, derive_rng(seed, "sn34-bootstrap"), resamples)))
    scores = scores_of_sums(drawn, alpha, beta)
    scores = scores[~np.isnan(scores)]
    if not scores.size:
        return BootstrapInterval(low=None, high=None, clusters=count, used=0, skipped=resamples)
    low, high = np.percentile(scores, [2.5, 97.5])
    return BootstrapInterval(
        low=float(low), high=float(high), clusters=count, used=scores.size, skipped=resamples - scores.size
    )


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """By how much one detector's score is above another's on the same samples.

    Attributes:
        first: Score of the first detector.
        second: Score of the second.
        difference: ``first - second``.
        low: Lower end of the difference's 95 % percentile interval; None with fewer than two clusters.
        high: Upper end.
        better: Share of the resamples in which the first is ahead, ties counted half; None like the interval.
        clusters: How many sources were drawn from.
    """

    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    better: float | None
    clusters: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(
    labels: ArrayLike,
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    weights: ArrayLike | None = None,
    sources: Sequence[str] | None = None,
    *,
    seed: int = 0,
    alpha: float = ALPHA,
    beta: float = BETA,
    resamples: int = RESAMPLES,
) -> PairedDifference | None:
    """Compare two detectors on the same samples: in each resample both are judged on the same draw of sources.

    What makes some sources hard for everybody cancels, so the interval is narrower than two separate ones suggest.

    Args:
        labels: 0 or 1, shape (n,).
        first: p_fake in [0, 1] and decisions 0 or 1 of one detector, each of shape (n,).
        second: The same of the other.
        weights: Non-negative, shape (n,); all 1 when left out.
        sources: Cluster of each sample; each sample is its own when left out.
        seed: Of the draws.
        alpha: Exponent of the MCC's part of the score.
        beta: Exponent of the Brier score's part.
        resamples: How many to draw.

    Returns:
        The comparison; None when there is no score, for want of a class.
    """
    both = []
    for p_fake, decisions in (first, second):
        y, p, w = checked(labels, p_fake, weights)
        both.append(cluster_sums(y, p, np.asarray(decisions, dtype=np.float64), w, sources))
    sums = np.concatenate(both, axis=1)
    one, two = (float(scores_of_sums(half.sum(axis=0, keepdims=True), alpha, beta)[0]) for half in both)
    if np.isnan(one) or np.isnan(two):
        return None
    count = sums.shape[0]
    if count < 2:
        return PairedDifference(one, two, one - two, None, None, None, count)
    drawn = np.concatenate(list(_resamples(sums, derive_rng(seed, "sn34-bootstrap"), resamples)))
    gaps = scores_of_sums(drawn[:, :5], alpha, beta) - scores_of_sums(drawn[:, 5:], alpha, beta)
    gaps = gaps[~np.isnan(gaps)]
    # Equal sums may differ in their last bits, as they are columns of one matrix product.
    gaps[np.abs(gaps) < _TIE] = 0.0
    if not gaps.size:
        return PairedDifference(one, two, one - two, None, None, None, count)
    low, high = np.percentile(gaps, [2.5, 97.5])
    better = float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    return PairedDifference(one, two, one - two, float(low), float(high), better, count)


def cluster_sums(
    labels: Floats, p_fake: Floats, decisions: Floats, weights: Floats, sources: Sequence[str] | None
) -> Floats:
    """The five sums of each source that sn34_score is a function of: tp, fp, fn, tn and squared error.

    Args:
        labels: 0 or 1, shape (n,).
        p_fake: In [0, 1], shape (n,).
        decisions: 0 or 1, shape (n,).
        weights: Non-negative, shape (n,).
        sources: Cluster of each sample; each sample is its own when left out.

    Returns:
        Shape (clusters, 5), clusters in the order of their names.
    """
    if sources is None:
        cluster = np.arange(labels.size)
    else:
        if len(sources) != labels.size:
            raise ValueError(f"There are {len(sources)} sources for {labels.size} samples.")
        cluster = np.unique(np.asarray(sources, dtype=str), return_inverse=True)[1]
    count = int(cluster.max(initial=-1)) + 1
    y, d, w = labels, decisions, weights
    error = (np.clip(p_fake, CLIP, 1.0 - CLIP) - y) ** 2
    parts = (w * y * d, w * (1 - y) * d, w * y * (1 - d), w * (1 - y) * (1 - d), w * error)
    return np.stack([np.bincount(cluster, part, minlength=count).astype(np.float64) for part in parts], axis=1)


def _resamples(sums: Floats, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """Draw whole clusters with replacement, as many as there are.

    Args:
        sums: Shape (clusters, k); rows are added up.
        rng: Of the draws.
        resamples: How many to draw.

    Yields:
        Arrays of shape (some, k), ``resamples`` rows in all.
    """
    batch = max(1, _DRAWS_AT_ONCE // sums.shape[0])
    for start in range(0, resamples, batch):
        yield _resample(rng, sums, min(batch, resamples - start))


def scores_of_sums(sums: Floats, alpha: float, beta: float) -> Floats:
    """sn34_score of each row of the five sums; NaN for a row without both classes."""
    tp, fp, fn, tn, squares = sums.T
    scored = (tp + fn > 0.0) & (fp + tn > 0.0)
    scores = np.full(len(sums), np.nan)
    tp, fp, fn, tn, squares = (column[scored] for column in (tp, fp, fn, tn, squares))
    scores[scored] = combine_sn34(mcc_of_counts(tp, fp, fn, tn), squares / (tp + fp + fn + tn), alpha, beta)
    return scores


def _resample(rng: np.random.Generator, sums: Floats, resamples: int) -> Floats:
    """Sums of ``resamples`` draws of as many clusters as there are, shape (resamples, sums.shape[1])."""
    count = sums.shape[0]
    draws = rng.integers(0, count, size=(resamples, count))
    draws += np.arange(resamples)[:, None] * count
    times = np.bincount(draws.reshape(-1), minlength=resamples * count).reshape(resamples, count)
    return times.astype(np.float64) @ sums
