"""Exact and perceptual hashes of pictures.

The 256-bit hash is taken from a cosine transform, in which a mirrored or turned picture has the same numbers with
other signs in other places: the hashes of all eight ways to lay a picture down cost one transform.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.media.image import RGB

__all__ = [
    "HASH_BITS",
    "PLACINGS",
    "distances",
    "hamming",
    "hamming_matrix",
    "perceptual_hash",
    "picture_hash",
    "pixel_key",
    "pixel_sha256",
    "placed_hashes",
    "thumbnail",
]

HASH_BITS: Final = 256
"""Bits of :func:`picture_hash`."""

PLACINGS: Final = (
    "upright",
    "mirrored",
    "flipped",
    "turned_180",
    "transposed",
    "turned_270",
    "turned_90",
    "transposed_180",
)
"""The eight ways of laying a picture down, in the order of :func:`placed_hashes`; turns are counter-clockwise."""

_LOW: Final = 16
_SIDE: Final = 64
_MULTIPLIER: Final = 0x9E3779B97F4A7C15
_BLOCK: Final = 1 << 16
_STRETCH: Final = 1 << 14


def pixel_sha256(rgb: RGB) -> str:
    """Hex SHA-256 of shape and pixels: the same picture in another lossless container has the same hash."""
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


def pixel_key(rgb: RGB) -> int:
    """A quick 64-bit key of shape and pixels; a tenth of the cost of :func:`pixel_sha256`.

    Not a cryptographic hash: somebody could make two pictures of one key, and would only have one of them taken
    for a copy of the other.

    Args:
        rgb: uint8, (h, w, 3).

    Returns:
        An integer in [0, 2**64).
    """
    flat = np.ascontiguousarray(rgb).reshape(-1)
    words = flat[: len(flat) // 8 * 8].view("<u8")
    powers = _powers()
    mixed = np.empty(_STRETCH, np.uint64)
    state = (rgb.shape[0] << 32 | rgb.shape[1]) * _MULTIPLIER + int.from_bytes(flat[len(words) * 8 :].tobytes(), "big")
    for start in range(0, len(words), _BLOCK):
        total = 0
        # By stretches that stay in the processor's cache.
        for at in range(0, min(_BLOCK, len(words) - start), _STRETCH):
            part = words[start + at : start + min(at + _STRETCH, _BLOCK)]
            mix = mixed[: len(part)]
            np.right_shift(part, np.uint64(29), out=mix)
            np.bitwise_xor(part, mix, out=mix)
            # Sums of 64-bit products wrap, which is the arithmetic wanted.
            total += int(mix @ powers[at : at + len(part)])
        # Mixing both halves tells the order of blocks.
        state = ((state ^ state >> 31) * _MULTIPLIER + total) % 2**64
    return int(state ^ state >> 29)


@cache
def _powers() -> NDArray[np.uint64]:
    """What the words of a block are multiplied by."""
    powers = np.arange(1, _BLOCK + 1, dtype=np.uint64) * np.uint64(_MULTIPLIER) | np.uint64(1)
    powers.flags.writeable = False
    return powers


def thumbnail(rgb: RGB, side: int = 128) -> RGB:
    """The picture shrunk, averaging areas, so that its smaller side is ``side``; smaller ones come back as they are."""
    height, width = rgb.shape[:2]
    scale = side / min(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def perceptual_hash(rgb: RGB) -> int:
    """The 64-bit pHash (signs of the low frequencies of a 32x32 cosine transform against their median).

    Taken from the :func:`thumbnail`, which changes few bits or none and costs a tenth on a large photo.

    Args:
        rgb: uint8, (h, w, 3).

    Returns:
        An integer in [0, 2**64); near duplicates differ in few bits, unrelated pictures in about 32.
    """
    import imagehash
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(thumbnail(rgb))).hash
    return int.from_bytes(np.packbits(bits.reshape(-1)).tobytes(), "big")


def picture_hash(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 256-bit pHash: 16 x 16 low frequencies of a 64 x 64 cosine transform, each above their median or not.

    Args:
        picture: uint8, (h, w, 3) or grey (h, w); a :func:`thumbnail` of at least 64 pixels gives the same bits but
            for a few.

    Returns:
        uint8, (32,): the packed bits; near duplicates differ in few, unrelated pictures in about 128.
    """
    return _packed(_low_frequencies(picture))


def placed_hashes(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The 256-bit hashes of a picture mirrored and turned in every way.

    Args:
        picture: As for :func:`picture_hash`.

    Returns:
        uint8, (8, 32), in the order of :data:`PLACINGS`; the first is :func:`picture_hash`.
    """
    low = _low_frequencies(picture)
    signs = 1 - 2 * (np.arange(_LOW) % 2).astype(np.float32)
    across, down = signs[None, :], signs[:, None]
    kinds = np.empty((len(PLACINGS), _LOW, _LOW), np.float32)
    kinds[0], kinds[1], kinds[2], kinds[3] = low, low * across, low * down, low * across * down
    # A transposed picture has the same numbers, and so the same median, as its mirror image along the other axis.
    kinds[4], kinds[5], kinds[6], kinds[7] = low.T, kinds[2].T, kinds[1].T, kinds[3].T
    flat = kinds.reshape(len(PLACINGS), _LOW * _LOW)
    middle = _LOW * _LOW // 2
    halves = np.partition(flat[:4], (middle - 1, middle), axis=1)[:, middle - 1 : middle + 1]
    medians = halves.mean(axis=1, keepdims=True)[[0, 1, 2, 3, 0, 2, 1, 3]]
    return np.packbits(flat > medians, axis=1)


def _low_frequencies(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    spectrum: NDArray[np.float32] = cv2.dct(small.astype(np.float32))[:_LOW, :_LOW]
    return spectrum


def _packed(coefficients: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits((coefficients > np.median(coefficients)).reshape(-1))


def distances(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many bits differ between packed hashes.

    Args:
        one: uint8, (..., bytes).
        others: uint8, (..., bytes); the two are broadcast.

    Returns:
        int64, the broadcast shape without its last axis.
    """
    length = one.shape[-1] // 8 * 8
    if length == one.shape[-1] == others.shape[-1] and one.flags.c_contiguous and others.flags.c_contiguous:
        one, others = one.view(np.uint64), others.view(np.uint64)
    return np.asarray(np.bitwise_count(one ^ others).sum(axis=-1, dtype=np.int64))


def hamming(a: int, b: int) -> int:
    """How many bits of two hashes differ."""
    return (a ^ b).bit_count()


def hamming_matrix(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """All pairwise distances; ``hashes`` (n,) uint64, returns (n, n) uint8 in 0..64."""
    return np.asarray(np.bitwise_count(hashes[:, None] ^ hashes[None, :]), dtype=np.uint8)
