"""Two worker processes beside a service without one; the one that works is killed in the exam and in the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from postgres import service_url
from served_home import AUTHOR, Home, brightness_detector, found_home, hand_in, status, wait_for, zipped
from sqlalchemy import select

from gas.arena.rounds import close_round
from gas.cli.processes import stop
from gas.clock import SystemClock
from gas.storage.database import open_database
from gas.storage.tables import RunRow

pytestmark = pytest.mark.slow


def journals(home: Home) -> list[Path]:
    return [path for path in (home.path / "arena" / "journals").rglob("*") if path.is_file() and path.stat().st_size]


def worker_of(home: Home, workers: dict[str, subprocess.Popen[bytes]]) -> str:
    """Which worker has an unpacked package in its folder."""
    busy = [name for name in workers if any((home.path / "arena" / "workers" / name / "runs").glob("*/*"))]
    return busy[0] if busy else ""


def test_of_two_workers_one_is_killed_in_the_exam_and_one_in_the_run(tmp_path: Path) -> None:
    home = found_home(tmp_path / "home")
    package = zipped(tmp_path / "good.zip", {"bright.onnx": brightness_detector()})
    arena = home.serve("--no-worker")
    workers = {name: home.work(name) for name in ("one", "two")}
    database = open_database(service_url(home.path))

    def runs(kind: str) -> list[RunRow]:
        with database.read() as session:
            return list(session.scalars(select(RunRow).where(RunRow.kind == kind)))

    try:
        url = home.url(arena)
        model = hand_in(home, url, package).receipt.model_id
        for kind, heir in (("exam", "three"), ("full", "four")):
            wait_for(lambda kind=kind: any(run.state == "running" for run in runs(kind)) or bool(runs("full")))
            wait_for(lambda: worker_of(home, workers) != "" or status(home, url, model)["state"] == "scored")
            victim = worker_of(home, workers)
            if victim:
                workers[victim].send_signal(signal.SIGKILL)
                workers.pop(victim).wait()
                workers[heir] = home.work(heir)
        wait_for(lambda: status(home, url, model)["state"] in ("scored", "failed", "exam_failed", "blocked"))
        found = status(home, url, model)
        assert (found["state"], found["error"]) == ("scored", None)
        full = next(run for run in found["runs"] if run["kind"] == "full")
        assert full["metrics"]["accuracy"] == 1.0
        assert journals(home) == []

        round_id = runs("full")[0].round_id
        winner = close_round(database, round_id, {AUTHOR.ss58_address: 1}, SystemClock())
        assert winner is not None
        receipt = tmp_path / "receipt.json"
        receipt.write_bytes(httpx.get(f"{url}/api/v1/runs/{winner.run_id}/receipt").content)
        replays = [replay(home, receipt, package) for _ in range(2)]
        assert replays[0] == replays[1] == {"same_metrics": True, "same_records": True, "differences": []}
    finally:
        database.close()
        for process in (*workers.values(), arena):
            stop(process)


def replay(home: Home, receipt: Path, package: Path) -> dict[str, object]:
    arguments = ["bench", "replay", str(receipt), "--package", str(package), "--home", str(home.path), "--json"]
    script = [sys.executable, "-m", "gas.cli.main", *arguments, "--processes", "1"]
    done = subprocess.run(script, capture_output=True, timeout=120, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr.decode()
    found = dict(json.loads(done.stdout))
    found.pop("metrics")
    return found


def test_two_workers_of_one_name_do_not_share_a_home(tmp_path: Path) -> None:
    home = found_home(tmp_path / "home")
    first = home.work("one")
    try:
        arguments = ["arena", "worker", "--home", str(home.path), "--name", "one"]
        script = [sys.executable, "-m", "gas.cli.main", *arguments]
        second = subprocess.run(script, capture_output=True, timeout=60, check=False)
        assert second.returncode == 2
        assert b"at work" in second.stderr
    finally:
        stop(first)
