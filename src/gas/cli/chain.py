"""``gascli chain``: a chain, seen and used from the command line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Protocol, cast

import typer

from gas.chain.base import Chain, Commitment, Metagraph
from gas.chain.keys import load_hotkey
from gas.chain.local.interface import LedgerChain
from gas.chain.local.views import Pay, Standing
from gas.chain.weights import U16_MAX, WeightsReceipt
from gas.cli.chain_epoch import epoch
from gas.cli.chain_ledger import advance, faucet, found, pause, rao, resume, start, tao
from gas.cli.chain_receipts import Revealed, publish, read_receipt, reveal_kept, sentence_of
from gas.cli.chain_run import Home, HotkeyName, Json, Netuid, WalletName, print_result, run
from gas.cli.chain_simulate import simulate
from gas.cli.chain_subnet import axon, rules
from gas.cli.coldkeys import PasswordEnv, PasswordFile
from gas.cli.endpoint import ChainEndpoint, home_settings
from gas.clock import SystemClock
from gas.errors import ChainRefused, ConfigurationError
from gas.types import Hotkey, Rao

__all__ = ["app"]


class _Priced(Protocol):
    """What every live chain can do for who registers."""

    async def registration_price(self, netuid: int) -> Rao: ...


class _Staking(Protocol):
    """What every chain here can do beyond :class:`Chain` for who pays."""

    async def add_stake(self, netuid: int, amount: int) -> None: ...

    async def remove_stake(self, netuid: int, amount: int) -> None: ...


app = typer.Typer(help="The chain: of this home, served, or live.", no_args_is_help=True, add_completion=False)
app.command("found")(found)
app.command("start")(start)
app.command("faucet")(faucet)
app.command("advance")(advance)
app.command("pause")(pause)
app.command("resume")(resume)
app.command("epoch")(epoch)
app.command("axon")(axon)
app.command("rules")(rules)
app.command("simulate")(simulate)


@app.command()
def status(
    home: Home = None, netuid: Netuid = None, chain_endpoint: ChainEndpoint = None, json_output: Json = False
) -> None:
    """Blocks, money, and every neuron of the subnet with its stake and its pay."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)

    async def look(chain: Chain) -> tuple[Metagraph, int, Rao, Standing | None, dict[Hotkey, Pay]]:
        graph, price = await chain.metagraph(settings.netuid), await _price(chain, settings.netuid)
        if isinstance(chain, LedgerChain):
            return graph, 0, price, await chain.standing(settings.netuid), await chain.emissions(settings.netuid)
        return graph, (await chain.hyperparameters(settings.netuid)).tempo, price, None, {}

    graph, tempo, price, standing, pay = run(settings, look)
    if not json_output:
        _show(settings.netuid, graph, price, standing, pay)
        return
    found: dict[str, object] = {"block": graph.block, "neurons": [asdict(neuron) for neuron in graph.neurons]}
    found["registration_price"] = price
    if standing is None:
        found["tempo"] = tempo
    else:
        found |= {
            "epochs": standing.epochs,
            "next_epoch": standing.next_epoch,
            "paused": standing.manual,
            "totals": asdict(standing.totals),
            "emission": {hotkey: paid.total for hotkey, paid in pay.items()},
        }
    typer.echo(json.dumps(found))


