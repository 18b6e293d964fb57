"""Processes that share a ledger, and processes that are killed in the middle of it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gas.chain.keys import signer_from_seed
from gas.chain.local.founding import create_ledger, create_subnet, ensure_registered, faucet
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock

ROOT = signer_from_seed(bytes(32))
OWNER = signer_from_seed(bytes([9]) * 32)
SINK = signer_from_seed(bytes([7]) * 32)

# Transfers 1 rao again and again, lets blocks pass, and says which transfers it has seen included.
HAMMER = """
import sys
from pathlib import Path
from gas.chain.keys import signer_from_seed
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock
signer, sink = signer_from_seed(bytes([int(sys.argv[2])]) * 32), sys.argv[3]
with Ledger(Path(sys.argv[1]), ManualClock()) as ledger:
    for number in range(int(sys.argv[4])):
        ledger.call(signer, "transfer", {"address": sink, "amount": 1})
        print(number, flush=True)
        if number % 5 == 4:
            ledger.advance(1)
"""


def hammer(path: Path, seed: int, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HAMMER, str(path), str(seed), SINK.ss58_address, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def ledger_path(tmp_path: Path) -> Path:
    path = tmp_path / "chain.db"
    with create_ledger(path, root=ROOT.ss58_address, clock=ManualClock(), manual=True) as ledger:
        create_subnet(
            ledger,
            ROOT,
            1,
            owner=OWNER.ss58_address,
            owner_hotkey=OWNER.ss58_address,
            hyperparameters={"tempo": 1},
        )
        for seed in (1, 2):
            signer = signer_from_seed(bytes([seed]) * 32)
            faucet(ledger, ROOT, signer.ss58_address, 10**9)
            ensure_registered(ledger, signer, signer, 1)
    return path


def received(path: Path) -> int:
    with Ledger(path, ManualClock()) as ledger:
        totals = ledger.totals()
        assert totals.balances + totals.staked + totals.burned == totals.issued
        with ledger.read() as tx:
            return tx.balance(SINK.ss58_address)


def included(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM calls WHERE kind = 'transfer'").fetchone()[0])
    finally:
        connection.close()


def test_kill_9_loses_no_included_call_and_includes_none_twice(ledger_path: Path) -> None:
    seen = 0
    for lines_before_kill in (1, 7, 18):
        process = hammer(ledger_path, 1, 100_000)
        assert process.stdout is not None
        for _ in range(lines_before_kill):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.stdout.close()
        process.wait(30)
        seen += lines_before_kill + rest.count("\n")
        # The call in flight may be in or not, but whatever was reported is in.
        assert seen <= received(ledger_path) <= seen + 1
        assert included(ledger_path) == received(ledger_path)
        seen = received(ledger_path)


def test_two_processes_with_the_same_key_and_one_with_another_include_every_call_once(ledger_path: Path) -> None:
    processes = [hammer(ledger_path, seed, 25) for seed in (1, 1, 2)]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert len(output.split()) == 25
    assert received(ledger_path) == included(ledger_path) == 75
    with Ledger(ledger_path, ManualClock()) as ledger, ledger.read() as tx:
        assert tx.block == 15
        assert tx.subnet(1).epochs == 15
