"""A child process in which all native code meets a delivered medium: its decoders, and the parser of credentials.

:class:`Examiner` is a :class:`gas.media.guard.GuardedDecoder` whose children also measure what verification looks at
and check content credentials. Only measures come back, a few kilobytes, and are checked for their shape.

What is covered: what :mod:`gas.media.guard` covers, for the parser of credentials too. What is not: a child that an
attacker takes over answers what he likes, also that credentials are trusted. Children live for a thousand media;
``media_per_worker=1`` makes every medium answer for itself alone, at the price of a start each.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from gas.clock import Clock
from gas.errors import ConfigurationError, MediaRejected
from gas.media.detail import Detail
from gas.media.guard import GuardedDecoder
from gas.media.hashing import HASH_BITS, PLACINGS
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.segments import SEGMENT_BYTES, SEGMENTS, Segments
from gas.types import Modality
from gas.verification.decoding import Decoded
from gas.verification.prints import FRAME_TIMES, FramePrint
from gas.verification.provenance import REFUSALS, Credentials

__all__ = ["Examiner", "packed"]

_FRAMES: Final = 2 * len(FRAME_TIMES)
_KILLED: Final = frozenset({"decoder_crashed", "too_slow", "too_much_memory"})


class Examiner(GuardedDecoder):
    """A pool of examining processes; a context manager, and safe to be shared by threads.

    Args:
        anchors_pem: Trusted root certificates in PEM, see :func:`gas.verification.provenance.check_anchors`.
        limits: What a medium may cost.
        workers: How many media are examined at once; further callers wait.
        media_per_worker: After so many questions a child is replaced.
        clock: The machine's own when left out.

    Raises:
        ConfigurationError: The anchors hold zero bytes.
    """

    child: ClassVar[str] = "gas.verification.examiner_child"
    codes: ClassVar[frozenset[str]] = GuardedDecoder.codes | REFUSALS

    def __init__(
        self,
        anchors_pem: bytes,
        limits: MediaLimits = DEFAULT_LIMITS,
        workers: int = 1,
        media_per_worker: int = 2000,
        clock: Clock | None = None,
    ) -> None:
        if b"\0" in anchors_pem:
            raise ConfigurationError("The trust anchors are not certificates in PEM.", code="trust_anchors")
        super().__init__(limits, workers, media_per_worker, clock)
        self._setup |= {"anchors": anchors_pem.decode("ascii", "replace")}

    def decode(self, data: bytes, modality: Modality, *, look: int = 0, detail: bool = False) -> Decoded:
        """See :meth:`gas.verification.decoding.Decoder.decode`."""
        options: dict[str, object] = {"modality": modality.value, "look": look, "detail": detail}
        arrays, value = self._ask("examine", options, data, count=3 + _FRAMES)
        return _unpacked(arrays, value, modality, self._limits)

    def check(self, data: bytes, mime: str) -> Credentials:
        """As :meth:`gas.verification.provenance.TrustList.check`.

        Raises:
            MediaRejected: As there; ``unreadable_provenance`` when the parser crashed, hung or took too much memory.
            gas.errors.InfrastructureError: No child process can be started.
        """
        try:
            _, value = self._ask("check_provenance", {"mime": mime}, data, count=0)
        except MediaRejected as error:
            if error.error_code in _KILLED:
                raise MediaRejected(
                    "The content credentials can't be read: whoever tries crashes, or doesn't come to an end.",
                    code="unreadable_provenance",
                ) from error
            raise
        told: dict[str, Any] = {name: value.get(name) for name in ("issuer", "model", "source_type", "signed_at")}
        when = told["signed_at"]
        if any(not isinstance(told[name], str) for name in ("issuer", "model", "source_type")):
            raise _nonsense()
        if when is not None and not _number(when):
            raise _nonsense()
        return Credentials(**told)


def packed(decoded: Decoded) -> tuple[list[NDArray[Any]], dict[str, object]]:
    """A medium's measures as they go from the child to its parent: arrays, none of them empty, and JSON."""
    value: dict[str, object] = {
        "size": list(decoded.size),
        "pixels": decoded.pixels,
        "seconds": decoded.seconds,
        "frames": decoded.frames,
        "detail": [[one.scale, one.sure, one.rhythm, one.steepness, one.fall] for one in decoded.detail],
        "segments": [len(frame.segments) for frame in decoded.prints],
        "words": len(decoded.words),
    }
    if not decoded.prints:
        return [np.append(decoded.words, np.uint32(0)).astype("<u4").view(np.uint8)], value
    pieces = np.zeros((len(decoded.prints), SEGMENTS, SEGMENT_BYTES), np.uint8)
    places = np.zeros((len(decoded.prints), SEGMENTS, 4), np.float32)
    for at, frame in enumerate(decoded.prints):
        pieces[at, : len(frame.segments)], places[at, : len(frame.segments)] = (
            frame.segments.hashes,
            frame.segments.places,
        )
    return [np.stack([frame.hashes for frame in decoded.prints]), pieces, places, *decoded.pictures], value


