"""The generation seam: a pipeline that turns a task into one medium."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gas.types import MediaType, Modality

__all__ = ["GeneratedMedium", "GenerationTask", "Pipeline"]


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """What a validator asks for.

    Attributes:
        modality: Kind of medium.
        prompt: What it should show; untrusted text.
        seed: Makes the pipeline's draws repeatable; chosen by the miner from the task's id.
        parameters: Further wishes, e.g. ``resolution``.
    """

    modality: Modality
    prompt: str
    seed: int
    parameters: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GeneratedMedium:
    """An encoded, not yet signed medium."""

    data: bytes
    mime: str
    media_type: MediaType
    model: str
    """Name of the model that made it, for the C2PA manifest."""


class Pipeline(Protocol):
    """Makes media; loaded once, called many times from one thread."""

    name: str
    modalities: frozenset[Modality]

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Make one medium.

        Raises:
            gas.errors.RequestRefused: The task asks for something this pipeline can't do.
            gas.errors.InfrastructureError: The pipeline failed.
        """
        ...
