"""``gascli generator perf``: how a generator does, and what it is paid."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.generator import EnvFile, settings_file

if TYPE_CHECKING:
    from gas.miners.history import Record
    from gas.miners.settings import GeneratorSettings

__all__ = ["perf"]


def perf(
    env_file: EnvFile = None,
    hours: Annotated[float, typer.Option(min=0.01, help="How far back; pay looks at 24 hours.")] = 24.0,
    arena: Annotated[
        str, typer.Option(help="Address of an arena: it knows how often your media fooled detectors.")
    ] = "",
    chain: Annotated[bool, typer.Option(help="Ask the chain for the pay of the last epoch.")] = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Pass rate, refusals by reason, fool rate, price multiplier and pay.

    The first come from this miner's own tasks and the validators' answers to them, the fool rate from an arena, the pay
    from the chain. What nobody tells is shown as unknown.
    """
    from gas.clock import SystemClock
    from gas.miners.history import read_records
    from gas.miners.settings import ENV_FILE, read_settings
    from gas.scoring.generators import default_prices

    settings = read_settings(settings_file(env_file) or Path(ENV_FILE))
    since = SystemClock().time() - hours * 3600.0
    prices = default_prices()
    records = read_records(settings.state_path, since=since, prices=prices)
    network = asyncio.run(_network(settings, arena, ask_chain=chain))
    if json_output:
        told = {name: {**asdict(record), "pass_rate": record.pass_rate} for name, record in records.items()}
        everybody = told.pop("", None)
        print(json.dumps({"hours": hours, "prices": prices.version, "all": everybody, "validators": told, **network}))
        return
    everyone = records.get("")
    if everyone is None or not everyone.taken:
        print(f"No task in the last {hours:g} hours.")
    else:
        print(_text(everyone, hours))
        if len(records) > 2:
            for name, record in records.items():
                if name:
                    print(f"  {name}  taken {record.taken}, pass rate {_share(record.pass_rate)}")
    print(_network_text(network))


async def _network(settings: GeneratorSettings, arena: str, *, ask_chain: bool) -> dict[str, Any]:
    """What others know of this generator; a part that can't be asked is its error's sentence."""
    from gas.chain.keys import load_hotkey
    from gas.errors import GasError

    signer = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey)
    told: dict[str, Any] = {"hotkey": signer.ss58_address, "fooled": None, "pay": None}
    try:
        told["fooled"] = await _fooled(arena, signer.ss58_address) if arena else None
    except GasError as error:
        told["fooled"] = {"error": error.as_dict()}
    try:
        told["pay"] = await _pay(settings, signer.ss58_address) if ask_chain else None
    except GasError as error:
        told["pay"] = {"error": error.as_dict()}
    return told


async def _fooled(arena: str, hotkey: str) -> dict[str, Any]:
    import httpx

    from gas.errors import ConfigurationError, InfrastructureError
    from gas.scoring.generators import fool_bonus, fool_rate

    try:
        async with httpx.AsyncClient(timeout=20, follow_redirects=False) as http:
            answer = await http.get(f"{arena.rstrip('/')}/api/v1/generators")
            rows = answer.raise_for_status().json()
    except httpx.InvalidURL:
        raise ConfigurationError("The arena's address is no URL.", code="bad_address") from None
    except (httpx.HTTPError, ValueError) as error:
        raise InfrastructureError(
            f"The arena can't be asked ({type(error).__name__}).", code="arena_unreachable"
        ) from None
    found = next((row for row in rows if isinstance(row, dict) and row.get("hotkey") == hotkey), {})
    fooled, judged = int(found.get("fooled", 0)), int(found.get("judged", 0))
    return {
        "fooled": fooled,
        "judged": judged,
        "rate": fool_rate(fooled, judged - fooled),
        "bonus": fool_bonus(fooled, judged - fooled),
    }


async def _pay(settings: GeneratorSettings, hotkey: str) -> dict[str, Any]:
    from gas.cli.endpoint import home_settings, open_chain
    from gas.clock import SystemClock

    home = home_settings(settings.gas_home, netuid=settings.bt_netuid, chain_endpoint=settings.bt_chain_endpoint)
    chain = await open_chain(home, None, SystemClock())
    try:
        graph = await chain.metagraph(settings.bt_netuid)
    finally:
        await chain.close()
    neuron = graph.by_hotkey(hotkey)
    if neuron is None:
        return {"registered": False}
    return {
        "registered": True,
        "uid": neuron.uid,
        "incentive": neuron.incentive,
        "emission_rao": neuron.emission,
        "block": graph.block,
    }


def _text(record: Record, hours: float) -> str:
    multipliers = {name: value for name, value in record.multipliers.items() if value is not None}
    lines = [
        f"last {hours:g} hours    {record.taken} tasks: {record.delivered} delivered, {record.open} open, "
        f"{record.failed} failed, {record.expired} too late",
        f"pass rate        {_share(record.pass_rate)} ({record.verified} verified, {record.refused} refused)",
        f"to delivery      {'–' if record.seconds is None else f'{record.seconds:.1f} s'} (median)",
        f"price multiplier {', '.join(f'{name} {value:.2f}' for name, value in multipliers.items()) or '–'}",
    ]
    lines += [f"  refused        {count} x {reason}" for reason, count in record.reasons.items()]
    lines += [f"  failed         {count} x {code}" for code, count in record.failures.items()]
    return "\n".join(lines)


def _network_text(network: dict[str, Any]) -> str:
    from gas.types import RAO_PER_TAO

    fooled, pay = network["fooled"], network["pay"]
    if fooled is None:
        fool = "unknown; name an arena with --arena"
    elif "error" in fooled:
        fool = f"unknown: {fooled['error']['message']}"
    else:
        fool = f"{_share(fooled['rate'])} ({fooled['fooled']} of {fooled['judged']}), bonus {fooled['bonus']:.2f}"
    if pay is None:
        paid = "not asked"
    elif "error" in pay:
        paid = f"unknown: {pay['error']['message']}"
    elif not pay["registered"]:
        paid = "none: the hotkey is not registered"
    else:
        paid = (
            f"{pay['emission_rao'] / RAO_PER_TAO:.6f} TAO in the last epoch (uid {pay['uid']}, "
            f"incentive {pay['incentive']:.1%}, block {pay['block']})"
        )
    return f"fool rate        {fool}\npay              {paid}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
