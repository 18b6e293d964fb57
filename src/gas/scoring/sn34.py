"""A detector's answers and its score: sn34_score, the weights of samples, and the composition with robustness.

Labels are 0 (real) and 1 (fake: synthetic or semisynthetic); p_fake is the probability of "fake".

Source: specification "Scoring", sections 1 to 3. :mod:`gas.scoring.detection` adds what is reported beside the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gas.errors import ConfigurationError, ModelFailed
from gas.types import MediaType

__all__ = [
    "ALPHA",
    "BETA",
    "Answers",
    "Score",
    "answers_from_logits",
    "brier",
    "combine_sn34",
    "final_score",
    "mcc",
    "sample_weights",
    "sn34_score",
    "with_failures",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ALPHA: Final = 1.2
"""Default exponent of the normalised MCC in sn34_score."""
BETA: Final = 1.8
"""Default exponent of the normalised Brier score in sn34_score."""
ROBUST_WEIGHT: Final = 0.2
"""Default weight of the robustness pass in the final score."""
CLIP: Final = 1e-7
"""Probabilities are kept this far from 0 and 1 where certainty would be infinitely right or wrong."""
UNINFORMED_BRIER: Final = 0.25
"""Brier score of always answering one half."""

CLASSES: Final = (MediaType.REAL, MediaType.SYNTHETIC, MediaType.SEMISYNTHETIC)
"""Default order of three logits; two logits are the first two."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a detector says about n samples.

    Attributes:
        p_fake: Probability of "fake" in [0, 1], float64, shape (n,); NaN where the logits were not finite.
        fake: The binary decision, bool, shape (n,).
        predicted: Three-class decision (0 real, 1 synthetic, 2 semisynthetic), int64, shape (n,); None for a model that
            only tells real from fake.
    """

    p_fake: Floats
    fake: Bools
    predicted: Ints | None


@dataclass(frozen=True, slots=True)
class Score:
    """An sn34_score, or why there is none.

    Attributes:
        value: In [0, 1]; None when unscored.
        unscored: The reason; None when there is a score.
        mcc: Matthews correlation in [-1, 1].
        brier: Brier score in [0, 1].
    """

    value: float | None
    unscored: str | None
    mcc: float
    brier: float


def answers_from_logits(logits: ArrayLike, classes: Sequence[str] | None = None) -> Answers:
    """Turn a model's logits into probabilities and decisions (section 1).

    One value is the logit of "fake". Two or three are logits of [real, synthetic(, semisynthetic)], p_fake is one minus
    the softmax of "real", and the decision is "real" only where "real" is the largest (on a tie, the first class is).
    Rows that aren't finite get p_fake = NaN and the decision "real"; :func:`with_failures` makes them wrong answers.

    Args:
        logits: Real numbers, shape (n, k).
        classes: The k classes' names in the model's order, for another order or another k. ``real`` is real,
            ``semisynthetic`` is semisynthetic, and any other name, such as a generator's, is synthetic.

    Raises:
        gas.errors.ModelFailed: ``bad_output``: not a matrix, a width that nobody has named, or names that don't fit.
    """
    x = np.asarray(logits, dtype=np.float64)
    if x.ndim != 2:
        raise ModelFailed(f"Logits must have the shape (samples, classes), not {x.shape}.", code="bad_output")
    width = x.shape[1]
    finite: Bools = np.logical_and.reduce(np.isfinite(x), axis=1)
    x = np.where(finite.reshape(-1, 1), x, 0.0)
    if width == 1 and classes is None:
        p_fake = np.where(finite, 0.5 * (1.0 + np.tanh(0.5 * x[:, 0])), np.nan)
        return Answers(p_fake=p_fake, fake=finite & (x[:, 0] > 0.0), predicted=None)

    kinds = _class_labels(width, classes)
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    # Summing the fakes keeps digits that 1 - p[real] would lose where p[real] is near 1.
    p_fake = shifted[:, kinds != 0].sum(axis=1) / shifted.sum(axis=1)
    predicted = kinds[x.argmax(axis=1)]
    return Answers(
        p_fake=np.where(finite, p_fake, np.nan),
        fake=finite & (predicted != 0),
        predicted=np.where(finite, predicted, 0) if MediaType.SEMISYNTHETIC.label in kinds else None,
    )


def with_failures(answers: Answers, labels: ArrayLike, failed: ArrayLike | None = None) -> Answers:
    """Count failed samples as wrong (section 1): the wrong class, and p_fake = 1 - label.

    Args:
        answers: Of n samples.
        labels: Three-class or binary labels, shape (n,); anything but 0 is fake.
        failed: True where the model crashed, timed out or broke the format, shape (n,); samples whose p_fake isn't
            finite count as failed in any case.
    """
    is_fake = np.asarray(labels) != 0
    wrong = ~np.isfinite(answers.p_fake)
    if failed is not None:
        wrong |= np.asarray(failed, dtype=np.bool_)
    predicted = answers.predicted
    return Answers(
        p_fake=np.where(wrong, np.where(is_fake, 0.0, 1.0), answers.p_fake),
        fake=np.where(wrong, ~is_fake, answers.fake),
        predicted=None if predicted is None else np.where(wrong, np.where(is_fake, 0, 1), predicted),
    )


def mcc(labels: ArrayLike, decisions: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Matthews correlation coefficient of weighted counts, in [-1, 1]; 0 when a margin is empty (section 2).

    Args:
        labels: 0 or 1, shape (n,).
        decisions: 0 or 1, shape (n,).
        weights: Non-negative, shape (n,); all 1 when left out.
    """
    y, d, w = checked(labels, decisions, weights)
    tp, fp, fn, tn = (float(w[(y == a) & (d == b)].sum()) for a, b in ((1, 1), (0, 1), (1, 0), (0, 0)))
    return float(mcc_of_counts(np.array(tp), np.array(fp), np.array(fn), np.array(tn)))


