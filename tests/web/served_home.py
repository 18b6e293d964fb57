"""A network in a folder with its arena as processes, shared by the tests that serve."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from postgres import VARIABLE, service_url

from gas.arena.push import Pushed, push, submission_status
from gas.arena.rounds import open_round
from gas.chain.keys import KeySigner, ensure_wallet, load_hotkey, signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, ensure_balance, ensure_registered
from gas.cli.processes import spawn
from gas.clock import RandomIds, SystemClock, derive_rng
from gas.datasets.plan import Round, freeze_round
from gas.protocol.client import SignedClient
from gas.sandbox.probe import probe
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.types import MediaType, Modality, Provenance, Sample, Vertical

CLOCK = SystemClock()
AUTHOR = signer_from_seed(b"\x07" * 32)


@dataclass
class Home:
    """A founded network in a folder."""

    path: Path
    validator: KeySigner
    log: Path = Path()

    def serve(self, *more: str) -> subprocess.Popen[bytes]:
        rest = [*more, *([] if probe().tier > 0 else ["--trust-model"])]
        args = ["arena", "serve", "--home", str(self.path), "--port", "0", "--processes", "1", "--batch-size", "4"]
        # A log of its own for each start: an old line would name a port that nobody listens on any more.
        self.log = self.path / f"arena-{time.monotonic_ns()}.log"
        served = {"GAS_DATABASE_URL": service_url(self.path)} if os.environ.get(VARIABLE) else {}
        return spawn([*args, *rest], served, self.log)

    def work(self, name: str) -> subprocess.Popen[bytes]:
        """A worker of its own; returns when it works."""
        rest = [] if probe().tier > 0 else ["--trust-model"]
        args = ["arena", "worker", "--home", str(self.path), "--name", name, "--processes", "1", "--batch-size", "2"]
        log = self.path / f"{name}.log"
        served = {"GAS_DATABASE_URL": service_url(self.path)} if os.environ.get(VARIABLE) else {}
        process = spawn([*args, "--lease-seconds", "3", *rest], served, log)
        wait_for(lambda: process.poll() is not None or b'"working"' in log.read_bytes())
        assert process.poll() is None, log.read_text()
        return process

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


def found_home(path: Path) -> Home:
    """A chain with an author on it, and an open round."""
    ensure_wallet(path / "wallets", "validator")
    validator = load_hotkey(path / "wallets", "validator")
    ledger = create_ledger(path / "chain.db", root=validator.ss58_address, clock=CLOCK, block_seconds=0.1)
    create_subnet(ledger, validator, 1, owner=validator.ss58_address, owner_hotkey=validator.ss58_address)
    ensure_balance(ledger, validator, AUTHOR.ss58_address, 100 * 10**9)
    ensure_registered(ledger, AUTHOR, AUTHOR, 1)
    blobs, database = FolderBlobs(path / "blobs"), open_database(service_url(path))
    open_round(database, blobs, frozen(blobs, 0, 30), frozen(blobs, 100, 6), CLOCK)
    database.close()
    return Home(path, validator)
