"""From the logits of a whole run to its records, by the rules of :mod:`gas.scoring.detection`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Ask
from gas.bench.records import SampleRecord
from gas.scoring.sn34 import answers_from_logits, with_failures
from gas.types import Sample, SampleStatus

__all__ = ["Outcome", "make_records"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known about one showing of a sample.

    Attributes:
        logits: The answer, finite; None where there is none.
        error: Stable code of what went wrong; None when nothing did.
        media_error: Whether it was the medium, and not the model.
    """

    logits: NDArray[np.float32] | None = None
    error: str | None = None
    media_error: bool = False


def make_records(
    samples: Sequence[Sample],
    asks: Sequence[Ask],
    outcomes: Sequence[Outcome],
    *,
    width: int,
    classes: Sequence[str] | None,
) -> tuple[SampleRecord, ...]:
    """One record for each showing, in the order of ``asks``; failures of the model become wrong answers.

    Args:
        samples: Of the round.
        asks: Showings.
        outcomes: What came of each.
        width: Number of logits.
        classes: Names of the model's classes, when its package gives them.

    Raises:
        gas.errors.ModelFailed: Nobody knows what ``width`` logits mean (``bad_output``).
    """
    missing = np.full(width, np.nan, dtype=np.float32)
    logits = [missing if outcome.logits is None else outcome.logits for outcome in outcomes]
    labels = [samples[ask.index].media_type.label for ask in asks]
    answers = with_failures(answers_from_logits(np.array(logits).reshape(len(asks), width), classes), labels)
    decisions = answers.fake.astype(np.int64) if answers.predicted is None else answers.predicted
    rows = zip(asks, outcomes, answers.p_fake.tolist(), answers.fake.tolist(), decisions.tolist(), strict=True)
    return tuple(_record(samples[ask.index].sample_id, ask, out, p, fake, cls) for ask, out, p, fake, cls in rows)


def _record(sample_id: str, ask: Ask, outcome: Outcome, p_fake: float, fake: bool, predicted: int) -> SampleRecord:
    if outcome.media_error:
        return SampleRecord(sample_id, ask.variant, SampleStatus.MEDIA_ERROR, None, None, None, None, outcome.error)
    if outcome.logits is None:
        status, logits = SampleStatus.MODEL_ERROR, None
    else:
        status, logits = SampleStatus.OK, tuple(outcome.logits.tolist())
    return SampleRecord(sample_id, ask.variant, status, p_fake, predicted, fake, logits, outcome.error)
