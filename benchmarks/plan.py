"""How long a plan of 55,000 from a million items takes, and what it needs: ``python benchmarks/plan.py``.

The parent writes the items to a Parquet file; a child reads the columns that a drawing needs, draws, writes the plan
and prints its seconds and the most memory that it ever held (the reading included). Bounds: 5 seconds, 500 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SETS = 40
BATCH = 25_000


def write_items(path: Path, count: int) -> None:
    """Random items of 40 data sets, a fifth of them held out and a fifth made by the arena."""
    from gas.datasets.items import item_schema

    with pq.ParquetWriter(path, item_schema(), compression="zstd") as writer:
        for start in range(0, count, BATCH):
            n = min(BATCH, count - start)
            digest = [hashlib.sha256(str(start + i).encode()).hexdigest() for i in range(n)]
            number = np.random.default_rng(start).integers(0, SETS, n)
            fake = number % 2 == 1
            columns = {
                "sha256": digest,
                "dataset": [f"set-{k:02}" for k in number],
                "modality": ["image"] * n,
                "media_type": ["synthetic" if f else "real" for f in fake],
                "mime": ["image/jpeg"] * n,
                "size": [100_000] * n,
                "path": [f"data/part-{(start + i) // 1000:05}.parquet#{i}:image" for i in range(n)],
                "source": [f"set-{k:02}" for k in number],
                "origin": digest,
                "generator": ["diffusion" if f else "" for f in fake],
                "category": ["other"] * n,
                "licence": ["CC-BY-4.0"] * n,
                "mask_sha256": [None] * n,
                "width": [512] * n,
                "height": [512] * n,
                "seconds": [None] * n,
                "rate": [None] * n,
                "codec": ["jpeg"] * n,
                "hotkey": [None] * n,
            }
            writer.write_table(pa.table(columns, schema=item_schema()))


def child(items: Path, total: int) -> dict[str, float]:
    """Read, draw, write; seconds of each step and the peak in MB."""
    from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
    from gas.datasets.plan_file import write_plan
    from gas.datasets.plan_spec import PlanMode, PlanSpec
    from gas.types import Modality, Provenance

    provenances = {f"set-{k:02}": Provenance.HOLDOUT for k in range(SETS // 5)}
    provenances |= {f"set-{k:02}": Provenance.ARENA for k in range(SETS // 5, 2 * SETS // 5) if k % 2}
    start, cpu = time.perf_counter(), time.process_time()
    file = pq.ParquetFile(items)
    columns = list(CANDIDATE_COLUMNS)
    # Part by part, as the sets of a store are read one by one.
    candidates = pa.concat_tables(slim(file.read_row_group(i, columns)) for i in range(file.num_row_groups))
    read = time.perf_counter()
    plan = draw_plan(candidates, PlanSpec(Modality.IMAGE, PlanMode.FULL, 1, provenances, total=total))
    drawn = time.perf_counter()
    write_plan(plan, items.with_suffix(".plan"))
    done = time.perf_counter()
    return {
        "read_s": read - start,
        "draw_s": drawn - read,
        "write_s": done - drawn,
        "cpu_s": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "samples": len(plan),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--total", type=int, default=55_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.child, arguments.total)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        write_items(path, arguments.items)
        command = [sys.executable, __file__, "--child", str(path), "--total", str(arguments.total)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{found['samples']:,} samples from {arguments.items:,} items")
    steps = f"read {found['read_s']:.2f} s, draw {found['draw_s']:.2f} s, write {found['write_s']:.2f} s"
    print(f"{steps}; {found['cpu_s']:.2f} s of processor time in all")
    print(f"peak memory {found['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
