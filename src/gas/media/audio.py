"""Sound: from bytes to mono samples, to a model's input."""

from __future__ import annotations

import io
from typing import Final

import av
import numpy as np
import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.image import sniff_mime
from gas.media.limits import DEFAULT_LIMITS, MediaLimits

__all__ = ["AUDIO_MIMES", "decode_audio", "preprocess_audio"]

_SNDFILE: Final = frozenset({"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"})
_FFMPEG: Final = {"audio/mp4": "mp4", "video/mp4": "mp4", "video/webm": "matroska"}
AUDIO_MIMES: Final = _SNDFILE | frozenset(_FFMPEG)
"""Content types that :func:`decode_audio` takes; of a video its first sound track."""


def decode_audio(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> tuple[NDArray[np.float32], int]:
    """Decode a sound from anywhere to mono.

    Args:
        data: Encoded WAV, FLAC, Ogg, MP3, or MP4 and WebM with a sound track.
        limits: What the sound may cost.

    Returns:
        float32 (n,), the mean of the channels, nominally in [-1, 1], and the sample rate in Hz.

    Raises:
        MediaRejected: ``unsupported``, ``too_large`` (by the header, or while decoding) or ``undecodable``.
    """
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime in _SNDFILE:
        samples, rate = _decode_sndfile(data, limits)
    elif mime in _FFMPEG:
        samples, rate = _decode_ffmpeg(data, _FFMPEG[mime], limits)
    else:
        raise MediaRejected("The sound is not WAV, FLAC, Ogg, MP3, MP4 or WebM.", code="unsupported")
    if samples.shape[0] == 0:
        raise MediaRejected("The sound has no samples.", code="undecodable")
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise MediaRejected("The sound holds values that are not numbers.", code="undecodable")
    return mono, rate


def preprocess_audio(
    mono: NDArray[np.float32], rate: int, *, target_rate: int = 16_000, seconds: float = 6.0
) -> NDArray[np.float32]:
    """A model's input from decoded sound (submissions.md, section 1).

    Resampled (soxr, high quality), then the centre cut out, or zeros put at the end. No loudness normalisation.

    Args:
        mono: float32 (n,).
        rate: Of ``mono``, Hz.
        target_rate: That the model asks for, Hz.
        seconds: That the model asks for.

    Returns:
        float32, (round(target_rate * seconds),), clipped to [-1, 1].
    """
    if rate != target_rate:
        mono = np.asarray(soxr.resample(mono, rate, target_rate, quality="HQ"), dtype=np.float32)
    length = round(target_rate * seconds)
    start = max(0, (len(mono) - length) // 2)
    cut = mono[start : start + length]
    out = np.zeros(length, np.float32)
    out[: len(cut)] = np.clip(cut, -1, 1)
    return out


def _check(rate: int, channels: int, frames: int, limits: MediaLimits) -> None:
    if not 1000 <= rate <= limits.max_sample_rate or not 1 <= channels <= limits.max_channels:
        raise MediaRejected(f"The sound has {channels} channels at {rate} Hz.", code="too_large")
    if frames > rate * limits.max_seconds:
        raise MediaRejected(f"The sound is longer than {limits.max_seconds:g} seconds.", code="too_large")


def _decode_sndfile(data: bytes, limits: MediaLimits) -> tuple[NDArray[np.float32], int]:
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, channels = int(file.samplerate), int(file.channels)
            _check(rate, channels, 0, limits)
            # A header may lie about the length, so one more than allowed is asked for, and no more than that.
            samples = file.read(int(rate * limits.max_seconds) + 1, dtype="float32", always_2d=True)
            if file.format in ("WAV", "FLAC") and 0 < file.frames < 2**62 and len(samples) < file.frames:
                _check(rate, channels, len(samples), limits)
                raise MediaRejected("The sound is truncated.", code="undecodable")
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        raise MediaRejected("The sound is broken.", code="undecodable") from error
    _check(rate, channels, len(samples), limits)
    return np.asarray(samples, dtype=np.float32), rate


def _decode_ffmpeg(data: bytes, container_format: str, limits: MediaLimits) -> tuple[NDArray[np.float32], int]:
    parts: list[NDArray[np.float32]] = []
    try:
        # The format is pinned: guessing would let a playlist make FFmpeg open other files. For a codec that PyAV
        # does not know there is no context, which is the AttributeError below.
        with av.open(io.BytesIO(data), mode="r", format=container_format) as container:
            if not container.streams.audio:
                raise MediaRejected("There is no sound track.", code="undecodable")
            stream = container.streams.audio[0]
            rate, channels = int(stream.codec_context.sample_rate), int(stream.codec_context.channels)
            _check(rate, channels, 0, limits)
            resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
            total = 0
            for frame in container.decode(stream):
                for piece in resampler.resample(frame):
                    part = np.asarray(piece.to_ndarray(), dtype=np.float32).T
                    total += len(part)
                    _check(rate, channels, total, limits)
                    parts.append(part)
    except (
        av.FFmpegError,
        RuntimeError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        MemoryError,
    ) as error:
        raise MediaRejected("The sound track is broken.", code="undecodable") from error
    if not parts:
        raise MediaRejected("The sound has no samples.", code="undecodable")
    return np.concatenate(parts), rate
