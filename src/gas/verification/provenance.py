"""Content credentials (C2PA) of a delivered medium.

What is covered: an intact manifest inside the medium, signed by a certificate under one of the given anchors, which
says that a trained model made the medium; nothing is fetched from anywhere. What is not: whether the signer tells the
truth (a trusted signer can put its name to a photo, and without a time-stamp service its own word on the time is all
there is), revocation, and flaws of the native parser itself: for media from strangers there is
:mod:`gas.verification.examiner`, which runs this in a child process.
"""

from __future__ import annotations

import datetime
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import c2pa

from gas.errors import ConfigurationError, MediaRejected

__all__ = ["AI_SOURCE_TYPES", "REFUSALS", "Credentials", "TrustList", "check_anchors", "check_provenance"]

AI_SOURCE_TYPES: Final = frozenset(
    f"http://cv.iptc.org/newscodes/digitalsourcetype/{name}"
    for name in ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
)
"""IPTC source types that declare a medium as made, or changed, by a trained model."""

REFUSALS: Final = frozenset({"no_provenance", "untrusted_provenance", "not_ai_declared"})
"""Codes with which :meth:`TrustList.check` refuses."""

_SETTINGS: Final[dict[str, Any]] = {
    "verify": {
        "remote_manifest_fetch": False,
        "ocsp_fetch": False,
        "verify_trust": True,
        "verify_after_reading": True,
    },
    "core": {"allowed_network_hosts": [], "max_decompressed_manifest_size_in_mb": 8},
}
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a trusted manifest says.

    Attributes:
        issuer: Organisation of the signing certificate.
        model: Software that made the medium, as the signer names it (of the action, else of the claim); empty when
            it doesn't.
        source_type: One of :data:`AI_SOURCE_TYPES`.
        signed_at: Seconds since the epoch, by a time stamp in the signature, else by the action's own word; None
            when neither is there.
    """

    issuer: str
    model: str
    source_type: str
    signed_at: float | None = None


def check_anchors(trust_anchors_pem: bytes) -> None:
    """Check the operator's trust anchors, once, at start.

    Raises:
        ConfigurationError: They are not one or more certificates in PEM.
    """
    # Children that only check media do without this library.
    from cryptography import x509

    try:
        x509.load_pem_x509_certificates(trust_anchors_pem)
    except ValueError as error:
        raise ConfigurationError("The trust anchors are not certificates in PEM.", code="trust_anchors") from error


class TrustList:
    """The anchors, read once, to judge many media by; may be used from several threads.

    Args:
        trust_anchors_pem: Root certificates in PEM, which :func:`check_anchors` has found good; under others nothing
            is trusted.

    Raises:
        ConfigurationError: They hold zero bytes, which the native library can't take.
    """

    def __init__(self, trust_anchors_pem: bytes) -> None:
        if b"\0" in trust_anchors_pem:
            raise ConfigurationError("The trust anchors are not certificates in PEM.", code="trust_anchors")
        settings = _SETTINGS | {"trust": {"trust_anchors": trust_anchors_pem.decode("ascii", "replace")}}
        self._context: c2pa.Context | None
        try:
            self._context = c2pa.Context.from_dict(settings)
        except c2pa.C2paError:
            self._context = None

    def check(self, data: bytes, mime: str) -> Credentials:
        """Accept a medium only when its credentials are trusted and declare it AI-made.

        Args:
            data: The medium; hostile until proven otherwise.
            mime: Its type, by its first bytes.

        Raises:
            MediaRejected: ``no_provenance`` (no manifest inside), ``untrusted_provenance`` (damaged, does not belong
                to these bytes, or signed by somebody unknown) or ``not_ai_declared``.
        """
        state, manifest = self._read(data, mime)
        if state != "Trusted":
            # "Valid" only says that the signature is right, whoever made it.
            why = (
                "by a certificate that the network does not trust"
                if state == "Valid"
                else "for other bytes, or damaged"
            )
            raise MediaRejected(
                f"The content credentials were signed {why}.",
                code="untrusted_provenance",
                hint="Sign the medium last, with a certificate under one of the network's anchors.",
            )
        signature = manifest.get("signature_info")
        signature = signature if isinstance(signature, dict) else {}
        for source_type, model, when in _declarations(manifest):
            if source_type in AI_SOURCE_TYPES:
                signed_at = _moment(signature.get("time"))
                return Credentials(
                    issuer=_text(signature.get("issuer")),
                    model=model or _claim_generator(manifest),
                    source_type=source_type,
                    signed_at=_moment(when) if signed_at is None else signed_at,
                )
        raise MediaRejected(
            "The content credentials do not declare the medium as made by a trained model.",
            code="not_ai_declared",
            hint="Give the c2pa.created action the digitalSourceType trainedAlgorithmicMedia.",
        )

    def _read(self, data: bytes, mime: str) -> tuple[str, dict[str, Any]]:
        """Validation state and active manifest."""
        missing = MediaRejected(
            "The medium carries no content credentials.", code="no_provenance", hint="Embed a signed C2PA manifest."
        )
        if self._context is None:
            return "Valid", {}
        try:
            reader = c2pa.Reader.try_create(mime, io.BytesIO(data), context=self._context)
            if reader is None:
                raise missing
            with reader:
                if not reader.is_embedded():
                    raise missing
                document = json.loads(reader.json())
        except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.RemoteManifest, c2pa.C2paError.NotSupported) as error:
            raise missing from error
        except (c2pa.C2paError, ValueError, RecursionError) as error:
            # A manifest that lies elsewhere has no class of its own in every version of the library.
            if str(error).startswith("Remote:"):
                raise missing from error
            raise MediaRejected("The content credentials are damaged.", code="untrusted_provenance") from error
        manifests = document.get("manifests") if isinstance(document, dict) else None
        manifest = manifests.get(document.get("active_manifest")) if isinstance(manifests, dict) else None
        if not isinstance(manifest, dict):
            raise missing
        return str(document.get("validation_state")), manifest


def check_provenance(data: bytes, mime: str, trust_anchors_pem: bytes) -> Credentials:
    """:meth:`TrustList.check` for one medium."""
    return TrustList(trust_anchors_pem).check(data, mime)


def _declarations(manifest: dict[str, Any]) -> Iterator[tuple[str, str, object]]:
    """(source type, software, time) of every action; a signer may put anything anywhere, so every shape is checked."""
    assertions = manifest.get("assertions")
    for assertion in assertions if isinstance(assertions, list) else []:
        if not isinstance(assertion, dict) or not str(assertion.get("label", "")).startswith("c2pa.actions"):
            continue
        data = assertion.get("data")
        actions = data.get("actions") if isinstance(data, dict) else None
        for action in actions if isinstance(actions, list) else []:
            if isinstance(action, dict):
                agent = action.get("softwareAgent")
                yield (
                    str(action.get("digitalSourceType")),
                    _text(agent.get("name") if isinstance(agent, dict) else agent),
                    action.get("when"),
                )


def _claim_generator(manifest: dict[str, Any]) -> str:
    infos = manifest.get("claim_generator_info")
    first = infos[0] if isinstance(infos, list) and infos else None
    return _text(first.get("name")) if isinstance(first, dict) else ""


def _moment(value: object) -> float | None:
    """Seconds since the epoch of an ISO 8601 time with its zone; None for anything else."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        when = datetime.datetime.fromisoformat(value)
        seconds = when.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if when.tzinfo is not None and math.isfinite(seconds) else None


def _text(value: object) -> str:
    """A signer's word, short and printable."""
    return "".join(c for c in value[:_LONGEST_NAME] if c.isprintable()) if isinstance(value, str) else ""
