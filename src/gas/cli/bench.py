"""``gascli d bench``: ``gasbench run`` with its options, or one package on one frozen round; here, in the sandbox."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli.bench_text import answer_bar, print_metrics, print_troubles

if TYPE_CHECKING:
    from gas.bench.engine import RunResult
    from gas.bench.metrics import RunMetrics
    from gas.datasets.plan import Round
    from gas.submissions.package import Package

__all__ = ["bench"]


def _on_round(
    package: Annotated[Path, typer.Argument(help="A package: its zip, the folder with its files, or one .onnx file.")],
    round_folder: Annotated[Path, typer.Option("--round", help="Folder of a frozen round.")],
    blobs: Annotated[
        Path | None, typer.Option("--blobs", help="Blob store with the media; FOLDER/blobs, or the home's, by default.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Keep decoded pixels here for the next run; thrown away by default.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Write records.parquet and results.json here; a killed run goes on when started again."
        ),
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
    from gas.bench.feed import fitting_batch
    from gas.bench.journal import Journal, run_identity
    from gas.bench.local import evaluate_package, packed
    from gas.bench.metrics import compute_metrics
    from gas.bench.records import write_records
    from gas.cli.check import check_path
    from gas.datasets.plan import read_round
    from gas.sandbox import Tier, best_sandbox
    from gas.storage.blobs import FolderBlobs

    frozen = read_round(round_folder)
    checked = check_path(package, frozen.samples[0].modality).require()
    weakest = Tier.PLAIN if trust_model else Tier.NAMESPACES
    sandbox = best_sandbox(weakest)
    config = RunConfig(
        nonce=secrets.token_hex(16),
        batch_size=fitting_batch(batch_size, checked.to_spec(package.parent)),
        robustness_per_dataset=robustness,
        processes=processes,
        min_tier=weakest,
    )
    with tempfile.TemporaryDirectory(prefix="gas-bench-") as name:
        work = Path(name)
        archive = packed(package, work)
        identity = run_identity(hashlib.sha256(archive.read_bytes()).hexdigest(), frozen, config)
        with Journal(out or work, identity, config.nonce) as journal:
            config = replace(config, nonce=journal.nonce)
            with answer_bar(not as_json) as report:
                run, _ = evaluate_package(
                    archive,
                    checked,
                    frozen,
                    FolderBlobs(_store(blobs, round_folder)),
                    sandbox,
                    config,
                    work=work,
                    pixels=cache or work / "pixels",
                    journal=journal,
                    on_progress=report,
                )
            metrics = compute_metrics(run.records, frozen)
            result = _result(checked, frozen, run, metrics)
            if out is not None:
                result["records_sha256"] = write_records(out / "records.parquet", run.records)
                text = json.dumps(result, indent=1, allow_nan=False) + "\n"
                (out / "results.json").write_text(text, encoding="utf-8")
            journal.remove()
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        print_metrics(f"{checked.name}, sandbox tier {run.tier.name.lower()}", metrics)
        print_troubles(
            run.error_counts,
            run.timings.as_dict(),
            gave_up=run.gave_up,
            inconsistent=len(run.inconsistent),
            reasked=run.reasked,
        )


def _store(blobs: Path | None, round_folder: Path) -> Path:
    from gas.config import HomeSettings

    if blobs is not None:
        return blobs
    beside = round_folder / "blobs"
    return beside if beside.is_dir() else HomeSettings().blobs_path


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


class _Bench(typer.Typer):
    """Two commands under one name: ``--round`` says which is meant."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        words = [str(word) for word in more.pop("args", None) or ()]
        if any(word.split("=")[0] == "--round" for word in words):
            return super().__call__(*args, args=words, **more)
        return _gasbench()(args=_with_modality(words), **more)


def _gasbench() -> typer.Typer:
    from gas.cli.gasbench_run import run_command

    app = typer.Typer(add_completion=False)
    app.command("bench", epilog="With PACKAGE and --round FOLDER: on a frozen round, as the arena would.")(run_command)
    return app


def _with_modality(words: list[str]) -> list[str]:
    """A package that stands first is the model of its own modality."""
    from gas.cli.check import check_path

    if not words or words[0].startswith("-"):
        return words
    modality = check_path(Path(words[0])).require().modality
    return [f"--{modality}-model", *words]


bench: typer.Typer = _Bench(add_completion=False)
bench.command("bench")(_on_round)
