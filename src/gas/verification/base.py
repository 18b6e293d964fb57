"""What judging one medium yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gas.errors import Reason
from gas.types import Modality

__all__ = ["Alignment", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of the verification of one delivered medium.

    Attributes:
        reasons: Why it is refused; empty when it is verified.
        sha256: Hex digest of its bytes.
        width: Pixels, 0 when it could not be decoded.
        height: Pixels, 0 when it could not be decoded.
        issuer: Who signed its C2PA manifest, when that is trusted.
        facts: Further measured values for the report, plain JSON.
    """

    reasons: tuple[Reason, ...]
    sha256: str
    width: int = 0
    height: int = 0
    issuer: str | None = None
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def verified(self) -> bool:
        """Whether the medium counts."""
        return not self.reasons


class Alignment(Protocol):
    """Scores how well a medium shows what its prompt asked for."""

    name: str

    def score(self, data: bytes, modality: Modality, prompt: str) -> float:
        """A value in [0, 1]; the threshold is the network's."""
        ...
