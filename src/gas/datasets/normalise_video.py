"""One history for all videos of a round: what :mod:`gas.datasets.normalise` does to pictures, done to clips.

Real clips come with every size, rate, codec and encoder's note, generated ones with one of each. Every video of a
round, real or fake, goes through the same steps, with parameters from the same distributions:

1. The project's one decode, from the first frame on. Of a file with more than 37.5 frames a second every second (third
   ...) frame is taken, so that about 25 a second remain. No frame is ever repeated or blended: that would tell the
   rate of the source. A source with 10 frames a second is therefore shown 2.5 times as fast. A file with too few
   frames is refused.
2. Each frame like a picture: the largest centred square, shrunk by averaging areas to a side drawn evenly from 0.53
   to 0.625 of the final one, enlarged again (bicubic). All frames of a clip share the draw.
3. One H.264 stream (libx264, 4:2:0, a key frame at the start and every 250 frames) in MP4 at 25 frames a second with
   a constant rate factor from 18 to 28 and one of two presets; no sound, no encoder's note, no dates.

As for pictures the draws depend on the round's seed and the medium's origin, and a caller that knows the whole set
deals the encodings out by ``rank``. The file of one clip is the same bytes again for one build of FFmpeg and libx264.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import av
import cv2
import numpy as np

from gas.clock import derive_rng
from gas.datasets.normalise import draw_side, shrink_and_enlarge, square_of
from gas.errors import MediaRejected
from gas.media.h264 import encode_yuv420
from gas.media.image import RGB, preprocess_mask
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.masks import decode_masks, encode_masks
from gas.media.video import video_reader

__all__ = ["CLIP_FRAMES", "CLIP_RATE", "VIDEO_NORMALISATION", "frame_step", "normalise_video", "normalise_video_masks"]

CLIP_FRAMES: Final = 24
"""Frames of a normalised clip where nothing else is asked for."""

CLIP_RATE: Final = 25
"""Frames a second of every normalised clip."""

_ENCODINGS: Final = tuple((crf, preset) for crf in range(18, 29) for preset in ("veryfast", "medium"))

VIDEO_NORMALISATION: Final = "square area(.53-.625) cubic 25fps x264(crf 18-28, veryfast|medium)"
"""Name of the steps for a round's parameters; changes whenever they do."""


def frame_step(rate: float) -> int:
    """Of a source with ``rate`` frames a second each how-many-th frame is taken, so that about 25 a second remain."""
    return max(1, round(rate / CLIP_RATE))


def normalise_video(
    data: bytes,
    *,
    seed: int,
    origin: str,
    size: int = 256,
    frames: int = CLIP_FRAMES,
    rank: int | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> bytes:
    """The video as it enters a round.

    Args:
        data: Encoded MP4, WebM or AVI from anywhere.
        seed: Of the round.
        origin: Hex SHA-256 of the medium that this one derives from, or of the medium itself.
        size: Side of the result, pixels, even, at least 32.
        frames: Of the result.
        rank: As for :func:`~gas.datasets.normalise.normalise_image`.
        limits: What the decoding may cost.

    Returns:
        An MP4 of ``frames`` frames of size x size pixels; the same arguments give the same bytes.

    Raises:
        MediaRejected: Not decodable, ``too_small``, or ``too_short`` (fewer frames than asked for).
    """
    rng = derive_rng(seed, "normalise", origin)
    work = draw_side(rng, size)
    if rank is None:
        crf, preset = _ENCODINGS[int(rng.integers(len(_ENCODINGS)))]
    else:
        order = derive_rng(seed, "encodings", "video").permutation(len(_ENCODINGS))
        crf, preset = _ENCODINGS[int(order[rank % len(_ENCODINGS)])]
    clip: list[RGB] = []
    with video_reader(data, limits) as reader:
        step = frame_step(reader.rate)
        for index, frame in enumerate(reader):
            if index % step == 0:
                clip.append(shrink_and_enlarge(square_of(frame), work, size))
                if len(clip) == frames:
                    break
    if len(clip) < frames:
        raise MediaRejected(
            f"The video has {len(clip)} frames at about {CLIP_RATE} a second; a round needs {frames}.", code="too_short"
        )
    return _encode(clip, crf, preset)


def normalise_video_masks(
    masks: bytes,
    video: bytes,
    *,
    size: int = 256,
    frames: int = CLIP_FRAMES,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> bytes:
    """The masks of a clip's frames, moved as :func:`normalise_video` moves the pictures.

    Args:
        masks: A zip of one PNG a frame of ``video``, or one PNG for all.
        video: The video that they belong to, for its rate and size.
        size: Side of the result, pixels.
        frames: Of the result.
        limits: What the decoding may cost.

    Returns:
        A zip of ``frames`` PNGs of size x size pixels.

    Raises:
        MediaRejected: Not decodable, or ``mask_mismatch`` (too few masks, or of another size than the video).
    """
    with video_reader(video, limits) as reader:
        step, sides = frame_step(reader.rate), {reader.width, reader.height}
    found = decode_masks(masks, (frames - 1) * step + 1, limits)[::step]
    if any(set(mask.shape) != sides for mask in found):
        raise MediaRejected("A mask has another size than the video.", code="mask_mismatch")
    return encode_masks([preprocess_mask(mask, (size, size)) for mask in found])


def _encode(clip: Iterable[RGB], crf: int, preset: str) -> bytes:
    """MP4 with one H.264 track and nothing that names its maker or its date."""
    return encode_yuv420(
        map(_planes, clip),
        CLIP_RATE,
        crf=crf,
        preset=preset,
        settings=f"keyint={10 * CLIP_RATE}:scenecut=0:bframes=2",
        anonymous=True,
    )


def _planes(picture: RGB) -> av.VideoFrame:
    # OpenCV's conversion is in whole numbers: the same on every processor.
    planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420), dtype=np.uint8)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")