def mcc_of_counts(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Matthews correlation of arrays of weighted counts, elementwise."""
    # A common scale cancels; dividing by a power of two loses nothing and keeps the product of margins in range.
    scale = np.ldexp(1.0, -np.frexp(tp + fp + fn + tn)[1])
    tp, fp, fn, tn = tp * scale, fp * scale, fn * scale, tn * scale
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    correlation: Floats = np.divide(
        tp * tn - fp * fn, np.sqrt(margins), out=np.zeros_like(margins), where=np.asarray(margins > 0.0)
    )
    return np.clip(correlation, -1.0, 1.0)


def brier(labels: ArrayLike, p_fake: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Weighted mean of (p_fake - label)^2, p clipped to [1e-7, 1 - 1e-7]; 0.25 without a sample (section 2)."""
    y, p, w = checked(labels, p_fake, weights)
    total = w.sum()
    if total <= 0.0:
        return UNINFORMED_BRIER
    return float(np.sum(w * (np.clip(p, CLIP, 1.0 - CLIP) - y) ** 2) / total)


def combine_sn34(mcc_value: ArrayLike, brier_value: ArrayLike, alpha: float = ALPHA, beta: float = BETA) -> Floats:
    """sqrt(mcc_norm * brier_norm), elementwise, in [0, 1] (section 2).

    mcc_norm = clip((MCC + 1) / 2, 0, 1)^alpha and brier_norm = max(0, (0.25 - Brier) / 0.25)^beta.
    """
    mcc_norm = np.clip((np.asarray(mcc_value, dtype=np.float64) + 1.0) / 2.0, 0.0, 1.0) ** alpha
    excess = (UNINFORMED_BRIER - np.asarray(brier_value, dtype=np.float64)) / UNINFORMED_BRIER
    score: Floats = np.sqrt(mcc_norm * np.maximum(0.0, excess) ** beta)
    return score


def sn34_score(
    labels: ArrayLike,
    p_fake: ArrayLike,
    decisions: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    alpha: float = ALPHA,
    beta: float = BETA,
) -> Score:
    """The score of one modality (section 2).

    Args:
        labels: 0 or 1, shape (n,).
        p_fake: In [0, 1], shape (n,).
        decisions: 0 or 1, shape (n,); p_fake > 0.5 when left out.
        weights: Non-negative, shape (n,), all 1 when left out. Weight w counts as w copies; a common factor cancels.
        alpha: Exponent of the MCC's part.
        beta: Exponent of the Brier score's part.

    Returns:
        The score, or the reason why there is none: no sample, or one class only.
    """
    y, p, w = checked(labels, p_fake, weights)
    d = (p > 0.5).astype(np.float64) if decisions is None else np.asarray(decisions, dtype=np.float64)
    reason = unscored_reason(y, w)
    mcc_value, brier_value = mcc(y, d, w), brier(y, p, w)
    value = None if reason else float(combine_sn34(mcc_value, brier_value, alpha, beta))
    return Score(value=value, unscored=reason, mcc=mcc_value, brier=brier_value)


def unscored_reason(labels: Floats, weights: Floats) -> str | None:
    """Why samples have no score; None when they have one."""
    if not labels.size:
        return "There is no sample."
    fake = weights[labels == 1.0].sum()
    real = weights[labels == 0.0].sum()
    if fake + real <= 0.0:
        return "No sample has any weight."
    if real <= 0.0:
        return "There is no real medium: a score needs both classes."
    if fake <= 0.0:
        return "There is no fake medium: a score needs both classes."
    return None


def sample_weights(provenances: Sequence[str], shares: Mapping[str, float] | None = None) -> Floats:
    """Weight of each sample from the shares that a competition gives to public, holdout and arena (section 3).

    weight = share * N / n_class over the classes present, shares renormalised over these; the mean weight is 1.

    Args:
        provenances: Class of each of the N samples.
        shares: Non-negative share of each class, summing to 1; None gives each sample the weight 1.

    Raises:
        gas.errors.ConfigurationError: Shares that don't sum to 1, a class without a share, or only shares of 0.
    """
    n = len(provenances)
    if shares is None or n == 0:
        return np.ones(n)
    if any(not 0.0 <= share <= 1.0 for share in shares.values()) or abs(sum(shares.values()) - 1.0) > 1e-9:
        raise ConfigurationError("Shares of the provenance classes must lie in [0, 1] and sum to 1.")
    names, index, counts = np.unique(np.asarray(provenances, dtype=str), return_inverse=True, return_counts=True)
    missing = [str(name) for name in names if name not in shares]
    if missing:
        raise ConfigurationError(f"No share is given for samples of the class {missing[0]!r}.")
    share = np.array([shares[str(name)] for name in names], dtype=np.float64)
    if share.sum() <= 0.0:
        raise ConfigurationError("Every class of samples that is present has the share 0.")
    per_class: Floats = share / share.sum() * n / counts
    return per_class[index]


def final_score(base: float | None, robust: float | None, weight: float = ROBUST_WEIGHT) -> float | None:
    """(1 - weight) * base + weight * robust (section 3); None when either part is unscored.

    Raises:
        gas.errors.ConfigurationError: A weight outside [0, 1].
    """
    if not 0.0 <= weight <= 1.0:
        raise ConfigurationError(f"The weight of the robustness pass must be in [0, 1], not {weight}.")
    return None if base is None or robust is None else (1.0 - weight) * base + weight * robust


def checked(labels: ArrayLike, values: ArrayLike, weights: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    """Three float64 arrays of one length, the weights filled in.

    Raises:
        ValueError: Lengths differ, a label is neither 0 nor 1, a value isn't finite, a weight is negative or infinite.
    """
    y = np.asarray(labels, dtype=np.float64)
    v = np.asarray(values, dtype=np.float64)
    w = np.ones_like(y) if weights is None else np.asarray(weights, dtype=np.float64)
    if not y.shape == v.shape == w.shape or y.ndim != 1:
        raise ValueError(f"Labels, values and weights must be 1-D and of one length: {y.shape}, {v.shape}, {w.shape}.")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("Labels must be 0 (real) or 1 (fake).")
    if not (np.isfinite(v).all() and np.isfinite(w).all() and (w >= 0.0).all()):
        raise ValueError("Values must be finite, and weights finite and not negative.")
    return y, v, w


def _class_labels(width: int, classes: Sequence[str] | None) -> Ints:
    """Three-class label of each column of the logits."""
    if classes is None:
        if width not in (2, 3):
            raise ModelFailed(
                f"The model answers with {width} values a sample; 1, 2 or 3 are understood.",
                code="bad_output",
                hint="Name each class in model.classes of the package's configuration.",
            )
        names: Sequence[str] = CLASSES[:width]
    else:
        names = classes
    if len(names) != width:
        raise ModelFailed(f"model.classes names {len(names)} classes, the model has {width}.", code="bad_output")
    special = {MediaType.REAL.value: 0, MediaType.SEMISYNTHETIC.value: 2}
    labels = np.array([special.get(str(name), 1) for name in names], dtype=np.int64)
    if width < 2 or not (labels == 0).any() or not (labels != 0).any():
        raise ModelFailed("model.classes must name 'real' and at least one other class.", code="bad_output")
    return labels
