"""The task store: older databases, equal pictures, and one end for each task."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.clock import ManualClock, SeededIds
from gas.errors import StorageError
from gas.generation.base import Job
from gas.miners.history import read_records, task_counts
from gas.miners.states import TaskState, Verdict
from gas.miners.tasks import TaskStore
from gas.scoring.generators import default_prices

FIRST_VERSION = """
CREATE TABLE tasks (id VARCHAR(64) NOT NULL PRIMARY KEY, validator VARCHAR(64) NOT NULL, modality VARCHAR(16) NOT NULL,
 prompt TEXT NOT NULL, parameters JSON NOT NULL, webhook_url TEXT NOT NULL, state VARCHAR(16) NOT NULL,
 created_at FLOAT NOT NULL, finished_at FLOAT, media_blob VARCHAR(64), mime VARCHAR(64), error TEXT);
INSERT INTO tasks VALUES ('old-1','v','image','a cat','{}','http://x','generating',1.0,NULL,NULL,NULL,NULL);
INSERT INTO tasks VALUES ('old-2','v','image','a dog','{}','http://x','delivered',2.0,3.0,NULL,'image/png',NULL);
"""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[TaskStore]:
    store = TaskStore(tmp_path / "state", clock, SeededIds())
    yield store
    store.close()


def test_tasks_of_the_first_version_are_gone_on_with(tmp_path: Path, clock: ManualClock) -> None:
    with sqlite3.connect(tmp_path / "tasks.db") as connection:
        connection.executescript(FIRST_VERSION)
    connection.close()
    for _ in range(2):
        store = TaskStore(tmp_path, clock, SeededIds())
        assert [(task.id, task.state) for task in store.recover().open] == [("old-1", TaskState.QUEUED)]
        assert store.counts() == {"queued": 1, "delivered": 1}
        store.close()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    TaskStore(tmp_path, clock, SeededIds()).close()
    with sqlite3.connect(tmp_path / "tasks.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(StorageError) as refusal:
        TaskStore(tmp_path, clock, SeededIds())
    assert refusal.value.error_code == "schema_newer"


def test_two_tasks_with_the_same_picture_do_not_lose_it_to_each_other(store: TaskStore) -> None:
    tasks = [store.add("v", "image", p, {}, "http://x", limit=9, source=b"picture", mask=b"mask") for p in "ab"]
    first, second = tasks
    assert first is not None
    assert second is not None
    store.finish(first, TaskState.FAILED, "x")
    assert store.source(second.source_blob or "") == b"picture"
    store.finish(second, TaskState.FAILED, "x")
    with pytest.raises(StorageError):
        store.source(second.source_blob or "")


def test_a_task_ends_once(store: TaskStore) -> None:
    task = store.add("v", "image", "p", {}, "http://x", limit=9)
    assert task is not None
    assert store.finish(task, TaskState.DELIVERED, verdict=Verdict("verified"))
    assert not store.finish(task, TaskState.FAILED, "late")
    store.start(task.id, "local")
    store.fail_to_make(task.id, "later still")
    found = store.get(task.id)
    assert found is not None
    assert (found.state, found.error, found.verdict) == (TaskState.DELIVERED, None, "verified")


def test_files_that_no_task_names_are_removed_at_the_start(store: TaskStore) -> None:
    kept = store.add("v", "image", "p", {}, "http://x", limit=9, source=b"kept")
    assert kept is not None
    orphan = store.folder / "outgoing" / "aa" / ("aa" + "0" * 62)
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half a medium")
    store.recover()
    assert not orphan.exists()
    assert store.source(kept.source_blob or "") == b"kept"


def test_one_who_floods_the_queue_does_not_lock_the_others_out(store: TaskStore) -> None:
    taken = [store.add("flood", "image", "p", {}, "http://x", limit=16) for _ in range(40)]
    assert sum(task is not None for task in taken) == 16
    other = [store.add("other", "image", "p", {}, "http://x", limit=16) for _ in range(9)]
    assert [task is not None for task in other] == [True, True] + [False] * 7


def test_ended_tasks_are_forgotten_after_their_time(store: TaskStore, clock: ManualClock) -> None:
    old = store.add("v", "image", "p", {}, "http://x", limit=9)
    assert old is not None
    store.finish(old, TaskState.DELIVERED)
    clock.advance(100)
    waiting = store.add("v", "image", "p", {}, "http://x", limit=9)
    assert waiting is not None
    assert store.forget(before=clock.time() - 50) == 1
    assert store.get(old.id) is None
    assert store.get(waiting.id) is not None


def test_the_record_counts_verdicts_reasons_failures_and_the_price(store: TaskStore, clock: ManualClock) -> None:
    verdicts = [Verdict("verified"), Verdict("refused", ("duplicate", "too_small")), Verdict("refused", ("duplicate",))]
    for verdict in verdicts:
        task = store.add("v", "image", "p", {"resolution": "2K"}, "http://x", limit=9)
        assert task is not None
        store.generated(task.id, b"m", "image/png", size=(2048, 2048))
        clock.advance(4)
        store.finish(task, TaskState.DELIVERED, verdict=verdict)
    failed = store.add("w", "image", "p", {}, "http://x", limit=9)
    assert failed is not None
    store.finish(failed, TaskState.FAILED, "x", code="provider_busy")
    records = read_records(store.folder, since=0.0, prices=default_prices())
    everyone = records[""]
    assert set(records) == {"", "v", "w"}
    assert (everyone.taken, everyone.verified, everyone.refused) == (4, 1, 2)
    assert everyone.pass_rate == pytest.approx(1 / 3)
    assert everyone.reasons == {"duplicate": 2, "too_small": 1}
    assert everyone.failures == {"provider_busy": 1}
    assert everyone.seconds == 4.0
    multiplier = everyone.multipliers["image"]
    assert multiplier is not None
    assert multiplier > 1.0
    assert records["w"].pass_rate is None
    assert task_counts(store.folder) == {"delivered": 3, "failed": 1}
    assert task_counts(store.folder / "elsewhere") == {}


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["start", "ask", "run", "made", "fail", "end", "restart"])),
    max_size=12,
)


@settings(max_examples=20)
@given(steps=STEPS)
def test_whatever_happens_no_paid_task_goes_back_to_the_queue_after_a_restart(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, str]]
) -> None:
    store = TaskStore(tmp_path_factory.mktemp("s"), ManualClock(), SeededIds())
    tasks = [store.add("v", "image", str(n), {}, "http://x", limit=9) for n in range(3)]
    ended: dict[str, TaskState] = {}
    paid: set[str] = set()
    for number, step in steps:
        task = tasks[number]
        assert task is not None
        now = store.get(task.id)
        assert now is not None
        if step == "start" and now.state is TaskState.QUEUED:
            store.start(task.id, "local")
        elif step == "ask" and now.state is TaskState.QUEUED:
            store.start(task.id, "openai", paid=True)
            paid.add(task.id)
        elif step == "run" and now.state is TaskState.ASKING:
            store.running(task.id, Job("j"))
        elif step == "made" and now.state in (TaskState.ASKING, TaskState.RUNNING, TaskState.GENERATING):
            store.generated(task.id, b"m", "image/png")
        elif step == "fail":
            store.fail_to_make(task.id, "x")
        elif step == "end" and now.state is TaskState.DELIVERING:
            assert store.finish(now, TaskState.DELIVERED)
            ended[task.id] = TaskState.DELIVERED
        elif step == "restart":
            store.recover()
        for name in paid:
            found = store.get(name)
            assert found is not None
            assert found.state is not TaskState.QUEUED
    assert all((found := store.get(name)) is not None and found.state is state for name, state in ended.items())
    store.close()
