"""Start a confined tree and hold it at a gate until it is known and in its control group; the same for every rung."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from gas.errors import SandboxUnavailable
from gas.sandbox.cgroups import Group
from gas.sandbox.layout import PRIVATE
from gas.sandbox.tree import Start, Tree, printable

__all__ = ["FileCounter", "Watch", "start_guarded"]


class Watch(Protocol):
    """Looks now and then at what the kernel does not limit by itself."""

    def watch(self, number: int, handle: int) -> None:
        """Look at the folders of this process: its number, and the descriptor that is surely this process."""
        ...

    def overdrawn(self) -> str:
        """A sentence when a limit is overdrawn; empty otherwise."""
        ...

    def close(self) -> None:
        """Free what it holds; may be called twice."""
        ...


def start_guarded(
    command: Callable[[int, int], list[str]],
    start: Start,
    *,
    who: str,
    more: Iterable[int] = (),
    group: Group | None = None,
    watch: Watch | None = None,
    environment: dict[str, str] | None = None,
) -> Tree:
    """Start a program that makes a tree with a space of process numbers of its own.

    The program writes JSON with the number of the tree's first process (``child-pid``) to one descriptor, and keeps
    that process waiting until a byte comes from another.

    Args:
        command: Makes the command line from those two descriptors.
        start: What the runner gets.
        who: Name of the program, for the error.
        more: Descriptors for the program itself.
        group: The tree's control group; removed with the tree.
        watch: Looked at while waiting for the model.
        environment: Of the program; the model's is another.

    Raises:
        gas.errors.SandboxUnavailable: The isolation could not be set up.
    """
    with contextlib.ExitStack() as stack:
        try:
            info, info_inside = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, info)
            gate_inside, gate = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, gate)
            try:
                process = subprocess.Popen(
                    command(info_inside, gate_inside),
                    stdin=subprocess.DEVNULL,
                    stdout=start.pipes.errors_inside,
                    stderr=start.pipes.errors_inside,
                    pass_fds=(*start.descriptors, *more, info_inside, gate_inside),
                    env=environment or {},
                    cwd="/",
                )
            finally:
                os.close(info_inside)
                os.close(gate_inside)
        except OSError:
            _forget(group, watch)
            raise
        first: list[int] = []

        def kill() -> None:
            if first:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(first[0], signal.SIGKILL)
            else:
                process.kill()

        def release() -> None:
            while first:
                os.close(first.pop())
            _forget(group, watch)

        tree = Tree(
            process,
            start.pipes,
            kill=kill,
            release=release,
            guarded=True,
            starved=group.starved if group else lambda: False,
            overdrawn=watch.overdrawn if watch else lambda: "",
        )
        try:
            # The gate keeps the tree's first process waiting, so its number can't be somebody else's yet.
            number = _first_process(info, start.deadline, who)
            first.append(os.pidfd_open(number))
            if watch:
                watch.watch(number, first[0])
            if group:
                group.join(number)
            _offer_first(number)
            os.write(gate, b"x")
        except SandboxUnavailable:
            # It has ended, or says nothing: what it has printed tells why.
            tree.outcome()
            tree.kill()
            words = printable(tree.tail, 500) or None
            raise SandboxUnavailable(f"{who} could not set up the isolation.", hint=words) from None
        except OSError as error:
            tree.kill()
            words = printable(tree.tail, 500) or None
            raise SandboxUnavailable(f"{who} could not be held: {error.strerror}.", hint=words) from error
        return tree


def _forget(group: Group | None, watch: Watch | None) -> None:
    if watch:
        watch.close()
    if group:
        group.remove()


def _offer_first(number: int) -> None:
    """Where the machine itself runs out of memory, let it take the model, and not a worker or a database."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{number}/oom_score_adj").write_text("1000", encoding="ascii")


def _first_process(info: int, deadline: float, who: str) -> int:
    """Read what the program says about the tree; its JSON ends with a closing brace."""
    text = b""
    while b"}" not in text:
        poll = select.poll()
        poll.register(info, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxUnavailable(f"{who} says nothing.")
        part = os.read(info, 4096)
        if not part:
            raise SandboxUnavailable(f"{who} ended.")
        text += part
    try:
        return int(json.loads(text)["child-pid"])
    except (ValueError, KeyError, TypeError) as error:
        raise SandboxUnavailable(f"The report of {who} is not understood.") from error


class FileCounter:
    """Counts the files in the tree's private folders: bubblewrap can limit their bytes, but not their number.

    Args:
        most: Files, folders and links that one folder may hold.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._process = (0, -1)
        self._open: list[int] = []

    def watch(self, number: int, handle: int) -> None:
        """Look at the folders of this process: its number, and the descriptor that is surely this process."""
        self._process = (number, handle)

    def overdrawn(self) -> str:
        """A sentence when there are too many files; empty otherwise."""
        if not self._open and not self._reach():
            return ""
        for descriptor, folder in zip(self._open, PRIVATE, strict=True):
            found = os.fstatvfs(descriptor)
            if found.f_files - found.f_ffree > self._most:
                return f"The model made more than {self._most} files in {folder}."
        return ""

    def _reach(self) -> bool:
        """Open the folders, once they are mounted."""
        number, handle = self._process
        opened: list[int] = []
        try:
            # Until the tree has its own root, these paths still mean the host's folders.
            host = {path.stat().st_dev for path in map(Path, ("/", "/dev", *PRIVATE)) if path.exists()}
            for folder in PRIVATE:
                path = f"/proc/{number}/root{folder}"
                opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            signal.pidfd_send_signal(handle, 0)
            private = host.isdisjoint(os.fstat(one).st_dev for one in opened)
        except OSError:
            private = False
        if private:
            self._open = opened
        else:
            for descriptor in opened:
                os.close(descriptor)
        return private

    def close(self) -> None:
        """Let the folders go; may be called twice."""
        while self._open:
            os.close(self._open.pop())
