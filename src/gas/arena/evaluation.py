"""The benchmark as the arena's evaluator: unpack, run in the sandbox, measure, and say nothing of what is held out."""

from __future__ import annotations

import hashlib
import platform
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gas.arena.memorising import holdout_gap
from gas.arena.ports import Judgement, RunOutcome, RunTask
from gas.arena.rounds import load_round
from gas.arena.shown_again import Examined, show_again
from gas.bench.batches import Pass
from gas.bench.engine import Progress, RunConfig, RunResult, evaluate
from gas.bench.feed import fitting_batch
from gas.bench.journal import Journal, run_identity
from gas.bench.metrics import compute_metrics, judgements
from gas.bench.records import from_parquet, to_parquet
from gas.clock import Clock
from gas.datasets.plan import Round
from gas.datasets.shelves import RoundShelves
from gas.errors import InfrastructureError, ModelFailed
from gas.sandbox.base import ModelSpec, Sandbox
from gas.storage.blobs import BlobStore
from gas.types import Provenance, SampleStatus
from gas.versions import installed

__all__ = ["BenchEvaluator", "Prepared", "answers_of", "public_metrics"]

_LOOK_SECONDS = 5.0
_PACKAGES = ("torch", "onnxruntime", "numpy", "opencv-python-headless", "pillow")


