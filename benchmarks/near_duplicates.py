"""The whole search for copies against linear scans: ``python benchmarks/near_duplicates.py --pictures FOLDER``.

What is asked is all that verification asks of the index for one medium: bytes and pixels, the 256-bit hash in eight
placings (8 bits in the prompt, 4 in the store), segments and their mirror. The rival is a linear scan that compares
the same prints, with the same rules, with every row.

The index holds up to a few hundred real pictures of the folder, spread among made-up media. Of these a third of the
hashes are random and the rest in clusters of fifty (6 to 45 % of their places loose, in places that a cluster
shares). Their segments: 70 % have the frequencies and correlations of bits that the real pictures' segments have (of
two million draws from a thresholded normal distribution each is used about ten times, with 6 % of its bits changed, so
that every segment has ten others that are like it); 30 % are real segments with 2 to 25 % of their bits changed, the
more often the more other pictures have one like it, so that common corners are common here too. Numbers and places of
segments are those of a real picture. Queries are real copies of the planted pictures (encoded anew, cropped, mirrored,
with a border ...), real pictures that were not planted, and made-up media that the index does not hold.

The codes of segments were chosen on pictures with even numbers; ``--odd`` asks only of others.

``--folder`` keeps the index for the next time; ``--build`` only builds, as long as ``--seconds`` allow, and goes on
with what is there. ``sounds`` and ``videos`` are measured by ``near_duplicates_moving.py``.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from gas.media.hashing import distances, thumbnail  # noqa: E402
from gas.media.image import decode_image, encode_jpeg  # noqa: E402
from gas.media.segments import (  # noqa: E402
    NEAR_BITS,
    SEGMENT_BYTES,
    SEGMENTS,
    Segments,
    agreement,
    mirrored,
)
from gas.verification.pictures import AGREEING, STORE_BITS, PictureIndex  # noqa: E402
from gas.verification.pieces import segments_of  # noqa: E402
from gas.verification.prints import FramePrint, Seen, print_picture  # noqa: E402

CHUNK = 65536
PLANTED = 500
STEP = 100


def crop(rgb: np.ndarray, share: float) -> np.ndarray:
    """Without a share of each side, more of it on the right and at the top."""
    height, width = rgb.shape[:2]
    h, w = round(height * (1 - share)), round(width * (1 - share))
    top, left = round((height - h) * 0.3), round((width - w) * 0.6)
    return rgb[top : top + h, left : left + w]


def hue(rgb: np.ndarray) -> np.ndarray:
    """Turned by 60 degrees."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 30) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def framed(rgb: np.ndarray) -> np.ndarray:
    """With a border as of a screen shot."""
    height, width = rgb.shape[:2]
    return cv2.copyMakeBorder(
        rgb, height // 10, height // 20, width // 20, width // 20, cv2.BORDER_CONSTANT, value=(30, 30, 40)
    )


def scaled(rgb: np.ndarray, across: float, down: float) -> np.ndarray:
    """Of another size."""
    return cv2.resize(rgb, None, fx=across, fy=down, interpolation=cv2.INTER_AREA if down < 1 else cv2.INTER_CUBIC)


CHANGES = {
    "quality 20": lambda rgb: decode_image(encode_jpeg(rgb, 20)),
    "a tenth cropped": lambda rgb: crop(rgb, 0.1),
    "a quarter cropped": lambda rgb: crop(rgb, 0.25),
    "mirrored": lambda rgb: rgb[:, ::-1],
    "mirrored, cropped": lambda rgb: crop(rgb, 0.1)[:, ::-1],
    "another hue": hue,
    "more contrast": lambda rgb: np.clip(rgb * 1.5 - 60, 0, 255).astype(np.uint8),
    "half the size": lambda rgb: scaled(rgb, 0.5, 0.5),
    "1.5 times the size": lambda rgb: scaled(rgb, 1.5, 1.5),
    "squashed": lambda rgb: scaled(rgb, 1, 0.85),
    "with a border": framed,
    "noisy": lambda rgb: np.clip(rgb + np.random.default_rng(1).normal(0, 10, rgb.shape), 0, 255).astype(np.uint8),
}


