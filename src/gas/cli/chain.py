"""``gascli chain``: the home's ledger, seen and used from the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from gas.chain.keys import is_address, load_coldkey, load_hotkey, view_wallet
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, faucet
from gas.chain.local.ledger import Ledger
from gas.chain.local.views import commitment, emissions, metagraph, price, stored_weights
from gas.chain.weights import U16_MAX
from gas.cli.chain_epoch import epoch
from gas.clock import SystemClock
from gas.config import HomeSettings
from gas.errors import ConfigurationError
from gas.types import RAO_PER_TAO

__all__ = ["app"]

T = TypeVar("T")

app = typer.Typer(help="The chain of this home.", no_args_is_help=True, add_completion=False)
app.command("epoch")(epoch)

_Home = Annotated[Path | None, typer.Option(help="Home with ledger and wallets; GAS_HOME or ./.gas by default.")]
_Netuid = Annotated[int | None, typer.Option(help="The subnet; GAS_NETUID or 1 by default.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Wallet = Annotated[str, typer.Option("--wallet-name", "--wallet", help="Wallet whose keys sign.")]
_Hotkey = Annotated[str, typer.Option("--wallet-hotkey", "--hotkey", help="Name of the hotkey.")]


@app.command()
def start(
    root: Annotated[str, typer.Option(help="Wallet that may mint and found subnets, and owns the first.")],
    block_seconds: Annotated[float, typer.Option(help="Seconds a block.")] = 12.0,
    manual: Annotated[bool, typer.Option(help="Blocks pass only by `gascli chain advance`.")] = False,
    home: _Home = None,
    netuid: _Netuid = None,
    json_output: _Json = False,
) -> None:
    """Make this home's ledger with one subnet. It needs no process of its own: whoever uses it moves it on."""
    settings, clock = _settings(home, netuid), SystemClock()
    key, hotkey = load_coldkey(settings.wallets_path, root), load_hotkey(settings.wallets_path, root)
    with create_ledger(
        settings.ledger_path, root=key.ss58_address, clock=clock, block_seconds=block_seconds, manual=manual
    ) as ledger:
        create_subnet(ledger, key, settings.netuid, owner=key.ss58_address, owner_hotkey=hotkey.ss58_address)
        _print(
            {"chain_id": ledger.chain_id, "root": key.ss58_address, "netuid": settings.netuid},
            f"A ledger with subnet {settings.netuid}, which {hotkey.ss58_address} owns.",
            json_output,
        )


@app.command("faucet")
def faucet_command(
    amount: Annotated[str, typer.Argument(help="Tao.")],
    to: Annotated[str, typer.Option(help="Wallet in this home, or SS58 address, that gets it.")],
    root: Annotated[str, typer.Option(help="Wallet whose coldkey is the ledger's root.")],
    home: _Home = None,
    json_output: _Json = False,
) -> None:
    """Mint money; the ledger's root only."""
    settings, rao = _settings(home, None), _rao(amount)
    address = to if is_address(to) else view_wallet(settings.wallets_path, to).coldkey
    if address is None:
        raise ConfigurationError(f"Wallet {to} has no coldkey here.")
    with _ledger(settings) as ledger:
        balance = faucet(ledger, load_coldkey(settings.wallets_path, root), address, rao)
    _print({"balance": balance}, f"{address} has {_tao(balance)} tao.", json_output)


@app.command()
def advance(
    blocks: Annotated[int, typer.Argument(min=0, help="How many blocks.")],
    home: _Home = None,
    json_output: _Json = False,
) -> None:
    """Let blocks pass on a manual ledger, with the epochs that fall due."""
    with _ledger(_settings(home, None)) as ledger:
        block = ledger.advance(blocks)
    _print({"block": block}, f"Block {block}.", json_output)


