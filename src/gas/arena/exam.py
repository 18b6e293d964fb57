"""The entrance exam: is a model good enough to be worth a full run, and is it its author's own?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.arena.competitions import Competition
from gas.arena.ports import RunOutcome
from gas.errors import Reason
from gas.types import SubmissionState

__all__ = ["MIN_COMMON_ANSWERS", "ExamVerdict", "Resemblance", "answers_correlation", "judge_exam", "order_correlation"]

MIN_COMMON_ANSWERS = 30
"""Below this number of common samples a correlation says nothing about copying."""
_SURE_ORDER: Final = 0.995
"""Correlation of order that confirms one of answers: honest models that share 99 % of what makes media hard for them
stay below .993, copies with weights of 8 bits come out above .998 (simulated, 200 samples)."""
_RESOLVED: Final = 1e-12
"""So near to 1 a double tells different answers no longer apart."""


@dataclass(frozen=True, slots=True)
class Resemblance:
    """The older model of another hotkey whose answers are nearest.

    Attributes:
        submission_id: Whose answers.
        correlation: Pearson's of p_fake, in [-1, 1]. Sure models that are right have a high one without a copy.
        order: Rank correlation within each decision, in [-1, 1]; see :func:`order_correlation`.
    """

    submission_id: str
    correlation: float
    order: float | None

    def as_dict(self) -> dict[str, object]:
        """JSON form; names no more of the other submission than its beginning."""
        return {
            "submission": self.submission_id[:8],
            "correlation": round(self.correlation, 6),
            "order": None if self.order is None else round(self.order, 6),
        }

    def flagged(self, flag: float) -> bool:
        """Whether the owner of the arena should look at it: by the order, or by p_fake where there is no order."""
        return (self.correlation if self.order is None else self.order) > flag

    def copied(self, limit: float) -> bool:
        """Whether it can't be chance: the order says so alone, or confirms what p_fake says."""
        if self.order is None:
            return False
        return self.order > limit or (self.correlation > limit and self.order > min(limit, _SURE_ORDER))


@dataclass(frozen=True, slots=True)
class ExamVerdict:
    """``CONFIRMED``, ``EXAM_FAILED`` or ``BLOCKED``, and why.

    Attributes:
        state: What becomes of the submission.
        reasons: For its author.
        resembles: Set from the competition's flag on, whatever the verdict: the owner of the arena looks at it.
    """

    state: SubmissionState
    reasons: tuple[Reason, ...] = ()
    resembles: Resemblance | None = None


def answers_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float | None:
    """Pearson's correlation of two models' p_fake over the samples that both answered.

    Returns:
        A value in [-1, 1]; None when there are fewer than :data:`MIN_COMMON_ANSWERS` common samples, or when one
        model always answers the same.
    """
    x, y = _common(a, b)
    return _cosine(x - x.mean(), y - y.mean()) if len(x) >= MIN_COMMON_ANSWERS else None


def order_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float | None:
    """Spearman's correlation within each decision: do two models find the same media the more and the less fake?

    Whoever is right and sure answers near 0 and 1 as everybody does who is, and correlates with them; how sure it is
    of which medium is its own. Ranks are taken among the samples on which both decide alike, of reals and of fakes
    apart, so neither the classes nor mistakes that are shared make it high, and no temperature makes it low.

    Returns:
        A value in [-1, 1]; None when fewer than :data:`MIN_COMMON_ANSWERS` samples can be compared that neither model
        answers as it answers most of the others.
    """
    x, y = _common(a, b)
    told = (x < 1.0 - _RESOLVED) & (y < 1.0 - _RESOLVED)
    groups = [told & (x > 0.5) & (y > 0.5), told & (x <= 0.5) & (y <= 0.5)]
    # What a model answers all the same, as one that is clamped does, says nothing of an order, and seems to agree.
    if sum(int(_apart(x[group], y[group]).sum()) for group in groups) < MIN_COMMON_ANSWERS:
        return None
    first, second = (np.concatenate([_centred_ranks(values[group]) for group in groups]) for values in (x, y))
    return _cosine(first, second)


