"""JPEG without Pillow: reading the few header fields that decide, and libjpeg-turbo's decoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from gas.errors import MediaRejected

__all__ = ["JpegHeader", "Scratch", "count_scans", "decode_jpeg", "plain_header"]

# Tables, comments, JFIF, colour profiles, content credentials and Adobe's colour transform, but not the two in which a
# rotation hides.
_PLAIN: Final = frozenset({0xC4, 0xDB, 0xDD, 0xFE, 0xE0, 0xE2, 0xEB, 0xEE})

_MOST_ROOM: Final = 16 * 2**20


class Scratch:
    """Room for the decoded pixels of one picture, taken again for the next; belongs to one thread."""

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)

    def room(self, size: int) -> NDArray[np.uint8] | None:
        """At least ``size`` bytes; None for pictures so large that keeping the room would be a waste."""
        if size > _MOST_ROOM:
            return None
        if len(self._room) < size:
            self._room = np.empty(size, np.uint8)
        return self._room


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What decides whether and how a JPEG is decoded.

    Attributes:
        width: Pixels.
        height: Pixels.
        one_scan: Whether the first scan is certainly the only one that a decoder looks at.
    """

    width: int
    height: int
    one_scan: bool


def plain_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG that Pillow is not needed for; None for others.

    That is one of 8 bits, grey or of three channels, and without anything in its header that could turn it: most.
    A tenth of a millisecond is won. Every other file, and every file with an oddity, takes the slow way.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    frame: tuple[int, int, int, int] | None = None
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            if frame is None:
                return None
            kind, height, width, channels = frame
            # A sequential decoder stops after a scan that holds all channels; a progressive one never knows.
            return JpegHeader(width, height, one_scan=kind != 0xC2 and data[at + 4] == channels)
        if marker in (0xC0, 0xC1, 0xC2) and frame is None and length >= 8 and at + 10 <= len(data):
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            if bits != 8 or channels not in (1, 3) or width == 0 or height == 0:
                return None
            frame = (marker, height, width, channels)
        elif marker not in _PLAIN or length < 2:
            return None
        at += 2 + length
    return None


def count_scans(data: bytes) -> int:
    """How many scans a JPEG has.

    Inside entropy-coded data 0xFF is always followed by 0 or a restart marker, so this counts real scans (and
    those of an embedded thumbnail).
    """
    return data.count(b"\xff\xda")


def decode_jpeg(
    data: bytes, *, padded: bool = False, room: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8] | None:
    """Decode with libjpeg-turbo directly, as Pillow would (slow DCT, smooth upsampling).

    Args:
        data: A JPEG of grey or three channels; its size has been checked.
        padded: Add a fourth channel without meaning: the first three stay the same, and both decoding and resizing
            take a tenth less time.
        room: Where the pixels may go; large enough.

    Returns:
        uint8, (h, w, 3) or (h, w, 4), RGB, no rotation applied; None when the library has a complaint, so that
        Pillow decides.

    Raises:
        MediaRejected: ``too_much_memory``.
    """
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, colorspace="RGBA" if padded else "RGB", fastdct=False, fastupsample=False, buffer=room
        )
    except ValueError:
        return None
    except MemoryError as error:
        raise MediaRejected("The picture needs more memory than there is.", code="too_much_memory") from error
    return pixels
