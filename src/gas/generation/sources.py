"""A task's source: a picture that is to be changed, and a mask that says where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected, RequestRefused
from gas.generation.base import SourceImage
from gas.media.image import RGB, decode_image, decode_mask
from gas.media.limits import MediaLimits
from gas.media.masks import encode_mask

__all__ = ["Canvas", "draw_mask", "open_source", "resized"]

_LIMITS: Final = MediaLimits(max_bytes=32 * 1024 * 1024, max_side=8192, max_pixels=40_000_000)
_LEAST_SIDE: Final = 32


@dataclass(frozen=True, slots=True)
class Canvas:
    """An opened source.

    Attributes:
        pixels: uint8 (h, w, 3).
        mask: uint8 (h, w), 1 where the picture is to change; None for everywhere.
    """

    pixels: RGB
    mask: NDArray[np.uint8] | None

    def keep_outside(self, painted: RGB) -> RGB:
        """The painted picture inside the mask, the source outside, to the pixel.

        The two are blended over a few pixels within the mask, so that nothing outside is touched.

        Args:
            painted: uint8 (h, w, 3), of the source's size.
        """
        if self.mask is None:
            return painted
        padded = np.pad(self.mask, 1)
        border = max(2.0, min(self.mask.shape) / 64)
        # A mask that reaches the picture's edge needs no blend there: the padding continues it.
        padded[0], padded[-1], padded[:, 0], padded[:, -1] = padded[1], padded[-2], padded[:, 1], padded[:, -2]
        inward = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
        alpha = np.clip(inward / border, 0, 1)[..., None].astype(np.float32)
        blended = painted * alpha + self.pixels * (1 - alpha)
        return np.ascontiguousarray((blended + 0.5).astype(np.uint8))

    def mask_png(self) -> bytes:
        """The mask as a PNG: white where the picture may have changed; all white without a mask."""
        return encode_mask(np.ones(self.pixels.shape[:2], np.uint8) if self.mask is None else self.mask)


def open_source(source: SourceImage, most_pixels: int | None = None) -> Canvas:
    """Decode a source and its mask.

    Args:
        source: Untrusted.
        most_pixels: A larger picture is shrunk to this many, its mask with it.

    Raises:
        RequestRefused: 422 ``bad_source`` (no picture, too large, too small) or ``bad_mask`` (no picture, another size,
            or nothing white in it).
    """
    try:
        pixels = decode_image(source.data, _LIMITS)
    except MediaRejected as error:
        raise RequestRefused(
            f"The picture to change can't be taken: {error.message}", status=422, code="bad_source"
        ) from error
    if min(pixels.shape[:2]) < _LEAST_SIDE:
        raise RequestRefused(
            f"A picture to change has sides of {_LEAST_SIDE} pixels or more.", status=422, code="bad_source"
        )
    mask = None
    if source.mask is not None:
        try:
            mask = np.asarray(decode_mask(source.mask, _LIMITS) >= 128, dtype=np.uint8)
        except MediaRejected as error:
            raise RequestRefused(f"The mask can't be taken: {error.message}", status=422, code="bad_mask") from error
        if mask.shape != pixels.shape[:2]:
            raise RequestRefused("The mask has another size than the picture.", status=422, code="bad_mask")
    count = pixels.shape[0] * pixels.shape[1]
    if most_pixels is not None and count > most_pixels:
        factor = (most_pixels / count) ** 0.5
        width, height = max(1, int(pixels.shape[1] * factor)), max(1, int(pixels.shape[0] * factor))
        pixels = resized(pixels, width, height)
        if mask is not None:
            mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    if mask is not None and not mask.any():
        raise RequestRefused("The mask is black everywhere: nothing is to change.", status=422, code="bad_mask")
    return Canvas(pixels, mask)


def draw_mask(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random region: two or three overlapping ellipses.

    Args:
        height: Pixels, 32 or more.
        width: Pixels, 32 or more.
        rng: Where the draws come from.

    Returns:
        uint8 (h, w), 1 inside, at least some pixels.
    """
    mask = np.zeros((height, width), np.uint8)
    cx, cy = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    for _ in range(int(rng.integers(2, 4))):
        axes = (int(rng.uniform(0.1, 0.2) * width), int(rng.uniform(0.1, 0.2) * height))
        centre = (int(cx + rng.uniform(-0.1, 0.1) * width), int(cy + rng.uniform(-0.1, 0.1) * height))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, thickness=-1)
    return mask


def resized(pixels: RGB, width: int, height: int) -> RGB:
    """A picture of another size; by area when it shrinks, else by cubic interpolation.

    Args:
        pixels: uint8 (h, w, 3).
        width: Pixels.
        height: Pixels.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    out: RGB = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=kind)
    return out
