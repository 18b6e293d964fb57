"""The embedded executor: a pool of threads or processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from typing import Literal, Self, TypeVar

__all__ = ["LocalExecutor"]

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """Runs shards in a pool; a context manager that stops the workers at its end.

    Threads are enough for whole benchmark runs, which wait for sandboxed model processes and for decoders that
    release the interpreter's lock. Processes are for functions that compute in Python itself; they are started
    fresh (``spawn``), because a fork of a process with threads may hang.

    Args:
        workers: Size of the pool; None takes one a processor that this process may use.
        kind: ``"threads"`` or ``"processes"``.
    """

    name = "local"

    def __init__(self, workers: int | None = None, *, kind: Literal["threads", "processes"] = "threads") -> None:
        if workers is not None and workers < 1:
            raise ValueError("workers must be at least 1.")
        size = workers or len(os.sched_getaffinity(0))
        self._pool: Pool = (
            ThreadPoolExecutor(size, thread_name_prefix="gas-shard")
            if kind == "threads"
            else ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("spawn"))
        )

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
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

    def close(self) -> None:
        """Give up what has not begun, wait for what has, and stop the workers."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
