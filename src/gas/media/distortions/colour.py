"""Distortions of colour: each pixel changes by a rule of its own value, none moves.

All take and give uint8 (h, w, 3), RGB. Elementwise float32 arithmetic or tables of 256 values: the same result on
every machine, up to the last place of ``cos``, ``sin`` and ``pow`` in the C library, which rounding to whole grey
levels hides but for rare ties.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gas.media.image import RGB

__all__ = ["brightness", "contrast", "gamma", "hue", "luma", "saturation"]

# Luma weights of ITU-R BT.601, which JPEG uses too.
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)


def luma(rgb: RGB) -> NDArray[np.float32]:
    """Brightness as the eye weighs it (ITU-R BT.601): float32 (h, w), 0..255."""
    wide = rgb.astype(np.float32)
    return np.asarray(wide[..., 0] * _RED + wide[..., 1] * _GREEN + wide[..., 2] * _BLUE, dtype=np.float32)


def brightness(rgb: RGB, factor: float) -> RGB:
    """Every value times ``factor``; 1 changes nothing, 0 is black."""
    return _by_table(rgb, np.arange(256, dtype=np.float64) * factor)


def contrast(rgb: RGB, factor: float) -> RGB:
    """Distances from the picture's mean luma times ``factor``; 1 changes nothing, 0 is flat grey."""
    count = rgb.shape[0] * rgb.shape[1]
    red, green, blue = (int(rgb[..., channel].sum(dtype=np.int64)) for channel in range(3))
    mean = (0.299 * red + 0.587 * green + 0.114 * blue) / count
    return _by_table(rgb, mean + (np.arange(256, dtype=np.float64) - mean) * factor)


def gamma(rgb: RGB, exponent: float) -> RGB:
    """255 * (value / 255) ** exponent; above 1 darkens the middle tones, black and white stay.

    Raises:
        ValueError: The exponent is not positive.
    """
    if exponent <= 0:
        raise ValueError("The exponent must be positive.")
    return _by_table(rgb, 255 * np.power(np.arange(256, dtype=np.float64) / 255, exponent))


def saturation(rgb: RGB, factor: float) -> RGB:
    """Distances of the channels from the pixel's luma times ``factor``; luma stays, 0 is grey, 1 changes nothing."""
    grey = luma(rgb)[..., None]
    return _to_bytes(grey + (rgb.astype(np.float32) - grey) * np.float32(factor))


def hue(rgb: RGB, degrees: float) -> RGB:
    """Turn the colours about the grey axis: the chroma plane (Cb, Cr) of BT.601 by ``degrees``; luma stays.

    Where a turned colour does not fit into 0..255 it is clipped, and luma changes by as much.
    """
    turn = math.radians(degrees)
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    grey = luma(rgb)
    wide = rgb.astype(np.float32)
    blue_ness = (wide[..., 2] - grey) * np.float32(0.5 / (1 - 0.114))
    red_ness = (wide[..., 0] - grey) * np.float32(0.5 / (1 - 0.299))
    turned_blue = (blue_ness * cos - red_ness * sin) * np.float32(2 * (1 - 0.114))
    turned_red = (blue_ness * sin + red_ness * cos) * np.float32(2 * (1 - 0.299))
    out = np.empty(rgb.shape, np.float32)
    out[..., 0] = grey + turned_red
    out[..., 2] = grey + turned_blue
    out[..., 1] = (grey - out[..., 0] * _RED - out[..., 2] * _BLUE) / _GREEN
    return _to_bytes(out)


def _by_table(rgb: RGB, values: NDArray[np.float64]) -> RGB:
    return _to_bytes(values)[rgb]


def _to_bytes(values: NDArray[np.float32] | NDArray[np.float64]) -> RGB:
    return np.asarray(np.rint(np.clip(values, 0, 255)), dtype=np.uint8)
