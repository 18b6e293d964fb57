"""From a medium's bytes to a model's input: one call for every modality.

A modality is a decoder and a shape; :class:`Target` says which shape a model asks for, :func:`load_medium` makes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.types import Modality

if TYPE_CHECKING:
    from gas.media.jpeg import Scratch

__all__ = ["DEFAULT_SAMPLE_RATE", "Target", "load_medium"]

DEFAULT_SAMPLE_RATE: Final = 16_000
"""Hz at which a model hears when it doesn't say (submissions.md, section 1)."""


@dataclass(frozen=True, slots=True)
class Target:
    """What preprocessing must deliver for one model.

    Attributes:
        modality: Which decoder.
        shape: Shape of one sample: (3, H, W), (T, 3, H, W) or (samples,).
        dtype: ``"uint8"`` or ``"float32"``.
        rate: Frames a second at which a video is sampled, None for the first consecutive frames; Hz for sound, None for
            :data:`DEFAULT_SAMPLE_RATE`; None for images.
    """

    modality: Modality
    shape: tuple[int, ...]
    dtype: str
    rate: float | None = None

    @property
    def nbytes(self) -> int:
        """Size of one sample."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def load_medium(
    data: bytes,
    target: Target,
    *,
    robust: bool = False,
    limits: MediaLimits = DEFAULT_LIMITS,
    out: NDArray[np.generic] | None = None,
    scratch: Scratch | None = None,
) -> NDArray[np.generic]:
    """Decode and preprocess a medium (submissions.md, section 1).

    Args:
        data: Encoded medium of the target's modality; hostile until proven otherwise.
        target: What the model asks for.
        robust: Apply the sharing chain of the robustness pass between decoding and preprocessing.
        limits: What the medium may cost.
        out: Where the input is to go, of the target's shape and dtype; a new array when left out.
        scratch: Room for decoded pixels, of this thread; used when there is an ``out``.

    Returns:
        Array of the target's shape and dtype; ``out`` when that was given.

    Raises:
        MediaRejected: It can't be decoded within its limits.
    """
    if target.modality is Modality.IMAGE:
        found = _image(data, target, robust, limits, out, scratch)
    elif target.modality is Modality.VIDEO:
        found = _video(data, target, robust, limits, out)
    else:
        found = _sound(data, target, robust, limits)
    if out is None or found is out:
        return found
    np.copyto(out, found)
    return out


def _image(
    data: bytes,
    target: Target,
    robust: bool,
    limits: MediaLimits,
    out: NDArray[np.generic] | None,
    scratch: Scratch | None,
) -> NDArray[np.generic]:
    size = (target.shape[1], target.shape[2])
    if robust:
        from gas.media.image import decode_image, preprocess_image
        from gas.media.transforms import sharing_chain

        return preprocess_image(sharing_chain(decode_image(data, limits)), size)
    return _load_image()(data, size, limits, out, scratch)


@cache
def _load_image() -> Callable[..., NDArray[np.uint8]]:
    # Even the statement of an import that has been done costs what a hundredth of a picture does.
    from gas.media.image import load_image

    return load_image


def _video(
    data: bytes, target: Target, robust: bool, limits: MediaLimits, out: NDArray[np.generic] | None
) -> NDArray[np.generic]:
    from gas.media.transforms import sharing_chain_video
    from gas.media.video import decode_video, load_video, preprocess_video

    frames, size = target.shape[0], (target.shape[2], target.shape[3])
    if robust:
        return preprocess_video(sharing_chain_video(decode_video(data, frames, target.rate, limits)), size, frames)
    return load_video(data, size, frames, target.rate, limits, out)  # type: ignore[arg-type]


def _sound(data: bytes, target: Target, robust: bool, limits: MediaLimits) -> NDArray[np.generic]:
    from gas.media.audio import decode_audio, load_audio, preprocess_audio
    from gas.media.transforms import sharing_chain_audio

    rate = round(target.rate or DEFAULT_SAMPLE_RATE)
    seconds = target.shape[0] / rate
    if robust:
        mono, source_rate = decode_audio(data, limits)
        mono = sharing_chain_audio(mono, source_rate)
        return preprocess_audio(mono, source_rate, target_rate=rate, seconds=seconds)
    return load_audio(data, rate, seconds, limits)
