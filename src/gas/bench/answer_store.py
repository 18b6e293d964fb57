"""What a run knows of every showing, as columns: some twenty bytes a showing, however long the plan is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass

__all__ = ["AnswerStore"]

_UNKNOWN, _ANSWERED, _MODEL, _MEDIUM = range(4)
_STATES: Final = np.uint8


class AnswerStore:
    """Outcomes by showing; not safe for several threads at once.

    Args:
        asks: Every showing of the run.
        width: Number of logits of the model.
    """

    def __init__(self, asks: Sequence[Ask], width: int) -> None:
        keys = np.array([_key(ask) for ask in asks], np.int64)
        # Sorted, so that a place is found without an object for each showing.
        self._keys = np.unique(keys)
        self._states = np.zeros(len(self._keys), _STATES)
        self._codes = np.zeros(len(self._keys), np.int16)
        self._logits = np.zeros((len(self._keys), width), np.float32)
        self._errors: list[str | None] = [None]
        self._count = 0

    def __len__(self) -> int:
        """How many showings are known."""
        return self._count

    def __contains__(self, ask: Ask) -> bool:
        """Whether the outcome of a showing is known."""
        place = self._place(ask)
        return place is not None and self._states[place] != _UNKNOWN

    @property
    def nbytes(self) -> int:
        """Memory that the columns take."""
        return self._keys.nbytes + self._states.nbytes + self._codes.nbytes + self._logits.nbytes

    def update(self, answers: Iterable[tuple[Ask, Outcome]]) -> None:
        """Keep outcomes; one that is known already is replaced, showings of another run are left out."""
        for ask, outcome in answers:
            place = self._place(ask)
            if place is None:
                continue
            self._count += int(self._states[place] == _UNKNOWN)
            if outcome.logits is not None:
                self._logits[place], self._states[place] = outcome.logits, _ANSWERED
            else:
                self._states[place] = _MEDIUM if outcome.media_error else _MODEL
            self._codes[place] = self._code(outcome.error)

    def outcomes(self, asks: Iterable[Ask], unknown: Outcome) -> Iterator[Outcome]:
        """The outcome of each of some showings; ``unknown`` where there is none."""
        for ask in asks:
            place = self._place(ask)
            state = _UNKNOWN if place is None else int(self._states[place])
            if place is None or state == _UNKNOWN:
                yield unknown
                continue
            error = self._errors[self._codes[place]]
            yield Outcome(self._logits[place] if state == _ANSWERED else None, error, media_error=state == _MEDIUM)

    def _place(self, ask: Ask) -> int | None:
        key = _key(ask)
        place = int(self._keys.searchsorted(key))
        return place if place < len(self._keys) and self._keys[place] == key else None

    def _code(self, error: str | None) -> int:
        if error not in self._errors:
            self._errors.append(error)
        return self._errors.index(error)


def _key(ask: Ask) -> int:
    return ask.index * 4 + 2 * (ask.variant is Pass.ROBUST) + ask.again
