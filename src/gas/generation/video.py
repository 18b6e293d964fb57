"""Short clips on a CPU: a walk through the noise of the small diffusion model.

What it is, honestly: every frame is a picture of the model, and from frame to frame its noise turns by a few degrees,
so that one picture changes smoothly into another. Nothing moves through a scene as in a video model's clip.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from gas.clock import derive_rng
from gas.errors import ConfigurationError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.cascade import MODEL, SIDE, Given, label_of, load_cascade, picture_of, stage_noises, tensor_of
from gas.generation.sources import open_source, resized
from gas.generation.wishes import read_wishes
from gas.media.encode import encode_mp4
from gas.media.image import RGB
from gas.types import MediaType, Modality

__all__ = ["WalkPipeline"]

_BATCH: Final = 8
"""Frames that are painted at a time: more take memory and no less time."""

_MOST_PIXELS: Final = 4096 * 4096


class WalkPipeline:
    """Makes clips of 256x256 pixels; implements :class:`gas.generation.base.Pipeline`.

    With a source the walk is one around that picture: its central square, changed a little differently in each frame.

    Args:
        frames: Of a clip when the task doesn't say, 2..121.
        fps: Frames a second when the task doesn't say, 1..60.
        steps: Steps of the base net, 4..100.
        refiner_steps: Steps of each doubling, 1..50; nearly all of the time.
        guidance: How much the category pulls.
        turn: Degrees by which the noise turns from the first frame to the last, above 0 to 90.

    Raises:
        ConfigurationError: A number is out of its range, or the weights are missing.
    """

    name = "video"
    modalities = frozenset({Modality.VIDEO})
    edits = True

    def __init__(
        self,
        *,
        frames: int = 24,
        fps: float = 12.0,
        steps: int = 12,
        refiner_steps: int = 2,
        guidance: float = 2.0,
        turn: float = 45.0,
    ) -> None:
        fits = 2 <= frames <= 121 and 1 <= fps <= 60 and 4 <= steps <= 100 and 1 <= refiner_steps <= 50
        if not fits or not 0 <= guidance <= 10 or not 0 < turn <= 90:
            raise ConfigurationError("The walk's frames, steps, guidance or turn are out of their range.")
        self._cascade = load_cascade()
        self._frames, self._fps, self._turn = frames, fps, turn
        self._steps, self._refiner_steps, self._guidance = steps, refiner_steps, guidance

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Make a clip; the same task gives the same bytes on the same machine.

        Raises:
            RequestRefused: 422 ``wrong_modality``, ``bad_source`` or ``unsupported_parameters``.
        """
        if task.modality is not Modality.VIDEO:
            raise RequestRefused("This pipeline makes videos only.", status=422, code="wrong_modality")
        wishes = read_wishes(task)
        picture = None
        if task.source is not None:
            pixels = open_source(task.source, _MOST_PIXELS).pixels
            side = min(pixels.shape[:2])
            top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
            picture = tensor_of(resized(pixels[top : top + side, left : left + side], SIDE, SIDE))
        fps = wishes.fps or self._fps
        frames = self._walk(task, wishes.frames_of(self._frames, fps), picture, wishes.strength or 0.4)
        data = encode_mp4(frames, fps, crf=18)
        media_type = MediaType.SYNTHETIC if picture is None else MediaType.SEMISYNTHETIC
        return GeneratedMedium(data, "video/mp4", media_type, f"{MODEL}, noise walk")

    def _walk(self, task: GenerationTask, count: int, picture: Tensor | None, strength: float) -> list[RGB]:
        rng = derive_rng(task.seed, "walk", task.prompt)
        start, end = stage_noises(rng, 1), stage_noises(rng, 1)
        frames: list[RGB] = []
        for first in range(0, count, _BATCH):
            indices = range(first, min(count, first + _BATCH))
            angles = [math.radians(self._turn) * i / max(1, count - 1) for i in indices]
            # Turning between two independent draws keeps the noise standard normal in every frame.
            noises = [
                torch.cat([math.cos(a) * one + math.sin(a) * other for a in angles])
                for one, other in zip(start, end, strict=True)
            ]
            given = None if picture is None else Given(picture.repeat(len(angles), 1, 1, 1), None, strength)
            images = self._cascade.paint(
                noises,
                labels=[label_of(task.prompt)] * len(angles),
                steps=self._steps,
                refiner_steps=self._refiner_steps,
                guidance=self._guidance,
                given=given,
            )
            frames += [picture_of(image) for image in images]
        return frames