@app.command()
def status(home: _Home = None, netuid: _Netuid = None, json_output: _Json = False) -> None:
    """Blocks, money, and every neuron of the subnet with its stake and its pay."""
    settings = _settings(home, netuid)
    with _ledger(settings) as ledger:
        ledger.block()
        with ledger.read() as tx:
            totals, graph, slot = tx.totals(), metagraph(tx, settings.netuid), price(tx, settings.netuid)
            subnet, pay = tx.subnet(settings.netuid), emissions(tx, settings.netuid, 0)
    if json_output:
        typer.echo(
            json.dumps(
                {
                    "block": graph.block,
                    "epochs": subnet.epochs,
                    "next_epoch": subnet.last_epoch + subnet.hyperparameters.tempo,
                    "registration_price": slot,
                    "totals": asdict(totals),
                    "neurons": [asdict(neuron) for neuron in graph.neurons],
                    "emission": {hotkey: paid.total for hotkey, paid in pay.items()},
                }
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"Subnet {settings.netuid} at block {graph.block}, after {subnet.epochs} epochs "
        f"(a slot costs {_tao(slot)} tao)"
    )
    for name in ("uid", "hotkey", "stake", "permit", "incentive", "dividends", "last pay", "all pay", "axon"):
        table.add_column(name, justify="left" if name in ("hotkey", "axon") else "right")
    for n in graph.neurons:
        paid = pay.get(n.hotkey)
        table.add_row(
            str(n.uid),
            f"{n.hotkey[:8]}…",
            _tao(n.stake),
            "yes" if n.permit else "",
            f"{n.incentive:.4f}",
            f"{n.dividends:.4f}",
            _tao(n.emission),
            _tao(paid.total if paid else 0),
            f"{n.axon.ip}:{n.axon.port}" if n.axon else "",
        )
    Console().print(table)
    typer.echo(
        f"Issued {_tao(totals.issued)} tao = {_tao(totals.balances)} on accounts + {_tao(totals.staked)} staked "
        f"+ {_tao(totals.burned)} burned."
    )


@app.command()
def register(
    wallet: _Wallet, hotkey: _Hotkey = "default", home: _Home = None, netuid: _Netuid = None, json_output: _Json = False
) -> None:
    """Burn the price for a slot of the wallet's hotkey."""
    settings = _settings(home, netuid)
    uid = _run(settings, wallet, hotkey, lambda chain: chain.register(settings.netuid), coldkey=True)
    _print({"uid": uid}, f"Registered as uid {uid}.", json_output)


@app.command()
def stake(
    amount: Annotated[str, typer.Argument(help="Tao, e.g. 12.5.")],
    wallet: _Wallet,
    remove: Annotated[bool, typer.Option("--remove", help="Take stake back.")] = False,
    hotkey: _Hotkey = "default",
    home: _Home = None,
    netuid: _Netuid = None,
    json_output: _Json = False,
) -> None:
    """Stake the coldkey's money to the wallet's hotkey, or take it back."""
    settings, rao = _settings(home, netuid), _rao(amount)

    async def work(chain: LocalChain) -> int:
        await (chain.remove_stake if remove else chain.add_stake)(settings.netuid, rao)
        neuron = (await chain.metagraph(settings.netuid)).by_hotkey(chain.signer.ss58_address)
        return neuron.stake if neuron else 0

    staked = _run(settings, wallet, hotkey, work, coldkey=True)
    _print({"stake": staked}, f"The hotkey has {_tao(staked)} tao of stake.", json_output)


@app.command()
def weights(
    entries: Annotated[list[str] | None, typer.Argument(help="UID=WEIGHT ... to set; none to show.")] = None,
    wallet: Annotated[str | None, typer.Option("--wallet-name", "--wallet", help="Wallet whose hotkey sets.")] = None,
    hotkey: _Hotkey = "default",
    version_key: Annotated[int, typer.Option(help="Version key.")] = 0,
    home: _Home = None,
    netuid: _Netuid = None,
    json_output: _Json = False,
) -> None:
    """Show the weights in force, or set those of a hotkey."""
    settings = _settings(home, netuid)
    if entries:
        if wallet is None:
            raise ConfigurationError("Setting weights takes --wallet-name.")
        pairs = [_entry(entry) for entry in entries]
        uids, values = [uid for uid, _ in pairs], [value for _, value in pairs]
        _run(settings, wallet, hotkey, lambda chain: chain.set_weights(settings.netuid, uids, values, version_key))
    with _ledger(settings) as ledger, ledger.read() as tx:
        stored = stored_weights(tx, settings.netuid)
    lines = [
        f"uid {validator}: " + ", ".join(f"{uid}={value / (sum(row.values()) or 1):.4f}" for uid, value in row.items())
        for validator, row in stored.items()
    ]
    _print({"weights": stored}, "\n".join(lines) or "Nobody has set weights.", json_output)


@app.command()
def commit(
    data: Annotated[str | None, typer.Argument(help="Text of at most 128 bytes; none to show.")] = None,
    wallet: Annotated[
        str | None, typer.Option("--wallet-name", "--wallet", help="Wallet whose hotkey commits.")
    ] = None,
    hotkey: _Hotkey = "default",
    address: Annotated[str | None, typer.Option(help="Show this hotkey's commitment.")] = None,
    home: _Home = None,
    netuid: _Netuid = None,
    json_output: _Json = False,
) -> None:
    """Publish a text under a hotkey, or show what one has published."""
    settings = _settings(home, netuid)
    if (wallet is None) == (address is None) or (data is not None and wallet is None):
        raise ConfigurationError("Give --wallet-name to commit or to look, or --address to look.")
    if data is not None and wallet is not None:
        _run(settings, wallet, hotkey, lambda chain: chain.set_commitment(settings.netuid, data))
    whose = address or load_hotkey(settings.wallets_path, wallet or "", hotkey).ss58_address
    with _ledger(settings) as ledger, ledger.read() as tx:
        found = commitment(tx, settings.netuid, whose)
    _print(
        {"commitment": asdict(found) if found else None},
        f"Block {found.block}: {found.data}" if found else "Nothing is committed.",
        json_output,
    )


def _run(
    settings: HomeSettings,
    wallet: str,
    hotkey: str,
    work: Callable[[LocalChain], Awaitable[T]],
    *,
    coldkey: bool = False,
) -> T:
    async def main() -> T:
        chain = LocalChain(
            settings.ledger_path,
            load_hotkey(settings.wallets_path, wallet, hotkey),
            SystemClock(),
            coldkey=load_coldkey(settings.wallets_path, wallet) if coldkey else None,
        )
        try:
            return await work(chain)
        finally:
            await chain.close()

    return asyncio.run(main())


@contextmanager
def _ledger(settings: HomeSettings) -> Iterator[Ledger]:
    with Ledger(settings.ledger_path, SystemClock()) as ledger:
        yield ledger


def _settings(home: Path | None, netuid: int | None) -> HomeSettings:
    given: dict[str, Path | int] = {}
    if home is not None:
        given["home"] = home
    if netuid is not None:
        if not 0 <= netuid <= 65535:
            raise ConfigurationError("A netuid is from 0 to 65535.")
        given["netuid"] = netuid
    return HomeSettings().model_copy(update=given)


def _tao(rao: int) -> str:
    return f"{rao / RAO_PER_TAO:,.4f}"


def _rao(text: str) -> int:
    try:
        rao = Decimal(text) * RAO_PER_TAO
        whole = int(rao)
    except (InvalidOperation, OverflowError, ValueError):
        raise ConfigurationError(f"{text[:40]!r} is no amount of tao.") from None
    if rao != whole or whole <= 0:
        raise ConfigurationError("An amount is positive and has at most nine decimals.")
    return whole


def _entry(text: str) -> tuple[int, int]:
    uid, _, value = text.partition("=")
    try:
        pair = int(uid), int(value)
    except ValueError:
        raise ConfigurationError(f"{text[:40]!r} is no UID=WEIGHT.") from None
    if not all(0 <= number <= U16_MAX for number in pair):
        raise ConfigurationError(f"UIDs and weights are from 0 to {U16_MAX}.")
    return pair


def _print(data: dict[str, object], text: str, json_output: bool) -> None:
    typer.echo(json.dumps(data) if json_output else text)
