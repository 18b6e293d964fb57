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
    from gas.chain.base import Chain
    from gas.storage.database import Database
    from gas.validator.epochs import EpochRunner
    from gas.validator.factors import Reckoning
    from gas.validator.miner_stats import MinerStats

__all__ = ["media", "miner_stats", "weights"]

Home = Annotated[Path, typer.Option(envvar="GAS_HOME", help="The home.")]
Wallet = Annotated[str, typer.Option(help="The validator's wallet.")]
Hotkey = Annotated[str, typer.Option(help="Name of the hotkey.")]
Netuid = Annotated[int, typer.Option(help="The subnet.")]
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
    wallet_hotkey: Hotkey = "default",
    netuid: Netuid = 1,
    chain_endpoint: ChainEndpoint = None,
    profile: Annotated[str, typer.Option(help="Emission profile: gas, live, serving or full.")] = "gas",
    competitions: Annotated[
        Path | None,
        typer.Option(
            help="The arena's competitions (YAML), where verticals share a modality's pay; the home's by default."
        ),
    ] = None,
    explain_uid: Annotated[
        int | None, typer.Option("--explain", min=0, max=65535, help="Take the weight of this uid apart.")
    ] = None,
    logged: Annotated[
        bool, typer.Option("--logged", help="As of the last epoch, as it was logged, instead of now.")
    ] = False,
    set_them: Annotated[bool, typer.Option("--set", help="Set them on the chain.")] = False,
    version_key: Annotated[int, typer.Option(min=0, help="Version key of --set; the subnet may ask for one.")] = 0,
    json_output: Json = False,
) -> None:
    """What the weights would be now, and why; with --set they are set on the chain.

    Where the subnet asks for commit and reveal, --set commits, keeps the receipt in the home, and first reveals what
    earlier runs committed, as far as it is due. --set counts as an epoch: scores enter the history once in each.
    --explain shows every factor of one miner's weight.
    """
    from gas.validator.explain import explain, lines_of, sentences

    if set_them and logged:
        raise typer.BadParameter("--set sets what holds now; leave --logged out.")
    reckoning, receipt = _weighed(
        home, wallet_name, wallet_hotkey, netuid, chain_endpoint, profile, competitions, logged,
        version_key if set_them else None,
    )  # fmt: skip
    explained = None if explain_uid is None else explain(reckoning, explain_uid)
    why = sentences(reckoning)
    if json_output:
        plan = {
            "profile": reckoning.profile,
            "epoch": reckoning.epoch,
            "weights": {str(uid): weight for uid, weight in reckoning.weights.items()},
            "reasons": {str(uid): lines for uid, lines in why.items()},
        }
        plan |= {"receipt": receipt} if receipt is not None else {}
        print(json.dumps(plan | ({"explained": explained} if explained is not None else {})))
        return
    if explained is not None:
        for line in lines_of(explained):
            print(line)
    else:
        for uid, lines in why.items():
            print(f"uid {uid:>3}  {reckoning.weights.get(uid, 0.0):7.2%}  {' '.join(lines)}")
    if receipt is not None:
        from gas.chain.receipts import sentence_of

        print(sentence_of(receipt))


