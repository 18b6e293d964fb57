"""Distortions that lose something: noise, blur, blocks, JPEG, WebP.

All take and give uint8 (h, w, 3), RGB, and none moves a pixel but :func:`block_shuffle`. Noise is the same for
one version of NumPy, blurs and codecs for one build of OpenCV, libjpeg-turbo and libwebp.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.media.distortions.geometry import Pixels
from gas.media.image import RGB, decode_image, encode_jpeg, encode_webp

__all__ = [
    "block_mean",
    "block_order",
    "block_shuffle",
    "gaussian_blur",
    "gaussian_noise",
    "halve_and_restore",
    "jpeg",
    "motion_blur",
    "webp",
]


def gaussian_noise(rgb: RGB, sigma: float, rng: np.random.Generator) -> RGB:
    """Add independent normal noise to every value, round, clip to 0..255.

    Args:
        rgb: uint8, (h, w, 3).
        sigma: Standard deviation in grey levels.
        rng: Where the noise comes from.
    """
    noise = rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(sigma)
    return np.asarray(np.rint(np.clip(rgb + noise, 0, 255)), dtype=np.uint8)


def gaussian_blur(rgb: RGB, sigma: float) -> RGB:
    """Blur with a Gaussian of ``sigma`` pixels; the edge is mirrored."""
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def motion_blur(rgb: RGB, length: int, degrees: float) -> RGB:
    """Blur along a line, as of a camera that moved.

    Args:
        rgb: uint8, (h, w, 3).
        length: Of the line, pixels, at least 1.
        degrees: Of the line; 0 is horizontal, 90 vertical.

    Raises:
        ValueError: The length is below 1.
    """
    if length < 1:
        raise ValueError("The line must be at least one pixel long.")
    side = length | 1
    middle, angle = side // 2, math.radians(degrees)
    kernel = np.zeros((side, side), np.float32)
    # Four points a pixel, spread over their neighbours, so that slanted lines are as even as straight ones.
    for position in np.linspace(-(length - 1) / 2, (length - 1) / 2, 4 * length):
        row, column = middle - position * math.sin(angle), middle + position * math.cos(angle)
        top, left = math.floor(row), math.floor(column)
        for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= y < side and 0 <= x < side:
                kernel[y, x] += (1 - abs(row - y)) * (1 - abs(column - x))
    return np.asarray(cv2.filter2D(rgb, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def block_mean(rgb: RGB, side: int, share: float, rng: np.random.Generator) -> RGB:
    """Give whole blocks of a grid their mean colour.

    Args:
        rgb: uint8, (h, w, 3).
        side: Of a block, pixels; the grid starts at the upper left, and what is left over beside it stays.
        share: Of the blocks that are drawn, 0..1; at least one where there is any.
        rng: Draws the blocks.
    """
    out = rgb.copy()
    grid = _as_blocks(out, side)
    rows, columns = _drawn(grid.shape[0], grid.shape[2], share, rng)
    blocks = grid[rows, :, columns]
    sums = blocks.sum(axis=(1, 2), dtype=np.int64)
    area = side * side
    grid[rows, :, columns] = ((sums + area // 2) // area).astype(np.uint8)[:, None, None]
    return out


def block_order(height: int, width: int, side: int, share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which block of the grid stands at which place after :func:`block_shuffle`.

    Returns:
        int64 (n,): for each of the grid's n whole blocks, row by row, the block that comes there.
    """
    down, across = height // side, width // side
    order = np.arange(down * across, dtype=np.int64)
    # One block alone has nowhere to go.
    rows, columns = _drawn(down, across, share, rng, least=2)
    drawn = rows * across + columns
    # A ring, so that every drawn block really leaves its place.
    order[drawn] = np.roll(drawn, 1)
    return order


def block_shuffle(pixels: Pixels, side: int, share: float, rng: np.random.Generator) -> Pixels:
    """Let drawn blocks of a grid change places with each other; works on masks alike.

    Args:
        pixels: Picture or mask.
        side: Of a block, pixels; what is left over beside the grid stays.
        share: Of the blocks that move, 0..1; at least two where there are two.
        rng: Draws the blocks and their ring; the same seed moves a mask of the same size in the same way.
    """
    order = block_order(pixels.shape[0], pixels.shape[1], side, share, rng)
    out = pixels.copy()
    grid = _as_blocks(out, side)
    down, across = grid.shape[0], grid.shape[2]
    rows, columns = np.divmod(np.arange(down * across), max(1, across))
    from_rows, from_columns = np.divmod(order, max(1, across))
    grid[rows, :, columns] = _as_blocks(pixels, side)[from_rows, :, from_columns]
    return out


def jpeg(rgb: RGB, quality: int) -> RGB:
    """The picture after one JPEG encode (4:2:0) and decode; quality 1..100."""
    return decode_image(encode_jpeg(rgb, quality))


def webp(rgb: RGB, quality: int) -> RGB:
    """The picture after one lossy WebP encode and decode; quality 0..100."""
    return decode_image(encode_webp(rgb, quality))


def halve_and_restore(rgb: RGB, floor: int = 256) -> RGB:
    """Shrink to half the size, but not below ``floor`` on the smaller side, and enlarge again.

    Both sides shrink by the same factor, so that nothing is stretched on the way. A picture whose smaller side
    is at most ``floor`` comes back unchanged.

    Args:
        rgb: uint8, (h, w, 3).
        floor: Smallest side allowed in between, pixels.

    Returns:
        uint8, of the same shape.
    """
    height, width = rgb.shape[:2]
    factor = max(0.5, floor / min(height, width))
    if factor >= 1:
        return rgb
    half = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(rgb, half, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _as_blocks(pixels: Pixels, side: int) -> Pixels:
    """A view of the grid's whole blocks: (down, side, across, side[, 3])."""
    down, across = pixels.shape[0] // side, pixels.shape[1] // side
    # Splitting axes never copies, so writing to the blocks writes to the picture.
    return pixels[: down * side, : across * side].reshape(down, side, across, side, *pixels.shape[2:])


def _drawn(
    down: int, across: int, share: float, rng: np.random.Generator, least: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the drawn blocks, in the order in which they were drawn."""
    total = down * across
    picked = rng.permutation(total)[: min(total, max(least, round(share * total)))]
    rows, columns = np.divmod(picked.astype(np.int64), max(1, across))
    return rows, columns
