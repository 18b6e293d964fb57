"""How many parts a file consists of, counted without looking into them.

Parsers of metadata keep a list of all parts, and some take time with its square: four megabytes of empty boxes can
busy one for minutes. What honest encoders write has some dozens.
"""

from __future__ import annotations

from typing import Final

from gas.errors import MediaRejected
from gas.media.image import sniff_mime

__all__ = ["MAX_PARTS", "check_parts"]

MAX_PARTS: Final = 4096
"""Chunks, segments or boxes that one file may have."""

_CONTAINERS: Final = frozenset(
    b"moov trak mdia minf stbl dinf edts udta meta moof traf mvex mfra ilst iprp ipco sinf schi tref".split()
)
_SIGNATURE: Final = 8


def check_parts(data: bytes, most: int = MAX_PARTS) -> None:
    """Refuse a file of too many parts.

    Args:
        data: A PNG, JPEG, WebP, WAV, AVI or MP4; files of other formats pass.
        most: How many are allowed.

    Raises:
        MediaRejected: ``too_large``.
    """
    mime = sniff_mime(data)
    if mime == "image/png":
        count = _chunks(data, _SIGNATURE, 12, "big", 1, most)
    elif mime in ("image/webp", "audio/wav", "video/x-msvideo"):
        count = _chunks(data, 12, 8, "little", 2, most)
    elif mime == "image/jpeg":
        count = _segments(data, most)
    elif mime in ("video/mp4", "audio/mp4"):
        count = _boxes(data, most)
    else:
        return
    if count > most:
        raise MediaRejected(f"The file consists of more than {most:,} parts.", code="too_large")


def _chunks(data: bytes, at: int, overhead: int, order: str, align: int, most: int) -> int:
    """Chunks of PNG (length first) and RIFF (length second)."""
    count = 0
    where = 0 if order == "big" else 4
    while at + 8 <= len(data) and count <= most:
        length = int.from_bytes(data[at + where : at + where + 4], "big" if order == "big" else "little")
        at += overhead + -(-length // align) * align
        count += 1
    return count


def _segments(data: bytes, most: int) -> int:
    """Segments of a JPEG up to its first scan."""
    at, count = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA and count <= most:
        at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        count += 1
    return count


def _boxes(data: bytes, most: int) -> int:
    """Boxes of an MP4, those inside of others too."""
    count = 0
    spans = [(0, len(data))]
    while spans and count <= most:
        at, end = spans.pop()
        while at + 8 <= end and count <= most:
            size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
            if size == 1:
                size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
            if size == 0:
                size = end - at
            if size < head:
                break
            if kind in _CONTAINERS:
                spans.append((at + head + (4 if kind == b"meta" else 0), min(end, at + size)))
            at += size
            count += 1
    return count
