"""The steps of the judgement of one medium, cheapest first; each adds its reasons to a :class:`Case`.

A step that can't judge, because what it needs is not there after an earlier refusal, is recorded as skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from gas.errors import MediaRejected, Reason
from gas.media.detail import Detail
from gas.media.hashing import pixel_key, thumbnail
from gas.media.image import RGB, decode_image, sniff_mime
from gas.media.limits import MediaLimits
from gas.media.masks import decode_mask
from gas.media.structure import check_parts
from gas.scoring.generators import TIERS, image_tier, video_tier
from gas.types import Modality
from gas.verification.base import Alignment, Asked, Embedder, VerificationRules
from gas.verification.decoding import Decoded, Decoder
from gas.verification.duplicates import Match, MediaIndex, Seen
from gas.verification.edits import inner_box, measure_edit
from gas.verification.prints import print_picture
from gas.verification.provenance import Credentials

__all__ = ["LOOKED_AT", "Accept", "Aligned", "Case", "Copies", "Decode", "Edited", "EmbeddingCopies", "Provenance",
           "Shape", "SizeAndType", "Skipped", "Step", "Trust", "requested_tier"]  # fmt: skip

LOOKED_AT: Final = 448
"""Smaller side of the pictures that alignment models and embedders get, pixels; none takes more than 336."""

_WHOLE: Final = 2**20
_EMBEDDED: Final = 256

# No GIF, whose frames the parser of credentials walks through one by one for seconds, and no BMP, which carries none.
_TYPES: Final = {
    Modality.IMAGE: frozenset({"image/jpeg", "image/png", "image/webp"}),
    Modality.VIDEO: frozenset({"video/mp4", "video/webm", "video/x-msvideo"}),
    Modality.AUDIO: frozenset({"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "audio/mp4"}),
}
_WHAT: Final = {Modality.IMAGE: "A picture", Modality.VIDEO: "A video", Modality.AUDIO: "A sound"}
_OWN_WORDS: Final = {
    "pixels": "The network has seen these pixels before.",
    "bytes": "The network has seen this medium before.",
}


class Skipped(Exception):
    """The step can't judge; says why."""


@dataclass(slots=True)
class Case:
    """One medium under judgement.

    Attributes:
        data: Its bytes; hostile.
        asked: What was asked for.
        sha256: Hex digest of the bytes.
        mime: By the first bytes.
        reasons: Against it so far.
        facts: Measured so far, plain JSON.
        decoded: Once it is.
        credentials: Once they are trusted.
        region: What is new in a changed picture, which is what copies of it and its prompt go by; None for others.
        seen: What the index will keep of it.
        version: Of the index when copies were last looked for.
    """

    data: bytes
    asked: Asked
    sha256: str = ""
    mime: str | None = None
    reasons: list[Reason] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    decoded: Decoded | None = None
    credentials: Credentials | None = None
    region: RGB | None = None
    seen: Seen | None = None
    version: int = -1

    def refuse(self, code: str, message: str) -> None:
        """Add a reason."""
        self.reasons.append(Reason(code, message))


class Step(Protocol):
    """One step."""

    name: str

    def run(self, case: Case) -> None:
        """Judge.

        Raises:
            Skipped: It can't.
            MediaRejected: Becomes a reason.
        """
        ...


class SizeAndType:
    """In time, of a size that may be looked at, and of the right type by the first bytes."""

    name = "size_and_type"

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        asked = case.asked
        if not asked.created_at <= asked.delivered_at <= asked.deadline:
            case.refuse("stale", f"The medium came {asked.delivered_at - asked.deadline:.1f} s after its deadline.")
        self._limits.check_bytes(len(case.data))
        if case.mime is None:
            raise MediaRejected("The medium is of no type that the network knows.", code="undecodable")
        if case.mime not in _TYPES[asked.modality]:
            raise MediaRejected(
                f"{_WHAT[asked.modality]} was asked for ({', '.join(sorted(_TYPES[asked.modality]))}), and the medium "
                f"is {case.mime}.",
                code="wrong_modality",
            )
        check_parts(case.data)


