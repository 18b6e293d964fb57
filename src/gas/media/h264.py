"""H.264 as the project encodes it wherever it does: by x264, so that the same frames give the same stream again."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from typing import Final

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags as CodecFlags
from av.video.reformatter import Interpolation

from gas.media.image import RGB

__all__ = ["encode_yuv420", "yuv420_of"]

# A round needs the same pixels everywhere. x264's macroblock tree gives another stream from run to run (its vector code
# reads memory that it has not set), and the vector code of newer processors (SSE4.2, AVX) decides differently from the
# C code; that of SSE2, which every x86-64 has, agrees with it, at little loss of speed.
_EXACT: Final = "threads=1:mbtree=0:asm=sse2"
# FFmpeg's conversion to 4:2:0 gives the same values on every processor only when it is asked for that.
_CONVERSION: Final = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INP
)


def yuv420_of(pixels: RGB) -> av.VideoFrame:
    """A picture with 4:2:0 colour (BT.601, limited range), by FFmpeg's exact bicubic conversion.

    Args:
        pixels: uint8 (h, w, 3), with even sides.
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    return frame.reformat(format="yuv420p", interpolation=_CONVERSION, threads=1)


def encode_yuv420(
    frames: Iterable[av.VideoFrame],
    rate: int | Fraction,
    *,
    crf: int,
    preset: str = "veryfast",
    keyframes: int | None = None,
    settings: str = "",
    anonymous: bool = False,
) -> bytes:
    """An MP4 file with one H.264 track (libx264, 4:2:0, no macroblock tree, one thread) and no date.

    Args:
        frames: At least one, in yuv420p, all of one size with even sides.
        rate: Frames a second.
        crf: Constant rate factor of x264: 0 (lossless but for 4:2:0) to 51 (worst). At the same factor, clips are
            larger and better than with the tree, which most other encodes have.
        preset: How much time the encoder takes for a smaller file.
        keyframes: Frames from one key frame to the next at most; by the encoder when left out.
        settings: Further ones of x264, ``name=value`` with colons between.
        anonymous: Leave out the note in which x264 names itself and its options.

    Returns:
        The same bytes again for one build of FFmpeg and libx264.

    Raises:
        ValueError: No frames.
    """
    each = iter(frames)
    first = next(each, None)
    if first is None:
        raise ValueError("A video needs at least one frame.")
    sink = io.BytesIO()
    options = {"crf": str(crf), "preset": preset, "x264-params": f"{_EXACT}:{settings}".rstrip(":")}
    if keyframes is not None:
        options["g"] = str(keyframes)
    step = 1 / Fraction(rate)
    with av.open(sink, mode="w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=options)
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        stream.time_base = step
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= CodecFlags.bitexact.value
        # The filter copies the stream's parameters, which are complete only when the encoder has started.
        container.start_encoding()
        # x264 writes its name and options into units of type 6 (H.264, section 7.4.1: SEI).
        filtered = BitStreamFilterContext("filter_units=remove_types=6" if anonymous else "null", stream, stream)
        for index, frame in enumerate(chain((first,), each)):
            frame.pts, frame.time_base = index, step
            for packet in stream.encode(frame):
                container.mux(filtered.filter(packet))
        for packet in stream.encode(None):
            container.mux(filtered.filter(packet))
        container.mux(filtered.filter(None))
    return sink.getvalue()
