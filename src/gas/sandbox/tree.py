"""A running process tree as the parent sees it: three pipes, a deadline for every step, and a way to kill it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Ended", "Late", "Overdrawn", "Pipes", "Start", "Tree", "printable"]

_TAIL_BYTES = 4096
_PATIENCE = 5.0
"""Seconds that a tree gets to disappear after it was killed, or to end after it closed its channel."""
_GLANCE = 0.2
"""Seconds between two looks at what the kernel doesn't limit by itself."""


class Ended(Exception):
    """The tree closed its end before it said everything."""


class Late(Exception):
    """The deadline passed."""


class Overdrawn(Exception):
    """The tree took more than a limit that the kernel doesn't enforce; says which, in one sentence."""


def printable(text: bytes | str, limit: int = _TAIL_BYTES) -> str:
    """Make a stranger's output safe to show: no control characters, bounded, the end of it.

    Args:
        text: Anything.
        limit: Most characters to keep.
    """
    decoded = text.decode(errors="replace") if isinstance(text, bytes) else text
    clean = "".join(c if c.isprintable() or c == "\n" else " " if c in "\t\r" else "�" for c in decoded)
    return clean[-limit:].strip()


class Pipes:
    """The ends of one session's pipes, before there is a process.

    ``requests`` carries frames to the child, ``answers`` frames back, ``errors`` whatever it prints.
    """

    def __init__(self) -> None:
        self.requests_inside, self.requests = os.pipe2(os.O_CLOEXEC)
        self.answers, self.answers_inside = os.pipe2(os.O_CLOEXEC)
        self.errors, self.errors_inside = os.pipe2(os.O_CLOEXEC)
        for descriptor in (self.requests, self.answers, self.errors):
            os.set_blocking(descriptor, False)
        self._inside = [self.requests_inside, self.answers_inside, self.errors_inside]
        self._outside = [self.requests, self.answers, self.errors]

    def close_inside(self) -> None:
        """Close the child's ends; without this the parent would never see an end of file."""
        while self._inside:
            os.close(self._inside.pop())

    def close(self) -> None:
        """Close everything; may be called twice."""
        self.close_inside()
        while self._outside:
            os.close(self._outside.pop())


@dataclass(frozen=True, slots=True)
class Start:
    """What a runner is started with, on every rung.

    Attributes:
        pipes: Of its session.
        memory: Descriptor of the input.
        settings: Descriptor with what the runner must know to confine itself.
        deadline: On the monotonic clock, for everything that is ours.
    """

    pipes: Pipes
    memory: int
    settings: int
    deadline: float

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that the runner gets, but for its output."""
        return (self.pipes.requests_inside, self.pipes.answers_inside, self.memory, self.settings)


class Tree:
    """A started process tree.

    Args:
        process: The outermost process; must have been started with the inside ends of ``pipes``.
        pipes: Owned from now on.
        kill: Kills every process of the tree but perhaps the outermost one, which then ends by itself.
        release: Frees what belongs to the tree (groups, descriptors) once it is gone.
        guarded: Whether the outermost process is ours, out of the model's reach: then a signal that kills it
            came from outside.
        starved: Says whether the kernel killed something of the tree for want of memory.
        overdrawn: Looked at while waiting: which limit was overdrawn, in one sentence, or nothing.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        pipes: Pipes,
        *,
        kill: Callable[[], None],
        release: Callable[[], None] = lambda: None,
        guarded: bool = False,
        starved: Callable[[], bool] = lambda: False,
        overdrawn: Callable[[], str] = lambda: "",
    ) -> None:
        self._process = process
        self._pipes = pipes
        self._kill = kill
        self._release = release
        self._guarded = guarded
        self._starved = starved
        self._overdrawn = overdrawn
        self._next_glance = 0.0
        self._tail = b""
        self._killed = False
        self._errors_open = True
        pipes.close_inside()

    @property
    def pid(self) -> int:
        """Process id of the outermost process."""
        return self._process.pid

    @property
    def tail(self) -> str:
        """The end of what the tree printed, printable, at most 4 KiB."""
        return printable(self._tail)

    @property
    def was_killed_from_outside(self) -> bool:
        """Whether something that is not the model killed the outermost process."""
        code = self._process.returncode
        return self._guarded and code is not None and code < 0

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed something of the tree for want of memory; only known inside a group."""
        return self._starved()

    def _drain(self) -> None:
        """Take what was printed, so that a chatty model does not block on a full pipe."""
        try:
            data = os.read(self._pipes.errors, 65536)
        except BlockingIOError:
            return
        if data:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
        else:
            self._errors_open = False

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        """Wait until a descriptor is ready; drain the tree's output and watch its limits meanwhile."""
        while True:
            now = time.monotonic()
            left = deadline - now
            if left <= 0:
                raise Late
            if now >= self._next_glance:
                self._next_glance = now + _GLANCE
                if reason := self._overdrawn():
                    raise Overdrawn(reason)
            poll = select.poll()
            poll.register(descriptor, event)
            if self._errors_open:
                poll.register(self._pipes.errors, select.POLLIN)
            ready = dict(poll.poll(min(left, _GLANCE) * 1000))
            if self._pipes.errors in ready:
                self._drain()
            if descriptor in ready:
                return

    def send(self, data: bytes, deadline: float) -> None:
        """Write a frame.

        Args:
            data: The whole frame.
            deadline: On the monotonic clock.

        Raises:
            Ended: Nobody reads any more.
            Late: The deadline passed.
            Overdrawn: A limit was overdrawn.
        """
        view = memoryview(data)
        while view:
            self._wait(self._pipes.requests, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._pipes.requests, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise Ended from error

    def receive(self, size: int, deadline: float) -> bytes:
        """Read exactly ``size`` bytes of answers.

        Raises:
            Ended: The tree closed its end earlier.
            Late: The deadline passed.
            Overdrawn: A limit was overdrawn.
        """
        parts: list[bytes] = []
        while size:
            self._wait(self._pipes.answers, select.POLLIN, deadline)
            try:
                part = os.read(self._pipes.answers, size)
            except BlockingIOError:
                continue
            if not part:
                raise Ended
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def has_unread_answers(self) -> bool:
        """Whether bytes lie in the pipe that nobody has asked for."""
        poll = select.poll()
        poll.register(self._pipes.answers, select.POLLIN)
        return any(event & select.POLLIN for _, event in poll.poll(0))

    def outcome(self) -> int | None:
        """Wait shortly for the outermost process to end by itself.

        Returns:
            Its return code as :mod:`subprocess` gives it (negative: killed by that signal), or None when it
            still runs.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._drain_all()
        return self._process.returncode

    def _drain_all(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self._errors_open and time.monotonic() < deadline:
            before = self._tail
            self._drain()
            if self._tail == before:
                return

    def kill(self) -> None:
        """Kill every process of the tree, wait until it is gone, and free its resources; may be called twice."""
        if self._killed:
            return
        self._killed = True
        self._kill()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._drain_all()
        self._pipes.close()
        self._release()
