"""Decoding against the usual ways, on one core: ``python benchmarks/decode.py``.

Each row is a ratio of medians of processor time, both sides measured in turns in one run, with the same
allocator settings, one thread, pinned to one core. The media are made here, from a seed. The baselines do what
their namesakes do, with the same libraries as ours where there are any:

- picture: ``np.array(PIL.Image.open(...).convert("RGB"))``, crop, cv2 bilinear, channels first;
- video, decord-like: decode from the start up to the last wanted frame and convert every frame to RGB, hand the
  wanted ones out as one array of whole frames, crop and resize each;
- sound, torchcodec-like: FFmpeg decodes the whole file, its resampler makes floats of 16 kHz, the channels are
  averaged and the centre cut out.

A ratio below the aim is printed as it is.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
if (
    __name__ == "__main__"
    and "--plain-allocator" not in sys.argv
    and any(os.environ.get(name) != value for name, value in ALLOCATOR.items())
):
    # glibc reads its settings once, when the process starts.
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})

import av  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from gas.media.audio import load_audio  # noqa: E402
from gas.media.encode import encode_mp4, encode_wav  # noqa: E402
from gas.media.guard import GuardedDecoder  # noqa: E402
from gas.media.image import crop_box, encode_jpeg, load_image  # noqa: E402
from gas.media.video import frame_indices, load_video  # noqa: E402

TARGET = (224, 224)


def natural(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with the spectrum of photographs (amplitude falls with the frequency), weakly coloured."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height))
    fall = np.maximum(np.hypot(across, down), 1 / max(height, width)) ** 1.5
    waves = rng.normal(size=(3, *fall.shape)) + 1j * rng.normal(size=(3, *fall.shape))
    planes = np.fft.irfft2(waves / fall, (height, width))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    light, red, blue = planes
    colours = np.stack([light + 0.3 * red, light - 0.1 * red - 0.1 * blue, light + 0.3 * blue], axis=-1)
    return np.clip(50 * colours + 120, 0, 255).astype(np.uint8)


def pil_way(data: bytes) -> np.ndarray:
    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return crop_and_resize(pixels)


def crop_and_resize(pixels: np.ndarray) -> np.ndarray:
    top, left, height, width = crop_box(*pixels.shape[:2], TARGET)
    crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
    resized = cv2.resize(crop, (TARGET[1], TARGET[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized.transpose(2, 0, 1))


def decord_way(data: bytes, frame_rate: float | None) -> np.ndarray:
    with av.open(io.BytesIO(data), format="mp4") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        wanted = frame_indices(16, frame_rate, float(stream.average_rate))
        reformatter = av.video.reformatter.VideoReformatter()
        frames: list[np.ndarray] = []
        for frame in container.decode(stream):
            pixels = reformatter.reformat(frame, format="rgb24").to_ndarray()
            frames.append(pixels if len(frames) in wanted else pixels[:0])
            if len(frames) > wanted[-1]:
                break
    batch = np.stack([frames[index] for index in wanted])
    return np.stack([crop_and_resize(pixels) for pixels in batch])


def torchcodec_way(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data), format="wav") as container:
        resampler = av.AudioResampler(format="fltp", layout=container.streams.audio[0].layout, rate=16_000)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        parts += resampler.resample(None)
    mono = np.concatenate([part.to_ndarray() for part in parts], axis=1).mean(axis=0)
    start = (len(mono) - 96_000) // 2
    return mono[start : start + 96_000].clip(-1, 1)


def compare(
    name: str,
    aim: float,
    baseline: Callable[[bytes], np.ndarray],
    ours: Callable[[bytes], np.ndarray],
    media: Sequence[bytes],
    rounds: int,
    *,
    tolerance: float = 0,
) -> None:
    """Measure both in turns and print one row; stops the run when the answers differ."""
    for data in media:
        apart = np.abs(baseline(data).astype(np.float64) - ours(data)).max()
        if apart > tolerance:
            sys.exit(f"{name}: the answers are {apart} apart")
    times: dict[Callable[[bytes], np.ndarray], list[float]] = {baseline: [], ours: []}
    for _ in range(rounds):
        for way, seen in times.items():
            start = time.process_time()
            for data in media:
                way(data)
            seen.append((time.process_time() - start) / len(media))
    before, after = (float(np.median(seen)) for seen in times.values())
    ratios = np.array(times[baseline]) / np.array(times[ours])
    low, high = np.quantile(ratios, [0.1, 0.9])
    verdict = "reached" if before / after >= aim else "MISSED"
    print(
        f"{name:46}{1000 * before:10.2f}{1000 * after:10.2f}{before / after:8.2f}"
        f"  ({low:.2f} to {high:.2f}){aim:7.1f}  {verdict}",
        flush=True,
    )


def pictures(rounds: int) -> None:
    for quality in (60, 75, 85, 95):
        media = [encode_jpeg(natural(512, 512, seed), quality) for seed in range(8)]
        size = sum(map(len, media)) // len(media) // 1000
        name = f"512x512 JPEG, quality {quality}, {size} kB"
        compare(name, 1.7, pil_way, lambda data: load_image(data, TARGET), media, rounds)


def videos(rounds: int) -> None:
    scene = natural(560, 1300, 5)
    frames = [scene[i // 3 :, 2 * i :][:360, :640] for i in range(300)]
    data = encode_mp4(frames, 30, keyframes=60)
    print(f"(640x360 MP4 of 300 frames, {len(data) // 1000} kB, a key frame in 60)")
    for name, rate in (("first 16 frames", None), ("16 frames at 4 a second", 4.0), ("16 frames over the clip", 1.6)):
        compare(
            f"640x360 MP4, {name}",
            1.2,
            lambda data, rate=rate: decord_way(data, rate),
            lambda data, rate=rate: load_video(data, TARGET, 16, rate),
            [data],
            rounds,
        )


def sounds(rounds: int) -> None:
    rng = np.random.default_rng(7)
    for seconds, channels in ((10, 1), (10, 2), (6, 1)):
        # A band-limited sound: the two resamplers differ near half the rate.
        smooth = np.cumsum(rng.normal(size=(seconds * 44_100, channels)), axis=0)
        smooth -= np.linspace(0, 1, len(smooth))[:, None] * smooth[-1]
        data = encode_wav((0.8 * smooth / np.abs(smooth).max()).astype(np.float32), 44_100)
        name = f"6 s of a {seconds} s WAV, 44.1 kHz, {channels} channels"
        compare(name, 3.0, torchcodec_way, load_audio, [data], rounds, tolerance=0.02)


def guard(rounds: int) -> None:
    data = encode_jpeg(natural(512, 512, 0), 75)
    with GuardedDecoder() as guarded:
        walls: dict[str, list[float]] = {"in process": [], "guarded": []}
        for _ in range(20 * rounds):
            for name, way in (("in process", load_image), ("guarded", guarded.load_image)):
                start = time.perf_counter()
                way(data, TARGET)
                walls[name].append(time.perf_counter() - start)
    for name, part in (("median", 0.5), ("best tenth", 0.1)):
        plain, child = (1e6 * float(np.quantile(seen, part)) for seen in walls.values())
        print(f"a JPEG guarded, wall time, {name}: {child:.0f} us, in process {plain:.0f}: {child - plain:.0f} more")


def resident() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def memory(items: int) -> None:
    """Memory of one worker that decodes pictures of many sizes, clips and sounds."""
    images = [encode_jpeg(natural(64 + 32 * seed, 96 + 48 * seed, seed), 80) for seed in range(8)]
    clip = encode_mp4([natural(64, 96, seed) for seed in range(8)], 10)
    sound = encode_wav(np.random.default_rng(1).uniform(-0.5, 0.5, 8000).astype(np.float32), 8000)
    seen = []
    for item in range(1, items + 1):
        if item % 10 == 0:
            load_video(clip, (64, 64), 4, 2.0)
        elif item % 10 == 5:
            load_audio(sound, 16_000, 0.5)
        else:
            load_image(images[item % len(images)], TARGET)
        if item in (items // 10, items // 2, items):
            seen.append((item, resident()))
    print("memory of one worker: " + ", ".join(f"{size:.1f} MB after {item:,} items" for item, size in seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the repetitions")
    parser.add_argument("--plain-allocator", action="store_true", help="glibc's own settings, for both sides")
    quick = parser.parse_args().quick
    cv2.setNumThreads(1)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    print(f"{'ms of one core':46}{'baseline':>10}{'ours':>10}{'ratio':>8}  (10 to 90 %){'aim':>7}")
    pictures(6 if quick else 30)
    videos(4 if quick else 15)
    sounds(6 if quick else 30)
    memory(2_000 if quick else 10_000)
    os.sched_setaffinity(0, before)
    guard(3 if quick else 15)


if __name__ == "__main__":
    main()
