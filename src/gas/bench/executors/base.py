"""The executor's seam: where the shards of a benchmark run are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

__all__ = ["Executor"]

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Applies one function to many items, in any order, somewhere."""

    name: str

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield ``(index of the item, result)`` as results come; a function's exception is raised here.

        ``function`` and the items must be importable or picklable by the *trusted* side: no submitted code and
        nothing from outside is ever pickled.
        """
        ...

    def close(self) -> None:
        """Stop the workers."""
        ...
