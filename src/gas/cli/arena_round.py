"""``gascli arena round open | close | status`` and ``gascli arena competitions``."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.endpoint import ChainEndpoint, home_settings, open_chain

if TYPE_CHECKING:
    from gas.arena.competitions import Competition, Competitions
    from gas.arena.rounds import Standing
    from gas.clock import Clock
    from gas.config import HomeSettings
    from gas.storage.database import Database

__all__ = ["CompetitionsFile", "app", "competitions_command", "competitions_of"]

_LOOK_SECONDS = 2.0

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Rounds: open, close, status.")

CompetitionsFile = Annotated[
    Path | None,
    typer.Option(
        "--competitions", help="YAML file of the competitions; competitions.yaml in the home when there is one."
    ),
]
"""Option of every command that goes by the rules of the arena."""
_Home = Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home of the arena.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Name = Annotated[str, typer.Argument(metavar="COMPETITION", help="Its name; `gascli arena competitions` lists them.")]


def competitions_of(home: Path, file: Path | None) -> Competitions | None:
    """The competitions of a file, or of the home's own; None when there is neither.

    Raises:
        ConfigurationError: As :func:`gas.arena.competitions.read_competitions`.
    """
    from gas.arena.competitions import competitions_of as read

    return read(home, file)


def competitions_command(home: _Home = Path(".gas"), file: CompetitionsFile = None, as_json: _Json = False) -> None:
    """What the arena offers, and the rules of each competition; refuses a file with a mistake and says where."""
    found = _offered(home, file)
    if as_json:
        print(json.dumps({"competitions": [one.as_dict() for one in found.all]}))
        return
    print(f"{'competition':16} {'modality':8} {'vertical':8} {'share':>6} {'slots':>5} {'exam':>6}  tier")
    for one in found.all:
        share = found.shares(one.modality).get(one.vertical, 0.0)
        print(
            f"{one.name:16} {one.modality:8} {one.vertical:8} {share:6.0%} {one.slots:5} {one.exam_accuracy:6.0%}  "
            f"{one.min_tier.name.lower()}"
        )


@app.command("open")
def open_command(
    name: _Name,
    home: _Home = Path(".gas"),
    file: CompetitionsFile = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every draw; a secret one by default.")] = None,
    round_folder: Annotated[
        Path | None, typer.Option("--round", help="A frozen round to open, instead of drawing one; needs --exam.")
    ] = None,
    exam_folder: Annotated[Path | None, typer.Option("--exam", help="The frozen small plan of its exam.")] = None,
    as_json: _Json = False,
) -> None:
    """Open a competition's round: draw it from the data sets of the home, normalise and freeze it.

    With --round and --exam two frozen folders are taken as they are, e.g. of `gascli data plan --round`; their
    media lie in `blobs/` beside their manifest.
    """
    import secrets

    from gas.arena.round_data import RoundData, draw_competition
    from gas.arena.rounds import open_round
    from gas.cli.data_text import progress_bar
    from gas.clock import SystemClock
    from gas.datasets.store import open_store
    from gas.errors import ConfigurationError
    from gas.storage.blobs import open_blobs
    from gas.storage.database import open_database

    if (round_folder is None) != (exam_folder is None):
        raise ConfigurationError("A round needs its exam, and an exam its round.", hint="Give both --round and --exam.")
    competition = _offered(home, file).named(name)
    settings = home_settings(home)
    blobs, database = open_blobs(settings.resolved_blobs_url), open_database(settings.resolved_database_url)
    try:
        _refuse_second(database, competition)
        with progress_bar(not as_json) as report:
            if round_folder is not None and exam_folder is not None:
                data = RoundData(_taken(round_folder, blobs), _taken(exam_folder, blobs), {})
            else:
                drawn = secrets.randbits(62) if seed is None else seed
                data = draw_competition(open_store(home), blobs, competition, seed=drawn, on_progress=report)
        round_id = open_round(database, blobs, data.round, data.exam, SystemClock(), vertical=competition.vertical)
    finally:
        database.close()
    found = {
        "round_id": round_id,
        "competition": competition.name,
        "samples": len(data.round.samples),
        "sizes": data.round.sizes,
        "exam_samples": len(data.exam.samples),
        "data_hash": data.round.data_hash,
        "rejected": data.rejected,
    }
    if as_json:
        print(json.dumps(found))
        return
    sizes = ", ".join(f"{count:,} {kind}" for kind, count in data.round.sizes.items())
    print(f"Round {round_id} of {competition.name} is open: {len(data.round.samples):,} samples ({sizes}).")
    print(f"Exam: {len(data.exam.samples):,} samples. Data hash {data.round.data_hash}")
    if data.rejected:
        print("Left out: " + ", ".join(f"{count} {code}" for code, count in sorted(data.rejected.items())))


@app.command("close")
def close_command(
    name: _Name,
    home: _Home = Path(".gas"),
    file: CompetitionsFile = None,
    wallet_name: Annotated[str, typer.Option(help="Wallet whose hotkey asks the chain.")] = "validator",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 1,
    chain_endpoint: ChainEndpoint = None,
    release: Annotated[
        bool, typer.Option(help="Release the holdouts that are marked releasable into the next round's public data.")
    ] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of what is under way.")] = False,
    as_json: _Json = False,
) -> None:
    """End the open round of a competition: standings, winner, and the release of held-out data.

    While submissions are under way the round is closing: no further exam begins in it. Repeat the command when they
    have ended, or let it wait for them.
    """
    from gas.arena.rounds import standings
    from gas.clock import SystemClock
    from gas.storage.database import open_database

    competition = _offered(home, file).named(name)
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    uids = asyncio.run(_registered(settings, wallet_name, wallet_hotkey, netuid))
    database = open_database(settings.resolved_database_url)
    try:
        round_id = _open_round_of(database, competition)
        winner = _closed(database, round_id, uids, SystemClock(), wait=wait)
        with database.read() as session:
            table = standings(session, round_id)
        released, held = _release(home, database, round_id) if release else ([], {})
    finally:
        database.close()
    if as_json:
        found = {
            "round_id": round_id,
            "winner": None if winner is None else winner.as_dict(),
            "standings": [one.as_dict() for one in table],
            "released": released,
            "held": held,
        }
        print(json.dumps(found))
        return
    _show_standings(table)
    print(f"Round {round_id} is closed. Winner: {'nobody' if winner is None else f'{winner.name} of {winner.hotkey}'}.")
    if released:
        print(f"Released into the public data: {', '.join(released)}.")
    for name, others in held.items():
        print(f"Not released yet: {name}; it is held out in the open {', '.join(others)}.")


@app.command("status")
def status_command(
    name: Annotated[str | None, typer.Argument(metavar="[COMPETITION]", help="Only this one.")] = None,
    home: _Home = Path(".gas"),
    file: CompetitionsFile = None,
    as_json: _Json = False,
) -> None:
    """Where the open rounds stand: submissions by state, runs under way, standings so far, look-alikes."""
    from gas.storage.database import open_database

    offered = _offered(home, file)
    chosen = offered.all if name is None else (offered.named(name),)
    settings = home_settings(home)
    database = open_database(settings.resolved_database_url)
    try:
        found = [row for one in chosen if (row := _status(database, one)) is not None]
    finally:
        database.close()
    if as_json:
        print(json.dumps({"rounds": found}))
        return
    for row in found:
        states = ", ".join(f"{count} {state}" for state, count in sorted(row["submissions"].items())) or "none"
        print(f"{row['competition']}: round {row['round_id']}, {row['state']} for {row['open_seconds'] / 3600:.1f} h")
        print(f"  submissions: {states}")
        for run in row["running"]:
            print(f"  running: {run['name'] or run['submission_id']} ({run['kind']}), {run['seconds']:.0f} s so far")
        for place in row["standings"]:
            print(f"  {place['rank']:3} {place['name']:24} {_score(place['score'])}  {place['hotkey']}")
        for one in row["flagged"]:
            how = f"correlation {one['correlation']}"
            if one.get("order") is not None:
                how += f", of the order {one['order']}"
            print(f"  look-alike: {one['name']} answers as {one['submission']} does, {how}")
        for one in row["near_weights"]:
            print(
                f"  look-alike: {one['name']} ({one['state']}) has weights at a distance of {one['distance']:.4f} from "
                f"{one['nearest']}; {one['tensors_apart']} of {one['tensors']} tensors are its own"
                + (
                    f"; inside, the smaller of them is at {one['inside']:.4f}"
                    if one["inside"] < one["distance"]
                    else ""
                )
            )
    if not found:
        print("No round is open. Open one: gascli arena round open COMPETITION")


def _closed(database: Database, round_id: str, uids: dict[str, int], clock: Clock, *, wait: bool) -> Standing | None:
    from gas.arena.rounds import RoundBusy, close_round

    while True:
        try:
            return close_round(database, round_id, uids, clock)
        except RoundBusy:
            if not wait:
                raise
        time.sleep(_LOOK_SECONDS)


def _offered(home: Path, file: Path | None) -> Competitions:
    from gas.arena.competitions import default_competitions

    return competitions_of(home, file) or default_competitions()


def _taken(folder: Path, blobs: Any) -> Any:
    """A frozen folder, its media put into the arena's blobs."""
    from gas.datasets.plan import read_round
    from gas.errors import StorageError
    from gas.storage.blobs import FolderBlobs

    round_ = read_round(folder)
    own = FolderBlobs(folder / "blobs")
    for sample in round_.samples:
        if blobs.put(own.get(sample.sample_id)) != sample.sample_id:
            raise StorageError(f"A medium of {folder} has changed.", code="round_damaged")
    return round_


