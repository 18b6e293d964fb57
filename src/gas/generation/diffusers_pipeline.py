"""Any diffusers pipeline as one of ours: pictures from text, pictures and masks, and videos from text or a picture."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gas.errors import InfrastructureError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.diffusers_load import LoadedModel, Role, quietly
from gas.generation.memory import out_of_memory
from gas.generation.sources import Canvas, open_source, resized
from gas.generation.wishes import Wishes, read_wishes
from gas.media.image import RGB, encode_png
from gas.types import MediaType, Modality

if TYPE_CHECKING:
    pass

__all__ = ["Defaults", "DiffusersPipeline"]

_STEP: Final = 32
"""Sides that every architecture takes are multiples of this; what is painted beyond the size is cut off."""

_FAILURES: Final = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
# What the libraries raise when a model and a call don't fit each other.


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a task leaves the choice; None leaves it to the model.

    Attributes:
        size: Width and height, pixels.
        most_pixels: A picture or frame has no more of them, whatever tier is asked for: a model paints badly, and
            runs out of memory, far above the size that it was trained for.
        steps: Of the diffusion.
        guidance: How much the prompt pulls.
        negative_prompt: What not to show.
        frames: Of a video.
        fps: Frames a second.
        strength: How much of a source is changed, above 0 to 1.
    """

    size: tuple[int, int] | None = None
    most_pixels: int | None = None
    steps: int | None = None
    guidance: float | None = None
    negative_prompt: str = ""
    frames: int | None = None
    fps: float | None = None
    strength: float | None = None


