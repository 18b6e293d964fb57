"""Runway: pictures, clips from text or from a first frame, and speech; everything as tasks that are asked after.

Documentation: https://docs.dev.runwayml.com (API reference of version 2024-11-06, HTTP errors, task failures, limits).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import AliasChoices, Field, SecretStr

from gas.clock import Clock
from gas.errors import GasError, RequestRefused, ServiceUnavailable
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.services.kit.base import HostedService, Ticket, need_key, used_models
from gas.generation.services.kit.http import JSON_BYTES, Body, ProviderClient
from gas.generation.services.kit.replies import Account, Problem, account_error, moderation_refused
from gas.generation.services.kit.settings import ProviderSettings, ServiceSettings
from gas.generation.services.kit.sizes import Offer, Wish, choose, choose_seconds, read_wish
from gas.generation.wishes import unsupported
from gas.types import Modality

__all__ = ["API_VERSION", "RunwayService", "RunwaySettings", "open_service"]

API_VERSION: Final = "2024-11-06"
"""Sent as ``X-Runway-Version``."""

_ACCOUNT: Final = Account("Runway", "RUNWAYML_API_SECRET", "RUNWAY_BASE_URL")
_POLL_SECONDS: Final = 5.0
_FRAME_PIXELS: Final = 1920 * 1080
_CREDITS: Final = re.compile(r"credits?\b", re.IGNORECASE)


def _offers(ratios: str) -> tuple[Offer, ...]:
    sizes = (ratio.split(":") for ratio in ratios.split())
    return tuple(Offer(int(width), int(height), f"{width}:{height}") for width, height in sizes)


@dataclass(frozen=True, slots=True)
class _Model:
    """What a model takes.

    Attributes:
        prompt: Characters (UTF-16 units) of the longest prompt.
        sizes: Of what it makes from text.
        framed: Of what it makes from a first frame.
        seconds: Durations of a clip.
        usual: Seconds when a task doesn't say.
        seeded: Whether it takes a seed.
    """

    prompt: int
    sizes: tuple[Offer, ...]
    framed: tuple[Offer, ...] = ()
    seconds: Sequence[int] = ()
    usual: int = 0
    seeded: bool = True


_WIDE_OR_TALL: Final = _offers("1280:720 720:1280")
_VEO: Final = _offers("1280:720 720:1280 1080:1920 1920:1080")
_MODELS: Final[Mapping[str, _Model]] = {
    "gen4_image": _Model(
        1000,
        _offers(
            "1024:1024 1080:1080 1168:880 1360:768 1440:1080 1080:1440 1808:768 1920:1080 1080:1920 2112:912 1280:720 "
            "720:1280 720:720 960:720 720:960 1680:720"
        ),
    ),
    "gpt_image_2": _Model(
        32_000,
        _offers(
            "2048:880 1920:1088 1920:1280 1920:1440 1920:1536 1920:1920 1536:1920 1440:1920 1280:1920 1088:1920 "
            "2912:1248 2560:1440 2560:1712 2560:1920 2560:2048 2560:2560 2048:2560 1920:2560 1712:2560 1440:2560 "
            "3840:1648 3840:2160 3504:2336 3264:2448 3200:2560 2880:2880 2560:3200 2448:3264 2336:3504 2160:3840"
        ),
        seeded=False,
    ),
    "gen4.5": _Model(
        1000, _WIDE_OR_TALL, _offers("1280:720 720:1280 1104:832 960:960 832:1104 1584:672"), range(2, 11), 5
    ),
    "veo3.1": _Model(1000, _VEO, _VEO, (4, 6, 8), 4),
    "veo3.1_fast": _Model(1000, _VEO, _VEO, (4, 6, 8), 4),
    "eleven_multilingual_v2": _Model(1000, (), seeded=False),
}


class RunwaySettings(ProviderSettings):
    """Variables of Runway.

    Attributes:
        runwayml_api_secret: The key, also read from ``RUNWAY_API_KEY``.
        runway_base_url: The host; also read from ``RUNWAYML_BASE_URL``.
        runway_image_model: What makes pictures.
        runway_video_model: What makes clips.
        runway_audio_model: What speaks.
        runway_voice: A preset voice, when a task doesn't name one.
    """

    runwayml_api_secret: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("RUNWAYML_API_SECRET", "RUNWAY_API_KEY")
    )
    runway_base_url: str = Field(
        default="https://api.dev.runwayml.com", validation_alias=AliasChoices("RUNWAY_BASE_URL", "RUNWAYML_BASE_URL")
    )
    runway_image_model: Literal["gen4_image", "gpt_image_2", "none"] = "gen4_image"
    runway_video_model: Literal["gen4.5", "veo3.1", "veo3.1_fast", "none"] = "gen4.5"
    runway_audio_model: Literal["eleven_multilingual_v2", "none"] = "eleven_multilingual_v2"
    runway_voice: str = Field(default="Maya", pattern="^[A-Za-z]{1,32}$")


class RunwayService(HostedService):
    """Every medium is a task at the provider. A picture can be a clip's first frame, but can't itself be changed."""

    name = "runway"

    def __init__(self, client: ProviderClient, settings: RunwaySettings) -> None:
        models = used_models(settings.runway_image_model, settings.runway_video_model, settings.runway_audio_model)
        super().__init__(client, settings, models)
        self._voice = settings.runway_voice

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """As :meth:`gas.generation.base.Service.submit`."""
        name = self._models.get(task.modality, "")
        limit = _MODELS[name].prompt if name else 0
        model = self._admit(task, limit, utf16=True)
        wished: dict[str, object] = {"model": model, "promptText": task.prompt}
        if task.modality is Modality.IMAGE:
            if task.source is not None:
                raise unsupported("Runway doesn't change pictures here.")
            path, wish = "/v1/text_to_image", read_wish(task)
            wished["ratio"] = choose(wish, _MODELS[model].sizes).name
        elif task.modality is Modality.VIDEO:
            path, wish = await self._clip(task, wished, _MODELS[model])
        else:
            path, wish = "/v1/text_to_speech", read_wish(task, ("voice",))
            wished["voice"] = {"type": "runway-preset", "presetId": wish.voice or self._voice}
        if _MODELS[model].seeded:
            wished["seed"] = wish.seed
        answer = await self._client.order(path, Body(json=wished), limit=JSON_BYTES)
        return self._job(task, model, answer.fields(self._account).get("id"), _POLL_SECONDS)

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """As :meth:`gas.generation.base.Service.collect`."""
        ticket = Ticket.parse(job.id)
        fields = await self._client.ask_fields(f"/v1/tasks/{ticket.id}")
        status = fields.get("status")
        if status == "SUCCEEDED":
            output = fields.get("output")
            url = output[0] if isinstance(output, list) and output else None
            if not isinstance(url, str) or url.startswith("/"):
                raise ServiceUnavailable("Runway says that it has made it, and not where it lies.")
            return await self._fetched(url, ticket)
        if status == "FAILED":
            raise _failure(str(fields.get("failureCode") or ""))
        if status in ("CANCELLED", "DELETED"):
            raise ServiceUnavailable("The task was cancelled at Runway.")
        return None

    async def _clip(self, task: GenerationTask, wished: dict[str, object], model: _Model) -> tuple[str, Wish]:
        wish = read_wish(task, ("duration",))
        wished["duration"] = choose_seconds(wish, model.seconds, model.usual)
        source = await self._source(task, _FRAME_PIXELS)
        if source is None:
            wished["ratio"] = choose(wish, model.sizes).name
            return "/v1/text_to_video", wish
        if source.mask_png is not None:
            raise unsupported("A clip's first frame takes no mask.")
        wished["ratio"] = choose(wish, model.framed).name
        wished["promptImage"] = await asyncio.to_thread(source.data_url)
        return "/v1/image_to_video", wish


def open_service(settings: ServiceSettings, *, clock: Clock) -> RunwayService:
    """Open the service.

    Raises:
        ConfigurationError: ``missing_key``, or a setting that is not acceptable.
    """
    ours = settings.read(RunwaySettings)
    key = need_key(ours.runwayml_api_secret, _ACCOUNT.key_variable, RunwayService.name)
    client = ProviderClient(
        _ACCOUNT,
        ours.runway_base_url,
        key,
        ours,
        clock=clock,
        verdict=_verdict,
        headers={"X-Runway-Version": API_VERSION},
        # Runway's own list of errors says of 504 that it may be tried again.
        uncertain=frozenset({520, 524}),
    )
    return RunwayService(client, ours)


def _failure(code: str) -> GasError:
    """The error of a failed task, by the documented beginnings of its code."""
    parts = code.upper().split(".")
    if "SAFETY" in parts:
        return moderation_refused(_ACCOUNT.label)
    if parts[0] == "ASSET":
        return RequestRefused("Runway can't use the picture.", status=422, code="bad_source")
    known = ".".join(part for part in parts[:3] if part.isidentifier())
    return ServiceUnavailable(f"Runway couldn't make it ({known or 'no reason given'}).")


def _verdict(problem: Problem) -> GasError | None:
    if problem.status == 400 and _CREDITS.search(problem.message):
        return account_error("The account at Runway has no credit left.", "Top it up; tasks fail until then.")
    if problem.status == 400 and "moderation" in problem.message.lower():
        return moderation_refused(_ACCOUNT.label)
    if problem.status == 429 and problem.retry_after is None:
        # A task beyond the concurrency limit waits at Runway; 429 is the limit of a day.
        return ServiceUnavailable(
            "Runway's limit of generations a day is reached.",
            code="provider_busy",
            hint="Tasks are tried again later; the usage tier in Runway's developer portal sets the limit.",
            retry_after=120.0,
        )
    return None
