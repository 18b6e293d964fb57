"""What a medium may cost at most, in one place for all modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gas.errors import MediaRejected

__all__ = ["DEFAULT_LIMITS", "MediaLimits"]


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds that are checked before the costly step that they bound.

    Attributes:
        max_bytes: Of one encoded medium, of any modality.
        max_side: Width or height of a picture or a frame, pixels.
        max_pixels: Width times height; 64 million take 192 MB as RGB.
        max_scans: Scans of a progressive JPEG; a few kilobytes can otherwise ask for thousands of passes.
        max_frames: Frames that are decoded of one video.
        max_seconds: Sound that is decoded of one medium, seconds.
        max_sample_rate: Of a sound file, Hz.
        max_channels: Of a sound file.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_side: int = 16_384
    max_pixels: int = 64_000_000
    max_scans: int = 100
    max_frames: int = 512
    max_seconds: float = 120.0
    max_sample_rate: int = 384_000
    max_channels: int = 16

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


DEFAULT_LIMITS: Final = MediaLimits()
"""Limits in force where nothing else is said."""
