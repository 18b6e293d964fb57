"""``gascli arena serve`` as a process: a real chain, real packages, a real sandbox; killed, resumed, stopped."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from postgres import VARIABLE, service_url
from sqlalchemy import select

from gas.arena.push import Pushed, push, submission_status
from gas.arena.receipts import verify_receipt
from gas.arena.rounds import close_round, open_round
from gas.chain.keys import KeySigner, ensure_wallet, load_hotkey, signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, ensure_balance, ensure_registered
from gas.cli.processes import PARENT_PID, spawn, stop
from gas.clock import RandomIds, SystemClock, derive_rng
from gas.datasets.plan import Round, freeze_round
from gas.errors import GasError, PackageRejected
from gas.protocol.client import SignedClient
from gas.sandbox.probe import probe
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.storage.tables import RunRow, SubmissionRow
from gas.submissions import scaffold
from gas.submissions.pack import pack
from gas.types import MediaType, Modality, Provenance, Sample, Vertical

pytestmark = pytest.mark.slow

CLOCK = SystemClock()
AUTHOR = signer_from_seed(b"\x07" * 32)


@dataclass
class Home:
    """A founded network in a folder."""

    path: Path
    validator: KeySigner
    log: Path = Path()

    def serve(self) -> subprocess.Popen[bytes]:
        rest = [] if probe().tier > 0 else ["--trust-model"]
        args = ["arena", "serve", "--home", str(self.path), "--port", "0", "--processes", "1", "--batch-size", "4"]
        # A log of its own for each start: an old line would name a port that nobody listens on any more.
        self.log = self.path / f"arena-{time.monotonic_ns()}.log"
        served = {"GAS_DATABASE_URL": service_url(self.path)} if os.environ.get(VARIABLE) else {}
        return spawn([*args, *rest], served, self.log)

    def url(self, process: subprocess.Popen[bytes]) -> str:
        log = self.log
        wait_for(lambda: process.poll() is not None or b'"serving"' in log.read_bytes())
        assert process.poll() is None, log.read_text()
        lines = [line for line in log.read_text().splitlines() if line.startswith('{"event": "serving"')]
        return f"http://127.0.0.1:{json.loads(lines[-1])['port']}"


def wait_for(condition: Callable[[], bool], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def picture(blobs: FolderBlobs, index: int, *, fake: bool) -> str:
    """A noisy picture; fakes are dark."""
    rng = derive_rng(5, "picture", index, int(fake))
    pixels = rng.integers(0, 100, (40, 40, 3)) + (0 if fake else 155)
    data = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
    return blobs.put(data.getvalue())


def frozen(blobs: FolderBlobs, start: int, count: int) -> Round:
    samples = []
    for index in range(start, start + count):
        for kind in (MediaType.REAL, MediaType.SYNTHETIC):
            name = picture(blobs, index, fake=kind.is_fake)
            held = index % 2 == 0
            place = Provenance.HOLDOUT if held else Provenance.PUBLIC
            dataset = "secret-set" if held else "known-set"
            samples.append(Sample(name, Modality.IMAGE, kind, place, dataset, f"{dataset}-source", name))
    shares = {"public": 0.5, "holdout": 0.5, "arena": 0.0}
    return freeze_round(samples, 11, {"shares": shares}, code_version="0.1.0")


def brightness_detector() -> bytes:
    """An ONNX model that calls dark pictures fake."""
    from onnx import TensorProto, helper, numpy_helper

    steps = [
        helper.make_node("Cast", ["media"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "one"], ["c"]),
        helper.make_node("Sub", ["c", "middle"], ["d"]),
        helper.make_node("MatMul", ["d", "signs"], ["logits"]),
    ]
    values = {
        "one": np.array([1], np.int64),
        "middle": np.array([127.0], np.float32),
        "signs": np.array([[0.05, -0.05]], np.float32),
    }
    graph = helper.make_graph(
        steps, "bright",
        [helper.make_tensor_value_info("media", TensorProto.UINT8, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )  # fmt: skip
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    path = tmp_path / "home"
    ensure_wallet(path / "wallets", "validator")
    validator = load_hotkey(path / "wallets", "validator")
    ledger = create_ledger(path / "chain.db", root=validator.ss58_address, clock=CLOCK, block_seconds=0.1)
    create_subnet(ledger, validator, 1, owner=validator.ss58_address, owner_hotkey=validator.ss58_address)
    ensure_balance(ledger, validator, AUTHOR.ss58_address, 100 * 10**9)
    ensure_registered(ledger, AUTHOR, AUTHOR, 1)
    blobs, database = FolderBlobs(path / "blobs"), open_database(service_url(path))
    open_round(database, blobs, frozen(blobs, 0, 30), frozen(blobs, 100, 6), CLOCK)
    database.close()
    yield Home(path, validator)


def hand_in(home: Home, url: str, package: Path) -> Pushed:
    async def work() -> Pushed:
        chain = LocalChain(home.path / "chain.db", AUTHOR, CLOCK)
        async with httpx.AsyncClient(timeout=30) as http:
            try:
                return await push(
                    package, Modality.IMAGE, Vertical.GENERAL, url=url, arena_hotkey=home.validator.ss58_address,
                    hotkey=AUTHOR.ss58_address, netuid=1, client=SignedClient(AUTHOR, http, CLOCK, RandomIds()),
                    chain=chain,
                )  # fmt: skip
            finally:
                await chain.close()

    return asyncio.run(work())


def status(home: Home, url: str, model_id: str) -> dict[str, Any]:
    async def work() -> dict[str, Any]:
        async with httpx.AsyncClient() as http:
            client = SignedClient(AUTHOR, http, CLOCK, RandomIds())
            return await submission_status(client, url, home.validator.ss58_address, model_id)

    return asyncio.run(work())


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
