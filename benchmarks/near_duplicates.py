"""The index of copies against a linear scan: ``python benchmarks/near_duplicates.py [--media 1000000]``.

The hashes are a third random and two thirds in clusters, as pictures of one kind have them (8 to 60 of 256 bits from
a centre, in places that the cluster shares). Queries are copies with up to 8 bits changed, and hashes that nobody has.
The linear scans (numpy's popcount, and faiss IndexBinaryFlat) see the same queries in the same run; recall is against
them. The last part adds segments to fewer media, and looks for pictures whose segments were damaged: ``whole`` times
all that verification asks of the index for one picture (eight placings, prompt, store, segments and their mirror).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import faiss  # noqa: E402
import numpy as np  # noqa: E402

from gas.media.segments import SEGMENT_BYTES, SEGMENTS, Segments  # noqa: E402
from gas.verification.pictures import PictureIndex  # noqa: E402
from gas.verification.prints import FramePrint, Seen  # noqa: E402

CHUNK = 65536


def flipped(rng: np.random.Generator, packed: np.ndarray, count: int) -> np.ndarray:
    """A copy with ``count`` bits changed."""
    bits = np.unpackbits(packed)
    bits[rng.choice(len(bits), count, replace=False)] ^= 1
    return np.packbits(bits)


def hashes_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """A third random, the rest in clusters of fifty."""
    out = rng.integers(0, 256, (count, 32), dtype=np.uint8)
    for start in range(count // 3, count, 50):
        size = min(50, count - start)
        loose = rng.random(256) * rng.uniform(0.06, 0.45)
        centre = np.unpackbits(out[start])
        out[start : start + size] = np.packbits(centre ^ (rng.random((size, 256)) < loose), axis=1)
    return out


def build(folder: Path, hashes: np.ndarray, rng: np.random.Generator, *, segments: bool) -> tuple[PictureIndex, float]:
    """The index, and the seconds that it took."""
    began = time.perf_counter()
    index = PictureIndex(folder)
    for start in range(0, len(hashes), CHUNK):
        part = hashes[start : start + CHUNK]
        rows = np.zeros(len(part), PictureIndex.row_type())
        rows["sha256"][:, :8] = (np.arange(start, start + len(part), dtype=np.uint64))[:, None].view(np.uint8)
        rows["hash"] = part
        if segments:
            rows["segments"] = SEGMENTS
            rows["pieces"] = rng.integers(0, 256, (len(part), SEGMENTS, SEGMENT_BYTES), dtype=np.uint8)
            rows["places"] = rng.uniform(2, 120, (len(part), SEGMENTS, 4)).astype(np.float16)
        index.add_rows(rows)
    return index, time.perf_counter() - began


def report(name: str, times: list[float], note: str = "") -> None:
    """One line."""
    ms = np.array(times) * 1000
    print(f"{name:32s} p50 {np.median(ms):9.3f} ms   p99 {np.quantile(ms, 0.99):9.3f} ms   {note}", flush=True)


def anonymous_mib() -> float:
    """Memory of this process that is not files, MiB."""
    return (
        int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024
        - int(Path("/proc/self/statm").read_text().split()[2]) * 4 / 1024
    )


def compare(index: PictureIndex, hashes: np.ndarray, rng: np.random.Generator, queries: int, linear: int) -> None:
    """Thresholds 4 and 8 against both linear scans."""
    flat = faiss.IndexBinaryFlat(256)
    flat.add(hashes)
    words = hashes.view(np.uint64)
    for bits in (4, 8):
        asked = [
            flipped(rng, hashes[rng.integers(len(hashes))], int(rng.integers(0, bits + 1))) for _ in range(queries)
        ]
        asked += list(rng.integers(0, 256, (queries // 3, 32), dtype=np.uint8))
        took: dict[str, list[float]] = {"index": [], "numpy": [], "faiss": []}
        wanted = found = wrong = 0
        for at, query in enumerate(asked):
            began = time.perf_counter()
            hits = {row for row, _, _ in index.within(query[None], bits)}
            took["index"].append(time.perf_counter() - began)
            if at % max(1, len(asked) // linear):
                continue
            began = time.perf_counter()
            apart = np.bitwise_count(words ^ query.view(np.uint64)).sum(axis=1, dtype=np.int64)
            true = set(np.flatnonzero(apart <= bits).tolist())
            took["numpy"].append(time.perf_counter() - began)
            began = time.perf_counter()
            flat.range_search(query[None], bits + 1)
            took["faiss"].append(time.perf_counter() - began)
            wanted, found, wrong = wanted + len(true), found + len(true & hits), wrong + len(hits - true)
        report(
            f"distance {bits}: index", took["index"], f"recall {found / max(1, wanted):.5f} of {wanted}, wrong {wrong}"
        )
        report(f"distance {bits}: numpy popcount", took["numpy"])
        report(f"distance {bits}: faiss IndexBinaryFlat", took["faiss"])


def whole(index: PictureIndex, rng: np.random.Generator, queries: int) -> None:
    """All that one picture asks, for copies of which the hash is lost and a third of the segments are left."""
    rows = index.journal.rows()
    took, hit, false = [], 0, 0
    for at in range(queries):
        strange = at % 4 == 3
        row = rows[int(rng.integers(len(rows)))]
        keep = rng.permutation(SEGMENTS)
        pieces = np.array(row["pieces"])[keep]
        noise = rng.random((SEGMENTS, 8 * SEGMENT_BYTES)) < 0.09
        pieces ^= np.packbits(noise, axis=1)
        gone = SEGMENTS if strange else SEGMENTS * 2 // 3
        pieces[:gone] = rng.integers(0, 256, (gone, SEGMENT_BYTES), dtype=np.uint8)
        segments = Segments(np.ascontiguousarray(pieces), np.array(row["places"], np.float32)[keep])
        placed = rng.integers(0, 256, (8, 32), dtype=np.uint8)
        medium = Seen("ff" * 32, 0, prompt="a prompt", frames=(FramePrint(placed, segments),))
        began = time.perf_counter()
        match = index.same(medium) or index.near(medium) or index.by_segments(medium)
        took.append(time.perf_counter() - began)
        right = match is not None and match.sha256 == bytes(row["sha256"]).hex()
        hit, false = hit + (right and not strange), false + (match is not None and (strange or not right))
    wanted = sum(at % 4 != 3 for at in range(queries))
    report("whole, with segments", took, f"found {hit} of {wanted} damaged copies, {false} false")


def main() -> None:
    """Build, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, default=1_000_000)
    parser.add_argument("--with-segments", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--linear", type=int, default=150, help="queries that the linear scans are asked too")
    parser.add_argument("--folder", type=Path, help="where the index is made and removed again")
    options = parser.parse_args()
    rng = np.random.default_rng(20260101)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    folder = Path(tempfile.mkdtemp(prefix="near-duplicates-", dir=options.folder))
    try:
        for count, segments in ((options.media, False), (options.with_segments, True)):
            if not count:
                continue
            hashes = hashes_of(rng, count)
            before = anonymous_mib()
            index, seconds = build(folder / str(segments), hashes, rng, segments=segments)
            rows, runs = (
                sum(path.stat().st_size for path in (folder / str(segments)).glob(kind)) / 2**20
                for kind in ("*.rows", "*.run")
            )
            print(
                f"{count:,} media, segments {'yes' if segments else 'no'}: built in {seconds:.1f} s, "
                f"{rows:.0f} MiB rows, {runs:.0f} MiB runs, "
                f"{anonymous_mib() - before:.0f} MiB of memory kept"
            )
            index.close()
            began = time.perf_counter()
            index = PictureIndex(folder / str(segments))
            print(f"opened again in {time.perf_counter() - began:.2f} s", flush=True)
            compare(index, hashes, rng, options.queries, options.linear) if not segments else whole(index, rng, 200)
            if not segments:
                index.close()
                for path in (folder / str(segments)).glob("*.run"):
                    path.unlink()
                began = time.perf_counter()
                index = PictureIndex(folder / str(segments))
                print(f"built again from its rows in {time.perf_counter() - began:.1f} s", flush=True)
            index.close()
            shutil.rmtree(folder / str(segments))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"most memory of the process, with what is mapped: {most:.0f} MiB")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
