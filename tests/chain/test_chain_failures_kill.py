"""A process that is killed at each statement of an epoch, of a registration, of a call: the ledger is at one of the
states that an undisturbed run passes through, and going on leads to the same end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Each line it prints tells of one kill: what state was found, and whether going on led to the undisturbed end.
DRIVER = """
import json, os, shutil, signal, sqlite3, sys
from pathlib import Path
from gas.chain.keys import signer_from_seed
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock
from gas.errors import ChainRefused

folder, what = Path(sys.argv[1]), sys.argv[2]
TAO, N = 10**9, 7
def key(number):
    return signer_from_seed(bytes([number]) * 32)
root = key(100)

def found(path):
    with create_ledger(path, root=root.ss58_address, clock=ManualClock(), manual=True) as ledger:
        create_subnet(ledger, root, 1, owner=root.ss58_address, owner_hotkey=root.ss58_address,
            hyperparameters={"tempo": 10, "immunity_period": 0, "weights_rate_limit": 0, "max_allowed_uids": N,
                             "max_allowed_validators": 4})
        for number in range(1, N + 1):
            faucet(ledger, root, key(number).ss58_address, 100 * TAO)
            if number < N:
                register(ledger, key(number), key(number), 1)
        for number in (1, 2, 3):
            add_stake(ledger, key(number), key(number).ss58_address, 1, 50 * TAO)
        ledger.advance(10)
        for number in (1, 2, 3):
            ledger.call(key(number), "set_weights", {"netuid": 1, "uids": [5, 6], "weights": [1, number],
                                              "version_key": 0})
        ledger.call(key(4), "set_commitment", {"netuid": 1, "data": "mine"})
        ledger.advance(9)

def act(ledger):
    if what == "epoch":
        ledger.advance_to(21)
    elif what == "register":
        try:
            register(ledger, key(N), key(N), 1)
        except ChainRefused as error:
            if error.error_code != "already_registered":
                raise
    else:
        with ledger.read() as tx:
            done = tx.nonce(key(5).ss58_address) > 1
        if not done:
            ledger.call(key(5), "transfer", {"address": key(6).ss58_address, "amount": TAO})

def state(path):
    # Signatures are salted, so no two runs have the same.
    connection = sqlite3.connect(path)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    found = []
    for name in names:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        wanted = ", ".join(column for column in columns if column not in ("signature", "chain_id"))
        found.append((name, sorted(map(repr, connection.execute(f"SELECT {wanted} FROM {name}")))))
    connection.close()
    return repr(found)

def copy(name):
    target = folder / name
    for ending in ("", "-wal", "-shm"):
        Path(str(target) + ending).unlink(missing_ok=True)
    shutil.copy(folder / "base.db", target)
    return target

found(folder / "base.db")
path = copy("whole.db")
allowed, statements = [state(path)], []
with Ledger(path, ManualClock()) as ledger:
    ledger._sql.set_trace_callback(statements.append)
    act(ledger)
end = state(path)
total = len(statements)
for at in range(1, total + 1):
    path = copy("killed.db")
    child = os.fork()
    if child == 0:
        ledger, left = Ledger(path, ManualClock()), [at]
        def count(_):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        ledger._sql.set_trace_callback(count)
        act(ledger)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    with Ledger(path, ManualClock()) as ledger:
        totals = ledger.totals()
        sums = totals.balances + totals.staked + totals.burned == totals.issued
        with ledger.read() as tx:
            at_block, epochs = tx.block, tx.subnet(1).epochs
        found_state = state(path)
        act(ledger)
    print(json.dumps({
        "killed": os.WIFSIGNALED(status), "sums": sums, "block": at_block, "epochs": epochs,
        "untouched": found_state == allowed[0], "finished": found_state == end, "same_end": state(path) == end,
    }), flush=True)
"""


def kills(folder: Path, what: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), what], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("what", ["register", "transfer"])
def test_a_call_killed_at_any_statement_is_included_whole_or_not_at_all(tmp_path: Path, what: str) -> None:
    found = kills(tmp_path, what)
    assert len(found) > 10
    for kill in found:
        assert kill["killed"]
        assert kill["sums"]
        assert kill["untouched"] or kill["finished"]
        assert kill["same_end"]


def test_an_epoch_killed_at_any_statement_pays_once(tmp_path: Path) -> None:
    """The epoch of block 20 on the way from block 19 to block 21."""
    found = kills(tmp_path, "epoch")
    assert len(found) > 30
    assert {kill["epochs"] for kill in found} >= {1, 2}
    for kill in found:
        assert kill["killed"]
        assert kill["sums"]
        assert kill["same_end"]
        # The block in between is there only with its epoch.
        assert (kill["block"], kill["epochs"]) in ((19, 1), (20, 2), (21, 2))
        assert kill["untouched"] or kill["finished"] or kill["block"] == 20
