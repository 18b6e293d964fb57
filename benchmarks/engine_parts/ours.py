"""One run of the engine as `gasbench run` starts it, measured."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gas.bench.journal import Journal, run_identity
from gas.bench.local import evaluate_package, packed
from gas.bench.records import write_records
from gas.bench.runs import RunConfig, RunResult
from gas.datasets.plan import Round
from gas.sandbox import Tier
from gas.sandbox.base import Sandbox
from gas.storage.blobs import BlobStore
from gas.submissions.check import check
from gas.submissions.fingerprint import file_sha256

NONCE = "a secret for measurements"


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        rate: Samples a second once a model was ready; what was decoded before is charged to it.
        cpu: Processor seconds a sample, of all processes, without starting them.
        wall: Seconds of everything: checks, starts, records.
        after: Seconds from the last answer to the records on disk.
        whole_cpu: Processor seconds of the run, starts left out.
        idle: Share of the machine's processor time that nobody used between the first batch and the last.
    """

    rate: float
    cpu: float
    wall: float
    after: float
    whole_cpu: float
    idle: float
    result: RunResult


def measure(
    package: Path,
    round_: Round,
    blobs: BlobStore,
    sandbox: Sandbox,
    *,
    pixels: Path | None = None,
    records: bool = True,
    batch: int = 32,
) -> Measured:
    """Run one model over a round.

    Args:
        package: Folder of the package.
        round_: Whose media are in ``blobs``.
        blobs: The media.
        sandbox: Where the model runs.
        pixels: Folder of decoded media; an empty one when left out.
        records: Whether a journal is kept and records are written.
        batch: Most samples in a batch.
    """
    with tempfile.TemporaryDirectory(prefix="gas-engine-") as name:
        work, began = Path(name), time.perf_counter()
        archive = packed(package, work)
        checked = check(archive).require()
        config = RunConfig(nonce=NONCE, batch_size=batch, min_tier=Tier.PLAIN)
        identity = run_identity(file_sha256(archive), round_, config)
        journal = Journal(work / "run", identity, NONCE) if records else None
        seen: list[tuple[float, float]] = []
        result, _ = evaluate_package(
            archive,
            checked,
            round_,
            blobs,
            sandbox,
            config,
            work=work,
            pixels=pixels or work / "pixels",
            journal=journal,
            on_progress=lambda _: seen.append((time.perf_counter(), _idle_seconds())),
        )
        if journal is not None:
            write_records(work / "run" / "records.parquet", result.records)
            journal.remove()
            journal.close()
        ended = time.perf_counter()
        if any(record.error for record in result.records) or result.restarts:
            raise SystemExit(f"The run of {package.name} went wrong: {result.error_counts}")
    timings = result.timings
    seconds = timings.wall_seconds - timings.start_seconds + timings.ahead_cpu_seconds / timings.cores
    return Measured(
        rate=timings.showings / seconds,
        cpu=timings.cpu_seconds / timings.showings,
        wall=ended - began,
        after=ended - seen[-1][0],
        whole_cpu=timings.cpu_seconds,
        idle=(seen[-1][1] - seen[0][1]) / max(1e-9, (seen[-1][0] - seen[0][0]) * timings.cores),
        result=result,
    )


def _idle_seconds() -> float:
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
