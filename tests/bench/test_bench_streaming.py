"""Answers stream to the disk while a run goes, and what the run remembers doesn't grow with the plan."""

import threading
from collections import deque

import numpy as np
import pyarrow.parquet as pq
import pytest

from gas.bench import answer_parts
from gas.bench.answer_store import AnswerStore
from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass
from gas.bench.engine import evaluate
from gas.bench.feed import Ahead, fitting_batch
from gas.bench.journal import Journal
from gas.bench.records import to_parquet
from gas.errors import InfrastructureError, ModelFailed
from gas.types import SampleStatus

NONCE = "the secret of one run"
IDENTITY = {"round": "r", "package": "p"}


class Killed(InfrastructureError):
    """Stands for the end of the process, at the point where a batch is complete."""


class QueueingSession:
    """A model in this process that takes a second batch while it has one, as a sandboxed one does."""

    def __init__(self, sandbox):
        self.tier, self.sandbox, self.waiting, self.closed = sandbox.tier, sandbox, deque(), False

    capacity = 2

    def submit(self, batch):
        assert not self.closed
        assert len(self.waiting) < self.capacity
        self.waiting.append(batch.copy())
        self.sandbox.most = max(self.sandbox.most, len(self.waiting))

    def collect(self):
        assert not self.closed
        logits = self.sandbox.model(self.waiting[0])
        self.waiting.popleft()
        return logits

    def infer(self, batch):
        assert not self.waiting
        self.submit(batch)
        return self.collect()

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


