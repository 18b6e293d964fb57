"""Pushes of several modalities: their exams are judged together, over the average of their accuracies.

The author's side names a push when it uploads the first package, and says which modalities belong to it, so that the
arena knows for whom to wait. A package whose exam is done stays in ``examining`` until the exams of the others are,
or until it has waited long enough, or its round is closing: then the average is over those that are there. What a
package is blocked for, and a model that does not run, is decided at once; the latter counts as 0 for the others.

Everything is read from the database at each look, so a crash loses nothing: the next look decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.arena.competitions import Competition
from gas.arena.states import ROUND_OPEN, IllegalTransition, transition
from gas.errors import Reason, RequestRefused
from gas.storage.database import Database
from gas.storage.tables import RoundRow, RunRow, SubmissionRow
from gas.types import Modality, SubmissionState

__all__ = ["PushLabel", "PushStanding", "push_standing", "push_waits", "settle_push", "waiting_pushes"]

_S = SubmissionState
_ID: Final = re.compile(r"[0-9a-f]{32}")
_OUT: Final = frozenset({_S.REJECTED, _S.WITHDRAWN, _S.BLOCKED})
"""States in which a package neither counts for the others nor is waited for."""


@dataclass(frozen=True, slots=True)
class PushLabel:
    """To which push a package belongs; pushes of two hotkeys are never the same.

    Attributes:
        push_id: 32 hex digits, made by the author's side.
        modalities: All of the push, at least two.
    """

    push_id: str
    modalities: frozenset[Modality]

    @property
    def stored(self) -> str:
        """The modalities as the database keeps them."""
        return ",".join(sorted(self.modalities))

    @classmethod
    def parse(cls, push_id: str | None, modalities: str | None, own: Modality) -> PushLabel | None:
        """Read what came with an upload.

        Args:
            push_id: As sent; None for a push of one.
            modalities: Their names with commas between; None for a push of one.
            own: What the package itself claims to detect.

        Returns:
            None for a push of one modality.

        Raises:
            RequestRefused: 422 ``bad_push``.
        """
        if push_id is None and modalities is None:
            return None
        if push_id is None or modalities is None or not _ID.fullmatch(push_id):
            raise _bad("A push is named by 32 hex digits, and says which modalities it has.")
        names = modalities.split(",")
        if len(set(names)) != len(names) or not set(names) <= set(Modality) or own not in names:
            raise _bad(
                "The modalities of a push are named once each, with commas between, the package's own among them."
            )
        return cls(push_id, frozenset(Modality(name) for name in names)) if len(names) > 1 else None


@dataclass(frozen=True, slots=True)
class PushStanding:
    """Where the exams of a push stand.

    Attributes:
        exams: Accuracy of each modality that counts, in [0, 1].
        waiting_for: Modalities whose exam is still to come.
        left_out: Modalities that neither count nor are waited for.
        needed: Least average: the mean of the thresholds of those that count.
    """

    exams: dict[str, float]
    waiting_for: tuple[str, ...]
    left_out: tuple[str, ...]
    needed: float

    @property
    def accuracy(self) -> float | None:
        """The average; None when no exam counts."""
        return sum(self.exams.values()) / len(self.exams) if self.exams else None

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "exams": dict(self.exams),
            "accuracy": self.accuracy,
            "needed": self.needed,
            "waiting_for": list(self.waiting_for),
            "left_out": list(self.left_out),
        }


def push_waits(session: Session, row: SubmissionRow) -> RunRow | None:
    """The finished exam of a package that waits for the others of its push; None when it does not wait."""
    if row.push_id is None or row.state != _S.EXAMINING:
        return None
    exam = _exam(session, row)
    return exam if exam is not None and exam.state == "done" else None


def waiting_pushes(session: Session) -> Sequence[tuple[str, str]]:
    """Hotkey and id of each push that has a package waiting for others."""
    return [
        (hotkey, push_id)
        for hotkey, push_id in session.execute(
            select(SubmissionRow.hotkey, SubmissionRow.push_id)
            .join(RunRow, RunRow.submission_id == SubmissionRow.id)
            .where(
                SubmissionRow.push_id.is_not(None),
                SubmissionRow.state == _S.EXAMINING.value,
                RunRow.kind == "exam",
                RunRow.state == "done",
            )
            .distinct()
        ).tuples()
        if push_id is not None
    ]


def push_standing(
    session: Session, hotkey: str, push_id: str, rules: Callable[[SubmissionRow], Competition]
) -> PushStanding:
    """Look at the exams of a push.

    Args:
        session: For reading.
        hotkey: Whose push.
        push_id: Which.
        rules: The rules of a submission's competition.
    """
    members = _members(session, hotkey, push_id)
    declared = sorted({name for row in members for name in (row.push_modalities or "").split(",") if name})
    newest = {row.modality: row for row in members}
    exams: dict[str, float] = {}
    needed: list[float] = []
    waiting: list[str] = []
    left_out: list[str] = []
    # Nobody holds a round open that is to close by never handing the others in.
    closing = any(row.state == _S.EXAMINING and not _has_round(session, row) for row in members)
    for modality in declared:
        row = newest.get(modality)
        if row is None:
            (left_out if closing else waiting).append(modality)
            continue
        state = SubmissionState(row.state)
        found = None if state in _OUT else _accuracy(session, row)
        if found is not None:
            exams[modality] = found
            needed.append(rules(row).exam_accuracy)
        elif state is _S.EXAMINING or (
            state in (_S.UPLOADED, _S.SCANNING) and not closing and _has_round(session, row)
        ):
            waiting.append(modality)
        else:
            left_out.append(modality)
    return PushStanding(exams, tuple(waiting), tuple(left_out), sum(needed) / len(needed) if needed else 0.0)


def settle_push(
    database: Database,
    session: Session,
    hotkey: str,
    push_id: str,
    rules: Callable[[SubmissionRow], Competition],
    now: float,
) -> None:
    """Decide over the packages of a push that wait, if it is time: all exams are done, or one has waited long enough.

    Args:
        database: For the lock.
        session: A write session.
        hotkey: Whose push.
        push_id: Which.
        rules: The rules of a submission's competition.
        now: Seconds since the epoch.
    """
    database.lock(session, f"pushes/{hotkey}/{push_id}")
    waiting = [
        (row, exam) for row in _members(session, hotkey, push_id) if (exam := push_waits(session, row)) is not None
    ]
    if not waiting:
        return
    standing = push_standing(session, hotkey, push_id, rules)
    late = any(now - (exam.finished_at or now) > rules(row).exam_wait_seconds for row, exam in waiting)
    if standing.accuracy is None or (standing.waiting_for and not late):
        return
    passed = standing.accuracy >= standing.needed
    for row, exam in waiting:
        try:
            if passed:
                transition(session, row, _S.CONFIRMED, now=now)
            else:
                transition(session, row, _S.EXAM_FAILED, now=now, reasons=(_too_weak(standing),))
        except IllegalTransition:
            # Withdrawn in this moment.
            continue
        exam.metrics = {**(exam.metrics or {}), "push": standing.as_dict()}


def _members(session: Session, hotkey: str, push_id: str) -> Sequence[SubmissionRow]:
    return session.scalars(
        select(SubmissionRow)
        .where(SubmissionRow.hotkey == hotkey, SubmissionRow.push_id == push_id)
        .order_by(SubmissionRow.created_at, SubmissionRow.id)
    ).all()


def _exam(session: Session, row: SubmissionRow) -> RunRow | None:
    return session.scalar(
        select(RunRow)
        .where(RunRow.submission_id == row.id, RunRow.kind == "exam")
        .order_by(RunRow.started_at.desc())
        .limit(1)
    )


def _accuracy(session: Session, row: SubmissionRow) -> float | None:
    """Accuracy of a package's exam; 0 for a model that failed in it, None where there is none or not yet."""
    exam = _exam(session, row)
    if exam is not None and exam.state == "done":
        found = (exam.metrics or {}).get("accuracy")
        if isinstance(found, int | float):
            return float(found)
    return 0.0 if row.state == _S.EXAM_FAILED else None


def _has_round(session: Session, row: SubmissionRow) -> bool:
    """Whether a round of its competition is open, so that an exam may still begin."""
    return (
        session.scalar(
            select(RoundRow.id)
            .where(RoundRow.modality == row.modality, RoundRow.vertical == row.vertical, RoundRow.state == ROUND_OPEN)
            .limit(1)
        )
        is not None
    )


def _too_weak(standing: PushStanding) -> Reason:
    each = ", ".join(f"{modality} {accuracy:.1%}" for modality, accuracy in standing.exams.items())
    return Reason(
        "exam_accuracy",
        f"The models of the push answer {standing.accuracy or 0.0:.1%} of their exams correctly on average ({each}); "
        f"at least {standing.needed:.0%} are needed. Benchmark them on the public data before the next push.",
    )


def _bad(message: str) -> RequestRefused:
    return RequestRefused(message, status=422, code="bad_push")