class _GivenUp(InfrastructureError):
    """Nobody waits for the outcome any more: neither is the run begun again, nor what it has answered kept."""

    code = "given_up"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An unpacked package: how to load it, and what its classes are called where it says so."""

    spec: ModelSpec
    classes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class BenchEvaluator:
    """Runs submissions through :func:`gas.bench.engine.evaluate`.

    Attributes:
        blobs: Plans and media.
        sandbox: Where models run.
        prepare: Unpacks a zip into a folder that does not exist yet, and says how to load it.
        config: Settings of all runs; each gets a nonce of its own.
        work: Folder for unpacked packages; each is removed after its run.
        journals: Folder for what runs have answered so far; kept when a worker dies, so that another one of the
            machine goes on. In the work folder when left out.
        nonce: Secret of the order of all runs, for a replay; a fresh one for each run when None.
        cache: Folder for decoded media, kept between runs.
        clock: For limits.
        stopping: Set while the process shuts down; a run is then given up at its next batch.
        on_progress: Told the run's id and where it stands.
    """

    blobs: BlobStore
    sandbox: Sandbox
    prepare: Callable[[Path, Path], Prepared]
    config: RunConfig
    work: Path
    cache: Path
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)
    on_progress: Callable[[str, Progress], None] | None = None
    journals: Path | None = None
    nonce: str | None = None

    def __call__(self, task: RunTask) -> RunOutcome:
        """Evaluate; see :class:`gas.arena.ports.Evaluator`."""
        round_ = load_round(self.blobs, task.round_blob)
        folder = self.work / task.run_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        deadline = self.clock.monotonic() + task.seconds
        look = self.clock.monotonic()

        def watch(progress: Progress) -> None:
            nonlocal look
            now = self.clock.monotonic()
            if self.stopping.is_set():
                raise InfrastructureError("The worker is shutting down.", code="stopping")
            if now >= look:
                look = now + _LOOK_SECONDS
                if task.given_up():
                    raise _GivenUp("The submission has ended.")
            if now > deadline:
                raise ModelFailed(
                    f"The model took longer than the {task.seconds:.0f} s that a run of this kind may take.",
                    code="timeout",
                    hint="Make it smaller or faster.",
                )
            if self.on_progress is not None:
                self.on_progress(task.run_id, progress)

        try:
            package = self.prepare(task.package, folder)
            nonce = self.nonce or secrets.token_hex(16)
            config = replace(self.config, **_of_round(round_), **_of_task(task))
            config = replace(config, batch_size=fitting_batch(config.batch_size, package.spec))
            identity = self._identity(task, round_, config)
            again = self._journals / f"again-{task.run_id}"
            with (
                RoundShelves(round_.samples, self.blobs, self.cache) as media,
                Journal(self._journals, identity, nonce) as journal,
            ):
                try:
                    result = evaluate(
                        package.spec,
                        round_,
                        media,
                        self.sandbox,
                        # The nonce is the run's secret; the outcome does not depend on it for an honest model.
                        replace(config, nonce=journal.nonce),
                        watch,
                        classes=package.classes,
                        clock=self.clock,
                        journal=journal,
                    )
                    outcome = self._outcome(result, round_, _engine(journal.nonce, config, task))
                    if task.kind == "exam":
                        exam = Examined(
                            package.spec,
                            package.classes,
                            str(identity["package"]),
                            round_,
                            result.records,
                            replace(config, nonce=journal.nonce),
                            result.gave_up,
                        )
                        more = show_again(
                            exam,
                            self.blobs.get,
                            self.sandbox,
                            watch,
                            distorted=task.distorted,
                            folder=again,
                            clock=self.clock,
                            until=deadline,
                        )
                        outcome = replace(outcome, metrics={**outcome.metrics, **more})
                except (ModelFailed, _GivenUp):
                    journal.remove()
                    shutil.rmtree(again, ignore_errors=True)
                    raise
                journal.remove()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    @property
    def _journals(self) -> Path:
        return self.journals or self.work / "journals"

    def _identity(self, task: RunTask, round_: Round, config: RunConfig) -> dict[str, object]:
        with task.package.open("rb") as file:
            package = hashlib.file_digest(file, "sha256").hexdigest()
        return {"run": task.run_id, **run_identity(package, round_, config)}

    def _outcome(self, result: RunResult, round_: Round, engine: dict[str, object]) -> RunOutcome:
        measured = compute_metrics(result.records, round_)
        metrics = public_metrics(measured.as_dict(), round_)
        metrics |= {
            "accuracy": measured.base.accuracy,
            "reasked": result.reasked,
            "inconsistent": len(result.inconsistent),
            "restarts": result.restarts,
            "gave_up": result.gave_up,
        }
        if (gap := holdout_gap(result.records, round_)) is not None:
            metrics["holdout_gap"] = gap.as_dict()
        records = to_parquet(result.records)
        origins = {sample.sample_id: sample.origin for sample in round_.samples}
        return RunOutcome(
            metrics=metrics,
            records=records,
            tier=result.tier.name,
            answers=answers_of(records),
            # Generators know their media by what they delivered, which is an arena sample's origin.
            judgements=tuple(Judgement(origins[name], fooled) for name, fooled in judgements(result.records, round_)),
            environment=_environment() | {"samples_per_second": f"{result.timings.samples_per_second:.1f}"},
            engine=engine,
        )


def answers_of(records: bytes) -> dict[str, float]:
    """p_fake by sample of what a model answered in the base pass of a run.

    Raises:
        gas.errors.StorageError: The bytes are no records.
    """
    return {
        record.sample_id: record.p_fake
        for record in from_parquet(records)
        if record.status is SampleStatus.OK and record.variant is Pass.BASE and record.p_fake is not None
    }


def public_metrics(metrics: Mapping[str, Any], round_: Round) -> dict[str, Any]:
    """Drop the rates of data sets and sources whose names only the holdout knows."""
    known: set[str] = set()
    held: set[str] = set()
    for sample in round_.samples:
        (held if sample.provenance is Provenance.HOLDOUT else known).update((sample.dataset, sample.source))
    secret = held - known
    out = dict(metrics)
    out["groups"] = [group for group in metrics.get("groups", ()) if group["name"] not in secret]
    out["sources"] = [source for source in metrics.get("sources", ()) if source["source"] not in secret]
    worst = metrics.get("worst_group")
    if worst is not None and worst["name"] in secret:
        out["worst_group"] = {**worst, "name": "holdout"}
    return out


def _of_round(round_: Round) -> dict[str, Any]:
    """What a round's parameters decide of a run, alike for all its models."""
    wanted = round_.parameters.get("robustness_per_dataset")
    return {"robustness_per_dataset": wanted} if isinstance(wanted, int) else {}


def _of_task(task: RunTask) -> dict[str, Any]:
    """What a competition's rules decide of a run."""
    wanted = {"limits": task.limits, "min_tier": task.min_tier}
    return {name: value for name, value in wanted.items() if value is not None}


def _engine(nonce: str, config: RunConfig, task: RunTask) -> dict[str, object]:
    """What a run is done again with; see ``RunOutcome.engine``."""
    return {
        "nonce": nonce,
        "batch_size": config.batch_size,
        "limits": asdict(config.limits),
        "min_tier": config.min_tier.name,
        "seconds": task.seconds,
    }


def _environment() -> dict[str, str]:
    here = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    return here | installed(_PACKAGES)
