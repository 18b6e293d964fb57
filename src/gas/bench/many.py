"""Many models on the same data: one after another here, side by side on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from gas.bench.anywhere import open_executor
from gas.bench.public import BenchRun, Watch, run
from gas.bench.settings import BenchSettings
from gas.clock import Clock
from gas.errors import GasError, SandboxUnavailable
from gas.sandbox import Limits, Sandbox, Tier, best_sandbox
from gas.sandbox.spares import Spares
from gas.types import Modality

__all__ = ["run_many"]


def run_many(
    models: Sequence[Path],
    modality: Modality | None = None,
    settings: BenchSettings | None = None,
    *,
    watch: Callable[[Path], Watch] | None = None,
    limits: Limits | None = None,
    at_once: int = 4,
    clock: Clock | None = None,
) -> tuple[BenchRun | GasError, ...]:
    """Benchmark several models with the same settings.

    Each has its own folder and journal, as by :func:`gas.bench.public.run`. On one machine they run one after another
    and share the decoded media; on a cluster the shards of ``at_once`` of them are spread side by side over all
    machines.

    Args:
        models: Packages: zips, folders, or ``.onnx`` files.
        modality: What all of them are expected to look at.
        settings: How; the defaults when left out.
        watch: Who wants to know how far a model is; asked once a model, and told from several threads.
        limits: What one model process may use.
        at_once: Models side by side on a cluster, at least 1.
        clock: Source of wall-clock times.

    Returns:
        What came of each model, in the order of ``models``: its run, or the error that :func:`gas.bench.public.run`
        would have raised. One model's failure costs the others nothing.

    Raises:
        gas.errors.InfrastructureError: ``cluster_unreachable``.
        gas.errors.ConfigurationError: There is no such executor here.
    """
    settings = settings or BenchSettings()
    with open_executor(settings.executor, settings.processes) as executor, ExitStack() as stack:
        sandbox = None
        if executor is None and len(models) > 1:
            sandbox = _warm(settings, stack)

        def one(model: Path) -> BenchRun | GasError:
            seen = watch(model) if watch else None
            try:
                return run(
                    model,
                    modality,
                    settings,
                    watch=seen,
                    limits=limits,
                    clock=clock,
                    executor=executor,
                    sandbox=sandbox,
                )
            except GasError as error:
                return error

        if executor is None:
            return tuple(map(one, models))
        with ThreadPoolExecutor(max(1, at_once), thread_name_prefix="gas-many") as pool:
            return tuple(pool.map(one, models))


def _warm(settings: BenchSettings, stack: ExitStack) -> Sandbox | None:
    """A sandbox that has processes waiting for the next model; None where nothing isolates, which each run says."""
    weakest = Tier.PLAIN if settings.trust_model else Tier.NAMESPACES
    most = settings.processes or len(os.sched_getaffinity(0))
    with suppress(SandboxUnavailable):
        return stack.enter_context(Spares(best_sandbox(weakest), most=most, refill=False))
    return None
