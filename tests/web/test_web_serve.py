"""``gascli arena serve`` as a process: a real chain, real packages, a real sandbox; killed, resumed, stopped."""

from __future__ import annotations

import asyncio
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

from gas.arena.receipts import verify_receipt
from gas.arena.rounds import close_round
from gas.cli.processes import PARENT_PID, stop
from gas.clock import RandomIds, SystemClock
from gas.errors import GasError, PackageRejected
from gas.protocol.client import SignedClient
from gas.storage.database import open_database
from gas.storage.tables import RunRow, SubmissionRow
from gas.submissions import scaffold
from gas.submissions.pack import pack
from gas.types import Modality

pytestmark = pytest.mark.slow

CLOCK = SystemClock()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return found_home(tmp_path / "home")


def test_a_round_of_submissions_is_played_through_kills_and_restarts(home: Home, tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.zip", {"bright.onnx": brightness_detector()})
    scaffold.create(tmp_path / "weak", "weak", Modality.IMAGE, "onnx")
    pack(tmp_path / "weak", tmp_path / "weak.zip")
    arena = home.serve()
    try:
        url = home.url(arena)
        pushed = hand_in(home, url, good)
        assert pushed.created
        again = hand_in(home, url, good)
        assert (again.created, again.receipt.key, again.block) == (False, pushed.receipt.key, pushed.block)

        database = open_database(service_url(home.path))

        def state() -> str:
            with database.read() as session:
                return session.get_one(SubmissionRow, pushed.receipt.model_id).state

        wait_for(lambda: state() not in ("uploaded", "scanning"))
        arena.send_signal(signal.SIGKILL)
        arena.wait()
        (home.path / "arena" / "incoming" / "half.body").write_bytes(b"left by the killed service")
        arena = home.serve()
        url = home.url(arena)
        wait_for(lambda: state() in ("scored", "failed", "exam_failed", "blocked"))
        found = status(home, url, pushed.receipt.model_id)
        assert (found["state"], found["reasons"], found["error"]) == ("scored", [], None)
        full = next(run for run in found["runs"] if run["kind"] == "full")
        assert full["metrics"]["accuracy"] == 1.0
        assert full["metrics"]["sn34_score"] > 0.9
        assert "known-set" in json.dumps(full)
        assert "secret-set" not in json.dumps(found)

        weak = hand_in(home, url, tmp_path / "weak.zip")
        wait_for(lambda: status(home, url, weak.receipt.model_id)["state"] == "exam_failed")
        assert status(home, url, weak.receipt.model_id)["reasons"][0]["code"] == "exam_accuracy"

        with database.read() as session:
            round_id = session.scalars(select(RunRow.round_id)).first() or ""
        winner = close_round(database, round_id, {AUTHOR.ss58_address: 1}, CLOCK)
        assert winner is not None
        assert winner.submission_id == pushed.receipt.model_id
        receipt = verify_receipt(httpx.get(f"{url}/api/v1/runs/{winner.run_id}/receipt").json())
        assert receipt.signer == home.validator.ss58_address
        assert "secret-set" not in json.dumps(dict(receipt.body))
        database.close()
        assert httpx.get(f"{url}/readyz").json()["ready"]
        assert stop(arena) == 0
    finally:
        arena.kill()
        arena.wait()
    assert [p for p in (home.path / "arena").rglob("*") if p.is_file() and p.suffix in (".zip", ".body")] == []


def test_a_hostile_package_is_refused_with_its_lines_before_and_after_the_upload(home: Home, tmp_path: Path) -> None:
    code = b'import socket\nopen("/etc/passwd")\n'
    scaffold.create(tmp_path / "hostile", "hostile", Modality.IMAGE, "safetensors")
    (tmp_path / "hostile" / "model.py").write_bytes(code)
    pack(tmp_path / "hostile", tmp_path / "hostile.zip")
    arena = home.serve()
    try:
        url = home.url(arena)
        with pytest.raises(PackageRejected):
            hand_in(home, url, tmp_path / "hostile.zip")

        async def unchecked() -> None:
            async with httpx.AsyncClient() as http:
                await SignedClient(AUTHOR, http, CLOCK, RandomIds()).post_multipart(
                    f"{url}/api/v1/submissions",
                    {"modality": "image"},
                    {"zip": ("hostile.zip", (tmp_path / "hostile.zip").read_bytes(), "application/zip")},
                    signed_for=home.validator.ss58_address,
                )

        with pytest.raises(GasError) as refused:
            asyncio.run(unchecked())
        assert refused.value.error_code == "package_rejected"
        database = open_database(service_url(home.path))
        with database.read() as session:
            row = session.scalars(select(SubmissionRow)).one()
        database.close()
        assert row.state == "rejected"
        assert {(r["file"], r["line"]) for r in row.reasons} >= {("model.py", 1), ("model.py", 2)}
        assert row.zip_blob is None
    finally:
        stop(arena)


def test_the_service_dies_with_its_parent(home: Home) -> None:
    script = (
        "import sys, time; from pathlib import Path; from gas.cli.processes import spawn;"
        "p = spawn(sys.argv[2:], {}, Path(sys.argv[1])); print(p.pid, flush=True); time.sleep(600)"
    )
    arguments = ["arena", "serve", "--home", str(home.path), "--port", "0", "--no-worker"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(home.path / "arena.log"), *arguments], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: (home.path / "arena.log").exists() and b"serving" in (home.path / "arena.log").read_bytes())
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def gone() -> bool:
        stat = Path(f"/proc/{child}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    wait_for(gone)


def test_an_orphan_does_not_even_start(tmp_path: Path) -> None:
    environment = {**os.environ, PARENT_PID: "1"}
    code = "from gas.cli.processes import die_with_parent; die_with_parent()"
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 1
