"""Sound: from bytes to mono samples, to a model's input.

WAV and FLAC say how long they are and let a reader begin anywhere, so that :func:`load_audio` decodes only the
part in the centre that a model hears, with a margin for the resampler's filter. What lies outside is not looked
at, but that the file's last sample is there.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import av
import numpy as np
import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.container import open_container, refusing
from gas.media.image import sniff_mime
from gas.media.limits import DEFAULT_LIMITS, Deadline, MediaLimits
from gas.media.wav import plain_wav

__all__ = ["AUDIO_MIMES", "decode_audio", "load_audio", "preprocess_audio", "sndfile_refusing"]

_SNDFILE: Final = frozenset({"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"})
_FFMPEG: Final = {"audio/mp4": "mp4", "video/mp4": "mp4", "video/webm": "matroska"}
AUDIO_MIMES: Final = _SNDFILE | frozenset(_FFMPEG)
"""Content types that :func:`decode_audio` takes; of a video its first sound track."""

_SNDFILE_ERRORS: Final = (RuntimeError, OSError, ValueError, TypeError)
_EXACT: Final = frozenset({"WAV", "FLAC"})
_BLOCK: Final = 1 << 18

# Longer than the resampler's filter, in samples of the slower of the two rates.
_MARGIN: Final = 2048


def decode_audio(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> tuple[NDArray[np.float32], int]:
    """Decode a sound from anywhere to mono.

    Args:
        data: Encoded WAV, FLAC, Ogg, MP3, or MP4 and WebM with a sound track.
        limits: What the sound may cost.

    Returns:
        float32 (n,), the mean of the channels, nominally in [-1, 1], and the sample rate in Hz.

    Raises:
        MediaRejected: ``unsupported``, ``too_large`` (by the header, or while decoding), ``undecodable``,
            ``too_slow`` or ``too_much_memory``.
    """
    limits.check_bytes(len(data))
    deadline = Deadline(limits.max_decode_seconds)
    mime = sniff_mime(data)
    if (wav := plain_wav(data)) is not None:
        frames, channels = wav.samples.shape
        limits.check_sound(wav.rate, channels, frames)
        return wav.mono(0, frames), wav.rate
    if mime in _SNDFILE:
        with sndfile_refusing(), soundfile.SoundFile(io.BytesIO(data)) as file:
            return _all_of(file, limits, deadline), int(file.samplerate)
    if mime in _FFMPEG:
        return _decode_ffmpeg(data, _FFMPEG[mime], limits, deadline)
    raise MediaRejected("The sound is not WAV, FLAC, Ogg, MP3, MP4 or WebM.", code="unsupported")


def load_audio(
    data: bytes, target_rate: int = 16_000, seconds: float = 6.0, limits: MediaLimits = DEFAULT_LIMITS
) -> NDArray[np.float32]:
    """A model's input straight from the file.

    The same as :func:`preprocess_audio` of :func:`decode_audio` but for the rounding of the last bits (tested to
    1e-4; about 1e-7 is seen), and at a fraction of the cost where the file is longer than the model hears.

    Args:
        data: As for :func:`decode_audio`.
        target_rate: That the model asks for, Hz.
        seconds: That the model asks for.
        limits: What the sound may cost.

    Returns:
        float32, (round(target_rate * seconds),), in [-1, 1].

    Raises:
        MediaRejected: As :func:`decode_audio`; values that are not numbers are noticed only in what is read.
    """
    limits.check_bytes(len(data))
    if (wav := plain_wav(data)) is not None:
        frames, channels = wav.samples.shape
        limits.check_sound(wav.rate, channels, frames)
        length = round(target_rate * seconds)
        start, stop, offset = _span(frames, wav.rate, target_rate, length) or (0, frames, -1)
        mono = _resampled(wav.mono(start, stop), wav.rate, target_rate)
        return _window(mono, max(0, (len(mono) - length) // 2) if offset < 0 else offset, length)
    if sniff_mime(data) in ("audio/wav", "audio/flac"):
        with sndfile_refusing(), soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, frames = int(file.samplerate), int(file.frames)
            limits.check_sound(rate, int(file.channels), 0)
            span = _span(frames, rate, target_rate, round(target_rate * seconds))
            if span is not None and file.format in _EXACT and frames <= rate * limits.max_seconds:
                start, stop, offset = span
                part = _part_of(file, start, stop, Deadline(limits.max_decode_seconds))
                return _window(_resampled(part, rate, target_rate), offset, round(target_rate * seconds))
    mono, rate = decode_audio(data, limits)
    return preprocess_audio(mono, rate, target_rate=target_rate, seconds=seconds)


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
    mono = _resampled(mono, rate, target_rate)
    length = round(target_rate * seconds)
    return _window(mono, max(0, (len(mono) - length) // 2), length)


def _resampled(mono: NDArray[np.float32], rate: int, target_rate: int) -> NDArray[np.float32]:
    if rate == target_rate:
        return mono
    return np.asarray(soxr.resample(mono, rate, target_rate, quality="HQ"), dtype=np.float32)


def _window(mono: NDArray[np.float32], start: int, length: int) -> NDArray[np.float32]:
    cut = mono[start : start + length]
    out = np.zeros(length, np.float32)
    np.clip(cut, -1, 1, out=out[: len(cut)])
    return out


def _span(frames: int, rate: int, target_rate: int, length: int) -> tuple[int, int, int] | None:
    """Which samples of a file the centre needs.

    Args:
        frames: Samples of the file.
        rate: Of the file, Hz.
        target_rate: Of the centre, Hz.
        length: Of the centre, samples at ``target_rate``.

    Returns:
        First sample, the one after the last, and where the centre begins in what becomes of them. The first
        one lies where both rates have a sample at the same time, so that the resampler's phases are those of
        the whole file. None when all is needed, or when the whole file's length at ``target_rate`` lies
        between two numbers, so that only the resampler can say which it takes.
    """
    if not 0 < frames < 2**40 or 2 * frames * target_rate % (2 * rate) == rate:
        return None
    start = ((2 * frames * target_rate + rate) // (2 * rate) - length) // 2
    step = rate // math.gcd(rate, target_rate)
    margin = -(-_MARGIN * max(rate, target_rate) // target_rate)
    first = max(0, (start * rate // target_rate - margin) // step * step)
    end = min(frames, -(-(start + length) * rate // target_rate) + margin)
    if start <= 0 or end - first > 0.9 * frames:
        return None
    return first, end, start - first // step * (target_rate // math.gcd(rate, target_rate))


@contextmanager
def sndfile_refusing() -> Iterator[None]:
    """Turn everything that libsndfile says into a refusal.

    Raises:
        MediaRejected: ``undecodable`` or ``too_much_memory``; one that is raised inside passes through.
    """
    try:
        yield
    except MediaRejected:
        raise
    except MemoryError as error:
        raise MediaRejected("The sound needs more memory than there is.", code="too_much_memory") from error
    except _SNDFILE_ERRORS as error:
        raise MediaRejected("The sound is broken.", code="undecodable") from error


def _all_of(file: soundfile.SoundFile, limits: MediaLimits, deadline: Deadline) -> NDArray[np.float32]:
    """Everything, mixed down block by block: a header may lie about the length, and channels cost memory."""
    rate, channels = int(file.samplerate), int(file.channels)
    limits.check_sound(rate, channels, 0)
    parts: list[NDArray[np.float32]] = []
    total = 0
    while True:
        deadline.check()
        block = file.read(_BLOCK, dtype="float32", always_2d=True)
        total += len(block)
        limits.check_sound(rate, channels, total)
        parts.append(_mono(block))
        if len(block) < _BLOCK:
            break
    if file.format in _EXACT and 0 < file.frames < 2**62 and total < file.frames:
        raise MediaRejected("The sound is truncated.", code="undecodable")
    return _joined(parts)


def _part_of(file: soundfile.SoundFile, start: int, stop: int, deadline: Deadline) -> NDArray[np.float32]:
    parts: list[NDArray[np.float32]] = []
    # A file that is cut off is refused here as in :func:`decode_audio`.
    file.seek(int(file.frames) - 1)
    complete = len(file.read(1, dtype="float32", always_2d=True)) == 1
    file.seek(start)
    for at in range(start, stop, _BLOCK):
        deadline.check()
        block = file.read(min(_BLOCK, stop - at), dtype="float32", always_2d=True)
        complete = complete and len(block) == min(_BLOCK, stop - at)
        parts.append(_mono(block))
    if not complete:
        raise MediaRejected("The sound is truncated.", code="undecodable")
    return _joined(parts)


def _decode_ffmpeg(
    data: bytes, container_format: str, limits: MediaLimits, deadline: Deadline
) -> tuple[NDArray[np.float32], int]:
    parts: list[NDArray[np.float32]] = []
    with (
        open_container(data, container_format, limits, deadline, what="The sound track") as container,
        refusing("The sound track"),
    ):
        if not container.streams.audio:
            raise MediaRejected("There is no sound track.", code="undecodable")
        stream = container.streams.audio[0]
        rate, channels = int(stream.codec_context.sample_rate), int(stream.codec_context.channels)
        limits.check_sound(rate, channels, 0)
        resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
        total = 0
        for frame in container.decode(stream):
            deadline.check()
            for piece in resampler.resample(frame):
                part = np.asarray(piece.to_ndarray(), dtype=np.float32).T
                total += len(part)
                limits.check_sound(rate, channels, total)
                parts.append(_mono(part))
    return _joined(parts), rate


def _mono(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels: (n, c) to (n,); numpy's own mean over so short an axis takes ten times as long."""
    total = samples[:, 0].copy()
    for channel in range(1, samples.shape[1]):
        total += samples[:, channel]
    if samples.shape[1] > 1:
        total /= np.float32(samples.shape[1])
    return total


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    mono = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])
    if mono.shape[0] == 0:
        raise MediaRejected("The sound has no samples.", code="undecodable")
    if not np.isfinite(mono).all():
        raise MediaRejected("The sound holds values that are not numbers.", code="undecodable")
    return mono
