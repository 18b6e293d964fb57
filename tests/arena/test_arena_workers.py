"""From the commitment to the score: the job, the foreman, and what dies on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from arena_fakes import Arena, ScriptedEvaluator, outcome
from sqlalchemy import select

from gas.arena.ports import ArenaConfig, Judgement, RunOutcome, RunTask
from gas.arena.receipts import verify_receipt
from gas.arena.workers import run_id
from gas.chain.base import Commitment
from gas.errors import ChainUnreachable, InfrastructureError, ModelFailed, PackageRejected, SandboxUnavailable
from gas.storage.tables import JudgementRow, MediumRow, RunRow, SubmissionRow
from gas.types import TERMINAL_STATES, Hotkey, SubmissionState

_S = SubmissionState


def play(arena: Arena, until: Callable[[], bool], seconds: float = 30.0) -> None:
    """Let the foreman look around until something holds."""

    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        arena.foreman.tick()
        time.sleep(0.02)


def ended(arena: Arena, *submission_ids: str) -> Callable[[], bool]:
    return lambda: all(arena.state(s) in TERMINAL_STATES for s in submission_ids)


def test_a_committed_model_is_examined_run_and_scored_with_a_receipt(arena: Arena) -> None:
    medium = MediumRow(
        sha256="a" * 64, validator="v", generator="g", task_id="t", modality="image", media_type="synthetic",
        width=1, height=1, mime="image/png", verified_at=0.0,
    )  # fmt: skip
    with arena.database.write() as session:
        session.add(medium)
    arena.open_round()
    judged = (Judgement("a" * 64, True), Judgement("b" * 64, False))
    arena.evaluator.script = [outcome(0.9), outcome(0.95, judgements=judged)]
    received = arena.push("alice", "w1", block=12)
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))

    row = arena.row(received.model_id)
    assert (row.state, row.committed_block, row.attempts) == ("scored", 12, 2)
    assert [(t.kind, t.round_blob[0]) for t in arena.evaluator.tasks] == [("exam", "2"), ("full", "1")]
    with arena.database.read() as session:
        run = session.get_one(RunRow, run_id(received.model_id, "round-1", "full"))
        assert [(j.media_sha256[0], j.fooled) for j in session.scalars(select(JudgementRow))] == [("a", True)]
    receipt = verify_receipt(run.receipt, records_sha256=run.records_blob)
    assert receipt.body["model"]["sha256"] == received.sha256
    assert receipt.body["metrics"]["accuracy"] == 0.95
    assert list((arena.home / "work").iterdir()) == []


def test_nothing_runs_without_the_right_commitment(arena: Arena) -> None:
    arena.open_round()
    received = arena.push("alice", "w1")
    arena.chain.published["alice"] = Commitment(Hotkey("alice"), '{"key":"other","hash":"0123456789abcdef"}', 3)
    arena.jobs.start()
    for _ in range(3):
        arena.foreman.tick()
    assert arena.state(received.model_id) is _S.SCANNING
    arena.chain.error = ChainUnreachable("No answer.")
    arena.foreman.tick()
    assert arena.state(received.model_id) is _S.SCANNING
    assert arena.evaluator.tasks == []


def test_a_missing_commitment_ends_the_wait_with_a_reason(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena(config=ArenaConfig(commitment_seconds=0.0))
    received = arena.push("alice", "w1")
    arena.jobs.start()
    arena.foreman.tick()
    row = arena.row(received.model_id)
    assert row.state == "rejected"
    assert row.reasons[0]["code"] == "commitment_missing"


def test_a_weak_model_is_told_why(arena: Arena) -> None:
    arena.open_round()
    arena.evaluator.script = [outcome(0.62)]
    received = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))
    row = arena.row(received.model_id)
    assert row.state == "exam_failed"
    assert row.reasons[0]["code"] == "exam_accuracy"
    assert "62.0%" in row.reasons[0]["message"]
    assert "80%" in row.reasons[0]["message"]


def test_copied_weights_are_blocked_and_the_earlier_commitment_keeps_the_credit(arena: Arena) -> None:
    arena.open_round()
    copy, original = arena.push("bob", "w1", block=11), arena.push("alice", "w1", block=10)
    arena.jobs.start()
    play(arena, ended(arena, copy.model_id, original.model_id))
    assert arena.state(original.model_id) is _S.SCORED
    assert arena.state(copy.model_id) is _S.BLOCKED
    assert arena.row(copy.model_id).reasons[0]["code"] == "duplicate"


def test_a_model_that_answers_like_anothers_is_blocked(arena: Arena) -> None:
    arena.open_round()
    rng = np.random.default_rng(0)
    answers = {f"{i:064x}": float(p) for i, p in enumerate(rng.uniform(size=40))}
    nearly = {k: p + 1e-4 * float(rng.uniform()) for k, p in answers.items()}
    others = {k: float(rng.uniform()) for k in answers}
    arena.evaluator.script = [outcome(0.9, answers), outcome(), outcome(0.9, nearly), outcome(0.9, others), outcome()]
    first = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, first.model_id))
    second = arena.push("bob", "w2", block=2)
    play(arena, ended(arena, second.model_id))
    third = arena.push("carol", "w3", block=3)
    play(arena, ended(arena, third.model_id))
    assert [arena.state(r.model_id).value for r in (first, second, third)] == ["scored", "blocked", "scored"]
    assert arena.row(second.model_id).reasons[0]["code"] == "near_copy"


def test_a_failing_model_is_never_retried(arena: Arena) -> None:
    arena.open_round()
    arena.evaluator.script = [ModelFailed("It crashed.", code="crashed")]
    first = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, first.model_id))
    assert arena.state(first.model_id) is _S.EXAM_FAILED
    assert len(arena.evaluator.tasks) == 1
    arena.evaluator.script = [outcome(), ModelFailed("Too slow.", code="timeout")]
    second = arena.push("bob", "w2", block=2)
    play(arena, ended(arena, second.model_id))
    row = arena.row(second.model_id)
    assert (row.state, row.error) == ("failed", None)
    assert row.reasons[0]["code"] == "timeout"
    assert len(arena.evaluator.tasks) == 3


def test_a_fault_of_ours_is_retried_twice_and_then_gives_the_slot_back(arena: Arena) -> None:
    arena.open_round()
    ours = [SandboxUnavailable("No isolation.") for _ in range(3)]
    arena.evaluator.script = [*ours[:2], outcome(), outcome()]
    lucky = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, lucky.model_id))
    assert arena.state(lucky.model_id) is _S.SCORED

    arena.evaluator.tasks.clear()
    arena.evaluator.script = list(ours)
    unlucky = arena.push("bob", "w2", block=2)
    play(arena, ended(arena, unlucky.model_id))
    row = arena.row(unlucky.model_id)
    assert (row.state, len(arena.evaluator.tasks)) == ("failed", 3)
    assert row.error == {"code": "sandbox_unavailable", "message": "No isolation."}
    assert row.reasons == []
    again = arena.push("bob", "w2", block=3)
    assert again.created
    assert (again.slot, again.key) == (1, unlucky.key)
    play(arena, ended(arena, again.model_id))
    assert arena.state(again.model_id) is _S.SCORED


def test_a_bug_of_ours_still_ends_the_submission(arena: Arena) -> None:
    arena.open_round()
    arena.evaluator.script = [ZeroDivisionError("bug")]
    received = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))
    row = arena.row(received.model_id)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["code"] == "internal"


def test_a_withdrawal_during_a_run_stands(arena: Arena) -> None:
    arena.open_round()

    class Withdrawing(ScriptedEvaluator):
        def __call__(self, task):  # type: ignore[no-untyped-def]
            if task.kind == "full":
                arena.submissions.withdraw("alice", received.model_id)
            return outcome()

    object.__setattr__(arena.job, "evaluate", Withdrawing())
    received = arena.push("alice", "w1", block=1)
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))
    assert arena.state(received.model_id) is _S.WITHDRAWN


def test_what_runs_past_its_limit_is_ended(arena: Arena) -> None:
    arena.open_round()
    received = arena.push("alice", "w1", block=1)
    with arena.database.write() as session:
        session.get_one(SubmissionRow, received.model_id).state = "running"
        session.add(
            RunRow(id="r", submission_id=received.model_id, round_id="round-1", kind="full", state="running",
                   attempts=1, started_at=0.0)
        )  # fmt: skip
    arena.jobs.start()
    arena.foreman.tick()
    row = arena.row(received.model_id)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["code"] == "overdue"


def test_a_job_that_was_lost_is_begun_anew_or_ended(arena: Arena) -> None:
    arena.open_round()
    received = arena.push("alice", "w1", block=1)
    with arena.database.write() as session:
        row = session.get_one(SubmissionRow, received.model_id)
        row.state, row.committed_block = "examining", 1
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))
    assert arena.state(received.model_id) is _S.SCORED


def test_a_worker_that_is_told_to_leave_hands_its_job_on_and_costs_no_attempt(make_arena: Callable[..., Arena]) -> None:
    leaving = make_arena()
    leaving.open_round()

    def leave(task: RunTask) -> RunOutcome:
        leaving.job.stopping.set()
        raise InfrastructureError("The worker is shutting down.", code="stopping")

    object.__setattr__(leaving.job, "evaluate", leave)
    received = leaving.push("alice", "w1", block=1)
    leaving.jobs.start()
    play(leaving, leaving.job.stopping.is_set)
    leaving.jobs.stop()
    assert leaving.state(received.model_id) is _S.EXAMINING

    staying = make_arena()
    staying.chain.published = leaving.chain.published
    staying.jobs.start()
    play(staying, ended(staying, received.model_id))
    assert staying.state(received.model_id) is _S.SCORED
    with staying.database.read() as session:
        assert session.get_one(RunRow, run_id(received.model_id, "round-1", "exam")).attempts == 1


_KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from arena_fakes import Arena, outcome
from gas.clock import SystemClock

arena = Arena(Path(sys.argv[1]), SystemClock())
class Dying:
    def __call__(self, task):
        if task.kind == "full":
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome()
object.__setattr__(arena.job, "evaluate", Dying())
arena.open_round()
received = arena.push("alice", "w1", block=1)
arena.jobs.start()
while True:
    arena.foreman.tick()
    time.sleep(0.02)
"""


