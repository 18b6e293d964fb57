"""``gascli d compare``: two or more runs on one round, which is better, and how sure that is."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.bench.comparison import Comparison
    from gas.bench.records import SampleRecord

__all__ = ["compare_command", "comparison_sentence"]


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Two or more folders that `gascli d bench --out` has written.")],
    round_folder: Annotated[Path, typer.Option("--round", help="Folder of the round that they ran on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare runs pairwise by a paired bootstrap: which is better, and how sure."""
    from gas.bench.comparison import compare
    from gas.datasets.plan import read_round

    if len(runs) < 2:
        raise ConfigurationError("A comparison needs at least two runs.")
    round_ = read_round(round_folder)
    records = {str(run): _records(run) for run in runs}
    found = [(a, b, compare(records[a], records[b], round_)) for a, b in combinations(records, 2)]
    if as_json:
        rows = [{"first": a, "second": b, **comparison.as_dict()} for a, b, comparison in found]
        typer.echo(json.dumps({"comparisons": rows}))
        return
    for a, b, comparison in found:
        typer.echo(comparison_sentence(Path(a).name, Path(b).name, comparison))


def _records(run: Path) -> tuple[SampleRecord, ...]:
    from gas.bench.records import from_parquet

    file = run / "records.parquet" if run.is_dir() else run
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"There are no records in {run}.", hint="Name a folder that `gascli d bench --out` has written."
        ) from error
    return from_parquet(data)


def comparison_sentence(first: str, second: str, found: Comparison) -> str:
    """What a comparison of two runs says, for people.

    Args:
        first: Name of one run.
        second: Name of the other.
        found: How they compare.
    """
    base = found.base
    if base is None:
        return f"{first} and {second}: unscored, a class is missing"
    text = f"{first} {base.first:.4f}, {second} {base.second:.4f} (base pass): "
    if base.low is None or base.high is None or base.better is None:
        alone = f"one {found.clustered_by} only"
        return f"{text}{alone}, so nobody can say how sure the difference of {base.difference:+.4f} is"
    winner = {"first": f"{first} is better", "second": f"{second} is better", "undecided": "undecided"}[found.verdict]
    return (
        f"{text}{winner}; difference {base.difference:+.4f}, 95 % between {base.low:+.4f} and {base.high:+.4f}; "
        f"{first} ahead in {base.better:.1%} of the draws of {base.clusters} {found.clustered_by}s; "
        f"only {first} right on "
        f"{found.only_first}, only {second} on {found.only_second} of {found.samples} samples"
    )
