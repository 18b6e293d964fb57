"""The feed of a run: which shape a model asks for, and media decoded ahead of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError
from gas.media.target import Target
from gas.sandbox.base import ModelSpec
from gas.types import Modality

__all__ = ["Ahead", "RoundMedia", "fitting_batch", "target_of"]

T = TypeVar("T")
R = TypeVar("R")

_DTYPES = {Modality.IMAGE: "uint8", Modality.VIDEO: "uint8", Modality.AUDIO: "float32"}
_BATCH_BYTES = 16 * 2**20
_DIMENSIONS = {Modality.IMAGE: 3, Modality.VIDEO: 4, Modality.AUDIO: 1}


class RoundMedia(Protocol):
    """The media of one round, decoded once and brought to any model's shape."""

    def fetch(
        self, sample_ids: Sequence[str], target: Target, *, robust: bool
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Inputs of some samples; called from several threads at once.

        Args:
            sample_ids: Which samples.
            target: Shape and dtype to deliver.
            robust: Whether the sharing chain is applied before preprocessing.

        Returns:
            Inputs of shape (n, *target.shape), and a mask of shape (n,) that is false where the medium can't be
            decoded (its input is then zeros).

        Raises:
            gas.errors.StorageError: The media can't be read.
        """
        ...


def target_of(spec: ModelSpec, modality: Modality) -> Target:
    """The preprocessing target of ``spec`` in a round of ``modality``.

    Raises:
        gas.errors.ConfigurationError: The model reads another kind of medium (code ``wrong_modality``).
    """
    fits = len(spec.input_shape) == _DIMENSIONS[modality] and spec.input_dtype == _DTYPES[modality]
    if not fits or min(spec.input_shape) < 1:
        raise ConfigurationError(
            f"The model reads {spec.input_dtype} of shape {spec.input_shape}, which is no {modality.value}.",
            code="wrong_modality",
            hint="Benchmark it on a round of its own modality.",
        )
    return Target(modality, spec.input_shape, spec.input_dtype, spec.input_rate)


def fitting_batch(most: int, spec: ModelSpec) -> int:
    """Samples of a batch: at most ``most``, and no more than fill 16 MiB, so that clips don't take all the memory.

    A batch of clips is a second's work as it is; larger ones only keep the model waiting for the first.
    """
    nbytes = int(np.prod(spec.input_shape)) * np.dtype(spec.input_dtype).itemsize
    return max(1, min(most, _BATCH_BYTES // nbytes))


class Ahead(Generic[T, R]):
    """Applies a function to items in threads, ahead of the threads that take the results.

    Results come in the order of the items; each goes to exactly one taker. At most ``depth`` items are in memory.
    """

    def __init__(self, function: Callable[[T], R], items: Iterable[T], *, threads: int, depth: int) -> None:
        self._function = function
        self._items: Iterator[T] = iter(items)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gas-decode")
        self._pending: deque[tuple[T, Future[R]]] = deque()
        self._lock = Lock()
        for _ in range(depth):
            self._submit()

    def take(self) -> tuple[T, R] | None:
        """The next item with its result; None at the end. An exception of the function is raised here."""
        with self._lock:
            if not self._pending:
                return None
            item, future = self._pending.popleft()
            self._submit()
        return item, future.result()

    def take_ready(self, spare: int) -> tuple[T, R] | None:
        """As :meth:`take`, but None instead of waiting, and when no more than ``spare`` items are left to take."""
        with self._lock:
            if len(self._pending) <= spare or not self._pending[0][1].done():
                return None
            item, future = self._pending.popleft()
            self._submit()
        return item, future.result()

    def close(self) -> None:
        """Give up what has not begun and stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        for item in self._items:
            self._pending.append((item, self._pool.submit(self._function, item)))
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
