"""``gascli chain epoch``: what would one epoch do? For owners of subnets, from a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gas.errors import ConfigurationError
from gas.scoring.consensus import EpochInputs, EpochOutputs, inputs_from_json, outputs_to_json, run_epoch

__all__ = ["epoch", "read_cases"]


def epoch(
    input_file: Annotated[Path, typer.Option("--input", help='JSON: {"cases": [{"inputs": {...}}, ...]}.')],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run epochs of Yuma consensus on given weights, stakes and bonds, and print what comes out.

    Raises:
        gas.errors.ConfigurationError: The file can't be read, or a field of it is wrong.
    """
    results = [run_epoch(inputs) for inputs in read_cases(input_file)]
    if json_output:
        typer.echo(json.dumps({"cases": [{"outputs": _as_json(result)} for result in results]}))
        return
    console = Console()
    for number, result in enumerate(results, start=1):
        _show(f"case {number}", result, console)


def read_cases(file: Path) -> list[EpochInputs]:
    """Read the inputs of every case.

    Raises:
        gas.errors.ConfigurationError: Not readable, no JSON, or a case is wrong; the message names case and field.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file.name} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{file.name} is no JSON: {error}.") from error
    cases = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(cases, list):
        raise ConfigurationError(f'{file.name} must be an object with a list "cases".')
    inputs = []
    for number, case in enumerate(cases, start=1):
        if not isinstance(case, dict) or "inputs" not in case:
            raise ConfigurationError(f'{file.name}, case {number}: there are no "inputs".')
        try:
            inputs.append(inputs_from_json(case["inputs"]))
        except ConfigurationError as error:
            raise ConfigurationError(f"{file.name}, case {number}: {error.message}", hint=error.hint) from error
    return inputs


def _as_json(result: EpochOutputs) -> dict[str, object]:
    """Everything that a chain stores of an epoch, under the chain's names."""
    return {
        **outputs_to_json(result),
        "rank": result.incentive.tolist(),
        "trust": result.trust.tolist(),
        "active": result.active.tolist(),
        "pruning": result.pruning.tolist(),
    }


def _show(title: str, result: EpochOutputs, console: Console) -> None:
    table = Table(title=f"{title} (shares of 65535)")
    for name in ("uid", "stake", "permit", "consensus", "incentive", "dividends", "validator trust", "bonds"):
        table.add_column(name, justify="right")
    bonds = result.bonds.to_rows(len(result.stake))
    for uid in range(len(result.stake)):
        table.add_row(
            str(uid),
            str(result.stake[uid]),
            "yes" if result.permit[uid] else "",
            str(result.consensus[uid]),
            str(result.incentive[uid]),
            str(result.dividends[uid]),
            str(result.vtrust[uid]),
            str(len(bonds[uid])),
        )
    console.print(table)