class DiffusersPipeline:
    """Makes media with a loaded diffusers model; implements :class:`gas.generation.base.Pipeline`.

    The same task gives the same bytes on the same machine, device and versions. In a batch the last bits may differ.

    Args:
        model: The loaded model.
        defaults: What holds where a task leaves the choice.
    """

    def __init__(self, model: LoadedModel, defaults: Defaults | None = None) -> None:
        self.name = f"diffusers:{model.title}"
        self.modalities = frozenset({Modality.VIDEO if role.is_video else Modality.IMAGE for role in model.roles})
        self.edits = any(role.needs_source for role in model.roles)
        self.device = str(model.device)
        self._model, self._defaults = model, defaults or Defaults()

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Make one medium.

        A picture that is changed keeps its size, and what lies outside its mask keeps its value to the pixel.

        Raises:
            RequestRefused: 422 ``wrong_modality``, ``needs_source``, ``edits_not_offered``, ``unsupported_parameters``,
                ``bad_source``, ``bad_mask``, or ``moderation_refused`` when the model's own checker objects.
            InfrastructureError: ``out_of_memory`` or ``pipeline_failed``.
        """
        return self.generate_many([task])[0]

    def generate_many(self, tasks: Sequence[GenerationTask]) -> list[GeneratedMedium]:
        """Make several media in one batch where they allow it: no sources, and the same parameters.

        Raises:
            RequestRefused: As :meth:`generate`, for any of them.
            InfrastructureError: As :meth:`generate`.
        """
        first = tasks[0]
        alike = all(
            task.source is None and task.parameters == first.parameters and task.modality is first.modality
            for task in tasks
        )
        if len(tasks) > 1 and not alike:
            return [self.generate(task) for task in tasks]
        role, wishes = self._role(first), read_wishes(first)
        if role.needs_source:
            if first.source is None:
                raise RequestRefused("This model needs a picture to start from.", status=422, code="needs_source")
            # Around a mask the picture is delivered as it came, however small the part is that the model can paint.
            whole = first.source.mask is not None and not role.is_video
            canvas = open_source(first.source, None if whole else self._most_pixels(role))
            return [self._change(role, first, wishes, canvas)]
        width, height = self._size(role, wishes)
        made = self._call(role, tasks, wishes, width, height, {})
        media = []
        for one in made:
            frames = [_cut(frame, width, height) for frame in one]
            media.append(self._encode(role, frames, wishes, MediaType.SYNTHETIC, None))
        return media

    def _role(self, task: GenerationTask) -> Role:
        """What the model has to do for a task."""
        if task.modality not in self.modalities:
            raise RequestRefused(f"This model makes no {task.modality}.", status=422, code="wrong_modality")
        wanted: tuple[Role, ...]
        if task.source is None:
            wanted = (
                (Role.TEXT_TO_VIDEO, Role.IMAGE_TO_VIDEO)
                if task.modality is Modality.VIDEO
                else (Role.TEXT_TO_IMAGE, Role.IMAGE_TO_IMAGE, Role.INPAINTING)
            )
        elif task.modality is Modality.VIDEO:
            wanted = (Role.IMAGE_TO_VIDEO,)
        elif task.source.mask is not None:
            # A model without inpainting changes the whole picture, and only the masked part of that is taken.
            wanted = (Role.INPAINTING, Role.IMAGE_TO_IMAGE)
        else:
            wanted = (Role.IMAGE_TO_IMAGE, Role.INPAINTING)
        for role in wanted:
            if role in self._model.roles:
                return role
        raise RequestRefused("This model changes no pictures.", status=422, code="edits_not_offered")

    def _change(self, role: Role, task: GenerationTask, wishes: Wishes, canvas: Canvas) -> GeneratedMedium:
        height, width = canvas.pixels.shape[:2]
        if role is Role.IMAGE_TO_VIDEO and (wishes.size or wishes.tier_size):
            width, height = self._size(role, wishes)
        factor = min(1.0, math.sqrt(self._most_pixels(role) / (width * height)))
        wide, high = _rounded(max(_STEP, int(width * factor))), _rounded(max(_STEP, int(height * factor)))
        inputs: dict[str, object] = {"image": Image.fromarray(resized(canvas.pixels, wide, high))}
        if role is Role.INPAINTING:
            mask = np.ones((1, 1), np.uint8) if canvas.mask is None else canvas.mask
            inputs["mask_image"] = Image.fromarray(mask * np.uint8(255)).resize((wide, high), Image.Resampling.NEAREST)
        painted = self._call(role, [task], wishes, wide, high, inputs)[0]
        frames = [resized(frame, width, height) for frame in painted]
        if role is Role.IMAGE_TO_VIDEO:
            return self._encode(role, frames, wishes, MediaType.SEMISYNTHETIC, None)
        kept = canvas.keep_outside(frames[0])
        return self._encode(role, [kept], wishes, MediaType.SEMISYNTHETIC, canvas.mask_png())

    def _call(
        self,
        role: Role,
        tasks: Sequence[GenerationTask],
        wishes: Wishes,
        width: int,
        height: int,
        inputs: Mapping[str, object],
    ) -> list[list[RGB]]:
        """Frames of each medium (a picture is one), of the rounded size."""
        import torch

        pipe, chosen = self._model.roles[role], self._defaults
        names = inspect.signature(pipe.__call__).parameters
        generators = [torch.Generator("cpu").manual_seed(task.seed % 2**63) for task in tasks]
        steps = wishes.steps or chosen.steps
        strength = wishes.strength or chosen.strength or self._model.number(role, "strength")
        if strength is not None and steps is not None:
            # Only this share of the steps is done, and at least one must be.
            steps = max(steps, math.ceil(1 / strength))
        guidance = wishes.guidance if wishes.guidance is not None else chosen.guidance
        negative = wishes.negative_prompt or chosen.negative_prompt
        fps = self._fps(role, wishes)
        many = len(tasks) > 1
        offered: dict[str, object] = {
            "prompt": [_clean(t.prompt) for t in tasks] if many else _clean(tasks[0].prompt),
            "negative_prompt": ([_clean(negative)] * len(tasks) if many else _clean(negative)) if negative else None,
            "width": _rounded(width),
            "height": _rounded(height),
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "max_guidance_scale": guidance,
            "strength": strength,
            "generator": generators if many else generators[0],
            "output_type": "np",
            **inputs,
        }
        if role.is_video:
            offered |= {"num_frames": self._frames_painted(role, wishes), "frame_rate": int(fps), "fps": int(fps)}
        given = {name: value for name, value in offered.items() if name in names and value is not None}
        try:
            with quietly(), torch.inference_mode():
                answer = pipe(**given)
        except MemoryError as error:
            raise _failure(error, self._model.title) from error
        except _FAILURES as error:
            raise _failure(error, self._model.title) from error
        flags = getattr(answer, "nsfw_content_detected", None)
        if isinstance(flags, list) and any(flags):
            raise RequestRefused("The model's safety checker objects.", status=422, code="moderation_refused")
        made = getattr(answer, "frames" if role.is_video else "images", None)
        pictures = _pixels(made, role, len(tasks), self._model.title)
        if role.is_video:
            wanted = self._frames(role, wishes)
            return [list(one[:wanted]) for one in pictures]
        return [[one] for one in pictures]

    def _encode(
        self, role: Role, frames: list[RGB], wishes: Wishes, media_type: MediaType, mask: bytes | None
    ) -> GeneratedMedium:
        if not role.is_video:
            return GeneratedMedium(encode_png(frames[0]), "image/png", media_type, self._model.title, mask)
        from gas.media.encode import encode_mp4

        data = encode_mp4(frames, self._fps(role, wishes), crf=18)
        return GeneratedMedium(data, "video/mp4", media_type, self._model.title)

    def _most_pixels(self, role: Role) -> int:
        if self._defaults.most_pixels:
            return self._defaults.most_pixels
        width, height = self._defaults.size or self._model.native_size(role)
        return width * height

    def _size(self, role: Role, wishes: Wishes) -> tuple[int, int]:
        """Width and height that are delivered: the numbers asked for, or the tier as far as the model reaches."""
        wanted = wishes.size or wishes.tier_size or self._defaults.size or self._model.native_size(role)
        most = self._most_pixels(role)
        factor = min(1.0, math.sqrt(most / (wanted[0] * wanted[1])))
        width, height = (max(_STEP, int(side * factor)) for side in wanted)
        if not role.is_video:
            return width, height
        # 4:2:0 colour needs even sides.
        return width - width % 2, height - height % 2

    def _frames(self, role: Role, wishes: Wishes) -> int:
        return wishes.frames_of(self._defaults.frames or self._model.native_frames(role), self._fps(role, wishes))

    def _frames_painted(self, role: Role, wishes: Wishes) -> int:
        """The next number of frames that the model's video autoencoder can hold."""
        ratio = self._model.frame_ratio(role)
        return math.ceil((self._frames(role, wishes) - 1) / ratio) * ratio + 1

    def _fps(self, role: Role, wishes: Wishes) -> float:
        return wishes.fps or self._defaults.fps or self._model.native_fps(role)


