"""Control groups: where they lie, what is written into them, what they hold, and that none is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gas.errors import ModelFailed
from gas.sandbox import Limits, Tier
from gas.sandbox.cgroups import find_groups, hierarchies, limit_files, out_of_memory_kills

LIMITS = Limits(memory_bytes=2**30, processes=64)

BOTH = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu\\040and\\040more rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 /docker/1f /sys/fs/cgroup/pids rw,relatime shared:3 - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
OWN = "8:pids:/docker/1f/worker\n7:cpu,cpuacct:/\n4:memory:/a:b/c\n1:name=systemd:/\n0::/service\n"


def test_each_hierarchy_shows_this_process_s_own_group():
    found = hierarchies(BOTH, OWN)
    assert [(one.version, sorted(one.controllers), str(one.folder)) for one in found] == [
        (1, ["memory"], "/sys/fs/cgroup/memory/a:b/c"),
        (1, ["pids"], "/sys/fs/cgroup/pids/worker"),
        (2, [], "/sys/fs/cgroup/unified/service"),
    ]


def test_a_group_outside_of_what_is_mounted_is_not_used():
    mounted = "39 31 0:36 /docker/1f /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    assert hierarchies(mounted, "8:pids:/docker/2a\n") == []
    assert hierarchies(mounted.replace("/docker/1f", "/"), "8:pids:/../2a\n") == []
    assert hierarchies("", "") == []


def test_the_limits_are_written_in_the_words_of_each_version():
    first = limit_files(1, {"memory", "pids"}, LIMITS)
    assert first == [
        ("memory.limit_in_bytes", "1073741824", True),
        ("memory.memsw.limit_in_bytes", "1073741824", False),
        ("pids.max", "67", True),
    ]
    second = limit_files(2, {"memory", "pids"}, LIMITS)
    assert second == [
        ("memory.max", "1073741824", True),
        ("memory.swap.max", "0", False),
        ("memory.oom.group", "1", False),
        ("pids.max", "67", True),
    ]
    assert limit_files(1, {"freezer"}, LIMITS) == limit_files(2, (), LIMITS) == []


def test_both_versions_tell_how_many_were_killed_for_want_of_memory():
    assert out_of_memory_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n") == 2
    assert out_of_memory_kills("low 0\nhigh 0\nmax 17\noom 1\noom_kill 1\noom_group_kill 1\n") == 1
    assert out_of_memory_kills("oom_kill_disable 0\n") == 0
    # The machine ran out of memory, and not the group.
    assert out_of_memory_kills("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n") == 0


class Kernel:
    """A version 2 tree of ordinary files: new folders get their control files, and go with them."""

    FILES = ("cgroup.procs", "cgroup.kill", "memory.max", "memory.swap.max", "memory.oom.group", "pids.max")

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = tmp_path / "cgroup"
        self.proc = tmp_path / "proc"
        self.proc.mkdir()
        make = Path.mkdir

        def mkdir(path: Path, mode: int = 0o777, **more: bool) -> None:
            make(path, mode, **more)
            if path.is_relative_to(self.top):
                for name in self.FILES:
                    (path / name).touch()

        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", lambda path: shutil.rmtree(path))
        self.group("/", procs="1\n", handed_on="memory pids")

    def group(self, path: str, *, procs: str = "", offered: str = "cpu memory pids", handed_on: str = "") -> Path:
        folder = self.top / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("procs", procs), ("controllers", offered), ("subtree_control", handed_on)):
            (folder / f"cgroup.{name}").write_text(text)
        return folder

    def process_in(self, path: str) -> Path:
        (self.proc / "cgroup").write_text(f"0::{path}\n")
        (self.proc / "mountinfo").write_text(f"30 23 0:26 / {self.top} rw - cgroup2 cgroup2 rw,nsdelegate\n")
        return self.proc


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    return Kernel(tmp_path, monkeypatch)


def test_a_group_of_version_2_is_limited_joined_killed_and_removed(kernel):
    groups, why = find_groups(kernel.process_in("/"))
    assert groups is not None, why
    group = groups.make(LIMITS)
    (folder,) = kernel.top.glob("gas-*")
    assert {name: (folder / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")} == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "pids.max": "67",
    }
    group.join(4711)
    assert (folder / "cgroup.procs").read_text() == "4711"
    assert not group.starved()
    (folder / "memory.events").write_text("max 9\noom_kill 1\n")
    group.kill()
    assert (folder / "cgroup.kill").read_text() == "1"
    group.remove()
    group.remove()
    assert group.starved(), "it is still known when the group is gone"
    assert not list(kernel.top.glob("gas-*"))


def test_a_service_that_was_given_its_part_of_the_tree_makes_groups_beside_its_own(kernel, monkeypatch):
    service = kernel.group("/gas.service")
    kernel.group("/gas.service/main", procs=f"{os.getpid()}\n")
    monkeypatch.setattr("gas.sandbox.cgroups._is_ours", lambda folder: folder == service)
    # The kernel gives no controllers to the children of a group that has processes.
    (service / "main" / "cgroup.subtree_control").unlink()
    groups, why = find_groups(kernel.process_in("/gas.service/main"))
    assert groups is not None, why
    assert (service / "cgroup.subtree_control").read_text() == "+memory +pids"
    groups.make(LIMITS)
    assert len(list(service.glob("gas-*"))) == 1


def test_a_service_without_delegation_is_told_what_it_needs(kernel):
    kernel.group("/gas.service", procs="77\n")
    (kernel.top / "gas.service" / "cgroup.subtree_control").unlink()
    groups, why = find_groups(kernel.process_in("/gas.service"))
    assert groups is None
    assert "Delegate=yes" in why


def test_a_hierarchy_without_the_controllers_is_named(kernel):
    kernel.group("/box", offered="cpu io")
    groups, why = find_groups(kernel.process_in("/box"))
    assert groups is None
    assert "no controller for memory and pids" in why


def test_where_nothing_is_mounted_there_are_no_groups(tmp_path):
    for name in ("mountinfo", "cgroup"):
        (tmp_path / name).write_text("")
    assert find_groups(tmp_path) == (None, "No control group hierarchy that is mounted here limits memory and pids.")
    assert find_groups(tmp_path / "nowhere") == (None, "The kernel tells nothing of control groups.")


@pytest.fixture(scope="module")
def groups():
    made, why = find_groups()
    if made is None:
        pytest.skip(why)
    return made


def folders_of(group):
    return [folder for _, _, folder in group._folders]


def test_a_session_s_tree_lives_in_a_group_that_goes_with_it(groups, isolating, own, onnx_package, batch, expected):
    for sandbox in (isolating, own):
        assert sandbox.tier in {Tier.NAMESPACES_CGROUP, Tier.BUBBLEWRAP_CGROUP}
        made = []
        make = sandbox._groups.make
        try:
            sandbox._groups.make = lambda limits, make=make, made=made: made.append(make(limits)) or made[0]
            with sandbox.start(onnx_package(), batch_size=3, limits=Limits(memory_bytes=3 * 2**30)) as session:
                assert session.tier is sandbox.tier
                # The first process, and the runner; what starts them is outside.
                assert len(made[0].members()) >= 2
                assert session.pid not in made[0].members()
                assert all(folder.is_dir() for folder in folders_of(made[0]))
                assert session.infer(batch).shape == expected(batch).shape
        finally:
            sandbox._groups.make = make
        assert not any(folder.exists() for folder in folders_of(made[0]))


FILLS = """
import torch

