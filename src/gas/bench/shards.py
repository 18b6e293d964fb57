"""One run on many machines: its batches cut into shards, each asked by the engine of a machine, one journal here.

The plan of a run's batches depends on the round and the run's secret alone, so every machine knows it and a shard is a
few numbers. Each complete batch comes back as JSON and goes to the run's own journal at once; at the end the engine
makes the records from that journal, as it does for a run that was killed and goes on. So the result has the same
bytes as that of a run on one machine, whatever got lost in between, and a coordinator that is killed repeats only the
batches that it had no answer to.

What is covered: a machine that is lost (its shard goes on elsewhere without the batches that had arrived), one that
doesn't see the media, one of another version. What is not: a machine that lies; the cluster is trusted.

The budget of restarts is the run's: a shard gets what is left when it begins. Shards that run side by side may overdraw
it together, and then the run is given up, as it is on one machine; which samples were asked before that depends on the
order of the shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from gas import __version__
from gas import errors as gas_errors
from gas.bench.answer_parts import WHOLE_RUN
from gas.bench.answer_rows import from_rows
from gas.bench.answers import Outcome
from gas.bench.batches import Ask
from gas.bench.engine import evaluate
from gas.bench.executors.base import Executor
from gas.bench.journal import Journal
from gas.bench.local import SetBlobs
from gas.bench.parcels import Parcel, machine_id, parcel, parcel_of_file
from gas.bench.running import RunningScore
from gas.bench.runs import Progress, RunConfig, RunResult
from gas.bench.shard_cut import count_shards, cut_shards
from gas.bench.shard_work import ShardWork, run_shard
from gas.bench.showings import showings_of
from gas.bench.timings import Timings
from gas.clock import Clock, SystemClock
from gas.datasets.plan import Round, write_round
from gas.errors import GasError, InfrastructureError, StorageError
from gas.media.target import Target
from gas.sandbox.base import Sandbox, Tier
from gas.submissions.archive import unpack
from gas.submissions.fingerprint import file_sha256
from gas.submissions.package import Package

__all__ = ["ShardNews", "evaluate_sharded"]


@dataclass(frozen=True, slots=True)
class ShardNews:
    """What has happened to a shard.

    Attributes:
        number: Of the shard, from 0.
        shards: How many there are.
        what: ``"begun"``, ``"done"``, or ``"lost"`` with its machine; a lost one goes on elsewhere.
        machine: Name of the machine, once it has begun.
    """

    number: int
    shards: int
    what: Literal["begun", "done", "lost"]
    machine: str | None


def evaluate_sharded(
    archive: Path,
    checked: Package,
    round_: Round,
    blobs: SetBlobs,
    sandbox: Sandbox,
    config: RunConfig,
    executor: Executor,
    *,
    work: Path,
    pixels: Path,
    journal: Journal,
    on_progress: Callable[[Progress], None] | None = None,
    on_shard: Callable[[ShardNews], None] | None = None,
    clock: Clock | None = None,
) -> tuple[RunResult, Mapping[str, str]]:
    """Like :func:`gas.bench.local.evaluate_package`, with the batches asked wherever the executor computes.

    Args:
        archive: The package's zip.
        checked: What the static checks found the package to be.
        round_: What it runs on.
        blobs: Where the round's media lie; machines that see the folder read them there.
        sandbox: Of this machine; each machine isolates the model by its own, of ``config.min_tier`` at least.
        config: How; its nonce is the journal's. Each shard has one model process unless ``processes`` says otherwise.
        executor: Where.
        work: Folder for the unpacked package and the round's files.
        pixels: Folder of decoded media, used by machines that are this one.
        journal: Keeps every complete batch.
        on_progress: Told after each batch that has arrived.
        on_shard: Told what happens to the shards.
        clock: Source of wall-clock times.

    Returns:
        The run, and why media could not be decoded, by sample.

    Raises:
        gas.errors.GasError: As :func:`gas.bench.engine.evaluate`; and ``shard_lost``, ``cluster_lost`` or
            ``node_code`` of the executor. What was answered so far is in the journal.
    """
    coordinator = _Coordinator(
        archive, checked, round_, blobs, config, executor, work, pixels, journal, on_progress, on_shard, clock
    )
    coordinator.run()
    folder = work / "package"
    unpack(archive, folder)
    result = evaluate(
        checked.to_spec(folder),
        round_,
        _NoMedia(),
        sandbox,
        config,
        classes=checked.classes,
        clock=clock,
        journal=journal,
    )
    return replace(
        result,
        tier=min(coordinator.tiers, default=result.tier),
        timings=coordinator.timings(),
    ), coordinator.reasons


@dataclass(slots=True)
class _Shard:
    """One shard as the coordinator knows it."""

    batches: tuple[int, ...]
    machine: str | None = None
    restarts: int = 0
    restarts_before: int = 0
    done: bool = False


class _Coordinator:
    """State of one run over an executor."""

    def __init__(
        self,
        archive: Path,
        checked: Package,
        round_: Round,
        blobs: SetBlobs,
        config: RunConfig,
        executor: Executor,
        work: Path,
        pixels: Path,
        journal: Journal,
        on_progress: Callable[[Progress], None] | None,
        on_shard: Callable[[ShardNews], None] | None,
        clock: Clock | None,
    ) -> None:
        self.checked, self.round, self.blobs, self.executor = checked, round_, blobs, executor
        self.config = replace(config, processes=config.processes or 1)
        self.archive, self.pixels, self.journal = archive, pixels, journal
        self.on_progress, self.on_shard, self.clock = on_progress, on_shard, clock or SystemClock()
        self.tiers: list[Tier] = []
        self.cores: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.shards: list[_Shard] = []
        self._cpu = self._start_cpu = 0.0
        self._work, self._sha256, self._shipped = work, file_sha256(archive), False
        self._package, self._files = Parcel(self._sha256, path=str(archive.resolve())), dict[str, Parcel]()
        showings = showings_of(round_, config)
        self._batches = showings.batches
        self._total = sum(map(len, self._batches))
        self._restarts, self._errors = journal.restarts, 0
        self._running = None if on_progress is None else RunningScore(round_, checked.num_classes, checked.classes)
        self._known: set[Ask] = set()
        for ask, outcome in journal.read():
            if ask not in self._known:
                self._count([(ask, outcome)])
        self._resumed = len(self._known)
        self._began = self._first = self._ended = self.clock.monotonic()

    def run(self) -> None:
        """Have every batch answered that isn't yet, or give the run up."""
        left = [number for number in range(len(self._batches)) if self._left(number)]
        if left and not self.journal.is_over:
            self._files = self._round_files()
            parts = count_shards(self.executor.slots, sum(len(self._batches[number]) for number in left))
            cuts = cut_shards([self._size(number) for number in left], parts)
            self.shards = [_Shard(tuple(left[place] for place in cut)) for cut in cuts]
            while not self.journal.is_over and (open_ := [s for s in self.shards if not s.done]):
                self._pass(open_)
        self._ended = self.clock.monotonic()
        self._report()

    def timings(self) -> Timings:
        """Throughput over all machines; the start is the time until the first machine has begun."""
        return Timings(
            wall_seconds=self._ended - self._began,
            start_seconds=self._first - self._began,
            cpu_seconds=self._cpu,
            start_cpu_seconds=self._start_cpu,
            showings=len(self._known) - self._resumed,
            cores=sum(self.cores.values()) or 1,
        )

    def work_of(self, shard: _Shard) -> ShardWork:
        """What is left of a shard, as its machine gets it."""
        batches = tuple(number for number in shard.batches if self._left(number))
        names = sorted({self._name(ask) for number in batches for ask in self._batches[number]})
        media: dict[str, Parcel] = {}
        if self._shipped:
            media = {name: parcel(self.blobs.get(name), self.executor) for name in names}
        return ShardWork(
            code_version=__version__,
            batches=batches,
            samples=tuple(names),
            round_files=self._files,
            package=self._package,
            checked=self.checked,
            config=replace(self.config, max_restarts=max(0, self.config.max_restarts - self._used())),
            media_root=str(self.blobs.root.resolve()),
            media=media,
            pixels=str(self.pixels.resolve()),
            asked_on=machine_id(),
        )

    def _pass(self, shards: Sequence[_Shard]) -> None:
        """Compute some shards; those whose machine lacked the data stay open."""

        def lost(index: int, reason: str) -> None:  # noqa: ARG001
            shard = shards[index]
            self._tell(shard, "lost")
            shard.machine, shard.restarts_before, shard.restarts = None, shard.restarts_before + shard.restarts, 0

        pieces = self.executor.stream(run_shard, _Works(self, shards), lost)
        try:
            for index, piece in pieces:
                self._hear(shards[index], json.loads(piece))
                if self.journal.is_over:
                    return
        finally:
            pieces.close()

    def _hear(self, shard: _Shard, said: Mapping[str, Any]) -> None:
        kind = said["kind"]
        if kind == "begun":
            shard.machine = str(said["machine"])
            if not self.cores:
                self._first = self.clock.monotonic()
            self.cores[shard.machine] = int(said["cores"])
            self.tiers.append(Tier(said["tier"]))
            self._tell(shard, "begun")
        elif kind == "lacking":
            self._ship()
        elif kind == "answers":
            for count, seconds in said["times"]:
                self.journal.add_times(int(count), float(seconds))
            self._keep(shard, from_rows(said["rows"]), int(said["restarts"]), gave_up=bool(said["gave_up"]))
        elif kind == "done":
            shard.done, shard.restarts = True, int(said["restarts"])
            self._cpu += float(said["timings"]["cpu_seconds"])
            self._start_cpu += float(said["timings"]["start_cpu_seconds"])
            self.reasons.update(said["reasons"])
            self._tell(shard, "done")
            self._check_budget(gave_up=bool(said["gave_up"]))
        elif kind == "failed":
            raise _error(said, shard.machine)

    def _keep(self, shard: _Shard, answers: dict[Ask, Outcome], restarts: int, *, gave_up: bool) -> None:
        fresh = [(ask, outcome) for ask, outcome in answers.items() if ask not in self._known]
        shard.restarts = restarts
        # In one line: whoever goes on after a kill must not take what was given up for answers among others.
        self.journal.append(fresh, restarts=self._used(), gave_up=gave_up, ended=WHOLE_RUN if gave_up else 0)
        self._count(fresh)
        self._check_budget()
        self._report()

    def _count(self, answers: Sequence[tuple[Ask, Outcome]]) -> None:
        self._known.update(ask for ask, _ in answers)
        self._errors += sum(outcome.error is not None and not outcome.media_error for _, outcome in answers)
        if self._running is not None:
            self._running.add(answers)

    def _check_budget(self, *, gave_up: bool = False) -> None:
        """A shard that gives up has used what the run had left; several together may have used more."""
        self.journal.restarts = self._used()
        if not self.journal.is_over and (gave_up or self.journal.restarts > self.config.max_restarts):
            self.journal.append([], restarts=self.journal.restarts, gave_up=True, ended=WHOLE_RUN)

    def _used(self) -> int:
        return self._restarts + sum(shard.restarts_before + shard.restarts for shard in self.shards)

    def _ship(self) -> None:
        """From now on the package and the media travel: a machine doesn't see them."""
        if not self._shipped:
            self._package = parcel_of_file(self.archive, self._sha256, self.executor)
            self._shipped = True

    def _round_files(self) -> dict[str, Parcel]:
        folder = self._work / "round"
        write_round(self.round, folder)
        try:
            return {path.name: parcel(path.read_bytes(), self.executor) for path in folder.iterdir()}
        except OSError as error:
            raise StorageError(f"The round can't be read ({error.strerror}).") from error

    def _left(self, number: int) -> bool:
        return any(ask not in self._known for ask in self._batches[number])

    def _name(self, ask: Ask) -> str:
        return self.round.samples[ask.index].sample_id

    def _size(self, number: int) -> int:
        total = 0
        for name in {self._name(ask) for ask in self._batches[number]}:
            path = self.blobs.root / name[:2] / name
            total += path.stat().st_size if path.exists() else 0
        return total

    def _tell(self, shard: _Shard, what: Literal["begun", "done", "lost"]) -> None:
        if self.on_shard is not None:
            self.on_shard(ShardNews(self.shards.index(shard), len(self.shards), what, shard.machine))

    def _report(self) -> None:
        if self.on_progress is None or self._running is None:
            return
        self.on_progress(
            Progress(
                done=len(self._known),
                total=self._total,
                model_errors=self._errors,
                seconds=self.clock.monotonic() - self._began,
                resumed=self._resumed,
                accuracy=self._running.accuracy,
                sn34=self._running.sn34,
            )
        )


