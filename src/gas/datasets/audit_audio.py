"""What a decoder sees of a sound beside its samples."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from gas.datasets.audit_video import name_code
from gas.errors import MediaRejected
from gas.media.container import open_container, refusing
from gas.media.image import sniff_mime
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits

__all__ = ["AUDIO_FEATURES", "audio_features"]

AUDIO_FEATURES: Final = (
    "is_wav",
    "is_flac",
    "is_ogg",
    "is_mp3",
    "is_other",
    "codec",
    "sample_format",
    "bits",
    "rate",
    "channels",
    "seconds",
    "header_bytes",
    "chunks",
    "extensible",
    "has_id3",
    "has_info_frame",
    "encoder_note",
    "tracks",
    "tags",
    "encoder",
)
"""Names of the features, in the order of :func:`audio_features`."""

_FORMATS: Final = {
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/mp4": "mp4",
    "video/mp4": "mp4",
    "video/webm": "matroska",
}
_NOTES: Final = (b"LAME", b"Lavf", b"Lavc", b"libFLAC", b"Xiph", b"Recorder", b"SoX")
_HEAD: Final = 8192
_MOST_CHUNKS: Final = 64
_EXTENSIBLE: Final = 0xFFFE


def audio_features(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> NDArray[np.float64]:
    """What a decoder sees of a sound beside its samples; nothing is decoded.

    Args:
        data: An encoded sound; hostile until proven otherwise.
        limits: What it may cost.

    Returns:
        float64, one value for each of :data:`AUDIO_FEATURES`; rate and length as logarithms to base 2.

    Raises:
        MediaRejected: Not a sound, or broken.
    """
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime not in _FORMATS:
        raise MediaRejected("The sound is not WAV, FLAC, Ogg, MP3, MP4 or WebM.", code="unsupported")
    chunks = list(_chunks(data)) if mime == "audio/wav" else []
    head = data[:_HEAD] + data[-_HEAD:]
    deadline = Deadline(limits.max_decode_seconds)
    container = open_container(data, _FORMATS[mime], limits, deadline, what="The sound")
    with container, refusing("The sound"):
        if not container.streams.audio:
            raise MediaRejected("There is no sound track.", code="undecodable")
        stream = container.streams.audio[0]
        context = stream.codec_context
        seconds = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / 1e6
        metadata = {**container.metadata, **stream.metadata}
        form = next((body for kind, body, _ in chunks if kind == b"fmt "), b"")
        values: dict[str, float | int | None] = {
            "is_wav": mime == "audio/wav",
            "is_flac": mime == "audio/flac",
            "is_ogg": mime == "audio/ogg",
            "is_mp3": mime == "audio/mpeg",
            "is_other": mime in ("audio/mp4", "video/mp4", "video/webm"),
            "codec": name_code(context.name),
            "sample_format": name_code(context.format.name if context.format else ""),
            "bits": struct.unpack_from("<H", form, 14)[0] if len(form) >= 16 else _bits(context),
            "rate": math.log2(context.sample_rate) if context.sample_rate > 0 else 0,
            "channels": context.channels,
            "seconds": math.log2(1 + max(0.0, seconds)),
            "header_bytes": next((at for kind, _, at in chunks if kind == b"data"), len(context.extradata or b"")),
            "chunks": name_code(" ".join(kind.decode("latin-1") for kind, _, _ in chunks)),
            "extensible": len(form) >= 2 and struct.unpack_from("<H", form)[0] == _EXTENSIBLE,
            "has_id3": data.startswith(b"ID3") or data[-128:].startswith(b"TAG"),
            "has_info_frame": b"Xing" in head or b"Info\x00" in head,
            "encoder_note": next((1 + n for n, note in enumerate(_NOTES) if note in head), 0),
            "tracks": len(container.streams),
            "tags": len(metadata),
            "encoder": name_code(metadata.get("encoder") or metadata.get("ENCODER")),
        }
    return np.array([float(values[name] or 0) for name in AUDIO_FEATURES])


def _bits(context: av.AudioCodecContext) -> int:
    return int(context.format.bits) if context.format else 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, first bytes of the content, and place of the content of each chunk of a WAV file."""
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + min(size, 64)], at + 8
        at += 8 + size + size % 2
