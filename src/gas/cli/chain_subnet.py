"""``gascli chain axon`` and ``gascli chain rules``: where a hotkey listens, and what a subnet asks for."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from gas.chain.base import Chain, Hyperparameters
from gas.chain.keys import load_hotkey
from gas.chain.local.calls import JsonValue
from gas.chain.local.interface import LedgerChain
from gas.cli.chain_run import Home, HotkeyName, Json, Netuid, WalletName, print_result, run
from gas.cli.coldkeys import PasswordEnv, PasswordFile
from gas.cli.endpoint import ChainEndpoint, home_settings, parse_axon
from gas.errors import ConfigurationError

__all__ = ["axon", "rules"]


def axon(
    address: Annotated[str, typer.Argument(help="IP:PORT that others reach, e.g. 203.0.113.7:8091.")],
    wallet: WalletName,
    hotkey: HotkeyName = "default",
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Publish where a hotkey listens; nothing is sent when the chain says so already."""
    settings, there = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint), parse_axon(address)
    whose = load_hotkey(settings.wallets_path, wallet, hotkey).ss58_address

    async def work(chain: Chain) -> bool:
        neuron = (await chain.metagraph(settings.netuid)).by_hotkey(whose)
        if neuron is not None and neuron.axon == there:
            return False
        await chain.serve_axon(settings.netuid, there)
        return True

    sent = run(settings, work, wallet, hotkey)
    text = f"The hotkey {'listens' if sent else 'listened already'} at {there.ip}:{there.port}."
    print_result({"axon": asdict(there), "sent": sent}, text, json_output)


def rules(
    changes: Annotated[list[str] | None, typer.Argument(help="NAME=VALUE ... to change; none to show.")] = None,
    wallet: Annotated[
        str | None, typer.Option("--wallet-name", "--wallet", help="The owner's wallet; its coldkey signs.")
    ] = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Show the rules of a subnet, or change them as its owner; on a live network they are only shown."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    wanted = dict(_change(text) for text in changes or ())
    if wanted and wallet is None:
        raise ConfigurationError("Changing rules takes --wallet-name.", hint="Name the wallet of the subnet's owner.")

    async def work(chain: Chain) -> Hyperparameters:
        if wanted:
            if not isinstance(chain, LedgerChain):
                raise ConfigurationError("A live network's rules are not changed here.", hint="Use btcli.")
            await chain.set_hyperparameters(settings.netuid, wanted)
        return await chain.hyperparameters(settings.netuid)

    found = asdict(run(settings, work, wallet if wanted else None, password=(password_env, password_file)))
    print_result({"rules": found}, "\n".join(f"{name}={json.dumps(v)}" for name, v in found.items()), json_output)


def _change(text: str) -> tuple[str, JsonValue]:
    name, _, value = text.partition("=")
    try:
        found: JsonValue = {"true": True, "false": False}[value] if value in ("true", "false") else int(value)
    except ValueError:
        raise ConfigurationError(
            f"{text[:60]!r} is no NAME=VALUE.", hint="Values are numbers, true or false."
        ) from None
    return name, found
