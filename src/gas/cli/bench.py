"""``gascli d bench``: one package on one frozen round, on this machine, in the sandbox."""

from __future__ import annotations

import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gas.bench.engine import Progress, RunConfig, RunResult
    from gas.bench.metrics import RunMetrics
    from gas.datasets.plan import Round
    from gas.sandbox.base import Sandbox
    from gas.submissions.package import Package

__all__ = ["bench"]


def bench(
    package: Annotated[Path, typer.Argument(help="A package: its zip, or the folder with its files.")],
    round_folder: Annotated[Path, typer.Option("--round", help="Folder of a frozen round.")],
    blobs: Annotated[
        Path | None, typer.Option("--blobs", help="Blob store with the media; FOLDER/blobs, or the home's, by default.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Keep decoded pixels here for the next run; thrown away by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write records.parquet and results.json into this folder.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=1024, help="Most samples in a batch.")] = 32,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Model processes; as many as cores by default.")
    ] = None,
    robustness: Annotated[
        int, typer.Option("--robustness", min=0, help="Samples a data set that are asked again after sharing.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Your own model only: go on where nothing isolates.")
    ] = False,
) -> None:
    """Benchmark a package on a frozen round, in the sandbox, with every figure that the arena would see."""
    from gas.bench.engine import RunConfig
    from gas.bench.metrics import compute_metrics
    from gas.bench.records import write_records
    from gas.datasets.plan import read_round
    from gas.sandbox import Tier, best_sandbox
    from gas.submissions.check import check

    frozen = read_round(round_folder)
    checked = check(package, modality=frozen.samples[0].modality).require()
    weakest = Tier.PLAIN if trust_model else Tier.NAMESPACES
    sandbox = best_sandbox(weakest)
    config = RunConfig(
        nonce=secrets.token_hex(16),
        batch_size=batch_size,
        robustness_per_dataset=robustness,
        processes=processes,
        min_tier=weakest,
    )
    with tempfile.TemporaryDirectory(prefix="gas-bench-") as name:
        run = _run(package, checked, frozen, _store(blobs, round_folder), cache, Path(name), sandbox, config, as_json)
    metrics = compute_metrics(run.records, frozen)
    result = _result(checked, frozen, run, metrics)
    if out is not None:
        result["records_sha256"] = write_records(out / "records.parquet", run.records)
        (out / "results.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _show(checked, run, metrics)


def _store(blobs: Path | None, round_folder: Path) -> Path:
    from gas.config import HomeSettings

    if blobs is not None:
        return blobs
    beside = round_folder / "blobs"
    return beside if beside.is_dir() else HomeSettings().blobs_path


def _run(
    package: Path,
    checked: Package,
    frozen: Round,
    store: Path,
    cache_folder: Path | None,
    work: Path,
    sandbox: Sandbox,
    config: RunConfig,
    quiet: bool,
) -> RunResult:
    from gas.bench.engine import evaluate
    from gas.bench.feed import CacheMedia
    from gas.datasets.cache import RoundCache
    from gas.storage.blobs import FolderBlobs
    from gas.submissions.archive import unpack
    from gas.submissions.pack import pack

    archive = package
    if package.is_dir():
        # Packed and unpacked again, so that the model sees its package's files and nothing else of the folder.
        archive = work / "package.zip"
        pack(package, archive)
    folder = work / "package"
    unpack(archive, folder)
    cache = RoundCache(frozen.samples, FolderBlobs(store), cache_folder or work / "pixels")
    with _progress(quiet) as report:
        cache.prepare(on_progress=lambda what, done, total: report(what, done, total, ""))

        def showing(progress: Progress) -> None:
            errors = f", {progress.model_errors} model errors" if progress.model_errors else ""
            report("asking the model", progress.done, progress.total, f"{progress.samples_per_second:,.0f}/s{errors}")

        return evaluate(
            checked.to_spec(folder), frozen, CacheMedia(cache), sandbox, config, showing, classes=checked.classes
        )


def _result(checked: Package, frozen: Round, run: RunResult, metrics: RunMetrics) -> dict[str, object]:
    from gas.bench.records import records_sha256

    return {
        "package": checked.as_dict(),
        "round": {
            "id": frozen.round_id,
            "data_hash": frozen.data_hash,
            "samples": len(frozen.samples),
            "seed": frozen.seed,
        },
        "sandbox": run.tier.name.lower(),
        **metrics.as_dict(),
        "errors": run.error_counts,
        "restarts": run.restarts,
        "gave_up": run.gave_up,
        "reasked": run.reasked,
        "inconsistent": list(run.inconsistent),
        "records_sha256": records_sha256(run.records),
        "timings": run.timings.as_dict(),
    }


def _show(checked: Package, run: RunResult, metrics: RunMetrics) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table("", "base", "robust", title=f"{escape(checked.name)}, sandbox tier {run.tier.name.lower()}")
    robust = metrics.robust
    for label, key in _ROWS:
        table.add_row(label, _figure(getattr(metrics.base, key)), _figure(getattr(robust, key)) if robust else "")
    console.print(table)
    if metrics.final is None:
        console.print(f"Unscored: {metrics.unscored}")
    else:
        interval = metrics.base.sn34_ci95
        between = f" (base pass: 95 % between {interval[0]:.4f} and {interval[1]:.4f})" if interval else ""
        console.print(f"Final score [bold]{metrics.final:.4f}[/bold]{between}")
    worst = metrics.base.worst_group
    if worst is not None:
        console.print(f"Weakest: {escape(worst.name)} ({worst.kind}), {worst.rate} {worst.value:.3f} of {worst.n}")
    for code, count in run.error_counts.items():
        console.print(f"{count} answers with {code}")
    if run.gave_up:
        console.print("The model died too often: what it was not asked any more counts as wrong.")
    if run.inconsistent:
        console.print(f"{len(run.inconsistent)} of {run.reasked} samples were answered differently when asked again.")
    timings = run.timings
    console.print(
        f"{timings.samples_per_second:,.0f} samples/s in {timings.wall_seconds:.1f} s; with all {timings.cores} cores"
        f" busy it would be {timings.limit_samples_per_second:,.0f}"
    )


_ROWS = (
    ("sn34 score", "sn34_score"),
    ("MCC", "mcc"),
    ("Brier", "brier"),
    ("accuracy", "accuracy"),
    ("balanced accuracy", "balanced_accuracy"),
    ("log-loss", "log_loss"),
    ("ROC-AUC", "roc_auc"),
    ("average precision", "average_precision"),
    ("EER", "eer"),
    ("ECE", "ece"),
    ("TPR at 1 % FPR", "tpr_at_fpr_01"),
    ("TPR at 5 % FPR", "tpr_at_fpr_05"),
    ("samples", "n"),
)


def _figure(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int, str], None]]:
    """A bar a step on the error stream, so that standard output holds the result alone."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=quiet,
    ) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int, note: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note="")
            bars.update(tasks[what], completed=done, note=note)

        yield report
