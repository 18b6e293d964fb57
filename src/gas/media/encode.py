"""Sound and video to bytes.

The same input gives the same bytes on the same version of the libraries: one thread, no dates, no names of
encoders where a format can do without. Pictures are encoded in :mod:`gas.media.image`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, Literal, cast

import av
import numpy as np
import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

from gas.media.h264 import encode_yuv420, yuv420_of
from gas.media.image import RGB

__all__ = ["encode_audio", "encode_flac", "encode_mp4", "encode_wav"]

_BITEXACT: Final = {"fflags": "+bitexact"}
_CODECS: Final = {
    "mp3": ("mp3", "libmp3lame", (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)),
    "opus": ("ogg", "libopus", (8000, 12_000, 16_000, 24_000, 48_000)),
    "aac": ("mp4", "aac", (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000)),
}


def encode_wav(
    samples: NDArray[np.float32],
    rate: int,
    subtype: Literal["PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW"] = "PCM_16",
) -> bytes:
    """WAV without metadata.

    Args:
        samples: float32, (n,) or (n, channels), in [-1, 1]; louder ones are clipped, but for ``FLOAT``.
        rate: Hz.
        subtype: How a sample is stored; ``ULAW`` and ``ALAW`` are those of telephones.
    """
    if subtype == "FLOAT":
        # The library would add a chunk that holds the time.
        channels = samples.shape[1] if samples.ndim == 2 else 1
        body = np.ascontiguousarray(samples, dtype="<f4").tobytes()
        form = struct.pack("<HHIIHHH", 3, channels, rate, 4 * channels * rate, 4 * channels, 32, 0)
        chunks = [(b"fmt ", form), (b"fact", struct.pack("<I", len(samples))), (b"data", body)]
        inside = b"WAVE" + b"".join(name + struct.pack("<I", len(chunk)) + chunk for name, chunk in chunks)
        return b"RIFF" + struct.pack("<I", len(inside)) + inside
    return _sndfile(samples, rate, "WAV", subtype)


def encode_flac(samples: NDArray[np.float32], rate: int) -> bytes:
    """FLAC of 16 bits; ``samples`` as for :func:`encode_wav`."""
    return _sndfile(samples, rate, "FLAC", "PCM_16")


def encode_audio(
    samples: NDArray[np.float32],
    rate: int,
    codec: Literal["mp3", "opus", "aac"],
    bit_rate: int = 64_000,
) -> bytes:
    """Sound by a lossy codec: MP3, Opus in Ogg, or AAC in MP4.

    Args:
        samples: float32, (n,) or (n, 2), in [-1, 1], at least one sample.
        rate: Hz; one that the codec doesn't have is brought to the next higher one that it has.
        codec: Which.
        bit_rate: Bits a second that are aimed at.

    Returns:
        The file. A codec adds some milliseconds of silence at the start or the end unless its container says
        how many.
    """
    container_format, encoder, rates = _CODECS[codec]
    fitting = next((known for known in rates if known >= rate), rates[-1])
    planes = np.atleast_2d(np.asarray(samples, np.float32).T)
    if fitting != rate:
        planes = np.ascontiguousarray(soxr.resample(planes.T, rate, fitting, quality="HQ").T, dtype=np.float32)
    layout = "mono" if len(planes) == 1 else "stereo"
    out = io.BytesIO()
    with av.open(out, mode="w", format=container_format, options=_BITEXACT) as container:
        options = {"flags": "+bitexact", "threads": "1"}
        stream = cast("av.AudioStream", container.add_stream(encoder, rate=fitting, options=options))
        stream.bit_rate = bit_rate
        stream.codec_context.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes.clip(-1, 1)), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = fitting, Fraction(1, fitting), 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    return out.getvalue()


def encode_mp4(
    frames: Sequence[RGB],
    rate: float = 30.0,
    *,
    crf: int = 23,
    preset: str = "veryfast",
    codec: Literal["h264", "mpeg4"] = "h264",
    keyframes: int | None = None,
) -> bytes:
    """Video as MP4 with 4:2:0 colour.

    Args:
        frames: At least one, uint8, (h, w, 3), all of one size. 4:2:0 needs even sides: the last row or column
            of an odd one is repeated, to be cut off after decoding.
        rate: Frames a second.
        crf: Quality of H.264, 0 (lossless) to 51; for MPEG-4 the quantiser, 1 to 31.
        preset: Of the H.264 encoder: how much time it takes for a smaller file.
        codec: H.264 or MPEG-4 part 2.
        keyframes: Frames from one key frame to the next; by the encoder when left out.

    Raises:
        ValueError: No frames, or frames of several sizes.
    """
    if not frames or any(frame.shape != frames[0].shape for frame in frames):
        raise ValueError("A video needs at least one frame, and all of one size.")
    height, width = frames[0].shape[:2]
    whole_rate = Fraction(rate).limit_denominator(1001)
    even = (yuv420_of(np.pad(one, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")) for one in frames)
    if codec == "h264":
        return encode_yuv420(even, whole_rate, crf=crf, preset=preset, keyframes=keyframes)
    options = {"flags": "+bitexact", "threads": "1", "qmin": str(crf), "qmax": str(crf)}
    if keyframes is not None:
        options["g"] = str(keyframes)
    out = io.BytesIO()
    with av.open(out, mode="w", format="mp4", options=_BITEXACT) as container:
        stream = container.add_stream("mpeg4", whole_rate, options)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in even:
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return out.getvalue()


def _sndfile(samples: NDArray[np.float32], rate: int, container: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, np.asarray(samples, np.float32).clip(-1, 1), rate, format=container, subtype=subtype)
    return out.getvalue()
