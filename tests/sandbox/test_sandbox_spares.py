"""Processes that wait for a model: one package each, nothing of others in sight, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models.suite import ATTEMPTS, OWN_ROOT, OWN_USER, ROOT, USER, Worker, chosen, here

from gas.errors import ModelFailed
from gas.sandbox import Limits, PlainSandbox
from gas.sandbox.base import Environment
from gas.sandbox.free_memory import available_bytes
from gas.sandbox.spares import Spares

LIMITS = Limits(memory_bytes=2**30, batch_seconds=20.0)

TELLS = """
import os
import torch

class Tells(torch.nn.Module):
    def forward(self, batch):
        return torch.tensor([[float(FACT), float(os.getuid())]])

def load_model(weights_path, num_classes=2, **facts):
    return Tells()
"""

PARENT = """
import sys
from pathlib import Path
from gas.sandbox import ModelSpec, PlainSandbox, best_sandbox, Tier
from gas.sandbox.base import Environment
from gas.sandbox.spares import Spares
rung = PlainSandbox() if sys.argv[2] == "PLAIN" else best_sandbox(Tier.NAMESPACES)
spec = ModelSpec(Path(sys.argv[1]), "onnx", "model.onnx", None, (3, 4, 4), "uint8", 2)
spares = Spares(rung, most=2, folder=Path(sys.argv[3]), least_free=0)
spares.prepare(Environment.of(spec), 2)
session = spares.start(spec, batch_size=2)
print(session.pid, *spares.pids(), flush=True)
sys.stdin.read()
"""


def tells(fact: str) -> str:
    return TELLS.replace("FACT", fact)


@pytest.fixture
def spares(light, tmp_path):
    with Spares(light, folder=tmp_path, least_free=0) as made:
        yield made


def ready(spares, spec, limits=LIMITS, count=1):
    """Have spares that wait for this package."""
    spares.prepare(Environment.of(spec, limits), count)
    deadline = time.monotonic() + 20
    while spares.ready < count:
        assert time.monotonic() < deadline
        os.sched_yield()


def ask(spares, spec, batch, limits=LIMITS):
    with spares.start(spec, batch_size=3, limits=limits) as session:
        return session.infer(batch)


def folders(path: Path) -> list[Path]:
    return [inner for held in path.glob("gas-spares-*") for inner in held.iterdir()]


def below(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in below(int(child)))]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        os.sched_yield()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_each_model_gets_a_process_and_a_user_of_its_own(spares, torch_package, batch):
    spec = torch_package(tells("os.getpid()"))
    ready(spares, spec)
    with (
        spares.start(spec, batch_size=3, limits=LIMITS) as first,
        spares.start(spec, batch_size=3, limits=LIMITS) as second,
    ):
        assert first.pid != second.pid
        (_, one), (_, two) = first.infer(batch[:1])[0], second.infer(batch[:1])[0]
        assert one != two or os.geteuid() != 0
    assert spares.taken == 2


def test_a_model_sees_its_own_files_and_nothing_of_a_spare_or_another_model(spares, torch_package, batch, tmp_path):
    other = torch_package(tells("0"))
    ready(spares, other)
    with spares.start(other, batch_size=3, limits=LIMITS):
        ready(spares, other)
        places = [str(folder) for folder in folders(tmp_path)]
        assert len(places) == 2
        seen = f"""(
            sum(os.path.exists(place) or os.path.exists(os.path.dirname(place)) for place in {places!r})
            + 10 * (sorted(os.listdir("/model")) != ["model.py", "model.safetensors"])
            + 100 * os.access("/model", os.W_OK) + 1000 * os.access("/model/model.py", os.W_OK)
        )"""
        spec = torch_package(tells(seen))
        assert ask(spares, spec, batch[:1])[0, 0] == 0
    assert spares.taken == 2


def test_files_that_only_their_owner_may_read_reach_the_model_and_keep_their_mode(spares, torch_package, batch):
    spec = torch_package(tells('len(open("/model/model.safetensors", "rb").read()) > 0'))
    assert (spec.folder / "model.safetensors").stat().st_mode & 0o777 == 0o600
    (spec.folder / "link").symlink_to("/etc/passwd")
    (spec.folder / "deep").mkdir()
    ready(spares, spec)
    assert ask(spares, spec, batch[:1])[0, 0] == 1
    assert (spec.folder / "model.safetensors").stat().st_mode & 0o777 == 0o600
    assert spares.taken == 1


def test_a_spare_of_other_limits_is_not_taken_and_makes_room(spares, torch_package, batch):
    spec = torch_package(tells('__import__("resource").getrlimit(9)[0]'))
    ready(spares, spec)
    unwanted = spares.pids()
    less = replace(LIMITS, memory_bytes=2**29)
    assert ask(spares, spec, batch[:1], less)[0, 0] == 2**29
    assert spares.taken == 0
    ready(spares, spec, less)
    assert not set(unwanted) & set(spares.pids())
    # The clock is the parent's: it may be another one.
    assert ask(spares, spec, batch[:1], replace(less, batch_seconds=7.0))[0, 0] == 2**29
    assert spares.taken == 1


def test_a_spare_that_was_killed_while_it_waited_is_replaced(spares, torch_package, batch):
    spec = torch_package(tells("7"))
    ready(spares, spec)
    dead = spares.pids()[0]
    tree = below(dead)
    os.kill(dead, signal.SIGKILL)
    wait_until_gone(tree)
    assert ask(spares, spec, batch[:1])[0, 0] == 7
    ready(spares, spec)
    assert spares.pids() != (dead,)
    assert ask(spares, spec, batch[:1])[0, 0] == 7
    assert spares.taken == 1


def test_after_a_crash_a_spare_is_made_even_where_none_is_kept(light, torch_package, batch, tmp_path):
    crashes = torch_package(tells("os._exit(3)"))
    with Spares(light, refill=False, folder=tmp_path, least_free=0) as spares:
        ready(spares, crashes)
        with pytest.raises(ModelFailed):
            ask(spares, crashes, batch[:1])
        with pytest.raises(ModelFailed):
            ask(spares, crashes, batch[:1])
        assert spares.taken == 2
        fine = torch_package(tells("1"))
        ask(spares, fine, batch[:1])
        ask(spares, fine, batch[:1])
        assert spares.taken == 3


def test_where_memory_is_short_nothing_waits_and_models_run_all_the_same(light, torch_package, batch, tmp_path):
    assert available_bytes() > 0
    spec = torch_package(tells("5"))
    with Spares(light, folder=tmp_path, least_free=2**60) as spares:
        spares.prepare(Environment.of(spec, LIMITS))
        assert ask(spares, spec, batch[:1])[0, 0] == 5
        assert (spares.taken, spares.pids()) == (0, ())


def test_a_start_that_can_not_be_leaves_nobody_waiting_for_ever(light, torch_package, batch, tmp_path):
    spec = torch_package(tells("5"))
    with Spares(light, folder=tmp_path, least_free=0) as spares:
        for _ in range(2):
            with pytest.raises(ValueError, match="thread"):
                spares.start(spec, batch_size=4, threads=0)
        spares.prepare(Environment.of(spec, LIMITS, 0))
        assert ask(spares, spec, batch[:1])[0, 0] == 5


def test_spares_are_made_again_after_their_folder_was_tidied_up(light, torch_package, batch, tmp_path):
    spec = torch_package(tells("5"))
    with Spares(light, folder=tmp_path, least_free=0, refill=False) as spares:
        ready(spares, spec)
        ask(spares, spec, batch[:1])
        for folder in tmp_path.glob("gas-spares-*"):
            shutil.rmtree(folder)
        ready(spares, spec)
        assert ask(spares, spec, batch[:1])[0, 0] == 5
        assert spares.taken == 2


GIB = 2**30
OWN_GROUPS = {
    "v1": ("3:memory:/a/b\n", "31 24 0:27 / {top} rw - cgroup cgroup rw,memory\n", "limit_in_bytes", "usage_in_bytes"),
    "v2": ("0::/a/b\n", "31 24 0:27 / {top} rw - cgroup2 cgroup2 rw\n", "max", "current"),
}


@pytest.mark.parametrize("version", OWN_GROUPS)
@pytest.mark.parametrize("limited", ["a", "a/b"])
def test_the_limit_of_an_own_group_or_of_one_above_counts(tmp_path, version, limited):
    own, mounted, most, current = OWN_GROUPS[version]
    proc, top = tmp_path / "proc", tmp_path / "top"
    (proc / "self").mkdir(parents=True)
    (top / "a" / "b").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    (proc / "self" / "cgroup").write_text(own)
    (proc / "self" / "mountinfo").write_text(mounted.format(top=top))
    assert available_bytes(proc) == 8 * GIB
    (top / limited / f"memory.{most}").write_text(f"{3 * GIB}\n")
    (top / limited / f"memory.{current}").write_text(f"{2 * GIB}\n")
    name = "inactive_file" if version == "v2" else "total_inactive_file"
    (top / limited / "memory.stat").write_text(f"anon 5\n{name} {GIB // 2}\n")
    assert available_bytes(proc) == 3 * GIB // 2


def test_nothing_is_left_when_it_is_closed(light, torch_package, batch, tmp_path):
    before = sorted(Path("/proc/self/fd").iterdir())
    spec = torch_package(tells("5"))
    with Spares(light, folder=tmp_path, least_free=0, most=2) as spares:
        ready(spares, spec, count=2)
        ask(spares, spec, batch[:1])
        waiting = spares.pids()
        assert waiting
    assert not list(tmp_path.glob("gas-spares-*"))
    assert not any(Path(f"/proc/{pid}").exists() for pid in waiting)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert ask(spares, spec, batch[:1])[0, 0] == 5


@pytest.mark.parametrize("tier", ["PLAIN", "best"])
def test_a_killed_owner_leaves_no_process_and_its_folders_go_with_the_next_one(
    tier, isolating, onnx_package, tmp_path, batch
):
    spec, place = onnx_package(), tmp_path / "place"
    place.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, spec.folder, tier, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) >= 2
        tree = [one for pid in pids for one in below(pid)]
        left = folders(place)
        assert left
        with Spares(PlainSandbox(), folder=place, least_free=0) as beside:
            ready(beside, spec, Limits())
            assert all(folder.exists() for folder in left)
        owner.send_signal(signal.SIGKILL)
    wait_until_gone(tree)
    with Spares(PlainSandbox(), folder=place, least_free=0) as fresh:
        ready(fresh, spec, Limits())
        assert not any(folder.exists() for folder in left)
        np.testing.assert_array_equal(ask(fresh, spec, batch, Limits()).shape, (3, 2))


@pytest.fixture(scope="module")
def waited():
    reasons = here()
    found = [rung for rung in (ROOT, USER, OWN_ROOT, OWN_USER) if not reasons[rung]]
    if not found:
        pytest.skip("This machine can't isolate.")
    with Worker(found[0], spares=True) as worker:
        yield worker


def test_what_is_denied_elsewhere_is_denied_in_a_process_that_waited(waited):
    alone = {attempt.name for attempt in chosen(waited.rung) if attempt.expected == ("denied",)}
    together = waited.denied_together(chosen(waited.rung))
    assert len(together) > 100
    assert together <= alone


@pytest.mark.parametrize(
    "name",
    [
        "writes_to_the_input",
        "makes_the_input_writable",
        "reopens_the_input_for_writing",
        "writes_to_the_input_by_its_descriptor",
        "cuts_the_input_off",
        "maps_the_input_writable",
        "blames_the_sandbox",
        "replaces_the_runners_wire",
        "exits_like_a_failed_sandbox",
        "takes_memory_bit_by_bit",
    ],
)
def test_an_attempt_ends_in_a_process_that_waited_as_elsewhere(name, waited):
    result = waited.run(ATTEMPTS[name])
    assert result.contained, f"{result.outcome}: {result.detail}"