def _unpacked(arrays: list[NDArray[Any]], value: dict[str, Any], modality: Modality, limits: MediaLimits) -> Decoded:
    """The reverse of :func:`packed`; believes nothing."""
    seconds, frames, pixels = value.get("seconds"), value.get("frames"), value.get("pixels")
    whole = (seconds is None or _number(seconds)) and (frames is None or type(frames) is int)
    if not whole or not isinstance(pixels, str) or len(pixels) not in (0, 16) or not set(pixels) <= _HEX or not arrays:
        raise _nonsense()
    common: dict[str, Any] = {"seconds": seconds, "frames": frames, "pixels": pixels}
    if modality is Modality.AUDIO:
        count = value.get("words")
        if arrays[0].dtype != np.uint8 or type(count) is not int or arrays[0].shape != (4 * (count + 1),):
            raise _nonsense()
        return Decoded(words=arrays[0].view("<u4")[:count].astype(np.uint32), **common)
    size, counts, detail = value.get("size"), value.get("segments"), value.get("detail")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise _nonsense()
    limits.check_size(*size)
    if not isinstance(counts, list) or not 1 <= len(counts) <= _FRAMES or len(arrays) < 3:
        raise _nonsense()
    if not all(type(count) is int and 0 <= count <= SEGMENTS for count in counts):
        raise _nonsense()
    hashes, pieces, places, *pictures = arrays
    wanted = ((len(PLACINGS), HASH_BITS // 8), (SEGMENTS, SEGMENT_BYTES), (SEGMENTS, 4))
    for array, dtype, shape in zip((hashes, pieces, places), (np.uint8, np.uint8, np.float32), wanted, strict=True):
        if array.dtype != dtype or array.shape != (len(counts), *shape):
            raise _nonsense()
    if not np.isfinite(places).all() or any(one.dtype != np.uint8 or one.shape[2:] != (3,) for one in pictures):
        raise _nonsense()
    if not isinstance(detail, list) or not all(_detail(one) for one in detail):
        raise _nonsense()
    return Decoded(
        size=(size[0], size[1]),
        prints=tuple(
            FramePrint(hashes[at], Segments(np.ascontiguousarray(pieces[at, :count]), places[at, :count].copy()))
            for at, count in enumerate(counts)
        ),
        detail=tuple(Detail(*one) for one in detail),
        pictures=tuple(pictures),
        **common,
    )


_HEX: Final = frozenset("0123456789abcdef")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _detail(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 5:
        return False
    scale, sure, beat, steepness, fall = value
    measured = all(map(_number, (scale, beat, fall))) and (steepness is None or _number(steepness))
    return measured and 0 < scale <= 1 and isinstance(sure, bool)


def _nonsense() -> MediaRejected:
    return MediaRejected("The medium makes its examiner answer nonsense.", code="decoder_crashed")
