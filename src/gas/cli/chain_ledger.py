"""``gascli chain found | start | faucet | advance | pause | resume``: what an owner does with a ledger of their own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from gas.chain.connect import LOCAL
from gas.chain.keys import is_address, load_hotkey, view_wallet
from gas.chain.local.founding import create_ledger, create_subnet
from gas.chain.local.interface import LedgerChain
from gas.chain.local.ledger import Ledger
from gas.cli.chain_run import Home, Json, print_result
from gas.cli.coldkeys import PasswordEnv, PasswordFile, open_coldkey
from gas.cli.endpoint import ChainEndpoint, home_settings, open_chain
from gas.clock import SystemClock
from gas.config import HomeSettings
from gas.errors import ConfigurationError
from gas.types import RAO_PER_TAO

__all__ = ["advance", "faucet", "found", "pause", "rao", "resume", "start", "tao"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_Netuid = Annotated[int | None, typer.Option(help="The first subnet; GAS_NETUID or 1 by default.")]
_Manual = Annotated[bool, typer.Option(help="Blocks pass only by `gascli chain advance`.")]
_Root = Annotated[str | None, typer.Option(help="Wallet whose coldkey is the ledger's root; needed over the wire.")]


def found(
    root: Annotated[str, typer.Option(help="Wallet that may mint and found subnets, and owns the first.")],
    block_seconds: Annotated[float, typer.Option(help="Seconds a block.")] = 12.0,
    manual: _Manual = False,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    netuid: _Netuid = None,
    json_output: Json = False,
) -> None:
    """Make this home's ledger with one subnet. It needs no process of its own: whoever uses it moves it on."""
    settings = home_settings(home, netuid=netuid)
    made = _found(settings, root, block_seconds, manual, password_env, password_file)
    print_result(made, f"A ledger with subnet {settings.netuid}, which {made['owner_hotkey']} owns.", json_output)


def start(
    root: Annotated[str | None, typer.Option(help="Wallet that founds the ledger where there is none yet.")] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on; port 0 takes a free one.")] = "127.0.0.1:9944",
    block_seconds: Annotated[float | None, typer.Option(help="Seconds a block of a new ledger; 12 by default.")] = None,
    manual: _Manual = False,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    netuid: _Netuid = None,
    json_output: Json = False,
) -> None:
    """Serve this home's ledger to other processes and machines, until Ctrl-C or SIGTERM.

    Prints one line when it serves. Founds the ledger first where there is none and --root names a wallet.
    """
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent

    die_with_parent()
    configure_logs()
    settings = home_settings(home, netuid=netuid)
    host, port = _address(listen)
    if not _is_founded(settings):
        if root is None:
            raise ConfigurationError(
                "There is no local ledger here.", code="ledger_missing", hint="Name the wallet that founds it: --root."
            )
        _found(settings, root, block_seconds or 12.0, manual, password_env, password_file)
    elif block_seconds is not None or manual:
        raise ConfigurationError(
            "The ledger is there already, and keeps its block time.",
            code="ledger_exists",
            hint="Leave --block-seconds and --manual out; gascli chain pause stops the blocks.",
        )
    asyncio.run(_serve(settings, host, port, json_output))


async def _serve(settings: HomeSettings, host: str, port: int, json_output: bool) -> None:
    from gas.chain.served.server import LedgerServer

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with LedgerServer(settings.ledger_path, SystemClock(), host=host, port=port) as server:
        block = await asyncio.to_thread(server.desk.block)
        if host not in _LOOPBACK:
            print("Other machines may reach this port; the wire is not encrypted. See docs/chain.md.", file=sys.stderr)
        if json_output:
            print(json.dumps({"event": "serving", "endpoint": server.address, "block": block}), flush=True)
        else:
            print(f"Serving the ledger of {settings.home} at {server.address}, block {block}.", flush=True)
        await stopping.wait()


