"""Distortions that move pixels: each takes a picture or a mask, so that both move alike.

All take uint8 arrays of shape (h, w, 3) or (h, w), give back an array of their own, and are told by ``nearest``
whether values may be mixed (pictures: bilinear) or not (masks: nearest neighbour).
"""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Pixels",
    "cover_zoom",
    "crop",
    "crop_window",
    "flip",
    "quarter_turn",
    "rescale",
    "resize",
    "resized_crop",
    "rotate",
]

Pixels = NDArray[np.uint8]
"""A picture, uint8 (h, w, 3), or a mask, uint8 (h, w)."""


def crop_window(shape: tuple[int, ...], top: float, left: float, height: float, width: float) -> tuple[slice, slice]:
    """Rows and columns of a crop that is given in fractions, so that one crop fits frames and masks of any size.

    Args:
        shape: Of the picture; the first two count.
        top: Upper edge as a fraction of the height, in [0, 1).
        left: Left edge as a fraction of the width, in [0, 1).
        height: Fraction of the height, in (0, 1 - top].
        width: Fraction of the width, in (0, 1 - left].

    Returns:
        Slices of at least one pixel.

    Raises:
        ValueError: The window does not lie inside the picture.
    """
    if not (0 <= top < 1 and 0 <= left < 1 and 0 < height <= 1 - top + 1e-9 and 0 < width <= 1 - left + 1e-9):
        raise ValueError("The crop does not lie inside the picture.")
    window = []
    for size, start, part in ((shape[0], top, height), (shape[1], left, width)):
        count = max(1, round(size * part))
        first = min(round(size * start), size - count)
        window.append(slice(first, first + count))
    return window[0], window[1]


def crop(pixels: Pixels, top: float, left: float, height: float, width: float) -> Pixels:
    """Cut a window out; fractions as in :func:`crop_window`. The result is smaller, no pixel value changes."""
    return np.ascontiguousarray(pixels[crop_window(pixels.shape, top, left, height, width)])


def resize(pixels: Pixels, height: int, width: int, nearest: bool = False) -> Pixels:
    """Another size, in pixels: bilinear, pixel areas when shrinking; masks by the nearest neighbour."""
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    # The exact variant looks at pixel centres, as the bilinear one does, so that a mask stays under its picture.
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    how = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=how), dtype=np.uint8)


def rescale(pixels: Pixels, factor: float, nearest: bool = False) -> Pixels:
    """Both sides times ``factor``, at least one pixel each; see :func:`resize`."""
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return resize(pixels, height, width, nearest)


def resized_crop(pixels: Pixels, top: float, left: float, height: float, width: float, nearest: bool = False) -> Pixels:
    """Cut a window out and enlarge it to the size that the picture had; fractions as in :func:`crop_window`."""
    return resize(crop(pixels, top, left, height, width), pixels.shape[0], pixels.shape[1], nearest)


def flip(pixels: Pixels, axis: Literal["horizontal", "vertical"] = "horizontal") -> Pixels:
    """Mirror left and right (``horizontal``) or top and bottom (``vertical``); twice is nothing.

    Raises:
        ValueError: Another axis.
    """
    if axis not in ("horizontal", "vertical"):
        raise ValueError(f"A picture can't be flipped along {axis!r}.")
    return np.ascontiguousarray(pixels[:, ::-1] if axis == "horizontal" else pixels[::-1])


def quarter_turn(pixels: Pixels, turns: int) -> Pixels:
    """Turn by ``turns`` times 90 degrees, anticlockwise; no pixel value changes, height and width may swap."""
    return np.ascontiguousarray(np.rot90(pixels, turns))


def cover_zoom(height: int, width: int, degrees: float) -> float:
    """How far a picture must be enlarged so that, turned by ``degrees``, it still covers its own frame.

    A frame corner, turned back, lies at most (w cos a + h sin a) / 2 from the centre across and
    (w sin a + h cos a) / 2 down, so the factor is cos a + sin a * max(h/w, w/h).

    Args:
        height: Pixels.
        width: Pixels.
        degrees: In [-90, 90].
    """
    angle = math.radians(abs(degrees))
    return math.cos(angle) + math.sin(angle) * max(height / width, width / height)


def rotate(pixels: Pixels, degrees: float, nearest: bool = False) -> Pixels:
    """Turn about the centre, anticlockwise, enlarged just enough (:func:`cover_zoom`) that no corner is empty.

    Args:
        pixels: Picture or mask.
        degrees: In [-45, 45].
        nearest: For masks.

    Returns:
        The same shape.

    Raises:
        ValueError: The angle is out of range.
    """
    if not -45 <= degrees <= 45:
        raise ValueError("The angle must be between -45 and 45 degrees.")
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, cover_zoom(height, width, degrees))
    out = cv2.warpAffine(
        np.ascontiguousarray(pixels),
        turn,
        (width, height),
        flags=cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(out, dtype=np.uint8)