def test_a_killed_worker_costs_no_submission(tmp_path: Path, make_arena: Callable[..., Arena]) -> None:
    script = [sys.executable, "-c", _KILLED, str(tmp_path), str(Path(__file__).parent)]
    killed = subprocess.run(script, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    arena = make_arena()
    known = arena.push("alice", "w1", block=1)
    assert not known.created
    assert arena.state(known.model_id) is _S.RUNNING
    arena.jobs.start()
    play(arena, ended(arena, known.model_id))
    assert arena.state(known.model_id) is _S.SCORED
    assert [task.kind for task in arena.evaluator.tasks] == ["full"]
    assert arena.row(known.model_id).attempts == 3


def test_a_model_that_kills_its_worker_each_time_fails_after_three_attempts(arena: Arena) -> None:
    arena.open_round()
    received = arena.push("alice", "w1", block=1)
    with arena.database.write() as session:
        row = session.get_one(SubmissionRow, received.model_id)
        row.state, row.committed_block = "examining", 1
        identity = run_id(received.model_id, "round-1", "exam")
        session.add(
            RunRow(id=identity, submission_id=received.model_id, round_id="round-1", kind="exam", state="running",
                   attempts=3, started_at=time.time())
        )  # fmt: skip
    arena.jobs.start()
    play(arena, ended(arena, received.model_id))
    row = arena.row(received.model_id)
    assert row.state == "failed"
    assert row.error is not None
    assert row.error["code"] == "worker_lost"
    assert arena.evaluator.tasks == []


def test_a_refused_package_never_reaches_a_worker(arena: Arena) -> None:
    arena.open_round()
    with pytest.raises(PackageRejected):
        arena.push("alice", "bad", block=1)
    arena.jobs.start()
    for _ in range(3):
        arena.foreman.tick()
    assert arena.evaluator.tasks == []