def judge_exam(
    outcome: RunOutcome, rules: Competition, rivals: Mapping[str, Mapping[str, float]], *, alone: bool = True
) -> ExamVerdict:
    """Decide an exam.

    Args:
        outcome: What the model did.
        rules: Threshold of accuracy and of similarity.
        rivals: Answers in the same exam of other hotkeys' models with older commitments, by submission.
        alone: Whether the accuracy is judged here; that of a push of several models is judged over their average.
    """
    accuracy = outcome.metrics.get("accuracy")
    if not isinstance(accuracy, int | float):
        return ExamVerdict(
            SubmissionState.EXAM_FAILED,
            (Reason("exam_unscored", "The exam has no accuracy: the model answered no sample."),),
        )
    nearest = _nearest(outcome.answers, rivals, rules.similarity_limit)
    flagged = nearest if nearest is not None and nearest.flagged(rules.similarity_flag) else None
    if alone and accuracy < rules.exam_accuracy:
        return ExamVerdict(
            SubmissionState.EXAM_FAILED,
            (
                Reason(
                    "exam_accuracy",
                    f"The model answers {accuracy:.1%} of the exam correctly; at least {rules.exam_accuracy:.0%} "
                    "are needed. Benchmark it on the public data before the next push.",
                ),
            ),
            flagged,
        )
    again = outcome.metrics.get("reencoding")
    if isinstance(again, Mapping) and again.get("memorised"):
        return ExamVerdict(SubmissionState.BLOCKED, (_memorised(again),), flagged)
    if nearest is not None and nearest.copied(rules.similarity_limit):
        return ExamVerdict(
            SubmissionState.BLOCKED,
            (
                Reason(
                    "near_copy",
                    "The model's answers follow those of an earlier model of another hotkey "
                    f"({nearest.submission_id[:8]}): their correlation is {nearest.correlation:.5f}, and that of their "
                    f"order among media on which both decide alike {nearest.order:.5f}; "
                    f"the limit is {rules.similarity_limit}.",
                ),
            ),
            nearest,
        )
    return ExamVerdict(SubmissionState.CONFIRMED, resembles=flagged)


def _memorised(found: Mapping[str, object]) -> Reason:
    """The evidence, as its author is told it: what the answers were, not on which pictures."""
    worst = found.get("worst")
    pairs = ", ".join(f"{_said(a)} became {_said(b)}" for a, b in worst) if isinstance(worst, list | tuple) else ""
    return Reason(
        "memorised",
        f"Of {found.get('asked')} pictures shown again, encoded at quality {found.get('quality')}, the decision on "
        f"{found.get('flipped')} changed; an honest model's hardly move. p_fake, the largest changes: {pairs}.",
    )


def _said(p_fake: float | None) -> str:
    return "no answer" if p_fake is None else f"{p_fake:.2f}"


def _nearest(
    answers: Mapping[str, float], rivals: Mapping[str, Mapping[str, float]], limit: float
) -> Resemblance | None:
    found = [
        Resemblance(submission, correlation, order_correlation(answers, theirs))
        for submission, theirs in sorted(rivals.items())
        if (correlation := answers_correlation(answers, theirs)) is not None
    ]
    return max(
        found,
        key=lambda one: (one.copied(limit), -1.0 if one.order is None else one.order, one.correlation),
        default=None,
    )


def _common(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two models' answers to what both answered, in one order."""
    names = sorted(a.keys() & b.keys())
    return np.array([a[name] for name in names]), np.array([b[name] for name in names])


def _apart(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where neither of two rows of answers has the one value that it has most often."""
    apart = np.ones(len(x), np.bool_)
    for values in (x, y) if len(x) else ():
        _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
        if counts.max() > 1:
            apart &= places != counts.argmax()
    return apart


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks less their mean; equal values share theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places] - (len(values) + 1) / 2)


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return None if norm < 1e-12 else float(x @ y) / norm