@dataclass(frozen=True)
class Real:
    """Prints of real pictures: hashes (n, 8, 32), segments (n, 32, 16), places (n, 32, 4), counts (n,); copies by
    picture and change, with one more axis after the first."""

    pictures: tuple[np.ndarray, ...]
    copies: tuple[np.ndarray, ...]
    changes: tuple[str, ...]

    def medium(self, at: tuple[int, ...], *, copy: bool) -> Seen:
        """As verification would ask for it."""
        hashes, pieces, places, counts = (array[at] for array in (self.copies if copy else self.pictures))
        return medium(hashes, pieces[:counts], places[:counts])


def medium(hashes: np.ndarray, pieces: np.ndarray, places: np.ndarray) -> Seen:
    """A picture of these prints."""
    segments = Segments(np.ascontiguousarray(pieces), places.astype(np.float32))
    return Seen("ff" * 32, 0, prompt="a prompt", frames=(FramePrint(hashes, segments),))


def printed(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Hashes, segments, places, count."""
    frame = print_picture(np.ascontiguousarray(rgb))
    pieces, places = np.zeros((SEGMENTS, SEGMENT_BYTES), np.uint8), np.zeros((SEGMENTS, 4), np.float32)
    count = len(frame.segments)
    pieces[:count], places[:count] = frame.segments.hashes, frame.segments.places
    return frame.hashes, pieces, places, count


def collect(folders: list[Path], most: int) -> Real:
    """Prints of pictures, and of copies of the first of them."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
    np.random.default_rng(0).shuffle(paths)
    pictures: list[tuple] = []
    copies: list[list[tuple]] = []
    known: set[bytes] = set()
    for path in paths:
        data = path.read_bytes()
        if len(pictures) == most or data in known or len(data) < 8000:
            continue
        known.add(data)
        rgb = thumbnail(decode_image(data), 400)
        if min(rgb.shape[:2]) < 160:
            continue
        pictures.append(printed(rgb))
        if len(copies) < PLANTED:
            copies.append([printed(change(rgb)) for change in CHANGES.values()])
    return Real(
        tuple(np.array(column) for column in zip(*pictures, strict=True)),
        tuple(np.array([[one[at] for one in row] for row in copies]) for at in range(4)),
        tuple(CHANGES),
    )


def prints_of(file: Path | None, folders: list[Path]) -> Real:
    """Collected now, or what was collected before."""
    if file is None or not file.exists():
        real = collect(folders, 1600)
        if file is not None:
            names = [f"{kind}{at}" for kind in "pc" for at in range(4)]
            np.savez(file, **dict(zip(names, (*real.pictures, *real.copies), strict=True)), changes=real.changes)
        return real
    with np.load(file) as kept:
        return Real(
            tuple(kept[f"p{at}"] for at in range(4)), tuple(kept[f"c{at}"] for at in range(4)), tuple(kept["changes"])
        )


class MadeUp:
    """Makes media as the docstring says; the same for the same number of a chunk."""

    codes = 1 << 21

    def __init__(self, real: Real) -> None:
        from statistics import NormalDist

        _, pieces, self.places, self.counts = real.pictures
        filled = np.arange(SEGMENTS) < self.counts[:, None]
        self.pool = np.ascontiguousarray(pieces[filled])
        owner = np.nonzero(filled)[0]
        bits = np.unpackbits(self.pool, axis=1)
        share = bits.mean(axis=0).clip(0.01, 0.99)
        latent = np.sin(np.pi / 2 * np.corrcoef(bits.T.astype(float)))
        values, vectors = np.linalg.eigh(latent)
        root = vectors * np.sqrt(np.maximum(values, 1e-3))
        self.root = (root / np.linalg.norm(root, axis=1)[:, None]).astype(np.float32)
        self.above = np.array([NormalDist().inv_cdf(1 - p) for p in share], np.float32)
        # How many of some other pictures' segments are like each: that often it is used again.
        some = np.random.default_rng(5).choice(len(self.pool), min(2000, len(self.pool)), replace=False)
        words = self.pool.view(np.uint64)
        weight = np.ones(len(self.pool))
        for at in some:
            like = (np.bitwise_count(words ^ words[at]).sum(axis=1) <= NEAR_BITS) & (owner != owner[at])
            weight[like] += 1
        self.share = np.cumsum(weight / weight.sum()).clip(max=1)
        self.share[-1] = 1

        rng = np.random.default_rng(6)
        self.drawn = np.concatenate([self.draw(rng, 1 << 16) for _ in range(self.codes >> 16)])
        shares = rng.uniform(0.02, 0.25, (1 << 16, 1))
        self.strong = np.packbits(rng.random((1 << 16, 8 * SEGMENT_BYTES), np.float32) < shares, axis=1)
        self.weak = np.packbits(rng.random((1 << 16, 8 * SEGMENT_BYTES), np.float32) < 0.06, axis=1)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Hashes with the frequencies and correlations of real segments, (count, 16)."""
        drawn = rng.standard_normal((count, 8 * SEGMENT_BYTES), np.float32) @ self.root.T
        return np.packbits(drawn > self.above, axis=1)

    def segments(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, 32, 16)."""
        total = count * SEGMENTS
        pieces = self.drawn[rng.integers(0, len(self.drawn), total)]
        pieces ^= self.weak[rng.integers(0, len(self.weak), total)]
        again = np.flatnonzero(rng.random(total) < 0.3)
        used = np.searchsorted(self.share, rng.random(len(again)))
        pieces[again] = self.pool[used] ^ self.strong[rng.integers(0, len(self.strong), len(again))]
        return pieces.reshape(count, SEGMENTS, SEGMENT_BYTES)

    def hashes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, 32)."""
        out = rng.integers(0, 256, (count, 32), dtype=np.uint8)
        for start in range(count // 3, count, 50):
            size = min(50, count - start)
            loose = rng.random(256) * rng.uniform(0.06, 0.45)
            centre = out[start].copy()
            out[start : start + size] = centre ^ np.packbits(rng.random((size, 256)) < loose, axis=1)
        return out

    def rows(self, chunk: int, count: int) -> np.ndarray:
        """Rows of the index."""
        rng = np.random.default_rng([20260101, chunk])
        rows = np.zeros(count, PictureIndex.row_type())
        rows["sha256"][:, :16] = rng.integers(0, 256, (count, 16))
        rows["hash"] = self.hashes(rng, count)
        like = rng.integers(0, len(self.counts), count)
        rows["segments"], rows["places"] = self.counts[like], self.places[like]
        rows["pieces"] = self.segments(rng, count)
        rows["pieces"][np.arange(SEGMENTS) >= rows["segments"][:, None]] = 0
        return rows


def build(index: PictureIndex, made: MadeUp, real: Real, media: int, seconds: float) -> float:
    """Add what is missing; returns the processor seconds that the index took for it."""
    took, began = 0.0, time.monotonic()
    while len(index) < media and time.monotonic() - began < seconds:
        first = len(index)
        rows = made.rows(first // CHUNK, min(CHUNK, media - first))
        for at in range(-first % STEP, len(rows), STEP):
            number = (first + at) // STEP
            if number < len(real.copies[0]):
                hashes, pieces, places, count = (array[number] for array in real.pictures)
                rows["sha256"][at] = planted(number)
                rows["hash"][at], rows["pieces"][at], rows["places"][at] = hashes[0], pieces, places
                rows["segments"][at] = count
        before = time.process_time()
        index.add_rows(rows)
        took += time.process_time() - before
    before = time.process_time()
    index.settle()
    return took + time.process_time() - before


def planted(number: int) -> np.ndarray:
    """The name of a planted picture."""
    return np.frombuffer(b"planted" + number.to_bytes(25, "little"), np.uint8)


def report(name: str, times: list[float], note: str = "") -> None:
    """One line."""
    ms = np.array(times) * 1000
    print(
        f"{name:26s} p50 {np.median(ms):8.3f} ms  p99 {np.quantile(ms, 0.99):8.3f}  mean {ms.mean():8.3f}  {note}",
        flush=True,
    )


def search(index: PictureIndex, one: Seen) -> tuple[object, tuple[float, float, float]]:
    """All that one picture asks, and the seconds of its three parts."""
    at = [time.perf_counter()]
    found = index.same(one)
    at.append(time.perf_counter())
    found = found or index.near(one)
    at.append(time.perf_counter())
    found = found or index.by_segments(one)
    at.append(time.perf_counter())
    return found, (at[1] - at[0], at[2] - at[1], at[3] - at[2])


def linear(rows: np.ndarray, one: Seen) -> tuple[set[str], float]:
    """Names of all rows that are copies, by comparing each; and the seconds of it."""
    began = time.perf_counter()
    frame = one.frames[0]
    sides = [side for side in (frame.segments, mirrored(frame.segments)) if len(side) >= AGREEING]
    hits: set[str] = set()
    for start in range(0, len(rows), 2048):
        part = rows[start : start + 2048]
        apart = distances(frame.hashes[:, None], np.ascontiguousarray(part["hash"])[None]).min(axis=0)
        hits |= {bytes(name).hex() for name in part["sha256"][apart <= STORE_BITS]}
        theirs = np.ascontiguousarray(part["pieces"]).view(np.uint64)
        for side in sides:
            mine = side.hashes.view(np.uint64)
            near = np.zeros(len(part), np.int64)
            for segment in mine:
                first, second = (np.bitwise_count(theirs[..., word] ^ segment[word]) for word in (0, 1))
                near += (first + second <= NEAR_BITS).any(axis=1)
            for at in np.flatnonzero(near >= AGREEING):
                if agreement(side, segments_of(part[at])) >= AGREEING:
                    hits.add(bytes(part["sha256"][at]).hex())
    return hits, time.perf_counter() - began


def measure(
    index: PictureIndex, real: Real, made: MadeUp, queries: int, scans: int, seconds: float, *, odd: bool
) -> None:
    """Copies and strangers, against the planted rows and (some) against all."""
    rng = np.random.default_rng(7)
    count, changes = real.copies[0].shape[:2]
    journal = index.journal.rows()
    names = {bytes(planted(number)).hex(): number for number in range(count)}
    count = min(count, len(index) // STEP)
    held = journal[np.arange(count) * STEP]
    kinds = {"copies": [], "real strangers": [], "made-up strangers": []}
    picks = rng.permutation(count * changes)
    for pick in picks[(picks // changes) % 2 >= odd][:queries]:
        kinds["copies"].append((real.medium(divmod(int(pick), changes), copy=True), int(pick) % changes))
    strange = rng.permutation(np.arange(count + (count + 1) % 2 * odd, len(real.pictures[0]), 1 + odd))
    kinds["real strangers"] = [(real.medium((int(at),), copy=False), -1) for at in strange[: queries // 4]]
    for row in made.rows(10**6, max(1, queries // 4)):
        hashes = rng.integers(0, 256, (8, 32), dtype=np.uint8)
        stranger = medium(hashes, row["pieces"][: row["segments"]], row["places"][: row["segments"]])
        kinds["made-up strangers"].append((stranger, -1))
    for one, _ in kinds["made-up strangers"][:50]:
        search(index, one)
    stop = time.monotonic() + seconds
    asked: dict[bool, list[tuple[Seen, str | None]]] = {True: [], False: []}
    by_change = {name: [0, 0] for name in real.changes}
    everything: list[float] = []
    all_wanted = all_found = 0
    for kind, media in kinds.items():
        took: list[float] = []
        parts: list[tuple[float, float, float]] = []
        processor: list[float] = []
        wanted = found = others = 0
        for one, change in media:
            if time.monotonic() > stop:
                break
            before = time.thread_time()
            match, times = search(index, one)
            processor.append(time.thread_time() - before)
            took.append(sum(times))
            parts.append(times)
            name = None if match is None else match.sha256
            true, _ = linear(held, one)
            asked[bool(true)].append((one, name))
            wanted, found = wanted + bool(true), found + (bool(true) and name in true)
            others += name is not None and name not in names
            if change >= 0:
                by_change[real.changes[change]][0] += 1
                by_change[real.changes[change]][1] += name in true
        everything += took
        all_wanted, all_found = all_wanted + wanted, all_found + found
        split = " + ".join(f"{1000 * np.median(column):.2f}" for column in zip(*parts, strict=True))
        report(
            f"{kind} ({len(took):,})",
            took,
            f"processor p50 {1000 * np.median(processor):.2f}; names + hash + segments {split}; "
            f"recall {found / max(1, wanted):.5f} of {wanted}; {others} made-up found",
        )
    report("all", everything, f"recall {all_found / max(1, all_wanted):.5f} of {all_wanted}")
    print("found of what the scan and the index were asked, by change: ", end="")
    print(", ".join(f"{name} {good / max(1, all_):.3f}" for name, (all_, good) in by_change.items()))
    took, wanted, found = [], 0, 0
    # Every other one has something to be found.
    both = [[some[at] for at in rng.permutation(len(some))] for some in asked.values()]
    for one, name in [pick for pair in zip(*both, strict=False) for pick in pair][:scans]:
        true, seconds_taken = linear(journal, one)
        took.append(seconds_taken)
        wanted, found = wanted + bool(true), found + (bool(true) and name in true)
        if name is not None and name not in true:
            print("the index found what the scan did not")
    if took:
        report("linear scan of all rows", took, f"recall of the index {found / max(1, wanted):.5f} of {wanted}")


def memory() -> str:
    """Of this process now, MiB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    own, mapped = (int(fields[key].split()[0]) // 1024 for key in ("RssAnon", "RssFile"))
    return f"memory of its own {own} MiB, mapped files touched {mapped} MiB"


def main() -> None:
    """Build, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=Path, action="append", default=[], help="folders of real pictures")
    parser.add_argument("--prints", type=Path, help="where prints of the pictures are kept for the next time")
    parser.add_argument("--folder", type=Path, help="where the index is kept for the next time")
    parser.add_argument("--build", action="store_true", help="build only")
    parser.add_argument("--seconds", type=float, default=1e9, help="of building, and of asking")
    parser.add_argument("--queries", type=int, default=2000, help="copies; of strangers half as many")
    parser.add_argument("--odd", action="store_true", help="ask only of pictures with odd numbers")
    parser.add_argument("--scans", type=int, default=10, help="queries that a scan of all rows answers too")
    options = parser.parse_args()
    if not options.pictures and (options.prints is None or not options.prints.exists()):
        parser.error("--pictures names no folder of pictures, and there are no prints.")
    real = prints_of(options.prints, options.pictures)
    made = MadeUp(real)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {memory()}")
    with tempfile.TemporaryDirectory(prefix="near-duplicates-") as temporary:
        folder = options.folder or Path(temporary)
        began = time.perf_counter()
        index = PictureIndex(folder)
        print(f"{len(index):,} media: opened in {time.perf_counter() - began:.2f} s; {memory()}", flush=True)
        before = len(index)
        took = build(index, made, real, options.media, options.seconds)
        if len(index) > before:
            print(f"{len(index) - before:,} media added in {took:.1f} s of processor time; {memory()}")
        for kind in ("*.rows", "hashes*.run", "segments*.run"):
            files = [path.stat().st_size for path in folder.glob(kind)]
            print(f"{kind}: {len(files)} files, {sum(files) / 2**20:.0f} MiB")
        if not options.build:
            measure(index, real, made, options.queries, options.scans, options.seconds, odd=options.odd)
            print(memory())
        index.close()
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"most memory of the process, with what is mapped: {most:.0f} MiB")


if __name__ == "__main__":
    main()
