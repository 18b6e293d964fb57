"""Many submissions at once: each ends, on either database, whatever its package and its model do.

``GAS_TEST_MANY=200`` makes them two hundred; every run of the tests has fewer, for its time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from arena_fakes import Arena, ScriptedEvaluator, outcome
from postgres import VARIABLE, programs, serve_postgres
from sqlalchemy import func, select

from gas.arena.ports import RunOutcome, RunTask
from gas.clock import SystemClock
from gas.errors import GasError, InfrastructureError, ModelFailed, PackageRejected
from gas.storage.tables import RunRow, SubmissionRow
from gas.types import TERMINAL_STATES, Modality

_ENDED = [state.value for state in TERMINAL_STATES]


class Mixed(ScriptedEvaluator):
    """Most models are good; of every ten, one fails, one is weak, and one meets a fault of ours once."""

    def __call__(self, task: RunTask) -> RunOutcome:
        number = int(task.package.read_text().split()[0].removeprefix("w")) % 10
        self.tasks.append(task)
        first = sum(one.run_id == task.run_id for one in self.tasks) == 1
        error: GasError | None = {
            3: ModelFailed("It crashed.", code="crashed"),
            7: InfrastructureError("The disk is full.") if first else None,
        }.get(number)
        if error is not None:
            raise error
        return outcome(0.5 if number == 5 else 0.9)


@pytest.fixture(params=["sqlite", "postgresql"])
def busy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    if request.param == "sqlite":
        monkeypatch.delenv(VARIABLE, raising=False)
        arena = Arena(tmp_path, SystemClock(), evaluator=Mixed())
        yield arena
        arena.close()
        return
    if programs() is None:
        pytest.skip("postgresql is not installed")
    with serve_postgres() as peer:
        monkeypatch.setenv(VARIABLE, peer.url)
        arena = Arena(tmp_path, SystemClock(), evaluator=Mixed())
        yield arena
        arena.close()


def test_many_submissions_at_once_all_end(busy: Arena) -> None:
    many = int(os.environ.get("GAS_TEST_MANY", "40"))
    for modality in Modality:
        busy.open_round(f"round-{modality}", modality)
    refused = 0
    for number in range(many):
        word = "bad" if number % 10 == 9 else f"w{number}"
        modality = list(Modality)[number % 3]
        try:
            busy.push(f"author-{number}", f"{word} {number}", block=number, modality=modality)
        except PackageRejected:
            refused += 1
    busy.jobs.start()
    deadline = time.monotonic() + 60.0 + 3.0 * many

    def left() -> int:
        with busy.database.read() as session:
            query = select(func.count()).select_from(SubmissionRow).where(SubmissionRow.state.not_in(_ENDED))
            return session.scalar(query) or 0

    while left():
        assert time.monotonic() < deadline, "they did not end in time"
        busy.foreman.tick()
        busy.job.stopping.wait(0.1)
    with busy.database.read() as session:
        states = Counter(session.scalars(select(SubmissionRow.state)))
        running = session.scalar(select(func.count()).select_from(RunRow).where(RunRow.state == "running"))
    assert (refused, running) == (many // 10, 0)
    assert states == {"rejected": many // 10, "exam_failed": many // 5, "scored": many * 7 // 10}