def load_model(weights_path, num_classes):
    kept = bytearray(256 << 20)
    for folder in ("/tmp", "/dev/shm"):
        for number in range(3):
            with open(f"{folder}/part{number}", "wb", buffering=0) as file:
                file.write(memoryview(kept)[: 48 << 20])
    return torch.nn.Identity()
"""


def test_memory_and_files_that_are_too_much_together_are_the_model_s_failure_in_clear_words(
    groups, light, torch_package
):
    limits = Limits(memory_bytes=512 * 2**20, tmp_bytes=160 * 2**20)
    with pytest.raises(ModelFailed, match="with its files, took more than 512 MiB of memory") as caught:
        light.start(torch_package(FILLS), batch_size=1, limits=limits)
    assert caught.value.error_code == "out_of_memory"


WORKER = """
import os, sys
from gas.sandbox.base import Limits
from gas.sandbox.cgroups import find_groups
group = find_groups()[0].make(Limits())
child = os.fork()
if child == 0:
    os.read(0, 1)
group.join(child)
print(child, *(folder for _, _, folder in group._folders), flush=True)
os.read(0, 1)
"""


def test_what_a_killed_worker_has_left_is_removed_by_the_next_one(groups):
    with subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        _, *left = worker.stdout.readline().decode().split()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        living = groups.make(LIMITS)
        try:
            assert not any(Path(folder).exists() for folder in left), "with the process in it"
            assert groups.sweep() == 0
            assert all(folder.exists() for folder in folders_of(living)), "those of the living stay"
        finally:
            living.remove()


def test_killing_a_group_kills_what_is_in_it(groups):
    group = groups.make(LIMITS)
    try:
        with subprocess.Popen(["sleep", "1000"]) as sleeper:
            group.join(sleeper.pid)
            assert sleeper.pid in group.members()
            group.kill()
            assert sleeper.wait(10) == -signal.SIGKILL
    finally:
        group.remove()
    assert not any(folder.exists() for folder in folders_of(group))
