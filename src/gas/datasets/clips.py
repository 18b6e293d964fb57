"""Short clips out of long recordings: the few real videos that packages carry are whole files of many seconds."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final

import av
import numpy as np

from gas.errors import MediaRejected, StorageError
from gas.media.image import RGB

__all__ = ["count_windows", "encode_avi", "windows"]

# A file without a picture track has no first one: IndexError.
_DECODER_ERRORS: Final = (av.FFmpegError, OSError, ValueError, RuntimeError, IndexError)


def count_windows(data: bytes, container: str, *, frames: int) -> int:
    """How many windows :func:`windows` can cut out of a recording at most.

    Raises:
        MediaRejected: ``undecodable``.
    """
    try:
        with av.open(io.BytesIO(data), mode="r", format=container) as file:
            return max(0, sum(1 for _ in file.demux(file.streams.video[0])) - 1) // frames
    except _DECODER_ERRORS as error:
        raise MediaRejected("The recording is broken.", code="undecodable") from error


def windows(data: bytes, container: str, *, frames: int, most: int) -> Iterator[list[RGB]]:
    """Cut a recording into consecutive windows.

    Args:
        data: The recording, of a source that is trusted (its hash is pinned).
        container: FFmpeg's name of its format; pinned, so that nothing is guessed.
        frames: Frames a window, at least 1; a shorter rest is left out.
        most: Windows to deliver at most, spread evenly over the recording when it has more.

    Yields:
        Windows of ``frames`` pictures, uint8 (h, w, 3).

    Raises:
        MediaRejected: ``undecodable``.
    """
    there = count_windows(data, container, frames=frames)
    wanted = {int(index) for index in np.linspace(0, there - 1, min(most, there)).round()} if there else set()
    try:
        with av.open(io.BytesIO(data), mode="r", format=container) as file:
            window: list[RGB] = []
            for index, frame in enumerate(file.decode(file.streams.video[0])):
                if index // frames not in wanted:
                    continue
                window.append(frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False))
                if len(window) == frames:
                    yield window
                    window = []
    except _DECODER_ERRORS as error:
        raise MediaRejected("The recording is broken.", code="undecodable") from error


def encode_avi(frames: Sequence[RGB], rate: Fraction, *, quality: int) -> bytes:
    """MPEG-4 in AVI, as simple cameras write it.

    Args:
        frames: uint8 (h, w, 3), all of one size; an odd side loses its last row or column.
        rate: Frames a second.
        quality: Quantiser, 2 (good) to 31.

    Raises:
        StorageError: The encoder failed.
    """
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    out = io.BytesIO()
    try:
        with av.open(out, mode="w", format="avi", options={"fflags": "+bitexact"}) as file:
            stream = file.add_stream("mpeg4", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.qmin = stream.codec_context.qmax = quality
            stream.codec_context.thread_count = 1
            for pixels in frames:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
                file.mux(stream.encode(picture))
            file.mux(stream.encode())
    except _DECODER_ERRORS as error:
        raise StorageError("A clip could not be encoded.") from error
    return out.getvalue()
