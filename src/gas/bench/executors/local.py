"""The embedded executor: a pool of threads or processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Generic, Literal, Self, TypeVar

from gas.bench.executors.base import OnLost, Shared

__all__ = ["LocalExecutor"]

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """Runs shards in a pool; a context manager that stops the workers at its end.

    Threads are enough for whole benchmark runs, which wait for sandboxed model processes and for decoders that
    release the interpreter's lock. Processes are for functions that compute in Python itself; they are started
    fresh (``spawn``), because a fork of a process with threads may hang. They say nothing before an item is done.

    Args:
        workers: Size of the pool; None takes one a processor that this process may use.
        kind: ``"threads"`` or ``"processes"``.
    """

    name = "local"

    def __init__(self, workers: int | None = None, *, kind: Literal["threads", "processes"] = "threads") -> None:
        if workers is not None and workers < 1:
            raise ValueError("workers must be at least 1.")
        self._size = workers or len(os.sched_getaffinity(0))
        self._threads = kind == "threads"
        self._pool: Pool = (
            ThreadPoolExecutor(self._size, thread_name_prefix="gas-shard")
            if kind == "threads"
            else ProcessPoolExecutor(self._size, mp_context=multiprocessing.get_context("spawn"))
        )

    @property
    def slots(self) -> int:
        """Size of the pool."""
        return self._size

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index, result)`` as results come.

        The first exception of ``function`` is raised here, and shards that have not begun are given up; so they
        are when the caller stops early.
        """
        futures = {self._pool.submit(function, item): index for index, item in enumerate(items)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()

    def stream(
        self,
        function: Callable[[T], Iterable[R]],
        items: Sequence[T],
        on_lost: OnLost | None = None,  # noqa: ARG002
    ) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index, piece)``; this machine is never lost without the caller, so nothing begins again."""
        if not self._threads:
            for index, pieces in self.map(_Collected(function), items):
                yield from ((index, one) for one in pieces)
            return
        said: queue.SimpleQueue[tuple[int, R | _End]] = queue.SimpleQueue()
        stopped = Event()

        def speak(index: int) -> None:
            pieces = iter(function(items[index]))
            try:
                for piece in pieces:
                    said.put((index, piece))
                    if stopped.is_set():
                        return
            finally:
                if isinstance(pieces, Iterator) and hasattr(pieces, "close"):
                    pieces.close()

        def end(future: Future[None]) -> None:
            said.put((-1, _End(None if future.cancelled() else future.exception())))

        futures = [self._pool.submit(speak, index) for index in range(len(items))]
        for future in futures:
            future.add_done_callback(end)
        left = len(futures)
        try:
            while left:
                index, piece = said.get()
                if not isinstance(piece, _End):
                    yield index, piece
                    continue
                left -= 1
                if piece.error is not None:
                    raise piece.error
        finally:
            stopped.set()
            for future in futures:
                future.cancel()

    def share(self, data: bytes) -> Shared:
        """The bytes themselves."""
        return _Bytes(data)

    def close(self) -> None:
        """Give up what has not begun, wait for what has, and stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Bytes:
    data: bytes

    def load(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class _Collected(Generic[T, R]):
    """The pieces of an item all at once: a generator doesn't cross processes."""

    function: Callable[[T], Iterable[R]]

    def __call__(self, item: T) -> list[R]:
        return list(self.function(item))