class Trust(Protocol):
    """Checks content credentials."""

    def check(self, data: bytes, mime: str) -> Credentials:
        """See :meth:`gas.verification.provenance.TrustList.check`."""
        ...


class Decode:
    """Whether all of it decodes, within the limits.

    Args:
        decoder: Decodes and measures.
        look: Smaller side of the pictures that later steps look at, pixels; 0 when none does.
    """

    name = "decode"

    def __init__(self, decoder: Decoder, look: int = 0) -> None:
        self._decoder, self._look = decoder, look

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if any(reason.code in ("too_large", "wrong_modality", "undecodable") for reason in case.reasons):
            raise Skipped("its size or type is wrong")
        try:
            modality = case.asked.modality
            # Where a larger tier pays nothing, enlarging gains nothing; a changed picture has its source's size.
            edit = case.asked.edit is not None
            detail = not edit and requested_tier(modality, case.asked.parameters.get("resolution")) != 0
            look = _WHOLE if edit else self._look
            case.decoded = self._decoder.decode(case.data, modality, look=look, detail=detail)
        except MediaRejected as error:
            code = "undecodable" if error.error_code == "unsupported" else error.error_code
            raise MediaRejected(error.message, code=code) from error
        width, height = case.decoded.size
        if width:
            case.facts |= {"width": width, "height": height}
        if case.decoded.seconds is not None:
            case.facts["length_seconds"] = round(case.decoded.seconds, 3)
        if case.decoded.frames is not None:
            case.facts["frame_count"] = case.decoded.frames


class Shape:
    """Tier and duration: what is paid, and whether it is what it claims."""

    name = "shape"

    def __init__(self, rules: VerificationRules) -> None:
        self._rules = rules

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if case.decoded is None:
            raise Skipped("it could not be decoded")
        modality = case.asked.modality
        tiers = TIERS[modality]
        # Of a video the most detailed frame speaks for all.
        detail = max(case.decoded.detail, key=lambda one: one.scale, default=Detail())
        claimed = _tier(modality, case.decoded.size, 1.0)
        tier = min(claimed, _tier(modality, case.decoded.size, detail.scale))
        wanted = requested_tier(modality, case.asked.parameters.get("resolution"))
        paid = tier if wanted is None else min(tier, wanted)
        case.facts |= {"tier": tiers[tier], "paid_tier": tiers[paid]}
        if wanted is not None:
            case.facts |= {"requested_tier": tiers[wanted], "tiers_below": max(0, wanted - tier)}
        if case.decoded.detail:
            case.facts |= {"detail": detail.scale, "rhythm": detail.rhythm, "edge_steepness": detail.steepness}
        gained = claimed if wanted is None else min(claimed, wanted)
        # Videos were not measured enough for more than a lower tier.
        if paid < gained and detail.sure and modality is Modality.IMAGE:
            case.refuse("upscaled", f"The medium was enlarged to {tiers[claimed]}; it is {tiers[tier]} at most.")
        self._duration(case, case.decoded)

    def _duration(self, case: Case, decoded: Decoded) -> None:
        if decoded.seconds is None:
            return
        rules, seconds = self._rules, decoded.seconds
        if seconds < rules.min_seconds or (decoded.frames is not None and decoded.frames < rules.min_frames):
            case.refuse("wrong_duration", f"{seconds:.2f} s are too short; {rules.min_seconds:g} s are the least.")
        asked = case.asked.parameters.get("duration")
        if not isinstance(asked, (int, float)) or isinstance(asked, bool) or asked <= 0:
            return
        if not asked / rules.duration_ratio <= seconds <= asked * rules.duration_ratio:
            case.refuse("wrong_duration", f"{asked:g} s were asked for, and the medium has {seconds:.2f} s.")


