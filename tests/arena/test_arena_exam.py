"""The entrance exam blocks copies of an older model, and no honest model that happens to be right as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from arena_fakes import outcome
from numpy.typing import NDArray

from gas.arena.competitions import Competition
from gas.arena.exam import ExamVerdict, answers_correlation, judge_exam
from gas.clock import derive_rng
from gas.types import Modality, SubmissionState

RULES = Competition("images", Modality.IMAGE)
TRUTH = np.repeat([1.0, -1.0], 100)
"""An exam of 200 samples: 100 fakes, 100 reals."""

Floats = NDArray[np.float64]


def said(logits: Floats) -> dict[str, float]:
    with np.errstate(over="ignore"):
        return {f"{number:03}": float(p) for number, p in enumerate(1 / (1 + np.exp(-logits)))}


def judged(mine: Floats, older: Floats) -> ExamVerdict:
    return judge_exam(outcome(0.95, said(mine)), RULES, {"older-model": said(older)})


def detector(rng: np.random.Generator, sure: float, hard: Floats, shared: float) -> Floats:
    """Right, by ``sure`` and a quarter of that more or less; of that, a part is common to all detectors."""
    own = np.sqrt(shared) * hard + np.sqrt(1 - shared) * rng.normal(size=len(TRUTH))
    return np.asarray(TRUTH * sure * (1 + 0.25 * own))


@pytest.mark.parametrize("shared", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("sure", [2.0, 8.0, 30.0])
def test_two_honest_detectors_are_never_taken_for_copies(sure: float, shared: float) -> None:
    rng = derive_rng(4, "honest", str(sure), str(shared))
    alike = 0
    for _ in range(40):
        hard = rng.normal(size=len(TRUTH))
        one, two = (detector(rng, sure, hard, shared) for _ in range(2))
        # Media with a wrong label are wrong for both.
        flipped = rng.random(len(TRUTH)) < 0.02
        one[flipped], two[flipped] = -one[flipped], -two[flipped]
        verdict = judged(one, two)
        alike += (answers_correlation(said(one), said(two)) or 0) > RULES.similarity_limit
        assert verdict.state is SubmissionState.CONFIRMED
        assert verdict.resembles is None
    # What they are told apart by is not p_fake: by that nearly all pairs of sure ones would be copies.
    assert alike > 35 or sure < 8


@pytest.mark.parametrize("sure", [2.0, 8.0, 30.0])
@pytest.mark.parametrize(
    "change",
    [
        lambda logits, rng: logits,
        lambda logits, rng: logits + 0.02 * 0.25 * np.abs(logits).mean() * rng.normal(size=len(logits)),
        lambda logits, rng: logits / 4,
        lambda logits, rng: logits * 4,
        lambda logits, rng: logits.astype(np.float16).astype(float),
        lambda logits, rng: np.round(logits * 8) / 8 if np.abs(logits).mean() > 4 else np.round(logits * 64) / 64,
    ],
    ids=["as it is", "noise", "hotter", "colder", "half precision", "few steps"],
)
def test_a_copy_is_blocked_whatever_its_confidence(
    sure: float, change: Callable[[Floats, np.random.Generator], Floats]
) -> None:
    rng = derive_rng(5, "copies", str(sure))
    older = detector(rng, sure, rng.normal(size=len(TRUTH)), 0.5)
    verdict = judged(change(older, rng), older)
    assert verdict.state is SubmissionState.BLOCKED
    assert verdict.reasons[0].code == "near_copy"
    assert verdict.resembles is not None
    assert verdict.resembles.as_dict()["submission"] == "older-mo"


def test_a_copy_with_weights_of_eight_bits_is_blocked() -> None:
    rng = derive_rng(6, "small nets")
    inputs, aim = rng.normal(size=(1200, 32)), rng.normal(size=32)
    for seed in range(5):
        first = derive_rng(6, "net", seed).normal(size=(32, 128)) / 6
        hidden = np.maximum(inputs @ first, 0)
        second = np.linalg.solve(hidden.T @ hidden + 10 * np.eye(128), hidden.T @ (8 * np.sign(inputs @ aim)))
        shown = rng.normal(size=(200, 32))
        layers = [np.round(w / (scale := np.abs(w).max() / 127)) * scale for w in (first, second)]
        older = np.maximum(shown @ first, 0) @ second
        verdict = judged(np.maximum(shown @ layers[0], 0) @ layers[1], older)
        assert verdict.state is SubmissionState.BLOCKED, verdict


def test_models_that_only_say_yes_or_no_are_shown_and_not_blocked() -> None:
    # Nothing tells two of them apart but their mistakes.
    verdict = judged(TRUTH * 1e4, TRUTH * 1e4)
    assert verdict.state is SubmissionState.CONFIRMED
    assert verdict.resembles is not None
    assert verdict.resembles.order is None


def test_models_that_clamp_their_answers_are_not_blocked_for_the_few_that_they_do_not() -> None:
    mine, older = TRUTH * 10.0, TRUTH * 10.0
    fakes, reals = np.flatnonzero(TRUTH > 0), np.flatnonzero(TRUTH <= 0)
    mine[[fakes[0], reals[0]]], older[[fakes[0], reals[0]]] = (2.0, -4.0), (0.8, -0.9)
    verdict = judged(mine, older)
    assert verdict.state is SubmissionState.CONFIRMED, verdict
