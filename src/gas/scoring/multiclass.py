"""Pay of live detectors: binary and three-class skill over their latest challenges.

Source: specification "Scoring", section 4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from gas.errors import ConfigurationError
from gas.scoring.sn34 import mcc
from gas.types import Modality

__all__ = ["NO_ANSWER", "LiveAnswer", "LivePolicy", "live_answer", "live_reward", "live_skill", "multiclass_mcc"]

NO_CLASS: Final = -1
"""Stands for a three-class answer that was not given."""


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """One answer to one challenge.

    Attributes:
        fake: The binary decision; None when there is no answer, or a bad one.
        predicted: 0 real, 1 synthetic, 2 semisynthetic; -1 when only the binary question was answered, or none.
    """

    fake: bool | None
    predicted: int = NO_CLASS


NO_ANSWER: Final = LiveAnswer(fake=None)
"""What silence, a time-out and nonsense amount to: a wrong answer."""


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """Parameters of the reward.

    Attributes:
        binary_weight: w_b, the weight of telling real from fake.
        multiclass_weight: w_m, the weight of telling the three classes apart; both sum to 1.
        modality_shares: p_m, summing to 1.
        window: How many of the latest challenges count.
        minimum: With fewer answers than this the skill is 0.

    Raises:
        gas.errors.ConfigurationError: Weights or shares that are negative or don't sum to 1.
    """

    binary_weight: float = 0.5
    multiclass_weight: float = 0.5
    modality_shares: Mapping[Modality, float] = field(
        default_factory=lambda: {Modality.IMAGE: 0.6, Modality.VIDEO: 0.4}
    )
    window: int = 200
    minimum: int = 5

    def __post_init__(self) -> None:
        for name, values in (
            ("binary_weight and multiclass_weight", (self.binary_weight, self.multiclass_weight)),
            ("modality_shares", tuple(self.modality_shares.values())),
        ):
            if min(values, default=-1.0) < 0.0 or abs(sum(values) - 1.0) > 1e-9:
                raise ConfigurationError(f"Live detection: {name} must not be negative and must sum to 1.")
        if self.window < 1 or self.minimum < 0:
            raise ConfigurationError("Live detection: the window must be positive, the minimum not negative.")


def live_answer(probabilities: Sequence[float]) -> LiveAnswer:
    """Read a detector's probabilities: [p_fake], [real, fake] or [real, synthetic, semisynthetic].

    The largest one decides (on a tie, the first). They need not sum to 1: rounding costs nothing. One value is fake
    above 0.5. Anything else (another width, NaN, outside [0, 1], all 0) is a bad answer, :data:`NO_ANSWER`.
    """
    if len(probabilities) not in (1, 2, 3) or not all(math.isfinite(p) and 0.0 <= p <= 1.0 for p in probabilities):
        return NO_ANSWER
    if len(probabilities) == 1:
        return LiveAnswer(fake=probabilities[0] > 0.5)
    if max(probabilities) <= 0.0:
        return NO_ANSWER
    winner = max(range(len(probabilities)), key=lambda i: probabilities[i])
    return LiveAnswer(fake=winner != 0, predicted=winner if len(probabilities) == 3 else NO_CLASS)


def multiclass_mcc(labels: ArrayLike, predicted: ArrayLike, classes: int = 3) -> float:
    """Gorodkin's R_K, the Matthews correlation of several classes, in [-1, 1]; 0 when a margin holds one class only.

    R_K = (c s - sum p_k t_k) / sqrt((s^2 - sum p_k^2)(s^2 - sum t_k^2)) with s samples, c of them right, t_k of class
    k and p_k predicted as k.

    Args:
        labels: In 0..classes-1, shape (n,).
        predicted: In 0..classes-1, shape (n,).
        classes: Number of classes.
    """
    truth, answer = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    t = np.bincount(truth, minlength=classes).astype(np.float64)
    p = np.bincount(answer, minlength=classes).astype(np.float64)
    s, c = float(truth.size), float((truth == answer).sum())
    spread = (s * s - float(p @ p)) * (s * s - float(t @ t))
    return 0.0 if spread <= 0.0 else float(np.clip((c * s - float(p @ t)) / math.sqrt(spread), -1.0, 1.0))


def live_skill(labels: Sequence[int], answers: Sequence[LiveAnswer], policy: LivePolicy | None = None) -> float:
    """Skill of one miner in one modality, in [0, 1]: w_b * max(0, MCC_binary) + w_m * max(0, MCC_3class).

    Silence and bad answers are wrong in both parts. A binary answer is wrong in the three-class part: it earns the
    binary part only. The wrong class of a fake is "real", that of a real medium "synthetic".

    Args:
        labels: 0 real, 1 synthetic, 2 semisynthetic; oldest first.
        answers: One to each challenge.
        policy: Weights, window and minimum.

    Raises:
        ValueError: Not one answer a label.
    """
    rules = policy or LivePolicy()
    recent = list(zip(labels, answers, strict=True))[-rules.window :]
    if sum(answer.fake is not None for _, answer in recent) < rules.minimum:
        return 0.0
    truth = [label for label, _ in recent]
    is_fake = [label != 0 for label in truth]
    fake = [not f if a.fake is None else a.fake for f, (_, a) in zip(is_fake, recent, strict=True)]
    predicted = [
        (0 if label else 1) if a.fake is None or a.predicted == NO_CLASS else a.predicted for label, a in recent
    ]
    binary = max(0.0, mcc(np.array(is_fake), np.array(fake)))
    three = max(0.0, multiclass_mcc(truth, predicted))
    return rules.binary_weight * binary + rules.multiclass_weight * three


def live_reward(skills: Mapping[Modality, float], policy: LivePolicy | None = None) -> float:
    """Sum over modalities of p_m * skill; a modality without a skill counts 0.

    Args:
        skills: From :func:`live_skill`.
        policy: The shares p_m.
    """
    rules = policy or LivePolicy()
    return sum(share * skills.get(modality, 0.0) for modality, share in rules.modality_shares.items())