class Edited:
    """Whether a picture that was sent along was changed where it was asked for, and nowhere else."""

    name = "edit"

    def run(self, case: Case) -> None:
        """See :class:`Step`; what is new goes into the case's ``region``."""
        edit = case.asked.edit
        if edit is None:
            raise Skipped("nothing was sent along to be changed")
        if case.decoded is None or not case.decoded.pictures:
            raise Skipped("it could not be decoded")
        picture, source, mask = case.decoded.pictures[0], decode_image(edit.source), decode_mask(edit.mask)
        if picture.shape != source.shape:
            height, width = source.shape[:2]
            raise MediaRejected(
                f"The picture that was sent along has {width}x{height} pixels, and this one {picture.shape[1]}x"
                f"{picture.shape[0]}.",
                code="wrong_size",
            )
        found = measure_edit(source, picture, mask)
        case.facts["edit"] = found.as_dict()
        if found.unchanged_inside:
            case.refuse("not_changed", "Inside the mask the picture is still the one that was sent along.")
        if found.changed_outside:
            case.refuse("changed_outside", "The picture was changed outside the mask too.")
        top, left, bottom, right = inner_box(mask)
        case.region = np.ascontiguousarray(picture[top:bottom, left:right])


class Provenance:
    """Content credentials: trusted, AI-made, by a named model, signed after the challenge and not in the future."""

    name = "provenance"

    def __init__(self, trust: Trust, rules: VerificationRules) -> None:
        self._trust, self._rules = trust, rules

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        unfit = any(reason.code == "too_large" for reason in case.reasons) or not case.data
        if case.mime is None or case.mime not in _TYPES[case.asked.modality] or unfit:
            # What no parser should see has no credentials that anybody could check.
            raise MediaRejected("The medium carries no content credentials that can be read.", code="no_provenance")
        found = case.credentials = self._trust.check(case.data, case.mime)
        case.facts |= {"issuer": found.issuer, "model": found.model, "source_type": found.source_type}
        case.facts["signed_at"] = found.signed_at
        if not found.model:
            case.refuse("no_model_name", "The content credentials don't name the model that made the medium.")
        skew = self._rules.clock_skew
        if found.signed_at is None:
            if self._rules.need_signing_time:
                case.refuse("no_signing_time", "The content credentials don't say when they were made.")
        elif found.signed_at < case.asked.created_at - skew:
            early = case.asked.created_at - found.signed_at
            case.refuse("signed_too_early", f"The medium was signed {early:.0f} s before it was asked for.")
        elif found.signed_at > case.asked.delivered_at + skew:
            late = found.signed_at - case.asked.delivered_at
            case.refuse("signed_in_future", f"The medium says that it was signed {late:.0f} s after it came.")


class Copies:
    """Whether the network has seen it, or something very like it."""

    name = "copies"

    def __init__(self, index: MediaIndex) -> None:
        self._index = index

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if case.decoded is None:
            raise Skipped("it could not be decoded")
        seen = case.seen = _seen(case, case.decoded)
        case.version = self._index.version
        _told(case, self._index.copy_of(seen))
        case.facts |= seen.as_facts()


