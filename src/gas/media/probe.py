"""What a medium says of itself, without decoding a picture or a sample of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

import soundfile  # type: ignore[import-untyped]

from gas.errors import MediaRejected
from gas.media.audio import AUDIO_MIMES, sndfile_refusing
from gas.media.container import open_container, refusing
from gas.media.image import opened_image, sniff_mime
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits
from gas.media.video import VIDEO_MIMES
from gas.types import Modality

__all__ = ["MediumInfo", "probe_medium"]

_CONTAINERS: Final = {
    "video/mp4": "mp4",
    "audio/mp4": "mp4",
    "video/webm": "matroska",
    "video/x-msvideo": "avi",
}
_BITS: Final = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "FLOAT": 32,
    "DOUBLE": 64,
    "ULAW": 8,
    "ALAW": 8,
}


@dataclass(frozen=True, slots=True)
class MediumInfo:
    """A medium's header; None where the modality has no such thing or the file doesn't say.

    Attributes:
        modality: What it was probed as.
        mime: Content type by its first bytes.
        bytes: Length of the file.
        width: As displayed, pixels.
        height: As displayed, pixels.
        seconds: Length in time, as declared.
        rate: Frames a second, or samples a second.
        frames: Frames of a video or an animation, or samples of each channel, as declared.
        channels: Of a picture or a sound, or of a video's sound track.
        bits: Of one sample of one channel.
        codec: How pixels or samples are coded: ``jpeg``, ``h264``, ``pcm_16`` ...
        pixel_format: Pillow's mode or FFmpeg's pixel format.
        subsampling: Of a JPEG's colours, as 444, 422, 420 ...
        tables: Of a JPEG: its quantisation tables one after the other, 64 numbers each.
        progressive: Whether a JPEG is.
        orientation: EXIF orientation, 1 to 8.
        bit_rate: Bits a second of the whole file.
        metadata: Names of what the file says beside its content, sorted.
    """

    modality: Modality
    mime: str
    bytes: int
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    rate: float | None = None
    frames: int | None = None
    channels: int | None = None
    bits: int | None = None
    codec: str | None = None
    pixel_format: str | None = None
    subsampling: str | None = None
    tables: tuple[int, ...] = ()
    progressive: bool | None = None
    orientation: int | None = None
    bit_rate: int | None = None
    metadata: tuple[str, ...] = ()


def probe_medium(data: bytes, modality: Modality | str, limits: MediaLimits = DEFAULT_LIMITS) -> MediumInfo:
    """Read a medium's header and check what it declares.

    Args:
        data: The whole encoded medium; hostile until proven otherwise.
        modality: What it is taken for: a video's sound track is probed by ``audio``.
        limits: What the medium may cost.

    Returns:
        What the header says. Decoding may still find the medium broken.

    Raises:
        MediaRejected: ``unsupported`` (not of this modality), ``undecodable``, ``too_large`` or ``too_slow``.
        ValueError: No such modality.
    """
    kind = Modality(modality)
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if kind is Modality.IMAGE:
        return _image(data, limits)
    if kind is Modality.VIDEO and mime in VIDEO_MIMES:
        return _video(data, mime, limits)
    if kind is Modality.AUDIO and mime in AUDIO_MIMES:
        return _track(data, mime, limits) if mime in _CONTAINERS else _sound(data, mime, limits)
    raise MediaRejected(f"The medium is no {kind.value} of a known format.", code="unsupported")


def _image(data: bytes, limits: MediaLimits) -> MediumInfo:
    mime = sniff_mime(data) or ""
    with opened_image(data, limits) as (image, orientation):
        width, height = image.size if orientation < 5 else image.size[::-1]
        tables: dict[int, list[int]] = getattr(image, "quantization", None) or {}
        layers: list[tuple[int, int, int, int]] = getattr(image, "layer", None) or []
        return MediumInfo(
            modality=Modality.IMAGE,
            mime=mime,
            bytes=len(data),
            width=width,
            height=height,
            # To count a GIF's frames is to walk through all of them.
            frames=None if mime == "image/gif" else int(getattr(image, "n_frames", 1)),
            channels=len(image.getbands()),
            bits=1 if image.mode == "1" else 16 if image.mode.startswith("I") else 8,
            codec=mime.removeprefix("image/"),
            pixel_format=image.mode,
            subsampling=_SUBSAMPLINGS.get(tuple(layer[1:3] for layer in layers)),
            tables=tuple(value for _, table in sorted(tables.items()) for value in table),
            progressive=bool(image.info.get("progressive")) if mime == "image/jpeg" else None,
            orientation=orientation,
            metadata=tuple(sorted(str(name) for name in image.info)),
        )


_SUBSAMPLINGS: Final = {
    ((1, 1), (1, 1), (1, 1)): "444",
    ((2, 1), (1, 1), (1, 1)): "422",
    ((2, 2), (1, 1), (1, 1)): "420",
    ((1, 2), (1, 1), (1, 1)): "440",
    ((4, 1), (1, 1), (1, 1)): "411",
    ((1, 1),): "400",
}


def _video(data: bytes, mime: str, limits: MediaLimits) -> MediumInfo:
    deadline = Deadline(limits.max_decode_seconds)
    what = "The video"
    with open_container(data, _CONTAINERS[mime], limits, deadline, what=what) as file, refusing(what):
        if not file.streams.video:
            raise MediaRejected("There is no video track.", code="undecodable")
        stream = file.streams.video[0]
        context = stream.codec_context
        limits.check_size(context.width, context.height)
        sounds = file.streams.audio
        return MediumInfo(
            modality=Modality.VIDEO,
            mime=mime,
            bytes=len(data),
            width=context.width,
            height=context.height,
            seconds=_seconds(stream.duration, stream.time_base, file.duration),
            rate=float(stream.average_rate) if stream.average_rate else None,
            frames=stream.frames or None,
            channels=sounds[0].codec_context.channels if sounds else None,
            bits=context.format.components[0].bits if context.format else None,
            codec=context.codec.canonical_name,
            pixel_format=context.pix_fmt,
            bit_rate=file.bit_rate or None,
            metadata=tuple(sorted({*file.metadata, *stream.metadata})),
        )


def _track(data: bytes, mime: str, limits: MediaLimits) -> MediumInfo:
    deadline = Deadline(limits.max_decode_seconds)
    what = "The sound track"
    with open_container(data, _CONTAINERS[mime], limits, deadline, what=what) as file, refusing(what):
        if not file.streams.audio:
            raise MediaRejected("There is no sound track.", code="undecodable")
        stream = file.streams.audio[0]
        context = stream.codec_context
        limits.check_sound(context.sample_rate, context.channels, 0)
        seconds = _seconds(stream.duration, stream.time_base, file.duration)
        return MediumInfo(
            modality=Modality.AUDIO,
            mime=mime,
            bytes=len(data),
            seconds=seconds,
            rate=float(context.sample_rate),
            frames=round(seconds * context.sample_rate) if seconds is not None else None,
            channels=context.channels,
            codec=context.codec.canonical_name,
            bit_rate=file.bit_rate or None,
            metadata=tuple(sorted({*file.metadata, *stream.metadata})),
        )


def _sound(data: bytes, mime: str, limits: MediaLimits) -> MediumInfo:
    with sndfile_refusing(), soundfile.SoundFile(io.BytesIO(data)) as file:
        rate, channels = int(file.samplerate), int(file.channels)
        limits.check_sound(rate, channels, 0)
        frames = int(file.frames) if 0 < file.frames < 2**40 else None
        seconds = frames / rate if frames is not None else None
        return MediumInfo(
            modality=Modality.AUDIO,
            mime=mime,
            bytes=len(data),
            seconds=seconds,
            rate=float(rate),
            frames=frames,
            channels=channels,
            bits=_BITS.get(file.subtype),
            codec=file.subtype.lower() if mime == "audio/wav" else mime.removeprefix("audio/"),
            bit_rate=round(8 * len(data) / seconds) if seconds else None,
            metadata=tuple(sorted(file.copy_metadata())),
        )


def _seconds(duration: int | None, time_base: object, whole: int | None) -> float | None:
    if duration is not None and duration > 0 and time_base:
        return float(duration * time_base)  # type: ignore[operator]
    return whole / 1_000_000 if whole is not None and whole > 0 else None
