"""The choice of where a run is computed: on this machine, or over the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from gas.bench.executors.base import Executor
from gas.bench.journal import Journal
from gas.bench.local import SetBlobs, evaluate_package
from gas.bench.runs import Progress, RunConfig, RunResult
from gas.bench.shards import ShardNews, evaluate_sharded
from gas.clock import Clock
from gas.datasets.plan import Round
from gas.sandbox.base import Sandbox
from gas.submissions.package import Package

__all__ = ["evaluate_on", "open_executor"]


@contextmanager
def open_executor(name: str, processes: int | None = None, device: str = "cpu") -> Iterator[Executor | None]:
    """What :attr:`gas.bench.settings.BenchSettings.executor` names; None for this machine alone, without shards.

    Args:
        name: ``local``, ``ray``, or an address.
        processes: Model processes of a shard; 1 when left out.
        device: ``cuda`` asks for machines with a graphics card.

    Raises:
        gas.errors.InfrastructureError: ``cluster_unreachable``.
        gas.errors.ConfigurationError: ``ray_missing``, ``cluster_version``, or ``cluster_elsewhere``.
    """
    if name == "local":
        yield None
        return
    from gas.bench.executors.ray import RayExecutor

    address = None if name == "ray" else name
    with RayExecutor(address, cpus=processes or 1, gpus=float(device == "cuda")) as executor:
        yield executor


def evaluate_on(
    name: str,
    archive: Path,
    checked: Package,
    round_: Round,
    blobs: SetBlobs,
    sandbox: Sandbox,
    config: RunConfig,
    *,
    work: Path,
    pixels: Path,
    journal: Journal,
    on_progress: Callable[[Progress], None] | None = None,
    on_shard: Callable[[ShardNews], None] | None = None,
    clock: Clock | None = None,
    executor: Executor | None = None,
) -> tuple[RunResult, Mapping[str, str]]:
    """One checked package on one round, here or on a cluster: what :func:`run` does between plan and figures.

    ``name`` and ``config`` are looked at as by :func:`open_executor`, unless an ``executor`` is open already;
    everything else is as for :func:`gas.bench.shards.evaluate_sharded`.

    Raises:
        gas.errors.GasError: As :func:`gas.bench.shards.evaluate_sharded` and :func:`open_executor`.
    """
    with nullcontext(executor) if executor else open_executor(name, config.processes, config.device) as chosen:
        if chosen is None:
            return evaluate_package(
                archive,
                checked,
                round_,
                blobs,
                sandbox,
                config,
                work=work,
                pixels=pixels,
                journal=journal,
                on_progress=on_progress,
                clock=clock,
            )
        return evaluate_sharded(
            archive,
            checked,
            round_,
            blobs,
            sandbox,
            config,
            chosen,
            work=work,
            pixels=pixels,
            journal=journal,
            on_progress=on_progress,
            on_shard=on_shard,
            clock=clock,
        )
