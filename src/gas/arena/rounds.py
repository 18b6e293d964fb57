"""Rounds: opening one with frozen data, standings, the winner at its end, and whom the generators fooled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Integer, cast, delete, func, select
from sqlalchemy.orm import Session

from gas.arena.states import ACTIVE_STATES, LIVE_ROUNDS, ROUND_CLOSED, ROUND_CLOSING, ROUND_OPEN
from gas.clock import Clock
from gas.datasets.plan import Round, read_round, write_round
from gas.errors import ConfigurationError, GasError, StorageError
from gas.scoring.weights import CHAMPION_MARGIN, RoundEntry, round_winner
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import JudgementRow, MediumRow, RoundRow, RunRow, ScoreRow, SubmissionRow
from gas.types import Modality, Vertical

__all__ = [
    "FoolCount",
    "RoundBusy",
    "Standing",
    "close_round",
    "fool_counts",
    "load_round",
    "open_round",
    "score_class",
    "standings",
    "store_round",
]

_MANIFEST = "manifest.json"


class RoundBusy(GasError):
    """A round can't be closed while submissions are being examined or run in it; it is closing from now on."""

    code = "round_busy"


@dataclass(frozen=True, slots=True)
class Standing:
    """One model's place in a round.

    Attributes:
        rank: From 1; models without a score come last and share no rank with others.
        score: Its final score; None when unscored.
        duplicate_of: The submission with the same weights and an older commitment, which has the credit.
    """

    rank: int
    submission_id: str
    run_id: str
    hotkey: str
    name: str
    score: float | None
    committed_block: int
    metrics: Mapping[str, Any]
    duplicate_of: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FoolCount:
    """How many judgements a generator's media got, and how many of them took a fake for real."""

    fooled: int
    judged: int


def store_round(blobs: BlobStore, round_: Round) -> str:
    """Put a round into the blob store.

    Returns:
        Name of the manifest's blob; the manifest names the blobs of the other files by their hashes.
    """
    with TemporaryDirectory(prefix="gas-round-") as folder:
        manifest = write_round(round_, Path(folder))
        for name, digest in json.loads(manifest.read_bytes())["files"].items():
            if blobs.put_file(Path(folder) / name) != digest:
                raise StorageError(f"The round's {name} changed while it was stored.", code="round_damaged")
        return blobs.put_file(manifest)


