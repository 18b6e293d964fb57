"""Evaluate one model in the sandbox, on a frozen round or on data sets of one's own; score it; show it.

The library's own door is here: :func:`run`, :func:`run_many`, :func:`compare` and :class:`BenchSettings`; what they
need is imported when they are called. Everything else is imported from its module, so that a command that only needs
figures loads no more than figures:

- ``public`` is :func:`run` and :func:`compare` with their results; ``material`` finds and draws the data;
- ``engine.evaluate`` runs a model; ``runs`` holds its settings and its result, ``feed`` brings the media,
  ``batches`` decides the secret order, ``records`` is the result's form on disk;
- ``metrics.compute_metrics`` scores the records, ``metrics.judgements`` says whom they paid;
- ``summary`` and ``report`` turn runs into HTML pages; ``results`` into JSON;
- ``anywhere`` chooses between this machine and a cluster, ``shards`` is a run on a cluster, ``executors`` says where
  its shards are computed; ``many`` is :func:`run_many`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gas.bench.settings import BenchSettings
from gas.types import Modality

if TYPE_CHECKING:
    from gas.bench.comparison import Comparison
    from gas.bench.public import BenchRun, Watch
    from gas.clock import Clock
    from gas.errors import GasError
    from gas.sandbox.base import Limits

__all__ = ["BenchSettings", "compare", "run", "run_many"]


def run(
    model: Path,
    modality: Modality | None = None,
    settings: BenchSettings | None = None,
    *,
    watch: Watch | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
) -> BenchRun:
    """Benchmark a model in the sandbox on data sets of one's own; see :func:`gas.bench.public.run`."""
    from gas.bench import public

    return public.run(model, modality, settings, watch=watch, limits=limits, clock=clock)


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
    """Benchmark several models, side by side on a cluster; see :func:`gas.bench.many.run_many`."""
    from gas.bench import many

    return many.run_many(models, modality, settings, watch=watch, limits=limits, at_once=at_once, clock=clock)


def compare(first: BenchRun | Path, second: BenchRun | Path) -> Comparison:
    """Which of two runs on one plan is better, and how sure that is; see :func:`gas.bench.public.compare`."""
    from gas.bench import public

    return public.compare(first, second)
