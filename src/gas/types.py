"""The words of the field, shared by every floor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

__all__ = [
    "RAO_PER_TAO",
    "TERMINAL_STATES",
    "Hotkey",
    "MediaType",
    "Modality",
    "Provenance",
    "Rao",
    "Sample",
    "SampleStatus",
    "SubmissionState",
    "Vertical",
]

Hotkey = NewType("Hotkey", str)
"""An SS58 address: who signs, mines, validates and is paid."""

Rao = NewType("Rao", int)
"""An amount of money; 10**9 rao are one tao."""

RAO_PER_TAO: Final = 10**9


class Modality(StrEnum):
    """What kind of medium a detector looks at or a generator makes."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


class MediaType(StrEnum):
    """How a medium came about."""

    REAL = "real"
    SYNTHETIC = "synthetic"
    SEMISYNTHETIC = "semisynthetic"

    @property
    def label(self) -> int:
        """Three-class label: 0 real, 1 synthetic, 2 semisynthetic."""
        return _LABELS[self]

    @property
    def is_fake(self) -> bool:
        """Binary label: synthetic and semisynthetic media are fake."""
        return self is not MediaType.REAL


_LABELS: Final = {MediaType.REAL: 0, MediaType.SYNTHETIC: 1, MediaType.SEMISYNTHETIC: 2}


class Provenance(StrEnum):
    """Where a round's sample comes from; a competition may give each class a share of the score."""

    PUBLIC = "public"
    HOLDOUT = "holdout"
    ARENA = "arena"


class Vertical(StrEnum):
    """The specialisation in which a detector competes."""

    GENERAL = "general"
    HUMAN = "human"


class SampleStatus(StrEnum):
    """How the evaluation of one sample ended.

    ``MODEL_ERROR`` counts as a wrong answer. ``MEDIA_ERROR`` is our fault: the sample is left out for every
    model of the round alike.
    """

    OK = "ok"
    MODEL_ERROR = "model_error"
    MEDIA_ERROR = "media_error"


class SubmissionState(StrEnum):
    """Life of a submission, from upload to a terminal state."""

    UPLOADED = "uploaded"
    SCANNING = "scanning"
    REJECTED = "rejected"
    EXAMINING = "examining"
    EXAM_FAILED = "exam_failed"
    BLOCKED = "blocked"
    CONFIRMED = "confirmed"
    QUEUED = "queued"
    RUNNING = "running"
    SCORED = "scored"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


TERMINAL_STATES: Final = frozenset(
    {
        SubmissionState.REJECTED,
        SubmissionState.EXAM_FAILED,
        SubmissionState.BLOCKED,
        SubmissionState.SCORED,
        SubmissionState.FAILED,
        SubmissionState.WITHDRAWN,
    }
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One medium of a round, and everything a referee may know about it.

    None of these fields ever reaches a submitted model.

    Attributes:
        sample_id: Hex SHA-256 of the medium's bytes in the blob store; unique in a round.
        modality: Which decoder reads it.
        media_type: Ground truth.
        provenance: Public, holdout or arena: decides the sample's share of the score.
        dataset: Name of the data set or arena set it was taken from.
        source: Cluster for the bootstrap and for per-source rates: a package of photos, or a generator.
        origin: Hex SHA-256 of the photo that the medium derives from; for arena media, of the medium as it was
            delivered; the sample's own id where neither is known. Splits never tear media of one origin apart.
        generator_hotkey: Who made it, for arena media; None otherwise.
    """

    sample_id: str
    modality: Modality
    media_type: MediaType
    provenance: Provenance
    dataset: str
    source: str
    origin: str
    generator_hotkey: Hotkey | None = None
