"""``gascli chain simulate``: the subnet owner's laboratory on the command line."""

from __future__ import annotations

import csv
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from gas.chain.lab.scenario import load_scenario, shipped_scenarios
from gas.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gas.chain.lab.play import History
    from gas.chain.lab.scenario import Event

__all__ = ["simulate"]

_TAIL = 10


def simulate(
    scenario: Annotated[str, typer.Argument(help="A YAML file, or the name of one that ships.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="Show the scenarios that ship.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the scenario's YAML, to start one's own from.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, max=5000, help="Play so many instead.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another seed.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Write every epoch of every group to this file.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play many epochs of a subnet: honest, lazy, copying, self-voting, colluding validators; sybil miners."""
    if listed:
        _list(json_output)
        return
    if not scenario:
        raise ConfigurationError("Name a scenario.", hint="`gascli chain simulate --list` shows those that ship.")
    if show:
        typer.echo(_text(scenario), nl=False)
        return
    from gas.chain.lab.play import play

    chosen = load_scenario(scenario)
    changes = {name: value for name, value in (("epochs", epochs), ("seed", seed)) if value is not None}
    with Progress(console=Console(stderr=True), transient=True, disable=json_output) as bar:
        task = bar.add_task("playing")
        history = play(
            chosen.model_copy(update=changes), lambda done, total: bar.update(task, completed=done, total=total)
        )
    if html:
        _write(html, _page(history))
    if csv_file:
        _write_csv(csv_file, history)
    if json_output:
        typer.echo(json.dumps(_as_dict(history)))
        return
    _print(history)
    for path in (html, csv_file):
        if path:
            typer.echo(f"Written: {path}")


def _list(json_output: bool) -> None:
    scenarios = shipped_scenarios()
    if json_output:
        typer.echo(json.dumps({"scenarios": scenarios}))
        return
    for name, title in scenarios.items():
        typer.echo(f"{name:22} {title}")


def _text(scenario: str) -> str:
    from importlib import resources

    load_scenario(scenario)
    shipped = resources.files("gas.chain.lab").joinpath("scenarios", f"{scenario}.yaml")
    return shipped.read_text(encoding="utf-8") if shipped.is_file() else Path(scenario).read_text(encoding="utf-8")


def _as_dict(history: History) -> dict[str, object]:
    """Every figure of every group, epoch by epoch."""
    pay, incentive, dividends = (history.by_group(f) for f in (history.pay, history.incentive, history.dividends))
    yields = history.yields()
    groups = {
        group.name: {
            "validates": group.validates,
            "neurons": len(group.uids),
            "incentive": incentive[group.name].tolist(),
            "dividends": dividends[group.name].tolist(),
            "pay": pay[group.name].tolist(),
            **({"yield": yields[group.name].tolist()} if group.validates else {}),
        }
        for group in history.groups
    }
    scenario = history.scenario
    return {"title": scenario.title, "epochs": scenario.epochs, "seed": scenario.seed, "groups": groups}


def _print(history: History) -> None:
    console = Console()
    console.print(f"[bold]{history.scenario.title}[/bold]", highlight=False)
    console.print(history.scenario.teaches.strip(), highlight=False)
    last = min(_TAIL, history.scenario.epochs)
    table = Table(title=f"{history.scenario.epochs} epochs; in brackets the last {last}")
    columns = ("group", "neurons", "incentive", "dividends", "yield a tao", "tao paid")
    for name in columns:
        table.add_column(name, justify="left" if name == "group" else "right")
    incentive, dividends = history.by_group(history.incentive), history.by_group(history.dividends)
    pay, yields = history.by_group(history.pay), history.yields()
    for group in history.groups:
        name = group.name
        table.add_row(
            name,
            str(len(group.uids)),
            "" if group.validates else f"{incentive[name].mean():.1%} ({incentive[name][-last:].mean():.1%})",
            f"{dividends[name].mean():.1%} ({dividends[name][-last:].mean():.1%})" if group.validates else "",
            f"{yields[name].mean():.2f} ({yields[name][-last:].mean():.2f})" if group.validates else "",
            f"{pay[name].sum():,.1f}",
        )
    console.print(table)


def _write_csv(path: Path, history: History) -> None:
    figures = {
        "incentive": history.by_group(history.incentive),
        "dividends": history.by_group(history.dividends),
        "stake": history.by_group(history.stake),
        "pay": history.by_group(history.pay),
    }
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", "group", *figures])
            for epoch in range(history.scenario.epochs):
                for group in history.groups:
                    row = [f"{values[group.name][epoch]:.9g}" for values in figures.values()]
                    writer.writerow([epoch + 1, group.name, *row])
    except OSError as error:
        raise StorageError(f"{path.name} can't be written ({error.strerror}).") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path.name} can't be written ({error.strerror}).") from error


def _page(history: History) -> str:
    """One self-contained page: incentive, yield and bonds over the epochs."""
    from gas.bench.report.plots import legend, line_chart, page

    scenario = history.scenario
    incentive, yields = history.by_group(history.incentive), history.yields()
    validators = [group.name for group in history.groups if group.validates]
    miners = [group.name for group in history.groups if not group.validates]
    consensus = history.by_group(history.consensus)
    bonds = _bonds(history)
    charts = (
        ("Incentive", "Each group's share of what miners are paid.", {name: incentive[name] for name in miners}),
        (
            "Yield",
            "Dividends for each tao staked; 1 is the average of all validators.",
            {name: yields[name] for name in validators},
        ),
        ("Bonds", "Share of all earning miners' bonds that each group of validators holds.", bonds),
        ("Consensus", "Sum of the stake-weighted medians of a group's miners.", {n: consensus[n] for n in miners}),
    )
    # Each group keeps its colour on every chart.
    number = {name: k for k, name in enumerate([*validators, *miners])}
    cards = []
    for title, lead, series in charts:
        lines = [(name, number[name], values.tolist()) for name, values in series.items()]
        picture = line_chart(lines, "epoch", title.lower(), first=1)
        names = legend([(name, k) for name, k, _ in lines])
        cards.append(f'<section class="card"><h3>{title}</h3><p class="lead">{lead}</p>{picture}{names}</section>')
    body = f'<p class="lead">{escape(scenario.teaches)}</p><div class="pair">{"".join(cards)}</div>'
    events = "".join(
        f"<li>Epoch {event.epoch}: {escape(event.group)} {_change(event)}</li>"
        for event in sorted(scenario.events, key=lambda event: event.epoch)
    )
    if events:
        body += f"<h2>What happens</h2><ul>{events}</ul>"
    return page(scenario.title, f"{scenario.epochs} epochs, seed {scenario.seed}", body)


def _change(event: Event) -> str:
    return f"has quality {event.quality:g}" if event.quality is not None else f"stakes {event.stake:,.0f} tao each"


def _bonds(history: History) -> dict[str, NDArray[np.float64]]:
    """Each validators' group's share of the bonds, miners weighted by what they earn; (epochs,)."""
    first = min(uid for g in history.groups if not g.validates for uid in g.uids)
    earned = history.incentive[:, first:]
    return {
        group.name: (history.bonds[:, list(group.uids), :].sum(axis=1) * earned).sum(axis=1)
        for group in history.groups
        if group.validates
    }
