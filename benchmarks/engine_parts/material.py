"""The media that the engine is measured on: made once from a seed, kept in a temporary folder."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from gas.datasets.plan import Round, freeze_round
from gas.media.encode import encode_mp4, encode_wav
from gas.media.image import encode_jpeg
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample

COUNTS = {"image": 2_000, "video": 100, "audio": 200, "small": 50}
QUICK = {"image": 200, "video": 20, "audio": 40, "small": 50}


def natural(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A picture with the spectrum of photographs (amplitude falls with the frequency), weakly coloured."""
    across, down = np.meshgrid(np.fft.rfftfreq(width), np.fft.fftfreq(height))
    fall = np.maximum(np.hypot(across, down), 1 / max(height, width)) ** 1.5
    waves = rng.normal(size=(3, *fall.shape)) + 1j * rng.normal(size=(3, *fall.shape))
    planes = np.fft.irfft2(waves / fall, (height, width))
    light, red, blue = planes / planes.std(axis=(1, 2), keepdims=True)
    colours = np.stack([light + 0.3 * red, light - 0.1 * red - 0.1 * blue, light + 0.3 * blue], axis=-1)
    return np.clip(50 * colours + 120, 0, 255).astype(np.uint8)


def make(modality: str, count: int, folder: Path | None = None) -> Path:
    """A folder of ``count`` media of one kind; made when it is not there.

    Args:
        modality: ``image`` (512 x 512 JPEG), ``video`` (two seconds of 640 x 360 MP4), ``audio`` (6 s of 44.1 kHz WAV),
            or ``small`` (64 x 64 JPEG).
        count: How many.
        folder: Where such folders are kept; a temporary one when left out.
    """
    home = (folder or Path(tempfile.gettempdir()) / "gas-bench-material") / f"{modality}-{count}-3"
    if (home / "complete").exists():
        return home
    home.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    scene = natural(1400, 1400, rng) if modality in ("image", "video", "small") else None
    for number in range(count):
        if scene is None:
            smooth = np.cumsum(rng.normal(size=(6 * 44_100, 1)), axis=0)
            smooth -= np.linspace(0, 1, len(smooth))[:, None] * smooth[-1]
            data = encode_wav((0.8 * smooth / np.abs(smooth).max()).astype(np.float32), 44_100)
        elif modality == "video":
            top, left = rng.integers(0, 400, 2)
            frames = [scene[top + i // 3 :, left + 4 * i :][:360, :640] for i in range(60)]
            data = encode_mp4(frames, 30.0, preset="ultrafast", keyframes=30)
        else:
            side = 512 if modality == "image" else 64
            top, left = rng.integers(0, 1400 - side, 2)
            data = encode_jpeg(np.ascontiguousarray(scene[top : top + side, left : left + side]), 75)
        (home / f"{number:05}").write_bytes(data)
    (home / "complete").touch()
    return home


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != "complete")


class Aliases(FolderBlobs):
    """Blobs of which several names mean the same bytes, so that a plan can be longer than its material.

    Each read costs what one of the store costs: the file is read and its hash compared.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        super().__init__(root)
        self.originals = [self.put(path.read_bytes()) for path in files(folder)]

    def get(self, name: str) -> bytes:
        return super().get(self.originals[int(name[:12], 16) % len(self.originals)])


def a_round(modality: str, count: int) -> Round:
    """A round of ``count`` samples whose names :class:`Aliases` knows."""
    samples = []
    for number in range(count):
        name = f"{number:012x}{hashlib.sha256(str(number).encode()).hexdigest()[:52]}"
        samples.append(
            Sample(
                sample_id=name,
                modality=Modality("image" if modality == "small" else modality),
                media_type=MediaType.SYNTHETIC if number % 2 else MediaType.REAL,
                provenance=Provenance.PUBLIC,
                dataset=("made", "taken")[number % 2],
                source="benchmark",
                origin=name,
                generator_hotkey=None,
            )
        )
    return freeze_round(samples, 7, {}, code_version="benchmark")
