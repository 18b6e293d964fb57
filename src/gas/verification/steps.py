"""The steps of the judgement of one medium, cheapest first; each adds its reasons to a :class:`Case`.

A step that can't judge, because what it needs is not there after an earlier refusal, is recorded as skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from gas.errors import MediaRejected, Reason
from gas.media.detail import edge_steepness
from gas.media.hashing import pixel_key, thumbnail
from gas.media.image import sniff_mime
from gas.media.limits import MediaLimits
from gas.media.structure import check_parts
from gas.scoring.generators import TIERS, image_tier, video_tier
from gas.types import Modality
from gas.verification.base import Alignment, Asked, Embedder, VerificationRules
from gas.verification.decoding import Decoded, MediumDecoder
from gas.verification.duplicates import Match, MediaIndex, Seen
from gas.verification.prints import print_frames, print_picture, print_sound
from gas.verification.provenance import Credentials, TrustList

__all__ = ["Accept", "Aligned", "Case", "Copies", "Decode", "EmbeddingCopies", "Provenance", "Shape", "SizeAndType",
           "Skipped", "Step", "requested_tier"]  # fmt: skip

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


class Decode:
    """Whether all of it decodes, within the limits."""

    name = "decode"

    def __init__(self, decoder: MediumDecoder) -> None:
        self._decoder = decoder

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if any(reason.code in ("too_large", "wrong_modality", "undecodable") for reason in case.reasons):
            raise Skipped("its size or type is wrong")
        try:
            case.decoded = self._decoder.decode(case.data, case.asked.modality)
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
        modality, rules = case.asked.modality, self._rules
        tiers = TIERS[modality]
        width, height = case.decoded.size
        tier = 0
        if modality is not Modality.AUDIO:
            tier = image_tier(width, height) if modality is Modality.IMAGE else video_tier(width, height)
        wanted = requested_tier(modality, case.asked.parameters.get("resolution"))
        paid = tier if wanted is None else min(tier, wanted)
        case.facts |= {"tier": tiers[tier], "paid_tier": tiers[paid]}
        if wanted is not None:
            case.facts |= {"requested_tier": tiers[wanted], "tiers_below": max(0, wanted - tier)}
        if paid > 0:
            # Where a larger tier pays nothing, enlarging gains nothing.
            found = [edge_steepness(picture) for picture in case.decoded.pictures]
            steepness = max((value for value in found if value is not None), default=None)
            if steepness is not None:
                case.facts["edge_steepness"] = round(steepness, 4)
                if steepness < rules.min_edge_steepness:
                    case.refuse("upscaled", f"The medium claims {tiers[paid]} and holds the detail of a smaller one.")
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


class Provenance:
    """Content credentials: trusted, AI-made, by a named model, signed after the challenge and not in the future."""

    name = "provenance"

    def __init__(self, trust: TrustList, rules: VerificationRules) -> None:
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

    def __init__(self, index: MediaIndex, embedder: Embedder | None) -> None:
        self._index, self._embedder = index, embedder

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if case.decoded is None:
            raise Skipped("it could not be decoded")
        seen = case.seen = _seen(case, case.decoded, self._embedder)
        case.version = self._index.version
        _told(case, self._index.copy_of(seen))
        case.facts |= seen.as_facts()


class EmbeddingCopies:
    """Whether its embedding is nearly that of another medium."""

    name = "embedding"

    def __init__(self, index: MediaIndex) -> None:
        self._index = index

    def run(self, case: Case) -> None:
        """See :class:`Step`."""
        if case.seen is None or not len(case.seen.embedding):
            raise Skipped("there is no embedding of it")
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
        pictures, prompt = case.decoded.pictures, case.asked.prompt
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


def _seen(case: Case, decoded: Decoded, embedder: Embedder | None) -> Seen:
    asked = case.asked
    common = {"prompt": asked.prompt, "owner": asked.owner, "modality": asked.modality}
    if decoded.sound is not None:
        return Seen(case.sha256, words=print_sound(*decoded.sound), **common)  # type: ignore[arg-type]
    pictures = decoded.pictures
    frames = (print_picture(pictures[0]),) if asked.modality is Modality.IMAGE else print_frames(list(pictures))
    middle = pictures[len(pictures) // 2]
    return Seen(
        case.sha256,
        phash=int.from_bytes(frames[0].upright.tobytes(), "big"),
        pixels=f"{pixel_key(middle):016x}" if asked.modality is Modality.IMAGE else "",
        frames=frames,
        embedding=embedder.embed(thumbnail(middle, 256)) if embedder else np.zeros(0, np.float32),
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


def opened(data: bytes, asked: Asked) -> Case:
    """A new case."""
    facts: dict[str, object] = {"bytes": len(data), "mime": (mime := sniff_mime(data))}
    facts["seconds"] = round(asked.delivered_at - asked.created_at, 3)
    return Case(data, asked, digest(data), mime, facts=facts)
