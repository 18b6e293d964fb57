"""What the control plane shows of the database, as plain JSON values.

Who may see what is decided here: an author sees everything of his own; the public sees the scores of closed rounds.
Names of held-out data never get here: the evaluation drops them before anything is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from gas.arena.competitions import Competition
from gas.arena.errors_shown import error_picture, shown_errors
from gas.arena.likeness import near_weights
from gas.arena.pushes import push_standing
from gas.arena.rounds import standings
from gas.arena.states import LIVE_ROUNDS
from gas.storage.blobs import BlobStore
from gas.storage.tables import ChallengeRow, JudgementRow, MediumRow, RoundRow, RunRow, SubmissionRow
from gas.types import Modality, Vertical

__all__ = [
    "errors_view",
    "generators_view",
    "leaderboard_view",
    "picture_view",
    "receipt_view",
    "rounds_view",
    "run_view",
    "stats_view",
    "submission_view",
    "submissions_view",
]

_LIMIT = 500


def submissions_view(session: Session, hotkey: str, modality: Modality | None) -> list[dict[str, Any]]:
    """An author's submissions, the newest first."""
    query = select(SubmissionRow).where(SubmissionRow.hotkey == hotkey)
    if modality is not None:
        query = query.where(SubmissionRow.modality == modality.value)
    rows = session.scalars(query.order_by(SubmissionRow.created_at.desc()).limit(_LIMIT))
    return [_submission(row) for row in rows]


def submission_view(
    session: Session, hotkey: str, submission_id: str, rules: Callable[[SubmissionRow], Competition]
) -> dict[str, Any] | None:
    """One submission with its runs, for its author, and with its push's exams; None when it is not his.

    While the push is not decided, ``push`` says where its exams stand, afterwards how it was decided.
    """
    row = session.get(SubmissionRow, submission_id)
    if row is None or row.hotkey != hotkey:
        return None
    runs = session.scalars(
        select(RunRow).where(RunRow.submission_id == submission_id).order_by(RunRow.started_at).limit(_LIMIT)
    )
    near = near_weights(session, (row.id,)).get(row.id)
    found = {
        **_submission(row),
        "near_weights": near.as_dict() if near is not None else None,
        "runs": [_run(run, open_to_reader=True) for run in runs],
    }
    if row.push_id is not None:
        decided = [run["metrics"]["push"] for run in found["runs"] if "push" in (run["metrics"] or {})]
        standing = decided[0] if decided else push_standing(session, hotkey, row.push_id, rules).as_dict()
        found["push"] = {**found["push"], **standing}
    return found


def errors_view(session: Session, blobs: BlobStore, hotkey: str, submission_id: str) -> list[dict[str, Any]] | None:
    """A submission's worst errors among public media, for its author; None when it is not his."""
    row = session.get(SubmissionRow, submission_id)
    if row is None or row.hotkey != hotkey:
        return None
    return [one.as_dict() for one in shown_errors(session, blobs, row)]


def picture_view(session: Session, blobs: BlobStore, hotkey: str, submission_id: str, sample_id: str) -> bytes | None:
    """A picture of one of these errors, for the author; None for any other medium."""
    row = session.get(SubmissionRow, submission_id)
    return None if row is None or row.hotkey != hotkey else error_picture(session, blobs, row, sample_id)


def leaderboard_view(session: Session, modality: Modality, vertical: Vertical = Vertical.GENERAL) -> dict[str, Any]:
    """Standings of the last closed round, and who is under way in the open one (without scores)."""
    closed = session.scalar(
        select(RoundRow)
        .where(RoundRow.modality == modality.value, RoundRow.vertical == vertical.value, RoundRow.state == "closed")
        .order_by(RoundRow.closed_at.desc())
        .limit(1)
    )
    opened = session.scalar(
        select(RoundRow)
        .where(RoundRow.modality == modality.value, RoundRow.vertical == vertical.value)
        .where(RoundRow.state.in_(LIVE_ROUNDS))
        .order_by(RoundRow.opened_at.desc())
        .limit(1)
    )
    out: dict[str, Any] = {
        "modality": modality.value,
        "vertical": vertical.value,
        "round": None,
        "standings": [],
        "open_round": None,
    }
    if closed is not None:
        out["round"] = _round(closed)
        out["standings"] = [standing.as_dict() for standing in standings(session, closed.id)]
    if opened is not None:
        under_way = session.execute(
            select(SubmissionRow.hotkey, SubmissionRow.name, SubmissionRow.state)
            .where(SubmissionRow.modality == modality.value, SubmissionRow.vertical == vertical.value)
            .where(SubmissionRow.created_at >= opened.opened_at)
            .where(SubmissionRow.state.not_in(("rejected", "withdrawn")))
            .order_by(SubmissionRow.created_at)
            .limit(_LIMIT)
        )
        out["open_round"] = {
            **_round(opened),
            "submissions": [{"hotkey": hotkey, "name": name, "state": state} for hotkey, name, state in under_way],
        }
    return out


