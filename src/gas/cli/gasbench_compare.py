"""``gasbench compare``: which of several runs on one plan is better, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.cli.compare import comparison_sentence
from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.bench.comparison import Comparison
    from gas.bench.public import BenchRun

    Pair = tuple[BenchRun, BenchRun, Comparison]

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
    if len({run.run_id for run in opened}) < len(opened):
        raise ConfigurationError("A run is named twice.", hint="Name folders of different runs.")
    found = [(one, two, compare(one, two)) for one, two in combinations(opened, 2)]
    ranked = sorted(opened, key=lambda run: (run.score is None, -(run.score or 0.0), run.run_id))
    rivals = _not_surely_worse(ranked[0], found)
    if as_json:
        rows = [{"first": a.run_id, "second": b.run_id, **comparison.as_dict()} for a, b, comparison in found]
        ranking = [{"run_id": run.run_id, "score": run.score} for run in ranked]
        about = {"plan_id": opened[0].plan.plan_id, "ranking": ranking, "undecided_with_best": rivals}
        typer.echo(json.dumps({**about, "comparisons": rows}))
        return
    if len(opened) > 2:
        for place, run in enumerate(ranked, start=1):
            typer.echo(f"{place}. {run.run_id}  {'unscored' if run.score is None else f'{run.score:.4f}'}")
    for one, two, comparison in found:
        typer.echo(comparison_sentence(one.run_id, two.run_id, comparison))
    if len(opened) > 2:
        best = ranked[0].run_id
        others = f"not surely better than {', '.join(rivals)}" if rivals else "surely better than every other"
        typer.echo(f"Best score: {best}; its base pass is {others}")


def _not_surely_worse(best: BenchRun, found: Sequence[Pair]) -> list[str]:
    """Runs that the best one doesn't beat beyond doubt."""
    out = []
    for one, two, comparison in found:
        if best is one and comparison.verdict != "first":
            out.append(two.run_id)
        elif best is two and comparison.verdict != "second":
            out.append(one.run_id)
    return out
