"""``gasbench compare``: which of several runs on one plan is better, and how sure that is."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from gas.cli.compare import comparison_sentence
from gas.errors import ConfigurationError

__all__ = ["compare_command"]


def compare_command(
    runs: Annotated[list[Path], typer.Argument(help="Two or more folders that `gasbench run` has written.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare runs pairwise by a paired bootstrap: which is better, and how sure."""
    from gas.bench.public import compare, open_run

    if len(runs) < 2:
        raise ConfigurationError("A comparison needs at least two runs.")
    opened = [open_run(folder) for folder in runs]
    found = [(one, two, compare(one, two)) for one, two in combinations(opened, 2)]
    if as_json:
        rows = [{"first": a.run_id, "second": b.run_id, **comparison.as_dict()} for a, b, comparison in found]
        typer.echo(json.dumps({"plan_id": opened[0].plan.plan_id, "comparisons": rows}))
        return
    for one, two, comparison in found:
        typer.echo(comparison_sentence(one.run_id, two.run_id, comparison))
