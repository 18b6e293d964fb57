"""``gascli validator``: what a home's validator knows of its generators, and the weights that follow."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.endpoint import ChainEndpoint

if TYPE_CHECKING:
    from gas.chain.base import Chain, Metagraph
    from gas.clock import Clock
    from gas.config import HomeSettings
    from gas.scoring.weights import EmissionProfile
    from gas.storage.database import Database
    from gas.validator.scores import WeightsPlan

__all__ = ["media", "weights"]

Home = Annotated[Path, typer.Option(envvar="GAS_HOME", help="The home.")]
Wallet = Annotated[str, typer.Option(help="The validator's wallet.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def media(home: Home = Path(".gas"), wallet_name: Wallet = "validator", json_output: Json = False) -> None:
    """How each generator's challenges ended, and why media were refused."""
    from gas.clock import SystemClock
    from gas.storage.tables import ChallengeRow
    from gas.validator.tasks import Challenges

    database, validator = _open(home, wallet_name)
    try:
        challenges = Challenges(database, validator, SystemClock())
        with database.read() as session:
            miners = sorted({m for (m,) in session.query(ChallengeRow.miner).filter_by(validator=validator)})
        rows = []
        for miner in miners:
            counts = challenges.counts(miner)
            rows.append({"miner": miner, **asdict(counts), "pass_rate": counts.pass_rate})
    finally:
        database.close()
    if json_output:
        print(json.dumps({"generators": rows}))
        return
    for row in rows:
        states = ", ".join(f"{count} {state}" for state, count in sorted(row["states"].items()))
        reasons = ", ".join(f"{count} x {code}" for code, count in sorted(row["reasons"].items()))
        print(f"{row['miner']}  pass rate {row['pass_rate']:.1%}  {states}" + (f"  ({reasons})" if reasons else ""))
    if not rows:
        print("No generator has been challenged yet.")


def weights(
    home: Home = Path(".gas"),
    wallet_name: Wallet = "validator",
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 1,
    chain_endpoint: ChainEndpoint = None,
    profile: Annotated[str, typer.Option(help="Emission profile: gas, live, serving or full.")] = "gas",
    set_them: Annotated[bool, typer.Option("--set", help="Set them on the chain.")] = False,
    version_key: Annotated[int, typer.Option(min=0, help="Version key of --set; the subnet may ask for one.")] = 0,
    json_output: Json = False,
) -> None:
    """What the weights would be now, and why; with --set they are set on the chain.

    Where the subnet asks for commit and reveal, --set commits, keeps the receipt in the home, and first reveals what
    earlier runs committed, as far as it is due.
    """
    plan = _plan(home, wallet_name, wallet_hotkey, netuid, chain_endpoint, profile, version_key if set_them else None)
    if json_output:
        print(json.dumps(plan))
        return
    for uid, sentences in sorted(plan["reasons"].items(), key=lambda item: int(item[0])):
        print(f"uid {uid:>3}  {plan['weights'].get(uid, 0.0):7.2%}  {' '.join(sentences)}")
    if set_them:
        from gas.cli.chain_receipts import sentence_of

        print(sentence_of(plan["receipt"]))


def _open(home: Path, wallet: str, hotkey: str = "default") -> tuple[Database, str]:
    from gas.chain.keys import load_hotkey
    from gas.config import HomeSettings
    from gas.errors import ConfigurationError
    from gas.storage.database import open_database

    settings = HomeSettings(home=home)
    known = (settings.ledger_path, settings.home / "gas.db")
    if not settings.database_url and not any(path.exists() for path in known):
        raise ConfigurationError(f"{home} is no home of a validator.", hint="gascli demo makes one; or name --home.")
    validator = load_hotkey(settings.wallets_path, wallet, hotkey).ss58_address
    return open_database(settings.resolved_database_url), validator


def _plan(
    home: Path,
    wallet: str,
    hotkey: str,
    netuid: int,
    endpoint: str | None,
    profile_name: str,
    set_with: int | None,
) -> dict[str, Any]:
    import asyncio

    from gas.chain.keys import load_hotkey
    from gas.cli.endpoint import home_settings, open_chain
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError
    from gas.scoring.weights import EMISSION_PROFILES

    profile = EMISSION_PROFILES.get(profile_name)
    if profile is None:
        raise ConfigurationError(
            f"There is no emission profile {profile_name!r}.", hint=f"Known: {', '.join(EMISSION_PROFILES)}."
        )
    settings, clock = home_settings(home, netuid=netuid, chain_endpoint=endpoint), SystemClock()
    database, validator = _open(home, wallet, hotkey)

    async def work(chain: Chain) -> dict[str, Any]:
        if set_with is not None:
            await _reveal(chain, settings, validator, clock)
        plan = _weigh(database, validator, await chain.metagraph(netuid), profile, clock.time())
        found: dict[str, Any] = {
            "profile": profile.name,
            "weights": {str(uid): weight for uid, weight in plan.weights.items()},
            "reasons": {str(uid): sentences for uid, sentences in plan.reasons.items()},
        }
        if set_with is not None:
            from gas.cli.chain_receipts import publish
            from gas.validator.scores import weights_to_u16

            receipt = await publish(chain, settings, validator, *weights_to_u16(plan.weights), set_with, clock)
            found["receipt"] = asdict(receipt)
        return found

    async def main() -> dict[str, Any]:
        chain = await open_chain(settings, load_hotkey(settings.wallets_path, wallet, hotkey), clock)
        try:
            return await work(chain)
        finally:
            await chain.close()

    try:
        return asyncio.run(main())
    finally:
        database.close()


async def _reveal(chain: Chain, settings: HomeSettings, validator: str, clock: Clock) -> None:
    from gas.cli.chain_receipts import reveal_kept

    for done in await reveal_kept(chain, settings, validator, clock):
        # Not among the results: the weights after it may still be refused, and this has happened.
        print(done.sentence(), file=sys.stderr)


def _weigh(database: Database, validator: str, graph: Metagraph, profile: EmissionProfile, now: float) -> WeightsPlan:
    from sqlalchemy import select

    from gas.arena.rounds import standings
    from gas.scoring.generators import default_prices
    from gas.storage.tables import RoundRow
    from gas.types import Modality
    from gas.validator.scores import DetectorStanding, generator_standings, plan_weights

    uids: dict[str, int] = {neuron.hotkey: neuron.uid for neuron in graph.neurons}
    detectors: list[DetectorStanding] = []
    with database.read() as session:
        for modality in Modality:
            newest = session.scalar(
                select(RoundRow.id)
                .where(RoundRow.modality == modality.value, RoundRow.state == "closed")
                .order_by(RoundRow.closed_at.desc())
                .limit(1)
            )
            if newest is None:
                continue
            detectors += [
                DetectorStanding(uids[s.hotkey], s.name, modality, s.score, s.committed_block)
                for s in standings(session, newest)
                if s.duplicate_of is None and s.hotkey in uids
            ]
    generators = generator_standings(
        database, validator, list(uids), now=now, shares={Modality.IMAGE: 1.0}, prices=default_prices()
    )
    rewards = {uids[g.hotkey]: g.reward.reward for g in generators if g.verified or g.refused}
    return plan_weights(detectors, rewards, profile, graph.owner_uid)