def load_round(blobs: BlobStore, name: str) -> Round:
    """Fetch a round by its manifest's blob and check every hash.

    Raises:
        gas.errors.StorageError: It is missing or damaged.
    """
    with TemporaryDirectory(prefix="gas-round-") as scratch:
        folder = Path(scratch)
        blobs.get_file(name, folder / _MANIFEST)
        try:
            files = dict(json.loads((folder / _MANIFEST).read_bytes())["files"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError("The blob is no round.", code="round_damaged") from error
        for file, digest in files.items():
            if Path(file).name != file:
                raise StorageError("The round names a file outside its folder.", code="round_damaged")
            blobs.get_file(str(digest), folder / file)
        return read_round(folder)


def open_round(
    database: Database,
    blobs: BlobStore,
    round_: Round,
    exam: Round,
    clock: Clock,
    *,
    vertical: Vertical = Vertical.GENERAL,
) -> str:
    """Open a round; from now on confirmed submissions of its competition run on it.

    Args:
        database: Where rounds are kept.
        blobs: Where the plans go.
        round_: The frozen round; all its samples are of one modality.
        exam: The small plan of the entrance exam, of the same modality.
        clock: For the date.
        vertical: Specialisation of the competition.

    Returns:
        The round's id. Opening the same round again changes nothing.

    Raises:
        gas.errors.ConfigurationError: Mixed modalities, or another round of this competition is open.
    """
    modality = _modality_of(round_)
    if _modality_of(exam) is not modality:
        raise ConfigurationError("The exam must be of the round's modality.", code="round_modality")
    plan, exam_blob = store_round(blobs, round_), store_round(blobs, exam)
    with database.write() as session:
        database.lock(session, f"rounds/{modality}/{vertical}")
        if session.get(RoundRow, round_.round_id) is not None:
            return round_.round_id
        other = session.scalar(
            select(RoundRow.id)
            .where(RoundRow.modality == modality.value, RoundRow.vertical == vertical.value)
            .where(RoundRow.state.in_(LIVE_ROUNDS))
            .limit(1)
        )
        if other is not None:
            raise ConfigurationError(
                f"The round {other} of {modality} ({vertical}) is not closed.",
                code="round_open",
                hint="Close it first: gascli arena round close.",
            )
        session.add(
            RoundRow(
                id=round_.round_id,
                modality=modality.value,
                vertical=vertical.value,
                seed=str(round_.seed),
                state=ROUND_OPEN,
                plan_blob=plan,
                exam_blob=exam_blob,
                data_hash=round_.data_hash,
                parameters=dict(round_.parameters),
                code_version=round_.code_version,
                opened_at=clock.time(),
            )
        )
    return round_.round_id


def standings(session: Session, round_id: str) -> list[Standing]:
    """All full runs of a round that ended with a result, the best first; without those withdrawn while it was open.

    Of models with the same weights only the one with the oldest commitment competes, whenever it was handed in;
    the others are listed after the scored ones, without credit. Equal scores are ordered by commitment.
    """
    found = session.execute(
        select(RunRow, SubmissionRow)
        .join(SubmissionRow, SubmissionRow.id == RunRow.submission_id)
        .where(RunRow.round_id == round_id, RunRow.kind == "full", RunRow.state == "done")
        .order_by(SubmissionRow.committed_block, SubmissionRow.created_at, SubmissionRow.id)
    ).tuples()
    owners: dict[str, SubmissionRow] = {}
    entries: list[Standing] = []
    for run, row in found:
        owner = owners.setdefault(row.weights_sha256 or row.id, row)
        metrics = run.metrics or {}
        score = metrics.get("sn34_score")
        entries.append(
            Standing(
                rank=0,
                submission_id=row.id,
                run_id=run.id,
                hotkey=row.hotkey,
                name=row.name,
                score=float(score) if isinstance(score, int | float) else None,
                committed_block=row.committed_block or 0,
                metrics=metrics,
                duplicate_of=owner.id if owner.hotkey != row.hotkey else None,
            )
        )
    # Sorting is stable: equal scores stay in the order of their commitments.
    entries.sort(key=lambda e: (e.duplicate_of is not None, e.score is None, -(e.score or 0.0)))
    return [_ranked(entry, rank) for rank, entry in enumerate(entries, 1)]


def close_round(
    database: Database,
    round_id: str,
    uids: Mapping[str, int],
    clock: Clock,
    *,
    margin: float = CHAMPION_MARGIN,
) -> Standing | None:
    """End a round and decide who takes its modality's whole share until the next one ends.

    Args:
        database: Where the round is.
        round_id: Which; closing a closed round again changes nothing.
        uids: The registered hotkeys with their uids; others can't win.
        clock: For the date.
        margin: By how much a challenger must beat the champion.

    Returns:
        The winner's standing in this round; None when nobody won, or when an absent champion stays.

    Raises:
        RoundBusy: Submissions of the competition are under way. From now on the round begins no further exam, so that
            it can be closed when these have ended.
        gas.errors.ConfigurationError: There is no such round.
    """
    with database.write() as session:
        row = session.get(RoundRow, round_id)
        if row is None:
            raise ConfigurationError(f"There is no round {round_id}.")
        table = standings(session, round_id)
        if row.state not in LIVE_ROUNDS:
            winner = (row.outcome or {}).get("winner") or {}
            return next((e for e in table if e.submission_id == winner.get("submission_id")), None)
        modality = row.modality
        busy = session.scalar(
            select(func.count()).where(
                SubmissionRow.modality == row.modality,
                SubmissionRow.vertical == row.vertical,
                SubmissionRow.state.in_([state.value for state in ACTIVE_STATES]),
            )
        )
        if not busy:
            return _close(session, row, table, uids, clock.time(), margin)
        # Committed before the refusal: the workers must not go on to feed what is to end.
        row.state = ROUND_CLOSING
    raise RoundBusy(
        f"Under way in {modality}: {busy}. No further exam begins in this round.",
        hint="Close it again when all have ended, or wait for that with --wait.",
    )


def _close(
    session: Session, row: RoundRow, table: Sequence[Standing], uids: Mapping[str, int], now: float, margin: float
) -> Standing | None:
    eligible = [e for e in table if e.duplicate_of is None and e.hotkey in uids]
    before = _champion(session, row.modality, row.vertical)
    chosen = _choose(eligible, before, uids, margin)
    row.state, row.closed_at, row.outcome = ROUND_CLOSED, now, {"winner": chosen, "margin": margin}
    paid_as = score_class(Modality(row.modality), Vertical(row.vertical))
    session.execute(delete(ScoreRow).where(ScoreRow.miner_class == paid_as))
    if chosen is not None:
        session.add(ScoreRow(hotkey=chosen["hotkey"], miner_class=paid_as, value=chosen["score"], updated_at=now))
    return next((e for e in table if chosen is not None and e.submission_id == chosen["submission_id"]), None)


def fool_counts(session: Session, modality: Modality, *, since: float, until: float) -> dict[str, FoolCount]:
    """Judgements of benchmark runs that ended in a span of time, by generator.

    Args:
        session: Read session.
        modality: Of the media.
        since: Seconds since the epoch; runs that ended at or after it count.
        until: Runs that ended before it count.
    """
    rows = session.execute(
        select(MediumRow.generator, func.sum(cast(JudgementRow.fooled, Integer)), func.count())
        .join(JudgementRow, JudgementRow.media_sha256 == MediumRow.sha256)
        .join(RunRow, RunRow.id == JudgementRow.run_id)
        .where(MediumRow.modality == modality.value, RunRow.finished_at >= since, RunRow.finished_at < until)
        .group_by(MediumRow.generator)
    )
    return {generator: FoolCount(int(fooled or 0), int(judged)) for generator, fooled, judged in rows}


def score_class(modality: Modality, vertical: Vertical) -> str:
    """Under which name the winner of a competition is kept among the scores."""
    return modality.value if vertical is Vertical.GENERAL else f"{modality}/{vertical}"


def _modality_of(round_: Round) -> Modality:
    modalities = {sample.modality for sample in round_.samples}
    if len(modalities) != 1:
        raise ConfigurationError("A round of the arena has samples of exactly one modality.", code="round_modality")
    return modalities.pop()


def _ranked(entry: Standing, rank: int) -> Standing:
    return Standing(**{**asdict(entry), "rank": rank})


def _champion(session: Session, modality: str, vertical: str) -> dict[str, Any] | None:
    outcome = session.scalar(
        select(RoundRow.outcome)
        .where(RoundRow.modality == modality, RoundRow.vertical == vertical, RoundRow.state == ROUND_CLOSED)
        .order_by(RoundRow.closed_at.desc())
        .limit(1)
    )
    return None if outcome is None else outcome.get("winner")


def _choose(
    eligible: Sequence[Standing], before: dict[str, Any] | None, uids: Mapping[str, int], margin: float
) -> dict[str, Any] | None:
    """The winner as it is kept in the round's outcome."""
    entries = {RoundEntry(uids[e.hotkey], e.score, e.committed_block): _winner(e) for e in reversed(eligible)}
    champion = None
    if before is not None and before["hotkey"] in uids:
        here = next((e for e in eligible if e.submission_id == before["submission_id"]), None)
        score = here.score if here is not None else before["score"]
        champion = RoundEntry(uids[before["hotkey"]], score, before["committed_block"])
        entries[champion] = {**before, "score": score}
    chosen = round_winner(entries, champion, margin)
    return None if chosen is None else entries[chosen]


def _winner(entry: Standing) -> dict[str, Any]:
    return {
        "hotkey": entry.hotkey,
        "submission_id": entry.submission_id,
        "run_id": entry.run_id,
        "name": entry.name,
        "score": entry.score,
        "committed_block": entry.committed_block,
    }
