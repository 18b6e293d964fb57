"""A disk that is full: a typed error, a ledger that is whole, and as soon as there is space, it goes on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gas.chain.local.founding import faucet
from gas.chain.served.client import ServedChain
from gas.chain.served.server import LedgerServer
from gas.errors import ChainUnreachable

TAO = 10**9

# Transfers until the disk refuses, makes room, goes on, and tells what it saw.
DRIVER = """
import json, resource, sys
from pathlib import Path
from gas.chain.keys import signer_from_seed
from gas.chain.local.founding import create_ledger, faucet
from gas.chain.local.ledger import Ledger
from gas.clock import ManualClock
from gas.errors import ChainUnreachable

folder, how = Path(sys.argv[1]), sys.argv[2]
root, sink = signer_from_seed(bytes(32)), signer_from_seed(bytes([7]) * 32).ss58_address
ledger = create_ledger(folder / "chain.db", root=root.ss58_address, clock=ManualClock(), manual=True)
faucet(ledger, root, root.ss58_address, 10**12)
filler = folder / "filler"
if how == "tmpfs":
    filler.write_bytes(bytes(400 * 1024))
else:
    # Python ignores the signal of this limit, so writing beyond it is an error of the write.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, resource.RLIM_INFINITY))

def received():
    with ledger.read() as tx:
        return tx.balance(sink)

def pay():
    ledger.call(root, "transfer", {"address": sink, "amount": 1})

paid = 0
codes = []
while len(codes) < 3 and paid < 5000:
    try:
        pay()
        paid += 1
    except ChainUnreachable as error:
        codes.append(error.error_code)
        assert received() == paid, (received(), paid)
full = received()
totals = ledger.totals()
if how == "tmpfs":
    filler.unlink()
else:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for _ in range(20):
    pay()
ledger.advance(3)
after = received()
ledger.close()
with Ledger(folder / "chain.db", ManualClock()) as again:
    end = again.totals()
    block = again.block()
print(json.dumps({
    "codes": codes, "paid": paid, "full": full, "after": after, "block": block,
    "sums": [t.balances + t.staked + t.burned == t.issued for t in (totals, end)],
}))
"""


def check(output: str, code: str) -> None:
    found = json.loads(output)
    assert found["codes"] == [code] * 3
    assert found["full"] == found["paid"] > 0
    assert found["after"] == found["paid"] + 20
    assert found["block"] == 3
    assert found["sums"] == [True, True]


def test_a_file_that_may_not_grow_is_a_typed_error_and_nothing_is_lost(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), "limit"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check(done.stdout, "disk_error")


def test_a_full_disk_is_a_typed_error_and_nothing_is_lost(tmp_path: Path) -> None:
    """On a small file system of its own, in a mount name space that ends with the process."""
    script = f'mount -t tmpfs -o size=700k tmpfs {tmp_path} || exit 77; exec "$@"'
    try:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", DRIVER, str(tmp_path), "tmpfs"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("There is no unshare here.")
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip("A small file system can't be mounted here.")
    assert done.returncode == 0, done.stderr
    check(done.stdout, "disk_full")


def test_a_served_ledger_on_a_full_disk_says_so_and_goes_on_when_there_is_space(found) -> None:
    town = found()
    faucet(town.ledger, town.root, town.cold("ann").ss58_address, 10 * TAO)

    async def work() -> None:
        async with asyncio.timeout(60), LedgerServer(town.path, town.clock, port=0) as server:
            chain = ServedChain(server.address, town.hot("ann"), town.clock, coldkey=town.cold("ann"))
            bob = town.cold("bob").ss58_address
            await chain.transfer(bob, 1)
            # The file may not grow by one more page: SQLite's own way to a full disk.
            writing = server._open[1]._sql
            pages = writing.execute("PRAGMA page_count").fetchone()[0]
            writing.execute(f"PRAGMA max_page_count = {pages}")
            sent = 1
            with pytest.raises(ChainUnreachable) as error:
                while sent < 2000:
                    await chain.transfer(bob, 1)
                    sent += 1
            assert error.value.error_code == "disk_full"
            assert "Free some space" in str(error.value)
            assert await chain.balance_of(bob) == sent
            writing.execute("PRAGMA max_page_count = 1000000")
            await chain.transfer(bob, 1)
            assert await chain.balance_of(bob) == sent + 1
            totals = (await chain.standing(1)).totals
            assert totals.balances + totals.staked + totals.burned == totals.issued
            await chain.close()

    asyncio.run(work())
