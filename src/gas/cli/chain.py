"""``gascli chain``: a chain, seen and used from the command line."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Protocol, TypeVar, cast

import typer

from gas.chain.base import Chain, Commitment, Metagraph
from gas.chain.bittensor.publishing import WeightsReceipt
from gas.chain.keys import load_hotkey
from gas.chain.local.interface import LedgerChain
from gas.chain.local.views import Pay, Standing
from gas.chain.weights import U16_MAX
from gas.cli.chain_epoch import epoch
from gas.cli.chain_ledger import advance, faucet, found, pause, rao, resume, start, tao
from gas.cli.chain_simulate import simulate
from gas.cli.coldkeys import PasswordEnv, PasswordFile, open_coldkey
from gas.cli.endpoint import ChainEndpoint, home_settings, open_chain
from gas.clock import SystemClock
from gas.config import HomeSettings
from gas.errors import ConfigurationError
from gas.types import Hotkey

__all__ = ["app"]

T = TypeVar("T")

_SALT_NUMBERS = 8
"""128 bits, so that nobody finds the weights behind a commit by trying."""


class _Staking(Protocol):
    """What every chain here can do beyond :class:`Chain` for who pays."""

    async def add_stake(self, netuid: int, amount: int) -> None: ...

    async def remove_stake(self, netuid: int, amount: int) -> None: ...


class _Publishing(Protocol):
    """The same for who sets weights."""

    async def publish_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0, *, salt: Sequence[int]
    ) -> WeightsReceipt: ...


app = typer.Typer(help="The chain: of this home, served, or live.", no_args_is_help=True, add_completion=False)
app.command("found")(found)
app.command("start")(start)
app.command("faucet")(faucet)
app.command("advance")(advance)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("epoch")(epoch)
app.command("simulate")(simulate)

_Home = Annotated[Path | None, typer.Option(help="Home with ledger and wallets; GAS_HOME or ./.gas by default.")]
_Netuid = Annotated[int | None, typer.Option(help="The subnet; GAS_NETUID or 1 by default.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Wallet = Annotated[str, typer.Option("--wallet-name", "--wallet", help="Wallet whose keys sign.")]
_Hotkey = Annotated[str, typer.Option("--wallet-hotkey", "--hotkey", help="Name of the hotkey.")]


@app.command()
def status(
    home: _Home = None, netuid: _Netuid = None, chain_endpoint: ChainEndpoint = None, json_output: _Json = False
) -> None:
    """Blocks, money, and every neuron of the subnet with its stake and its pay."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)

    async def look(chain: Chain) -> tuple[Metagraph, int, Standing | None, dict[Hotkey, Pay]]:
        graph = await chain.metagraph(settings.netuid)
        if isinstance(chain, LedgerChain):
            return graph, 0, await chain.standing(settings.netuid), await chain.emissions(settings.netuid)
        return graph, (await chain.hyperparameters(settings.netuid)).tempo, None, {}

    graph, tempo, standing, pay = _run(settings, look)
    if not json_output:
        _show(settings.netuid, graph, standing, pay)
        return
    found: dict[str, object] = {"block": graph.block, "neurons": [asdict(neuron) for neuron in graph.neurons]}
    if standing is None:
        found["tempo"] = tempo
    else:
        found |= {
            "epochs": standing.epochs,
            "next_epoch": standing.next_epoch,
            "registration_price": standing.price,
            "paused": standing.manual,
            "totals": asdict(standing.totals),
            "emission": {hotkey: paid.total for hotkey, paid in pay.items()},
        }
    typer.echo(json.dumps(found))


