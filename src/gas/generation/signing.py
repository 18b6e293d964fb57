"""Content credentials (C2PA): a small certificate authority for one's own network, and signing with its leaves.

A real network trusts the anchors of real authorities; the demo and private arenas make their own. Nothing here talks
to anybody: there is no time-stamp service, no OCSP and no remote manifest.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import c2pa
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gas import __version__
from gas.clock import Clock, SystemClock
from gas.errors import ConfigurationError, InfrastructureError
from gas.types import MediaType

__all__ = [
    "COMPOSITE_WITH_TRAINED_MEDIA",
    "TRAINED_ALGORITHMIC_MEDIA",
    "Leaf",
    "TestAuthority",
    "load_leaf",
    "load_leaf_files",
    "sign_medium",
    "signable_types",
]

TRAINED_ALGORITHMIC_MEDIA: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for media made by a trained model."""

COMPOSITE_WITH_TRAINED_MEDIA: Final = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
)
"""IPTC's name for real media of which a trained model made a part."""

_DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_ROOT_DAYS: Final = 3650
_LEAF_DAYS: Final = 365
_MOST_DAYS: Final = 3650
_CURVES: Final = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_SETTINGS: Final = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
    "core": {"allowed_network_hosts": []},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A signing credential.

    Attributes:
        organisation: Who signs; verifiers report it as the issuer of a medium's credentials.
        chain_pem: Its certificate, then those above it without the root, in PEM.
        key_pem: Its private key, in PEM.
        algorithm: What it signs with, as C2PA calls it: ``es256``, ``es384``, ``es512``, ``ps256`` or ``ed25519``.
        expires_at: When the certificate ends, seconds since the epoch.
    """

    organisation: str
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    algorithm: str = "es256"
    expires_at: float = math.inf


class TestAuthority:
    """A root certificate with its key in a folder; issues leaves into the same folder.

    Files: ``root.pem`` (public, the trust anchor), ``root.key``, and for each leaf ``<name>.pem`` and ``<name>.key``.
    Keys are readable by their owner only.

    Args:
        folder: Where the files are or will be; the first use makes the authority, later ones find it.
        clock: Decides the certificates' validity.
        name: The authority's organisation, for a new one.

    Raises:
        ConfigurationError: The folder holds something else, or can't be written.
    """

    __test__ = False

    def __init__(self, folder: Path, clock: Clock, *, name: str = "GAS test authority") -> None:
        self.folder = folder
        self._clock = clock
        if (folder / "root.pem").exists():
            chain, key = _load_pair(folder / "root.pem", folder / "root.key")
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise ConfigurationError("The authority's key is not one that this program has made.")
            self._certificate, self._key = chain[0], key
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = self._make_root(name)
            _store_pair(folder, "root", _pem(self._certificate), _key_pem(self._key))

    @property
    def anchors_pem(self) -> bytes:
        """The root certificate in PEM: what verifiers must trust."""
        return _pem(self._certificate)

    def leaf(self, name: str, organisation: str, *, days: int = _LEAF_DAYS, renew: bool = False) -> Leaf:
        """The credential ``name``, issued now when it isn't there yet.

        Args:
            name: File name without an ending: letters, digits, ``-`` and ``_``.
            organisation: Whom it names, up to 64 characters.
            days: How long a new one is valid, 1..3650.
            renew: Issue a new one, with a new key, in the place of one that is there.

        Raises:
            ConfigurationError: The name or the organisation isn't acceptable, or the files are damaged.
        """
        if not name or name == "root" or not all(c.isalnum() or c in "-_" for c in name):
            raise ConfigurationError("A credential's name consists of letters, digits, '-' and '_'.")
        if not 0 < len(organisation) <= 64:
            raise ConfigurationError("A credential's organisation has 1 to 64 characters.")
        if not 1 <= days <= _MOST_DAYS:
            raise ConfigurationError(f"A credential is valid for 1 to {_MOST_DAYS} days.")
        if renew or not (self.folder / f"{name}.pem").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            # In between a kill would leave the new key beside the old certificate.
            (self.folder / f"{name}.pem").unlink(missing_ok=True)
            _store_pair(self.folder, name, _pem(self._make_leaf(key, organisation, days)), _key_pem(key))
        return load_leaf(self.folder, name, self._clock)

    def _make_root(self, name: str) -> x509.Certificate:
        subject = _name(name, f"{name} root")
        return (
            self._begin(subject, subject, self._key.public_key(), _ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _make_leaf(self, key: ec.EllipticCurvePrivateKey, organisation: str, days: int) -> x509.Certificate:
        usages = [ExtendedKeyUsageOID.EMAIL_PROTECTION, _DOCUMENT_SIGNING]
        subject = _name(organisation, f"{organisation[:50]} signer")
        return (
            self._begin(subject, self._certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def _begin(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.fromtimestamp(int(self._clock.time()), tz=datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            # Clocks of two machines differ by minutes; a day is ample.
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def load_leaf(folder: Path, name: str, clock: Clock | None = None) -> Leaf:
    """Load a credential from a folder: ``<name>.pem`` and ``<name>.key``, as :class:`TestAuthority` stores them.

    Raises:
        ConfigurationError: As :func:`load_leaf_files`.
    """
    return load_leaf_files(folder / f"{name}.pem", folder / f"{name}.key", clock)


def load_leaf_files(certificate: Path, key: Path, clock: Clock | None = None) -> Leaf:
    """Load a signing credential and check that media can be signed with it now.

    Args:
        certificate: PEM: the signer's certificate, then those above it.
        key: Its private key in PEM, without a password: P-256, P-384, P-521, RSA or Ed25519.
        clock: Decides whether it is valid; the machine's own when left out.

    Raises:
        ConfigurationError: ``configuration`` (missing, damaged, or the key belongs to another certificate),
            ``certificate_expired``, ``certificate_not_yet_valid`` or ``certificate_unfit`` (an authority's own, or one
            that is not for signing).
    """
    chain, private = _load_pair(certificate, key)
    first = chain[0]
    now = datetime.datetime.fromtimestamp((clock or SystemClock()).time(), tz=datetime.UTC)
    for one in chain:
        _check_dates(one, certificate.stem, now)
    _check_purpose(first, certificate.stem)
    organisations = first.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    # A verifier has the root already, and one that is sent along only makes media larger.
    above = [one for one in chain[1:] if one.subject != one.issuer]
    return Leaf(
        organisation=str(organisations[0].value) if organisations else "",
        chain_pem=b"".join(_pem(one) for one in (first, *above)),
        key_pem=_key_pem(private),
        algorithm=_algorithm(private, certificate.stem),
        expires_at=min(one.not_valid_after_utc for one in chain).timestamp(),
    )


def signable_types() -> frozenset[str]:
    """Content types that can carry credentials, e.g. ``image/png``, ``video/mp4``, ``audio/wav``, ``audio/mpeg``."""
    return frozenset(mime for mime in c2pa.Builder.get_supported_mime_types() if "/" in mime)


def sign_medium(
    data: bytes,
    mime: str,
    leaf: Leaf,
    *,
    title: str,
    model: str,
    media_type: MediaType = MediaType.SYNTHETIC,
    clock: Clock | None = None,
) -> bytes:
    """Embed a signed manifest that says "made by a trained model".

    Args:
        data: The encoded medium.
        mime: Its type, e.g. ``image/png``.
        leaf: Who signs.
        title: The manifest's title, e.g. the task's id.
        model: Name of the model that made it.
        media_type: Synthetic, or semisynthetic: then the manifest says "composite with media made by a trained model".
        clock: Says when it was made; the machine's own when left out.

    Returns:
        The medium with its manifest; same pixels or samples.

    Raises:
        ConfigurationError: ``mime_not_signable``: media of this type can't carry credentials.
        InfrastructureError: ``signing_failed``: no such medium, or the credential isn't usable.
    """
    now = datetime.datetime.fromtimestamp(int((clock or SystemClock()).time()), tz=datetime.UTC)
    part = media_type is MediaType.SEMISYNTHETIC
    action = {
        "action": "c2pa.created",
        "when": now.isoformat().replace("+00:00", "Z"),
        "digitalSourceType": COMPOSITE_WITH_TRAINED_MEDIA if part else TRAINED_ALGORITHMIC_MEDIA,
        "softwareAgent": {"name": model},
    }
    manifest = {
        "claim_generator_info": [{"name": "GAS", "version": __version__}],
        "title": title,
        "format": mime,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    if mime not in signable_types():
        raise ConfigurationError(f"Media of type {mime} can't carry content credentials.", code="mime_not_signable")
    signed = io.BytesIO()
    try:
        algorithm = c2pa.C2paSigningAlg[leaf.algorithm.upper()]
        info = c2pa.C2paSignerInfo(algorithm, leaf.chain_pem, leaf.key_pem, None)
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(manifest), context) as builder,
        ):
            builder.sign(signer, mime, io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        raise InfrastructureError(
            "The medium could not be signed.",
            code="signing_failed",
            hint="Check that the certificate is valid today and for C2PA, and that the medium is undamaged.",
        ) from error
    return signed.getvalue()


def _check_dates(certificate: x509.Certificate, name: str, now: datetime.datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise ConfigurationError(
            f"The certificate {name} ran out on {end:%Y-%m-%d}.",
            code="certificate_expired",
            hint="Have a new one issued; for a test authority: `gascli g cert new --renew`.",
        )
    if now < begin:
        raise ConfigurationError(
            f"The certificate {name} is valid from {begin:%Y-%m-%d %H:%M} UTC only.",
            code="certificate_not_yet_valid",
            hint="Check this machine's clock.",
        )


def _check_purpose(certificate: x509.Certificate, name: str) -> None:
    unfit = None
    # C2PA asks for basic constraints of authorities only.
    with contextlib.suppress(x509.ExtensionNotFound):
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            unfit = "is an authority's own: sign with one that it has issued"
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if unfit is None and not usage.digital_signature:
            unfit = "is not for signatures"
        certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        unfit = unfit or "doesn't say what it is for (C2PA asks for key usage and extended key usage)"
    except ValueError as error:
        raise ConfigurationError(f"The credential {name} is missing or damaged.") from error
    if unfit:
        raise ConfigurationError(f"The certificate {name} {unfit}.", code="certificate_unfit")


def _algorithm(key: _PrivateKey, name: str) -> str:
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    known = _CURVES.get(key.curve.name)
    if known is None:
        raise ConfigurationError(f"The key of {name} is on a curve that C2PA doesn't know.", code="certificate_unfit")
    return known


def _name(organisation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _store_pair(folder: Path, name: str, certificate: bytes, key: bytes) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The certificate is written last: where it is, the key is there too, even after a kill in between.
        _write(folder / f"{name}.key", key, 0o600)
        _write(folder / f"{name}.pem", certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(f"The credential {name} could not be stored ({error.strerror}).") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    aside.replace(path)


def _load_pair(certificate: Path, key: Path) -> tuple[list[x509.Certificate], _PrivateKey]:
    name = certificate.stem
    for path in (certificate, key):
        if not path.is_file():
            raise ConfigurationError(
                f"The credential {name} is missing: there is no {path.name}.",
                hint="`gascli g cert new` makes one for tests.",
            )
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"The credential {name} is missing or damaged.") from error
    if not isinstance(private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise ConfigurationError(f"The key of {name} is of a kind that C2PA doesn't know.", code="certificate_unfit")
    if private.public_key() != chain[0].public_key():
        raise ConfigurationError(f"The key of the credential {name} does not belong to its certificate.")
    return chain, private