def faucet(
    amount: Annotated[str, typer.Argument(help="Tao.")],
    to: Annotated[str, typer.Option(help="Wallet in this home, or SS58 address, that gets it.")],
    root: Annotated[str, typer.Option(help="Wallet whose coldkey is the ledger's root.")],
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Mint money; the ledger's root only."""
    settings, amount_rao = home_settings(home, chain_endpoint=chain_endpoint), rao(amount)
    address = to if is_address(to) else view_wallet(settings.wallets_path, to).coldkey
    if address is None:
        raise ConfigurationError(f"Wallet {to} has no coldkey here.")

    async def work(chain: LedgerChain) -> int:
        await chain.faucet(address, amount_rao)
        return await chain.balance_of(address)

    balance = _as_root(settings, root, password_env, password_file, work)
    print_result({"balance": balance}, f"{address} has {tao(balance)} tao.", json_output)


def advance(
    blocks: Annotated[int, typer.Argument(min=0, help="How many blocks.")],
    root: _Root = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Let blocks pass on a manual or paused ledger, with the epochs that fall due."""
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    if root is None:
        block = _by_hand(settings, lambda ledger: ledger.advance(blocks))
    else:
        block = _as_root(settings, root, password_env, password_file, lambda chain: chain.advance(blocks))
    print_result({"block": block}, f"Block {block}.", json_output)


def pause(
    root: _Root = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Stop the clock of the blocks: from now on they pass only by `gascli chain advance`."""
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    block = _set_paused(settings, root, password_env, password_file, paused=True)
    print_result({"block": block, "paused": True}, f"The chain stands still at block {block}.", json_output)


def resume(
    root: _Root = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Let blocks follow the clock, from where the chain stands."""
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    block = _set_paused(settings, root, password_env, password_file, paused=False)
    print_result({"block": block, "paused": False}, f"The chain goes on from block {block}.", json_output)


def _set_paused(
    settings: HomeSettings, root: str | None, password_env: str | None, password_file: Path | None, *, paused: bool
) -> int:
    """Stop the clock or let it go, by hand on the home's own file or as the root; returns the block."""

    async def work(chain: LedgerChain) -> int:
        await (chain.pause if paused else chain.resume)()
        return await chain.block()

    if root is None:
        return _by_hand(settings, lambda ledger: ledger.pause() if paused else ledger.resume())
    return _as_root(settings, root, password_env, password_file, work)


def tao(amount: int) -> str:
    """Rao as tao for people, with four decimals."""
    return f"{amount / RAO_PER_TAO:,.4f}"


def rao(text: str) -> int:
    """Tao as people write them, in rao.

    Raises:
        ConfigurationError: It is no positive amount with at most nine decimals.
    """
    try:
        amount = Decimal(text) * RAO_PER_TAO
        whole = int(amount)
    except (InvalidOperation, OverflowError, ValueError):
        raise ConfigurationError(f"{text[:40]!r} is no amount of tao.") from None
    if amount != whole or whole <= 0:
        raise ConfigurationError("An amount is positive and has at most nine decimals.")
    return whole


def _found(
    settings: HomeSettings, root: str, block_seconds: float, manual: bool, env: str | None, file: Path | None
) -> dict[str, object]:
    if _is_founded(settings):
        raise ConfigurationError("There is a ledger already.", code="ledger_exists")
    hotkey = load_hotkey(settings.wallets_path, root)
    key = open_coldkey(settings.wallets_path, root, env, file)
    clock = SystemClock()
    try:
        ledger = create_ledger(
            settings.ledger_path, root=key.ss58_address, clock=clock, block_seconds=block_seconds, manual=manual
        )
    except ConfigurationError as error:
        if error.error_code != "ledger_exists":
            raise
        # A founding that was interrupted is finished.
        ledger = Ledger(settings.ledger_path, clock)
    with ledger:
        create_subnet(ledger, key, settings.netuid, owner=key.ss58_address, owner_hotkey=hotkey.ss58_address)
        return {
            "chain_id": ledger.chain_id,
            "root": key.ss58_address,
            "netuid": settings.netuid,
            "owner_hotkey": hotkey.ss58_address,
        }


def _is_founded(settings: HomeSettings) -> bool:
    """Whether the home has a ledger with a subnet; one without is what an interrupted founding leaves."""
    try:
        with Ledger(settings.ledger_path, SystemClock()) as ledger, ledger.read() as tx:
            return tx.sql.execute("SELECT 1 FROM subnets").fetchone() is not None
    except ConfigurationError as error:
        if error.error_code != "ledger_missing":
            raise
        return False


def _by_hand(settings: HomeSettings, work: Callable[[Ledger], int]) -> int:
    """Move the home's own ledger: whoever may write the file may do so without a key."""
    if settings.chain_endpoint != LOCAL:
        raise ConfigurationError("Over the wire this takes the root's signature.", hint="Name its wallet with --root.")
    with Ledger(settings.ledger_path, SystemClock()) as ledger:
        return work(ledger)


def _as_root(
    settings: HomeSettings,
    root: str,
    env: str | None,
    file: Path | None,
    work: Callable[[LedgerChain], Awaitable[int]],
) -> int:
    key = open_coldkey(settings.wallets_path, root, env, file)

    async def main() -> int:
        chain = await open_chain(settings, None, SystemClock(), coldkey=key)
        try:
            if not isinstance(chain, LedgerChain):
                raise ConfigurationError("A live network has no root of yours.")
            return await work(chain)
        finally:
            await chain.close()

    return asyncio.run(main())


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError("--listen takes HOST:PORT, e.g. 127.0.0.1:9944.")
    return host.removeprefix("[").removesuffix("]"), int(port)
