"""What ``gascli data`` prints: tables, sizes, progress bars."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from gas.datasets.store_fetch import FetchProgress
    from gas.datasets.store_stats import Histogram, SetStats

__all__ = [
    "bytes_bar",
    "bytes_of",
    "damage_text",
    "print_list",
    "print_stats",
    "progress_bar",
    "size_text",
]


def print_list(rows: list[dict[str, Any]]) -> None:
    """One line a data set, under the name of its registry."""
    last = None
    for row in rows:
        if row["registry"] != last:
            last = row["registry"]
            typer.echo(f"{last}:")
        if row["fetched"]:
            state = f"{row['items']:,} media, {size_text(row['bytes'])}" + (", entry changed" if row["changed"] else "")
        elif row["damaged"]:
            state = "damaged: fetch it with --refresh"
        elif row["unfinished"]:
            state = "unfinished: fetch it again to go on"
        elif row["files"]:
            state = f"{row['files']:,} files"
        else:
            state = "not here"
        what = f"{row['modality']} {row['media_type']:13} {row['source']:11}"
        typer.echo(f"  {row['name']:24} {what} {row['licence']:20} {state}")
    typer.echo("Fetch one with: gascli data fetch NAME")


def damage_text(found: dict[str, Any]) -> str:
    """How the check of a set ended, in a few words."""
    if found["table_damaged"]:
        return "the table is damaged"
    if found["missing"] or found["damaged"]:
        return f"{len(found['missing']):,} missing, {len(found['damaged']):,} damaged of {found['checked']:,}"
    return f"{found['checked']:,} good"


def size_text(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def bytes_of(text: str) -> int:
    """A number of bytes with an optional k, M, G or T (powers of 1000)."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kKMGT]?)B?", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text[:40]!r} is no size: write 500M, 50G or 2T.")
    return int(float(found[1]) * 1000 ** " kMGT".index(found[2].replace("K", "k") or " "))


@contextmanager
def bytes_bar(shown: bool, name: str) -> Iterator[Callable[[FetchProgress], None] | None]:
    """A bar with bytes and the time that is left on standard error, where that is a terminal."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[files]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, files="listing")

        def report(now: FetchProgress) -> None:
            aside = f", {now.rejected:,} aside" if now.rejected else ""
            files = f"{now.files_done:,}/{now.files:,} files, {now.items:,} media{aside}"
            bar.update(task, completed=now.bytes_done, total=now.bytes, files=files)

        yield report


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on standard error, where that is a terminal."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report


def print_stats(sets: Mapping[str, SetStats], warnings: Sequence[str]) -> None:
    """One block a set."""
    for name, stats in sets.items():
        typer.echo(f"{name}: {stats.items:,} media, {size_text(stats.bytes)}, {stats.origins:,} origins")
        for key, counts in stats.counts.items():
            if key not in ("dataset", "modality") and counts:
                shown = ", ".join(f"{value} {count:,}" for value, count in list(counts.items())[:8])
                typer.echo(f"  {key.replace('_', ' '):14} {shown}{', ...' if len(counts) > 8 else ''}")
        for label, unit, histogram in (
            ("bytes", "", stats.sizes),
            ("shorter side", " px", stats.sides),
            ("length", " s", stats.lengths),
        ):
            if histogram is not None:
                typer.echo(f"  {label:14} {_spread(histogram)}{unit}")
        if stats.rates:
            typer.echo(f"  {'rate':14} " + ", ".join(f"{rate} {n:,}" for rate, n in list(stats.rates.items())[:8]))
        if stats.masks:
            typer.echo(f"  {'masks':14} {stats.masks:,}")
        if stats.rejected:
            typer.echo(f"  {'set aside':14} " + ", ".join(f"{code} {n:,}" for code, n in stats.rejected.items()))
    for text in warnings:
        typer.echo(f"Note: {text}")


def _spread(histogram: Histogram) -> str:
    """Least and most, with the bars between them drawn in one line."""
    top = max(histogram.counts) or 1
    bars = "".join(" .:-=+*#%@"[min(9, (9 * count + top - 1) // top)] for count in histogram.counts)
    return f"{histogram.edges[0]:,.4g} [{bars}] {histogram.edges[-1]:,.4g}"
