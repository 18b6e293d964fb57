"""The entrance exam: is a model good enough to be worth a full run, and is it its author's own?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gas.arena.ports import ArenaConfig, RunOutcome
from gas.errors import Reason
from gas.types import SubmissionState

__all__ = ["MIN_COMMON_ANSWERS", "ExamVerdict", "answers_correlation", "judge_exam"]

MIN_COMMON_ANSWERS = 30
"""Below this number of common samples a correlation says nothing about copying."""


@dataclass(frozen=True, slots=True)
class ExamVerdict:
    """``CONFIRMED``, ``EXAM_FAILED`` or ``BLOCKED``, and why."""

    state: SubmissionState
    reasons: tuple[Reason, ...] = ()


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


def judge_exam(outcome: RunOutcome, config: ArenaConfig, rivals: Mapping[str, Mapping[str, float]]) -> ExamVerdict:
    """Decide an exam.

    Args:
        outcome: What the model did.
        config: Threshold of accuracy and of similarity.
        rivals: Answers in the same exam of other hotkeys' models with older commitments, by submission.
    """
    accuracy = outcome.metrics.get("accuracy")
    if not isinstance(accuracy, int | float):
        return ExamVerdict(
            SubmissionState.EXAM_FAILED,
            (Reason("exam_unscored", "The exam has no accuracy: the model answered no sample."),),
        )
    if accuracy < config.exam_accuracy:
        return ExamVerdict(
            SubmissionState.EXAM_FAILED,
            (
                Reason(
                    "exam_accuracy",
                    f"The model answers {accuracy:.1%} of the exam correctly; at least {config.exam_accuracy:.0%} "
                    "are needed. Benchmark it on the public data before the next push.",
                ),
            ),
        )
    for submission, answers in sorted(rivals.items()):
        similarity = answers_correlation(outcome.answers, answers)
        if similarity is not None and similarity > config.similarity_limit:
            return ExamVerdict(
                SubmissionState.BLOCKED,
                (
                    Reason(
                        "near_copy",
                        f"The model's answers follow those of an earlier model of another hotkey ({submission[:8]}) "
                        f"with a correlation of {similarity:.5f}; the limit is {config.similarity_limit}.",
                    ),
                ),
            )
    return ExamVerdict(SubmissionState.CONFIRMED)
