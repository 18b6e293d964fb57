"""Video: from bytes to the frames that a model sees."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.image import RGB, preprocess_image, sniff_mime
from gas.media.limits import DEFAULT_LIMITS, MediaLimits

__all__ = ["VIDEO_MIMES", "decode_video", "frame_indices", "preprocess_video"]

_FORMATS: Final = {"video/mp4": "mp4", "video/webm": "matroska", "video/x-msvideo": "avi"}
VIDEO_MIMES: Final = frozenset(_FORMATS)
"""Content types that :func:`decode_video` takes."""

_DEFAULT_RATE: Final = 30.0


def frame_indices(num_frames: int, frame_rate: float | None, source_rate: float) -> list[int]:
    """Which frames of a file a model sees.

    Args:
        num_frames: How many it asks for, at least 1.
        frame_rate: At which rate it asks for them, frames a second; None: the first consecutive ones.
        source_rate: Of the file, frames a second.

    Returns:
        Indices from 0, not falling: floor(i * source_rate / frame_rate). A model that asks for a higher rate
        than the file's sees frames twice.
    """
    if frame_rate is None:
        return list(range(num_frames))
    step = Fraction(source_rate).limit_denominator(100_000) / Fraction(frame_rate).limit_denominator(100_000)
    return [int(index * step) for index in range(num_frames)]


def decode_video(
    data: bytes, num_frames: int = 16, frame_rate: float | None = None, limits: MediaLimits = DEFAULT_LIMITS
) -> list[RGB]:
    """Decode the frames that a model asks for, and stop there.

    Args:
        data: Encoded MP4, WebM or AVI; hostile until proven otherwise.
        num_frames: How many frames, at least 1.
        frame_rate: See :func:`frame_indices`.
        limits: What the video may cost.

    Returns:
        At least one and at most ``num_frames`` frames, uint8 (h, w, 3), RGB; fewer when the file is shorter.

    Raises:
        MediaRejected: ``unsupported``, ``too_large`` or ``undecodable``.
    """
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime not in _FORMATS:
        raise MediaRejected("The video is not MP4, WebM or AVI.", code="unsupported")
    try:
        # The format is pinned: guessing would let a playlist make FFmpeg open other files. For a codec that PyAV
        # does not know there is no context, which is the AttributeError below.
        with av.open(io.BytesIO(data), mode="r", format=_FORMATS[mime]) as container:
            frames = list(_frames(container, num_frames, frame_rate, limits))
    except (
        av.FFmpegError,
        RuntimeError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        MemoryError,
    ) as error:
        raise MediaRejected("The video is broken.", code="undecodable") from error
    if not frames:
        raise MediaRejected("The video has no frames.", code="undecodable")
    return frames


def preprocess_video(frames: list[RGB], target: tuple[int, int], num_frames: int = 16) -> NDArray[np.uint8]:
    """A model's input from decoded frames: each as a picture, the last one repeated when there are too few.

    Args:
        frames: At least one, from :func:`decode_video`.
        target: Height and width that the model asks for.
        num_frames: How many it asks for.

    Returns:
        uint8, (num_frames, 3, H, W), RGB.
    """
    out = np.empty((num_frames, 3, *target), np.uint8)
    for index in range(num_frames):
        out[index] = preprocess_image(frames[index], target) if index < len(frames) else out[index - 1]
    return out


def _frames(
    container: av.container.InputContainer, num_frames: int, frame_rate: float | None, limits: MediaLimits
) -> Iterator[RGB]:
    if not container.streams.video:
        raise MediaRejected("There is no video track.", code="undecodable")
    stream = container.streams.video[0]
    limits.check_size(stream.codec_context.width, stream.codec_context.height)
    source_rate = float(stream.average_rate) if stream.average_rate else _DEFAULT_RATE
    wanted = frame_indices(num_frames, frame_rate, source_rate)
    if wanted[-1] >= limits.max_frames:
        wanted = [index for index in wanted if index < limits.max_frames]
    at = 0
    for position, frame in enumerate(container.decode(stream)):
        if wanted[at] == position:
            # The size may change in the middle of a stream.
            limits.check_size(frame.width, frame.height)
            pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            while at < len(wanted) and wanted[at] == position:
                yield pixels
                at += 1
        if at == len(wanted):
            return
