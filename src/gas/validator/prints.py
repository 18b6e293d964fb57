"""Prints of accepted media, as validators show them to one another, and the proofs that make them count.

A validator's log is a list of entries, each committed to by a digest that also covers all entries before it. The
digest is shown at once, the entry some minutes later: whoever has shown a digest before we showed our own entry can't
have copied it. An entry carries the miner's own signature of the delivery (Epistula: body's SHA-256, UUID, time and
receiver), which no validator can make. Neither media nor prompts are in it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, ValidationError, model_validator

from gas.chain.keys import Signer, verify
from gas.errors import IntegrityError
from gas.protocol.epistula import Claim
from gas.types import Modality

if TYPE_CHECKING:
    from gas.media.segments import Segments
    from gas.verification.prints import Seen

__all__ = [
    "SOLD_ELSEWHERE",
    "Entry",
    "Item",
    "Page",
    "Proof",
    "digest_of",
    "hashes_of",
    "read_page",
    "signed_page",
]

SOLD_ELSEWHERE: Final = "sold_elsewhere"
"""Code of the reason of a medium that another validator accepted first."""

_HASH_DIGITS: Final = 64
_SEGMENTS: Final = 32
_PLACE_BYTES: Final = 8
_WORDS_DIGITS: Final = 28_800
"""Base64 of the words of a sound of two minutes, which is as long as one may be."""
_DOMAIN: Final = "gas-prints-v1"
_Hex64 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[1-9A-HJ-NP-Za-km-z]{1,64}$")]
_LogId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_Millis = Annotated[StrictInt, Field(ge=0, lt=10**15)]
_Sequence = Annotated[StrictInt, Field(ge=1, lt=2**53)]


_Cut = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$", max_length=1024)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Proof(_Model):
    """A miner's signature of one delivery.

    Attributes:
        uuid: Of the request.
        timestamp: Milliseconds since the epoch, as the miner wrote it.
        signature: 64 bytes in hex.
    """

    uuid: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F-]{36}$")]
    timestamp: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}$")]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

    @classmethod
    def of(cls, claim: Claim) -> Proof:
        """The proof in the headers of a delivery whose body has been proven."""
        return cls(uuid=claim.uuid, timestamp=claim.timestamp, signature=claim.signature.hex())

    @property
    def at_ms(self) -> int:
        """When the miner signed, by its own word; milliseconds since the epoch."""
        return int(self.timestamp)

    def holds(self, miner: str, sha256: str, validator: str) -> bool:
        """Whether this miner has signed these bytes for this validator."""
        message = f"{sha256}.{self.uuid}.{self.timestamp}.{validator}".encode()
        return verify(miner, message, bytes.fromhex(self.signature))


class Entry(_Model):
    """One accepted medium.

    Attributes:
        miner: Hotkey that delivered it.
        modality: What it is.
        sha256: Of its bytes.
        asked_ms: When its task was made, milliseconds since the epoch.
        delivered_ms: When it came.
        proof: The miner's signature of the delivery.
        hashes: 256-bit perceptual hashes in hex of the picture, or of a video's frames; none of a sound.
        words: Fingerprint of a sound, base64 of 32-bit words.
        cuts: Segments of the picture, or of each of a video's frames, by which crops and mirror images are known:
            base64 of n hashes of 16 bytes and n times four 16-bit floats, n at most 32; see
            :mod:`gas.media.segments`.
        nonce: Makes the digest say nothing before the entry is shown.
    """

    miner: _Name
    modality: Literal["image", "video", "audio"]
    sha256: _Hex64
    asked_ms: _Millis
    delivered_ms: _Millis
    proof: Proof
    hashes: Annotated[tuple[_Hex64, ...], Field(max_length=8)] = ()
    words: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$", max_length=_WORDS_DIGITS)] = ""
    cuts: Annotated[tuple[_Cut, ...], Field(max_length=8)] = ()
    nonce: _LogId

    @model_validator(mode="after")
    def _has_prints_of_its_kind(self) -> Entry:
        if self.hashes or self.cuts if self.modality == Modality.AUDIO.value else self.words:
            raise ValueError("a print of another modality")
        return self

    def seen(self) -> Seen:
        """As an index of copies knows it.

        Raises:
            IntegrityError: The words of a sound, or the segments, can't be read.
        """
        import numpy as np

        from gas.verification.prints import FramePrint, Seen

        packed = [np.frombuffer(bytes.fromhex(text), np.uint8).reshape(1, -1) for text in self.hashes]
        try:
            words = np.frombuffer(base64.b64decode(self.words, validate=True), np.dtype("<u4")).astype(np.uint32)
        except ValueError as error:
            raise IntegrityError("The fingerprint of a print can't be read.") from error
        cuts = [_segments(text) for text in self.cuts] or [_segments("")] * len(packed)
        if len(cuts) != len(packed) or (self.modality == "image" and len(packed) > 1):
            raise IntegrityError("A print has not as many hashes and segments as there are pictures.")
        return Seen(
            self.sha256,
            phash=int(self.hashes[0], 16) if self.hashes else 0,
            modality=Modality(self.modality),
            frames=tuple(FramePrint(one, cut) for one, cut in zip(packed, cuts, strict=True)),
            words=words,
        )


class Item(_Model):
    """A line of the log: the digest, and the entry once it may be shown.

    Attributes:
        seq: From 1 on, without gaps.
        at_ms: When it was written, milliseconds since the epoch.
        digest: See :func:`digest_of`.
        entry: None while it is sealed.
    """

    seq: _Sequence
    at_ms: _Millis
    digest: _Hex64
    entry: Entry | None = None


class Page(_Model):
    """Some lines of a validator's log, signed by it.

    Attributes:
        validator: Whose log.
        log: Its id; a validator that has lost its database begins a new one.
        after: The line before the first of these.
        previous: Digest of that line, where lines before it are not kept any more; else empty.
        items: In their order.
        signature: By the validator, over all the rest.
    """

    validator: _Name
    log: _LogId
    after: Annotated[StrictInt, Field(ge=0, lt=2**53)]
    previous: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")] = ""
    items: Annotated[tuple[Item, ...], Field(max_length=500)]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")] = "0" * 128


def digest_of(validator: str, log: str, seq: int, previous: str, entry: Entry) -> str:
    """Hex SHA-256 that commits to an entry, its place, and through ``previous`` to all before it ("" for the first)."""
    head = f"{_DOMAIN}.{validator}.{log}.{seq}.{previous}."
    shown = entry.model_dump(mode="json")
    if not entry.cuts:
        # As it was before entries had any.
        del shown["cuts"]
    return hashlib.sha256(head.encode() + _canonical(shown)).hexdigest()


def hashes_of(facts: Mapping[str, Any]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """From what verification measured: ``Entry.hashes``, ``Entry.words`` and ``Entry.cuts``."""
    if facts.get("modality") == Modality.AUDIO.value:
        return (), str(facts.get("words", "")), ()
    frames = [frame for frame in facts.get("frames", ()) if len(str(frame["phash"])) == _HASH_DIGITS]
    if not frames:
        phash = str(facts.get("phash", ""))
        return (phash,) if len(phash) == _HASH_DIGITS else (), "", ()
    return tuple(str(frame["phash"]) for frame in frames), "", tuple(_cut(frame) for frame in frames)


def signed_page(signer: Signer, log: str, after: int, items: Sequence[Item], previous: str = "") -> bytes:
    """A page in the form in which it is sent."""
    page = Page(validator=signer.ss58_address, log=log, after=after, previous=previous, items=tuple(items))
    signature = signer.sign(_signed_text(page)).hex()
    return _canonical(page.model_copy(update={"signature": signature}).model_dump(mode="json"))


def read_page(data: bytes, validator: str) -> Page:
    """A page that another validator has sent.

    Args:
        data: The answer's bytes; hostile.
        validator: Whose log was asked for.

    Raises:
        IntegrityError: ``bad_prints``: it is no page, has gaps, or that validator has not signed it.
    """
    try:
        page = Page.model_validate_json(data)
    except ValidationError:
        raise _bad("is no page") from None
    if page.validator != validator or not verify(validator, _signed_text(page), bytes.fromhex(page.signature)):
        raise _bad("is not signed by it")
    if [item.seq for item in page.items] != list(range(page.after + 1, page.after + 1 + len(page.items))):
        raise _bad("has gaps")
    return page


def _cut(frame: Mapping[str, Any]) -> str:
    hashes, places = (base64.b64decode(str(frame.get(name, ""))) for name in ("segments", "places"))
    return base64.b64encode(hashes + places).decode()


def _segments(text: str) -> Segments:
    """Segments of a print; hostile.

    Raises:
        IntegrityError: They can't be read.
    """
    import numpy as np

    from gas.media.segments import SEGMENT_BYTES, Segments

    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b"?"
    count, rest = divmod(len(data), SEGMENT_BYTES + _PLACE_BYTES)
    hashes = np.frombuffer(data[: count * SEGMENT_BYTES], np.uint8).reshape(-1, SEGMENT_BYTES)
    places = np.frombuffer(data[len(hashes) * SEGMENT_BYTES :] if not rest else b"", np.dtype("<f2"))
    if rest or count > _SEGMENTS or not np.isfinite(places).all():
        raise IntegrityError("The segments of a print can't be read.")
    return Segments(hashes, places.astype(np.float32).reshape(-1, 4))


def _signed_text(page: Page) -> bytes:
    rest = page.model_dump(mode="json", exclude={"signature"})
    return f"{_DOMAIN}.{hashlib.sha256(_canonical(rest)).hexdigest()}".encode()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _bad(what: str) -> IntegrityError:
    return IntegrityError(f"What a validator sent as its prints {what}.", code="bad_prints")
