"""What the generator's tests stand on: a network on one machine, a validator that asks, real processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "support" / "providers"))

from ledger_network import keep_keys, key

from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.clock import RandomIds, SystemClock
from gas.generation.signing import TestAuthority
from gas.media.image import encode_png
from gas.protocol.epistula import sign_request
from gas.types import RAO_PER_TAO

NETUID = 1


def wait_for(condition: Callable[[], object], what: str = "the condition", seconds: float = 60.0) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not come true in time"
        time.sleep(0.02)


def noise_png(side: int = 32, seed: int = 0) -> bytes:
    """A small real picture."""
    return encode_png(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def found_home(home: Path) -> Path:
    """A home with a ledger, a miner and a validator with stake and permit; and a C2PA authority beside it."""
    clock, root = SystemClock(), key("root")
    home.mkdir(parents=True)
    with create_ledger(home / "chain.db", root=root.ss58_address, clock=clock, manual=True) as ledger:
        for name in ("validator", "miner", "poor"):
            faucet(ledger, root, key(name).ss58_address, 2000 * RAO_PER_TAO)
        create_subnet(
            ledger, root, NETUID, owner=root.ss58_address, owner_hotkey=root.ss58_address,
            hyperparameters={"tempo": 5, "max_allowed_validators": 1},
        )  # fmt: skip
        for name in ("validator", "miner", "poor"):
            register(ledger, key(name), key(name), NETUID)
        add_stake(ledger, key("validator"), key("validator").ss58_address, NETUID, 400 * RAO_PER_TAO)
        ledger.advance(6)
    for name in ("validator", "miner"):
        keep_keys(home, name)
    TestAuthority(home.parent / "authority", clock).leaf("miner", "Miner Ltd")
    return home


def write_env(path: Path, **values: object) -> Path:
    """An operator's file for a miner of :func:`found_home`'s network, on a free port of its own."""
    home = path.parent / ".gas"
    usual: dict[str, object] = {
        "IMAGE_SERVICE": "openai",
        "GAS_HOME": home,
        "BT_WALLET_NAME": "miner",
        "BT_AXON_PORT": 0,
        "MINER_C2PA_DIR": path.parent / "authority",
        "MINER_STATE_DIR": path.parent / "state",
        "MINER_ALLOW_LOCAL_WEBHOOKS": "true",
        "MINER_MIN_FREE_MB": 1,
    }
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in {**usual, **values}.items() if value is not None))
    return path


class Webhook:
    """A validator's side: signs requests, and takes deliveries as it is told to."""

    def __init__(self, name: str = "validator") -> None:
        self.signer = key(name)
        self.deliveries: dict[str, list[tuple[dict[str, str], bytes]]] = defaultdict(list)
        self.status = 200
        self.answer: dict[str, object] = {"status": "verified", "reasons": []}
        self.tries = 0
        self._ids = RandomIds()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/generation/callback"

    def headers(self, body: bytes) -> dict[str, str]:
        """Headers that sign a request for the miner."""
        now = int(time.time() * 1000)
        signed = sign_request(self.signer, body, signed_for=key("miner").ss58_address, now_ms=now, uuid=self._ids.new())
        return {**signed, "Content-Type": "application/json", "X-Webhook-URL": self.url}

    def ask(self, miner: str, modality: str, prompt: str, **parameters: object) -> httpx.Response:
        """Ask for a medium."""
        body = json.dumps({"prompt": prompt, "parameters": parameters}).encode()
        return httpx.post(f"{miner}/gen_{modality}", content=body, headers=self.headers(body), timeout=30)

    def take(self, miner: str, modality: str, prompt: str, **parameters: object) -> str:
        """Ask, and get the task's id."""
        answer = self.ask(miner, modality, prompt, **parameters)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def __enter__(self) -> Self:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                hook.tries += 1
                told = json.dumps(hook.answer).encode()
                if hook.status == 200:
                    hook.deliveries[headers["task-id"]].append((headers, body))
                self.send_response_only(hook.status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class Miner:
    """``gascli g serve`` in a process of its own."""

    def __init__(self, env_file: Path) -> None:
        self.env_file = env_file
        self.log = env_file.parent / "miner.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> str:
        begin = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gas.cli.main", "g", "serve", "--env-file", str(self.env_file)],
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip

        def lines() -> list[str]:
            return self.log.read_bytes()[begin:].decode().splitlines()

        process = self.process
        wait_for(
            lambda: process.poll() is not None or any('"serving"' in line for line in lines()), "the miner's start"
        )
        assert process.poll() is None, self.log.read_text()
        said = next(line for line in lines() if '"serving"' in line)
        self.url = f"http://127.0.0.1:{json.loads(said)['port']}"
        return self.url

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def rss_mb(self) -> float:
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def running(env_file: Path) -> Iterator[Miner]:
    """A miner that is gone afterwards, however the test ends."""
    miner = Miner(env_file)
    miner.start()
    try:
        yield miner
    finally:
        if miner.process is not None and miner.process.poll() is None:
            miner.kill()


def states(folder: Path) -> dict[str, str]:
    """State of each task, as the disk has it."""
    connection = sqlite3.connect(f"file:{folder / 'tasks.db'}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT id, state FROM tasks").fetchall())
    finally:
        connection.close()


def row(folder: Path, task: str) -> dict[str, Any]:
    """One task's row, as the disk has it."""
    connection = sqlite3.connect(f"file:{folder / 'tasks.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return dict(connection.execute("SELECT * FROM tasks WHERE id = ?", (task,)).fetchone())
    finally:
        connection.close()
