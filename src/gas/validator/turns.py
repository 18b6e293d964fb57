"""First come, first served, for judgements that take different times."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gas.verification.duplicates import MediaIndex
from gas.verification.steps import Accept, Case

__all__ = ["AcceptInTurn", "Turns"]


class Turns:
    """Lets those who came first finish first."""

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._changed = threading.Condition()

    def enter(self, owners: Sequence[str]) -> None:
        """Line up, in this order."""
        with self._changed:
            self._waiting.extend(owners)

    def wait(self, owner: str) -> None:
        """Return when all who stood before have left; at once for one who doesn't stand in the line."""
        with self._changed:
            while owner in self._waiting and self._waiting[0] != owner:
                self._changed.wait()

    def leave(self, owner: str) -> None:
        """Make way, whatever came of it."""
        with self._changed:
            if owner in self._waiting:
                self._waiting.remove(owner)
            self._changed.notify_all()


class AcceptInTurn:
    """The last step of the judgement: as :class:`gas.verification.steps.Accept`, when all who came before are done."""

    name = "accept"

    def __init__(self, index: MediaIndex, turns: Turns) -> None:
        self._accept = Accept(index)
        self._turns = turns

    def run(self, case: Case) -> None:
        """See :class:`gas.verification.steps.Step`."""
        if not case.reasons:
            self._turns.wait(case.asked.owner)
        self._accept.run(case)
