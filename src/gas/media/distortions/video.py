"""The distortion that only clips have: a real H.264 round trip, in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final

import numpy as np

from gas.media.h264 import encode_yuv420, yuv420_of
from gas.media.image import RGB
from gas.media.limits import MediaLimits
from gas.media.video import decode_video

__all__ = ["encode_h264", "h264"]

_RATE: Final = 30


def encode_h264(frames: Sequence[RGB], crf: int, rate: int = _RATE) -> bytes:
    """An MP4 file with one H.264 track (libx264, preset ``veryfast``, High profile, 4:2:0, no macroblock tree).

    Args:
        frames: At least one, uint8 (h, w, 3), all of one size with even sides of at least 2 pixels.
        crf: Constant rate factor of x264: 0 (lossless but for 4:2:0) to 51 (worst). At the same
            factor, clips are larger and better than with the tree, which most other encodes have.
        rate: Frames a second.

    Raises:
        ValueError: No frames, sizes that differ or are odd, or a factor out of range.
    """
    if not frames or any(frame.shape != frames[0].shape for frame in frames):
        raise ValueError("A clip needs frames, all of one size.")
    height, width = frames[0].shape[:2]
    if height % 2 or width % 2 or not 0 <= crf <= 51:
        raise ValueError("H.264 needs even sides and a rate factor from 0 to 51.")
    return encode_yuv420(map(yuv420_of, frames), rate, crf=crf)


def h264(frames: Sequence[RGB], crf: int) -> list[RGB]:
    """The clip after one H.264 encode and decode (:func:`encode_h264`, the project's own decoder).

    The encoder takes even sizes only: an odd side is extended by its last row or column, and cut again. Where the
    size changes in the middle of a clip, a new stream begins, as it does in a broadcast.

    Args:
        frames: uint8 (h, w, 3), RGB.
        crf: Constant rate factor, 0..51.

    Returns:
        As many frames, each of its own size. The same input gives the same output for one build of FFmpeg and x264;
        vector code of the decoder's conversion to RGB may differ by a grey level between kinds of processors.
    """
    out: list[RGB] = []
    for _, run in groupby(frames, key=lambda frame: frame.shape):
        clip = list(run)
        height, width = clip[0].shape[:2]
        even = [np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") for frame in clip]
        data = encode_h264(even, crf)
        # Our own file: no limit for strangers' ones may cut it short, on however slow a machine.
        limits = MediaLimits(
            max_bytes=len(data),
            max_side=max(height, width) + 1,
            max_pixels=(height + 1) * (width + 1),
            max_frames=len(clip),
            max_decode_seconds=math.inf,
        )
        out += [np.ascontiguousarray(frame[:height, :width]) for frame in decode_video(data, len(clip), limits=limits)]
    return out
