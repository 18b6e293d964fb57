"""Small JPEG copies of a round's pictures for the report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["thumbnail"]


def thumbnail(pixels: NDArray[np.uint8], *, side: int = 192, quality: int = 82) -> bytes:
    """Encode a picture as a small JPEG without any metadata.

    Args:
        pixels: uint8 RGB of shape (H, W, 3) or (3, H, W).
        side: Longer side of the result at most, in pixels; pictures are never enlarged.
        quality: JPEG quality, 1 to 95.

    Raises:
        ValueError: Another shape or dtype.
    """
    import io

    from PIL import Image

    if pixels.ndim != 3 or pixels.dtype != np.uint8 or 3 not in (pixels.shape[0], pixels.shape[2]):
        raise ValueError("A thumbnail needs uint8 pixels of shape (H, W, 3) or (3, H, W).")
    hwc = pixels if pixels.shape[2] == 3 else np.moveaxis(pixels, 0, 2)
    image = Image.fromarray(np.ascontiguousarray(hwc))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality, optimize=True)
    return sink.getvalue()
