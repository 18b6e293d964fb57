"""What the demo shows while it works: a line a step in a log, bars in a terminal; nothing on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["Display"]

_LOG_SECONDS = 10.0


class Display:
    """Progress on stderr.

    Args:
        steps: How many steps there will be.
    """

    def __init__(self, steps: int) -> None:
        self._console = Console(stderr=True)
        self._steps = steps
        self._number = 0
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=False,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False)

    def skipped(self, title: str) -> None:
        """A step that an earlier run has done."""
        self._number += 1
        self.note(f"[dim]{self._number}/{self._steps}  {title}: done before[/]")

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """One step; yields what is to be told ``(done, total)``."""
        self._number += 1
        begun = last = time.monotonic()
        bar: TaskID = self._bars.add_task(f"{self._number}/{self._steps}  {title}", total=None, note="")
        if not self._console.is_terminal:
            self.note(f"{self._number}/{self._steps}  {title}")

        def report(done: int, total: int) -> None:
            nonlocal last
            self._bars.update(bar, completed=done, total=total)
            now = time.monotonic()
            if not self._console.is_terminal and now - last > _LOG_SECONDS:
                last = now
                self.note(f"      {done}/{total}")

        yield report
        task = next(t for t in self._bars.tasks if t.id == bar)
        total = task.total or 1
        self._bars.update(bar, completed=total, total=total)
        self._bars.stop_task(bar)
        if not self._console.is_terminal:
            self.note(f"      done in {time.monotonic() - begun:.1f} s")
