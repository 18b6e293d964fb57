"""A `gasbench run` killed ten times at ten different points ends with the bytes of one that nobody disturbed."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gasbench_ground import SHAPES, mean_onnx, media, registry

from gas.sandbox import Tier, probe

pytestmark = pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")

GROWTHS = (0, 1, 2, 4, 1, 7, 3, 1, 5, 2)
"""How often the run's folder must have grown since the command began, before each of the ten kills."""


def size_of(folder):
    """Bytes of whatever the run has written so far; 0 before there is a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


WARM = """
import json, os, sys
import gas.bench.public, gas.cli.gasbench_run, gas.datasets.shelves, gas.media.image
from gas.cli.gasbench import main

print("ready", flush=True)
for line in sys.stdin:
    words, out = json.loads(line)
    child = os.fork()
    if not child:
        for number in (1, 2):
            os.dup2(os.open(out + str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        try:
            main(words)
        except SystemExit as done:
            sys.stdout.flush()
            os._exit(done.code or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Starts the command again and again, each time in a process of its own, without importing everything anew."""


class Starter:
    """The program above."""

    def __init__(self, root):
        self.out = str(root / "out")
        self.process = subprocess.Popen(
            [sys.executable, "-c", WARM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"GAS_HOME": str(root / "home")},
        )
        assert self.process.stdout.readline() == "ready\n"

    def start(self, words):
        """Number of the command's process."""
        self.process.stdin.write(json.dumps([words, self.out]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def result(self):
        """Exit status, and what the command said on both streams."""
        status = int(self.process.stdout.readline())
        return status, *(Path(self.out + str(number)).read_text() for number in (1, 2))

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


class Run:
    """The command, with results in a folder of its own."""

    def __init__(self, root, name):
        self.results = root / name
        self.words = ["run", "--image-model", str(root / "slow.onnx"), "--dataset-config", str(root / "sets.yaml")]
        self.words += ["--batch-size", "1", "--processes", "1", "--robustness", "2", "--seed", "5"]
        self.words += ["--cache-dir", str(root / "cache"), "--results-dir", str(self.results)]

    def records(self):
        (path,) = self.results.glob("*/records.parquet")
        return path.read_bytes()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("killed")
    media(root, "image", 20)
    registry(root / "sets.yaml", ["image"])
    mean_onnx(root / "slow.onnx", SHAPES["image"], 0.05, 127.0, "slow")
    return root


@pytest.fixture(scope="module")
def starter(root):
    starter = Starter(root)
    yield starter
    starter.close()


def kill_after(starter, run, growths):
    """Start the command and kill it as soon as its folder has grown so often; its exit status."""
    before, grown = size_of(run.results), 0
    number = starter.start(run.words)
    process = os.pidfd_open(number)
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and not select.select([process], [], [], 0.001)[0]:
            now = size_of(run.results)
            grown += now > before
            before = now
            # The first kill comes when there is a folder and nothing more.
            if (growths == 0 and run.results.exists()) or 0 < growths <= grown:
                break
        signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)
    return starter.result()[0]


def test_ten_kills_leave_no_trace_in_the_records(root, starter):
    undisturbed, killed = Run(root, "undisturbed"), Run(root, "killed")
    starter.start(undisturbed.words)
    status, _, err = starter.result()
    assert status == 0, err
    assert [kill_after(starter, killed, growths) for growths in GROWTHS] == [-signal.SIGKILL] * 10
    assert not list(killed.results.glob("*/results.json"))
    starter.start(killed.words)
    status, out, err = starter.result()
    assert status == 0, err
    assert "going on after" in err
    assert "Final score" in out
    assert killed.records() == undisturbed.records()
    folders = [next(iter(run.results.iterdir())) for run in (undisturbed, killed)]
    assert len({tuple(sorted(path.name for path in folder.iterdir())) for folder in folders}) == 1
