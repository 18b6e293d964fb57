"""A small diffusion model of the project's own: paints 32x32 pixels, then doubles the side three times.

The weights are in this package; ``training/diffusion.py`` made them and prints their figures. They know five coarse
categories (food, portrait, scene, object, animal), which are read from the prompt's words, and nothing finer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gas.clock import derive_rng
from gas.errors import ConfigurationError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.network import BASE_SIDE, LEVELS, UNet, enlarge, integrate, load_net
from gas.generation.prompts import Category, category_of
from gas.media.image import encode_png
from gas.types import MediaType, Modality

__all__ = ["DiffusionPipeline", "paint"]

_CATEGORIES: Final = tuple(Category)
_MODEL: Final = "GAS small diffusion 1"


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
        folder = weights or Path(__file__).parent / "weights"
        self._base = load_net(folder / "diffusion_base.safetensors")
        self._refiner = load_net(folder / "diffusion_refiner.safetensors")
        if self._base.config.labels != len(_CATEGORIES) or self._refiner.config.labels != LEVELS:
            raise ConfigurationError("The diffusion model's weights are of another version.")
        self._steps, self._refiner_steps, self._guidance = steps, refiner_steps, guidance

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Paint a picture of the prompt's category; the same task gives the same picture on the same machine.

        Raises:
            RequestRefused: Not a picture that is asked for.
        """
        if task.modality is not Modality.IMAGE:
            raise RequestRefused("This pipeline makes pictures only.", status=422, code="wrong_modality")
        rng = derive_rng(task.seed, "diffusion", task.prompt)
        category = category_of(task.prompt)
        label = len(_CATEGORIES) if category is None else _CATEGORIES.index(category)
        image = paint(
            self._base,
            self._refiner,
            rng,
            labels=[label],
            steps=self._steps,
            refiner_steps=self._refiner_steps,
            guidance=self._guidance,
        )[0]
        pixels = (image.permute(1, 2, 0).numpy() * 127.5 + 128).clip(0, 255).astype(np.uint8)
        return GeneratedMedium(encode_png(np.ascontiguousarray(pixels)), "image/png", MediaType.SYNTHETIC, _MODEL)


@torch.inference_mode()
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
    n = len(labels)
    label = torch.tensor(labels)
    nothing = torch.full((n,), base.config.labels)

    def guided(x: Tensor, t: float) -> Tensor:
        # Both questions in one batch: small grids leave a core half idle.
        both: Tensor = base(torch.cat([x, x]), torch.full((2 * n,), t), torch.cat([label, nothing]))
        toward, plain = both.chunk(2)
        return plain + guidance * (toward - plain)

    image = integrate(guided, _noise(rng, n, BASE_SIDE), steps) * base.config.scales[0] + base.config.mean
    for level in range(LEVELS):
        condition = enlarge(image.clamp(-1, 1))
        levels = torch.full((n,), level)

        def detailed(x: Tensor, t: float, condition: Tensor = condition, levels: Tensor = levels) -> Tensor:
            velocity: Tensor = refiner(x, torch.full((n,), t), levels, condition)
            return velocity

        detail = integrate(detailed, _noise(rng, n, condition.shape[-1]), refiner_steps)
        image = condition + detail * refiner.config.scales[level]
    return image.clamp(-1, 1)


def _noise(rng: np.random.Generator, n: int, side: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal((n, 3, side, side), dtype=np.float32))
