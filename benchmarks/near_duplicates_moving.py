"""The search for copies of videos and sounds: ``python benchmarks/near_duplicates_moving.py --prints FILE``.

Videos have five frames, which are made up and planted as the pictures of ``near_duplicates.py`` are (``--prints`` or
``--pictures`` as there); a query is a planted video of which every frame was changed in the same way, or one of five
real pictures that were not planted. Sounds are made up: words of which one in twelve bits changes from one to the
next, as they do in speech, with pauses, and some words that very many have; a query is a stretch of one with up to a
tenth of its bits wrong (what codecs, gain and noise do to real ones is 8 % at most), or another made-up sound.
Recall is against comparing with the planted ones by the same rules.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from near_duplicates import CHUNK, MadeUp, linear, memory, planted, prints_of, report

from gas.media.soundprint import overlap
from gas.types import Modality
from gas.verification.pictures import PictureIndex
from gas.verification.prints import Seen
from gas.verification.sounds import SOUND_BITS, SoundIndex

FRAMES = 5
NEEDED = 3
WORDS = 256


def busy(processor: list[float]) -> str:
    """Processor time."""
    return f"processor p50 {1000 * np.median(processor):.2f}"


def videos(args: argparse.Namespace) -> None:
    """Five rows a medium."""
    real = prints_of(args.prints, args.pictures)
    made = MadeUp(real)
    count, changes = len(real.copies[0]) // FRAMES, len(real.changes)
    with tempfile.TemporaryDirectory() as folder:
        index = PictureIndex(Path(folder))
        took = time.process_time()
        making = 0.0
        size = CHUNK // FRAMES * FRAMES
        for start in range(0, args.media * FRAMES, size):
            before = time.process_time()
            rows = made.rows(start, min(size, args.media * FRAMES - start))
            rows["sha256"] = np.repeat(rows["sha256"][::FRAMES], FRAMES, axis=0)
            rows["frame"], rows["modality"] = np.arange(len(rows)) % FRAMES, list(Modality).index(Modality.VIDEO)
            if not start:
                for at in range(count * FRAMES):
                    hashes, pieces, places, segments = (array[at] for array in real.pictures)
                    rows["sha256"][at], rows["hash"][at] = planted(at // FRAMES), hashes[0]
                    rows["pieces"][at], rows["places"][at], rows["segments"][at] = pieces, places, segments
            making += time.process_time() - before
            index.add_rows(rows)
        index.settle()
        took = time.process_time() - took - making
        print(f"{args.media:,} videos, {len(index):,} rows, added in {took:.1f} s of processor time; {memory()}")
        held = index.journal.rows()[: count * FRAMES]
        rng = np.random.default_rng(3)
        for kind in ("copies", "strangers"):
            times, processor, wanted, found = [], [], 0, 0
            picks = rng.permutation(count * changes)[: args.queries] if kind == "copies" else range(args.queries // 2)
            for pick in picks:
                if kind == "copies":
                    video, change = divmod(int(pick), changes)
                    media = [real.medium((video * FRAMES + at, change), copy=True) for at in range(FRAMES)]
                else:
                    strange = rng.integers(len(real.copies[0]), len(real.pictures[0]), FRAMES)
                    media = [real.medium((int(at),), copy=False) for at in strange]
                frames = tuple(one.frames[0] for one in media)
                asked = Seen("ff" * 32, 0, prompt="a prompt", modality=Modality.VIDEO, frames=frames)
                began, before = time.perf_counter(), time.thread_time()
                match = index.same(asked) or index.near(asked) or index.by_segments(asked)
                times.append(time.perf_counter() - began)
                processor.append(time.thread_time() - before)
                told: dict[str, int] = {}
                for one in media:
                    for name in linear(held, one)[0]:
                        told[name] = told.get(name, 0) + 1
                true = {name for name, frames_told in told.items() if frames_told >= NEEDED}
                wanted, found = wanted + bool(true), found + (bool(true) and match is not None and match.sha256 in true)
            report(f"videos, {kind}", times, f"{busy(processor)}; recall {found / max(1, wanted):.5f} of {wanted}")
        index.close()


def sounding(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Words of sounds, (count, length)."""
    changes = rng.random((count, length, 32), np.float32) < 1 / 12
    changes[:, 0] = rng.random((count, 32)) < 0.5
    bits = np.bitwise_xor.accumulate(changes, axis=1)
    words = np.packbits(bits, axis=2).view("<u4")[..., 0].astype(np.uint32)
    stock = np.random.default_rng(1).integers(1, 1 << 32, 50, dtype=np.uint32)
    often = rng.random((count, length)) < 0.03
    words[often] = stock[rng.integers(0, len(stock), int(often.sum()))]
    words[np.repeat(rng.random((count, -(-length // 16))) < 0.1, 16, axis=1)[:, :length]] = 0
    return words


def sounds(args: argparse.Namespace) -> None:
    """Two rows a medium, of twelve seconds."""
    rng = np.random.default_rng(4)
    with tempfile.TemporaryDirectory() as folder:
        index = SoundIndex(Path(folder))
        kept, took = [], 0.0
        for start in range(0, args.media, 4096):
            words = sounding(rng, min(4096, args.media - start), 2 * WORDS)
            rows = np.zeros(2 * len(words), index.journal.dtype)
            rows["sha256"][:, :16] = np.repeat(rng.integers(0, 256, (len(words), 16)), 2, axis=0)
            rows["part"], rows["count"], rows["words"] = np.arange(len(rows)) % 2, WORDS, words.reshape(-1, WORDS)
            kept += [(bytes(name).hex(), one) for name, one in zip(rows["sha256"][::2][:20], words[:20], strict=False)]
            before = time.process_time()
            index.add_rows(rows)
            took += time.process_time() - before
        index.settle()
        print(f"{args.media:,} sounds, {len(index):,} rows, added in {took:.1f} s of processor time; {memory()}")
        for kind in ("copies", "strangers"):
            times, processor, wanted, found, false = [], [], 0, 0, 0
            for _ in range(args.queries):
                name, words = kept[int(rng.integers(len(kept)))]
                if kind == "strangers":
                    name, words = "", sounding(rng, 1, 2 * WORDS)[0]
                start = int(rng.integers(0, 100))
                stretch = words[start : start + int(rng.integers(200, 400))]
                wrong = np.packbits(rng.random((len(stretch), 32)) < rng.uniform(0, 0.1), axis=1).view("<u4")[:, 0]
                stretch = np.where(stretch == 0, 0, stretch ^ wrong).astype(np.uint32)
                asked = Seen("ff" * 32, modality=Modality.AUDIO, words=stretch)
                began, before = time.perf_counter(), time.thread_time()
                match = index.same(asked) or index.near(asked)
                times.append(time.perf_counter() - began)
                processor.append(time.thread_time() - before)
                true = bool(name) and min(overlap(stretch, part)[0] for part in np.split(words, 2)) <= SOUND_BITS
                wanted, found = wanted + true, found + (true and match is not None and match.sha256 == name)
                false += match is not None and match.sha256 != name
            report(
                f"sounds, {kind}",
                times,
                f"{busy(processor)}; recall {found / max(1, wanted):.5f} of {wanted}, {false} false",
            )
        index.close()


def main() -> None:
    """Build, ask, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=int, default=100_000)
    parser.add_argument("--pictures", type=Path, action="append", default=[], help="folders of real pictures")
    parser.add_argument("--prints", type=Path, help="where prints of the pictures are kept for the next time")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--only", choices=("videos", "sounds"))
    args = parser.parse_args()
    if args.only != "videos":
        sounds(args)
    if args.only != "sounds":
        videos(args)


if __name__ == "__main__":
    main()
