"""Run attempts in processes of their own: several at once, and as whatever user a rung takes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from gas.errors import SandboxUnavailable
from models.other_user import other_user

__all__ = ["Crew", "Order", "run_as_another_user", "units"]

_HOSTILE: Final = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Order:
    """What a process of the crew is for.

    Attributes:
        rung: Where it runs attempts.
        somebody_else: Whether it needs another user than root.
        spares: Whether each model is given to a process that waited for it.
        groups: Whether control groups are used where they can be made.
    """

    rung: str
    somebody_else: bool = False
    spares: bool = False
    groups: bool = True


def units(names: Sequence[str], shared: Sequence[str]) -> list[list[str]]:
    """Cut the work into pieces: those that may share a process in one, each other one by itself.

    Args:
        names: All, in order.
        shared: Those of them that may share a process; none to have each by itself.
    """
    together = [name for name in names if name in set(shared)]
    if len(together) < 2:
        return [[name] for name in names]
    return [together, *([name] for name in names if name not in set(together))]


Tell = Callable[[list[str], list[dict[str, Any]], str], None]


class Crew:
    """Processes that run attempts, each by itself; a context manager. They are kept for the next rung.

    Args:
        jobs: How many work at the same time, at least 1.
    """

    def __init__(self, jobs: int = 1) -> None:
        self._jobs = jobs
        self._idle: dict[bool, list[_Helper]] = {True: [], False: []}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for helpers in self._idle.values():
            while helpers:
                helpers.pop().close()

    def run(self, order: Order, work: Sequence[list[str]], tell: Tell) -> None:
        """Run pieces of work, and tell of each when it is done.

        Args:
            order: Where and how.
            work: Names of attempts; those in one piece may share a process.
            tell: Takes the names, the fields of their results, and why there are none. Called by one thread at a time.
        """
        waiting: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        for piece in work:
            waiting.put(piece)
        lock, stopped = threading.Lock(), threading.Event()
        broken: list[BaseException] = []

        def take_turns() -> None:
            try:
                while not stopped.is_set():
                    piece = waiting.get_nowait()
                    results, trouble = self._ask(order, piece)
                    with lock:
                        if not stopped.is_set():
                            tell(piece, results, trouble)
            except queue.Empty:
                pass
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                broken.append(error)
                stopped.set()

        threads = [threading.Thread(target=take_turns) for _ in range(min(self._jobs, len(work)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            stopped.set()
            for thread in threads:
                thread.join()
            raise
        if broken:
            raise broken[0]

    def _ask(self, order: Order, names: list[str]) -> tuple[list[dict[str, Any]], str]:
        """Have one that is free do it; one that ends meanwhile is replaced by the next call."""
        idle = self._idle[order.somebody_else]
        try:
            helper = idle.pop()
        except IndexError:
            helper = _Helper(somebody_else=order.somebody_else)
        results = helper.ask(order, names)
        if results is None:
            return [], f"the suite's own process ended with code {helper.close()}"
        idle.append(helper)
        return results, ""


class _Helper:
    """A process that takes names and answers with results, until its input ends."""

    def __init__(self, *, somebody_else: bool) -> None:
        self._stack = contextlib.ExitStack()
        if somebody_else:
            command, environment = self._stack.enter_context(other_user(_HOSTILE))
        else:
            command = [sys.executable, "-P", "-B"]
            paths = [str(_HOSTILE), *filter(None, sys.path)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [*command, "-m", "models"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd="/",
            # An interrupt from the terminal is for the one who ordered: what runs ends by itself.
            start_new_session=True,
        )

    def ask(self, order: Order, names: list[str]) -> list[dict[str, Any]] | None:
        """Have attempts run; None when the process ended instead of answering."""
        source, sink = self._process.stdout, self._process.stdin
        assert source is not None and sink is not None
        words = {"rung": order.rung, "spares": order.spares, "groups": order.groups, "names": names}
        try:
            sink.write(json.dumps(words) + "\n")
            sink.flush()
            answer = source.readline()
        except OSError:
            return None
        if not answer:
            return None
        results: list[dict[str, Any]] = json.loads(answer)
        return results

    def close(self) -> int:
        """End it; returns its code."""
        with self._stack, contextlib.suppress(OSError), self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        return self._process.returncode


def run_as_another_user(order: Order, work: Sequence[list[str]], tell: Callable[[dict[str, Any]], None]) -> None:
    """Run pieces of work as a user who is not root, one after the other, and tell of each attempt.

    Raises:
        gas.errors.SandboxUnavailable: That process ended.
    """

    def take(names: list[str], results: list[dict[str, Any]], trouble: str) -> None:
        if trouble:
            raise SandboxUnavailable(f"{trouble} at {', '.join(names)}")
        for result in results:
            tell(result)

    with Crew() as crew:
        crew.run(order, work, take)
