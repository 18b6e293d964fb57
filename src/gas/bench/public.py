"""The benchmark as a library: one model on data sets of one's own, and the comparison of such runs.

::

    from gas.bench import BenchSettings, compare, run

    first = run(Path("first.zip"), settings=BenchSettings(mode="debug", dataset_config=Path("sets.yaml")))
    second = run(Path("second.onnx"), settings=first.settings)
    print(compare(first, second).verdict)

A run's folder is named by what its answers depend on: package, plan, sizes. So the same call finds the run again: it
goes on where it was killed, and answers at once when it is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gas.bench.anywhere import evaluate_on
from gas.bench.comparison import Comparison
from gas.bench.comparison import compare as compare_records
from gas.bench.executors.base import Executor
from gas.bench.feed import fitting_batch
from gas.bench.journal import Journal, run_identity
from gas.bench.levels import measure_levels
from gas.bench.local import SetBlobs, packed, prepare_next
from gas.bench.material import draw, fetch_sets, sets_of, store_of
from gas.bench.metrics import RunMetrics, compute_metrics
from gas.bench.records import SampleRecord, from_parquet, write_records, write_times
from gas.bench.report.single import write_single_report
from gas.bench.results import RunFacts, make_results, read_results, write_results
from gas.bench.runs import Progress, RunConfig
from gas.bench.settings import BenchSettings
from gas.bench.shards import ShardNews
from gas.clock import Clock, SystemClock
from gas.config import HomeSettings
from gas.datasets.plan import Round
from gas.datasets.plan_file import Plan, read_plan, write_plan
from gas.datasets.store import DataStore
from gas.datasets.store_fetch import FetchProgress
from gas.errors import ConfigurationError, StorageError
from gas.sandbox import Limits, Sandbox, Tier, best_sandbox
from gas.sandbox.gpu import choose_device, find_gpu
from gas.submissions.archive import unpack
from gas.submissions.check import check
from gas.submissions.fingerprint import file_sha256
from gas.types import Modality
from gas.versions import installed

__all__ = ["BenchRun", "Watch", "check_run", "compare", "open_run", "run"]

_RUNTIMES = ("torch", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to know how far a run is; every call comes from a thread of the run, one at a time.

    Attributes:
        on_fetch: Told while a data set is fetched.
        on_start: Told once, with the run's folder and the number of answers that it goes on from.
        on_progress: Told after each batch.
        on_levels: Told after each batch of distorted media for the robustness curves.
        on_shard: Told what happens to the shards of a run on a cluster.
    """

    on_fetch: Callable[[FetchProgress], None] | None = None
    on_start: Callable[[Path, int], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_levels: Callable[[Progress], None] | None = None
    on_shard: Callable[[ShardNews], None] | None = None


@dataclass(frozen=True, slots=True)
class BenchRun:
    """A run that is done.

    Attributes:
        folder: With ``results.json``, ``records.parquet``, ``times.parquet``, ``plan.parquet`` and ``report.html``.
        results: Content of ``results.json``.
        records: One for each sample and pass, in canonical order.
        plan: That it ran on.
        metrics: Every figure.
        settings: What it was asked for; None for a run that was opened from its folder.
        fresh: Whether the model was asked just now; False for a run that was done earlier.
    """

    folder: Path
    results: Mapping[str, Any]
    records: tuple[SampleRecord, ...]
    plan: Plan
    metrics: RunMetrics
    settings: BenchSettings | None = None
    fresh: bool = False

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return str(self.results["metadata"]["run_id"])

    @property
    def score(self) -> float | None:
        """The score that decides, in [0, 1]; None when the run is unscored."""
        return self.metrics.final

    @property
    def round(self) -> Round:
        """The round that the plan makes."""
        return self.plan.to_round()


def run(
    model: Path,
    modality: Modality | None = None,
    settings: BenchSettings | None = None,
    *,
    watch: Watch | None = None,
    limits: Limits | None = None,
    clock: Clock | None = None,
    executor: Executor | None = None,
    sandbox: Sandbox | None = None,
) -> BenchRun:
    """Benchmark a model in the sandbox on data sets of one's own.

    Args:
        model: Its package: a zip, a folder, or one ``.onnx`` file.
        modality: What it is expected to look at; whatever the package says when left out.
        settings: How; the defaults when left out.
        watch: Who wants to know how far it is.
        limits: What one model process may use; those of the arena when left out.
        clock: Source of wall-clock times; the system's when left out.
        executor: An open connection to the cluster that the settings name, when several runs share one.
        sandbox: Where the model runs, when several runs share one; the best of this machine when left out.

    Raises:
        gas.errors.PackageRejected: The static checks refuse the package.
        gas.errors.ConfigurationError: There is no model, a registry is wrong, there is nothing to draw from, or the
            data have one class only.
        gas.errors.ModelFailed: The model can't be loaded; failures on samples are records.
        gas.errors.SandboxUnavailable: Nothing isolates on this machine.
        gas.errors.IntegrityError: A medium has changed since it was fetched; names its data set.
        gas.errors.InfrastructureError: The data can't be fetched or the results not be written, or the cluster doesn't
            answer (``cluster_unreachable``) or has gone; what was done is kept.
    """
    settings, watch, clock = settings or BenchSettings(), watch or Watch(), clock or SystemClock()
    began, started = clock.time(), clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="gas-bench-") as name:
        work = Path(name)
        archive = packed(model, work)
        report = check(archive, modality=modality)
        checked = report.require()
        device = choose_device(settings.device, checked.format, find_gpu(), installed(_RUNTIMES))
        results_dir = _writable(settings.results_dir or HomeSettings().home / "results")
        weakest = Tier.PLAIN if settings.trust_model else Tier.NAMESPACES
        sandbox = sandbox or best_sandbox(weakest)
        store = store_of(settings)
        sets = sets_of(settings, checked.modality, store)
        fetch_sets(store, sets, watch.on_fetch)
        plan = draw(store, sets, checked.modality, settings)
        round_ = plan.to_round()
        sha256 = file_sha256(archive)
        config = RunConfig(
            device=device,
            decode_threads=_decoders(device),
            nonce=_nonce(sha256, round_),
            batch_size=fitting_batch(settings.batch_size, checked.to_spec(work)),
            robustness_per_dataset=settings.robustness,
            processes=settings.processes or (1 if device == "cuda" else None),
            limits=limits or Limits(),
            min_tier=weakest,
        )
        identity = run_identity(sha256, round_, config)
        if device != "cpu":
            # Another device gives other last digits.
            identity["device"] = device
        run_id = f"{checked.name}-{plan.modality}-{plan.mode}-{_digest(identity)[:12]}"
        folder = results_dir / run_id
        with Journal(folder, identity, config.nonce) as journal:
            if (folder / "results.json").exists() and not settings.again and not journal.begun:
                with suppress(StorageError, ConfigurationError):
                    found = open_run(folder, settings)
                    journal.remove()
                    return found
            if watch.on_start:
                watch.on_start(folder, journal.known)
            write_plan(plan, folder / "plan.parquet")
            blobs = SetBlobs(store.blobs.root, round_.samples)
            result, reasons = evaluate_on(
                settings.executor,
                archive,
                checked,
                round_,
                blobs,
                sandbox,
                config,
                work=work,
                pixels=store.folder.parent / "pixels",
                journal=journal,
                on_progress=watch.on_progress,
                on_shard=watch.on_shard,
                clock=clock,
                executor=executor,
            )
            metrics = compute_metrics(result.records, round_)
            write_records(folder / "records.parquet", result.records)
            write_times(folder / "times.parquet", result.batch_seconds)
            package = work / "package"
            if not package.exists():
                # The shards were computed elsewhere; the few media of the curves are shown here.
                unpack(archive, package)
            curves = measure_levels(
                checked.to_spec(package),
                round_,
                result.records,
                blobs.get,
                sandbox,
                config,
                package_sha256=sha256,
                folder=folder,
                classes=checked.classes,
                on_progress=watch.on_levels,
                clock=clock,
            )
            prepare_next(sandbox, checked.to_spec(package), config)
            facts = RunFacts(
                run_id=run_id,
                model_path=model,
                began=began,
                duration_seconds=clock.monotonic() - started,
                settings=settings,
                check=report,
                result=result,
                metrics=metrics,
                media_reasons=reasons,
                revisions=_revisions(plan, store),
                curves=curves,
                device=device,
            )
            results = make_results(facts, plan, round_)
            write_single_report(folder / "report.html", results, result.records, metrics, round_, store.get)
            write_results(folder / "results.json", results)
            journal.remove()
    return BenchRun(folder, results, result.records, plan, metrics, settings, fresh=True)


