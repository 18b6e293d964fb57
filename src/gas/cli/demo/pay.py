"""The demo's pay: who won, what generators earned, weights on the chain, epochs of consensus, emission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from gas.arena.competitions import competitions_of, default_competitions
from gas.arena.rounds import close_round
from gas.chain.keys import load_hotkey
from gas.chain.local.chain import LocalChain
from gas.cli.demo.cast import BLOCK_SECONDS, DETECTORS, GENERATORS, NETUID, TEMPO, VALIDATOR
from gas.cli.demo.home import DemoHome
from gas.clock import SystemClock
from gas.errors import StorageError
from gas.scoring.weights import EmissionProfile
from gas.storage.database import Database
from gas.validator.epochs import EpochRunner, last_reckoning
from gas.validator.explain import sentences
from gas.validator.factors import GeneratorFactors
from gas.validator.reckoning import PayRules

__all__ = ["PAID_EPOCHS", "PROFILE", "pay"]

PROFILE: Final = EmissionProfile.from_table("demo", {"image": 0.70, "generator": 0.30})
"""The demo plays pictures only: the image share and the generators' share of the default profile, scaled to 1."""

PAID_EPOCHS: Final = 3


async def pay(home: DemoHome, database: Database, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Close the round, set weights and let epochs pass until their emission is paid.

    Args:
        home: The demo, its submissions ended.
        database: Round, runs, media and judgements.
        report: Told how many blocks of how many have passed.

    Returns:
        ``{"weights": {uid: share}, "reasons": {uid: [sentence]}, "winner", "generators": {name: {...}},
        "emission": {hotkey: {"incentive", "dividends", "owner_share", "total"}}, "consensus": {...}, "block"}``
    """
    clock, settings = SystemClock(), home.settings
    members = home.results["found"]["members"]
    signer = load_hotkey(settings.wallets_path, VALIDATOR.name)
    chain = LocalChain(settings.ledger_path, signer, clock)
    try:
        uids = {member["hotkey"]: member["uid"] for member in members.values()}
        round_id = home.results["round"]["id"]
        await asyncio.to_thread(close_round, database, round_id, uids, clock)
        rules = PayRules(competitions=competitions_of(settings.home) or default_competitions())
        runner = EpochRunner(
            database, chain, signer.ss58_address, PROFILE, clock, netuid=NETUID, home=settings.home,
            endpoint=settings.chain_endpoint, rules=rules,
        )  # fmt: skip
        if "weights_epoch" not in home.results:
            # The validator's own reckoning: it folds a day into the history once, and `gascli v weights` shows it.
            await runner.set_now(await chain.block())
            home.done("weights_epoch", await asyncio.to_thread(_epochs, chain))
        reckoning = await asyncio.to_thread(last_reckoning, database, NETUID)
        if reckoning is None:
            raise StorageError("The epoch that was reckoned is not in the database any more.")
        factors = {one.hotkey: one for one in reckoning.generators}
        first = int(home.results["weights_epoch"]) + 1
        await _wait_for_epochs(chain, first + PAID_EPOCHS - 1, report)
        paid = await chain.emissions(NETUID, first)
        graph = await chain.metagraph(NETUID)
        return {
            "weights": {str(uid): weight for uid, weight in reckoning.weights.items()},
            "reasons": {str(uid): lines for uid, lines in sentences(reckoning).items()},
            "winner": next((pot.paid_uid for pot in reckoning.pots if pot.winner is not None), None),
            "generators": {m.name: _generator(factors.get(members[m.name]["hotkey"])) for m in GENERATORS},
            "emission": {
                hotkey: {
                    "incentive": p.incentive,
                    "dividends": p.dividends,
                    "owner_share": p.owner_share,
                    "total": p.total,
                }
                for hotkey, p in paid.items()
            },
            "neurons": [
                {"uid": n.uid, "hotkey": n.hotkey, "incentive": n.incentive, "dividends": n.dividends,
                 "consensus": n.consensus, "validator_trust": n.validator_trust}
                for n in graph.neurons
            ],
            "block": graph.block,
            "epochs": PAID_EPOCHS,
            "detectors": len(DETECTORS),
        }  # fmt: skip
    finally:
        await chain.close()


def _generator(found: GeneratorFactors | None) -> dict[str, Any]:
    """What a generator did in the day, and what it is rewarded with."""
    modalities = {} if found is None else found.modalities
    verified = sum(one.verified for one in modalities.values())
    return {
        "verified": verified,
        "refused": sum(one.ended for one in modalities.values()) - verified,
        "fooled": found.fooled if found is not None else 0,
        "not_fooled": found.judged - found.fooled if found is not None else 0,
        "fool_rate": found.fool_rate if found is not None else None,
        "bonus": found.bonus if found is not None else 0.0,
        "base": {name: one.base for name, one in modalities.items()},
        "reward": found.reward if found is not None else 0.0,
    }


def _epochs(chain: LocalChain) -> int:
    """How many epochs the subnet has had."""
    with chain.ledger.read() as tx:
        return tx.subnet(NETUID).epochs


async def _wait_for_epochs(chain: LocalChain, wanted: int, report: Callable[[int, int], None]) -> None:
    start = await chain.block()
    total = PAID_EPOCHS * TEMPO
    while await asyncio.to_thread(_epochs, chain) < wanted:
        await asyncio.sleep(BLOCK_SECONDS)
        report(min(await chain.block() - start, total), total)
    report(total, total)
