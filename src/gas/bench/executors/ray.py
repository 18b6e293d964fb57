"""The scaled executor: the machines of a Ray cluster.

Ray pickles our own functions' names, items and results between machines that trust each other; what strangers have
sent travels as bytes. A machine that is lost takes nothing with it: its items are computed again elsewhere, a few times
at most. An item's own failure is never taken for a lost machine, and is not tried again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from gas.bench.executors.base import OnLost, Shared
from gas.bench.executors.ray_link import Link, connect, lost_errors
from gas.errors import ConfigurationError, InfrastructureError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["RayExecutor"]

T = TypeVar("T")
R = TypeVar("R")

_LOSSES: Final = 3
"""How often one item may lose its machine; a fourth time it is no accident."""

_LOOK_SECONDS: Final = 5.0
"""How often the size of the cluster is looked at while nothing happens."""


class RayExecutor:
    """Runs shards on a cluster; a context manager that lets go of it at its end.

    Args:
        address: ``host:port`` of a cluster that this machine is part of, ``ray://host:port`` of any other. When left
            out, what ``RAY_ADDRESS`` says, or the cluster that runs on this machine, or a small one that is started
            here and ends with this object.
        cpus: Processors that one item takes.
        gpus: Graphics cards that it takes; machines without one then compute nothing.
        patience: Seconds that the cluster has to answer.

    Raises:
        InfrastructureError: ``cluster_unreachable``: nobody answers there.
        ConfigurationError: The address is none (``cluster_address``), Ray is not installed (``ray_missing``), or the
            cluster runs another version of Python or Ray (``cluster_version``).
    """

    name = "ray"

    def __init__(self, address: str | None = None, *, cpus: int = 1, gpus: float = 0.0, patience: float = 15.0) -> None:
        self._needs = {"CPU": float(cpus), "GPU": gpus} if gpus else {"CPU": float(cpus)}
        self._link: Link | None = connect(address, patience)

    @property
    def slots(self) -> int:
        """Items that all living machines together can hold."""
        return _room(self._ray, self._needs)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index, result)`` as results come; items of lost machines are computed again."""
        return self.stream(_Single(function), items)

    def stream(
        self, function: Callable[[T], Iterable[R]], items: Sequence[T], on_lost: OnLost | None = None
    ) -> Generator[tuple[int, R], None, None]:
        """Yield ``(index, piece)`` as pieces come; through ``ray://`` all pieces of an item come at its end.

        Raises:
            InfrastructureError: ``shard_lost``, or ``cluster_lost``: the cluster itself has gone.
            ConfigurationError: ``node_code``: a machine of the cluster can't import the function.
        """
        return _Stream(self._ray, self._needs, function, items, on_lost, whole=self._whole).run()

    def share(self, data: bytes) -> Shared:
        """Put bytes into the cluster's own store."""
        return _InStore(self._ray.put(data))

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _ray(self) -> ModuleType:
        if self._link is None:
            raise InfrastructureError("The executor is closed.", code="cluster_closed")
        return self._link.ray

    @property
    def _whole(self) -> bool:
        return self._link is not None and self._link.client


@dataclass(frozen=True, slots=True)
class _InStore:
    ref: Any

    def load(self) -> bytes:
        import ray

        data = ray.get(self.ref)
        if not isinstance(data, bytes):
            raise TypeError("The store holds something else than bytes.")
        return data


@dataclass(frozen=True, slots=True)
class _Single(Generic[T, R]):
    """A function of one result as one of pieces."""

    function: Callable[[T], R]

    def __call__(self, item: T) -> Iterator[R]:
        yield self.function(item)


def _pieces(function: Callable[[T], Iterable[R]], item: T) -> Iterator[R]:
    # No `yield from`: Ray sends into what it is given, and an iterator that is no generator can't take that.
    for piece in function(item):  # noqa: UP028
        yield piece


def _all_pieces(function: Callable[[T], Iterable[R]], item: T) -> list[R]:
    return list(function(item))