def check_run(model: Path, modality: Modality | None = None, settings: BenchSettings | None = None) -> None:
    """Refuse what :func:`run` would refuse before it fetches anything, so that a queue of runs fails at its beginning.

    Raises:
        gas.errors.GasError: As :func:`run`.
    """
    settings = settings or BenchSettings()
    with tempfile.TemporaryDirectory(prefix="gas-bench-") as name:
        checked = check(packed(model, Path(name)), modality=modality).require()
    choose_device(settings.device, checked.format, find_gpu(), installed(_RUNTIMES))
    sets_of(settings, checked.modality, store_of(settings))


def open_run(folder: Path, settings: BenchSettings | None = None) -> BenchRun:
    """A run that was done earlier, read from its folder and checked.

    Raises:
        ConfigurationError: ``no_run``: there is no complete run.
        gas.errors.StorageError: Its records or its plan are damaged.
    """
    results = read_results(folder / "results.json")
    try:
        data = (folder / "records.parquet").read_bytes()
    except OSError:
        data = b""
    if results is None or not data:
        raise ConfigurationError(
            f"There is no complete run in {folder}.",
            code="no_run",
            hint="Name a folder that `gasbench run` has printed; the same command finishes a run that was killed.",
        )
    plan, records = read_plan(folder / "plan.parquet"), from_parquet(data)
    return BenchRun(folder, results, records, plan, compute_metrics(records, plan.to_round()), settings)


