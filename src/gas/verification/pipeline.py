"""The judgement of one delivered medium: every reason against it, not only the first.

Codes: ``too_large``, ``undecodable``, ``wrong_modality``, ``stale``, ``no_provenance``, ``untrusted_provenance``,
``not_ai_declared``, ``duplicate``, ``near_duplicate``. Whether the medium shows what its prompt asked for is not
judged here.
"""

from __future__ import annotations

import hashlib

from gas.errors import ConfigurationError, MediaRejected, Reason
from gas.media.hashing import perceptual_hash, pixel_sha256
from gas.media.image import RGB, decode_image, sniff_mime
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.types import Modality
from gas.verification.base import Verdict
from gas.verification.duplicates import DuplicateIndex, Seen
from gas.verification.provenance import Credentials, check_provenance

__all__ = ["verify_medium"]


def verify_medium(
    data: bytes,
    *,
    modality: Modality,
    created_at: float,
    deadline: float,
    delivered_at: float,
    index: DuplicateIndex,
    anchors_pem: bytes,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Verdict:
    """Judge a picture that a generator delivered.

    The picture is decoded once. A verified picture has entered the index when this returns; a refused one has not.

    Args:
        data: Its bytes; hostile until proven otherwise.
        modality: What was asked for.
        created_at: When the task was made, seconds since the epoch.
        deadline: Until when it had to be delivered, seconds since the epoch.
        delivered_at: When it came, seconds since the epoch.
        index: What was seen before.
        anchors_pem: Trusted root certificates in PEM.
        limits: What a picture may cost.

    Returns:
        The verdict. ``facts`` holds, as far as they are known: ``bytes``, ``mime``, ``seconds`` (from the task to the
        delivery), ``model``, ``source_type``, ``phash`` (16 hex digits) and ``pixels`` (hex SHA-256), the two to
        build the index again from, and ``duplicate_of`` with ``distance``.

    Raises:
        ConfigurationError: Another modality than pictures, or anchors that are not PEM.
    """
    if modality is not Modality.IMAGE:
        raise ConfigurationError(f"This verifier judges pictures only, not {modality.value}.")
    sha256 = hashlib.sha256(data).hexdigest()
    mime = sniff_mime(data)
    reasons: list[Reason] = []
    facts: dict[str, object] = {"bytes": len(data), "mime": mime, "seconds": round(delivered_at - created_at, 3)}
    if not created_at <= delivered_at <= deadline:
        reasons.append(Reason("stale", f"The medium came {delivered_at - deadline:.1f} s after its deadline."))
    pixels = _decode(data, mime, limits, reasons)
    credentials = _credentials(data, mime, anchors_pem, limits, reasons)
    if credentials:
        facts |= {"model": credentials.model, "source_type": credentials.source_type}
    if pixels is not None:
        seen = Seen(sha256, perceptual_hash(pixels), pixel_sha256(pixels))
        facts |= {"phash": f"{seen.phash:016x}", "pixels": seen.pixels}
        # Only what is otherwise in order may take its place in the index, or a thief could claim another's picture.
        match = index.duplicate_of(seen) if reasons else index.claim(seen)
        if match:
            facts |= {"duplicate_of": match.sha256, "distance": match.distance}
            reasons.append(
                Reason("duplicate", "The network has seen this picture before.")
                if match.exact
                else Reason(
                    "near_duplicate",
                    f"The picture is nearly one that the network has seen before ({match.distance} of 64 bits differ).",
                )
            )
    height, width = pixels.shape[:2] if pixels is not None else (0, 0)
    return Verdict(
        reasons=tuple(reasons),
        sha256=sha256,
        width=width,
        height=height,
        issuer=credentials.issuer if credentials else None,
        facts=facts,
    )


def _decode(data: bytes, mime: str | None, limits: MediaLimits, reasons: list[Reason]) -> RGB | None:
    if mime is not None and not mime.startswith("image/"):
        reasons.append(Reason("wrong_modality", f"A picture was asked for, and the medium is {mime}."))
        return None
    try:
        return decode_image(data, limits)
    except MediaRejected as error:
        code = error.error_code if error.error_code in ("too_large", "undecodable") else "undecodable"
        reasons.append(Reason(code, error.message))
        return None


def _credentials(
    data: bytes, mime: str | None, anchors_pem: bytes, limits: MediaLimits, reasons: list[Reason]
) -> Credentials | None:
    if mime is None or not 0 < len(data) <= limits.max_bytes:
        # What no parser should see has no credentials that anybody could check.
        reasons.append(Reason("no_provenance", "The medium carries no content credentials that can be read."))
        return None
    try:
        return check_provenance(data, mime, anchors_pem)
    except MediaRejected as error:
        reasons.append(Reason(error.error_code, error.message))
        return None
