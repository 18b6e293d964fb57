"""Supervision without a service manager: what crashes comes back, what is stopped stays away."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import wait_for

from gas.cli.supervise import Supervised, is_held, process_start
from gas.cli.supervisor import RotatingLog
from gas.errors import ConfigurationError

STAYS = "import os, time; print('up', os.environ.get('WORD'), os.getpid(), flush=True); time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
WRONG = "import sys; print('gascli: no such wallet', flush=True); sys.exit(2)"


@pytest.fixture
def made() -> Iterator[list[Supervised]]:
    services: list[Supervised] = []
    yield services
    for service in services:
        service.stop()


def service(made: list[Supervised], folder: Path, code: str, grace: float = 10.0) -> Supervised:
    command = [sys.executable, "-S", "-c", code]
    one = Supervised("one", command, folder / "service", {"WORD": "secret"}, cwd=folder, grace_seconds=grace)
    made.append(one)
    return one


def test_a_service_that_is_killed_comes_back_and_one_that_is_stopped_does_not(
    made: list[Supervised], tmp_path: Path
) -> None:
    one = service(made, tmp_path, STAYS)
    assert one.status().state == "stopped"
    assert not one.stop()
    first = one.start()
    assert (first.state, first.restarts) == ("running", 0)
    with pytest.raises(ConfigurationError) as refusal:
        one.start()
    assert refusal.value.error_code == "already_running"
    wait_for(lambda: any("up secret" in line for line in one.logs()), "its first line")
    assert first.child_pid is not None
    os.kill(first.child_pid, signal.SIGKILL)
    wait_for(lambda: one.status().state == "running" and one.status().restarts == 1, "the restart")
    again = one.status()
    assert again.last_exit == -signal.SIGKILL
    wait_for(lambda: sum("up secret" in line for line in one.logs()) == 2, "its second line")
    assert any("ended with status -9" in line for line in one.logs())
    assert one.stop()
    assert one.status().state == "stopped"
    assert again.child_pid is not None
    assert process_start(again.child_pid) is None
    # What it was started with may be a secret: no file has it.
    assert all("secret" not in path.read_text() for path in one.state_dir.iterdir() if path.suffix != ".log")
    assert one.delete()
    assert list(one.state_dir.iterdir()) == []


def test_wrong_settings_are_not_tried_again(made: list[Supervised], tmp_path: Path) -> None:
    one = service(made, tmp_path, WRONG)
    one.start()
    wait_for(lambda: one.status().state == "failed" and not one.status().running, "the end")
    assert one.status().restarts == 0
    assert "gascli: no such wallet" in one.logs()


def test_a_service_that_does_not_listen_is_killed(made: list[Supervised], tmp_path: Path) -> None:
    one = service(made, tmp_path, DEAF, grace=0.2)
    child = one.start().child_pid
    wait_for(one.logs, "its first line")
    assert one.stop()
    assert child is not None
    assert process_start(child) is None
    assert any("SIGKILL" in line for line in one.logs())


def test_a_number_that_now_belongs_to_somebody_else_is_not_touched(made: list[Supervised], tmp_path: Path) -> None:
    one = service(made, tmp_path, STAYS)
    one.state_dir.mkdir()
    (one.state_dir / "one.json").write_text(f'{{"pid": {os.getpid()}, "started": "1", "state": "running"}}')
    assert one.status().state == "stopped"
    assert not one.stop()
    (one.state_dir / "one.json").write_text("[damaged")
    assert one.status().state == "stopped"
    assert not is_held(one.state_dir / "one.lock")


def test_a_log_is_rotated_and_read_across_its_files(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "one.log", max_bytes=50, files=3)
    for number in range(20):
        log.write(f"line number {number}\n".encode())
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.log", "one.log.1", "one.log.2"]
    lines = Supervised("one", [], tmp_path).logs(5)
    assert lines == [f"line number {number}" for number in range(15, 20)]


@pytest.mark.parametrize("name", ["", "../x", "A", "x y"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        Supervised(name, [], tmp_path)
