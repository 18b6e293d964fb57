"""The words in which prompts are told apart: registers, length bands."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from gas.types import Modality

__all__ = ["REGISTERS", "LengthBand", "Register", "band_of", "register_of"]


class Register(StrEnum):
    """In whose manner a medium is made: by what device, for whom."""

    PHONE_VIDEO = "phone_video"
    PHONE_PHOTO = "phone_photo"
    CCTV = "cctv"
    DASH_CAM = "dash_cam"
    BODY_CAM = "body_cam"
    NEWS = "news"
    DRONE = "drone"
    WEBCAM = "webcam"
    SCREEN_RECORDING = "screen_recording"
    STUDIO = "studio"
    DOCUMENTARY = "documentary"
    PRODUCT = "product"
    SOCIAL = "social"
    ARCHIVE = "archive"
    WILDLIFE = "wildlife"
    INTERVIEW = "interview"
    PHONE_CALL = "phone_call"
    VOICE_MESSAGE = "voice_message"
    PODCAST = "podcast"
    RADIO = "radio"
    AUDIOBOOK = "audiobook"
    ANNOUNCEMENT = "announcement"
    OTHER = "other"


_R = Register
REGISTERS: Final[dict[Modality, tuple[Register, ...]]] = {
    Modality.IMAGE: (
        _R.PHONE_PHOTO, _R.CCTV, _R.DASH_CAM, _R.BODY_CAM, _R.NEWS, _R.DRONE, _R.WEBCAM, _R.SCREEN_RECORDING, _R.STUDIO,
        _R.DOCUMENTARY, _R.PRODUCT, _R.SOCIAL, _R.ARCHIVE, _R.WILDLIFE,
    ),
    Modality.VIDEO: (
        _R.PHONE_VIDEO, _R.CCTV, _R.DASH_CAM, _R.BODY_CAM, _R.NEWS, _R.DRONE, _R.WEBCAM, _R.SCREEN_RECORDING, _R.STUDIO,
        _R.DOCUMENTARY, _R.SOCIAL, _R.ARCHIVE, _R.WILDLIFE,
    ),
    Modality.AUDIO: (
        _R.NEWS, _R.INTERVIEW, _R.PHONE_CALL, _R.VOICE_MESSAGE, _R.PODCAST, _R.RADIO, _R.AUDIOBOOK, _R.ANNOUNCEMENT,
        _R.DOCUMENTARY, _R.STUDIO,
    ),
}  # fmt: skip
"""The registers that prompts of a modality are composed in."""

_SIGNS: Final[dict[Register, tuple[str, ...]]] = {
    _R.CCTV: ("cctv", "security camera", "surveillance"),
    _R.DASH_CAM: ("dash cam", "dashcam", "dashboard camera"),
    _R.BODY_CAM: ("body cam", "bodycam", "body-worn", "helmet camera", "action camera"),
    _R.DRONE: ("drone", "aerial"),
    _R.WEBCAM: ("webcam", "video call", "laptop camera"),
    _R.SCREEN_RECORDING: ("screen recording", "screenshot", "screen capture", "screencast"),
    _R.NEWS: ("news", "press photo", "reporter", "headline"),
    _R.PHONE_CALL: ("phone call", "on the phone", "telephone"),
    _R.VOICE_MESSAGE: ("voice message", "voice note", "voicemail"),
    _R.PODCAST: ("podcast",),
    _R.RADIO: ("radio",),
    _R.AUDIOBOOK: ("audiobook", "reading aloud", "narrator"),
    _R.ANNOUNCEMENT: ("announcement", "loudspeaker", "public address"),
    _R.INTERVIEW: ("interview",),
    _R.WILDLIFE: ("wildlife", "trail camera", "camera trap"),
    _R.ARCHIVE: ("archive", "vintage", "home movie", "polaroid", "old photograph", "1950s", "1970s", "vhs"),
    _R.DOCUMENTARY: ("documentary",),
    _R.PRODUCT: ("product",),
    _R.STUDIO: ("studio",),
    _R.SOCIAL: ("selfie", "vlog", "vertical clip", "story post"),
    _R.PHONE_VIDEO: ("phone video", "phone footage", "phone clip", "handheld video", "shaky video"),
    _R.PHONE_PHOTO: ("phone photo", "phone snapshot", "smartphone", "snapshot"),
}


def register_of(text: str) -> Register:
    """The register that a text speaks of by itself; :attr:`Register.OTHER` when it doesn't say."""
    lower = text[:4096].lower()
    for register, signs in _SIGNS.items():
        if any(sign in lower for sign in signs):
            return register
    return Register.OTHER


class LengthBand(StrEnum):
    """How long a prompt is, by its words: short up to 12, medium up to 28, long up to 60, huge above."""

    NONE = "none"
    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"
    HUGE = "huge"


_ENDS: Final = ((0, LengthBand.NONE), (12, LengthBand.SHORT), (28, LengthBand.MEDIUM), (60, LengthBand.LONG))


def band_of(text: str) -> LengthBand:
    """The length band of a text."""
    count = len(text.split())
    return next((band for end, band in _ENDS if count <= end), LengthBand.HUGE)