class EmbeddingCopies:
    """Whether its embedding is nearly that of another medium."""

    name = "embedding"

    def __init__(self, index: MediaIndex, embedder: Embedder | None = None) -> None:
        self._index, self._embedder = index, embedder

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if self._embedder is None or case.seen is None or case.decoded is None or not case.decoded.pictures:
            raise Skipped("there is no embedding of it")
        if case.reasons:
            raise Skipped("it is refused already")
        pictures = case.decoded.pictures if case.region is None else (case.region,)
        vector = self._embedder.embed(thumbnail(pictures[len(pictures) // 2], _EMBEDDED))
        case.seen = replace(case.seen, embedding=vector)
        case.facts |= case.seen.as_facts()
        _told(case, self._index.alike(case.seen))


class Aligned:
    """Whether it shows what was asked for, by the consensus of some models: more than half of them must agree."""

    name = "alignment"

    def __init__(self, models: Sequence[Alignment]) -> None:
        self._models = tuple(models)

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if not self._models or not case.asked.prompt:
            raise Skipped("there is no model, or no prompt, to compare it with")
        if case.decoded is None or not case.decoded.pictures:
            raise Skipped("there is no picture to look at")
        if case.reasons:
            raise Skipped("it is refused already")
        pictures = case.decoded.pictures if case.region is None else (case.region,)
        prompt = case.asked.prompt
        scores = {
            model.name: float(np.mean([model.score_pixels(picture, prompt) for picture in pictures]))
            for model in self._models
        }
        case.facts["alignment"] = {name: round(score, 5) for name, score in scores.items()}
        agree = sum(scores[model.name] >= model.threshold for model in self._models)
        if 2 * agree <= len(self._models):
            case.refuse("not_aligned", "The medium doesn't show what its prompt asked for.")


class Accept:
    """Takes its place in the index, unless a copy came in meanwhile."""

    name = "accept"

    def __init__(self, index: MediaIndex) -> None:
        self._index = index

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if case.reasons or case.seen is None:
            # Only what is in order may take its place, or a thief could claim another's picture.
            raise Skipped("it is refused")
        _told(case, self._index.claim(case.seen, since=case.version))


def _tier(modality: Modality, size: tuple[int, int], scale: float) -> int:
    """Index of the tier of a picture or video that is shrunk by ``scale``."""
    if modality is Modality.AUDIO:
        return 0
    width, height = (round(side * scale) for side in size)
    return image_tier(width, height) if modality is Modality.IMAGE else video_tier(width, height)


def requested_tier(modality: Modality, resolution: object) -> int | None:
    """The tier that a task's ``resolution`` names, as an index into its modality's tiers; None when it names none.

    A number of pixels is taken as the smaller side of a square picture, or of a video of 16 to 9.
    """
    if isinstance(resolution, bool) or modality is Modality.AUDIO:
        return None
    if isinstance(resolution, str):
        names = [name.lower() for name in TIERS[modality]]
        return names.index(resolution.lower()) if resolution.lower() in names else None
    if isinstance(resolution, int) and 0 < resolution < 2**20:
        if modality is Modality.IMAGE:
            return image_tier(resolution, resolution)
        return video_tier(round(resolution * 16 / 9), resolution)
    return None


def _seen(case: Case, decoded: Decoded) -> Seen:
    asked = case.asked
    common = {"prompt": asked.prompt, "owner": asked.owner, "modality": asked.modality}
    if not decoded.prints:
        return Seen(case.sha256, words=decoded.words, **common)  # type: ignore[arg-type]
    frames, pixels = decoded.prints, decoded.pixels
    if case.region is not None:
        frames, pixels = (print_picture(case.region),), f"{pixel_key(case.region):016x}"
    return Seen(
        case.sha256,
        phash=int.from_bytes(frames[0].upright.tobytes(), "big"),
        pixels=pixels,
        frames=frames,
        **common,  # type: ignore[arg-type]
    )


def _told(case: Case, match: Match | None) -> None:
    if match is None:
        return
    case.facts |= {"duplicate_of": match.sha256, "distance": match.distance, "duplicate_kind": match.kind}
    if match.placing != "upright":
        case.facts["placing"] = match.placing
    if match.agreeing:
        case.facts["agreeing"] = match.agreeing
    if match.exact:
        case.refuse("duplicate", _OWN_WORDS[match.kind])
        return
    how = {
        "segments": f"{match.agreeing} of its parts lie in that one as they do here",
        "sound": f"{match.distance} of 256 bits of their fingerprints differ",
        "embedding": "they mean the same to the network's model",
    }.get(match.kind, f"{match.distance} of 256 bits differ, laid down {match.placing}")
    case.refuse("near_duplicate", f"The medium is nearly one that the network has seen before ({how}).")


def digest(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def opened(data: bytes, asked: Asked, sha256: str = "") -> Case:
    """A new case; ``sha256`` where it is known already."""
    facts: dict[str, object] = {"bytes": len(data), "mime": (mime := sniff_mime(data))}
    facts["seconds"] = round(asked.delivered_at - asked.created_at, 3)
    return Case(data, asked, sha256 or digest(data), mime, facts=facts)
