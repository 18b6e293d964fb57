"""What a decoder sees of a video beside its pixels."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.container import open_container, refusing
from gas.media.image import sniff_mime
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits
from gas.media.video import VIDEO_MIMES

__all__ = ["VIDEO_FEATURES", "name_code", "video_features"]

VIDEO_FEATURES: Final = (
    "is_mp4",
    "is_webm",
    "is_avi",
    "brand",
    "index_first",
    "boxes",
    "codec",
    "codec_tag",
    "profile",
    "pixel_format",
    "header_bytes",
    "colours",
    "width",
    "height",
    "aspect",
    "pixel_aspect",
    "frame_rate",
    "uneven_rate",
    "frames",
    "seconds",
    "time_base",
    "start",
    "key_spacing",
    "key_share",
    "reordered",
    "encoder_note",
    "tracks",
    "has_sound",
    "tags",
    "encoder",
    "has_creation_time",
    "handler",
)
"""Names of the features, in the order of :func:`video_features`. Names of codecs, encoders and the like are turned
into numbers by :func:`name_code`. The number of bytes and the bit rate are left out: they measure the content."""

_FORMATS: Final = {"video/mp4": "mp4", "video/webm": "matroska", "video/x-msvideo": "avi"}
_MOST_PACKETS: Final = 5000
_MOST_BOXES: Final = 64
_CODES: Final = 4096
# x264 and x265 write themselves and their options into the stream.
_NOTES: Final = (b"x264 - core", b"x265 (build", b"Lavc", b"SVT-AV1")


def name_code(name: str | None) -> int:
    """A number for a name: 0 for none, else 1 to 4096 by its CRC-32, so that equal names are equal numbers."""
    return 1 + zlib.crc32(name.encode("utf-8", "replace")) % _CODES if name else 0


def video_features(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> NDArray[np.float64]:
    """What a decoder sees of a video beside its pixels; no picture is decoded.

    Args:
        data: An encoded video; hostile until proven otherwise. At most 5,000 packets are looked at.
        limits: What it may cost.

    Returns:
        float64, one value for each of :data:`VIDEO_FEATURES`; lengths and rates as logarithms to base 2.

    Raises:
        MediaRejected: Not a video, or broken.
    """
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime not in VIDEO_MIMES or mime not in _FORMATS:
        raise MediaRejected("The video is not MP4, WebM or AVI.", code="unsupported")
    boxes = [kind for kind, _ in _boxes(data)] if mime == "video/mp4" else []
    deadline = Deadline(limits.max_decode_seconds)
    container = open_container(data, _FORMATS[mime], limits, deadline, what="The video")
    with container, refusing("The video"):
        if not container.streams.video:
            raise MediaRejected("There is no video track.", code="undecodable")
        stream = container.streams.video[0]
        context = stream.codec_context
        limits.check_size(context.width, context.height)
        packets = [
            (packet.pts, packet.dts, packet.is_keyframe)
            for packet in islice(container.demux(stream), _MOST_PACKETS)
            if packet.size
        ]
        keys = [at for at, (_, _, is_key) in enumerate(packets) if is_key]
        shown = sorted(pts for pts, _, _ in packets if pts is not None)
        steps = np.diff(shown[:_MOST_PACKETS]) if len(shown) > 1 else np.zeros(1)
        rate = float(stream.average_rate or 0)
        seconds = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / 1e6
        metadata = {**container.metadata, **stream.metadata}
        values: dict[str, float | int | None] = {
            "is_mp4": mime == "video/mp4",
            "is_webm": mime == "video/webm",
            "is_avi": mime == "video/x-msvideo",
            "brand": name_code(metadata.get("major_brand")),
            "index_first": b"moov" in boxes and b"mdat" in boxes and boxes.index(b"moov") < boxes.index(b"mdat"),
            "boxes": name_code(" ".join(kind.decode("latin-1") for kind in boxes)),
            "codec": name_code(context.name),
            "codec_tag": name_code(str(context.codec_tag)),
            "profile": name_code(str(context.profile)),
            "pixel_format": name_code(context.pix_fmt),
            "header_bytes": len(context.extradata or b""),
            "colours": name_code(f"{context.color_range} {context.colorspace} {context.color_primaries}"),
            "width": math.log2(context.width),
            "height": math.log2(context.height),
            "aspect": math.log2(context.width / context.height),
            "pixel_aspect": float(context.sample_aspect_ratio or 1),
            "frame_rate": math.log2(rate) if rate > 0 else 0,
            "uneven_rate": bool(np.ptp(steps) > 1),
            "frames": math.log2(1 + len(packets)),
            "seconds": math.log2(1 + max(0.0, seconds)),
            "time_base": math.log2(stream.time_base.denominator) if stream.time_base else 0,
            "start": stream.start_time or 0,
            "key_spacing": int(np.diff([*keys, len(packets)]).max()) if keys else 0,
            "key_share": len(keys) / max(1, len(packets)),
            "reordered": any(pts != dts for pts, dts, _ in packets[:_MOST_BOXES] if dts is not None),
            "encoder_note": next((1 + n for n, note in enumerate(_NOTES) if note in data), 0),
            "tracks": len(container.streams),
            "has_sound": bool(container.streams.audio),
            "tags": len(metadata),
            "encoder": name_code(metadata.get("encoder") or metadata.get("ENCODER")),
            "has_creation_time": "creation_time" in metadata,
            "handler": name_code(metadata.get("handler_name")),
        }
    return np.array([float(values[name] or 0) for name in VIDEO_FEATURES])


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Kinds and sizes of the top-level boxes of an MP4 (ISO/IEC 14496-12, section 4.2)."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            size = struct.unpack_from(">Q", data, at + 8)[0]
        yield kind, size
        if size < 8:
            return
        at += size