def rounds_view(session: Session) -> list[dict[str, Any]]:
    """All rounds, the newest first."""
    return [_round(row) for row in session.scalars(select(RoundRow).order_by(RoundRow.opened_at.desc()).limit(_LIMIT))]


def run_view(session: Session, run_id: str, reader: str | None) -> dict[str, Any] | None:
    """One run; its scores only after the round, or for the author. None when there is no such run."""
    run = session.get(RunRow, run_id)
    if run is None:
        return None
    row = session.get_one(SubmissionRow, run.submission_id)
    shown = _run(run, open_to_reader=_may_see(session, run, row, reader))
    if shown.get("metrics") and row.hotkey != reader:
        # The other exams of a push may belong to rounds that are still open.
        shown["metrics"] = {name: value for name, value in shown["metrics"].items() if name != "push"}
    return {**shown, "hotkey": row.hotkey, "name": row.name}


def receipt_view(session: Session, run_id: str, reader: str | None) -> Mapping[str, Any] | None:
    """The signed receipt of a run that the reader may see; None otherwise."""
    run = session.get(RunRow, run_id)
    if run is None or not _may_see(session, run, session.get_one(SubmissionRow, run.submission_id), reader):
        return None
    return run.receipt


def generators_view(session: Session) -> list[dict[str, Any]]:
    """Verified and refused media of each generator, and how many closed runs they fooled."""
    verified = dict(
        session.execute(select(MediumRow.generator, func.count()).group_by(MediumRow.generator)).tuples().all()
    )
    refused = dict(
        session.execute(
            select(ChallengeRow.miner, func.count())
            .where(ChallengeRow.state.in_(("refused", "failed", "expired")))
            .group_by(ChallengeRow.miner)
        )
        .tuples()
        .all()
    )
    judged = {
        generator: (int(fooled or 0), int(count))
        for generator, fooled, count in session.execute(
            select(MediumRow.generator, func.sum(cast(JudgementRow.fooled, Integer)), func.count())
            .join(JudgementRow, JudgementRow.media_sha256 == MediumRow.sha256)
            .join(RunRow, RunRow.id == JudgementRow.run_id)
            .join(RoundRow, RoundRow.id == RunRow.round_id)
            .where(RoundRow.state == "closed")
            .group_by(MediumRow.generator)
        )
    }
    return [
        {
            "hotkey": hotkey,
            "verified": verified.get(hotkey, 0),
            "refused": refused.get(hotkey, 0),
            "fooled": judged.get(hotkey, (0, 0))[0],
            "judged": judged.get(hotkey, (0, 0))[1],
        }
        for hotkey in sorted({*verified, *refused})
    ]


def stats_view(session: Session) -> dict[str, Any]:
    """How much there is of everything."""
    states = session.execute(select(SubmissionRow.state, func.count()).group_by(SubmissionRow.state)).tuples().all()
    return {
        "submissions": dict(states),
        "rounds": session.scalar(select(func.count()).select_from(RoundRow)) or 0,
        "runs": session.scalar(select(func.count()).select_from(RunRow)) or 0,
        "media": session.scalar(select(func.count()).select_from(MediumRow)) or 0,
        "judgements": session.scalar(select(func.count()).select_from(JudgementRow)) or 0,
    }


def _may_see(session: Session, run: RunRow, row: SubmissionRow, reader: str | None) -> bool:
    return row.hotkey == reader or session.get_one(RoundRow, run.round_id).state == "closed"


def _submission(row: SubmissionRow) -> dict[str, Any]:
    return {
        "model_id": row.id,
        "key": row.key,
        "sha256": row.sha256,
        "size": row.size,
        "modality": row.modality,
        "vertical": row.vertical,
        "name": row.name,
        "state": row.state,
        "state_since": row.state_since,
        "created_at": row.created_at,
        "committed_block": row.committed_block,
        "reasons": row.reasons,
        "error": row.error,
        "push": None
        if row.push_id is None
        else {"push_id": row.push_id, "modalities": (row.push_modalities or "").split(",")},
    }


def _run(run: RunRow, *, open_to_reader: bool) -> dict[str, Any]:
    out: dict[str, Any] = {
        "run_id": run.id,
        "round_id": run.round_id,
        "kind": run.kind,
        "state": run.state,
        "tier": run.tier,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
    if open_to_reader:
        out |= {"metrics": run.metrics, "error": run.error, "records_sha256": run.records_blob}
    return out


def _round(row: RoundRow) -> dict[str, Any]:
    return {
        "round_id": row.id,
        "modality": row.modality,
        "vertical": row.vertical,
        "state": row.state,
        # The seed decides the order and the draws of a round: it is no author's business while the round runs.
        "seed": row.seed if row.state == "closed" else None,
        "data_hash": row.data_hash,
        "parameters": row.parameters,
        "code_version": row.code_version,
        "opened_at": row.opened_at,
        "closed_at": row.closed_at,
        "outcome": row.outcome,
    }
