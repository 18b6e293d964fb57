"""From a delivered medium's bytes to what its judges look at: decoded whole, within limits, and measured.

:class:`MediumDecoder` does it here; :class:`gas.verification.examiner.Examiner` has the same done in a child process
that a hostile medium may crash or hang.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media import audio, image, probe, video
from gas.media.detail import Detail, measure_detail
from gas.media.hashing import pixel_key, thumbnail
from gas.media.image import RGB
from gas.media.jpeg import Scratch
from gas.media.limits import MediaLimits
from gas.scoring.generators import image_tier, video_tier
from gas.types import Modality
from gas.verification.prints import FramePrint, print_frames, print_picture, print_sound

__all__ = ["Decoded", "Decoder", "MediumDecoder"]

_TENTHS: Final = 10
_PARTS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
_LOOK: Final = (16, 16)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A medium that decodes, and what was measured of it.

    Attributes:
        size: Width and height, 0 for a sound.
        prints: Of the picture, or of a video's frames at tenths 1, 3, 5, 7 and 9 of its length; none of a sound.
        pixels: Hex key of a picture's pixels, see :func:`gas.media.hashing.pixel_key`; empty otherwise.
        detail: How much detail there is, where that was asked for; one for each picture or frame.
        pictures: The picture or the frames, shrunk to what models look at; uint8, (h, w, 3). Only where asked for.
        seconds: Length of a video or sound; None for a picture.
        frames: Of a video.
        words: Fingerprint of a sound, uint32.
    """

    size: tuple[int, int] = (0, 0)
    prints: tuple[FramePrint, ...] = ()
    pixels: str = ""
    detail: tuple[Detail, ...] = ()
    pictures: tuple[RGB, ...] = ()
    seconds: float | None = None
    frames: int | None = None
    words: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))


class Decoder(Protocol):
    """Decodes whole media and measures them."""

    def decode(self, data: bytes, modality: Modality, *, look: int = 0, detail: bool = False) -> Decoded:
        """Decode.

        Args:
            data: The medium; hostile.
            modality: What it must be.
            look: Smaller side of the pictures that models look at, pixels; 0 for none.
            detail: Whether to measure how much of it there is, in tiers above the lowest.

        Raises:
            MediaRejected: ``unsupported``, ``undecodable``, ``too_large``, ``too_slow``, ``too_much_memory`` or
                ``decoder_crashed``.
            gas.errors.InfrastructureError: No child process can be started.
        """
        ...


class MediumDecoder:
    """A :class:`Decoder` in this process.

    Args:
        limits: What a medium may cost.
        scratch: Room for the pixels of one picture after the other, for who asks from one thread only.
    """

    def __init__(self, limits: MediaLimits, scratch: Scratch | None = None) -> None:
        self._limits, self._scratch = limits, scratch
        self._grey = None if scratch is None else Scratch()

    def decode(self, data: bytes, modality: Modality, *, look: int = 0, detail: bool = False) -> Decoded:
        """See :meth:`Decoder.decode`."""
        if modality is Modality.AUDIO:
            mono, rate = audio.decode_audio(data, self._limits)
            return Decoded(seconds=len(mono) / rate, words=print_sound(mono, rate))
        seconds: float | None = None
        count: int | None = None
        if modality is Modality.IMAGE:
            # Pictures to look at may be the pixels themselves.
            frames = [image.decode_image(data, self._limits, None if look else self._scratch)]
            prints: tuple[FramePrint, ...] = (print_picture(frames[0], self._grey),)
        else:
            frames, seconds, count = self._video(data)
            prints = print_frames(frames)
        height, width = frames[0].shape[:2]
        # In the lowest tier there is nothing to be gained by enlarging.
        tier = image_tier if modality is Modality.IMAGE else video_tier
        detail = detail and tier(width, height) > 0
        return Decoded(
            size=(width, height),
            prints=prints,
            pixels=f"{pixel_key(frames[0]):016x}" if modality is Modality.IMAGE else "",
            detail=tuple(measure_detail(frame) for frame in frames) if detail else (),
            pictures=tuple(thumbnail(frame, look) for frame in frames) if look else (),
            seconds=seconds,
            frames=count,
        )

    def _video(self, data: bytes) -> tuple[list[RGB], float, int]:
        """Frames at the tenths (fewer of a very short one), seconds, and how many frames there are."""
        info = probe.probe_medium(data, Modality.VIDEO, self._limits)
        rate = info.rate if info.rate and 0 < info.rate <= 1000 else 30.0
        declared = info.frames
        count = declared or math.floor((info.seconds or 0) * rate)
        if count > self._limits.max_frames or (info.seconds or 0) > self._limits.max_seconds:
            raise MediaRejected(
                f"The video has {count} frames in {info.seconds or 0:.1f} s; at most {self._limits.max_frames} frames "
                f"and {self._limits.max_seconds:g} s are allowed.",
                code="too_large",
            )
        if count < 1:
            raise MediaRejected("The video doesn't say how long it is.", code="undecodable")
        # Every frame is decoded and made small; what breaks on the way is noticed by the last frames missing below.
        video.load_video(data, _LOOK, count, limits=self._limits)
        step = max(1, (count - 1) // _TENTHS)
        wanted = (count - 1) // step + 1
        frames = video.decode_video(data, wanted, rate / step, self._limits)
        # A length that is not declared but computed may be one frame out.
        if len(frames) < wanted - (declared is None):
            raise MediaRejected("The video breaks off before its end.", code="undecodable")
        shown = frames if len(frames) < _TENTHS else [frames[round(part * (len(frames) - 1))] for part in _PARTS]
        return shown, info.seconds or count / rate, count
