"""Folders outside of the sandbox: nothing of a stranger's package stays on the disk when a worker is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from gas.sandbox.folders import HeldFolder
from gas.sandbox.layout import package

WORKER = """
import sys
from pathlib import Path
from gas.sandbox.layout import package
found = package(Path(sys.argv[1]), other_user=True)
print(found.copies.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def private(tmp_path, monkeypatch):
    """A package that only its owner may read, and a place of this test's own for temporary files."""
    folder, place = tmp_path / "package", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    (folder / "model.py").write_text("1")
    (folder / "model.py").chmod(0o600)
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder, place


def test_copies_for_another_user_go_when_they_are_mounted(private):
    folder, place = private
    found = package(folder, other_user=True)
    assert [bind.source.read_text() for bind in found.binds] == ["1"]
    assert found.binds[0].source.is_relative_to(place)
    found.forget_copies()
    found.forget_copies()
    assert not list(place.iterdir())


def test_copies_of_a_killed_worker_go_with_the_next_package_and_those_of_a_living_one_stay(private):
    folder, place = private
    with subprocess.Popen([sys.executable, "-c", WORKER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        left = one.stdout.readline().decode().strip()
        package(folder, other_user=True).forget_copies()
        assert [str(path) for path in place.iterdir()] == [left]
        one.send_signal(signal.SIGKILL)
        one.wait()
    package(folder, other_user=True).forget_copies()
    assert not list(place.iterdir())


def test_a_folder_that_a_sweep_took_before_it_was_held_is_made_again(tmp_path, monkeypatch):
    import fcntl

    real, taken = fcntl.flock, []

    def swept_first(descriptor, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].rmdir()
        real(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", swept_first)
    held = HeldFolder("x-", tmp_path)
    assert held.path.is_dir()
    assert held.path not in taken
    held.close()
    assert not list(tmp_path.iterdir())
