"""The benchmark engine against the physical limit and against a straightforward one: ``python benchmarks/engine.py``.

A row is a model on media of its modality, run by the engine in the sandbox, with journal and records, as a user runs
it. The *limit* is cores / (least processor seconds a sample that were seen in this run, whoever took them): what this
machine would do with every core busy. *Use* is the share of the cores that the run itself had, *idle* what nobody had:
on a quiet machine they add up to one, and a run that leaves nothing idle can only be sped up by computing less. The
*rival* (``engine_parts/rival.py``) is what one writes first. Both are run in turns. Then: ten models on one round
against one decode and ten forwards; the sandbox and the records against the same engine with an ordinary process and
without them; with ``--memory`` the peak memory of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from engine_parts import material, models
from engine_parts.memory import peak
from engine_parts.ours import Measured, measure

from gas.bench.feed import target_of
from gas.bench.timings import tree_cpu_seconds
from gas.datasets.shelves import RoundShelves
from gas.sandbox import PlainSandbox, Tier, best_sandbox
from gas.sandbox.spares import Spares
from gas.submissions.check import check

ROWS = {
    ("image", "null"): (8_000, 2.6),
    ("image", "tiny"): (3_000, 2.9),
    ("image", "resnet18"): (500, 1.45),
    ("video", "null"): (250, None),
    ("video", "tiny"): (250, 2.7),
    ("video", "resnet18"): (36, None),
    ("audio", "null"): (2_000, None),
    ("audio", "tiny"): (2_500, 6.0),
    ("audio", "resnet18"): (150, None),
}
"""Samples that our engine is given (the material is repeated), and the ratio to the rival that is aimed at."""

AIMED = [("image", "null"), ("image", "tiny"), ("image", "resnet18"), ("video", "tiny"), ("audio", "tiny")]


class Bench:
    """Material, packages and the sandbox of one run of this script."""

    def __init__(self, work: Path, *, quick: bool) -> None:
        self.work, self.quick = work, quick
        self.sandbox = best_sandbox(Tier.PLAIN)
        self.cores = len(os.sched_getaffinity(0))
        self._blobs: dict[str, tuple[Path, material.Aliases]] = {}

    def media(self, modality: str) -> tuple[Path, material.Aliases]:
        if modality not in self._blobs:
            counts = material.QUICK if self.quick else material.COUNTS
            folder = material.make(modality, counts[modality])
            self._blobs[modality] = folder, material.Aliases(folder, self.work / "blobs" / modality)
        return self._blobs[modality]

    def package(self, modality: str, model: str, seed: int = 0) -> Path:
        folder = self.work / "packages" / f"{modality}-{model}-{seed}"
        return folder if folder.exists() else models.package(folder, modality, model, seed)

    def samples(self, modality: str, model: str) -> int:
        count = ROWS[modality, model][0]
        return max(32, count // 8) if self.quick else count

    def ours(self, modality: str, model: str, *, batch: int, plain: bool = False) -> Measured:
        round_ = material.a_round(modality, self.samples(modality, model))
        sandbox = PlainSandbox() if plain else self.sandbox
        return measure(
            self.package(modality, model), round_, self.media(modality)[1], sandbox, records=not plain, batch=batch
        )

    def rival(self, modality: str, model: str, *, batch: int) -> dict[str, float]:
        words = [self.media(modality)[0], modality, self.package(modality, model)]
        count = max(batch, self.samples(modality, model) // 3)
        done = subprocess.run(
            [sys.executable, "-m", "engine_parts.rival", *map(str, words), str(count), str(batch)],
            cwd=Path(__file__).parent,
            env={k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_"))},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found


def batch_of(modality: str) -> int:
    """Samples of a batch as the engine itself chooses them for inputs of this size; the rival gets the same."""
    return 6 if modality == "video" else 32


def row(bench: Bench, modality: str, model: str, repeats: int) -> dict[str, object]:
    """Ours and the rival in turns."""
    batch = batch_of(modality)
    runs, rivals = [], []
    for _ in range(repeats):
        runs.append(bench.ours(modality, model, batch=batch))
        rivals.append(bench.rival(modality, model, batch=batch))
    least = min([run.cpu for run in runs] + [rival["cpu"] for rival in rivals])
    limit = bench.cores / least
    rate = median(run.rate for run in runs)
    theirs = median(rival["rate"] for rival in rivals)
    return {
        "modality": modality,
        "model": model,
        "samples": bench.samples(modality, model),
        "samples_per_second": rate,
        "cpu_ms": 1e3 * median(run.cpu for run in runs),
        "limit": limit,
        "share_of_limit": rate / limit,
        "use_of_cores": median(run.rate * run.cpu for run in runs) / bench.cores,
        "idle": median(run.idle for run in runs),
        "rival": theirs,
        "rival_cpu_ms": 1e3 * median(rival["cpu"] for rival in rivals),
        "ratio": rate / theirs,
        "ratio_aim": ROWS[modality, model][1],
        "after_seconds": median(run.after for run in runs),
    }


def show(found: dict[str, object]) -> None:
    aim = found["ratio_aim"]
    print(
        f"{found['modality']:6} {found['model']:9}{found['samples']:>7}{found['samples_per_second']:>10.1f}"
        f"{found['cpu_ms']:>10.2f}{found['limit']:>10.1f}{found['share_of_limit']:>8.1%}{found['use_of_cores']:>8.1%}"
        f"{found['idle']:>7.1%}"
        f"{found['rival']:>10.1f}{found['rival_cpu_ms']:>9.2f}{found['ratio']:>7.2f}"
        + (f"  (aim {aim:g})" if aim else ""),
        flush=True,
    )


def ten_models(bench: Bench) -> dict[str, float]:
    """Ten tiny models on one round, against decoding it once and ten forwards, in processor time."""
    count = 320 if bench.quick else 1_000
    round_, blobs = material.a_round("image", count), bench.media("image")[1]
    spec = check(bench.package("image", "tiny")).require().to_spec(bench.package("image", "tiny"))
    target = target_of(spec, round_.samples[0].modality)
    names = [sample.sample_id for sample in round_.samples]
    with (
        tempfile.TemporaryDirectory(dir=bench.work) as folder,
        RoundShelves(round_.samples, blobs, Path(folder)) as shelves,
    ):
        cpu = time.process_time()
        for k in range(0, count, 32):
            pixels, _ = shelves.fetch(names[k : k + 32], target, robust=False)
        decode = time.process_time() - cpu
    with bench.sandbox.start(spec, batch_size=32) as session:
        session.infer(pixels)
        cpu = tree_cpu_seconds(session.pid)  # type: ignore[attr-defined]
        times = 20 if bench.quick else 60
        for _ in range(times):
            session.infer(pixels)
        forward = (tree_cpu_seconds(session.pid) - cpu) / times / len(pixels) * count  # type: ignore[attr-defined]
    with (
        tempfile.TemporaryDirectory(dir=bench.work) as folder,
        Spares(bench.sandbox, most=bench.cores, refill=False) as sandbox,
    ):
        runs = [
            measure(bench.package("image", "tiny", seed), round_, blobs, sandbox, pixels=Path(folder))
            for seed in range(10)
        ]
    showings = runs[0].result.timings.showings
    ideal = decode + 10 * forward * showings / count
    return {
        "samples": count,
        "decode_seconds": decode,
        "forward_seconds": forward,
        "cpu_seconds": sum(run.whole_cpu for run in runs),
        "ratio": sum(run.whole_cpu for run in runs) / ideal,
        "wall_ratio": sum(bench.cores * showings / run.rate for run in runs) / ideal,
    }


def cost_of_isolation(bench: Bench, repeats: int) -> dict[str, dict[str, float]]:
    """The sandbox, journal and records, against an ordinary process without them; in turns."""
    out = {}
    for modality, model in [("image", "null"), ("image", "tiny")]:
        pairs = []
        for turn in range(repeats):
            order = (False, True) if turn % 2 else (True, False)
            pair = {plain: bench.ours(modality, model, batch=32, plain=plain) for plain in order}
            pairs.append((pair[False], pair[True]))
        out[f"{modality} {model}"] = {
            "cpu": median(ours.cpu / plain.cpu for ours, plain in pairs) - 1,
            "wall": median(plain.rate / ours.rate for ours, plain in pairs) - 1,
        }
    return out


def memory(bench: Bench, counts: list[int]) -> dict[str, float]:
    """Peak memory of all processes with plans of several sizes."""
    blobs = bench.media("small")[1]
    found = {}
    for count in counts:
        round_ = material.a_round("small", count)
        package = bench.package("image", "tiny")
        found[f"{count}"] = peak(lambda: measure(package, round_, blobs, bench.sandbox))  # noqa: B023
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few samples, the rows with an aim only")
    parser.add_argument("--rows", nargs="*", metavar="MODALITY/MODEL", help="only these, e.g. image/tiny; none: no row")
    parser.add_argument("--repeats", type=int, help="turns of each row")
    parser.add_argument("--no-extra", action="store_true", help="no ten models and no cost of isolation")
    parser.add_argument(
        "--memory", type=int, nargs="*", metavar="SAMPLES", help="also peak memory with plans of these sizes"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    if options.rows is None:
        wanted = AIMED if options.quick else list(ROWS)
    else:
        wanted = [tuple(name.split("/")) for name in options.rows]
    repeats = options.repeats or (1 if options.quick else 2)
    report: dict[str, object] = {"rows": [], "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="gas-bench-engine-") as name:
        bench = Bench(Path(name), quick=options.quick)
        report["tier"] = bench.sandbox.tier.name
        if not options.json:
            print(f"{report['cores']} cores, models isolated by {report['tier']}")
            print(
                f"{'':16}{'samples':>7}{'a second':>10}{'CPU ms':>10}{'limit':>10}{'of it':>8}{'use':>8}{'idle':>7}"
                f"{'rival':>10}{'CPU ms':>9}{'ratio':>7}"
            )
        for modality, model in wanted:
            found = row(bench, modality, model, repeats if (modality, model) in AIMED else 1)
            report["rows"].append(found)  # type: ignore[attr-defined]
            if not options.json:
                show(found)
        if not options.no_extra:
            report["ten_models"] = ten_models(bench)
            report["isolation"] = cost_of_isolation(bench, repeats)
            if not options.json:
                print("ten models on one round: {ratio:.3f} of one decode + ten forwards in processor time, "
                      "{wall_ratio:.3f} in wall time x cores".format(**report["ten_models"]))  # fmt: skip
                for what, cost in report["isolation"].items():
                    print(f"sandbox and records, {what}: {cost['cpu']:+.1%} processor time, {cost['wall']:+.1%} time")
        if options.memory is not None:
            report["memory"] = memory(bench, options.memory or [1_000, 50_000])
            if not options.json:
                for count, size in report["memory"].items():
                    print(f"peak memory of all processes, {int(count):,} samples: {size / 2**20:.0f} MiB")
    if options.json:
        print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
