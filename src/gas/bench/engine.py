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
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Protocol, runtime_checkable

import numpy as np

from gas.bench.answer_parts import PART_ROWS, WHOLE_RUN
from gas.bench.answer_store import AnswerStore
from gas.bench.answers import Outcome, make_records
from gas.bench.batches import Ask, Pass
from gas.bench.feed import Ahead, RoundMedia, target_of
from gas.bench.journal import Journal
from gas.bench.records import SampleRecord
from gas.bench.running import RunningScore
from gas.bench.runs import Progress, RunConfig, RunResult
from gas.bench.showings import showings_of
from gas.bench.timings import Timings, own_cpu_seconds, tree_cpu_seconds
from gas.bench.workers import Batch, Decoded, GivenUp, Worker
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
    only: Collection[int] | None = None,
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
            nonce. A run that is killed and goes on ends with the same records as one that is left alone;
            processes of the model that were given up stay given up.
        only: Numbers of the plan's batches that are asked here, when the others are asked elsewhere; all when left
            out. Records of the others then say ``gave_up``.

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
    spec = replace(spec, device=config.device)
    target = target_of(spec, _modality_of(round_.samples))
    make_records((), (), (), width=spec.num_classes, classes=classes)  # refuses a width that nobody has named
    clock = clock or SystemClock()
    return _Run(spec, round_, media, sandbox, config, target, on_progress, classes, clock, journal, only).execute()


def _modality_of(samples: Sequence[Sample]) -> Modality:
    modalities = {sample.modality for sample in samples}
    if len(modalities) != 1:
        raise ConfigurationError("A run needs samples of exactly one modality.", code="round_modality")
    return modalities.pop()


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
        only: Collection[int] | None,
    ) -> None:
        self.spec, self.samples, self.media, self.sandbox = spec, round_.samples, media, sandbox
        self.config, self.target, self.on_progress = config, target, on_progress
        self.classes, self.clock, self.journal = classes, clock, journal
        self.lock = Lock()
        self.sessions: dict[ModelSession, float] = {}
        self.start_seconds: float | None = None
        self.start_cpu = self.model_cpu = self.began_cpu = self.ahead_cpu = 0.0
        self.batch_seconds: list[tuple[int, float]] = []
        self.running = None if on_progress is None else RunningScore(round_, spec.num_classes, classes)
        self.restarts = self.ended = 0
        self.model_errors = 0
        self.stopped = False
        self.gave_up = False
        showings = showings_of(round_, config)
        self.asks, self.twins = showings.asks, showings.twins
        self.batches = tuple(b for number, b in enumerate(showings.batches) if only is None or number in only)
        self.total = sum(map(len, self.batches))
        self.processes = min(config.processes or len(os.sched_getaffinity(0)), len(self.batches))
        self.first_processes = self.processes
        self.answers = AnswerStore((*self.asks, *self.twins), spec.num_classes)
        self.began = 0.0
        self.resumed = 0
        if journal is not None:
            self._go_on_from(journal)

    def _go_on_from(self, journal: Journal) -> None:
        known = journal.read()
        while some := list(islice(known, PART_ROWS)):
            self._count(self.answers.update(some))
        self.resumed = len(self.answers)
        self.batch_seconds += journal.times
        self.restarts, self.ended, self.gave_up = journal.restarts, journal.ended, journal.gave_up
        self.first_processes = journal.processes = journal.processes or self.processes
        self.batches = tuple(batch for batch in self.batches if any(ask not in self.answers for ask in batch))

    def execute(self) -> RunResult:
        cores = len(os.sched_getaffinity(0))
        # A process that was given up in an earlier life of the run doesn't come back in this one, however many there
        # would be now.
        processes = min(self.processes, self.first_processes - self.ended, len(self.batches))
        if processes <= 0:
            self.report()
            return self._result(Timings(0.0, 0.0, 0.0, 0.0, 0, cores))
        self.began = self.clock.monotonic()
        self.began_cpu = own_cpu_seconds()
        depth = processes + self.config.decode_threads
        with (
            Ahead(self._fetch, self.batches, threads=self.config.decode_threads, depth=depth) as ahead,
            ThreadPoolExecutor(processes, thread_name_prefix="gas-model") as pool,
        ):
            futures = [pool.submit(Worker(self, ahead, spare=processes - 1).run) for _ in range(processes)]
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
            cpu_seconds=own_cpu_seconds() - self.began_cpu + self.model_cpu,
            start_cpu_seconds=self.start_cpu,
            showings=self.total - self.resumed,
            cores=cores,
            ahead_cpu_seconds=self.ahead_cpu,
        )
        return self._result(timings)

    @property
    def width(self) -> int:
        """Number of logits that the model has declared."""
        return self.spec.num_classes

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock.monotonic()

    def timed(self, showings: int, seconds: float) -> None:
        """Note how long the model had a batch."""
        with self.lock:
            self.batch_seconds.append((showings, seconds))
            if self.journal is not None:
                self.journal.add_times(showings, seconds)

    def keep(self, answers: Sequence[tuple[Ask, Outcome]]) -> None:
        """Count a complete batch, write it to the journal, and tell the caller."""
        with self.lock:
            self._count(self.answers.update(answers))
            if self.journal is not None:
                self.journal.append(answers, restarts=self.restarts)
        self.report()

    def give_up(self, answers: Sequence[tuple[Ask, Outcome]]) -> None:
        """Count what a worker leaves that has no restarts left; the others go on."""
        with self.lock:
            self.ended, self.gave_up = self.ended + 1, True
            if self.ended >= self.first_processes:
                self.ended = WHOLE_RUN
            self._count(self.answers.update(answers))
            if self.journal is not None:
                self.journal.append(answers, restarts=self.restarts, gave_up=True, ended=self.ended)
        self.report()

    def _count(self, fresh: Sequence[tuple[Ask, Outcome]]) -> None:
        self.model_errors += sum(out.error is not None and not out.media_error for _, out in fresh)
        if self.running is not None:
            self.running.add(fresh)

    def report(self) -> None:
        """Tell the caller where the run stands."""
        if self.on_progress is None or self.running is None:
            return
        with self.lock:
            seconds = self.clock.monotonic() - self.began
            done = Progress(
                done=len(self.answers),
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
            GivenUp: No restarts are left.
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
                    self.ahead_cpu = own_cpu_seconds() - self.began_cpu
                stopped = self.stopped
            if stopped:
                self.end_session(session)
                raise GivenUp
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
                raise GivenUp
            self.restarts += 1

    def _kill_sessions(self) -> None:
        with self.lock:
            sessions = list(self.sessions)
        for session in sessions:
            self.end_session(session)

    def _fetch(self, batch: Batch) -> Decoded:
        if all(ask.variant is batch[0].variant for ask in batch):
            ids = [self.samples[ask.index].sample_id for ask in batch]
            return self.media.fetch(ids, self.target, robust=batch[0].variant is Pass.ROBUST)
        pixels = np.empty((len(batch), *self.target.shape), dtype=self.target.dtype)
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
        outcomes = list(self.answers.outcomes(asks, Outcome(error="gave_up")))
        return make_records(self.samples, asks, outcomes, width=self.spec.num_classes, classes=self.classes)


@runtime_checkable
class _Seen(Protocol):
    """A session whose process tree can be looked at from here."""

    @property
    def pid(self) -> int: ...


def _cpu_of(session: ModelSession) -> float:
    return tree_cpu_seconds(session.pid) if isinstance(session, _Seen) else 0.0
