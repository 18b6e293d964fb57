"""Exact and perceptual hashes of pictures."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.media.image import RGB

__all__ = ["hamming", "hamming_matrix", "perceptual_hash", "pixel_sha256", "thumbnail"]


def pixel_sha256(rgb: RGB) -> str:
    """Hex SHA-256 of shape and pixels: the same picture in another lossless container has the same hash."""
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()


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


def hamming(a: int, b: int) -> int:
    """How many of 64 bits differ."""
    return (a ^ b).bit_count()


def hamming_matrix(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """All pairwise distances; ``hashes`` (n,) uint64, returns (n, n) uint8 in 0..64."""
    return np.asarray(np.bitwise_count(hashes[:, None] ^ hashes[None, :]), dtype=np.uint8)