@app.command()
def register(
    wallet: WalletName,
    hotkey: HotkeyName = "default",
    at_most: Annotated[str | None, typer.Option(help="Tao; register only if a slot costs no more.")] = None,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Burn the price for a slot of the wallet's hotkey; the coldkey pays."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    most = None if at_most is None else rao(at_most)

    async def work(chain: Chain) -> int:
        if most is not None and (price := await _price(chain, settings.netuid)) > most:
            raise ChainRefused(
                f"A slot costs {tao(price)} tao now.", code="price_too_high", hint="Wait, or raise --at-most."
            )
        return await chain.register(settings.netuid)

    uid = run(settings, work, wallet, hotkey, password=(password_env, password_file))
    print_result({"uid": uid}, f"Registered as uid {uid}.", json_output)


@app.command()
def stake(
    amount: Annotated[str, typer.Argument(help="Tao, e.g. 12.5.")],
    wallet: WalletName,
    remove: Annotated[bool, typer.Option("--remove", help="Take stake back.")] = False,
    hotkey: HotkeyName = "default",
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Stake the coldkey's money to the wallet's hotkey, or take it back."""
    settings, amount_rao = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint), rao(amount)
    whose = load_hotkey(settings.wallets_path, wallet, hotkey).ss58_address

    async def work(chain: Chain) -> int:
        staking = cast(_Staking, chain)
        await (staking.remove_stake if remove else staking.add_stake)(settings.netuid, amount_rao)
        neuron = (await chain.metagraph(settings.netuid)).by_hotkey(whose)
        return neuron.stake if neuron else 0

    staked = run(settings, work, wallet, hotkey, password=(password_env, password_file))
    print_result({"stake": staked}, f"The hotkey has {tao(staked)} tao of stake.", json_output)


@app.command()
def weights(
    entries: Annotated[list[str] | None, typer.Argument(help="UID=WEIGHT ... to set; none to show.")] = None,
    wallet: Annotated[str | None, typer.Option("--wallet-name", "--wallet", help="Wallet whose hotkey sets.")] = None,
    hotkey: HotkeyName = "default",
    version_key: Annotated[int, typer.Option(help="Version key.")] = 0,
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Show the weights in force, or set those of a hotkey.

    Where the subnet wants commit and reveal, this commits. If the network doesn't reveal by itself, the home keeps a
    receipt, and `gascli chain reveal` one period later reveals.
    """
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    pairs = [_entry(entry) for entry in entries or ()]
    if pairs and wallet is None:
        raise ConfigurationError("Setting weights takes --wallet-name.")

    async def work(chain: Chain) -> tuple[WeightsReceipt | None, dict[int, dict[int, int]]]:
        receipt = None
        if pairs:
            whose = load_hotkey(settings.wallets_path, wallet or "", hotkey).ss58_address
            uids, values = [uid for uid, _ in pairs], [value for _, value in pairs]
            receipt = await publish(chain, settings, whose, uids, values, version_key, SystemClock())
        return receipt, await chain.weights_in_force(settings.netuid)

    receipt, stored = run(settings, work, wallet if pairs else None, hotkey)
    data: dict[str, object] = {"weights": stored}
    lines: list[str] = []
    for validator, row in stored.items():
        parts = (f"{uid}={value / (sum(row.values()) or 1):.4f}" for uid, value in row.items())
        lines.append(f"uid {validator}: " + ", ".join(parts))
    if receipt is not None and receipt.kind != "plain":
        data["receipt"] = asdict(receipt)
        lines.append(sentence_of(asdict(receipt)))
    print_result(data, "\n".join(lines) or "Nobody has set weights.", json_output)


@app.command()
def reveal(
    wallet: WalletName,
    receipt: Annotated[Path | None, typer.Argument(help="A receipt's file; none for all that the home keeps.")] = None,
    hotkey: HotkeyName = "default",
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Reveal weights that were committed one period ago."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    whose = load_hotkey(settings.wallets_path, wallet, hotkey).ss58_address
    said = None if receipt is None else read_receipt(receipt)

    async def work(chain: Chain) -> list[Revealed]:
        if receipt is None or said is None:
            return await reveal_kept(chain, settings, whose, SystemClock())
        await chain.reveal_weights(*said[0], said[1])
        return [Revealed("revealed", receipt.name, len(said[0][1]))]

    done = run(settings, work, wallet, hotkey)
    data: dict[str, object] = {"revealed": sum(one.weights for one in done if one.state == "revealed")}
    if receipt is None:
        data["receipts"] = [asdict(one) for one in done]
    print_result(data, "\n".join(one.sentence() for one in done) or "There is nothing to reveal.", json_output)


@app.command()
def commit(
    data: Annotated[str | None, typer.Argument(help="Text of at most 128 bytes; none to show.")] = None,
    wallet: Annotated[
        str | None, typer.Option("--wallet-name", "--wallet", help="Wallet whose hotkey commits.")
    ] = None,
    hotkey: HotkeyName = "default",
    address: Annotated[str | None, typer.Option(help="Show this hotkey's commitment.")] = None,
    home: Home = None,
    netuid: Netuid = None,
    chain_endpoint: ChainEndpoint = None,
    json_output: Json = False,
) -> None:
    """Publish a text under a hotkey, or show what one has published."""
    settings = home_settings(home, netuid=netuid, chain_endpoint=chain_endpoint)
    if (wallet is None) == (address is None) or (data is not None and wallet is None):
        raise ConfigurationError("Give --wallet-name to commit or to look, or --address to look.")
    whose = address or load_hotkey(settings.wallets_path, wallet or "", hotkey).ss58_address

    found = run(settings, lambda chain: _commit(chain, settings.netuid, data, whose), wallet, hotkey)
    print_result(
        {"commitment": asdict(found) if found else None},
        f"Block {found.block}: {found.data}" if found else "Nothing is committed.",
        json_output,
    )


async def _price(chain: Chain, netuid: int) -> Rao:
    if isinstance(chain, LedgerChain):
        return (await chain.standing(netuid)).price
    return await cast(_Priced, chain).registration_price(netuid)


async def _commit(chain: Chain, netuid: int, data: str | None, whose: str) -> Commitment | None:
    if data is not None:
        await chain.set_commitment(netuid, data)
    return await chain.get_commitment(netuid, whose)


def _show(netuid: int, graph: Metagraph, price: Rao, standing: Standing | None, pay: dict[Hotkey, Pay]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    after = "" if standing is None else f", after {standing.epochs} epochs"
    title = f"Subnet {netuid} at block {graph.block}{after} (a slot costs {tao(price)} tao)"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    # On a live network only the last epoch's pay is known; figures are never cut off, whatever the terminal.
    names = ["uid", "hotkey", "stake", "permit", "incentive", "dividends", "last pay", "all pay", "axon"]
    for name in names:
        text = name in ("hotkey", "axon")
        table.add_column(name, justify="left" if text else "right", no_wrap=name != "axon", overflow="fold")
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
    Console(width=max(Console().width, 112)).print(table)
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
