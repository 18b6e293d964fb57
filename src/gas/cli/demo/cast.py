"""Who takes part in the demo, and the founding of their network: keys, ledger, subnet, registrations, stake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gas.chain.keys import KeySigner, ensure_wallet, load_coldkey, load_hotkey
from gas.chain.local.founding import (
    DONE_CODES,
    create_ledger,
    create_subnet,
    ensure_balance,
    ensure_registered,
    ensure_stake,
)
from gas.chain.local.ledger import Ledger
from gas.cli.demo.home import DemoHome
from gas.clock import Clock
from gas.errors import ChainRefused, ConfigurationError, NotRegistered
from gas.types import RAO_PER_TAO

__all__ = ["BLOCK_SECONDS", "DETECTORS", "GENERATORS", "NETUID", "OWNER", "TEMPO", "VALIDATOR", "Member", "found"]

NETUID: Final = 1
TEMPO: Final = 20
BLOCK_SECONDS: Final = 0.25
"""Length of a block while the demo runs; between two runs the chain stands still."""

_OWNER_STAKE: Final = 100 * RAO_PER_TAO
_VALIDATOR_STAKE: Final = 1_000 * RAO_PER_TAO
_MINER_STAKE: Final = RAO_PER_TAO
_POCKET: Final = 10 * RAO_PER_TAO


@dataclass(frozen=True, slots=True)
class Member:
    """One of the cast.

    Attributes:
        name: Name of the wallet, and how the report calls them.
        role: In words.
        about: One sentence for the report.
    """

    name: str
    role: str
    about: str


OWNER: Final = Member("owner", "subnet owner", "Founded the subnet; gets the owner's share of its emission.")
VALIDATOR: Final = Member("validator", "validator", "Challenges, verifies, benchmarks, and sets the weights.")
GENERATORS: Final = (
    Member("gen-resynthesis", "generator", "Serves Real-ESRGAN resyntheses of its own photos."),
    Member("gen-diffusion", "generator", "Serves pictures from a small diffusion model."),
)
DETECTORS: Final = (
    Member("det-onnx", "detector author", "Pushes a good detector in ONNX."),
    Member("det-torch", "detector author", "Pushes a good detector in safetensors."),
    Member("det-weak", "detector author", "Pushes a weak detector that sees colours only."),
    Member("det-hostile", "detector author", "Pushes a package that would read /etc/passwd and open a socket."),
)


def found(home: DemoHome, clock: Clock, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Make what is missing of wallets, ledger, subnet, registrations and stake.

    Args:
        home: Where.
        clock: For the ledger's founding.
        report: Told how many of how many things are done.

    Returns:
        ``{"block", "epochs": 1, "members": {name: {"hotkey", "coldkey", "uid", "role", "about"}}}``
    """
    members = (OWNER, VALIDATOR, *GENERATORS, *DETECTORS)
    wallets = home.settings.wallets_path
    steps, done = 2 * len(members) + 2, 0
    keys: dict[str, tuple[KeySigner, KeySigner]] = {}
    for member in members:
        ensure_wallet(wallets, member.name)
        keys[member.name] = load_coldkey(wallets, member.name), load_hotkey(wallets, member.name)
        report(done := done + 1, steps)
    root = keys[OWNER.name][0]
    try:
        create_ledger(home.settings.ledger_path, root=root.ss58_address, clock=clock, manual=True).close()
    except ConfigurationError as error:
        if error.error_code not in DONE_CODES:
            raise
    with Ledger(home.settings.ledger_path, clock) as ledger:
        try:
            create_subnet(
                ledger,
                root,
                NETUID,
                owner=root.ss58_address,
                owner_hotkey=keys[OWNER.name][1].ss58_address,
                # Two permits: the owner's and the validator's; miners have some stake, but are no validators.
                hyperparameters={"tempo": TEMPO, "weights_rate_limit": 0, "max_allowed_validators": 2},
            )
        except ChainRefused as error:
            if error.error_code not in DONE_CODES:
                raise
        report(done := done + 1, steps)
        found_members = {}
        stakes = {OWNER.name: _OWNER_STAKE, VALIDATOR.name: _VALIDATOR_STAKE}
        for member in members:
            coldkey, hotkey = keys[member.name]
            stake = stakes.get(member.name, _MINER_STAKE)
            if not _staked(ledger, hotkey.ss58_address, stake):
                ensure_balance(ledger, root, coldkey.ss58_address, stake + _POCKET)
            uid = ensure_registered(ledger, coldkey, hotkey, NETUID)
            ensure_stake(ledger, coldkey, hotkey.ss58_address, NETUID, stake)
            found_members[member.name] = {
                "hotkey": hotkey.ss58_address,
                "coldkey": coldkey.ss58_address,
                "uid": uid,
                "role": member.role,
                "about": member.about,
            }
            report(done := done + 1, steps)
        # Permits are given by an epoch: without one the validator may neither challenge nor set weights.
        block = ledger.advance_to(TEMPO + 1)
        report(done + 1, steps)
    return {"block": block, "members": found_members}


def _staked(ledger: Ledger, hotkey: str, amount: int) -> bool:
    """Whether an earlier start has come so far with this member."""
    try:
        with ledger.read() as tx:
            return tx.stake(NETUID, hotkey) >= amount
    except NotRegistered:
        return False