class _Stream(Generic[T, R]):
    """One call of :meth:`RayExecutor.stream`: what waits, and what is on its way."""

    def __init__(
        self,
        ray: ModuleType,
        needs: Mapping[str, float],
        function: Callable[[T], Iterable[R]],
        items: Sequence[T],
        on_lost: OnLost | None,
        *,
        whole: bool,
    ) -> None:
        self._ray, self._needs, self._slots, self._function = ray, needs, _room(ray, needs), function
        self._items, self._on_lost, self._whole = items, on_lost, whole
        self._waiting = deque(range(len(self._items)))
        self._losses = [0] * len(self._items)
        self._going: dict[Any, int] = {}
        # Ray's own repetition is off: it doesn't know what has arrived already.
        options: dict[str, Any] = {"num_cpus": needs["CPU"], "num_gpus": needs.get("GPU"), "max_retries": 0}
        if not whole:
            options["num_returns"] = "streaming"
        self._task = ray.remote(**options)(_all_pieces if whole else _pieces)

    def run(self) -> Generator[tuple[int, R], None, None]:
        try:
            while self._waiting or self._going:
                self._submit()
                ready, _ = self._ray.wait(list(self._going), num_returns=1, timeout=_LOOK_SECONDS)
                if not ready:
                    self._slots = _room(self._ray, self._needs)  # machines come and go
                for task in ready:
                    index = self._going[task]
                    for piece in self._take(task):
                        yield index, piece
        finally:
            self._give_up()

    def _submit(self) -> None:
        # One more than fits, so that no processor waits for this loop.
        while self._waiting and len(self._going) <= self._slots:
            index = self._waiting.popleft()
            self._going[self._task.remote(self._function, self._items[index])] = index

    def _take(self, task: Any) -> list[R]:
        """The next piece of a task that has something to say; nothing at its end."""
        try:
            if self._whole:
                pieces: list[R] = self._ray.get(task)
                del self._going[task]
                return pieces
            try:
                ref = next(task)
            except StopIteration:
                del self._going[task]
                return []
            return [self._ray.get(ref)]
        except lost_errors() as error:
            self._lose(self._going.pop(task), error)
            return []
        except self._ray.exceptions.RayTaskError as error:
            del self._going[task]
            raise _own_error(error, self._ray) from None
        except self._ray.exceptions.RayError as error:
            raise InfrastructureError(
                f"The cluster has gone ({type(error).__name__}).",
                code="cluster_lost",
                hint="What was answered so far is kept; start the same command again.",
            ) from error

    def _lose(self, index: int, error: BaseException) -> None:
        self._losses[index] += 1
        reason = type(error).__name__
        if self._losses[index] > _LOSSES:
            raise InfrastructureError(
                f"Shard {index} has lost its machine {self._losses[index]} times ({reason}).",
                code="shard_lost",
                hint="Look at the machines' memory and logs; what was answered so far is kept.",
            )
        if self._on_lost is not None:
            self._on_lost(index, reason)
        self._waiting.appendleft(index)

    def _give_up(self) -> None:
        for task in self._going:
            with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):
                self._ray.cancel(task, force=False)
        self._going.clear()


def _room(ray: ModuleType, needs: Mapping[str, float]) -> int:
    """How many items of such needs fit on the machines that live; 1 at least, for the machine that is to come."""
    there = ray.cluster_resources()
    return max(1, min(int(float(there.get(name, 0.0)) // number) for name, number in needs.items()))


def _own_error(error: Any, ray: ModuleType) -> BaseException:
    """What the function itself has raised."""
    cause = error.cause
    if isinstance(cause, ray.exceptions.RaySystemError) and "ModuleNotFoundError" in str(cause):
        return ConfigurationError(
            "A machine of the cluster can't import what it should run.",
            code="node_code",
            hint="Install the same version of gas on every machine of the cluster.",
        )
    return cause if isinstance(cause, BaseException) else InfrastructureError(f"A shard failed ({error}).")
