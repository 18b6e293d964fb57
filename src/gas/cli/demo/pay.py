"""The demo's pay: who won, what generators earned, weights on the chain, epochs of consensus, emission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from gas.arena.rounds import close_round, standings
from gas.chain.keys import load_hotkey
from gas.chain.local.chain import LocalChain
from gas.cli.demo.cast import BLOCK_SECONDS, DETECTORS, GENERATORS, NETUID, OWNER, TEMPO, VALIDATOR
from gas.cli.demo.home import DemoHome
from gas.clock import SystemClock
from gas.scoring.generators import default_prices
from gas.scoring.weights import EmissionProfile
from gas.storage.database import Database
from gas.types import Modality
from gas.validator.scores import (
    DetectorStanding,
    generator_standings,
    plan_weights,
    update_history,
    weights_to_u16,
)

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
        with database.read() as session:
            table = standings(session, round_id)
        detectors = [
            DetectorStanding(uids[s.hotkey], s.name, Modality.IMAGE, s.score, s.committed_block)
            for s in table
            if s.duplicate_of is None
        ]
        hotkeys = [members[m.name]["hotkey"] for m in GENERATORS]
        generators = generator_standings(
            database,
            signer.ss58_address,
            hotkeys,
            now=clock.time(),
            shares={Modality.IMAGE: 1.0},
            prices=default_prices(),
        )
        if "history" not in home.results:
            # Folded in once: a resumed demo must not count the same day twice.
            rewards = {g.hotkey: g.reward.reward for g in generators}
            history = update_history(database, rewards, now=clock.time(), epoch=f"demo/{round_id}")
            home.done("history", history)
        scores = {uids[hotkey]: score for hotkey, score in home.results["history"].items()}
        plan = plan_weights(detectors, scores, PROFILE, members[OWNER.name]["uid"])
        if "weights_epoch" not in home.results:
            await chain.set_weights(NETUID, *weights_to_u16(plan.weights))
            home.done("weights_epoch", await asyncio.to_thread(_epochs, chain))
        first = int(home.results["weights_epoch"]) + 1
        await _wait_for_epochs(chain, first + PAID_EPOCHS - 1, report)
        paid = await chain.emissions(NETUID, first)
        graph = await chain.metagraph(NETUID)
        return {
            "weights": {str(uid): weight for uid, weight in plan.weights.items()},
            "reasons": {str(uid): lines for uid, lines in plan.reasons.items()},
            "winner": plan.winners.get(Modality.IMAGE),
            "generators": {
                m.name: {
                    "verified": g.verified,
                    "refused": g.refused,
                    "fooled": g.fooled,
                    "not_fooled": g.not_fooled,
                    "fool_rate": g.reward.fool_rate,
                    "bonus": g.reward.bonus,
                    "base": {modality.value: value for modality, value in g.reward.base.items()},
                    "reward": g.reward.reward,
                }
                for m, g in zip(GENERATORS, generators, strict=True)
            },
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