def _refuse_second(database: Database, competition: Competition) -> None:
    from gas.errors import ConfigurationError

    if (other := _find_open(database, competition)) is not None:
        raise ConfigurationError(
            f"The round {other} of {competition.name} is not closed.",
            code="round_open",
            hint=f"Close it first: gascli arena round close {competition.name}",
        )


def _open_round_of(database: Database, competition: Competition) -> str:
    from gas.errors import ConfigurationError

    found = _find_open(database, competition)
    if found is None:
        raise ConfigurationError(f"No round of {competition.name} is open.", code="no_round")
    return found


def _find_open(database: Database, competition: Competition) -> str | None:
    from sqlalchemy import select

    from gas.arena.states import LIVE_ROUNDS
    from gas.storage.tables import RoundRow

    with database.read() as session:
        return session.scalar(
            select(RoundRow.id).where(
                RoundRow.modality == competition.modality.value,
                RoundRow.vertical == competition.vertical.value,
                RoundRow.state.in_(LIVE_ROUNDS),
            )
        )


def _release(home: Path, database: Database, round_id: str) -> tuple[list[str], dict[str, list[str]]]:
    """Release the releasable holdouts of which the round held samples, but for those that a running round holds.

    Returns:
        What was released; and what was not yet, with the rounds that hold it: the last of them releases it.
    """
    from sqlalchemy import select

    from gas.arena.rounds import load_round
    from gas.datasets.store import open_store
    from gas.storage.blobs import open_blobs
    from gas.storage.tables import RoundRow
    from gas.types import Provenance

    blobs = open_blobs(home_settings(home).resolved_blobs_url)
    with database.read() as session:
        plan = session.get_one(RoundRow, round_id).plan_blob
        running = session.scalars(select(RoundRow).where(RoundRow.id != round_id, RoundRow.state != "closed")).all()
    # An exam shows public data only; a round that was opened from folders may have another one.
    plans = {f"{row.modality} round {row.id}": {row.plan_blob, row.exam_blob or row.plan_blob} for row in running}

    def held_by(blob: str) -> set[str]:
        return {s.dataset for s in load_round(blobs, blob).samples if s.provenance is Provenance.HOLDOUT}

    elsewhere: dict[str, list[str]] = {}
    for label, names in plans.items():
        for name in sorted(set().union(*map(held_by, names))):
            elsewhere.setdefault(name, []).append(label)
    store = open_store(home)
    here = held_by(plan) & set(store.names())
    due = [name for name in sorted(here) if store.manifest(name).entry.releasable]
    released = [name for name in due if name not in elsewhere and store.release(name)]
    public = store.provenances()
    held = {name: elsewhere[name] for name in due if name in elsewhere and public[name] is Provenance.HOLDOUT}
    return released, held


