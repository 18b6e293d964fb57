"""What `gasbench run` and :func:`gas.bench.run` are asked for; importing it costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.bench.executors.base import is_address
from gas.errors import ConfigurationError

__all__ = ["EXECUTORS", "MODES", "BenchSettings"]

EXECUTORS: Final = ("local", "ray")
"""Where a run's shards can be computed, beside the address of a cluster: ``host:port`` or ``ray://host:port``."""

MODES: Final = ("debug", "small", "full")
"""How much of the data a run takes: a few samples of every class, the size of the entrance exam, that of a round."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How a model is benchmarked on data sets of one's own.

    Attributes:
        mode: One of :data:`MODES`.
        dataset_config: Registry of the data sets: a YAML file, or the name of one that ships. The home's own registry,
            and whatever the store holds, when left out.
        holdout_config: Registry whose data sets count as held out.
        cache_dir: Folder of the data store (``data/``) and of decoded media (``pixels/``); the home when left out.
        results_dir: Where a folder for each run goes; ``results`` in the home when left out.
        batch_size: Most samples in a batch, at least 1.
        gasstation_only: Only fakes that the network's own generators made; real media of other sets stay when the
            arena has none.
        robustness: Samples of each data set that are asked again after the sharing chain; 0 for no such pass.
        seed: Of the draw of the samples, of their order and of the bootstrap; not negative.
        executor: One of :data:`EXECUTORS`, or the address of a Ray cluster. ``ray`` takes the cluster that
            ``RAY_ADDRESS`` names, else the one that runs on this machine, else it starts a small one.
        processes: Model processes side by side; as many as cores when left out.
        trust_model: Go on where nothing isolates; for one's own model only.
        again: Run anew although the same run is done.
        device: ``auto`` (a graphics card where there is one that the model can use), ``cpu`` or ``cuda``.

    Raises:
        ConfigurationError: ``unknown_mode``, ``unknown_executor`` (both say what there is), or a number out of range.
    """

    mode: str = "small"
    dataset_config: Path | None = None
    holdout_config: Path | None = None
    cache_dir: Path | None = None
    results_dir: Path | None = None
    batch_size: int = 32
    gasstation_only: bool = False
    robustness: int = 20
    seed: int = 0
    executor: str = "local"
    processes: int | None = None
    trust_model: bool = False
    again: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        for value, known, what in ((self.mode, MODES, "mode"), (self.executor, EXECUTORS, "executor")):
            if value not in known and not (what == "executor" and is_address(value)):
                raise ConfigurationError(
                    f"There is no {what} {value[:80]!r}.",
                    code=f"unknown_{what}",
                    hint=f"There {'is' if len(known) == 1 else 'are'}: {', '.join(known)}.",
                )
        if self.batch_size < 1 or self.robustness < 0 or self.seed < 0 or (self.processes or 1) < 1:
            raise ConfigurationError(
                "A run needs a batch size and processes of at least 1, and a seed that is not negative.",
                code="run_config",
            )
