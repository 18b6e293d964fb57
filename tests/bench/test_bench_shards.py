"""One run cut into shards ends with the bytes of an undisturbed one; here over threads, in the real sandbox."""

import hashlib
import json
import socket
from dataclasses import replace

import pytest
from gasbench_ground import Command
from hypothesis import given
from hypothesis import strategies as st
from shard_ground import ground, record_bytes

from gas.bench import run_many
from gas.bench.executors.local import LocalExecutor
from gas.bench.parcels import Parcel, parcel, parcel_of_file, place, shard_folder
from gas.bench.public import BenchRun, Watch
from gas.bench.settings import BenchSettings
from gas.bench.shard_cut import count_shards, cut_shards
from gas.bench.shard_work import run_shard
from gas.cli.gasbench import main
from gas.errors import ConfigurationError, IntegrityError, ModelFailed, StorageError
from gas.sandbox import Tier, probe
from gas.types import SampleStatus

needs_sandbox = pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return ground(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def expected(made, tmp_path_factory):
    return made.local(tmp_path_factory.mktemp("local"))


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    with LocalExecutor(2) as pool:
        yield pool


class Meddling:
    """An executor that does something to the pieces before they arrive."""

    name = "meddling"

    def __init__(self, inner, meddle):
        self.inner, self.meddle, self.slots = inner, meddle, inner.slots
        self.share, self.map = inner.share, inner.map

    def stream(self, function, items, on_lost=None):
        pieces = self.inner.stream(function, items, on_lost)
        for index, piece in pieces:
            yield from self.meddle(index, piece, items, on_lost)
        pieces.close()


@needs_sandbox
def test_a_run_in_shards_has_the_bytes_of_one_on_one_machine(made, expected, executor, tmp_path):
    seen, news = [], []
    result = made.sharded(tmp_path / "run", executor, on_progress=seen.append, on_shard=news.append)
    assert record_bytes(result) == record_bytes(expected)
    assert (result.reasked, result.inconsistent, result.tier) == (expected.reasked, (), expected.tier)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == sum(count for count, _ in result.batch_seconds) == 30
    assert seen[-1].accuracy == pytest.approx(0.9)
    assert result.timings.showings == 30
    assert result.timings.samples_per_second > 0
    assert [n.shards for n in news] == [2] * 4
    for what in ("begun", "done"):
        assert sorted(n.number for n in news if n.what == what) == [0, 1]
    assert list((tmp_path / "home" / "node" / "shards").iterdir()) == []


@needs_sandbox
def test_a_coordinator_that_is_killed_repeats_only_what_had_not_arrived(made, expected, executor, tmp_path):
    class Killed(BaseException):
        pass

    def die(now):
        if now.done >= 12:
            raise Killed

    with pytest.raises(Killed):
        made.sharded(tmp_path / "run", executor, on_progress=die)
    with made.journal(tmp_path / "run") as journal:
        known = journal.known
    assert 12 <= known < 30
    (tmp_path / "run" / "work").rename(tmp_path / "before")
    seen = []
    result = made.sharded(tmp_path / "run", executor, on_progress=seen.append)
    assert record_bytes(result) == record_bytes(expected)
    assert {p.resumed for p in seen} == {known}
    assert result.timings.showings == 30 - known
    (tmp_path / "run" / "work").rename(tmp_path / "done")
    assert record_bytes(made.sharded(tmp_path / "run", LocalExecutor(1))) == record_bytes(expected)


@needs_sandbox
def test_a_lost_machines_shard_goes_on_without_the_batches_that_had_arrived(made, expected, executor, tmp_path):
    shown, news = [], []

    def lose(index, piece, items, on_lost):
        before = items[index].batches
        yield index, piece
        if json.loads(piece)["kind"] == "answers" and not shown:
            on_lost(index, "NodeDiedError")
            shown.append((before, items[index].batches))
            # What was on the way arrives all the same, once more.
            yield index, piece

    result = made.sharded(tmp_path / "run", Meddling(executor, lose), on_shard=news.append)
    assert record_bytes(result) == record_bytes(expected)
    ((before, after),) = shown
    assert len(after) == len(before) - 1
    assert set(after) < set(before)
    assert [n.what for n in news].count("lost") == 1


@needs_sandbox
def test_failures_of_the_model_are_its_own_wherever_it_runs(tmp_path, executor):
    crashing = ground(tmp_path, "crash")
    (tmp_path / "one").mkdir()
    here, there = crashing.local(tmp_path / "one"), crashing.sharded(tmp_path / "two", executor)
    assert record_bytes(here) == record_bytes(there)
    assert there.error_counts["crashed"] >= 2
    assert 0 < there.restarts <= 16
    assert not there.gave_up


@needs_sandbox
def test_the_budget_of_restarts_is_the_runs(made, executor, tmp_path):
    crashing = ground(made.root, "crash", max_restarts=0)
    result = crashing.sharded(tmp_path / "run", executor)
    assert result.gave_up
    assert len(result.records) == 26
    errors = {r.error for r in result.records if r.status is SampleStatus.MODEL_ERROR}
    assert "gave_up" in errors
    with crashing.journal(tmp_path / "run") as journal:
        assert journal.gave_up


@needs_sandbox
def test_a_model_that_does_not_load_fails_the_run_and_says_so(made, executor, tmp_path):
    tiny = replace(made.config.limits, load_seconds=0.001)
    hasty = replace(made, config=replace(made.config, limits=tiny))
    with pytest.raises(ModelFailed) as caught:
        hasty.sharded(tmp_path / "run", executor)
    assert caught.value.error_code == "timeout"


@needs_sandbox
def test_a_machine_of_another_version_is_refused(made, executor, tmp_path, monkeypatch):
    monkeypatch.setattr("gas.bench.shards.__version__", "0.0.1")
    with pytest.raises(ConfigurationError) as caught:
        made.sharded(tmp_path / "run", executor)
    assert caught.value.error_code == "node_code"
    assert "0.0.1" in caught.value.message


@needs_sandbox
def test_a_machine_that_lacks_the_data_says_so_before_it_starts_a_model(made, executor, tmp_path):
    said = []

    def listen(index, piece, items, on_lost):
        said.append(json.loads(piece)["kind"])
        if said == ["begun"]:
            work = items[index]
            lacking = replace(work, media_root="/nowhere")
            assert [json.loads(answer)["kind"] for answer in run_shard(lacking)] == ["lacking"]
            lacking = replace(work, package=Parcel(work.package.sha256, path="/nowhere.zip"))
            assert [json.loads(answer)["kind"] for answer in run_shard(lacking)] == ["lacking"]
            changed = replace(work, package=replace(parcel(b"another file", executor), sha256="0" * 64))
            failed = json.loads(list(run_shard(changed))[-1])
            assert (failed["kind"], failed["code"]) == ("failed", "parcel_changed")
        yield index, piece

    made.sharded(tmp_path / "run", Meddling(executor, listen))
    assert "begun" in said


@needs_sandbox
def test_a_cluster_that_is_not_there_is_said_and_what_was_done_is_kept(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    gasbench = Command(main, tmp_path, capsys)
    words = ["--image-model", made.root / "honest.onnx", "--dataset-config", made.root / "sets.yaml", "--debug"]
    words += ["--robustness", "0"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        error = gasbench.run(*words, "--executor", address, code=1)["error"]
    assert error["code"] == "cluster_unreachable"
    assert address in error["message"]
    assert "the same command again" in error["hint"]
    (folder,) = (tmp_path / "results").iterdir()
    assert list(folder.glob("*.journal"))
    (run,) = gasbench.run(*words)["runs"]
    assert run["metadata"]["run_id"] == folder.name
    assert not list(folder.glob("*.journal"))


@needs_sandbox
def test_one_of_many_models_may_fail_without_cost_to_the_others(made, tmp_path, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    settings = BenchSettings(
        mode="debug", dataset_config=made.root / "sets.yaml", results_dir=tmp_path / "results", robustness=0
    )
    started = []
    models = [made.root / "honest.onnx", tmp_path / "none.zip"]
    watch = lambda model: Watch(on_start=lambda folder, known: started.append((model, known)))  # noqa: E731
    good, bad = run_many(models, settings=settings, watch=watch)
    assert isinstance(good, BenchRun)
    assert good.score is not None
    assert isinstance(bad, ConfigurationError)
    assert bad.error_code == "no_model"
    assert started == [(models[0], 0)]


def test_a_parcel_is_read_where_it_lies_or_put_together_from_its_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("gas.bench.parcels.PIECE_BYTES", 1000)
    data = bytes(range(256)) * 10
    path = tmp_path / "file"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    with LocalExecutor(1) as executor:
        sent = parcel_of_file(path, sha256, executor)
        assert len(sent.pieces) == 3
        assert place(sent, tmp_path / "copy") == path
        elsewhere = replace(sent, path=None)
        assert place(elsewhere, tmp_path / "copy").read_bytes() == data
        path.write_bytes(b"other")
        assert place(sent, tmp_path / "again").read_bytes() == data
        assert place(parcel(b"", executor), tmp_path / "empty").read_bytes() == b""
        with pytest.raises(IntegrityError) as caught:
            place(replace(elsewhere, pieces=sent.pieces[:2]), tmp_path / "torn")
        assert caught.value.error_code == "parcel_changed"
        assert not (tmp_path / "torn").exists()
        with pytest.raises(StorageError):
            parcel_of_file(tmp_path / "gone", sha256, executor)
    assert place(Parcel(sha256, path=str(tmp_path / "gone")), tmp_path / "none") is None


def test_folders_of_dead_shards_are_swept_and_those_of_living_ones_stay(tmp_path):
    dead = tmp_path / "shards" / "dead"
    (dead / "media").mkdir(parents=True)
    with shard_folder(tmp_path) as first:
        assert not dead.exists()
        with shard_folder(tmp_path) as second:
            assert first.exists()
            assert second.exists()
        assert not second.exists()
    assert list((tmp_path / "shards").iterdir()) == []


@given(st.lists(st.integers(0, 100), max_size=60), st.integers(1, 20), st.integers(1, 300))
def test_shards_hold_every_batch_once_in_order_and_no_more_media_than_allowed(sizes, parts, most):
    shards = cut_shards(sizes, parts, most=most)
    assert [place for shard in shards for place in shard] == list(range(len(sizes)))
    assert all(shards)
    assert all(len(shard) == 1 or sum(sizes[place] for place in shard) <= most for shard in shards)
    if sum(sizes) <= most:
        assert len(shards) <= parts


def test_a_small_run_has_a_shard_a_slot_and_a_large_one_a_few_more():
    assert [count_shards(2, showings) for showings in (10, 1500, 2100, 50_000)] == [2, 2, 4, 8]


@pytest.mark.parametrize("name", ["local", "ray", "head:6379", "ray://10.0.0.1:10001", "ray://[::1]:10001"])
def test_the_executor_is_a_name_or_an_address(name):
    assert BenchSettings(executor=name).executor == name


@pytest.mark.parametrize("name", ["", "slurm", "head", "ray://head", "http://head:1", "head:0", "head:70000"])
def test_any_other_executor_is_refused(name):
    with pytest.raises(ConfigurationError) as caught:
        BenchSettings(executor=name)
    assert caught.value.error_code == "unknown_executor"
