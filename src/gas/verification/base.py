"""What judging one medium takes and yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gas.errors import Reason
from gas.media.image import RGB
from gas.types import Modality

__all__ = ["Alignment", "Asked", "Edit", "Embedder", "Verdict", "VerificationRules"]


@dataclass(frozen=True, slots=True)
class Edit:
    """A picture that was sent along to be changed; both PNG and of one size, made by the validator itself.

    Attributes:
        source: The picture.
        mask: White where it is to change.
    """

    source: bytes = field(repr=False)
    mask: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for and when; times are seconds since the epoch.

    Attributes:
        modality: Image, video or audio.
        created_at: When the task was made.
        deadline: Until when it had to be delivered.
        delivered_at: When it came.
        prompt: What it should show.
        parameters: Of the task: ``resolution`` (a tier such as ``2K`` or ``720p``, or pixels of the smaller side),
            ``duration`` (seconds).
        owner: Whose delivery of which task it is, e.g. ``validator/miner/task``: judged again after a crash, it is
            no copy of itself. Empty for none.
        edit: What was to be changed; None where a medium was to be made from nothing.
    """

    modality: Modality
    created_at: float
    deadline: float
    delivered_at: float
    prompt: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    owner: str = ""
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class VerificationRules:
    """What is asked of a medium beyond the limits of its decoder.

    Attributes:
        clock_skew: Seconds by which clocks of signers may be wrong.
        need_signing_time: Whether credentials that don't say when they were made are refused.
        min_seconds: Shortest video and sound.
        min_frames: Of a video.
        duration_ratio: A duration that was asked for may be missed by this factor either way.
    """

    clock_skew: float = 600.0
    need_signing_time: bool = False
    min_seconds: float = 0.5
    min_frames: int = 5
    duration_ratio: float = 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of the verification of one delivered medium.

    Attributes:
        reasons: Why it is refused; empty when it is verified.
        sha256: Hex digest of its bytes.
        width: Pixels, 0 when it could not be decoded or is a sound.
        height: Pixels, 0 when it could not be decoded or is a sound.
        issuer: Who signed its C2PA manifest, when that is trusted.
        facts: Further measured values, plain JSON; see :meth:`gas.verification.pipeline.Verifier.judge`.
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
    """Scores how well a picture shows what its prompt asked for."""

    name: str
    threshold: float

    def score_pixels(self, rgb: RGB, prompt: str) -> float:
        """A value of the model's own scale for a picture (uint8, (h, w, 3)); from ``threshold`` on it agrees."""
        ...


class Embedder(Protocol):
    """Turns a picture into a vector; pictures that mean the same have vectors of one direction."""

    name: str
    size: int
    threshold: float

    def embed(self, rgb: RGB) -> NDArray[np.float32]:
        """float32, (size,), of length 1, for a picture (uint8, (h, w, 3))."""
        ...
