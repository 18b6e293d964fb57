"""What the benchmark commands show: bars while they work, and a run's figures at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gas.bench.metrics import RunMetrics
    from gas.bench.runs import Progress

__all__ = ["answer_bar", "print_metrics", "print_troubles"]

ROWS: Final = (
    ("sn34 score", "sn34_score"),
    ("MCC", "mcc"),
    ("Brier", "brier"),
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("log-loss", "log_loss"),
    ("ROC-AUC", "roc_auc"),
    ("average precision", "average_precision"),
    ("EER", "eer"),
    ("ECE", "ece"),
    ("TPR at 1 % FPR", "tpr_at_fpr_01"),
    ("TPR at 5 % FPR", "tpr_at_fpr_05"),
    ("samples", "n"),
)
"""Label and name of the figures of a pass, as :class:`gas.scoring.detection.DetectionMetrics` has them."""

_FEW_SOURCES: Final = 10


@contextmanager
def answer_bar(shown: bool, what: str = "answers") -> Iterator[Callable[[Progress], None]]:
    """A bar with rate, running score and the time that is left, on the error stream: the result has the other alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(file=sys.stderr), disable=not shown) as bars:
        task = bars.add_task(what, total=None, note="")

        def report(now: Progress) -> None:
            bars.update(task, completed=now.done, total=now.total, note=_note(now))

        yield report


def print_metrics(title: str, metrics: RunMetrics) -> None:
    """The figures of both passes as a table, the score with its interval, and the weakest group."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(escape(title))
    table = Table("", "base", "robust")
    robust = metrics.robust
    for label, key in ROWS:
        table.add_row(label, _figure(getattr(metrics.base, key)), _figure(getattr(robust, key)) if robust else "")
    console.print(table)
    if metrics.final is None:
        console.print(f"Unscored: {metrics.unscored}")
    else:
        interval = metrics.base.sn34_ci95
        clusters = metrics.base.interval.clusters
        drawn = f"{clusters:,} {metrics.clustered_by}s"
        few = ", too few to say much" if clusters < _FEW_SOURCES else ""
        few = few or (", as there are too few sources" if metrics.clustered_by != "source" else "")
        between = (
            f" (base pass: 95 % between {interval[0]:.4f} and {interval[1]:.4f} by {drawn}{few})" if interval else ""
        )
        console.print(f"Final score [bold]{metrics.final:.4f}[/bold]{between}")
    worst = metrics.base.worst_group
    if worst is not None:
        console.print(f"Weakest: {escape(worst.name)} ({worst.kind}), {worst.rate} {worst.value:.3f} of {worst.n}")


def print_troubles(
    errors: Mapping[str, int], timings: Mapping[str, float], *, gave_up: bool, inconsistent: int, reasked: int
) -> None:
    """What went wrong in a run, and how fast it was.

    Args:
        errors: Answers by the code of what was wrong.
        timings: JSON form of :class:`gas.bench.timings.Timings`.
        gave_up: Whether the restarts ran out.
        inconsistent: Samples that were answered differently when asked again.
        reasked: Samples that were asked again.
    """
    from rich.console import Console

    console = Console()
    for code, count in errors.items():
        console.print(f"{count} answers with {code}")
    if gave_up:
        console.print("The model died too often: what it was not asked any more counts as wrong.")
    if inconsistent:
        console.print(f"{inconsistent} of {reasked} samples were answered differently when asked again.")
    if timings["showings"]:
        rate, limit = timings["samples_per_second"], timings["limit_samples_per_second"]
        # In a short run much was decoded before the model was ready: the rate says more than it can keep up.
        more = f"; with all {timings['cores']:.0f} cores busy it would be {limit:,.0f}" if limit > rate else ""
        console.print(f"{rate:,.0f} samples/s in {timings['wall_seconds']:.1f} s{more}")


def _note(now: Progress) -> str:
    parts = [f"{now.samples_per_second:,.0f}/s"]
    if now.accuracy is not None:
        parts.append(f"accuracy {now.accuracy:.3f}")
    if now.sn34 is not None:
        parts.append(f"sn34 {now.sn34:.3f}")
    if now.model_errors:
        parts.append(f"{now.model_errors:,} model errors")
    left = now.seconds_left
    if left is not None:
        minutes, seconds = divmod(round(left), 60)
        parts.append(f"{minutes}:{seconds:02} left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left")
    return ", ".join(parts)


def _figure(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
