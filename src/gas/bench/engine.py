"""The evaluation of one model on one round, whatever the modality.

Decode ahead -> preprocess -> batches in a secret order -> model processes in the sandbox -> one record for each
sample and pass. The structure is the one that measured best: as many single-threaded model processes as cores,
each driven by a thread here, and decoding in threads ahead of them.

What is covered: a model that dies, hangs, answers nonsense or answers differently when asked again harms its own
score only, and no sample can be made to vanish. What is not: a model that keeps state between batches on purpose;
re-asked samples only make that visible.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gas.bench.answers import Outcome, make_records
from gas.bench.batches import Ask, Pass, choose_reasked, choose_robust, plan_batches
from gas.bench.feed import Ahead, RoundMedia, target_of
from gas.bench.journal import Journal
from gas.bench.records import SampleRecord
from gas.bench.running import RunningScore
from gas.bench.runs import Progress, RunConfig, RunResult
from gas.bench.timings import Timings, own_cpu_seconds, tree_cpu_seconds
from gas.clock import Clock, SystemClock
from gas.datasets.plan import Round
from gas.errors import ConfigurationError, ModelFailed, SandboxUnavailable
from gas.media.target import Target
from gas.sandbox.base import ModelSession, ModelSpec, Sandbox
from gas.types import Modality, Sample, SampleStatus

__all__ = ["Progress", "RunConfig", "RunResult", "evaluate"]

REASK_TOLERANCE = 1e-3
"""Largest difference of p_fake between two answers to one sample (submissions.md, section 3)."""

_PATIENCE = 1.0
"""Seconds that the other model processes get to finish their batch when a run is broken off."""


def evaluate(
    spec: ModelSpec,
    round_: Round,
    media: RoundMedia,
    sandbox: Sandbox,
    config: RunConfig,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    classes: Sequence[str] | None = None,
    clock: Clock | None = None,
    journal: Journal | None = None,
) -> RunResult:
    """Run one model on every sample of a round.

    Args:
        spec: The checked, unpacked package.
        round_: The round; all of its samples are of one modality.
        media: Their media, e.g. :class:`gas.datasets.shelves.RoundShelves`.
        sandbox: Where the model runs.
        config: How.
        on_progress: Called after each batch, one call at a time, from the threads of the run.
        classes: Names of the model's classes in its own order, when its package gives them.
        clock: Source of wall-clock times; the system's when left out.
        journal: Keeps every complete batch; what it knows already is not asked again. ``config.nonce`` must be its
            nonce. A run that is killed and goes on ends with the same records as one that is left alone.

    Raises:
        gas.errors.ModelFailed: The model can't be loaded at all, or nobody knows what its logits mean. Failures on
            samples don't raise: they are records.
        gas.errors.SandboxUnavailable: Our isolation is missing, too weak, or broke; the run has no result.
        gas.errors.StorageError: The media can't be read.
        gas.errors.ConfigurationError: The round and the model don't go together, or the journal has another nonce.
    """
    if journal is not None and journal.nonce != config.nonce:
        raise ConfigurationError("The journal was begun with another nonce.", code="run_config")
    if sandbox.tier < config.min_tier:
        raise SandboxUnavailable(
            f"This machine isolates models at tier {sandbox.tier.name}, but {config.min_tier.name} is asked for.",
            code="tier_too_low",
            hint="gascli doctor says what is missing.",
        )
    target = target_of(spec, _modality_of(round_.samples))
    make_records((), (), (), width=spec.num_classes, classes=classes)  # refuses a width that nobody has named
    clock = clock or SystemClock()
    return _Run(spec, round_, media, sandbox, config, target, on_progress, classes, clock, journal).execute()


def _modality_of(samples: Sequence[Sample]) -> Modality:
    modalities = {sample.modality for sample in samples}
    if len(modalities) != 1:
        raise ConfigurationError("A run needs samples of exactly one modality.", code="round_modality")
    return modalities.pop()


class _GivenUp(Exception):
    """The restarts of the run are used up."""


class _Run:
    """State of one evaluation, shared by its threads."""

    def __init__(
        self,
        spec: ModelSpec,
        round_: Round,
        media: RoundMedia,
        sandbox: Sandbox,
        config: RunConfig,
        target: Target,
        on_progress: Callable[[Progress], None] | None,
        classes: Sequence[str] | None,
        clock: Clock,
        journal: Journal | None,
    ) -> None:
        samples, seed = round_.samples, round_.seed
        self.spec, self.samples, self.media, self.sandbox = spec, samples, media, sandbox
        self.config, self.target, self.on_progress = config, target, on_progress
        self.classes, self.clock, self.journal = classes, clock, journal
        self.lock = Lock()
        self.outcomes: dict[Ask, Outcome] = {}
        self.sessions: dict[ModelSession, float] = {}
        self.start_seconds: float | None = None
        self.start_cpu = self.model_cpu = 0.0
        self.batch_seconds: list[tuple[int, float]] = []
        self.running = None if on_progress is None else RunningScore(round_, spec.num_classes, classes)
        self.restarts = 0
        self.model_errors = 0
        self.stopped = False
        self.gave_up = False
        robust = choose_robust(samples, per_dataset=config.robustness_per_dataset, seed=seed)
        reasked = choose_reasked(
            len(samples), share=config.reask_share, least=config.reask_least, seed=seed, nonce=config.nonce
        )
        self.asks = [Ask(i, Pass.BASE) for i in range(len(samples))] + [Ask(i, Pass.ROBUST) for i in robust]
        self.twins = [Ask(i, Pass.BASE, again=True) for i in reasked]
        self.batches = plan_batches(
            len(samples),
            robust=robust,
            reasked=reasked,
            batch_size=config.batch_size,
            seed=seed,
            nonce=config.nonce,
        )
        self.total = len(self.asks) + len(self.twins)
        self.began = 0.0
        self.resumed = 0
        if journal is not None:
            self._go_on_from(journal)

    def _go_on_from(self, journal: Journal) -> None:
        self.outcomes.update(journal.outcomes)
        self.resumed = len(self.outcomes)
        if self.running is not None:
            self.running.add(journal.outcomes.items())
        self.restarts, self.gave_up = journal.restarts, journal.gave_up
        self.model_errors = sum(o.error is not None and not o.media_error for o in journal.outcomes.values())
        left = [batch for batch in self.batches if any(ask not in self.outcomes for ask in batch)]
        self.batches = () if self.gave_up else tuple(left)

    def execute(self) -> RunResult:
        if not self.batches:
            self.report()
            return self._result(Timings(0.0, 0.0, 0.0, 0.0, 0, len(os.sched_getaffinity(0))))
        cores = len(os.sched_getaffinity(0))
        processes = min(self.config.processes or cores, len(self.batches))
        self.began = self.clock.monotonic()
        cpu = own_cpu_seconds()
        depth = processes + self.config.decode_threads
        with (
            Ahead(self._fetch, self.batches, threads=self.config.decode_threads, depth=depth) as ahead,
            ThreadPoolExecutor(processes, thread_name_prefix="gas-model") as pool,
        ):
            futures = [pool.submit(_Worker(self, ahead).run) for _ in range(processes)]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                failures = [error for future in done if (error := future.exception()) is not None]
                if failures:
                    # An answer of ours outranks theirs: a broken sandbox may look like a broken model elsewhere.
                    raise min(failures, key=lambda error: isinstance(error, ModelFailed))
            finally:
                self.stopped = True
                # A worker in the middle of a quick batch ends by itself; one whose model hangs has it killed.
                wait(futures, timeout=_PATIENCE)
                self._kill_sessions()
        timings = Timings(
            wall_seconds=self.clock.monotonic() - self.began,
            start_seconds=self.start_seconds or 0.0,
            cpu_seconds=own_cpu_seconds() - cpu + self.model_cpu,
            start_cpu_seconds=self.start_cpu,
            showings=self.total - self.resumed,
            cores=cores,
        )
        return self._result(timings)

    def record(self, ask: Ask, outcome: Outcome) -> None:
        """Keep the outcome of one showing."""
        with self.lock:
            self.outcomes[ask] = outcome
            self.model_errors += outcome.error is not None and not outcome.media_error

    def keep(self, batch: Sequence[Ask]) -> None:
        """Count a complete batch, and write it to the journal."""
        with self.lock:
            answers = [(ask, self.outcomes[ask]) for ask in batch]
            if self.running is not None:
                self.running.add(answers)
            if self.journal is not None:
                self.journal.append(answers, restarts=self.restarts)

    def report(self) -> None:
        """Tell the caller where the run stands."""
        if self.on_progress is None or self.running is None:
            return
        with self.lock:
            seconds = self.clock.monotonic() - self.began
            done = Progress(
                done=len(self.outcomes),
                total=self.total,
                model_errors=self.model_errors,
                seconds=seconds,
                resumed=self.resumed,
                accuracy=self.running.accuracy,
                sn34=self.running.sn34,
            )
            self.on_progress(done)

    def start_session(self, *, again: bool) -> ModelSession:
        """A fresh model process; ``again`` when one of the same worker has died.

        Raises:
            _GivenUp: No restarts are left.
            gas.errors.ModelFailed: The model doesn't load although it was never asked anything.
            gas.errors.SandboxUnavailable: Ours.
        """
        while True:
            if again:
                self._take_restart()
            try:
                session = self.sandbox.start(
                    self.spec, batch_size=self.config.batch_size, limits=self.config.limits, threads=self.config.threads
                )
            except ModelFailed:
                if not again:
                    raise
                continue
            cpu = _cpu_of(session)
            with self.lock:
                self.sessions[session] = cpu
                self.start_cpu += cpu
                if self.start_seconds is None:
                    self.start_seconds = self.clock.monotonic() - self.began
                stopped = self.stopped
            if stopped:
                self.end_session(session)
                raise _GivenUp
            return session

    def end_session(self, session: ModelSession) -> None:
        """Kill a model process."""
        cpu = _cpu_of(session)
        with self.lock:
            self.model_cpu += max(0.0, cpu - self.sessions.pop(session, cpu))
        session.close()

    def _take_restart(self) -> None:
        with self.lock:
            if self.restarts >= self.config.max_restarts:
                if self.journal is not None and not self.gave_up:
                    self.journal.append([], restarts=self.restarts, gave_up=True)
                self.gave_up = True
                raise _GivenUp
            self.restarts += 1

    def _kill_sessions(self) -> None:
        with self.lock:
            sessions = list(self.sessions)
        for session in sessions:
            self.end_session(session)

    def _fetch(self, batch: tuple[Ask, ...]) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        pixels = np.zeros((len(batch), *self.target.shape), dtype=self.target.dtype)
        usable = np.zeros(len(batch), dtype=np.bool_)
        for variant in Pass:
            places = [k for k, ask in enumerate(batch) if ask.variant is variant]
            if places:
                ids = [self.samples[batch[k].index].sample_id for k in places]
                pixels[places], usable[places] = self.media.fetch(ids, self.target, robust=variant is Pass.ROBUST)
        return pixels, usable

    def _result(self, timings: Timings) -> RunResult:
        asks = sorted(self.asks, key=lambda ask: (ask.index, ask.variant is Pass.ROBUST))
        records, second = self._records(asks), self._records(self.twins)
        first = {record.sample_id: record for record in records if record.variant is Pass.BASE}
        pairs = [
            (one.sample_id, one.p_fake, two.p_fake)
            for two in second
            if (one := first[two.sample_id]).status is two.status is SampleStatus.OK
            and one.p_fake is not None
            and two.p_fake is not None
        ]
        return RunResult(
            records=records,
            tier=self.sandbox.tier,
            restarts=self.restarts,
            gave_up=self.gave_up,
            reasked=len(pairs),
            inconsistent=tuple(name for name, p, q in pairs if abs(p - q) > REASK_TOLERANCE),
            timings=timings,
            batch_seconds=tuple(self.batch_seconds),
        )

    def _records(self, asks: Sequence[Ask]) -> tuple[SampleRecord, ...]:
        unknown = Outcome(error="gave_up")
        outcomes = [self.outcomes.get(ask, unknown) for ask in asks]
        return make_records(self.samples, asks, outcomes, width=self.spec.num_classes, classes=self.classes)


class _Worker:
    """One thread that drives one model process after another."""

    def __init__(self, run: _Run, ahead: Ahead[tuple[Ask, ...], tuple[NDArray[np.generic], NDArray[np.bool_]]]) -> None:
        self._run = run
        self._ahead = ahead
        self._session: ModelSession | None = None
        self._started = False

    def run(self) -> None:
        """Answer batches until there are none, or no restarts, left."""
        try:
            self._ready()
            while not self._run.stopped and (taken := self._ahead.take()) is not None:
                batch, (pixels, usable) = taken
                for ask, fine in zip(batch, usable, strict=True):
                    if not fine:
                        self._run.record(ask, Outcome(error="undecodable", media_error=True))
                self._answer([ask for ask, fine in zip(batch, usable, strict=True) if fine], pixels[usable])
                self._run.keep(batch)
                self._run.report()
        except _GivenUp:
            self._run.report()
        finally:
            if self._session is not None:
                self._run.end_session(self._session)

    def _answer(self, asks: Sequence[Ask], pixels: NDArray[np.generic]) -> None:
        """Ask for one batch; when the model dies of it, ask one by one, so that only the guilty samples count."""
        if not asks:
            return
        session = self._ready()
        began = self._run.clock.monotonic()
        try:
            logits = session.infer(pixels)
            if logits.shape != (len(asks), self._run.spec.num_classes):
                raise ModelFailed("The model answered with another shape than declared.", code="bad_output")
        except ModelFailed as error:
            self._session = None
            self._run.end_session(session)
            if self._run.stopped:
                raise _GivenUp from error
            if len(asks) == 1:
                self._run.record(asks[0], Outcome(error=error.error_code))
                return
            for k in range(len(asks)):
                self._answer(asks[k : k + 1], pixels[k : k + 1])
            return
        self._run.batch_seconds.append((len(asks), self._run.clock.monotonic() - began))
        for ask, row in zip(asks, logits, strict=True):
            if np.isfinite(row).all():
                self._run.record(ask, Outcome(logits=np.array(row, dtype=np.float32)))
            else:
                self._run.record(ask, Outcome(error="not_finite"))

    def _ready(self) -> ModelSession:
        if self._session is None:
            self._session = self._run.start_session(again=self._started)
            self._started = True
        return self._session


@runtime_checkable
class _Seen(Protocol):
    """A session whose process tree can be looked at from here."""

    @property
    def pid(self) -> int: ...


def _cpu_of(session: ModelSession) -> float:
    return tree_cpu_seconds(session.pid) if isinstance(session, _Seen) else 0.0
