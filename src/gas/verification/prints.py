"""What is kept of a medium to know its copies again, and its JSON form."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.errors import IntegrityError
from gas.media.hashing import HASH_BITS, placed_hashes, thumbnail
from gas.media.image import RGB
from gas.media.jpeg import Scratch
from gas.media.segments import SEGMENT_BYTES, Segments, find_segments
from gas.media.soundprint import sound_words
from gas.types import Modality

__all__ = ["FRAME_TIMES", "FramePrint", "Seen", "print_frames", "print_picture", "print_sound"]

FRAME_TIMES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Where in a video frames are taken, as shares of its length."""

_SIDE: Final = 128
_FLAT: Final = 4.0
_NO_WORDS: Final = np.zeros(0, np.uint32)


@dataclass(frozen=True, slots=True)
class FramePrint:
    """Hashes of one picture or of one frame of a video.

    Attributes:
        hashes: uint8, (8, 32) with all placings, or (1, 32) with the upright one only; see
            :func:`gas.media.hashing.placed_hashes`.
        segments: See :mod:`gas.media.segments`.
    """

    hashes: NDArray[np.uint8]
    segments: Segments

    @property
    def upright(self) -> NDArray[np.uint8]:
        """The 256-bit hash, (32,)."""
        upright: NDArray[np.uint8] = self.hashes[0]
        return upright


@dataclass(frozen=True, slots=True)
class Seen:
    """A medium as the index of copies knows it.

    Attributes:
        sha256: Hex SHA-256 of its bytes.
        phash: Its 256-bit perceptual hash as an integer; of a video the first kept frame's, of a sound 0.
        pixels: Hex key of its pixels, see :func:`gas.media.hashing.pixel_key`; empty when it isn't known.
        prompt: What it was made for; within one prompt copies are looked for further.
        owner: Whose it is; to look at one's own delivery again is no copying. Empty for none.
        modality: Image, video or audio.
        frames: Prints of the picture, or of a video's frames at :data:`FRAME_TIMES`; without them only ``phash``
            is compared.
        words: Fingerprint of the sound, see :func:`gas.media.soundprint.sound_words`.
        embedding: float32, (d,), of length 1; empty for none.
    """

    sha256: str
    phash: int = 0
    pixels: str = ""
    prompt: str = ""
    owner: str = ""
    modality: Modality = Modality.IMAGE
    frames: tuple[FramePrint, ...] = ()
    words: NDArray[np.uint32] = field(default_factory=lambda: _NO_WORDS, compare=False)
    embedding: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32), compare=False)

    def prints(self) -> tuple[FramePrint, ...]:
        """``frames``, or one made of ``phash`` alone; none for a sound."""
        if self.frames or self.modality is Modality.AUDIO:
            return self.frames
        packed = np.frombuffer(self.phash.to_bytes(HASH_BITS // 8, "big"), np.uint8)
        return (FramePrint(packed[None], _no_segments()),)

    def as_facts(self) -> dict[str, object]:
        """JSON form; all that is needed to build the index again."""
        facts: dict[str, object] = {"modality": self.modality.value, "prompt": self.prompt, "owner": self.owner}
        if self.pixels:
            facts["pixels"] = self.pixels
        if self.modality is not Modality.AUDIO:
            facts["phash"] = f"{self.phash:064x}"
        if self.frames:
            facts["frames"] = [
                {
                    "phash": frame.upright.tobytes().hex(),
                    "segments": _text(frame.segments.hashes),
                    "places": _text(frame.segments.places.astype("<f2")),
                }
                for frame in self.frames
            ]
        if len(self.words):
            facts["words"] = _text(self.words.astype("<u4"))
        if len(self.embedding):
            facts["embedding"] = _text(self.embedding.astype("<f2"))
        return facts

    @classmethod
    def from_facts(cls, sha256: str, facts: Mapping[str, Any]) -> Seen:
        """The medium whose facts were kept.

        Raises:
            IntegrityError: They are not what :meth:`as_facts` made.
        """
        try:
            frames = tuple(
                FramePrint(
                    np.frombuffer(bytes.fromhex(frame["phash"]), np.uint8).reshape(1, HASH_BITS // 8),
                    Segments(
                        _array(frame["segments"], np.dtype(np.uint8)).reshape(-1, SEGMENT_BYTES),
                        _array(frame["places"], np.dtype("<f2")).astype(np.float32).reshape(-1, 4),
                    ),
                )
                for frame in facts.get("frames", ())
            )
            return cls(
                sha256=sha256,
                phash=int(facts.get("phash") or "0", 16),
                pixels=str(facts.get("pixels", "")),
                prompt=str(facts.get("prompt", "")),
                owner=str(facts.get("owner", "")),
                modality=Modality(facts.get("modality", Modality.IMAGE)),
                frames=frames,
                words=_array(facts.get("words", ""), np.dtype("<u4")).astype(np.uint32),
                embedding=_array(facts.get("embedding", ""), np.dtype("<f2")).astype(np.float32),
            )
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise IntegrityError(f"The facts of the medium {sha256[:16]} can't be read.") from error


def print_picture(rgb: RGB, scratch: Scratch | None = None) -> FramePrint:
    """Hashes of a picture: of its brightness, averaged over areas to a smaller side of 128 pixels.

    Args:
        rgb: uint8, (h, w, 3).
        scratch: Room for its brightness; nothing of it is needed any more afterwards.
    """
    return _printed(_small(rgb, scratch))


def print_frames(frames: list[RGB]) -> tuple[FramePrint, ...]:
    """Hashes of a video's frames at :data:`FRAME_TIMES`.

    Frames of one colour are left out, which all videos share that fade in or out, unless there are no others.
    """
    small = [_small(frame) for frame in frames]
    telling = [picture for picture in small if float(picture.std()) >= _FLAT] or small
    return tuple(_printed(picture) for picture in telling)


def print_sound(mono: NDArray[np.float32], rate: int) -> NDArray[np.uint32]:
    """Fingerprint of a sound, see :func:`gas.media.soundprint.sound_words`."""
    return sound_words(mono, rate)


def _small(rgb: RGB, scratch: Scratch | None = None) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    room = scratch.room(height * width) if scratch is not None else None
    grey = None if room is None else room[: height * width].reshape(height, width)
    return thumbnail(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY, grey), np.uint8), _SIDE)


def _printed(grey: NDArray[np.uint8]) -> FramePrint:
    return FramePrint(placed_hashes(grey), find_segments(grey))


def _no_segments() -> Segments:
    return Segments(np.zeros((0, SEGMENT_BYTES), np.uint8), np.zeros((0, 4), np.float32))


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _array(text: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(text), dtype)