def compare(first: BenchRun | Path, second: BenchRun | Path) -> Comparison:
    """Which of two runs on one plan is better, and how sure that is, by the paired cluster bootstrap.

    Args:
        first: A run, or its folder.
        second: The other.

    Raises:
        ConfigurationError: ``other_plan`` (the runs are of different plans), or ``no_run``.
        gas.errors.StorageError: A run is damaged.
    """
    one, two = (open_run(run) if isinstance(run, Path) else run for run in (first, second))
    if one.plan.plan_id != two.plan.plan_id:
        differ = [
            f"{name} ({a} and {b})"
            for name, a, b in (
                ("modality", one.plan.modality, two.plan.modality),
                ("mode", one.plan.mode, two.plan.mode),
                ("seed", one.plan.seed, two.plan.seed),
                ("data", one.plan.data_hash[:12], two.plan.data_hash[:12]),
            )
            if a != b
        ]
        raise ConfigurationError(
            f"{one.run_id} and {two.run_id} ran on different plans: {', '.join(differ) or 'other options'} differ.",
            code="other_plan",
            hint="Run both models with the same data sets, mode and seed.",
        )
    return compare_records(one.records, two.records, one.round)


def _digest(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(dict(value), sort_keys=True).encode()).hexdigest()


def _nonce(sha256: str, round_: Round) -> str:
    """The secret of the order: the same for the same model on the same data, so that a run can be repeated exactly.

    It covers the model's own hash, so a model can't carry the order that it will be asked in.
    """
    return _digest({"order": sha256, "round": round_.round_id, "data": round_.data_hash})[:32]


def _decoders(device: str) -> int:
    """Threads that decode ahead: beside a card that computes, every core has time for it."""
    return max(2, len(os.sched_getaffinity(0))) if device == "cuda" else 2


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise StorageError(
            f"The results folder {folder} can't be written ({error.strerror}).",
            code="results_unwritable",
            hint="Name another with --results-dir.",
        ) from error


def _revisions(plan: Plan, store: DataStore) -> dict[str, dict[str, object]]:
    out: dict[str, dict[str, object]] = {}
    for key, count in plan.datasets.items():
        name, _, media_type = key.rpartition("/")
        manifest = store.manifest(name)
        row = out.setdefault(
            name,
            {
                "revision": manifest.revision,
                "content_hash": manifest.content_hash,
                "items": manifest.items,
                "set_aside": manifest.rejected,
                "licence": manifest.entry.licence,
                "drawn": {},
            },
        )
        drawn = row["drawn"]
        if isinstance(drawn, dict):
            drawn[media_type] = count
    return out