def _pixels(made: object, role: Role, count: int, title: str) -> list[NDArray[np.uint8]]:
    """uint8 (h, w, 3) or (frames, h, w, 3) of each medium, from what a pipeline gives for ``output_type="np"``."""
    try:
        values = [np.asarray(one, dtype=np.float32) for one in made]  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise InfrastructureError(f"The model {title} gave no pictures.", code="pipeline_failed") from error
    dims = 4 if role.is_video else 3
    if len(values) != count or any(v.ndim != dims or v.shape[-1] != 3 or v.size == 0 for v in values):
        raise InfrastructureError(f"The model {title} gave no pictures.", code="pipeline_failed")
    if not all(np.isfinite(v).all() for v in values):
        raise InfrastructureError(
            f"The model {title} gave values that are not numbers.",
            code="pipeline_failed",
            hint="Try another dtype: half precision is too narrow for some models.",
        )
    return [np.ascontiguousarray((v.clip(0, 1) * 255 + 0.5).astype(np.uint8)) for v in values]


def _failure(error: Exception, title: str) -> InfrastructureError:
    if out_of_memory(error):
        return InfrastructureError(
            f"There is not enough memory for the model {title}.",
            code="out_of_memory",
            hint="Ask for smaller media, or a smaller batch.",
        )
    kind = type(error).__name__
    return InfrastructureError(f"The model {title} failed ({kind}: {str(error)[:200]}).", code="pipeline_failed")


def _rounded(side: int) -> int:
    return math.ceil(side / _STEP) * _STEP


def _cut(frame: RGB, width: int, height: int) -> RGB:
    """The middle of a frame that is a little larger."""
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def _clean(text: str) -> str:
    """One line of printable characters: tokenizers fail on surrogates, and see no sense in control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
