"""``gascli chain start`` and the other commands over the wire, as an owner and a miner on two machines use them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gas.chain.keys import load_coldkey
from gas.chain.local.founding import create_ledger
from gas.chain.local.ledger import Ledger
from gas.cli.main import main
from gas.clock import SystemClock

Run = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(home: Path, *words: str) -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        status = 0
        try:
            main([*words, "--home", str(home), "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, json.loads(capsys.readouterr().out)

    return call


Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def begin(home: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "gas.cli.main", "chain", "start", "--home", str(home), "--json"]
            + (list(words) if "--listen" in words else ["--listen", "127.0.0.1:0", *words]),
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert line["event"] == "serving"
        return process, str(line["endpoint"])

    yield begin
    for process in running:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def homes(tmp_path: Path, run: Run) -> tuple[Path, Path]:
    owner, miner = tmp_path / "owner", tmp_path / "miner"
    assert run(owner, "wallet", "new", "root", "--no-password")[0] == 0
    assert run(miner, "wallet", "new", "ann", "--no-password")[0] == 0
    return owner, miner


def test_two_machines_share_a_chain(homes: tuple[Path, Path], run: Run, start: Start) -> None:
    owner, miner = homes
    process, endpoint = start(owner, "--root", "root", "--manual")
    there = ["--chain-endpoint", endpoint]
    ann = run(miner, "wallet", "show", "ann")[1]
    coldkey, hotkey = str(ann["coldkey"]), ann["hotkeys"]["default"]
    faucet = ["chain", "faucet", "100", "--to", coldkey, "--root"]
    assert run(owner, *faucet, "root", *there) == (0, {"balance": 100 * 10**9})
    status, refused = run(miner, *faucet, "ann", *there)
    assert (status, refused["error"]["code"]) == (1, "not_root")
    assert run(miner, "chain", "register", "--wallet", "ann", *there) == (0, {"uid": 1})
    assert run(miner, "chain", "stake", "12.5", "--wallet", "ann", *there) == (0, {"stake": 12_500_000_000})
    status, refused = run(miner, "chain", "advance", "1", *there)
    assert (status, refused["error"]["code"]) == (2, "configuration")
    assert run(owner, "chain", "advance", "360", "--root", "root", *there) == (0, {"block": 360})
    assert run(miner, "chain", "weights", "0=1", "1=3", "--wallet", "ann", *there)[1] == {
        "weights": {"1": {"0": 21845, "1": 65535}}
    }
    _, committed = run(miner, "chain", "commit", "hello", "--wallet", "ann", *there)
    assert committed["commitment"] == {"hotkey": hotkey, "data": "hello", "block": 360}
    # The owner's own machine sees the same in its file.
    here, remote = run(owner, "chain", "status")[1], run(miner, "chain", "status", *there)[1]
    assert here == remote
    assert remote["epochs"] == 1
    assert run(owner, "chain", "resume", "--root", "root", *there)[1]["paused"] is False
    assert run(owner, "chain", "pause") == (0, {"block": 360, "paused": True})
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    status, gone = run(miner, "chain", "status", *there)
    assert (status, gone["error"]["code"]) == (1, "chain_unreachable")


def test_a_server_killed_in_the_middle_serves_the_same_chain_again(
    homes: tuple[Path, Path], run: Run, start: Start
) -> None:
    owner, miner = homes
    process, endpoint = start(owner, "--root", "root", "--block-seconds", "0.05")
    coldkey = str(run(miner, "wallet", "show", "ann")[1]["coldkey"])
    for paid in (1, 2, 3):
        assert run(owner, "chain", "faucet", "1", "--to", coldkey, "--root", "root", "--chain-endpoint", endpoint) == (
            0,
            {"balance": paid * 10**9},
        )
    process.kill()
    process.wait(30)
    before = run(owner, "chain", "pause")[1]["block"]
    process, endpoint = start(owner)
    found = run(miner, "chain", "status", "--chain-endpoint", endpoint)[1]
    assert found["block"] == before
    assert found["totals"]["balances"] == 3 * 10**9
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_founding_that_was_interrupted_is_finished(homes: tuple[Path, Path], run: Run, start: Start) -> None:
    owner, _ = homes
    root = load_coldkey(owner / "wallets", "root")
    (owner / "chain.db").touch()
    assert run(owner, "chain", "status")[1]["error"]["code"] == "ledger_missing"
    create_ledger(owner / "chain.db", root=root.ss58_address, clock=SystemClock(), manual=True).close()
    _, endpoint = start(owner, "--root", "root")
    status, found = run(owner, "chain", "status", "--chain-endpoint", endpoint)
    assert (status, len(found["neurons"])) == (0, 1)
    assert run(owner, "chain", "found", "--root", "root")[1]["error"]["code"] == "ledger_exists"


def test_the_endpoint_may_come_from_the_environment(
    homes: tuple[Path, Path], run: Run, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, miner = homes
    _, endpoint = start(owner, "--root", "root", "--manual")
    monkeypatch.setenv("GAS_CHAIN_ENDPOINT", endpoint)
    assert run(miner, "chain", "status")[1]["block"] == 0
    monkeypatch.setenv("GAS_CHAIN_ENDPOINT", "nowhere")
    status, refused = run(miner, "chain", "status")
    assert (status, refused["error"]["code"]) == (2, "bad_endpoint")


def test_what_can_not_be_served_is_said_at_once(homes: tuple[Path, Path], run: Run, start: Start) -> None:
    owner, miner = homes
    status, refused = run(miner, "chain", "start")
    assert (status, refused["error"]["code"]) == (2, "ledger_missing")
    assert run(owner, "chain", "found", "--root", "root", "--manual")[0] == 0
    status, refused = run(owner, "chain", "start", "--manual")
    assert (status, refused["error"]["code"]) == (2, "ledger_exists")
    for listen in ("9944", "127.0.0.1:", "127.0.0.1:70000", ":80x", "203.0.113.7:9944"):
        assert run(owner, "chain", "start", "--listen", listen)[0] == 2
    _, endpoint = start(owner)
    status, refused = run(owner, "chain", "start", "--listen", endpoint.removeprefix("ws://"))
    assert (status, refused["error"]["code"]) == (2, "address_in_use")


def test_weights_are_committed_and_revealed_from_the_command_line(homes: tuple[Path, Path], run: Run) -> None:
    owner, _ = homes
    run(owner, "chain", "found", "--root", "root", "--manual")
    rules = {"commit_reveal": True, "tempo": 10, "weights_rate_limit": 0}
    with Ledger(owner / "chain.db", SystemClock()) as ledger:
        root = load_coldkey(owner / "wallets", "root")
        ledger.call(root, "set_hyperparameters", {"netuid": 1, "changes": rules})
    run(owner, "chain", "advance", "1")
    status, committed = run(owner, "chain", "weights", "0=7", "--wallet", "root")
    assert (status, committed["weights"]) == (0, {})
    receipt = owner / "receipt.json"
    receipt.write_text(json.dumps(committed))
    status, refused = run(owner, "chain", "reveal", str(receipt), "--wallet", "root")
    assert (status, refused["error"]["code"]) == (1, "reveal_too_early")
    run(owner, "chain", "advance", "10")
    assert run(owner, "chain", "reveal", str(receipt), "--wallet", "root") == (0, {"revealed": 1})
    assert run(owner, "chain", "weights")[1] == {"weights": {"0": {"0": 65535}}}
    receipt.write_text("[]")
    status, refused = run(owner, "chain", "reveal", str(receipt), "--wallet", "root")
    assert (status, refused["error"]["code"]) == (2, "bad_receipt")
