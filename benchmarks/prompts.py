"""How long a draw by index takes, and what it needs: ``python benchmarks/prompts.py``.

A million rows lie in one Parquet file, in one group of rows, and as many in a text file. They are drawn from as they
are, and those of Parquet through an index of a hundred million rows that names the file a hundred times. Bound: 10 ms.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gas.clock import derive_rng
from gas.generation.prompts.compose import Composer
from gas.generation.prompts.index import build_index
from gas.types import Modality

BATCH = 50_000


def write_rows(folder: Path, count: int) -> None:
    """Composed prompts, each with its number, in both kinds of file."""
    composer, rng = Composer(Modality.IMAGE), derive_rng(0, "benchmark")
    texts = [composer.draw(rng).text for _ in range(2000)]
    schema = pa.schema([("prompt", pa.string())])
    with (
        pq.ParquetWriter(folder / "rows.parquet", schema, compression="zstd") as writer,
        (folder / "rows.txt").open("w") as lines,
    ):
        parts = []
        for start in range(0, count, BATCH):
            rows = [f"{texts[at % len(texts)]}, number {at}" for at in range(start, min(start + BATCH, count))]
            lines.writelines(f"{row}\n" for row in rows)
            parts.append(pa.table({"prompt": rows}, schema=schema))
        writer.write_table(pa.concat_tables(parts), row_group_size=count)


def measure(paths: list[str], target: Path, draws: int) -> dict[str, float | int]:
    """Build an index and draw from it."""
    start = time.perf_counter()
    index = build_index(paths, target)
    built = time.perf_counter() - start
    rng = derive_rng(1, "benchmark")
    index.draw(rng)
    seconds, work = [], []
    for _ in range(draws):
        before, busy = time.perf_counter(), time.process_time()
        index.draw(rng)
        seconds.append(time.perf_counter() - before)
        work.append(time.process_time() - busy)
    return {
        "rows": index.rows,
        "index_kilobytes": round(target.stat().st_size / 1000),
        "build_seconds": round(built, 2),
        "draw_median_ms": round(float(np.median(seconds)) * 1000, 2),
        "draw_p95_ms": round(float(np.percentile(seconds, 95)) * 1000, 2),
        "draw_median_cpu_ms": round(float(np.median(work)) * 1000, 2),
    }


def main() -> None:
    """Print one line of JSON a case."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--times", type=int, default=100)
    options.add_argument("--draws", type=int, default=300)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_rows(folder, chosen.rows)
        for kind in ("parquet", "txt"):
            path = str(folder / f"rows.{kind}")
            for times in (1, chosen.times) if kind == "parquet" else (1,):
                found = measure([path] * times, folder / f"{kind}-{times}", chosen.draws)
                print(json.dumps({"kind": kind} | found), flush=True)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"most_memory_megabytes_with_writing": round(held)}))


if __name__ == "__main__":
    main()
