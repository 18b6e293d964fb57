"""Content credentials of this miner's media: the operator's certificate, watched for its end."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gas.clock import Clock
from gas.errors import ConfigurationError, InfrastructureError
from gas.generation.base import GeneratedMedium

__all__ = ["CertificateSeal", "Seal"]


class Seal(Protocol):
    """Signs media."""

    def check(self) -> None:
        """Raises :class:`gas.errors.InfrastructureError` when nothing can be signed now."""
        ...

    def sign(self, medium: GeneratedMedium) -> bytes:
        """The medium's bytes with this miner's credentials; as they are when the provider has signed them."""
        ...


class CertificateSeal:
    """Signs with C2PA by the operator's certificate.

    Args:
        folder: Where the credential lies.
        name: Its name there: ``<name>.pem`` and ``<name>.key``.
        title: Title of the manifests.
        clock: Decides whether the certificate is valid.

    Raises:
        ConfigurationError: ``no_certificate``, ``certificate_expired``, ``certificate_not_yet_valid`` or
            ``certificate_unfit``.
    """

    def __init__(self, folder: Path, name: str, title: str, clock: Clock) -> None:
        from gas.generation.signing import load_leaf

        try:
            self._leaf = load_leaf(folder, name, clock)
        except ConfigurationError as error:
            if error.error_code != ConfigurationError.code:
                raise
            raise ConfigurationError(
                f"There is no usable C2PA credential {name!r} in {folder}: {error.message}",
                code="no_certificate",
                hint=f"MINER_C2PA_DIR must hold {name}.pem and {name}.key. gascli g cert new makes them for tests.",
            ) from error
        self._title = title
        self._clock = clock

    def check(self) -> None:
        """Look at the certificate's end.

        Raises:
            InfrastructureError: ``certificate_expired``.
        """
        if self._clock.time() > self._leaf.expires_at:
            raise InfrastructureError(
                "The C2PA certificate has run out.",
                code="certificate_expired",
                hint="Put a new one into MINER_C2PA_DIR and restart: validators refuse media signed with this one.",
            )

    def sign(self, medium: GeneratedMedium) -> bytes:
        """Embed a signed manifest, unless the provider has done so.

        Raises:
            InfrastructureError: ``certificate_expired`` or ``signing_failed``.
            ConfigurationError: ``mime_not_signable``.
        """
        if medium.signed:
            return medium.data
        from gas.generation.signing import sign_medium

        self.check()
        return sign_medium(
            medium.data, medium.mime, self._leaf,
            title=self._title, model=medium.model, media_type=medium.media_type, clock=self._clock,
        )  # fmt: skip
