"""All that a medium's content credentials say, for people: trusted or not, by whom, with what, when, what is wrong."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import c2pa

from gas.errors import ConfigurationError, MediaRejected, Reason
from gas.media.image import sniff_mime
from gas.verification.provenance import _SETTINGS, AI_SOURCE_TYPES, check_anchors

__all__ = ["Inspection", "State", "inspect_credentials", "signed_type"]

_LONGEST: Final = 200
_MOST_REASONS: Final = 20
_SENTENCES: Final = {
    "signingCredential.untrusted": "The signer's certificate is under none of the given anchors.",
    "signingCredential.expired": "The signer's certificate had run out.",
    "signingCredential.invalid": "The signer's certificate is not fit for content credentials.",
    "claimSignature.mismatch": "The signature does not belong to the manifest.",
    "claimSignature.outsideValidity": "It was signed outside the certificate's time of validity.",
    "assertion.dataHash.mismatch": "The medium was changed after it had been signed.",
    "assertion.bmffHash.mismatch": "The medium was changed after it had been signed.",
    "assertion.boxesHash.mismatch": "The medium was changed after it had been signed.",
    "assertion.hashedURI.mismatch": "The manifest was changed after it had been signed.",
}


class State(StrEnum):
    """How a medium's credentials stand."""

    TRUSTED = "Trusted"
    VALID = "Valid"
    INVALID = "Invalid"
    NONE = "None"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        state: Trusted (right and by somebody trusted), valid (right, by somebody unknown), invalid, or none there.
        mime: The medium's type by its first bytes.
        issuer: Organisation of the signing certificate; empty when there is none.
        signer: The certificate's common name.
        algorithm: What it was signed with, e.g. ``Es256``.
        model: Software that the signer names as the maker.
        title: The manifest's title.
        source_type: What the medium is declared as, an IPTC address.
        made_at: When it was made, as the signer says, ISO 8601; nobody vouches for it.
        stamped_at: When a time-stamp authority saw the signature, ISO 8601; empty without one.
        reasons: What is wrong, or is missing for being trusted.
        checks: Codes of the checks that it passed.
    """

    state: State
    mime: str
    issuer: str = ""
    signer: str = ""
    algorithm: str = ""
    model: str = ""
    title: str = ""
    source_type: str = ""
    made_at: str = ""
    stamped_at: str = ""
    reasons: tuple[Reason, ...] = ()
    checks: tuple[str, ...] = ()

    @property
    def declares_ai(self) -> bool:
        """Whether the medium is declared as made, or changed, by a trained model."""
        return self.source_type in AI_SOURCE_TYPES

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "state": self.state.value,
            "mime": self.mime,
            "issuer": self.issuer,
            "signer": self.signer,
            "algorithm": self.algorithm,
            "model": self.model,
            "title": self.title,
            "source_type": self.source_type,
            "declares_ai": self.declares_ai,
            "made_at": self.made_at,
            "stamped_at": self.stamped_at,
            "reasons": [reason.as_dict() for reason in self.reasons],
            "checks": list(self.checks),
        }


def signed_type(data: bytes) -> str:
    """Content type of a medium by its bytes.

    Raises:
        MediaRejected: ``unsupported``: of no type that the project knows.
    """
    mime = sniff_mime(data)
    if mime is None:
        raise MediaRejected("The file is no picture, video or sound that is known here.", code="unsupported")
    return mime


def inspect_credentials(data: bytes, trust_anchors_pem: bytes | None = None) -> Inspection:
    """Read a medium's credentials and say how they stand; nothing is fetched from anywhere.

    Args:
        data: The medium; hostile until proven otherwise.
        trust_anchors_pem: Root certificates in PEM; without them nobody is trusted.

    Raises:
        MediaRejected: ``unsupported``: no medium that is known here, or of a type that can't carry credentials.
        ConfigurationError: The anchors are no certificates in PEM.
    """
    mime = signed_type(data)
    if trust_anchors_pem is not None:
        check_anchors(trust_anchors_pem)
        if b"\0" in trust_anchors_pem:
            raise ConfigurationError("The trust anchors are not certificates in PEM.", code="trust_anchors")
    if mime not in c2pa.Reader.get_supported_mime_types():
        raise MediaRejected(f"Media of type {mime} can't carry content credentials.", code="unsupported")
    trust = {"trust": {"trust_anchors": trust_anchors_pem.decode("ascii", "replace")}} if trust_anchors_pem else {}
    none = Inspection(State.NONE, mime, reasons=(Reason("no_provenance", "There are no content credentials inside."),))
    try:
        with c2pa.Context.from_dict(_SETTINGS | trust) as context:
            reader = c2pa.Reader.try_create(mime, io.BytesIO(data), context=context)
            if reader is None:
                return none
            with reader:
                if not reader.is_embedded():
                    return none
                document = json.loads(reader.json())
    except (c2pa.C2paError.ManifestNotFound, c2pa.C2paError.RemoteManifest, c2pa.C2paError.NotSupported):
        return none
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        if str(error).startswith("Remote:"):
            return none
        damaged = Reason("damaged", "The content credentials are damaged.")
        return Inspection(State.INVALID, mime, reasons=(damaged,))
    return _told(document, mime)


def _told(document: object, mime: str) -> Inspection:
    """What the library's report says; a signer may put anything anywhere, so every shape is checked."""
    report = _dict(document)
    manifest = _dict(_dict(report.get("manifests")).get(str(report.get("active_manifest"))))
    found = str(report.get("validation_state"))
    state = State(found) if found in (State.TRUSTED, State.VALID) else State.INVALID
    signature = _dict(manifest.get("signature_info"))
    results = _dict(_dict(report.get("validation_results")).get("activeManifest"))
    reasons = [_reason(_dict(one)) for one in _list(results.get("failure"))[:_MOST_REASONS]]
    if state is State.VALID and not any(reason.code == "signingCredential.untrusted" for reason in reasons):
        reasons.append(Reason("signingCredential.untrusted", _SENTENCES["signingCredential.untrusted"]))
    if state is State.INVALID and not reasons:
        reasons.append(Reason("damaged", "The content credentials are damaged."))
    action = _made(manifest)
    agent = action.get("softwareAgent")
    return Inspection(
        state,
        mime,
        issuer=_text(signature.get("issuer")),
        signer=_text(signature.get("common_name")),
        algorithm=_text(signature.get("alg")),
        model=_text(_dict(agent).get("name") if isinstance(agent, dict) else agent),
        title=_text(manifest.get("title")),
        source_type=_text(action.get("digitalSourceType")),
        made_at=_text(action.get("when")),
        stamped_at=_text(signature.get("time")),
        reasons=tuple(reasons),
        checks=tuple(_text(_dict(one).get("code")) for one in _list(results.get("success"))[:_MOST_REASONS]),
    )


def _made(manifest: dict[str, Any]) -> dict[str, Any]:
    """The action that declares the medium AI-made; else the first one."""
    actions = [
        _dict(action)
        for assertion in _list(manifest.get("assertions"))
        if str(_dict(assertion).get("label", "")).startswith("c2pa.actions")
        for action in _list(_dict(_dict(assertion).get("data")).get("actions"))
    ]
    ai = [action for action in actions if action.get("digitalSourceType") in AI_SOURCE_TYPES]
    return next(iter(ai or actions), {})


def _reason(finding: dict[str, Any]) -> Reason:
    code = _text(finding.get("code")) or "unknown"
    return Reason(code, _SENTENCES.get(code) or _text(finding.get("explanation")) or "A check failed.")


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """A signer's word, short and printable."""
    return "".join(c for c in value[:_LONGEST] if c.isprintable()) if isinstance(value, str) else ""
