"""Pay of serving operators: what a stress test measures, turned into a weight.

Source: specification "Scoring", section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "StressPass",
    "StressResult",
    "check_count",
    "concurrency_factor",
    "frame_similarity",
    "next_concurrency",
    "serving_weight",
    "similarity_factor",
    "step_indices",
    "success_factor",
    "summarise_passes",
]

REQUEST_TIMEOUT: Final = 60.0
"""W: seconds a user waits for a generation."""
FIRST_CONCURRENCY: Final = 4
STOP_ERROR_RATE: Final = 0.25
STOP_SECONDS: Final = 30.0
CHECKED_SHARE: Final = 1 / 16
"""6.25 % of the generations are downloaded and checked."""
CHECKED_STEPS: Final = 3
MINIMUM_SIMILARITY: Final = 0.85
"""Below this an answer to a user is refused."""
USER_CHECK_SHARE: Final = 0.35
"""Share of the users' requests whose answer is checked before it leaves."""
_REFERENCE_CONCURRENCY: Final = 128
_CONCURRENCY_EXPONENT: Final = 1.125
_SIMILARITY_EXPONENT: Final = 8
_SUCCESS_EXPONENT: Final = 2
_USER_SERVED: Final = 0.0001
_USER_FAILED: Final = 0.0008


@dataclass(frozen=True, slots=True)
class StressPass:
    """One pass of the ramp.

    Attributes:
        concurrency: Requests sent at once.
        completed: Generations that came back in time and whole.
        failed: Requests that did not; a refused download is one of them.
        seconds: How long the pass took.
        slowest: Seconds of the slowest answer.
    """

    concurrency: int
    completed: int
    failed: int
    seconds: float
    slowest: float

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed; 1 when there was none."""
        requests = self.completed + self.failed
        return self.failed / requests if requests else 1.0

    @property
    def too_slow(self) -> bool:
        """Whether the slowest answer ends the ramp."""
        return self.slowest > STOP_SECONDS


@dataclass(frozen=True, slots=True)
class StressResult:
    """What the counted passes add up to.

    Attributes:
        completed: R, generations completed.
        seconds: T, the time they took.
        error_rate: Of the last counted pass.
        passes: How many passes count.
    """

    completed: int
    seconds: float
    error_rate: float
    passes: int


def next_concurrency(passes: Sequence[StressPass]) -> int | None:
    """Requests of the next pass: 4, doubling, until one errs too much or is too slow; None ends the ramp."""
    if not passes:
        return FIRST_CONCURRENCY
    last = passes[-1]
    return None if last.error_rate >= STOP_ERROR_RATE or last.too_slow else last.concurrency * 2


def summarise_passes(passes: Sequence[StressPass]) -> StressResult:
    """Add the passes up; one whose slowest answer took over 30 s doesn't count unless it is the first."""
    counted = [p for i, p in enumerate(passes) if i == 0 or not p.too_slow]
    return StressResult(
        completed=sum(p.completed for p in counted),
        seconds=sum(p.seconds for p in counted),
        error_rate=counted[-1].error_rate if counted else 1.0,
        passes=len(counted),
    )


def concurrency_factor(completed: int, seconds: float, timeout: float = REQUEST_TIMEOUT) -> float:
    """(R / T * W / 128)^1.125: generations that a user's patience has room for, over a reference of 128."""
    if completed <= 0 or seconds <= 0.0:
        return 0.0
    return float((completed / seconds * timeout / _REFERENCE_CONCURRENCY) ** _CONCURRENCY_EXPONENT)


def similarity_factor(similarity: float) -> float:
    """sim^8 with sim in [0, 1]."""
    return min(1.0, max(0.0, similarity)) ** _SIMILARITY_EXPONENT


def success_factor(error_rate: float) -> float:
    """(1 - err)^2 with err in [0, 1]."""
    return (1.0 - min(1.0, max(0.0, error_rate))) ** _SUCCESS_EXPONENT


def serving_weight(
    result: StressResult, similarity: float, *, served: int = 0, unserved: int = 0, cheated: bool = False
) -> float:
    """A miner's weight: concurrency * similarity * success + 0.0001 u+ - 0.0008 u-, at least 0.

    Args:
        result: The stress test.
        similarity: Of the checked generations, in [0, 1].
        served: u+, users' requests answered.
        unserved: u-, users' requests failed.
        cheated: Whether a download differed from the hash declared for it: weight 0 for the round.
    """
    # Nothing completed in the first pass ends the ramp there; users' requests don't make up for it.
    if cheated or result.completed == 0:
        return 0.0
    measured = (
        concurrency_factor(result.completed, result.seconds)
        * similarity_factor(similarity)
        * success_factor(result.error_rate)
    )
    return max(0.0, measured + _USER_SERVED * served - _USER_FAILED * unserved)


def check_count(generations: int) -> int:
    """How many generations are downloaded: 6.25 % rounded down, at least 1; none of none."""
    return max(1, int(generations * CHECKED_SHARE)) if generations > 0 else 0


def step_indices(rng: np.random.Generator, steps: int) -> list[int]:
    """Which steps of a generation are recomputed: min(3, steps) distinct ones in [0, steps), in rising order."""
    return sorted(rng.choice(steps, size=min(CHECKED_STEPS, steps), replace=False).tolist()) if steps > 0 else []


def frame_similarity(returned: ArrayLike, recomputed: ArrayLike) -> float:
    """Similarity of one generation: max(0, .5 + .5 * min cosine), in [0, 1].

    Args:
        returned: The miner's latents after each checked step, shape (checked, latent...).
        recomputed: The validator's own, from the latents before each checked step.

    Returns:
        0 for another number of frames, another shape, values that are not finite, or no frame at all. A frame of
        zeros has the cosine 0 with anything but zeros.
    """
    theirs = np.asarray(returned, dtype=np.float64)
    ours = np.asarray(recomputed, dtype=np.float64)
    if theirs.shape != ours.shape or theirs.ndim < 1 or not theirs.size or not np.isfinite(theirs).all():
        return 0.0
    lowest = min(_cosine(a, b) for a, b in zip(theirs, ours, strict=True))
    return max(0.0, 0.5 + 0.5 * lowest)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Cosine of two frames, in [-1, 1]; scaled first, so that huge values don't overflow."""
    a_scale, b_scale = float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0))
    if a_scale == 0.0 or b_scale == 0.0:
        return 1.0 if a_scale == b_scale else 0.0
    x, y = a.reshape(-1) / a_scale, b.reshape(-1) / b_scale
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))
