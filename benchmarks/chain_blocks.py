"""How fast the local ledger is: ``python benchmarks/chain_blocks.py``.

1,000 blocks of a full subnet: 256 neurons, 64 of them validators who set weights on all miners every 100 blocks, four
new commitments in every block, an epoch every 100 blocks. Each call is signed, checked and written to the disk by
itself, as in a live home.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

from gas.chain.keys import KeySigner, signer_from_seed
from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.chain.local.ledger import Ledger
from gas.chain.local.views import metagraph
from gas.clock import ManualClock

TAO = 10**9
NETUID = 1
NEURONS, VALIDATORS = 256, 64
TEMPO = RATE_LIMIT = 100
COMMITMENTS_A_BLOCK = 4


def key(name: str) -> KeySigner:
    """A key that is the same in every run."""
    return signer_from_seed(hashlib.sha256(name.encode()).digest())


def found(path: Path, clock: ManualClock) -> tuple[Ledger, list[KeySigner]]:
    """A full subnet; validators have permits, and the owner by its share. Returns ledger and hotkeys by uid."""
    root, owner = key("root"), key("owner")
    ledger = create_ledger(path, root=root.ss58_address, clock=clock, manual=True)
    create_subnet(
        ledger,
        root,
        NETUID,
        owner=owner.ss58_address,
        owner_hotkey=owner.ss58_address,
        hyperparameters={"tempo": TEMPO, "weights_rate_limit": RATE_LIMIT, "max_allowed_validators": VALIDATORS + 1},
        economics={"burn_ceiling": TAO},
    )
    keys = [owner]
    for uid in range(1, NEURONS):
        signer = key(str(uid))
        faucet(ledger, root, signer.ss58_address, 1000 * TAO)
        register(ledger, signer, signer, NETUID)
        if uid <= VALIDATORS:
            add_stake(ledger, signer, signer.ss58_address, NETUID, 100 * TAO)
        keys.append(signer)
    ledger.advance(TEMPO)
    return ledger, keys


def play(ledger: Ledger, keys: list[KeySigner], blocks: int) -> int:
    """Let blocks pass with the calls that fall into each; returns how many calls were included."""
    miners = list(range(VALIDATORS + 1, NEURONS))
    calls = 0
    for number in range(blocks):
        for turn in range(COMMITMENTS_A_BLOCK):
            signer = keys[(number * COMMITMENTS_A_BLOCK + turn) % NEURONS]
            ledger.call(signer, "set_commitment", {"netuid": NETUID, "data": f"block {number}"})
            calls += 1
        for uid in range(1, VALIDATORS + 1):
            if (number + uid) % RATE_LIMIT == 0:
                weights = [1 + (uid * miner + number) % 1000 for miner in miners]
                params = {"netuid": NETUID, "uids": miners, "weights": weights, "version_key": 0}
                ledger.call(keys[uid], "set_weights", params)
                calls += 1
        ledger.advance(1)
    return calls


def main() -> None:
    """Print how long the founding and the blocks took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clock = ManualClock()
        start = time.perf_counter()
        ledger, keys = found(Path(folder) / "chain.db", clock)
        founded = time.perf_counter() - start
        start, cpu = time.perf_counter(), time.process_time()
        calls = play(ledger, keys, options.blocks)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        with ledger.read() as tx:
            epochs, totals = tx.subnet(NETUID).epochs - 1, tx.totals()
            paid = sum(neuron.incentive > 0 for neuron in metagraph(tx, NETUID).neurons)
        ledger.close()
    if totals.balances + totals.staked + totals.burned != totals.issued:
        raise SystemExit("The ledger's sums don't agree.")
    print(f"founding, {NEURONS} neurons: {founded:.1f} s")
    print(
        f"{options.blocks} blocks, {calls} calls, {epochs} epochs that paid {paid} miners: {took:.1f} s "
        f"({cpu:.1f} s of CPU), {options.blocks / took:.0f} blocks/s, {calls / took:.0f} calls/s"
    )


if __name__ == "__main__":
    main()
