"""Distortions that a medium meets on its way through the net; each is tested against what its name says."""

from __future__ import annotations

import cv2
import numpy as np

from gas.media.image import RGB, decode_image, encode_jpeg, encode_webp

__all__ = ["SHARING_CHAIN", "halve_and_restore", "jpeg", "sharing_chain", "webp"]

SHARING_CHAIN = "halve-restore(256) jpeg(55) webp(75) jpeg(80)"
"""Name of the chain for receipts; changes whenever the chain does."""


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


def sharing_chain(rgb: RGB) -> RGB:
    """The fixed chain of the robustness pass (scoring.md, section 3).

    Halve and restore the size (not below 256 px), JPEG 55, WebP 75, JPEG 80: roughly what a picture suffers
    when it is shared, downloaded and shared again.

    Args:
        rgb: uint8, (h, w, 3).

    Returns:
        uint8, of the same shape; the same input gives the same output.
    """
    return jpeg(webp(jpeg(halve_and_restore(rgb), 55), 75), 80)
