"""The scaled executor passes the suite on a real cluster, and tells its own misfortunes from an item's."""

import importlib.util
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import executor_conformance as suite
from ray_cluster import ray_cluster

from gas.bench.executors.ray import RayExecutor
from gas.errors import ConfigurationError, InfrastructureError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(2, PYTHONPATH=str(Path(__file__).parent)) as made:
        yield made


@pytest.fixture(scope="module")
def connected(cluster):
    """One connection for all tests: a process has one at a time."""
    with RayExecutor(cluster.address) as made:
        yield made


class TestRay(suite.ExecutorConformance):
    @pytest.fixture
    def executor(self, connected):
        return connected

    def test_the_name_says_where_shards_run(self, executor):
        assert executor.name == "ray"

    def test_an_item_that_kills_its_process_every_time_ends_the_stream(self, executor, capfd):
        lost = []
        with pytest.raises(InfrastructureError, match="lost its machine 4 times") as caught:
            list(executor.stream(suite.die, [0], lambda *why: lost.append(why)))
        assert caught.value.error_code == "shard_lost"
        assert len(lost) == 3
        # What Ray has to say about it would spoil a command's own output.
        assert capfd.readouterr().out == ""

    def test_an_item_whose_process_dies_is_looked_up_and_computed_again(self, executor, tmp_path):
        class Items(list):
            def __getitem__(self, index):
                return super().__getitem__(index) if not lost else str(tmp_path / "instead")

        lost = []
        (tmp_path / "instead").write_text("there")
        items = Items([str(tmp_path / "mark")])
        pieces = list(executor.stream(suite.die_once, items, lambda *why: lost.append(why)))
        assert set(pieces) == {(0, "begun"), (0, "back")}
        assert pieces[-1] == (0, "back")
        assert lost == [(0, "WorkerCrashedError")]

    def test_a_function_that_the_machines_do_not_have_is_the_operators_to_mend(self, executor, tmp_path, monkeypatch):
        (tmp_path / "only_here.py").write_text("def double(number):\n    return 2 * number\n")
        monkeypatch.syspath_prepend(tmp_path)
        import only_here

        with pytest.raises(ConfigurationError) as caught:
            list(executor.map(only_here.double, [1]))
        assert caught.value.error_code == "node_code"
        assert "same version of gas" in str(caught.value)


def refused(address, **more):
    with pytest.raises((InfrastructureError, ConfigurationError)) as caught:
        RayExecutor(address, **more)
    return caught.value


def test_a_cluster_that_is_not_there_is_said_at_once():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        for way in (address, f"ray://{address}"):
            error = refused(way)
            assert isinstance(error, InfrastructureError)
            assert error.error_code == "cluster_unreachable"
            assert "ray start --head" in error.hint


def test_something_else_that_listens_there_is_no_cluster():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = refused(f"127.0.0.1:{mute.getsockname()[1]}", patience=1.0)
        assert error.error_code == "cluster_unreachable"
        assert "no Ray cluster" in str(error)


@pytest.mark.parametrize("address", ["nonsense", "ray://", "http://host:1", "host:99999", "a b:1"])
def test_what_is_no_address_is_refused(address):
    assert refused(address).error_code == "cluster_address"


def test_the_environment_may_name_the_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "not an address")
    assert refused(None).error_code == "cluster_address"
