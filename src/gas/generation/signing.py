"""Content credentials (C2PA): a small certificate authority for one's own network, and signing with its leaves.

A real network trusts the anchors of real authorities; the demo and private arenas make their own. Nothing here talks
to anybody: there is no time-stamp service, no OCSP and no remote manifest.
"""

from __future__ import annotations

import datetime
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gas import __version__
from gas.clock import Clock
from gas.errors import ConfigurationError, InfrastructureError

__all__ = ["TRAINED_ALGORITHMIC_MEDIA", "Leaf", "TestAuthority", "load_leaf", "sign_medium"]

TRAINED_ALGORITHMIC_MEDIA: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for media made by a trained model."""

_DOCUMENT_SIGNING: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_ROOT_DAYS: Final = 3650
_LEAF_DAYS: Final = 365
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
        key_pem: Its private key (P-256, PKCS 8), in PEM.
    """

    organisation: str
    chain_pem: bytes
    key_pem: bytes = field(repr=False)


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
            self._certificate, self._key = _load_pair(folder, "root")
        else:
            self._key = ec.generate_private_key(ec.SECP256R1())
            self._certificate = self._make_root(name)
            _store_pair(folder, "root", _pem(self._certificate), _key_pem(self._key))

    @property
    def anchors_pem(self) -> bytes:
        """The root certificate in PEM: what verifiers must trust."""
        return _pem(self._certificate)

    def leaf(self, name: str, organisation: str) -> Leaf:
        """The credential ``name``, issued now when it isn't there yet.

        Args:
            name: File name without an ending: letters, digits, ``-`` and ``_``.
            organisation: Whom it names, up to 64 characters.

        Raises:
            ConfigurationError: The name or the organisation isn't acceptable, or the files are damaged.
        """
        if not name or name == "root" or not all(c.isalnum() or c in "-_" for c in name):
            raise ConfigurationError("A credential's name consists of letters, digits, '-' and '_'.")
        if not 0 < len(organisation) <= 64:
            raise ConfigurationError("A credential's organisation has 1 to 64 characters.")
        if not (self.folder / f"{name}.pem").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _store_pair(self.folder, name, _pem(self._make_leaf(key, organisation)), _key_pem(key))
        return load_leaf(self.folder, name)

    def _make_root(self, name: str) -> x509.Certificate:
        subject = _name(name, f"{name} root")
        return (
            self._begin(subject, subject, self._key.public_key(), _ROOT_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _make_leaf(self, key: ec.EllipticCurvePrivateKey, organisation: str) -> x509.Certificate:
        usages = [ExtendedKeyUsageOID.EMAIL_PROTECTION, _DOCUMENT_SIGNING]
        subject = _name(organisation, f"{organisation[:50]} signer")
        return (
            self._begin(subject, self._certificate.subject, key.public_key(), _LEAF_DAYS)
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


def load_leaf(folder: Path, name: str) -> Leaf:
    """Load a credential that :class:`TestAuthority` has issued; all that a generator's operator needs.

    Raises:
        ConfigurationError: It isn't there or is damaged.
    """
    certificate, key = _load_pair(folder, name)
    organisations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    organisation = str(organisations[0].value) if organisations else ""
    return Leaf(organisation=organisation, chain_pem=_pem(certificate), key_pem=_key_pem(key))


def sign_medium(data: bytes, mime: str, leaf: Leaf, *, title: str, model: str) -> bytes:
    """Embed a signed manifest that says "made by a trained model".

    Args:
        data: The encoded medium.
        mime: Its type, e.g. ``image/png``.
        leaf: Who signs.
        title: The manifest's title, e.g. the task's id.
        model: Name of the model that made it.

    Returns:
        The medium with its manifest; same pixels or samples.

    Raises:
        ConfigurationError: The credential or the type isn't usable.
        InfrastructureError: Signing failed.
    """
    manifest = {
        "claim_generator_info": [{"name": "GAS", "version": __version__}],
        "title": title,
        "format": mime,
        "assertions": [
            {
                "label": "c2pa.actions.v2",
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "digitalSourceType": TRAINED_ALGORITHMIC_MEDIA,
                            "softwareAgent": {"name": model},
                        }
                    ]
                },
            }
        ],
    }
    if mime not in c2pa.Builder.get_supported_mime_types():
        raise ConfigurationError(f"Media of type {mime} can't carry content credentials.", code="mime_not_signable")
    signed = io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, leaf.chain_pem, leaf.key_pem, None)
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(json.dumps(manifest), context) as builder,
        ):
            builder.sign(signer, mime, io.BytesIO(data), signed)
    except c2pa.C2paError as error:
        raise InfrastructureError("The medium could not be signed.", code="signing_failed") from error
    return signed.getvalue()


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


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
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


def _load_pair(folder: Path, name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"The credential {name} is missing or damaged.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigurationError(f"The key of the credential {name} does not belong to its certificate.")
    return certificate, key