@app.command()
def register(
    wallet: _Wallet,
    hotkey: _Hotkey = "default",
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: _Home = None,
    netuid: _Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: _Json = False,
) -> None:
    """Burn the price for a slot of the wallet's hotkey; the coldkey pays."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    uid = _run(
        settings, lambda chain: chain.register(settings.netuid), wallet, hotkey, password=(password_env, password_file)
    )
    _print({"uid": uid}, f"Registered as uid {uid}.", json_output)


@app.command()
def stake(
    amount: Annotated[str, typer.Argument(help="Tao, e.g. 12.5.")],
    wallet: _Wallet,
    remove: Annotated[bool, typer.Option("--remove", help="Take stake back.")] = False,
    hotkey: _Hotkey = "default",
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: _Home = None,
    netuid: _Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: _Json = False,
) -> None:
    """Stake the coldkey's money to the wallet's hotkey, or take it back."""
    settings, amount_rao = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint), rao(amount)
    whose = load_hotkey(settings.wallets_path, wallet, hotkey).ss58_address

    async def work(chain: Chain) -> int:
        staking = cast(_Staking, chain)
        await (staking.remove_stake if remove else staking.add_stake)(settings.netuid, amount_rao)
        neuron = (await chain.metagraph(settings.netuid)).by_hotkey(whose)
        return neuron.stake if neuron else 0

    staked = _run(settings, work, wallet, hotkey, password=(password_env, password_file))
    _print({"stake": staked}, f"The hotkey has {tao(staked)} tao of stake.", json_output)


@app.command()
def weights(
    entries: Annotated[list[str] | None, typer.Argument(help="UID=WEIGHT ... to set; none to show.")] = None,
    wallet: Annotated[str | None, typer.Option("--wallet-name", "--wallet", help="Wallet whose hotkey sets.")] = None,
    hotkey: _Hotkey = "default",
    version_key: Annotated[int, typer.Option(help="Version key.")] = 0,
    home: _Home = None,
    netuid: _Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: _Json = False,
) -> None:
    """Show the weights in force, or set those of a hotkey.

    Where the subnet wants commit and reveal, this commits. If the network doesn't reveal by itself, a receipt is
    printed: keep it to yourself, and hand it to `gascli chain reveal` one period later.
    """
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    pairs = [_entry(entry) for entry in entries or ()]
    if pairs and wallet is None:
        raise ConfigurationError("Setting weights takes --wallet-name.")

    async def work(chain: Chain) -> tuple[WeightsReceipt | None, dict[int, dict[int, int]] | None]:
        receipt = None
        if pairs:
            uids, values = [uid for uid, _ in pairs], [value for _, value in pairs]
            salt = [secrets.randbelow(U16_MAX + 1) for _ in range(_SALT_NUMBERS)]
            publishing = cast(_Publishing, chain)
            receipt = await publishing.publish_weights(settings.netuid, uids, values, version_key, salt=salt)
        return receipt, await chain.weights_in_force(settings.netuid) if isinstance(chain, LedgerChain) else None

    receipt, stored = _run(settings, work, wallet if pairs else None, hotkey)
    if receipt is None and stored is None:
        raise ConfigurationError("A live network's weights are not shown here.", hint="Use btcli.")
    data: dict[str, object] = {}
    lines: list[str] = []
    if stored is not None:
        data["weights"] = stored
        for validator, row in stored.items():
            parts = (f"{uid}={value / (sum(row.values()) or 1):.4f}" for uid, value in row.items())
            lines.append(f"uid {validator}: " + ", ".join(parts))
    if receipt is not None and (stored is None or receipt.kind != "plain"):
        data["receipt"] = asdict(receipt)
        lines.append(f"{len(pairs)} weights are {receipt.kind} in block {receipt.block}.")
        if receipt.kind == "committed":
            lines.append(json.dumps(asdict(receipt)))
    _print(data, "\n".join(lines) or "Nobody has set weights.", json_output)


@app.command()
def reveal(
    receipt: Annotated[Path, typer.Argument(help="File with the receipt that `gascli chain weights` printed.")],
    wallet: _Wallet,
    hotkey: _Hotkey = "default",
    home: _Home = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: _Json = False,
) -> None:
    """Reveal weights that were committed one period ago."""
    settings = home_settings(home, chain_endpoint=chain_endpoint)
    try:
        found = json.loads(receipt.read_bytes())
        found = found.get("receipt", found)
        said = int(found["netuid"]), list(found["uids"]), list(found["weights"]), list(found["salt"])
        version_key = int(found["version_key"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError("The file holds no receipt of a commit.", code="bad_receipt") from error
    _run(settings, lambda chain: chain.reveal_weights(*said, version_key), wallet, hotkey)
    _print({"revealed": len(said[1])}, f"{len(said[1])} weights are revealed.", json_output)


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
    chain_endpoint: ChainEndpoint = None,
    json_output: _Json = False,
) -> None:
    """Publish a text under a hotkey, or show what one has published."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    if (wallet is None) == (address is None) or (data is not None and wallet is None):
        raise ConfigurationError("Give --wallet-name to commit or to look, or --address to look.")
    whose = address or load_hotkey(settings.wallets_path, wallet or "", hotkey).ss58_address

    found = _run(settings, lambda chain: _commit(chain, settings.netuid, data, whose), wallet, hotkey)
    _print(
        {"commitment": asdict(found) if found else None},
        f"Block {found.block}: {found.data}" if found else "Nothing is committed.",
        json_output,
    )


async def _commit(chain: Chain, netuid: int, data: str | None, whose: str) -> Commitment | None:
    if data is not None:
        await chain.set_commitment(netuid, data)
    return await chain.get_commitment(netuid, whose)


def _run(
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


def _show(netuid: int, graph: Metagraph, standing: Standing | None, pay: dict[Hotkey, Pay]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"Subnet {netuid} at block {graph.block}"
    if standing is not None:
        title += f", after {standing.epochs} epochs (a slot costs {tao(standing.price)} tao)"
    table = Table(title=title)
    for name in ("uid", "hotkey", "stake", "permit", "incentive", "dividends", "last pay", "all pay", "axon"):
        table.add_column(name, justify="left" if name in ("hotkey", "axon") else "right")
    for n in graph.neurons:
        paid = pay.get(n.hotkey)
        table.add_row(
            str(n.uid),
            f"{n.hotkey[:8]}…",
            tao(n.stake),
            "yes" if n.permit else "",
            f"{n.incentive:.4f}",
            f"{n.dividends:.4f}",
            tao(n.emission),
            "" if standing is None else tao(paid.total if paid else 0),
            f"{n.axon.ip}:{n.axon.port}" if n.axon else "",
        )
    Console().print(table)
    if standing is None:
        return
    totals = standing.totals
    typer.echo(
        f"Issued {tao(totals.issued)} tao = {tao(totals.balances)} on accounts + {tao(totals.staked)} staked "
        f"+ {tao(totals.burned)} burned." + (" Blocks pass by hand only." if standing.manual else "")
    )


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
