"""What a medium is, by its bytes, and whether it can be decoded at all: the gate into a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gas.errors import MediaRejected
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.types import Modality

if TYPE_CHECKING:
    from gas.media.guard import GuardedDecoder

__all__ = ["Probed", "check_mask", "probe"]


@dataclass(frozen=True, slots=True)
class Probed:
    """What a data set's row says about a medium's form.

    Attributes:
        mime: Content type by its bytes.
        width: Pixels as displayed; None for sound.
        height: Pixels as displayed; None for sound.
        seconds: Length of a video or a sound, as the file says; None for pictures and where it doesn't say.
        rate: Frames a second of a video, Hz of a sound; None for pictures.
        codec: Of the stream.
    """

    mime: str
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    rate: float | None = None
    codec: str = ""


_TARGET: Final = (64, 64)
_SOUND_IN_VIDEO: Final = frozenset({"video/mp4", "video/webm"})


def probe(
    data: bytes, modality: Modality, limits: MediaLimits = DEFAULT_LIMITS, guard: GuardedDecoder | None = None
) -> Probed:
    """Look at a medium, and decode enough of it to know that it can be decoded.

    A picture is decoded whole, of a video the first frame, of a sound six seconds from its centre.

    Args:
        data: As published.
        modality: What it should be.
        limits: What it may cost.
        guard: Decodes in a process of its own, for media of strangers; in this one when left out.

    Raises:
        MediaRejected: ``empty``; ``unsupported`` (not of a known format); ``wrong_modality`` (a good format, but of
            another kind than the data set's); ``undecodable``, ``too_large`` and what else the decoders say.
    """
    from gas.media.image import sniff_mime
    from gas.media.probe import probe_medium

    if not data:
        raise MediaRejected("The medium has 0 bytes.", code="empty")
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime is None:
        raise MediaRejected(f"This is no {modality} of a known format.", code="unsupported")
    kind = mime.partition("/")[0]
    if kind != modality and not (modality is Modality.AUDIO and mime in _SOUND_IN_VIDEO):
        raise MediaRejected(f"This is {_a(kind)} ({mime}) in a data set of {modality}.", code="wrong_modality")
    if guard is None:
        info = probe_medium(data, modality, limits)
        _decode(data, modality, limits)
    else:
        info = guard.probe_medium(data, modality)
        _decode_guarded(data, modality, guard)
    return Probed(info.mime, info.width, info.height, info.seconds, info.rate, info.codec or "")


def check_mask(mask: bytes, modality: Modality, size: tuple[int | None, int | None], limits: MediaLimits) -> None:
    """Refuse a mask that doesn't belong to its medium.

    Args:
        mask: PNG; for video a zip of one PNG a frame, whose frames are looked at when they are used.
        modality: Of the medium.
        size: Width and height of the medium, pixels.
        limits: What it may cost.

    Raises:
        MediaRejected: ``mask_broken`` or ``mask_size``.
    """
    from gas.media.image import probe_image, sniff_mime

    if modality is not Modality.IMAGE:
        if not mask.startswith((b"PK\x03\x04", b"\x89PNG")):
            raise MediaRejected("The mask is neither a PNG nor a zip of them.", code="mask_broken")
        return
    if sniff_mime(mask) != "image/png":
        raise MediaRejected("The mask is not a PNG.", code="mask_broken")
    try:
        found = probe_image(mask, limits)
    except MediaRejected as error:
        raise MediaRejected(f"The mask is broken: {error.message}", code="mask_broken") from error
    if found != size:
        raise MediaRejected(
            f"The mask has {found[0]} x {found[1]} pixels, its medium {size[0]} x {size[1]}.", code="mask_size"
        )


def _decode(data: bytes, modality: Modality, limits: MediaLimits) -> None:
    if modality is Modality.IMAGE:
        from gas.media.image import decode_image

        decode_image(data, limits)
    elif modality is Modality.VIDEO:
        from gas.media.video import decode_video

        decode_video(data, 1, None, limits)
    else:
        from gas.media.audio import load_audio

        load_audio(data, limits=limits)


def _decode_guarded(data: bytes, modality: Modality, guard: GuardedDecoder) -> None:
    # A small target, because what comes out crosses a pipe only to be thrown away.
    if modality is Modality.IMAGE:
        guard.load_image(data, _TARGET)
    elif modality is Modality.VIDEO:
        guard.load_video(data, _TARGET, 1)
    else:
        guard.load_audio(data)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