def miner_stats(
    home: Home = Path(".gas"),
    wallet_name: Wallet = "validator",
    wallet_hotkey: Hotkey = "default",
    uid: Annotated[int | None, typer.Option(min=0, max=65535, help="Only the miner in this slot.")] = None,
    hotkey: Annotated[str | None, typer.Option(help="Only this miner.")] = None,
    hours: Annotated[float, typer.Option(min=0.0, help="Challenges of the last so many hours; 0 for all.")] = 24.0,
    netuid: Netuid = 1,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Challenges by state, refusals by code, latency, pass rate, fool rate and tiers of each miner.

    The pass rate is that of the span of --hours; the fool rate that of the last 7 days, as it is paid.
    """
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError
    from gas.validator.miner_stats import miner_stats as stats_of

    database, validator = _open(home, wallet_name, wallet_hotkey)
    try:
        known = stats_of(database, validator, now=SystemClock().time(), hours=hours or None, hotkey=hotkey)
    finally:
        database.close()
    if uid is not None:
        wanted = next((one.hotkey for one in known if one.uid == uid), None)
        if wanted is None:
            wanted = _hotkey_of(home, netuid, chain_endpoint, uid)
        known = [one for one in known if one.hotkey == wanted]
    if (uid is not None or hotkey is not None) and not known:
        span = f"in the last {hours:g} hours" if hours else "ever"
        who = f"uid {uid}" if hotkey is None else hotkey
        raise ConfigurationError(
            f"{who} was not challenged {span}.", code="unknown_miner", hint="--hours 0 looks at all times."
        )
    if json_output:
        print(json.dumps({"hours": hours or None, "miners": [one.as_dict() for one in known]}))
        return
    for one in known:
        for line in _stats_lines(one):
            print(line)
    if not known:
        print(f"No miner has been challenged{f' in the last {hours:g} hours' if hours else ' yet'}.")


def _stats_lines(one: MinerStats) -> list[str]:
    states = ", ".join(f"{count} {state}" for state, count in one.states.items())
    passed = "-" if one.pass_rate is None else f"{one.pass_rate:.1%}"
    fooled = "-" if one.fool_rate is None else f"{one.fool_rate:.1%} of {one.judged} judgements"
    lines = [
        f"{'uid ' + str(one.uid) if one.uid is not None else ''}  {one.hotkey}".strip(),
        f"  challenges  {states}",
        f"  pass rate   {passed}",
        f"  fool rate   {fooled} (7 days)",
    ]
    if one.latency is not None:
        lines.append(
            f"  latency     p50 {one.latency.p50:.1f} s, p90 {one.latency.p90:.1f} s, most {one.latency.most:.1f} s"
        )
    if one.reasons:
        lines.append("  refusals    " + ", ".join(f"{count} x {code}" for code, count in one.reasons.items()))
    for modality, both in one.tiers.items():
        asked, came = (", ".join(f"{n} x {tier}" for tier, n in sorted(both[kind].items())) for kind in both)
        lines.append(f"  {modality:11} asked for {asked}; came {came}")
    return lines


def _hotkey_of(home: Path, netuid: int, endpoint: str | None, uid: int) -> str | None:
    """Who holds a slot now, by the chain."""
    import asyncio

    from gas.cli.endpoint import home_settings, open_chain
    from gas.clock import SystemClock

    async def work() -> str | None:
        chain = await open_chain(home_settings(home, netuid=netuid, chain_endpoint=endpoint), None, SystemClock())
        try:
            graph = await chain.metagraph(netuid)
        finally:
            await chain.close()
        return next((neuron.hotkey for neuron in graph.neurons if neuron.uid == uid), None)

    return asyncio.run(work())


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


def _weighed(
    home: Path,
    wallet: str,
    hotkey: str,
    netuid: int,
    endpoint: str | None,
    profile_name: str,
    competitions: Path | None,
    logged: bool,
    set_with: int | None,
) -> tuple[Reckoning, dict[str, Any] | None]:
    import asyncio

    from gas.arena.competitions import competitions_of, default_competitions
    from gas.chain.keys import load_hotkey
    from gas.cli.endpoint import home_settings, open_chain
    from gas.clock import SystemClock
    from gas.errors import ConfigurationError
    from gas.scoring.weights import EMISSION_PROFILES
    from gas.validator.epochs import EpochRunner, last_reckoning
    from gas.validator.reckoning import PayRules

    profile = EMISSION_PROFILES.get(profile_name)
    if profile is None:
        raise ConfigurationError(
            f"There is no emission profile {profile_name!r}.", hint=f"Known: {', '.join(EMISSION_PROFILES)}."
        )
    rules = PayRules(competitions=competitions_of(home, competitions) or default_competitions())
    settings, clock = home_settings(home, netuid=netuid, chain_endpoint=endpoint), SystemClock()
    database, validator = _open(home, wallet, hotkey)

    async def main() -> tuple[Reckoning, dict[str, Any] | None]:
        chain = await open_chain(settings, load_hotkey(settings.wallets_path, wallet, hotkey), clock)
        runner = EpochRunner(
            database, chain, validator, profile, clock, netuid=netuid, home=settings.home,
            endpoint=settings.chain_endpoint, rules=rules, version_key=set_with or 0,
        )  # fmt: skip
        try:
            return await _now(runner, chain, set_with is not None)
        finally:
            await chain.close()

    try:
        if not logged:
            return asyncio.run(main())
        found = last_reckoning(database, netuid)
        if found is None:
            raise ConfigurationError("No epoch has been logged yet.", code="no_epoch", hint="Leave --logged out.")
        return found, None
    finally:
        database.close()


async def _now(runner: EpochRunner, chain: Chain, set_them: bool) -> tuple[Reckoning, dict[str, Any] | None]:
    if not set_them:
        return await runner.preview(await chain.block()), None
    for done in await runner.reveal():
        # Not among the results: the weights after it may still be refused, and this has happened.
        print(done.sentence(), file=sys.stderr)
    reckoning, receipt = await runner.set_now(await chain.block())
    return reckoning, asdict(receipt)
