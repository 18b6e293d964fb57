"""Stability AI: pictures (Core, Ultra, Stable Diffusion 3.5), inpainting, image to image, and sound (Stable Audio).

Documentation: https://platform.stability.ai/docs/api-reference (v2beta: stable-image, audio, results). Its
image-to-video call is no longer offered, so this service makes no clips.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, Literal

from pydantic import SecretStr

from gas.clock import Clock
from gas.errors import GasError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.services.kit.base import HostedService, Ticket, media_type_of, need_key, used_models
from gas.generation.services.kit.http import Body, ProviderClient
from gas.generation.services.kit.http import Field as FormField
from gas.generation.services.kit.media import MOST_BYTES, Source
from gas.generation.services.kit.replies import Account, Answer, Problem, account_error, moderation_refused
from gas.generation.services.kit.settings import OFF, ProviderSettings, ServiceSettings
from gas.generation.services.kit.sizes import Wish, choose, offers_by_area, read_wish
from gas.generation.wishes import unsupported
from gas.types import Modality

__all__ = ["StabilityService", "StabilitySettings", "open_service"]

_ACCOUNT: Final = Account("Stability AI", "STABILITY_API_KEY", "STABILITY_BASE_URL")
_PROMPT_LIMIT: Final = 10_000
_RATIOS: Final = ("1:1", "16:9", "9:16", "3:2", "2:3", "5:4", "4:5", "21:9", "9:21")
_CORE_PIXELS: Final = 1_572_864
_OTHER_PIXELS: Final = 1_048_576
_EDIT_PIXELS: Final = 9_437_184
_MASK_GROWTH: Final = 5
_AUDIO_SECONDS: Final = (1, 190)
_USUAL_SECONDS: Final = 10
_USUAL_STRENGTH: Final = 0.7
_CREDITS: Final = re.compile(r"credit|balance", re.IGNORECASE)

ImageModel = Literal["core", "ultra", "sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sd3.5-flash", "none"]


class StabilitySettings(ProviderSettings):
    """Variables of Stability AI.

    Attributes:
        stability_api_key: The key.
        stability_base_url: The host; paths with their version are added.
        stability_image_model: What makes pictures. Edits with a mask are always made by the inpainting call.
        stability_audio_model: What makes sound.
    """

    stability_api_key: SecretStr = SecretStr("")
    stability_base_url: str = "https://api.stability.ai"
    stability_image_model: ImageModel = "core"
    stability_audio_model: Literal["stable-audio-2.5", "stable-audio-2", "none"] = "stable-audio-2.5"


class StabilityService(HostedService):
    """Everything in the answer itself; where the provider defers its work (status 202), a job."""

    name = "stabilityai"

    def __init__(self, client: ProviderClient, settings: StabilitySettings) -> None:
        models = used_models(settings.stability_image_model, OFF, settings.stability_audio_model)
        super().__init__(client, settings, models)
        self.edits = Modality.IMAGE in models

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        """As :meth:`gas.generation.base.Service.submit`."""
        model = self._admit(task, _PROMPT_LIMIT)
        if task.modality is Modality.AUDIO:
            path, parts, mask = (
                "/v2beta/audio/stable-audio-2/text-to-audio",
                _sound(read_wish(task, ("duration",))),
                None,
            )
            parts.append(("model", (None, model)))
        elif task.source is None:
            wish = read_wish(task, ("negative_prompt",))
            path, parts, mask = _picture_path(model), _picture(wish, model), None
        else:
            wish = read_wish(task, ("negative_prompt", "strength"))
            if {"resolution", "tier", "width", "aspect_ratio"} & task.parameters.keys():
                raise unsupported("A changed picture keeps its size.")
            source = await self._source(task, _EDIT_PIXELS)
            path, parts, mask, model = _edit(source, wish, model)
        parts.insert(0, ("prompt", (None, task.prompt)))
        accept = "audio/*" if task.modality is Modality.AUDIO else "image/*"
        answer = await self._client.order(path, Body(form=parts, accept=accept), limit=MOST_BYTES)
        if answer.status == 202:
            return self._job(task, model, answer.fields(self._account).get("id"), 10.0)
        return await self._taken(answer, task.modality, Ticket(task.modality, media_type_of(task), model, "-"), mask)

    async def collect(self, job: Job) -> GeneratedMedium | None:
        """As :meth:`gas.generation.base.Service.collect`."""
        ticket = Ticket.parse(job.id)
        answer = await self._client.ask(f"/v2beta/results/{ticket.id}", accept="*/*", limit=MOST_BYTES)
        if answer.status == 202:
            return None
        if answer.is_page():
            error = answer.nonsense(self._account, "")
            error.retry_after = 30.0
            raise error
        return await self._taken(answer, ticket.modality, ticket, None)

    async def _taken(self, answer: Answer, modality: Modality, ticket: Ticket, mask: bytes | None) -> GeneratedMedium:
        # A filtered picture comes with status 200, blurred.
        if answer.headers.get("finish-reason", "").strip().upper() == "CONTENT_FILTERED":
            raise moderation_refused(self._account.label)
        if answer.is_page() or not answer.body:
            raise answer.nonsense(self._account, f"no {modality}")
        medium = await self._finished(answer.body, modality, ticket.media_type, ticket.model, mask)
        # A mask of another size than the picture would say nothing true about it.
        return medium if mask is None or _size(mask) == _size(medium.data) else replace(medium, mask=None)


def open_service(settings: ServiceSettings, *, clock: Clock) -> StabilityService:
    """Open the service.

    Raises:
        ConfigurationError: ``missing_key``, or a setting that is not acceptable.
    """
    ours = settings.read(StabilitySettings)
    key = need_key(ours.stability_api_key, _ACCOUNT.key_variable, StabilityService.name)
    client = ProviderClient(
        _ACCOUNT,
        ours.stability_base_url,
        key,
        ours,
        clock=clock,
        verdict=_verdict,
        headers={"stability-client-id": "gas-generator"},
    )
    return StabilityService(client, ours)


def _picture_path(model: str) -> str:
    return f"/v2beta/stable-image/generate/{model if model in ('core', 'ultra') else 'sd3'}"


def _picture(wish: Wish, model: str) -> list[tuple[str, FormField]]:
    pixels = _CORE_PIXELS if model == "core" else _OTHER_PIXELS
    parts = _common(wish)
    parts.append(("aspect_ratio", (None, choose(wish, offers_by_area(_RATIOS, pixels)).name)))
    if model.startswith("sd3"):
        parts += [("model", (None, model)), ("mode", (None, "text-to-image"))]
    return parts


def _edit(source: Source | None, wish: Wish, model: str) -> tuple[str, list[tuple[str, FormField]], bytes | None, str]:
    """Path, form, the mask of what changes, and the model of an edit."""
    if source is None:
        raise unsupported("There is no picture to change.")
    parts = [*_common(wish), ("image", ("image.png", source.png, "image/png"))]
    if source.mask_png is not None:
        if wish.strength is not None:
            raise unsupported("Inpainting takes no strength.")
        parts += [("mask", ("mask.png", source.mask_png, "image/png")), ("grow_mask", (None, str(_MASK_GROWTH)))]
        return "/v2beta/stable-image/edit/inpaint", parts, source.grown_mask(_MASK_GROWTH), "inpaint"
    parts.append(("strength", (None, f"{wish.strength or _USUAL_STRENGTH:g}")))
    if model == "ultra":
        return _picture_path(model), parts, None, model
    model = model if model.startswith("sd3") else "sd3.5-large"
    parts += [("model", (None, model)), ("mode", (None, "image-to-image"))]
    return _picture_path(model), parts, None, model


def _common(wish: Wish) -> list[tuple[str, FormField]]:
    parts: list[tuple[str, FormField]] = [("output_format", (None, "png")), ("seed", (None, str(wish.seed)))]
    if wish.negative_prompt:
        parts.append(("negative_prompt", (None, wish.negative_prompt)))
    return parts


def _size(picture: bytes) -> tuple[int, int]:
    from gas.media.image import probe_image

    return probe_image(picture)


def _sound(wish: Wish) -> list[tuple[str, FormField]]:
    least, most = _AUDIO_SECONDS
    seconds = wish.seconds or _USUAL_SECONDS
    if seconds > most:
        raise unsupported(f"A sound can have {most} seconds at most.")
    return [
        ("output_format", (None, "mp3")),
        ("seed", (None, str(wish.seed))),
        ("duration", (None, f"{max(least, seconds):g}")),
    ]


def _verdict(problem: Problem) -> GasError | None:
    if "content_moderation" in problem.names:
        return moderation_refused(_ACCOUNT.label)
    if problem.status == 403 and "moderation" in problem.message.lower():
        return moderation_refused(_ACCOUNT.label)
    if problem.status in (400, 402, 422) and _CREDITS.search(problem.message):
        return account_error("The account at Stability AI has no credit left.", "Top it up; tasks fail until then.")
    if problem.status == 413:
        return RequestRefused("The picture is too large for Stability AI.", status=422, code="bad_source")
    return None
