"""The answers of a run as JSON: in its journal, and on the way from another machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass

__all__ = ["from_rows", "to_rows"]


def to_rows(answers: Iterable[tuple[Ask, Outcome]]) -> list[list[object]]:
    """JSON form of some answers, ``[index, pass, again, logits, error, media_error]`` each.

    Logits are float32, which JSON's doubles hold exactly.
    """
    return [
        [
            ask.index,
            ask.variant.value,
            ask.again,
            None if outcome.logits is None else outcome.logits.tolist(),
            outcome.error,
            outcome.media_error,
        ]
        for ask, outcome in answers
    ]


def from_rows(rows: object) -> dict[Ask, Outcome]:
    """What :func:`to_rows` was given.

    Raises:
        ValueError, TypeError: The rows are of another form.
    """
    if not isinstance(rows, Sequence):
        raise TypeError("no list of answers")
    return {
        Ask(int(index), Pass(variant), bool(again)): Outcome(
            None if logits is None else np.array(logits, dtype=np.float32), error, bool(media_error)
        )
        for index, variant, again, logits, error, media_error in rows
    }
