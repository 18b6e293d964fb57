"""How a model is run, how far the run is, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gas.bench.records import SampleRecord
from gas.bench.timings import Timings
from gas.errors import ConfigurationError
from gas.sandbox.base import Limits, Tier

__all__ = ["Progress", "RunConfig", "RunResult"]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a model is run.

    Attributes:
        nonce: The run's secret, at least 16 characters from a cryptographic source; with the round's seed it decides
            the order, so that a rerun with the same nonce asks in the same order.
        batch_size: Most samples in a batch.
        robustness_per_dataset: Samples of each data set that are evaluated again after the sharing chain.
        reask_share: Share of the samples that are asked twice.
        reask_least: Number of samples that are asked twice at least.
        processes: Model processes side by side; None takes one for each core that this process may use.
        threads: Threads each of them computes with.
        decode_threads: Threads that decode ahead.
        max_restarts: Restarts of dead model processes in the whole run; then the rest counts as model errors.
        limits: What one model process may use.
        min_tier: Weakest isolation that is acceptable.
        device: ``"cpu"`` or ``"cuda"``: where the model computes.
    """

    nonce: str
    batch_size: int = 32
    robustness_per_dataset: int = 0
    reask_share: float = 0.01
    reask_least: int = 4
    processes: int | None = None
    threads: int = 1
    decode_threads: int = 2
    max_restarts: int = 16
    limits: Limits = field(default_factory=Limits)
    min_tier: Tier = Tier.NAMESPACES
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse settings with which no run makes sense."""
        whole = (self.batch_size, self.threads, self.decode_threads, self.processes or 1)
        if min(whole) < 1 or self.processes == 0 or self.max_restarts < 0 or self.robustness_per_dataset < 0:
            raise ConfigurationError("A run needs positive sizes and counts.", code="run_config")
        if not 0 <= self.reask_share <= 1 or self.reask_least < 0 or len(self.nonce) < 16:
            raise ConfigurationError(
                "A run needs a share of re-asked samples in [0, 1] and a nonce of 16 characters.", code="run_config"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        done: Showings answered, failed ones included.
        total: Showings of the run: base pass, robust pass and re-asked samples.
        model_errors: Showings on which the model failed so far.
        seconds: Wall clock since the run began, or went on.
        resumed: Showings that were answered before it went on.
        accuracy: Share of right decisions of the base pass so far, in [0, 1]; None before the first.
        sn34: Score of the base pass so far, in [0, 1]; None while a class is missing.
    """

    done: int
    total: int
    model_errors: int
    seconds: float
    resumed: int = 0
    accuracy: float | None = None
    sn34: float | None = None

    @property
    def samples_per_second(self) -> float:
        """Showings a second so far; 0 at the start."""
        return (self.done - self.resumed) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the rate so far; None before the first answer."""
        rate = self.samples_per_second
        return (self.total - self.done) / rate if rate > 0 else None


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came of a run.

    Attributes:
        records: One for each sample and pass, in the order of the round, base before robust.
        tier: Isolation that the model ran in.
        restarts: Model processes that had to be started again.
        gave_up: Whether the restarts ran out, so that unanswered samples count as model errors.
        reasked: Samples whose two answers could be compared.
        inconsistent: Ids of those that were answered differently (by more than 1e-3 in p_fake).
        timings: Throughput.
        batch_seconds: Samples and wall-clock seconds of each batch that the model answered, from the hand-over of the
            batch to its logits; of this go alone when the run went on.
    """

    records: tuple[SampleRecord, ...]
    tier: Tier
    restarts: int
    gave_up: bool
    reasked: int
    inconsistent: tuple[str, ...]
    timings: Timings
    batch_seconds: tuple[tuple[int, float], ...] = ()

    @property
    def error_counts(self) -> dict[str, int]:
        """Model and media errors of all passes by code, sorted by code."""
        return dict(sorted(Counter(r.error for r in self.records if r.error is not None).items()))
