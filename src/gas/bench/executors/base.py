"""The executor's seam: where the shards of a benchmark run are computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final, Protocol, Self, TypeVar

__all__ = ["Executor", "OnLost", "Shared", "is_address"]

T = TypeVar("T")
R = TypeVar("R")

_ADDRESS: Final = re.compile(r"(ray://)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

OnLost = Callable[[int, str], None]
"""Told an item's index and why its machine was lost, before the item is looked up again to be computed elsewhere."""


def is_address(text: str) -> bool:
    """Whether a text names a cluster: ``host:port`` or ``ray://host:port``."""
    found = _ADDRESS.fullmatch(text)
    return found is not None and 0 < int(found[3]) < 2**16


class Shared(Protocol):
    """Bytes that were handed to an executor once and can be read wherever its functions run."""

    def load(self) -> bytes:
        """The bytes; called inside a function that the executor runs."""
        ...


class Executor(Protocol):
    """Applies one function to many items, in any order, somewhere; a context manager that stops at its end.

    Functions must be importable by their name wherever they run, and items and results picklable: they are the
    *trusted* side's own, no submitted code and nothing from outside is ever pickled. What was submitted travels as
    bytes.

    Attributes:
        name: ``"local"`` or ``"ray"``.
    """

    name: str

    @property
    def slots(self) -> int:
        """How many items can be computed at the same time just now, at least 1; may change while it runs."""
        ...

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index of the item, result)`` as results come.

        A function's exception is raised here with its own type, and items that have not begun are given up; so they
        are when the caller stops early. An item whose machine is lost is computed again elsewhere.

        Raises:
            gas.errors.InfrastructureError: ``shard_lost``: one item was lost several times.
        """
        ...

    def stream(
        self, function: Callable[[T], Iterable[R]], items: Sequence[T], on_lost: OnLost | None = None
    ) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index of the item, piece)``, each item's pieces in their order, as soon as the executor can.

        Like :meth:`map` for functions that have much to say. An item is looked up when it begins, and again when its
        machine was lost; pieces that came before come again, unless ``items`` then answers with what is left.

        Raises:
            gas.errors.InfrastructureError: ``shard_lost``: one item was lost several times.
        """
        ...

    def share(self, data: bytes) -> Shared:
        """Hand over bytes that items refer to; they are forgotten when nobody refers to them any more."""
        ...

    def close(self) -> None:
        """Stop the workers; may be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
