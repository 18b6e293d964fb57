"""The common part of every hosted service: what is let in, what a job's id holds, what comes out."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from gas.errors import ConfigurationError, MediaRejected, RequestRefused, ServiceUnavailable
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.services.kit.http import ProviderClient
from gas.generation.services.kit.media import Source, check_medium, open_for_sending
from gas.generation.services.kit.replies import prompt_too_long
from gas.generation.services.kit.settings import OFF, ProviderSettings
from gas.types import MediaType, Modality

__all__ = ["HostedService", "Ticket", "media_type_of", "need_key", "used_models"]

_JOB_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,255}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What must be known of a job after a restart; its text is the :class:`gas.generation.base.Job`'s id.

    Attributes:
        modality: Kind of medium.
        media_type: Synthetic, or semisynthetic where a picture was given.
        model: Who makes it.
        id: The provider's name for it.
    """

    modality: Modality
    media_type: MediaType
    model: str
    id: str

    def __str__(self) -> str:
        return f"{self.modality}:{self.media_type}:{self.model}:{self.id}"

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read a job's id.

        Raises:
            ServiceUnavailable: It was not written by a hosted service.
        """
        head, _, job = text.rpartition(":")
        parts = head.split(":", 2)
        if len(parts) == 3 and _JOB_ID.fullmatch(job):
            try:
                return cls(Modality(parts[0]), MediaType(parts[1]), parts[2], job)
            except ValueError:
                pass
        raise ServiceUnavailable("The id of a job can't be read.", hint="Was it made by another service?")


class HostedService:
    """A service that is asked over HTTP; a provider's own class says how.

    Args:
        client: Calls to the provider.
        settings: The provider's.
        models: Model of each modality that it makes.
    """

    name = ""
    edits = False
    paid = True

    def __init__(self, client: ProviderClient, settings: ProviderSettings, models: dict[Modality, str]) -> None:
        self.modalities = frozenset(models)
        self._client = client
        self._models = models
        self._poll_seconds = settings.service_poll_seconds
        self._account = client.account

    async def close(self) -> None:
        """Let connections go."""
        await self._client.close()

    def _admit(self, task: GenerationTask, limit: int, *, utf16: bool = False) -> str:
        """The model for a task that can be asked for.

        Args:
            task: What a validator asks for.
            limit: Length of the longest prompt: the provider's own.
            utf16: Whether the provider counts UTF-16 units instead of characters.

        Raises:
            RequestRefused: 422 ``unsupported_modality``, ``bad_prompt`` or ``prompt_too_long``.
        """
        label = self._account.label
        if task.modality not in self._models:
            raise RequestRefused(f"{label} makes no {task.modality} here.", status=422, code="unsupported_modality")
        try:
            units = len(task.prompt.encode("utf-16-le")) // 2
        except UnicodeEncodeError:
            raise RequestRefused("The prompt is no proper text.", status=422, code="bad_prompt") from None
        if not task.prompt.strip() or "\0" in task.prompt:
            raise RequestRefused("The prompt is empty, or no proper text.", status=422, code="bad_prompt")
        if (units if utf16 else len(task.prompt)) > limit:
            raise prompt_too_long(label, limit)
        return self._models[task.modality]

    async def _source(self, task: GenerationTask, most_pixels: int) -> Source | None:
        """The task's picture, ready to be sent.

        Raises:
            RequestRefused: 422 ``bad_source`` or ``bad_mask``.
        """
        if task.source is None:
            return None
        return await asyncio.to_thread(open_for_sending, task.source, most_pixels=most_pixels)

    async def _finished(
        self, data: bytes, modality: Modality, media_type: MediaType, model: str, mask: bytes | None = None
    ) -> GeneratedMedium:
        """A medium that came in the answer to a paid call, once it has proved to be one.

        Raises:
            ServiceUnavailable: It is none.
        """
        try:
            mime = await asyncio.to_thread(check_medium, data, modality)
        except MediaRejected as error:
            raise ServiceUnavailable(
                f"{self._account.label} made no usable {modality}: {error.message}",
                hint="It may have been charged for.",
            ) from None
        return GeneratedMedium(data, mime, media_type, f"{self.name}/{model}", mask)

    async def _fetched(self, url: str, ticket: Ticket) -> GeneratedMedium:
        """The medium of a job, fetched from where the provider says; another time where that fails."""
        data, mime = await self._client.bring(url, ticket.modality)
        return GeneratedMedium(data, mime, ticket.media_type, f"{self.name}/{ticket.model}")

    async def _fetched_now(self, url: str, task: GenerationTask, model: str) -> GeneratedMedium:
        """The medium that the answer to a paid call gives an address for.

        Raises:
            ServiceUnavailable: ``provider_uncertain``: it can't be fetched, and another order would be paid again.
        """
        try:
            return await self._fetched(url, Ticket(task.modality, media_type_of(task), model, "-"))
        except ServiceUnavailable as error:
            raise ServiceUnavailable(error.message, code="provider_uncertain", hint="It was charged for.") from None

    def _job(self, task: GenerationTask, model: str, job_id: object, usual_pause: float) -> Job:
        """The job that a provider has begun.

        Raises:
            ServiceUnavailable: It gave no name that could be asked for.
        """
        if not isinstance(job_id, str) or not _JOB_ID.fullmatch(job_id):
            raise ServiceUnavailable(
                f"{self._account.label} began a job and gave no id for it; it may be charged for.",
                code="provider_uncertain",
            )
        ticket = Ticket(task.modality, media_type_of(task), model, job_id)
        return Job(str(ticket), self._poll_seconds or usual_pause)


def media_type_of(task: GenerationTask) -> MediaType:
    """Semisynthetic where a picture is given."""
    return MediaType.SYNTHETIC if task.source is None else MediaType.SEMISYNTHETIC


def need_key(key: SecretStr, variable: str, service: str) -> SecretStr:
    """The key, once there is one.

    Raises:
        ConfigurationError: ``missing_key``.
    """
    if not key.get_secret_value():
        raise ConfigurationError(
            f"The service {service} needs {variable}.",
            code="missing_key",
            hint="Put it into the environment or the miner's .env file.",
        )
    return key


def used_models(image: str, video: str, audio: str) -> dict[Modality, str]:
    """The models of those modalities that aren't switched off."""
    named = {Modality.IMAGE: image, Modality.VIDEO: video, Modality.AUDIO: audio}
    return {modality: model for modality, model in named.items() if model != OFF}
