"""The life of a submission: which state may follow which, and the one function that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import update
from sqlalchemy.orm import Session

from gas.errors import GasError, Reason
from gas.storage.tables import SubmissionRow
from gas.types import TERMINAL_STATES, SubmissionState

__all__ = [
    "ACTIVE_STATES",
    "LIVE_ROUNDS",
    "ROUND_CLOSED",
    "ROUND_CLOSING",
    "ROUND_OPEN",
    "SLOT_STATES",
    "TRANSITIONS",
    "IllegalTransition",
    "transition",
]

_S = SubmissionState

_FORWARD: Final[Mapping[SubmissionState, frozenset[SubmissionState]]] = {
    _S.UPLOADED: frozenset({_S.SCANNING}),
    _S.SCANNING: frozenset({_S.REJECTED, _S.EXAMINING}),
    _S.EXAMINING: frozenset({_S.EXAM_FAILED, _S.BLOCKED, _S.CONFIRMED}),
    _S.CONFIRMED: frozenset({_S.QUEUED}),
    _S.QUEUED: frozenset({_S.RUNNING}),
    _S.RUNNING: frozenset({_S.SCORED}),
}

_ENDED: Final[Mapping[SubmissionState, frozenset[SubmissionState]]] = {
    state: frozenset({_S.WITHDRAWN}) if state is _S.SCORED else frozenset() for state in TERMINAL_STATES
}

TRANSITIONS: Final[Mapping[SubmissionState, frozenset[SubmissionState]]] = {
    # An author may withdraw, and our own machinery may fail, at any time before the end.
    **{state: following | {_S.WITHDRAWN, _S.FAILED} for state, following in _FORWARD.items()},
    **_ENDED,
}
"""What may follow each state; nothing follows a terminal one, but that a scored model may still be withdrawn."""

ACTIVE_STATES: Final = frozenset({_S.EXAMINING, _S.CONFIRMED, _S.QUEUED, _S.RUNNING})
"""States in which a job must exist."""

SLOT_STATES: Final = frozenset(SubmissionState) - TERMINAL_STATES
"""States that take one of a hotkey's slots; a scored model takes one too until its round is closed."""

ROUND_OPEN: Final = "open"
ROUND_CLOSING: Final = "closing"
ROUND_CLOSED: Final = "closed"
LIVE_ROUNDS: Final = (ROUND_OPEN, ROUND_CLOSING)
"""States of rounds in which something may run. One that is closing begins no exam, and ends with what is under way."""


class IllegalTransition(GasError):
    """A state was asked for that can't follow the present one; somebody else was faster, or a caller is wrong."""

    code = "illegal_transition"


def transition(
    session: Session,
    row: SubmissionRow,
    to: SubmissionState,
    *,
    now: float,
    reasons: Sequence[Reason] = (),
    error: Mapping[str, str] | None = None,
) -> None:
    """Change a submission's state; the only place that does.

    Args:
        session: A write session; the change is visible in it at once.
        row: The submission, as read in this session.
        to: The next state.
        now: Seconds since the epoch.
        reasons: Findings to be kept for the author.
        error: A failure of ours, as :meth:`gas.errors.GasError.as_dict`.

    Raises:
        IllegalTransition: ``to`` may not follow the state that the database holds now.
    """
    present = SubmissionState(row.state)
    if to not in TRANSITIONS[present]:
        raise IllegalTransition(f"A submission that is {present} can't become {to}.")
    changed = session.execute(
        update(SubmissionRow)
        .where(SubmissionRow.id == row.id, SubmissionRow.state == present.value)
        .values(
            state=to.value,
            state_since=now,
            reasons=[*row.reasons, *(reason.as_dict() for reason in reasons)],
            error=dict(error) if error is not None else row.error,
        )
        .returning(SubmissionRow.id)
    ).scalar_one_or_none()
    if changed is None:
        raise IllegalTransition(f"The submission is no longer {present}.")
    session.refresh(row)
