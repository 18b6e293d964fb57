"""WebP without Pillow: the plain ones, which OpenCV decodes in a third of the time.

Both call the same library, but Pillow treats every WebP as an animation, whose frames are blended on a canvas.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.media.limits import MediaLimits

__all__ = ["decode_webp"]

# No alpha, frames, EXIF or XMP: in the last two a rotation may hide.
_PLAIN: Final = frozenset({b"VP8X", b"ICCP", b"VP8 ", b"C2PA"})
_ICC_FLAG: Final = 0x20
_MOST_CHUNKS: Final = 16
_KEY_FRAME: Final = b"\x9d\x01\x2a"


def decode_webp(data: bytes, limits: MediaLimits) -> NDArray[np.uint8] | None:
    """Decode a lossy WebP of one picture that has nothing else about it than a colour profile and credentials.

    Args:
        data: The file; hostile until proven otherwise.
        limits: What the picture may cost.

    Returns:
        uint8, (h, w, 3), RGB, as Pillow would decode it; None for every other WebP and for every complaint, so that
        Pillow decides.

    Raises:
        MediaRejected: ``too_large``, before a pixel is decoded.
    """
    size = _plain_size(data)
    if size is None:
        return None
    limits.check_size(*size)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except (cv2.error, MemoryError):
        return None
    if pixels is None or pixels.shape != (size[1], size[0], 3):
        return None
    return np.asarray(pixels, np.uint8)


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a plain WebP."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or end > len(data):
        return None
    at, size, canvas = 12, None, None
    for _ in range(_MOST_CHUNKS):
        if at == end:
            return size if canvas in (None, size) else None
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 18]
        if kind not in _PLAIN or at + 8 + length > end or len(body) < 10:
            return None
        if kind == b"VP8X":
            if at != 12 or body[0] & ~_ICC_FLAG or length != 10:
                return None
            canvas = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif kind == b"VP8 ":
            if size is not None or body[3:6] != _KEY_FRAME:
                return None
            size = (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
            if 0 in size:
                return None
        at += 8 + length + length % 2
    return None
