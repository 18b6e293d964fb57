"""Rounds that are to end while there is work, and runs for which nobody waits any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from arena_fakes import Arena, outcome
from sqlalchemy import select

from gas.arena.ports import RunOutcome, RunTask
from gas.arena.pushes import PushLabel
from gas.arena.rounds import RoundBusy, close_round
from gas.arena.states import ROUND_CLOSING
from gas.arena.submissions import Received
from gas.cli.arena_crew import Crew
from gas.errors import InfrastructureError
from gas.storage.jobs import DurableJobs
from gas.storage.tables import ExecutorRow, RoundRow, RunRow
from gas.types import Modality, SubmissionState, Vertical

_S = SubmissionState


def until(condition: Callable[[], bool], tick: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick()
        time.sleep(0.02)


@pytest.fixture
def gate(arena: Arena) -> Iterator[threading.Event]:
    """Holds every exam until it is set, or until nobody waits for it any more."""
    gate = threading.Event()

    def evaluate(task: RunTask) -> RunOutcome:
        arena.evaluator.tasks.append(task)
        while not gate.wait(0.02):
            if task.given_up():
                raise InfrastructureError("The submission has ended.", code="given_up")
        return outcome()

    object.__setattr__(arena.job, "evaluate", evaluate)
    yield gate
    gate.set()


def close(arena: Arena, round_id: str = "round-1") -> None:
    close_round(arena.database, round_id, {"alice": 1, "bob": 2}, arena.clock)


def test_a_busy_round_takes_no_more_exams_and_closes_when_the_last_has_ended(
    arena: Arena, gate: threading.Event
) -> None:
    arena.open_round()
    first = arena.push("alice", "w1", block=1)
    queued = arena.push("bob", "w2", block=2)
    arena.jobs.start()
    until(lambda: arena.state(first.model_id) is _S.EXAMINING, arena.foreman.tick)
    with pytest.raises(RoundBusy):
        close(arena)
    late = arena.push("carol", "w3", block=3)
    gate.set()
    until(lambda: arena.state(first.model_id) is _S.SCORED, arena.foreman.tick)
    until(lambda: arena.jobs.state(f"submission-{queued.model_id}") == "done", arena.foreman.tick)
    close(arena)
    assert {arena.state(one.model_id) for one in (queued, late)} == {_S.SCANNING}
    arena.open_round("round-2")
    until(lambda: {arena.state(one.model_id) for one in (queued, late)} == {_S.SCORED}, arena.foreman.tick)


def test_a_submission_that_meets_one_closing_round_after_the_other_is_scored_in_the_end(
    arena: Arena, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.set()
    enqueue, current = type(arena.jobs).enqueue, "round-1"

    def closing_by_then(jobs: DurableJobs, *words: str) -> None:
        # By the time at which a worker begins with it, the owner has begun to close the round.
        with arena.database.write() as session:
            session.get_one(RoundRow, current).state = ROUND_CLOSING
        enqueue(jobs, *words)

    monkeypatch.setattr(DurableJobs, "enqueue", closing_by_then)
    arena.jobs.start()
    model = arena.push("alice", "w1", block=1).model_id
    for number in (1, 2, 3):
        current = f"round-{number}"
        arena.open_round(current)
        until(lambda: model in arena.foreman._enqueued, arena.foreman.tick)
        until(lambda: model not in arena.foreman._enqueued, arena.foreman.tick)
        assert arena.state(model) is _S.SCANNING
        close(arena, current)
    monkeypatch.undo()
    arena.open_round("round-4")
    until(lambda: arena.state(model) is _S.SCORED, arena.foreman.tick)


def test_a_model_that_is_taken_back_leaves_no_run_that_seems_to_go_on(arena: Arena, gate: threading.Event) -> None:
    arena.open_round()
    model = arena.push("alice", "w1", block=1).model_id
    arena.jobs.start()
    until(lambda: arena.state(model) is _S.EXAMINING and bool(arena.evaluator.tasks), arena.foreman.tick)
    arena.submissions.withdraw("alice", model)
    with arena.database.read() as session:
        assert {run.state for run in session.scalars(select(RunRow))} == {"withdrawn"}
    assert not gate.is_set()


def test_a_push_whose_other_half_never_comes_does_not_hold_a_round_open(arena: Arena, gate: threading.Event) -> None:
    gate.set()
    for modality in (Modality.IMAGE, Modality.VIDEO):
        arena.open_round(f"round-{modality}", modality)
    package = arena.home / "package.zip"
    package.write_text("w1")
    label = PushLabel("ab" * 16, frozenset({Modality.IMAGE, Modality.VIDEO}))
    one: Received = arena.submissions.receive("alice", package, Modality.IMAGE, Vertical.GENERAL, label)
    arena.chain.publish("alice", one, 7)
    arena.jobs.start()
    until(lambda: len(arena.evaluator.tasks) == 1 and arena.state(one.model_id) is _S.EXAMINING, arena.foreman.tick)
    with pytest.raises(RoundBusy):
        close(arena, "round-image")
    until(lambda: arena.state(one.model_id) is _S.SCORED, arena.foreman.tick)
    close(arena, "round-image")


def test_a_withdrawn_run_leaves_its_worker_to_the_next(arena: Arena, gate: threading.Event) -> None:
    arena.open_round()
    first = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    until(lambda: arena.state(first.model_id) is _S.EXAMINING, arena.foreman.tick)
    arena.submissions.withdraw("alice", first.model_id)
    second = arena.push("bob", "w2", block=2)
    until(lambda: arena.state(second.model_id) is _S.EXAMINING, arena.foreman.tick)
    assert arena.state(first.model_id) is _S.WITHDRAWN
    assert [task.kind for task in arena.evaluator.tasks] == ["exam", "exam"]
    gate.set()
    until(lambda: arena.state(second.model_id) is _S.SCORED, arena.foreman.tick)


def test_the_heart_beats_while_the_foreman_is_busy(arena: Arena, tmp_path: Path) -> None:
    release, stuck = threading.Event(), threading.Event()

    def slow_tick() -> None:
        stuck.set()
        release.wait(60.0)

    class Slow:
        job, loop, chain = arena.job, arena.loop, arena.chain
        tick = staticmethod(slow_tick)

    async def closed() -> None:
        return None

    arena.chain.close = closed  # type: ignore[attr-defined]
    arena.jobs.config = type(arena.jobs.config)(arena.jobs.config.url, {"evaluation": 1}, lease_seconds=0.2)
    crew = Crew(arena.jobs, Slow(), threading.Event())  # type: ignore[arg-type]

    def beaten() -> float:
        with arena.database.read() as session:
            return session.scalar(select(ExecutorRow.heartbeat_at)) or 0.0

    crew.start(lambda: None)
    try:
        assert stuck.wait(60.0)
        since = beaten()
        until(lambda: beaten() > since)
    finally:
        release.set()
        crew.stop()
    assert not crew.broken
    with arena.database.read() as session:
        assert session.scalars(select(ExecutorRow.id)).all() == []
