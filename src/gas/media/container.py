"""Opening files of FFmpeg's formats: the format pinned, the clock watched, other files out of reach.

What is covered: playlists and references to other files (the format comes from the first bytes and is one of a
few without playlists, and no protocol is allowed), time (the clock is looked at with every block that FFmpeg
reads), pictures that grow in the middle of a stream. What is not: one packet that takes for ever, and a flaw
inside a decoder; for media from strangers there is :mod:`gas.media.guard`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import av

from gas.errors import MediaRejected
from gas.media.limits import Deadline, MediaLimits

__all__ = ["open_container", "refusing"]

# PyAV raises any of these on bytes that somebody has tampered with: for a codec that it does not know there is no
# context, which is an AttributeError, and sizes that do not fit into C are ValueErrors and OverflowErrors.
_DECODER_ERRORS: Final = (
    av.FFmpegError,
    RuntimeError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
)

_MAX_PIXELS: Final = 2**28


class _Source(io.BytesIO):
    """The file's bytes, as long as there is time."""

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        self._deadline.check()
        return super().read(size)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn everything that FFmpeg says into a refusal.

    Args:
        what: The medium, for the message: "The video".

    Raises:
        MediaRejected: ``undecodable`` or ``too_much_memory``; one that is raised inside passes through.
    """
    try:
        yield
    except MediaRejected:
        raise
    except MemoryError as error:
        raise MediaRejected(f"{what} needs more memory than there is.", code="too_much_memory") from error
    except _DECODER_ERRORS as error:
        raise MediaRejected(f"{what} is broken.", code="undecodable") from error


def open_container(
    data: bytes, container_format: str, limits: MediaLimits, deadline: Deadline, *, what: str, look: bool = True
) -> av.container.InputContainer:
    """Open encoded bytes as a file of one given format; the caller closes it.

    Args:
        data: The whole file.
        container_format: FFmpeg's name, found by the first bytes: guessing would let a playlist open other files.
        limits: What the medium may cost.
        deadline: Looked at whenever FFmpeg reads on.
        what: The medium, for messages: "The video".
        look: Whether the first packets are decoded to find out what the header doesn't say: the pixel format, or
            the true rate of some sounds. An MP4's header says enough to decode its pictures.

    Returns:
        The open container; its decoders run in one thread.

    Raises:
        MediaRejected: ``undecodable``, ``too_slow`` or ``too_much_memory``.
    """
    # FFmpeg forgets a size that is above this, and the caller couldn't say what was wrong: hence not the limit itself.
    pixels = {"max_pixels": str(max(limits.max_pixels, _MAX_PIXELS))}
    options = {"protocol_whitelist": "none", **pixels}
    if container_format == "mp4" and not look:
        options |= {"skip_frame": "all", "probesize": "4096"}
    with refusing(what):
        container = av.open(_Source(data, deadline), mode="r", format=container_format, options=options)
        for stream in (*container.streams.video, *container.streams.audio):
            if stream.codec_context is not None:
                stream.codec_context.thread_count = 1
                if stream.type == "video":
                    stream.codec_context.options = pixels
        return container
