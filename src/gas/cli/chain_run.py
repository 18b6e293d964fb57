"""What ``gascli chain``'s commands share: their options, and the work on a chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gas.chain.base import Chain
from gas.chain.keys import load_hotkey
from gas.cli.coldkeys import open_coldkey
from gas.cli.endpoint import open_chain
from gas.clock import SystemClock
from gas.config import HomeSettings

__all__ = ["Home", "HotkeyName", "Json", "Netuid", "WalletName", "print_result", "run"]

T = TypeVar("T")

Home = Annotated[Path | None, typer.Option(help="Home with ledger and wallets; GAS_HOME or ./.gas by default.")]
Netuid = Annotated[int | None, typer.Option(help="The subnet; GAS_NETUID or 1 by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
WalletName = Annotated[str, typer.Option("--wallet-name", "--wallet", help="Wallet whose keys sign.")]
HotkeyName = Annotated[str, typer.Option("--wallet-hotkey", "--hotkey", help="Name of the hotkey.")]


def run(
    settings: HomeSettings,
    work: Callable[[Chain], Awaitable[T]],
    wallet: str | None = None,
    hotkey: str = "default",
    *,
    password: tuple[str | None, Path | None] | None = None,
) -> T:
    """Work on the chain that the settings name.

    Args:
        settings: The home, the subnet and the endpoint.
        work: What to do.
        wallet: Whose hotkey signs; None to look only.
        hotkey: Its name.
        password: Where the password of the wallet's coldkey comes from; None when the coldkey is not needed.
    """
    signer = None if wallet is None else load_hotkey(settings.wallets_path, wallet, hotkey)
    coldkey = None if wallet is None or password is None else open_coldkey(settings.wallets_path, wallet, *password)

    async def main() -> T:
        chain = await open_chain(settings, signer, SystemClock(), coldkey=coldkey)
        try:
            return await work(chain)
        finally:
            await chain.close()

    return asyncio.run(main())


def print_result(data: dict[str, object], text: str, json_output: bool) -> None:
    """Print what a command found: for programs, or for people."""
    typer.echo(json.dumps(data) if json_output else text)
