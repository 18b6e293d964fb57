"""Semisynthetic pictures on a CPU: a photo whose masked region, or the whole of it, the small diffusion model repaints.

Outside the mask the photo keeps its pixels, so the mask is exact.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from gas.clock import derive_rng
from gas.errors import ConfigurationError, InfrastructureError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask, SourceImage
from gas.generation.cascade import MODEL, SIDE, Given, label_of, load_cascade, picture_of, stage_noises, tensor_of
from gas.generation.library import load_library, pick_photo
from gas.generation.sources import Canvas, draw_mask, open_source, resized
from gas.generation.wishes import read_wishes
from gas.media.image import RGB, encode_png
from gas.media.masks import Mask
from gas.types import MediaType, Modality

__all__ = ["RepaintPipeline"]

_MOST_PIXELS: Final = 2048 * 2048
_OWN_PIXELS: Final = 1024 * 1024
_MARGIN: Final = 0.8
"""Half of the side of the region that the net sees, over the longer side of the mask."""


class RepaintPipeline:
    """Repaints a region, or all, of a picture; implements :class:`gas.generation.base.Pipeline`.

    With a mask only its region is repainted and the picture keeps its size (up to 2048x2048 pixels; a larger one is
    shrunk). Without, the picture's central square is repainted at 256x256 pixels. A task without a source takes a photo
    of the library, and the pipeline for regions then draws a mask itself.

    Args:
        library: Folder of the operator's photos, for tasks without a source; without it they are refused.
        masked: Whether the pipeline is for regions (``inpainting``) or for whole pictures (``image-to-image``).
        steps: Steps of the base net, 4..100.
        refiner_steps: Steps of each doubling, 1..50.
        guidance: How much the prompt's category pulls; 1 is the plain model.
        strength: How much is painted anew where the task doesn't say; 1 inside a mask and 0.5 for a whole picture
            when left out.

    Raises:
        ConfigurationError: A number is out of its range, weights are missing, or the library is not usable.
    """

    modalities = frozenset({Modality.IMAGE})
    edits = True

    def __init__(
        self,
        library: Path | None = None,
        *,
        masked: bool = True,
        steps: int = 16,
        refiner_steps: int = 5,
        guidance: float = 2.0,
        strength: float | None = None,
    ) -> None:
        if not (4 <= steps <= 100 and 1 <= refiner_steps <= 50 and 0 <= guidance <= 10 and 0 < (strength or 1) <= 1):
            raise ConfigurationError("The inpainting's steps, guidance or strength are out of their range.")
        self.name = "inpainting" if masked else "image-to-image"
        self._masked, self._strength = masked, strength
        self._photos = load_library(library) if library is not None else ()
        self._cascade = load_cascade()
        self._steps, self._refiner_steps, self._guidance = steps, refiner_steps, guidance

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Repaint a picture; the same task gives the same picture on the same machine.

        Raises:
            RequestRefused: 422 ``wrong_modality``, ``needs_source``, ``bad_source``, ``bad_mask`` or
                ``unsupported_parameters``.
            InfrastructureError: A photo of the library can't be read.
        """
        if task.modality is not Modality.IMAGE:
            raise RequestRefused("This pipeline makes pictures only.", status=422, code="wrong_modality")
        wishes = read_wishes(task)
        rng = derive_rng(task.seed, self.name, task.prompt)
        canvas = self._own(task, rng) if task.source is None else open_source(task.source, _MOST_PIXELS)
        strength = wishes.strength or self._strength
        if canvas.mask is None:
            canvas = Canvas(_central_square(canvas.pixels), None)
            painted = self._paint(canvas.pixels, None, task, rng, strength or 0.5)
        else:
            painted = canvas.pixels.copy()
            top, left, bottom, right = _region(canvas.mask)
            part, mask = canvas.pixels[top:bottom, left:right], canvas.mask[top:bottom, left:right]
            painted[top:bottom, left:right] = self._paint(part, mask, task, rng, strength or 1.0)
            painted = canvas.keep_outside(painted)
        return GeneratedMedium(encode_png(painted), "image/png", MediaType.SEMISYNTHETIC, MODEL, canvas.mask_png())

    def _own(self, task: GenerationTask, rng: np.random.Generator) -> Canvas:
        """A photo of the library, with a mask where the pipeline is for regions."""
        if not self._photos:
            raise RequestRefused("This pipeline needs a picture to change.", status=422, code="needs_source")
        photo = pick_photo(self._photos, task.prompt, rng)
        try:
            canvas = open_source(SourceImage(photo.path.read_bytes()), _OWN_PIXELS)
        except (OSError, RequestRefused) as error:
            raise InfrastructureError("A photo of the library can't be read.", code="library") from error
        height, width = canvas.pixels.shape[:2]
        return Canvas(canvas.pixels, draw_mask(height, width, rng) if self._masked else None)

    def _paint(
        self,
        part: RGB,
        mask: Mask | None,
        task: GenerationTask,
        rng: np.random.Generator,
        strength: float,
    ) -> RGB:
        """The part repainted, of the same size."""
        pictures = tensor_of(resized(np.ascontiguousarray(part), SIDE, SIDE))
        known_mask = None
        if mask is not None:
            scaled = resized(mask * np.uint8(255), SIDE, SIDE)
            known_mask = torch.from_numpy((scaled > 0).astype(np.float32))[None, None]
        image = self._cascade.paint(
            stage_noises(rng, 1),
            labels=[label_of(task.prompt)],
            steps=self._steps,
            refiner_steps=self._refiner_steps,
            guidance=self._guidance,
            given=Given(pictures, known_mask, strength),
        )[0]
        return resized(picture_of(image), part.shape[1], part.shape[0])


def _region(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of what the net sees: the mask and its surroundings, a square where there is room."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    half = int(_MARGIN * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1, 40))
    middle, centre = int(rows[0] + rows[-1]) // 2, int(columns[0] + columns[-1]) // 2
    height, width = mask.shape
    top, bottom = max(0, middle - half), min(height, middle + half)
    left, right = max(0, centre - half), min(width, centre + half)
    return (
        min(top, int(rows[0])),
        min(left, int(columns[0])),
        max(bottom, int(rows[-1]) + 1),
        max(right, int(columns[-1]) + 1),
    )


def _central_square(pixels: RGB) -> RGB:
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resized(np.ascontiguousarray(pixels[top : top + side, left : left + side]), SIDE, SIDE)
