"""OpenRouter: pictures out of chat completions, edits of pictures, clips as jobs, speech.

Documentation: https://openrouter.ai/docs (multimodal image generation, video generation, errors and debugging).
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Final

from pydantic import Field, SecretStr

from gas.clock import Clock
from gas.errors import GasError, RequestRefused, ServiceUnavailable
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.services.kit.base import HostedService, Ticket, media_type_of, need_key, used_models
from gas.generation.services.kit.http import JSON_BYTES, MEDIUM_JSON_BYTES, Body, ProviderClient
from gas.generation.services.kit.media import MOST_BYTES, from_data_url
from gas.generation.services.kit.replies import (
    Account,
    Answer,
    Problem,
    account_error,
    moderation_refused,
    prompt_too_long,
)
from gas.generation.services.kit.settings import OFF, ProviderSettings, ServiceSettings
from gas.generation.services.kit.sizes import Offer, Wish, choose, offers_by_area, read_wish
from gas.generation.wishes import unsupported
from gas.types import Modality

__all__ = ["OpenRouterService", "OpenRouterSettings", "open_service"]

_ACCOUNT: Final = Account("OpenRouter", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL")
# No length is documented, models differ: this bounds what is sent, and a model's own limit comes back as an error.
_PROMPT_LIMIT: Final = 32_000
_SPEECH_LIMIT: Final = 4096
_RATIOS: Final = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_CLIPS: Final = [
    Offer(width, height, f"{name} {shape}")
    for name, side in (("480p", 480), ("720p", 720), ("1080p", 1080))
    for shape, width, height in (
        ("16:9", side * 16 // 9, side),
        ("9:16", side, side * 16 // 9),
        ("1:1", side, side),
    )
]
_LONGEST_CLIP: Final = 30
_EDIT_PIXELS: Final = 2048 * 2048
_BLOCKED: Final = re.compile(r"content.?filter|safety|prohibited|moderat|blocklist|policy", re.IGNORECASE)
_TOO_LONG: Final = frozenset({"context_length_exceeded", "string_too_long", "token_limit_exceeded"})


class OpenRouterSettings(ProviderSettings):
    """Variables of OpenRouter.

    Attributes:
        openrouter_api_key: The key.
        openrouter_base_url: The interface, with its version.
        openrouter_image_model: A model that lists ``image`` among its output modalities.
        openrouter_image_only: True for models that put out pictures and no text (Flux and the like).
        openrouter_video_model: A model of ``GET /videos/models``.
        openrouter_audio_model: A model that speaks.
        openrouter_voice: Who speaks when a task doesn't say; the model's own when left out.
    """

    openrouter_api_key: SecretStr = SecretStr("")
    openrouter_base_url: str = "https://openrouter.ai/api/v1"
    openrouter_image_model: str = "google/gemini-3.1-flash-image"
    openrouter_image_only: bool = False
    openrouter_video_model: str = OFF
    openrouter_audio_model: str = OFF
    openrouter_voice: str = Field(default="", pattern="^[A-Za-z0-9_-]{0,64}$")


class OpenRouterService(HostedService):
    """Pictures and speech in the answer itself, clips as jobs."""

    name = "openrouter"

    def __init__(self, client: ProviderClient, settings: OpenRouterSettings) -> None:
        models = used_models(
            settings.openrouter_image_model, settings.openrouter_video_model, settings.openrouter_audio_model
        )
        super().__init__(client, settings, models)
        self.edits = Modality.IMAGE in models
        self._modalities_out = ["image"] if settings.openrouter_image_only else ["image", "text"]
        self._voice = settings.openrouter_voice

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """As :meth:`gas.generation.base.Service.submit`."""
        model = self._admit(task, _SPEECH_LIMIT if task.modality is Modality.AUDIO else _PROMPT_LIMIT)
        if task.modality is Modality.AUDIO:
            return await self._speech(task, model)
        if task.modality is Modality.VIDEO:
            return await self._clip(task, model)
        return await self._picture(task, model)

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """As :meth:`gas.generation.base.Service.collect`."""
        ticket = Ticket.parse(job.id)
        fields = await self._client.ask_fields(f"/videos/{ticket.id}")
        status = fields.get("status")
        if status == "completed":
            return await self._fetched(f"/videos/{ticket.id}/content?index=0", ticket)
        if status in ("failed", "cancelled", "expired"):
            if _BLOCKED.search(str(fields.get("error", ""))):
                raise moderation_refused(self._account.label)
            raise ServiceUnavailable(f"{self._account.label} couldn't make the clip: it {_ENDS[str(status)]}.")
        return None

    async def _picture(self, task: GenerationTask, model: str) -> GeneratedMedium:
        wish = read_wish(task)
        content: list[dict[str, object]] = [{"type": "text", "text": task.prompt}]
        if task.source is not None:
            if task.source.mask is not None:
                raise unsupported("OpenRouter's models can't keep to a mask.")
            source = await self._source(task, _EDIT_PIXELS)
            url = await asyncio.to_thread(source.data_url, 20_000_000) if source is not None else ""
            content.append({"type": "image_url", "image_url": {"url": url}})
        asked: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": content if task.source else task.prompt}],
            "modalities": self._modalities_out,
            "seed": wish.seed % 2**31,
        }
        shape = _shape(wish, task)
        if shape:
            asked["image_config"] = shape
        answer = await self._client.order("/chat/completions", Body(json=asked), limit=MEDIUM_JSON_BYTES)
        url = self._picture_url(answer)
        if not url.startswith("data:"):
            return await self._fetched_now(url, task, model)
        data = await asyncio.to_thread(from_data_url, url)
        if data is None:
            raise answer.nonsense(self._account, "a picture that can't be read")
        return await self._finished(data, task.modality, media_type_of(task), model)

    def _picture_url(self, answer: Answer) -> str:
        """Where the picture of a completion is; errors inside a 200 answer become what they stand for."""
        fields = answer.fields(self._account)
        self._raise_inner(fields, answer)
        choices = fields.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        self._raise_inner(choice, answer)
        message = choice.get("message")
        images = message.get("images") if isinstance(message, dict) else None
        if isinstance(images, list) and images and isinstance(images[0], dict):
            inner = images[0].get("image_url")
            url = inner.get("url") if isinstance(inner, dict) else None
            if isinstance(url, str) and url:
                return url
        reasons = f"{choice.get('finish_reason')} {choice.get('native_finish_reason')}"
        if _BLOCKED.search(reasons) or (isinstance(message, dict) and message.get("refusal")):
            raise moderation_refused(self._account.label)
        raise answer.nonsense(self._account, "words and no picture")

    def _raise_inner(self, fields: dict[str, object], answer: Answer) -> None:
        error = fields.get("error")
        if not isinstance(error, dict):
            return
        code = error.get("code")
        raise self._client.inner_error(code if isinstance(code, int) and 400 <= code < 600 else 502, error, answer)

    async def _speech(self, task: GenerationTask, model: str) -> GeneratedMedium:
        voice = read_wish(task, ("voice",)).voice or self._voice
        asked: dict[str, object] = {"model": model, "input": task.prompt, "response_format": "mp3"}
        if voice:
            asked["voice"] = voice
        answer = await self._client.order("/audio/speech", Body(json=asked, accept="audio/mpeg"), limit=MOST_BYTES)
        if answer.is_page():
            raise answer.nonsense(self._account, "no sound")
        return await self._finished(answer.body, task.modality, media_type_of(task), model)

    async def _clip(self, task: GenerationTask, model: str) -> Job:
        wish = read_wish(task, ("duration",))
        resolution, _, ratio = choose(wish, _CLIPS).name.partition(" ")
        asked: dict[str, object] = {
            "model": model,
            "prompt": task.prompt,
            "resolution": resolution,
            "aspect_ratio": ratio,
            "seed": wish.seed % 2**31,
        }
        if wish.seconds is not None:
            if wish.seconds > _LONGEST_CLIP:
                raise unsupported(f"A video can have {_LONGEST_CLIP} seconds at most.")
            asked["duration"] = max(1, round(wish.seconds))
        source = await self._source(task, _EDIT_PIXELS)
        if source is not None:
            frame = {"type": "image_url", "image_url": {"url": source.data_url()}, "frame_type": "first_frame"}
            asked["frame_images"] = [frame]
        answer = await self._client.order("/videos", Body(json=asked), limit=JSON_BYTES)
        return self._job(task, model, answer.fields(self._account).get("id"), 15.0)


_ENDS: Final = {"failed": "failed", "cancelled": "was cancelled", "expired": "has expired"}


def open_service(settings: ServiceSettings, *, clock: Clock) -> OpenRouterService:
    """Open the service.

    Raises:
        ConfigurationError: ``missing_key``, or a setting that is not acceptable.
    """
    ours = settings.read(OpenRouterSettings)
    key = need_key(ours.openrouter_api_key, _ACCOUNT.key_variable, OpenRouterService.name)
    client = ProviderClient(_ACCOUNT, ours.openrouter_base_url, key, ours, clock=clock, verdict=_verdict)
    return OpenRouterService(client, ours)


def _shape(wish: Wish, task: GenerationTask) -> dict[str, str]:
    """``image_config`` for what a task asks for; empty where it asks for nothing, for models that take none."""
    if not {"resolution", "tier", "width", "aspect_ratio"} & task.parameters.keys():
        return {}
    offers = [
        replace(offer, name=f"{name} {offer.name}")
        for name, side in (("1K", 1024), ("2K", 2048), ("4K", 4096))
        for offer in offers_by_area(_RATIOS, side * side, step=16)
    ]
    size, _, ratio = choose(wish, offers).name.partition(" ")
    # Models without sizes refuse the field, and 1K is what all make unasked.
    return {"aspect_ratio": ratio} if size == "1K" else {"aspect_ratio": ratio, "image_size": size}


def _verdict(problem: Problem) -> GasError | None:
    if problem.names & _TOO_LONG:
        return prompt_too_long(_ACCOUNT.label)
    if problem.status == 403 and problem.flagged:
        return moderation_refused(_ACCOUNT.label)
    if any(_BLOCKED.search(name) for name in problem.names):
        return moderation_refused(_ACCOUNT.label)
    if problem.status == 402 and problem.retry_after is None:
        return account_error("The account at OpenRouter has no credit left.", "Top it up; tasks fail until then.")
    if problem.status == 402:
        # With Retry-After it is a limit on what may run at a time, not an empty account.
        return ServiceUnavailable(
            "OpenRouter has as much of ours in flight as the account allows.",
            code="provider_busy",
            retry_after=problem.retry_after,
        )
    if problem.status == 403:
        return account_error("OpenRouter doesn't allow this call to the key.", "Check its limits and guardrails.")
    if problem.status == 400 and "not a valid model" in problem.message.lower():
        return account_error("OpenRouter doesn't know the model.", "Check OPENROUTER_IMAGE_MODEL and its like.")
    if problem.status == 413:
        return RequestRefused("The picture is too large for OpenRouter.", status=422, code="bad_source")
    return None
