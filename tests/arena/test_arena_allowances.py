"""What a hotkey may hand in, and hand in again: slots, pushes of a round, commitments that never came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from arena_fakes import Arena
from sqlalchemy import select

from gas.arena.dispatch import _load
from gas.arena.ports import ArenaConfig
from gas.arena.rounds import close_round, standings
from gas.arena.states import transition
from gas.arena.submissions import Received
from gas.clock import ManualClock
from gas.errors import RequestRefused
from gas.storage.tables import RunRow, SubmissionRow
from gas.types import SubmissionState

_S = SubmissionState
Make = Callable[..., Arena]


def scored(arena: Arena, hotkey: str, text: str, round_id: str = "round-1") -> Received:
    """A submission with a score and a receipt in a round."""
    received = arena.push(hotkey, text)
    with arena.database.write() as session:
        row = session.get_one(SubmissionRow, received.model_id)
        for state in (_S.EXAMINING, _S.CONFIRMED, _S.QUEUED, _S.RUNNING, _S.SCORED):
            transition(session, row, state, now=arena.clock.time())
        row.attempts = 2
        session.add(
            RunRow(
                id=f"run-{row.id}"[:64], submission_id=row.id, round_id=round_id, kind="full", state="done", attempts=1,
                metrics={"sn34_score": 0.9}, receipt={"signer": "v"}, started_at=0.0, finished_at=5.0,
            )
        )  # fmt: skip
    return received


def refusal(arena: Arena, text: str, hotkey: str = "alice") -> str:
    with pytest.raises(RequestRefused) as refused:
        arena.push(hotkey, text)
    assert refused.value.status == 429
    return refused.value.error_code


def ranked(arena: Arena, round_id: str) -> set[str]:
    with arena.database.read() as session:
        return {place.submission_id for place in standings(session, round_id)}


def test_a_scored_model_has_its_slot_until_its_round_ends_or_it_is_withdrawn(make_arena: Make) -> None:
    clock = ManualClock()
    arena = make_arena(clock=clock)
    arena.open_round()
    models = [scored(arena, "alice", f"w{index}") for index in range(3)]
    assert refusal(arena, "w3") == "no_slot"
    arena.submissions.withdraw("alice", models[0].model_id)
    assert ranked(arena, "round-1") == {model.model_id for model in models[1:]}
    fourth = arena.push("alice", "w3")
    assert fourth.slot == 3
    assert refusal(arena, "w4") == "no_slot"
    clock.advance(60.0)
    close_round(arena.database, "round-1", {"alice": 1}, clock)
    clock.advance(60.0)
    arena.open_round("round-2")
    assert arena.push("alice", "w4").slot == 2


def test_a_withdrawal_after_the_round_changes_nothing_of_it_and_the_content_is_not_scored_twice(
    make_arena: Make,
) -> None:
    arena = make_arena(clock=ManualClock())
    arena.open_round()
    model = scored(arena, "alice", "w1")
    close_round(arena.database, "round-1", {"alice": 1}, arena.clock)
    arena.submissions.withdraw("alice", model.model_id)
    assert list(arena.blobs.names()) == []
    again = arena.push("alice", "w1")
    assert (again.created, again.model_id, again.state) == (False, model.model_id, _S.WITHDRAWN)
    assert ranked(arena, "round-1") == {model.model_id}
    with arena.database.read() as session:
        assert session.scalars(select(RunRow.receipt)).all() == [{"signer": "v"}]


def test_what_was_not_committed_in_time_can_be_pushed_again_and_leaves_no_file(make_arena: Make) -> None:
    clock = ManualClock()
    arena = make_arena(clock=clock, config=ArenaConfig(pushes_per_round=2))
    arena.open_round()
    arena.jobs.start()

    def forgotten(text: str) -> Received:
        received = arena.push("alice", text)
        clock.advance(3601.0)
        arena.foreman.tick()
        row = arena.row(received.model_id)
        assert (row.state, row.zip_blob) == ("rejected", None)
        assert not arena.blobs.exists(received.sha256)
        return received

    first = forgotten("w1")
    second = forgotten("w1")
    assert (second.created, second.key) == (True, first.key)
    # The first one's row was replaced and counts all the same: as many as a round examines.
    assert refusal(arena, "w3") == "push_limit"
    close_round(arena.database, "round-1", {}, clock)
    third = arena.push("alice", "w1", block=9)
    arena.foreman.tick()
    assert (third.created, arena.row(third.model_id).committed_block) == (True, 9)


@pytest.mark.parametrize("end", [_S.EXAM_FAILED, _S.BLOCKED, _S.FAILED])
def test_what_ends_without_a_score_leaves_no_file(arena: Arena, end: SubmissionState) -> None:
    received, other = arena.push("alice", "w1"), arena.push("bob", "w2")
    with arena.database.write() as session:
        row = session.get_one(SubmissionRow, received.model_id)
        transition(session, row, _S.EXAMINING, now=0.0)
        transition(session, row, end, now=0.0)
    arena.jobs.start()
    arena.foreman.tick()
    assert list(arena.blobs.names()) == [arena.row(other.model_id).zip_blob]


def test_withdrawing_and_pushing_the_same_again_buys_no_exams_and_no_turn(make_arena: Make) -> None:
    arena = make_arena(clock=ManualClock(), config=ArenaConfig(pushes_per_round=2))
    arena.open_round()
    for _ in range(2):
        received = arena.push("alice", "w1")
        with arena.database.write() as session:
            row = session.get_one(SubmissionRow, received.model_id)
            transition(session, row, _S.EXAMINING, now=0.0)
            row.attempts = 1
            session.add(
                RunRow(id=row.id, submission_id=row.id, round_id="round-1", kind="exam", state="running",
                       attempts=1, started_at=0.0)
            )  # fmt: skip
        arena.submissions.withdraw("alice", received.model_id)
    assert refusal(arena, "w1") == "push_limit"
    with arena.database.read() as session:
        assert _load(session).hotkeys == {"alice": 2}
