"""How much detail a picture really holds, and whether it was enlarged.

Three traces of an enlargement, none of which every enlargement leaves:

- Rhythm. A pixel that is interpolated between others is smoother the farther it lies from them, and that distance comes
  back every so many pixels: the strength of the second differences along a row has a period (Gallagher, "Detection of
  linear and cubic interpolation in JPEG compressed images", 2005). One and a half, 1.9 or 3 times leave it; twice and
  four times hardly, and periods of eight and sixteen pixels are passed over, which are those of encoders.
- Spectrum. Above half of the finest frequency of the original there is little left in the most textured places.
- Edges. From one side of a strong edge to the other a sharp picture needs a pixel or two, one enlarged by three needs
  four to six. Only the steepest are looked at: a picture may be blurred in most places, but hardly in all.

A soft photograph has the last two as well, and one that was made smaller may have the first: each alone only says that
the detail of a smaller picture may be there. Two plain ones are an enlargement. Whatever draws edges of its own (a
super-resolution model) passes: nothing that only looks at pixels tells that from a camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Detail", "edge_steepness", "measure_detail", "rhythm"]

_REACH: Final = 9
_STRONG: Final = 50.0
_QUANTILE: Final = 0.98
_FEWEST: Final = 50
_MOST: Final = 1024
_LEAST: Final = 256

_TRACE: Final = 5.0
_CERTAIN: Final = 8.5
_SHARPEST: Final = 0.8
_SOFT: Final = 0.66
_FALLING: Final = -1.25
_FALLEN: Final = -1.6
_DULL: Final = 0.42
_DULLEST: Final = 0.36
_BLUNT: Final = 0.25
_SLOWEST: Final = 0.15
_GRID: Final = 16
_AROUND: Final = 25
_BLOCK: Final = 32
_TEXTURED: Final = 12


@dataclass(frozen=True, slots=True)
class Detail:
    """How much of a picture's size is real.

    Attributes:
        scale: Of either side, in (0, 1]: a picture of so many times fewer pixels a side holds as much. 1 where nothing
            speaks against it.
        sure: Whether it was enlarged, by two of the three traces, each plain; else it may as well be soft.
        rhythm: See :func:`rhythm`; 0 where edges are too sharp to ask.
        steepness: See :func:`edge_steepness`; None when there are too few edges.
        fall: Decadic logarithm of the power at 0.28 to 0.36 of the sampling rate against that at 0.13 to 0.22; 0 where
            edges are too sharp to ask.
    """

    scale: float = 1.0
    sure: bool = False
    rhythm: float = 0.0
    steepness: float | None = None
    fall: float = 0.0


def measure_detail(picture: NDArray[np.uint8]) -> Detail:
    """Measure a picture.

    Args:
        picture: uint8, (h, w, 3) or grey (h, w); of a large one the middle is looked at.
    """
    height, width = picture.shape[:2]
    side = min(_MOST, height, width)
    top, left = (height - side) // 2, (width - side) // 2
    part = picture[top : top + side, left : left + side]
    grey = (
        np.ascontiguousarray(part) if part.ndim == 2 else np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), np.uint8)
    )
    steepness = edge_steepness(grey)
    if side < _LEAST or steepness is None or steepness >= _SHARPEST:
        return Detail(steepness=steepness)
    beat, frequency = rhythm(grey)
    fall = _fall(grey)
    scale = 1.0
    if beat >= _TRACE and fall < _FALLING:
        # Three times has the period of one and a half times; the edges tell which it was.
        scale = frequency if steepness < _DULL else 1 - frequency
    elif steepness < _SOFT and fall < _FALLEN:
        scale = 0.5
    if steepness < _BLUNT or (steepness < _DULLEST and fall < _FALLEN):
        scale = min(scale, 1 / 3)
    # Two of the three traces, each plain.
    sure = (beat >= _CERTAIN) + (fall < _FALLEN) + (steepness < _DULLEST) >= 2
    return Detail(round(scale, 4), sure, round(beat, 2), round(steepness, 4), round(fall, 3))


def rhythm(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """The strongest period in how smooth a picture's columns and rows are.

    Args:
        grey: uint8, (n, n), n at least 256.

    Returns:
        How many times stronger it is than what lies around it, the weaker one of both axes: 2 to 3 for most pictures,
        5 and more for most enlarged ones; and its frequency, 0.15 to 0.5 of the sampling rate.
    """
    spectra = []
    for lines in (grey, grey.T):
        values = lines.astype(np.float32)
        rough = np.minimum(np.abs(2 * values[:, 1:-1] - values[:, :-2] - values[:, 2:]), 30).mean(axis=0)
        mean = cv2.blur(rough[None], (33, 1))[0]
        wave = (rough / np.maximum(mean, 1e-3) - 1) * np.hanning(len(rough))
        spectrum = np.abs(np.fft.rfft(wave))
        padded = np.pad(spectrum, _AROUND, mode="reflect")
        around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1), axis=1)
        spectra.append(spectrum / np.maximum(around, 1e-6))
    both = np.minimum(*spectra)
    frequency = np.arange(len(both)) / len(rough)
    from_grid = np.abs(frequency * _GRID - np.round(frequency * _GRID)) / _GRID
    both[(frequency < _SLOWEST) | (from_grid < 4 / len(grey))] = 0
    at = int(both.argmax())
    return float(both[at]), float(frequency[at])


def edge_steepness(picture: NDArray[np.uint8]) -> float | None:
    """How much of a strong edge's height the steepest edges climb within one pixel.

    Args:
        picture: uint8, (h, w, 3) or grey (h, w).

    Returns:
        In (0, 1]: 0.4 and more for most sharp pictures, 0.2 to 0.35 for most that were enlarged by three; None when
        there are too few strong edges to tell.
    """
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    kernel = np.ones((1, _REACH), np.uint8)
    found = []
    for lines in (grey, np.ascontiguousarray(grey.T)):
        span = cv2.subtract(cv2.dilate(lines, kernel), cv2.erode(lines, kernel))[:, :-1]
        step = cv2.absdiff(lines[:, 1:], lines[:, :-1])
        edge = (span > _STRONG) & (step == cv2.dilate(step, kernel))
        found.append(step[edge] / span[edge].astype(np.float32))
    ratios = np.concatenate(found)
    return float(np.quantile(ratios, _QUANTILE)) if len(ratios) >= _FEWEST else None


def _fall(grey: NDArray[np.uint8]) -> float:
    """See :class:`Detail`; of the mean of both axes in the most textured blocks, the noise of the smooth ones off."""
    side = min(grey.shape) // _BLOCK * _BLOCK
    count = side // _BLOCK
    cut = grey[:side, :side].astype(np.float32).reshape(count, _BLOCK, count, _BLOCK).transpose(0, 2, 1, 3)
    blocks = cut.reshape(-1, _BLOCK, _BLOCK)
    blocks = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(_BLOCK).astype(np.float32)
    # Only what is low along one axis is looked at along the other: frequencies 0 to 3, and -1 to -3 by symmetry.
    low = np.exp(-2j * np.pi / _BLOCK * np.arange(4)[:, None] * np.arange(_BLOCK)).astype(np.complex64) * window
    half = _BLOCK // 2 + 1
    falls = []
    for lines in (blocks, blocks.transpose(0, 2, 1)):
        power = np.abs(np.fft.fft((low @ lines) * window, axis=2)) ** 2
        mirrored = np.roll(power[:, 1:, ::-1], 1, axis=2)
        profile = ((power.sum(axis=1) + mirrored.sum(axis=1)) / 7)[:, :half]
        middle = profile[:, 4:8].mean(axis=1)
        noise = np.quantile(profile[:, 13:half].mean(axis=1), 0.1)
        chosen = np.argsort(-middle)[: max(8, len(middle) // _TEXTURED)]
        mean = np.maximum(profile[chosen].mean(axis=0) - noise, 1e-9)
        falls.append(float(np.log10(mean[9:12] / mean[4:8].mean()).mean()))
    return sum(falls) / 2
