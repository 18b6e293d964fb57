"""The straightforward engine: what one writes first, in one process.

PIL for pictures, a decoder a clip that converts every frame up to the last wanted one, FFmpeg with a windowed-sinc
resampling of the whole file for sound; threads that prefetch media, batches stacked from them, torch in the same
process with as many threads as it likes, the allocator as it comes. Run as a process of its own, so that nothing of
ours is in it: ``python -m engine_parts.rival MATERIAL MODALITY MODEL_FOLDER SAMPLES BATCH``.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch


def picture(data: bytes, side: int) -> np.ndarray:
    from PIL import Image

    pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return _crop_and_resize(pixels, side)


def clip(data: bytes, side: int) -> np.ndarray:
    import av

    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        frames = []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == 16:
                break
    return np.stack([_crop_and_resize(pixels, side) for pixels in np.stack(frames)])


def sound(data: bytes, side: int) -> np.ndarray:  # noqa: ARG001
    import av

    with av.open(io.BytesIO(data)) as container:
        rate = container.streams.audio[0].rate
        layout = container.streams.audio[0].layout
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        parts = [part.to_ndarray() for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    mono = torch.from_numpy(np.concatenate(parts, axis=1).mean(axis=0))
    resampled = _sinc_resample(mono, rate, 16_000).numpy()
    out = np.zeros(96_000, np.float32)
    resampled = resampled[: len(out)]
    out[: len(resampled)] = resampled
    return out


def _sinc_resample(wave: torch.Tensor, before: int, after: int, width: int = 6, rolloff: float = 0.99) -> torch.Tensor:
    """Band-limited interpolation with a Hann window, as one convolution: the usual way of sound libraries for torch."""
    shared = math.gcd(before, after)
    before, after = before // shared, after // shared
    base = min(before, after) * rolloff
    reach = math.ceil(width * before / base)
    places = torch.arange(-reach, reach + before, dtype=torch.float64)[None, None] / before
    t = torch.arange(0, -after, -1, dtype=torch.float64)[:, None, None] / after + places
    t = (t * base).clamp(-width, width)
    window = torch.cos(t * math.pi / width / 2) ** 2
    t = t * math.pi
    kernel = torch.where(t == 0, torch.ones_like(t), t.sin() / t) * window * (base / before)
    padded = torch.nn.functional.pad(wave[None, None], (reach, reach + before))
    out = torch.nn.functional.conv1d(padded, kernel.float(), stride=before)
    return out.transpose(1, 2).reshape(-1)[: math.ceil(after * len(wave) / before)]


def _crop_and_resize(pixels: np.ndarray, side: int) -> np.ndarray:
    import cv2

    height, width = pixels.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    resized = cv2.resize(pixels[top : top + edge, left : left + edge], (side, side), interpolation=cv2.INTER_LINEAR)
    return resized.transpose(2, 0, 1)


DECODERS: dict[str, Callable[[bytes, int], np.ndarray]] = {"image": picture, "video": clip, "audio": sound}


def load(folder: Path) -> torch.nn.Module:
    names: dict[str, object] = {}
    exec((folder / "model.py").read_text(), names)
    return names["load_model"](str(folder / "model.safetensors"), 2).eval()  # type: ignore[operator,no-any-return]


def run(material: Path, modality: str, folder: Path, samples: int, batch: int) -> dict[str, float]:
    paths = sorted(path for path in material.iterdir() if path.name != "complete")
    decode, side = DECODERS[modality], 224
    if modality == "video" and "resnet18" in folder.name:
        side = 112
    model = load(folder)
    began, cpu = time.perf_counter(), _cpu()
    answers = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) * 2) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        numbers = iter(range(samples))

        def prefetch() -> None:
            for number in numbers:
                path = paths[number % len(paths)]
                waiting.append(pool.submit(lambda path=path: decode(path.read_bytes(), side)))
                return

        for _ in range(2 * batch):
            prefetch()
        while waiting:
            stacked = []
            while waiting and len(stacked) < batch:
                stacked.append(waiting.popleft().result())
                prefetch()
            with torch.no_grad():
                answers.append(torch.softmax(model(torch.from_numpy(np.stack(stacked))), dim=1).numpy())
    wall = time.perf_counter() - began
    if sum(map(len, answers)) != samples:
        raise SystemExit("The rival lost a sample.")
    return {"rate": samples / wall, "cpu": (_cpu() - cpu) / samples}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    where, kind, package, count, size = sys.argv[1:]
    print(json.dumps(run(Path(where), kind, Path(package), int(count), int(size))))
