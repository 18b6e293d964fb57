"""Peak memory of this process and all below it, from the kernel's proportional set sizes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

EVERY = 0.1


def peak(work: Callable[[], object]) -> int:
    """Bytes that all processes together took at most while ``work`` ran, looked at ten times a second."""
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            seen[0] = max(seen[0], tree_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        work()
    finally:
        done.set()
        thread.join()
    return seen[0]


def tree_bytes() -> int:
    total, waiting = 0, ["self"]
    while waiting:
        pid = waiting.pop()
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += (thread / "children").read_text(encoding="ascii").split()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
    return total
