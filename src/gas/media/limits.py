"""What a medium may cost at most, in one place for all modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gas.clock import Clock, SystemClock
from gas.errors import MediaRejected

__all__ = ["DEFAULT_LIMITS", "Deadline", "MediaLimits"]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds that are checked before the costly step that they bound.

    Attributes:
        max_bytes: Of one encoded medium, of any modality.
        max_side: Width or height of a picture or a frame, pixels.
        max_pixels: Width times height; 64 million take 192 MB as RGB.
        max_scans: Scans of a progressive JPEG; a few kilobytes can otherwise ask for thousands of passes.
        max_scan_pixels: Scans times pixels of a JPEG: what all the passes together may visit.
        max_frames: Frames that are decoded of one video.
        max_seconds: Sound that is decoded of one medium, seconds.
        max_sample_rate: Of a sound file, Hz.
        max_channels: Of a sound file.
        max_decode_seconds: Wall time of one decode. Videos and sound tracks look at the clock between packets;
            what can't be interrupted ends at this time only in :mod:`gas.media.guard`.
        max_memory: Bytes that one decode may add to its process. Held to in :mod:`gas.media.guard` only; the
            bounds above keep ordinary formats below it.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_side: int = 16_384
    max_pixels: int = 64_000_000
    max_scans: int = 100
    max_scan_pixels: int = 1_000_000_000
    max_frames: int = 512
    max_seconds: float = 120.0
    max_sample_rate: int = 384_000
    max_channels: int = 16
    max_decode_seconds: float = 20.0
    max_memory: int = 1024 * 1024 * 1024

    def check_bytes(self, count: int) -> None:
        """Refuse a medium that is empty or has too many bytes.

        Raises:
            MediaRejected: ``undecodable`` or ``too_large``.
        """
        if count == 0:
            raise MediaRejected("The medium is empty.", code="undecodable")
        if count > self.max_bytes:
            raise MediaRejected(f"The medium has {count:,} bytes; {self.max_bytes:,} are allowed.", code="too_large")

    def check_size(self, width: int, height: int) -> None:
        """Refuse a picture that is empty or too large.

        Args:
            width: Pixels, as the header declares them.
            height: Pixels, as the header declares them.

        Raises:
            MediaRejected: ``undecodable`` or ``too_large``.
        """
        if width < 1 or height < 1:
            raise MediaRejected("The picture has no pixels.", code="undecodable")
        if width > self.max_side or height > self.max_side or width * height > self.max_pixels:
            raise MediaRejected(
                f"The picture has {width} x {height} pixels; at most {self.max_side:,} a side and "
                f"{self.max_pixels:,} in all are allowed.",
                code="too_large",
            )

    def check_scans(self, scans: int, pixels: int) -> None:
        """Refuse a JPEG that makes a decoder pass over its pixels too often.

        Args:
            scans: Passes that the file asks for.
            pixels: Width times height.

        Raises:
            MediaRejected: ``too_large``.
        """
        if scans > self.max_scans or scans * pixels > self.max_scan_pixels:
            raise MediaRejected(
                f"The JPEG has {scans} scans of {pixels:,} pixels; at most {self.max_scans} scans and "
                f"{self.max_scan_pixels:,} pixels in all of them are allowed.",
                code="too_large",
            )

    def check_sound(self, rate: int, channels: int, frames: int) -> None:
        """Refuse a sound whose shape is impossible or too large.

        Args:
            rate: Samples a second.
            channels: How many.
            frames: Samples of each channel, declared or counted so far.

        Raises:
            MediaRejected: ``too_large``.
        """
        if not 1000 <= rate <= self.max_sample_rate or not 1 <= channels <= self.max_channels:
            raise MediaRejected(
                f"The sound has {channels} channels at {rate} Hz; 1 to {self.max_channels} channels at 1,000 to "
                f"{self.max_sample_rate:,} Hz are allowed.",
                code="too_large",
            )
        if frames > rate * self.max_seconds:
            raise MediaRejected(f"The sound is longer than {self.max_seconds:g} seconds.", code="too_large")


class Deadline:
    """When a decode has to be done.

    Args:
        seconds: From now on.
        clock: The machine's own when left out.
    """

    __slots__ = ("_clock", "_end", "_seconds")

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._end = self._clock.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left, never negative."""
        return max(0.0, self._end - self._clock.monotonic())

    def check(self) -> None:
        """Go on, or give up.

        Raises:
            MediaRejected: ``too_slow``.
        """
        if self._clock.monotonic() >= self._end:
            raise MediaRejected(f"The medium takes more than {self._seconds:g} seconds to decode.", code="too_slow")


DEFAULT_LIMITS: Final = MediaLimits()
"""Limits in force where nothing else is said."""
