"""A run on a real Ray cluster of two machines on this one: the bytes are those of a run here, whatever dies."""

import importlib.util
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from ray_cluster import ray_cluster
from shard_ground import ground, record_bytes

from gas.bench.executors.ray import RayExecutor
from gas.bench.local import SetBlobs
from gas.sandbox import Tier, probe

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model"),
]


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="module")
def executor(cluster):
    with RayExecutor(cluster.address) as made:
        yield made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return ground(tmp_path_factory.mktemp("ray"), "slow", count=6, batch_size=2)


@pytest.fixture(scope="module")
def expected(place, tmp_path_factory):
    return record_bytes(place.local(tmp_path_factory.mktemp("local")))


class Hidden(SetBlobs):
    """Media in a folder that nobody else sees."""

    def __init__(self, seen: SetBlobs, samples, asked) -> None:
        super().__init__(Path("/nowhere"), samples)
        self._seen, self._asked = seen, asked

    def get(self, name):
        self._asked.append(name)
        return self._seen.get(name)


def test_media_that_the_machines_do_not_see_travel_to_the_shards_that_show_them(place, expected, executor, tmp_path):
    asked, news = [], []
    place.blobs, seen = Hidden(place.blobs, place.round.samples, asked), place.blobs
    try:
        result = place.sharded(tmp_path / "run", executor, on_shard=news.append)
    finally:
        place.blobs = seen
    assert record_bytes(result) == expected
    assert set(asked) == {sample.sample_id for sample in place.round.samples}
    assert result.tier >= Tier.BUBBLEWRAP
    assert [n for n in news if n.what == "lost"] == []


def test_a_run_that_loses_a_machine_ends_with_the_same_bytes(cluster, place, expected, executor, tmp_path):
    victim = cluster.machines[1]
    news, killed = [], []

    def shards_of(machine):
        folder = machine.home / "node" / "shards"
        return list(folder.iterdir()) if folder.exists() else []

    def on_progress(now):
        # In the middle of a shard of each machine.
        if not killed and now.done < now.total and shards_of(victim) and shards_of(cluster.machines[0]):
            killed.append(now.done)
            victim.kill()

    result = place.sharded(tmp_path / "run", executor, on_progress=on_progress, on_shard=news.append)
    assert killed
    assert record_bytes(result) == expected
    lost = {n.number for n in news if n.what == "lost"}
    assert lost
    assert all(sum(n.number == number and n.what == "begun" for n in news) >= 2 for number in lost)
    assert {n.number for n in news if n.what == "done"} == set(range(news[0].shards))
    assert executor.slots == 1
