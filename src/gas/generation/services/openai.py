"""OpenAI, and gateways that speak its interface: pictures, edits of pictures, speech, and clips where there is a model.

Documentation: https://developers.openai.com/api/docs (images, speech, videos, error codes). OpenAI itself has shut its
Videos API down on 24 September 2026; ``OPENAI_VIDEO_MODEL`` is for gateways that still offer ``POST /videos``.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pydantic import Field, SecretStr

from gas.clock import Clock
from gas.errors import GasError, ServiceUnavailable
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.services.kit.base import HostedService, Ticket, media_type_of, need_key, used_models
from gas.generation.services.kit.http import JSON_BYTES, MEDIUM_JSON_BYTES, Body, ProviderClient
from gas.generation.services.kit.http import Field as FormField
from gas.generation.services.kit.media import MOST_BYTES, Source, from_base64
from gas.generation.services.kit.replies import (
    Account,
    Problem,
    account_error,
    moderation_refused,
    prompt_too_long,
)
from gas.generation.services.kit.settings import OFF, ProviderSettings, ServiceSettings
from gas.generation.services.kit.sizes import Offer, Wish, choose, choose_seconds, free_size, read_wish
from gas.types import Modality

__all__ = ["OpenAIService", "OpenAISettings", "open_service"]

_ACCOUNT: Final = Account("OpenAI", "OPENAI_API_KEY", "OPENAI_BASE_URL")
_PROMPT_LIMIT: Final = 32_000
_SPEECH_LIMIT: Final = 4096
_STANDARD: Final = [Offer(w, h, f"{w}x{h}") for w, h in ((1024, 1024), (1536, 1024), (1024, 1536))]
_CLIPS: Final = [Offer(w, h, f"{w}x{h}") for w, h in ((1280, 720), (720, 1280))]
_LARGE_CLIPS: Final = [Offer(w, h, f"{w}x{h}") for w, h in ((1792, 1024), (1024, 1792))]
_CLIP_SECONDS: Final = (4, 8, 12)
_MODERATION: Final = frozenset({"moderation_blocked", "content_policy_violation", "content_filter", "sentinel_block"})
_NO_CREDIT: Final = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated"}
)
_TOO_LONG: Final = frozenset({"string_above_max_length", "context_length_exceeded"})
_EDIT_PIXELS: Final = 3840 * 2160


class OpenAISettings(ProviderSettings):
    """Variables of OpenAI.

    Attributes:
        openai_api_key: The key.
        openai_base_url: The interface, with its version.
        openai_image_model: A GPT image model.
        openai_image_quality: ``low``, ``medium``, ``high`` ... or ``auto``; what a picture costs depends on it.
        openai_video_model: Model of a gateway's ``POST /videos``.
        openai_audio_model: Speech model.
        openai_voice: Who speaks when a task doesn't say.
    """

    openai_api_key: SecretStr = SecretStr("")
    openai_base_url: str = "https://api.openai.com/v1"
    openai_image_model: str = "gpt-image-2.5-flare"
    openai_image_quality: str = Field(default="medium", pattern="^[a-z]{1,16}$")
    openai_video_model: str = OFF
    openai_audio_model: str = "gpt-4o-mini-tts"
    openai_voice: str = Field(default="alloy", pattern="^[A-Za-z0-9_-]{1,64}$")


class OpenAIService(HostedService):
    """Pictures and speech in the answer itself, clips as jobs."""

    name = "openai"
    edits = True

    def __init__(self, client: ProviderClient, settings: OpenAISettings) -> None:
        models = used_models(settings.openai_image_model, settings.openai_video_model, settings.openai_audio_model)
        super().__init__(client, settings, models)
        self.edits = Modality.IMAGE in models
        self._quality = settings.openai_image_quality
        self._voice = settings.openai_voice

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """As :meth:`gas.generation.base.Service.submit`."""
        model = self._admit(task, _SPEECH_LIMIT if task.modality is Modality.AUDIO else _PROMPT_LIMIT)
        if task.modality is Modality.AUDIO:
            return await self._speech(task, model)
        if task.modality is Modality.VIDEO:
            return await self._clip(task, model)
        wish = read_wish(task)
        source = await self._source(task, _EDIT_PIXELS)
        if source is None:
            wanted = {"model": model, "prompt": task.prompt, "n": 1, "size": _picture_size(wish, model)}
            body = Body(json={**wanted, "quality": self._quality, "output_format": "png"})
            answer = await self._client.order("/images/generations", body, limit=MEDIUM_JSON_BYTES)
        else:
            body = self._edit(task, source, wish, model)
            answer = await self._client.order("/images/edits", body, limit=MEDIUM_JSON_BYTES)
        found = answer.fields(self._account).get("data")
        first = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
        data, url = from_base64(first.get("b64_json")), first.get("url")
        if data is None and isinstance(url, str) and url.startswith("http"):
            # GPT image models always answer in base64; gateways of other models may give an address.
            return await self._fetched_now(url, task, model)
        if data is None:
            raise answer.nonsense(self._account, "no picture")
        return await self._finished(data, task.modality, media_type_of(task), model)

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """As :meth:`gas.generation.base.Service.collect`."""
        ticket = Ticket.parse(job.id)
        video = await self._client.ask_fields(f"/videos/{ticket.id}")
        if video.get("status") == "completed":
            return await self._fetched(f"/videos/{ticket.id}/content", ticket)
        if video.get("status") == "failed":
            error = video.get("error")
            code = str(error.get("code", "")).lower() if isinstance(error, dict) else ""
            if code in _MODERATION:
                raise moderation_refused(self._account.label)
            raise ServiceUnavailable(f"{self._account.label} couldn't make the clip.")
        return None

    def _edit(self, task: GenerationTask, source: Source, wish: Wish, model: str) -> Body:
        asked = bool({"resolution", "tier", "width", "aspect_ratio"} & task.parameters.keys())
        parts: list[tuple[str, FormField]] = [
            ("model", (None, model)),
            ("prompt", (None, task.prompt)),
            ("n", (None, "1")),
            ("size", (None, _picture_size(wish, model) if asked else "auto")),
            ("quality", (None, self._quality)),
            ("output_format", (None, "png")),
            ("image", ("image.png", source.png, "image/png")),
        ]
        if source.cut_out_png is not None:
            # OpenAI reads the mask's transparency, where ours is white: see Source.cut_out_png.
            parts.append(("mask", ("mask.png", source.cut_out_png, "image/png")))
        return Body(form=parts)

    async def _speech(self, task: GenerationTask, model: str) -> GeneratedMedium:
        voice = read_wish(task, ("voice",)).voice or self._voice
        body = Body(
            json={"model": model, "input": task.prompt, "voice": voice, "response_format": "mp3"}, accept="audio/mpeg"
        )
        answer = await self._client.order("/audio/speech", body, limit=MOST_BYTES)
        if answer.is_page():
            raise answer.nonsense(self._account, "no sound")
        return await self._finished(answer.body, task.modality, media_type_of(task), model)

    async def _clip(self, task: GenerationTask, model: str) -> Job:
        wish = read_wish(task, ("duration",))
        offers = [*_CLIPS, *_LARGE_CLIPS] if model.endswith("-pro") else _CLIPS
        size = choose(wish, offers)
        parts: list[tuple[str, FormField]] = [
            ("model", (None, model)),
            ("prompt", (None, task.prompt)),
            ("size", (None, size.name)),
            ("seconds", (None, str(choose_seconds(wish, _CLIP_SECONDS, 4)))),
        ]
        source = await self._source(task, _EDIT_PIXELS)
        if source is not None:
            # The first frame must have the clip's own size.
            frame = await asyncio.to_thread(source.png_of, size.width, size.height)
            parts.append(("input_reference", ("image.png", frame, "image/png")))
        answer = await self._client.order("/videos", Body(form=parts), limit=JSON_BYTES)
        return self._job(task, model, answer.fields(self._account).get("id"), 10.0)


def open_service(settings: ServiceSettings, *, clock: Clock) -> OpenAIService:
    """Open the service.

    Raises:
        ConfigurationError: ``missing_key``, or a setting that is not acceptable.
    """
    ours = settings.read(OpenAISettings)
    key = need_key(ours.openai_api_key, _ACCOUNT.key_variable, OpenAIService.name)
    client = ProviderClient(_ACCOUNT, ours.openai_base_url, key, ours, clock=clock, verdict=_verdict)
    return OpenAIService(client, ours)


def _picture_size(wish: Wish, model: str) -> str:
    """Models from gpt-image-2 on make any size within bounds, earlier ones three."""
    if not model.startswith("gpt-image-2"):
        return choose(wish, _STANDARD).name
    width, height = free_size(wish, step=16, longest=3840, least_pixels=655_360, most_pixels=3840 * 2160)
    return f"{width}x{height}"


def _verdict(problem: Problem) -> GasError | None:
    if problem.names & _MODERATION:
        return moderation_refused(_ACCOUNT.label)
    if problem.names & _NO_CREDIT:
        return account_error("The account at OpenAI has no credit left.", "Top it up; tasks fail until then.")
    if problem.names & _TOO_LONG:
        return prompt_too_long(_ACCOUNT.label)
    if "model_not_found" in problem.names:
        return account_error("OpenAI doesn't know the model.", "Check OPENAI_IMAGE_MODEL and its like.")
    return None
