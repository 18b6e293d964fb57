"""What a hotkey may hand in: slots, pushes a round, and which content may come again.

Counted is what stands in the rows. A row that is replaced by a push of the same content hands its counts on.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from gas.arena.competitions import Competition
from gas.arena.states import LIVE_ROUNDS, SLOT_STATES
from gas.errors import RequestRefused
from gas.storage.tables import RoundRow, RunRow, SubmissionRow
from gas.types import Modality, SubmissionState, Vertical

__all__ = [
    "COMMITMENT_MISSING",
    "carry_over",
    "may_be_replaced",
    "refuse_over_limits",
    "refuse_second_of_push",
    "slots_taken",
]

COMMITMENT_MISSING: Final = "commitment_missing"
"""Code of the reason of an upload whose commitment never came; the same content may be handed in anew."""

_S = SubmissionState


def slots_taken(session: Session, hotkey: str, modality: Modality, vertical: Vertical) -> int:
    """How many slots of a competition a hotkey's models take: all that go on, and those scored in a live round."""
    in_its_round = exists().where(
        RunRow.submission_id == SubmissionRow.id,
        RunRow.kind == "full",
        RoundRow.id == RunRow.round_id,
        RoundRow.state.in_(LIVE_ROUNDS),
    )
    return (
        session.scalar(
            select(func.count()).where(
                SubmissionRow.hotkey == hotkey,
                SubmissionRow.modality == modality.value,
                SubmissionRow.vertical == vertical.value,
                or_(
                    SubmissionRow.state.in_([state.value for state in SLOT_STATES]),
                    and_(SubmissionRow.state == _S.SCORED.value, in_its_round),
                ),
            )
        )
        or 0
    )


def refuse_over_limits(session: Session, hotkey: str, rules: Competition) -> None:
    """Refuse a further package of a hotkey.

    Raises:
        gas.errors.RequestRefused: 429 ``no_slot`` or ``push_limit``.
    """
    if slots_taken(session, hotkey, rules.modality, rules.vertical) >= rules.slots:
        raise RequestRefused(
            f"All {rules.slots} slots of this hotkey for {rules.name} are taken.",
            status=429,
            code="no_slot",
            hint="Withdraw a model, or wait for the end of the round.",
        )
    rows = session.scalars(
        select(SubmissionRow).where(
            SubmissionRow.hotkey == hotkey,
            SubmissionRow.modality == rules.modality.value,
            SubmissionRow.vertical == rules.vertical.value,
            SubmissionRow.created_at >= _counted_since(session, rules),
        )
    ).all()
    most = rules.pushes_per_round
    if sum(row.earlier_exams + _counts(row) for row in rows) >= most:
        raise RequestRefused(
            f"A hotkey may have {most} packages examined in a round of {rules.name}.",
            status=429,
            code="push_limit",
            hint="Wait for the next round.",
        )
    if sum(row.earlier_uncommitted + _uncommitted(row) for row in rows) >= most:
        raise RequestRefused(
            f"{most} packages of this hotkey were handed in and never committed in this round of {rules.name}.",
            status=429,
            code="push_limit",
            hint="Wait for the next round, and commit each package at once.",
        )


def _counted_since(session: Session, rules: Competition) -> float:
    """From when on pushes count for the present round: the end of the one before, or the beginning of time."""
    return (
        session.scalar(
            select(func.max(RoundRow.closed_at)).where(
                RoundRow.modality == rules.modality.value, RoundRow.vertical == rules.vertical.value
            )
        )
        or 0.0
    )


def _counts(row: SubmissionRow) -> bool:
    """Whether a push counts as one of those that a hotkey may have examined in a round."""
    return row.state != _S.REJECTED and not _ours(row) and not _unseen(row)


def _uncommitted(row: SubmissionRow) -> bool:
    """Whether its commitment never came."""
    return row.state == _S.REJECTED and any(reason.get("code") == COMMITMENT_MISSING for reason in row.reasons)


def _ours(row: SubmissionRow) -> bool:
    """Whether the submission ended by a fault of ours, which costs its author nothing."""
    return row.state == _S.FAILED and row.error is not None


def _unseen(row: SubmissionRow) -> bool:
    """Whether the author took it back before its exam began: later he may know the result, and the push counts."""
    return row.state == _S.WITHDRAWN and row.attempts == 0


def refuse_second_of_push(session: Session, row: SubmissionRow) -> None:
    """A push has the modalities that its first package named, and one examined model of each.

    Raises:
        gas.errors.RequestRefused: 422 ``bad_push``.
    """
    if row.push_id is None:
        return
    others = session.scalars(
        select(SubmissionRow).where(SubmissionRow.hotkey == row.hotkey, SubmissionRow.push_id == row.push_id)
    ).all()
    if any(one.push_modalities != row.push_modalities for one in others):
        raise RequestRefused("This push was begun with other modalities.", status=422, code="bad_push")
    same = [one for one in others if one.modality == row.modality and one.state != _S.REJECTED]
    if any(not may_be_replaced(session, one) for one in same):
        raise RequestRefused(f"This push has its {row.modality} model already.", status=422, code="bad_push")


def carry_over(session: Session, earlier: SubmissionRow, row: SubmissionRow, rules: Competition) -> None:
    """Let a row count for the one that it replaces, so that nobody gets pushes back by pushing the same again."""
    if earlier.created_at >= _counted_since(session, rules):
        row.earlier_exams = earlier.earlier_exams + _counts(earlier)
        row.earlier_uncommitted = earlier.earlier_uncommitted + _uncommitted(earlier)


def may_be_replaced(session: Session, row: SubmissionRow) -> bool:
    """Whether the same content may be handed in anew; the row with its runs goes then.

    What was scored is not: its run and receipt are kept, and the same content would have the same score.
    """
    if row.state == _S.WITHDRAWN:
        scored = select(RunRow.id).where(RunRow.submission_id == row.id, RunRow.receipt.is_not(None)).limit(1)
        return session.scalar(scored) is None
    return _ours(row) or _uncommitted(row)
