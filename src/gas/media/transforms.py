"""The fixed sharing chains of the robustness pass, one a modality (scoring.md, section 3).

The elementary distortions, and the levels that are drawn of them, are in :mod:`gas.media.distortions`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gas.media.distortions.codecs import Sound, mp3, opus, resample_round_trip
from gas.media.distortions.damage import halve_and_restore, jpeg, webp
from gas.media.distortions.video import h264
from gas.media.image import RGB

__all__ = [
    "SHARING_CHAIN",
    "SHARING_CHAIN_AUDIO",
    "SHARING_CHAIN_VIDEO",
    "halve_and_restore",
    "jpeg",
    "sharing_chain",
    "sharing_chain_audio",
    "sharing_chain_video",
    "webp",
]

SHARING_CHAIN = "halve-restore(256) jpeg(55) webp(75) jpeg(80)"
"""Name of the pictures' chain for receipts; changes whenever the chain does."""

SHARING_CHAIN_VIDEO = "halve-restore(256) h264(crf 32) h264(crf 28)"
"""Name of the clips' chain for receipts; changes whenever the chain does."""

SHARING_CHAIN_AUDIO = "halve-restore(16000 Hz) opus(24 kbit/s) mp3(64 kbit/s)"
"""Name of the sounds' chain for receipts; changes whenever the chain does."""


def sharing_chain(rgb: RGB) -> RGB:
    """The fixed chain of the robustness pass for pictures.

    Halve and restore the size (not below 256 px), JPEG 55, WebP 75, JPEG 80: roughly what a picture suffers
    when it is shared, downloaded and shared again.

    Args:
        rgb: uint8, (h, w, 3).

    Returns:
        uint8, of the same shape; the same input gives the same output.
    """
    return jpeg(webp(jpeg(halve_and_restore(rgb), 55), 75), 80)


def sharing_chain_video(frames: Sequence[RGB]) -> list[RGB]:
    """The same for a clip: halved and restored (not below 256 px), sent as H.264 twice, at rate factors 32 and 28.

    Args:
        frames: uint8 (h, w, 3), RGB, in order; what a model is to see of the clip is enough.

    Returns:
        As many frames, each of the size that it had; the same input gives the same output.
    """
    return h264(h264([halve_and_restore(frame) for frame in frames], 32), 28)


def sharing_chain_audio(sound: Sound, rate: int) -> Sound:
    """The same for a sound: half the sample rate and back (not below 16 kHz), a voice message, an MP3 of it.

    Args:
        sound: float32 (n,), mono, nominally in [-1, 1].
        rate: Hz.

    Returns:
        float32 (n,), in [-1, 1], without delay; the same input gives the same output.
    """
    half = max(16_000, rate // 2)
    thinned = resample_round_trip(sound, rate, half) if half < rate else sound
    return mp3(opus(thinned, rate, 24), rate, 64)