@pytest.fixture
def queueing(bench):
    """A sandbox of such sessions."""

    class Sandbox(bench.Sandbox):
        most = 0

        def start(self, spec, *, batch_size, limits=None, threads=1):
            with self.lock:
                self.sessions.append(QueueingSession(self))
                return self.sessions[-1]

    return Sandbox


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of twenty showings."""
    monkeypatch.setattr("gas.bench.journal.PART_ROWS", 20)


def lived(bench, folder, kill_after, *, sandbox=None, seen=None, **changes):
    """One life of a run; its result, or None when it was killed."""

    def watch(progress):
        if seen is not None:
            seen.append(sorted(folder.glob("answers-*/part-*.parquet")))
        if progress.done - progress.resumed >= kill_after:
            raise Killed("killed")

    config = bench.config(nonce=NONCE, robustness_per_dataset=3, batch_size=5, **changes)
    with Journal(folder, IDENTITY, NONCE) as journal:
        try:
            return evaluate(
                bench.spec, bench.round(90), bench.Media(), sandbox or bench.Sandbox(), config, watch, journal=journal
            )
        except Killed:
            return None


@pytest.mark.usefixtures("small_parts")
def test_parts_can_be_read_while_the_run_goes_and_hold_its_answers(bench, tmp_path):
    seen = []
    result = lived(bench, tmp_path, 10**6, seen=seen)
    counts = [len(paths) for paths in seen]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert 0 < counts[len(counts) // 2] < counts[-1]
    rows = [row for path in seen[-1] for row in pq.read_table(path).to_pylist()]
    said = {(r.sample_id, r.variant.value): r.logits for r in result.records}
    assert len(rows) >= 80
    for row in rows:
        assert tuple(row["logits"]) == said[f"{row['index']:064x}", row["pass"]]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("guilty", [(), (17, 60)])
def test_a_run_killed_ten_times_among_its_parts_ends_with_the_same_bytes(bench, tmp_path, queueing, guilty):
    def sandbox():
        return queueing(bench.dies_on(*guilty))

    whole = lived(bench, tmp_path / "whole", 10**6, sandbox=sandbox())
    result, lives = None, 0
    while result is None:
        lives += 1
        result = lived(bench, tmp_path / "killed", 9 if lives <= 10 else 10**6, sandbox=sandbox())
    assert lives > 5
    assert to_parquet(result.records) == to_parquet(whole.records)
    assert {int(r.sample_id, 16) for r in result.records if r.status is SampleStatus.MODEL_ERROR} == set(guilty)


@pytest.mark.usefixtures("small_parts")
def test_a_life_that_ends_between_the_part_and_the_journal_counts_nothing_twice(bench, tmp_path):
    answers = [(Ask(k, Pass.BASE), Outcome(np.array([0.5, k], np.float32))) for k in range(30)]
    with Journal(tmp_path, IDENTITY, NONCE) as journal:
        journal.append(answers[:15], restarts=0)
        before = journal.path.read_bytes()
        journal.append(answers[15:20], restarts=1)
        assert len(journal.path.read_bytes()) < len(before)
    journal.path.write_bytes(before)
    with Journal(tmp_path, IDENTITY, "another secret nonce") as again:
        assert (again.nonce, again.restarts, again.begun) == (NONCE, 1, True)
        assert sorted(again.outcomes) == [ask for ask, _ in answers[:20]]
        again.append(answers[20:], restarts=1)
        assert len(again.outcomes) == 30


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_is_asked_again(bench, tmp_path):
    assert lived(bench, tmp_path, 60) is None
    first = min(tmp_path.glob("answers-*/part-*.parquet"))
    first.write_bytes(first.read_bytes()[:-20])
    sandbox = bench.Sandbox()
    result = lived(bench, tmp_path, 10**6, sandbox=sandbox)
    assert sum(map(len, sandbox.batches)) >= 20
    assert to_parquet(result.records) == to_parquet(lived(bench, tmp_path / "whole", 10**6).records)


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_cannot_be_written_leaves_the_answers_in_the_journal(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    answers = [(Ask(k, Pass.BASE), Outcome(np.array([0.5, k], np.float32))) for k in range(25)]
    with Journal(tmp_path, IDENTITY, NONCE) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(answer_parts.pq, "write_table", full)
            with pytest.raises(InfrastructureError) as error:
                journal.append(answers, restarts=0)
        assert error.value.error_code == "journal_unwritable"
    with Journal(tmp_path, IDENTITY, NONCE) as again:
        assert len(again.outcomes) == 25
        assert list(tmp_path.glob("answers-*/*")) == []


@pytest.mark.usefixtures("small_parts")
def test_a_removed_journal_leaves_nothing(bench, tmp_path):
    lived(bench, tmp_path, 10**6)
    with Journal(tmp_path, IDENTITY, NONCE) as journal:
        assert journal.begun
        journal.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_parts")
def test_times_are_kept_beside_the_answers_over_all_lives(bench, tmp_path):
    assert lived(bench, tmp_path, 40) is None
    result = lived(bench, tmp_path, 10**6)
    with Journal(tmp_path, IDENTITY, NONCE) as journal:
        assert journal.times == list(result.batch_seconds)
    assert sum(showings for showings, _ in result.batch_seconds) >= len(result.records)


def test_two_batches_are_with_a_model_at_a_time_and_no_answer_goes_astray(bench, queueing):
    sandbox = queueing()
    result = evaluate(bench.spec, bench.round(300), bench.Media(), sandbox, bench.config(processes=1))
    assert sandbox.most == 2
    assert all(r.fake == (int(r.sample_id, 16) % 2 == 1) for r in result.records)
    assert (
        result.records == evaluate(bench.spec, bench.round(300), bench.Media(), bench.Sandbox(), bench.config()).records
    )


@pytest.mark.parametrize("at", ["submit", "collect"])
def test_a_crash_with_two_batches_under_way_harms_the_guilty_sample_alone(bench, queueing, at):
    guilty = 41

    class Session(QueueingSession):
        def submit(self, batch):
            # Where the model dies of the first batch before the second is handed over, that is where it shows.
            if at == "submit" and self.waiting and guilty in bench.numbers_of(self.waiting[0]).tolist():
                raise ModelFailed("The pipe is closed.", code="crashed")
            super().submit(batch)

    class Sandbox(queueing):
        def start(self, spec, **how):
            session = super().start(spec, **how)
            session.__class__ = Session
            return session

    sandbox = Sandbox(bench.dies_on(guilty))
    result = evaluate(
        bench.spec, bench.round(200), bench.Media(), sandbox, bench.config(processes=1, reask_least=0, reask_share=0)
    )
    bad = [r for r in result.records if r.status is not SampleStatus.OK]
    assert [int(r.sample_id, 16) for r in bad] == [guilty]
    assert result.restarts == 2
    assert all(session.closed for session in sandbox.sessions)


def test_the_last_batches_are_shared_between_the_models(bench):
    done = threading.Event()
    with Ahead(lambda item: item, range(3), threads=1, depth=3) as ahead:
        ahead.take()
        while not (ready := ahead.take_ready(1)):
            done.wait(0.001)
        assert ready == (1, 1)
        assert ahead.take_ready(1) is None
        assert ahead.take() == (2, 2)
        assert ahead.take_ready(0) is None


def test_what_a_run_remembers_of_a_showing_is_some_twenty_bytes():
    asks = [Ask(k, Pass.BASE) for k in range(20_000)] + [Ask(7, Pass.ROBUST), Ask(7, Pass.BASE, again=True)]
    store = AnswerStore(asks, 2)
    empty = store.nbytes
    logits = np.zeros(2, np.float32)
    store.update([(ask, Outcome(logits)) for ask in asks])
    assert len(store) == len(asks)
    assert store.nbytes == empty <= 20 * len(asks)


def test_the_store_gives_back_what_it_was_given():
    asks = [Ask(3, Pass.BASE), Ask(3, Pass.ROBUST), Ask(3, Pass.BASE, again=True), Ask(0, Pass.BASE)]
    store, unknown = AnswerStore(asks, 3), Outcome(error="unknown")
    logits = np.array([1, -2, 0.25], np.float32)
    store.update(
        [(asks[0], Outcome(error="crashed")), (asks[1], Outcome(logits)), (Ask(9, Pass.BASE), Outcome(logits))]
    )
    store.update([(asks[2], Outcome(error="undecodable", media_error=True))])
    first, second, third, fourth = store.outcomes(asks, unknown)
    assert (first.logits, first.error, first.media_error) == (None, "crashed", False)
    assert (second.logits.tolist(), second.error) == (logits.tolist(), None)
    assert (third.error, third.media_error) == ("undecodable", True)
    assert fourth is unknown
    assert [ask in store for ask in (*asks, Ask(9, Pass.BASE))] == [True, True, True, False, False]
    store.update([(asks[0], Outcome(logits))])
    assert len(store) == 3
    assert next(store.outcomes(asks, unknown)).error is None


def test_no_more_batches_are_in_memory_than_are_decoded_ahead_or_with_a_model(bench, queueing):
    alive, most, lock = [0], [0], threading.Lock()

    class Counted(np.ndarray):
        def __del__(self):
            if getattr(self, "whole", False):
                with lock:
                    alive[0] -= 1

    class Media(bench.Media):
        def fetch(self, sample_ids, target, *, robust):
            pixels, usable = super().fetch(sample_ids, target, robust=robust)
            counted = pixels.view(Counted)
            counted.whole = True
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])
            return counted, usable

    evaluate(bench.spec, bench.round(400), Media(), queueing(), bench.config(batch_size=4))
    # Two processes with two batches each, four decoded ahead, one more in the hands of each thread.
    assert most[0] <= 2 * 2 + 4 + 4


def test_batches_of_clips_are_small_and_those_of_pictures_are_as_asked(bench):
    from dataclasses import replace

    clip = replace(bench.spec, input_shape=(16, 3, 224, 224))
    picture = replace(bench.spec, input_shape=(3, 224, 224))
    huge = replace(bench.spec, input_shape=(64, 3, 1024, 1024))
    assert [fitting_batch(32, spec) for spec in (clip, picture, huge)] == [6, 32, 1]
    assert fitting_batch(4, clip) == 4
