"""Segments of a picture: small pieces with a hash each, found again in a crop, a turned or a mirrored copy.

A segment is the neighbourhood of a corner, cut out at the corner's own scale and turned to its own direction. Its
hash holds the signs of the low frequencies of the piece's cosine transform, which brightness, contrast and colour
hardly touch; in a mirrored picture the signs of every other row are reversed, so that the hashes of the mirrored
segments come for nothing. :func:`agreement` says how many segments of two pictures agree on one way of laying one
over the other (shift, turn, scale, and mirror).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["NEAR_BITS", "SEGMENTS", "SEGMENT_BYTES", "Segments", "agreement", "find_segments", "mirrored"]

SEGMENTS: Final = 32
"""At most so many segments a picture."""
SEGMENT_BYTES: Final = 16
"""Of one segment's hash."""
NEAR_BITS: Final = 28
"""Segments whose hashes differ in at most so many of 128 bits are like."""

_SIDE: Final = 128
_LONGEST: Final = 512
_PIECE: Final = 32
_LOW: Final = 16
_REACH: Final = 14 / 6
_CANDIDATES: Final = 200
_APART: Final = 0.75
_TURN: Final = 0.35
_SCALE: Final = 0.3
_SHIFT: Final = 6.0
_STRETCH: Final = 0.15


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of one picture.

    Attributes:
        hashes: uint8, (n, 16): packed signs.
        places: float32, (n, 4): column and row of the centre in a thumbnail whose smaller side is 128 pixels,
            diameter there, direction in radians.
    """

    hashes: NDArray[np.uint8]
    places: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.hashes)


def _basis() -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.uint8]]:
    """The cosine transform's low rows, which frequencies become bits, and which of these a mirror reverses."""
    k, x = np.mgrid[:_LOW, :_PIECE]
    matrix = np.cos(np.pi * (2 * x + 1) * k / (2 * _PIECE)).astype(np.float32)
    rows, columns = (axis.ravel() for axis in np.mgrid[:_LOW, :_LOW])
    order = np.lexsort((rows, rows + columns))[1 : 1 + 8 * SEGMENT_BYTES]
    return matrix, order, np.packbits((rows[order] % 2).astype(np.uint8))


def find_segments(picture: NDArray[np.uint8]) -> Segments:
    """The most marked segments of a picture, spread over it.

    Args:
        picture: uint8, (h, w, 3) or grey (h, w); a thumbnail of at least 128 pixels will do.

    Returns:
        At most :data:`SEGMENTS`; none for a picture without structure.
    """
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    scale = _SIDE / min(grey.shape)
    if scale != 1:
        width, height = (max(32, min(_LONGEST, round(side * scale))) for side in grey.shape[::-1])
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    detector = cv2.SIFT_create(_CANDIDATES, 3, 0.02, 12)  # type: ignore[attr-defined]
    return _described(grey, _spread(detector.detect(grey, None)))


def _spread(found: Sequence[cv2.KeyPoint]) -> NDArray[np.float32]:
    """The strongest, none too near a stronger one."""
    kept: list[tuple[float, float, float, float]] = []
    # Nearly always the first fifty are enough, for which an array's operations cost more than they do.
    for at in np.argsort([-point.response for point in found], kind="stable").tolist():
        (x, y), size = found[at].pt, found[at].size
        for other_x, other_y, other_size, _ in kept:
            reach = _APART * max(size, other_size)
            if (x - other_x) * (x - other_x) + (y - other_y) * (y - other_y) <= reach * reach:
                break
        else:
            kept.append((x, y, size, found[at].angle))
            if len(kept) == SEGMENTS:
                break
    places = np.array(kept).reshape(-1, 4)
    places[:, 3] = np.deg2rad(places[:, 3])
    return places.astype(np.float32)


def _described(grey: NDArray[np.uint8], places: NDArray[np.float32]) -> Segments:
    if not len(places):
        return Segments(np.zeros((0, SEGMENT_BYTES), np.uint8), places)
    matrix, order, _ = _BASIS
    x, y, size, angle = (places[:, column, None, None] for column in range(4))
    step = 2 * _REACH * size / _PIECE
    cos, sin = step * np.cos(angle), step * np.sin(angle)
    down, across = _GRID[:, None], _GRID
    columns = (x + cos * across - sin * down).reshape(-1, _PIECE)
    rows = (y + sin * across + cos * down).reshape(-1, _PIECE)
    blurred = cv2.GaussianBlur(grey, (0, 0), 1.0)
    pieces = cv2.remap(blurred, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    spectra = matrix @ pieces.reshape(-1, _PIECE, _PIECE).astype(np.float32) @ matrix.T
    hashes = np.packbits(spectra.reshape(len(places), _LOW * _LOW)[:, order] > 0, axis=1)
    return Segments(np.ascontiguousarray(hashes), places)


def mirrored(segments: Segments) -> Segments:
    """The segments that the picture would have when mirrored left to right."""
    odd = _BASIS[2]
    places = segments.places.copy()
    places[:, 0] *= -1
    places[:, 3] = np.pi - places[:, 3]
    return Segments(segments.hashes ^ odd, places)


def agreement(one: Segments, other: Segments, near_bits: int = NEAR_BITS) -> int:
    """How many pairs of like segments agree on one shift, turn and scale of one picture over the other.

    Args:
        one: Of a picture.
        other: Of another.
        near_bits: Hashes that differ in at most so many of 128 bits are like.

    Returns:
        0..32; a copy has many, unrelated pictures have hardly ever more than 2. Each segment counts once.
    """
    if not len(one) or not len(other):
        return 0
    apart = np.bitwise_count(one.hashes.view(np.uint64)[:, None] ^ other.hashes.view(np.uint64)[None]).sum(-1)
    left, right = np.nonzero(apart <= near_bits)
    if len(left) < 2:
        return len(left)
    a, b = one.places[left].astype(np.float64), other.places[right].astype(np.float64)
    turn, scale = b[:, 3] - a[:, 3], np.log(b[:, 2] / a[:, 2])
    # Each pair in turn says how one picture lies over the other; the rest are asked whether they agree.
    alike = (np.abs(_wrapped(turn[:, None] - turn)) < _TURN) & (np.abs(scale[:, None] - scale) < _SCALE)
    cos, sin = np.exp(scale) * np.cos(turn), np.exp(scale) * np.sin(turn)
    x, y = (a[None, :, axis] - a[:, None, axis] for axis in (0, 1))
    there_x, there_y = (
        b[:, None, 0] + cos[:, None] * x - sin[:, None] * y,
        b[:, None, 1] + sin[:, None] * x + (cos[:, None] * y),
    )
    error = np.hypot(there_x - b[None, :, 0], there_y - b[None, :, 1])
    alike &= error < _SHIFT + _STRETCH * np.hypot(x, y)
    most = int(np.argmax(alike.sum(axis=1)))
    return min(len(set(left[alike[most]].tolist())), len(set(right[alike[most]].tolist())))


def _wrapped(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((angle + np.pi) % (2 * np.pi) - np.pi)


_BASIS: Final = _basis()
_GRID: Final = np.arange(_PIECE, dtype=np.float32) - (_PIECE - 1) / 2
