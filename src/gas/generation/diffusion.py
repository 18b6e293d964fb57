"""A small diffusion model of the project's own: paints 32x32 pixels, then doubles the side three times.

The weights are in this package; ``training/diffusion.py`` made them and prints their figures. They know five coarse
categories (food, portrait, scene, object, animal), which are read from the prompt's words, and nothing finer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gas.clock import derive_rng
from gas.errors import ConfigurationError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.cascade import MODEL, Cascade, label_of, load_cascade, picture_of, stage_noises
from gas.generation.network import UNet
from gas.generation.wishes import read_wishes
from gas.media.image import encode_png
from gas.types import MediaType, Modality

__all__ = ["DiffusionPipeline", "paint"]


class DiffusionPipeline:
    """Makes pictures of 256x256 pixels from noise.

    Args:
        weights: Folder of ``diffusion_base.safetensors`` and ``diffusion_refiner.safetensors``; those of this
            package when left out.
        steps: Steps of the base net, 4..100.
        refiner_steps: Steps of each doubling, 1..50.
        guidance: How much the category pulls; 1 is the plain model.

    Raises:
        ConfigurationError: The weights are missing or don't fit, or a number is out of its range.
    """

    name = "diffusion"
    modalities = frozenset({Modality.IMAGE})

    def __init__(
        self, *, weights: Path | None = None, steps: int = 16, refiner_steps: int = 5, guidance: float = 2.0
    ) -> None:
        if not (4 <= steps <= 100 and 1 <= refiner_steps <= 50 and 0 <= guidance <= 10):
            raise ConfigurationError("The diffusion model's steps or guidance are out of their range.")
        self._cascade = load_cascade(weights)
        self._steps, self._refiner_steps, self._guidance = steps, refiner_steps, guidance

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Paint a picture of the prompt's category; the same task gives the same picture on the same machine.

        Raises:
            RequestRefused: Not a picture that is asked for, or a parameter is out of its bounds.
        """
        return self.generate_many([task])[0]

    def generate_many(self, tasks: Sequence[GenerationTask]) -> list[GeneratedMedium]:
        """Paint several pictures in one batch; in a batch the last bits may differ.

        Raises:
            RequestRefused: As :meth:`generate`, for any of them.
        """
        for task in tasks:
            if task.modality is not Modality.IMAGE:
                raise RequestRefused("This pipeline makes pictures only.", status=422, code="wrong_modality")
            read_wishes(task)
        images = self._cascade.paint(
            [
                torch.cat(stage)
                for stage in zip(
                    *(stage_noises(derive_rng(task.seed, "diffusion", task.prompt), 1) for task in tasks), strict=True
                )
            ],
            labels=[label_of(task.prompt) for task in tasks],
            steps=self._steps,
            refiner_steps=self._refiner_steps,
            guidance=self._guidance,
        )
        return [
            GeneratedMedium(encode_png(picture_of(image)), "image/png", MediaType.SYNTHETIC, MODEL) for image in images
        ]


def paint(
    base: UNet,
    refiner: UNet,
    rng: np.random.Generator,
    *,
    labels: list[int],
    steps: int,
    refiner_steps: int,
    guidance: float,
) -> Tensor:
    """Sample pictures.

    Args:
        base: The net that paints.
        refiner: The net that doubles.
        rng: Where the noise comes from.
        labels: Category of each picture; the number of categories means none.
        steps: Of the base net.
        refiner_steps: Of each doubling.
        guidance: Strength of classifier-free guidance (Ho and Salimans 2022).

    Returns:
        (n, 3, 256, 256) float32 in [-1, 1].
    """
    return Cascade(base, refiner).paint(
        stage_noises(rng, len(labels)), labels=labels, steps=steps, refiner_steps=refiner_steps, guidance=guidance
    )
