"""From a delivered medium's bytes to what its judges look at, decoded whole and within limits.

With a :class:`gas.media.guard.GuardedDecoder` the decoders run in a child process that a hostile medium may crash or
hang; without one they run here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media import audio, image, probe, video
from gas.media.guard import GuardedDecoder
from gas.media.image import RGB
from gas.media.limits import MediaLimits
from gas.media.probe import MediumInfo
from gas.types import Modality

__all__ = ["Decoded", "MediumDecoder"]

_TENTHS: Final = 10
_LOOK: Final = (16, 16)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A medium that decodes.

    Attributes:
        pictures: The picture, or a video's frames at tenths 1, 3, 5, 7 and 9 of its length (fewer of a very short
            one); uint8, (h, w, 3). Empty for a sound.
        seconds: Length of a video or sound; None for a picture.
        frames: Of a video.
        sound: float32, (n,), mono, and its rate; None for pictures and videos.
    """

    pictures: tuple[RGB, ...] = ()
    seconds: float | None = None
    frames: int | None = None
    sound: tuple[NDArray[np.float32], int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, 0 for a sound."""
        return (self.pictures[0].shape[1], self.pictures[0].shape[0]) if self.pictures else (0, 0)


class MediumDecoder:
    """Decodes whole media.

    Args:
        limits: What a medium may cost.
        guard: Where decoders run; None: in this process.
    """

    def __init__(self, limits: MediaLimits, guard: GuardedDecoder | None = None) -> None:
        self._limits, self._guard = limits, guard

    def decode(self, data: bytes, modality: Modality) -> Decoded:
        """Decode.

        Raises:
            MediaRejected: ``unsupported``, ``undecodable``, ``too_large``, ``too_slow``, ``too_much_memory`` or
                ``decoder_crashed``.
            gas.errors.InfrastructureError: No child process can be started.
        """
        if modality is Modality.IMAGE:
            pixels = self._guard.decode_image(data) if self._guard else image.decode_image(data, self._limits)
            return Decoded(pictures=(pixels,))
        if modality is Modality.AUDIO:
            mono, rate = self._guard.decode_audio(data) if self._guard else audio.decode_audio(data, self._limits)
            return Decoded(seconds=len(mono) / rate, sound=(mono, rate))
        return self._video(data)

    def _video(self, data: bytes) -> Decoded:
        info = self._probe(data)
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
        if self._guard:
            self._guard.load_video(data, _LOOK, count)
        else:
            video.load_video(data, _LOOK, count, limits=self._limits)
        step = max(1, (count - 1) // _TENTHS)
        wanted = (count - 1) // step + 1
        frames = self._frames(data, wanted, rate / step)
        # A length that is not declared but computed may be one frame out.
        if len(frames) < wanted - (declared is None):
            raise MediaRejected("The video breaks off before its end.", code="undecodable")
        shown = frames if len(frames) < _TENTHS else [frames[round(part * (len(frames) - 1))] for part in _PARTS]
        return Decoded(pictures=tuple(shown), seconds=info.seconds or count / rate, frames=count)

    def _frames(self, data: bytes, count: int, rate: float) -> list[RGB]:
        if self._guard:
            return self._guard.decode_video(data, count, rate)
        return video.decode_video(data, count, rate, self._limits)

    def _probe(self, data: bytes) -> MediumInfo:
        if self._guard:
            return self._guard.probe_medium(data, Modality.VIDEO)
        return probe.probe_medium(data, Modality.VIDEO, self._limits)


_PARTS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