async def _registered(settings: HomeSettings, wallet: str, hotkey: str, netuid: int) -> dict[str, int]:
    from gas.chain.keys import load_hotkey
    from gas.clock import SystemClock

    chain = await open_chain(settings, load_hotkey(settings.wallets_path, wallet, hotkey), SystemClock())
    try:
        graph = await chain.metagraph(netuid)
    finally:
        await chain.close()
    return {neuron.hotkey: neuron.uid for neuron in graph.neurons}


def _status(database: Database, competition: Competition) -> dict[str, Any] | None:
    from sqlalchemy import select

    from gas.arena.likeness import near_weights
    from gas.arena.rounds import standings
    from gas.storage.tables import RoundRow, RunRow, SubmissionRow

    round_id = _find_open(database, competition)
    if round_id is None:
        return None
    now = time.time()
    with database.read() as session:
        row = session.get_one(RoundRow, round_id)
        states: dict[str, int] = {}
        handed_in = session.scalars(
            select(SubmissionRow).where(
                SubmissionRow.modality == row.modality,
                SubmissionRow.vertical == row.vertical,
                SubmissionRow.created_at >= row.opened_at,
            )
        ).all()
        for submission in handed_in:
            states[submission.state] = states.get(submission.state, 0) + 1
        runs = session.execute(
            select(RunRow, SubmissionRow)
            .join(SubmissionRow, SubmissionRow.id == RunRow.submission_id)
            .where(RunRow.round_id == round_id)
        ).tuples()
        running, flagged = [], []
        for run, submission in runs:
            if run.state == "running":
                running.append(
                    {
                        "submission_id": submission.id,
                        "name": submission.name,
                        "kind": run.kind,
                        "seconds": now - run.started_at,
                        "attempts": run.attempts,
                    }
                )
            if resembles := (run.metrics or {}).get("resembles"):
                flagged.append({"submission_id": submission.id, "name": submission.name, **resembles})
        near = near_weights(session, [submission.id for submission in handed_in])
        table = [
            {"rank": s.rank, "name": s.name, "hotkey": s.hotkey, "score": s.score, "duplicate_of": s.duplicate_of}
            for s in standings(session, round_id)
        ]
        return {
            "competition": competition.name,
            "round_id": round_id,
            "state": row.state,
            "open_seconds": now - row.opened_at,
            "submissions": states,
            "running": running,
            "standings": table,
            "flagged": flagged,
            "near_weights": [
                {"submission_id": one.id, "name": one.name, "hotkey": one.hotkey, "state": one.state}
                | near[one.id].as_dict()
                | {"nearest": near[one.id].submission_id}
                for one in handed_in
                if one.id in near
            ],
        }


def _show_standings(table: Any) -> None:
    for place in table:
        duplicate = "  same weights as an older model" if place.duplicate_of else ""
        print(f"{place.rank:3} {place.name:24} {_score(place.score)}  {place.hotkey}{duplicate}")


def _score(score: float | None) -> str:
    return "  none" if score is None else f"{score:.4f}"
