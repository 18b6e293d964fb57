"""The entrance exam: is a model good enough to be worth a full run, and is it its author's own?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gas.arena.competitions import Competition
from gas.arena.ports import RunOutcome
from gas.errors import Reason
from gas.types import SubmissionState

__all__ = ["MIN_COMMON_ANSWERS", "ExamVerdict", "Resemblance", "answers_correlation", "judge_exam"]

MIN_COMMON_ANSWERS = 30
"""Below this number of common samples a correlation says nothing about copying."""


@dataclass(frozen=True, slots=True)
class Resemblance:
    """The older model of another hotkey whose answers are nearest.

    Attributes:
        submission_id: Whose answers.
        correlation: Pearson's, in [-1, 1].
    """

    submission_id: str
    correlation: float

    def as_dict(self) -> dict[str, object]:
        """JSON form; names no more of the other submission than its beginning."""
        return {"submission": self.submission_id[:8], "correlation": round(self.correlation, 6)}


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
    common = sorted(a.keys() & b.keys())
    if len(common) < MIN_COMMON_ANSWERS:
        return None
    x = np.array([a[k] for k in common])
    y = np.array([b[k] for k in common])
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return None if norm < 1e-12 else float(x @ y) / norm


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
    nearest = _nearest(outcome.answers, rivals)
    flagged = nearest if nearest is not None and nearest.correlation > rules.similarity_flag else None
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
    if nearest is not None and nearest.correlation > rules.similarity_limit:
        return ExamVerdict(
            SubmissionState.BLOCKED,
            (
                Reason(
                    "near_copy",
                    "The model's answers follow those of an earlier model of another hotkey "
                    f"({nearest.submission_id[:8]}) with a correlation of {nearest.correlation:.5f}; "
                    f"the limit is {rules.similarity_limit}.",
                ),
            ),
            nearest,
        )
    return ExamVerdict(SubmissionState.CONFIRMED, resembles=flagged)


def _memorised(found: Mapping[str, object]) -> Reason:
    """The evidence, as its author is told it: what the answers were, not on which pictures."""
    worst = found.get("worst")
    pairs = ", ".join(f"{a:.2f} became {b:.2f}" for a, b in worst) if isinstance(worst, list | tuple) else ""
    return Reason(
        "memorised",
        f"Of {found.get('asked')} pictures shown again, encoded at quality {found.get('quality')}, the decision on "
        f"{found.get('flipped')} changed; an honest model's hardly move. p_fake, the largest changes: {pairs}.",
    )


def _nearest(answers: Mapping[str, float], rivals: Mapping[str, Mapping[str, float]]) -> Resemblance | None:
    found = [
        Resemblance(submission, correlation)
        for submission, theirs in sorted(rivals.items())
        if (correlation := answers_correlation(answers, theirs)) is not None
    ]
    return max(found, key=lambda one: one.correlation, default=None)