class _Works(Sequence[ShardWork]):
    """The work of some shards, looked up when it begins: by then part of it may have been answered elsewhere."""

    def __init__(self, coordinator: _Coordinator, shards: Sequence[_Shard]) -> None:
        self._coordinator, self._shards = coordinator, shards

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, index: Any) -> Any:
        return self._coordinator.work_of(self._shards[index])


class _NoMedia:
    """Stands for the media of a run in which nothing is left to ask."""

    def fetch(
        self,
        sample_ids: Sequence[str],  # noqa: ARG002
        target: Target,  # noqa: ARG002
        *,
        robust: bool,  # noqa: ARG002
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        raise StorageError("A shard has left something unanswered.", code="shard_incomplete")


_ERRORS: Final[Mapping[str, type[GasError]]] = {
    kind.__name__: kind
    for kind in (
        gas_errors.ConfigurationError,
        gas_errors.IntegrityError,
        gas_errors.ModelFailed,
        gas_errors.SandboxUnavailable,
        gas_errors.StorageError,
    )
}


def _error(said: Mapping[str, Any], machine: str | None) -> GasError:
    """The error of a machine, as it would have been here; ours say which machine it was."""
    kind = _ERRORS.get(str(said["type"]), InfrastructureError)
    where = f" (on {machine})" if machine and issubclass(kind, InfrastructureError) else ""
    message = str(said["message"])
    return kind(f"{message.removesuffix('.')}{where}." if where else message, code=said["code"], hint=said.get("hint"))
