"""The services against a chain that another machine serves: an arena, a detector's author, a generator."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from ledger_network import LedgerNetwork, found_network, keep_keys
from test_chain_served import served

from gas.chain.base import Axon
from gas.chain.local.views import commitment, metagraph
from gas.cli.main import main
from gas.clock import SystemClock
from gas.generation.signing import TestAuthority

Serve = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LedgerNetwork]:
    """A ledger that is served; the homes here hold keys and no ledger."""
    for home, name in (("arena", "validator"), ("author", "miner"), ("generator", "miner")):
        keep_keys(tmp_path / home, name)
    (tmp_path / "net").mkdir()
    with found_network(tmp_path / "net") as net, served(net.ledger.path, net.clock) as endpoint:
        monkeypatch.setenv("GAS_CHAIN_ENDPOINT", endpoint)
        yield net


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-m", "gas.cli.main", *words, "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["event"] == "serving"
        return process, int(line["port"])

    yield begin
    for process in running:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def test_an_author_pushes_to_an_arena_over_a_chain_that_neither_has(
    far: LedgerNetwork, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arena, port = serve("arena", "serve", "--home", str(tmp_path / "arena"), "--no-worker")
    package = tmp_path / "mine"
    words = ["push", "--image-model", str(package), "--home", str(tmp_path / "author"), "--wallet-name", "miner"]
    words += ["--api-url", f"http://127.0.0.1:{port}", "--json"]

    def run(*line: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            main(["d", *line])
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    assert run("init", "mine", "--folder", str(package))[0] == 0
    status, out = run(*words)
    assert status == 2
    assert "--arena-hotkey" in json.loads(out)["error"]["hint"]
    status, out = run(*words, "--arena-hotkey", far.validator.ss58_address)
    (pushed,) = json.loads(out)["pushed"]
    with far.ledger.read() as tx:
        found = commitment(tx, 1, far.miner.ss58_address)
    assert found is not None
    assert json.loads(found.data)["key"] == pushed["key"]
    assert pushed["block"] == found.block
    arena.send_signal(signal.SIGINT)
    assert arena.wait(60) == 0
    assert list(tmp_path.glob("a*/chain.db")) == []


def test_a_generator_tells_the_chain_where_others_reach_it_once(
    far: LedgerNetwork, serve: Serve, tmp_path: Path
) -> None:
    TestAuthority(tmp_path / "ca", SystemClock()).leaf("miner", "Miner Ltd")
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "one.png")
    words = ["g", "serve", "--wallet-name", "miner", "--home", str(tmp_path / "generator"), "--pipeline"]
    words += ["resynthesis", "--library", str(tmp_path / "photos"), "--credential", str(tmp_path / "ca")]
    nonces = []
    # A service that starts again must not be stopped by the network's limit on telling.
    for _ in range(2):
        process, port = serve(*words, "--axon", "203.0.113.44:8091")
        with far.ledger.read() as tx:
            neuron = metagraph(tx, 1).by_hotkey(far.miner.ss58_address)
            nonces.append(tx.nonce(far.miner.ss58_address))
        assert neuron is not None
        assert neuron.axon == Axon("203.0.113.44", 8091)
        assert port != 8091
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert nonces[0] == nonces[1]
