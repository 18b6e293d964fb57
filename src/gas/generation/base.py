"""The generation seams: a pipeline makes one medium here and now; a service may make it elsewhere, later, for money."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gas.types import MediaType, Modality

__all__ = ["GeneratedMedium", "GenerationTask", "Job", "Pipeline", "Service", "SourceImage"]


@dataclass(frozen=True, slots=True)
class SourceImage:
    """A picture to be changed, for semisynthetic media.

    Attributes:
        data: Its encoded bytes; untrusted.
        mask: An encoded greyscale picture of the same size, white where the medium is to change; None for everywhere.
    """

    data: bytes
    mask: bytes | None = None


@dataclass(frozen=True, slots=True)
class GenerationTask:
    """What a validator asks for.

    Attributes:
        modality: Kind of medium.
        prompt: What it should show or say; untrusted text.
        seed: Makes the pipeline's draws repeatable; chosen by the miner from the task's id.
        parameters: Further wishes, e.g. ``resolution``.
        source: The picture to change (``/mod_image``); None to make a medium from nothing.
    """

    modality: Modality
    prompt: str
    seed: int
    parameters: dict[str, object] = field(default_factory=dict)
    source: SourceImage | None = None


@dataclass(frozen=True, slots=True)
class GeneratedMedium:
    """An encoded, not yet signed medium.

    Attributes:
        data: Its bytes.
        mime: Their type, e.g. ``image/png``.
        media_type: Synthetic, or semisynthetic where a real picture was changed.
        model: Name of the model that made it, for the C2PA manifest.
        mask: PNG, white where a semisynthetic picture was changed; None when it isn't known.
        signed: Whether the provider has signed it with C2PA already.
    """

    data: bytes
    mime: str
    media_type: MediaType
    model: str
    mask: bytes | None = None
    signed: bool = False


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


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that runs at a provider.

    Attributes:
        id: The provider's name for it; enough, together with the operator's key, to ask for it after a restart.
        poll_seconds: Pause before it is asked for, and between two such questions.
    """

    id: str
    poll_seconds: float = 2.0


class Service(Protocol):
    """A source of media behind the miner: a local pipeline, or a provider that is asked over HTTP.

    A service is used from one event loop. Whoever calls :meth:`submit` keeps a mark of it before, and the job's id
    after, so that a restart neither asks nor pays twice: a job is polled again, and a paid call that was cut off
    before its answer is never repeated.

    Attributes:
        name: As the operator names it, e.g. ``openai``.
        modalities: What it makes.
        edits: Whether it takes :attr:`GenerationTask.source`.
        paid: Whether a call of :meth:`submit` costs money, so that it must not be repeated.
    """

    name: str
    modalities: frozenset[Modality]
    edits: bool
    paid: bool

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """Ask for a medium; a provider that works at once gives it back, another one gives a job.

        Raises:
            gas.errors.RequestRefused: 422; the prompt or its parameters can't be served (``moderation_refused``,
                ``unsupported_parameters`` ...): told to the validator.
            gas.errors.ServiceUnavailable: Not now, or not with this account. With ``retry_after`` nothing has been
                paid, and the same may be asked again then. Without it the task has ended: ``provider_account`` was not
                charged; ``provider_failed`` (an answer that holds no medium) and ``provider_uncertain`` (no answer)
                may have been, so neither is ever asked again.
            gas.errors.InfrastructureError: A local pipeline failed.
        """
        ...

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """The medium of a job; None while it is being made. May be repeated: it costs nothing.

        Raises:
            gas.errors.RequestRefused: As in :meth:`submit`.
            gas.errors.ServiceUnavailable: As in :meth:`submit`; with ``retry_after`` the job may still come.
        """
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...
