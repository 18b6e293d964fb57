"""The small diffusion model as a cascade: 32 pixels from noise, doubled three times; whole pictures, parts, and walks.

A picture that is there already takes part in two ways. *Strength* (SDEdit, Meng et al. 2022): each stage starts from
the picture with that share of noise, instead of from noise alone. *Mask*: outside it the velocity is not the net's but
the one that leads to the picture, so that both sides of the border grow together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from gas.errors import ConfigurationError
from gas.generation.network import BASE_SIDE, LEVELS, UNet, enlarge, integrate, load_net
from gas.generation.prompts import Category, category_of
from gas.media.image import RGB

__all__ = ["MODEL", "SIDE", "Cascade", "Given", "label_of", "load_cascade", "picture_of", "stage_noises", "tensor_of"]

MODEL: Final = "GAS small diffusion 1"
"""Name of the model in content credentials."""

SIDE: Final = BASE_SIDE << LEVELS
"""Side of its pictures, pixels."""

_CATEGORIES: Final = tuple(Category)
_Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Given:
    """What is there already.

    Attributes:
        pictures: (n, 3, SIDE, SIDE) float32 in [-1, 1].
        mask: (n, 1, SIDE, SIDE) float32, 1 where the picture is to change and 0 elsewhere; None for everywhere.
        strength: How much is painted anew where it is to change, above 0 to 1.
    """

    pictures: Tensor
    mask: Tensor | None = None
    strength: float = 1.0


@dataclass(frozen=True, slots=True)
class Cascade:
    """Both nets.

    Attributes:
        base: Paints 32x32 pixels for a category.
        refiner: Doubles a side.
    """

    base: UNet
    refiner: UNet

    @torch.inference_mode()
    def paint(
        self,
        noises: list[Tensor],
        *,
        labels: list[int],
        steps: int,
        refiner_steps: int,
        guidance: float,
        given: Given | None = None,
    ) -> Tensor:
        """Sample pictures.

        Args:
            noises: Standard normal, one tensor a stage: (n, 3, side, side) for sides 32, 64, 128 and 256.
            labels: Category of each picture; the number of categories means none.
            steps: Of the base net.
            refiner_steps: Of each doubling.
            guidance: Strength of classifier-free guidance (Ho and Salimans 2022).
            given: What is there already.

        Returns:
            (n, 3, 256, 256) float32 in [-1, 1].
        """
        base, refiner = self.base, self.refiner
        n = len(labels)
        label = torch.tensor(labels)
        nothing = torch.full((n,), base.config.labels)

        def guided(x: Tensor, t: float) -> Tensor:
            # Both questions in one batch: small grids leave a core half idle.
            both: Tensor = base(torch.cat([x, x]), torch.full((2 * n,), t), torch.cat([label, nothing]))
            toward, plain = both.chunk(2)
            return plain + guidance * (toward - plain)

        def stage(velocity: _Velocity, noise: Tensor, count: int, known: Tensor | None, side: int) -> Tensor:
            if given is None or known is None:
                return integrate(velocity, noise, count)
            begin = (1 - given.strength) * known + given.strength * noise
            if given.mask is None:
                return integrate(velocity, begin, count, given.strength)
            mask = functional.adaptive_max_pool2d(given.mask, side)
            path = noise - known
            return integrate(lambda x, t: mask * velocity(x, t) + (1 - mask) * path, begin, count, given.strength)

        scale, mean = base.config.scales[0], base.config.mean
        known = None if given is None else (_shrunk(given.pictures, BASE_SIDE) - mean) / scale
        image = stage(guided, noises[0], steps, known, BASE_SIDE) * scale + mean
        for level in range(LEVELS):
            condition = enlarge(image.clamp(-1, 1))
            levels = torch.full((n,), level)
            side = condition.shape[-1]

            def detailed(x: Tensor, t: float, condition: Tensor = condition, levels: Tensor = levels) -> Tensor:
                velocity: Tensor = refiner(x, torch.full((n,), t), levels, condition)
                return velocity

            scale = refiner.config.scales[level]
            known = None if given is None else (_shrunk(given.pictures, side) - condition) / scale
            image = condition + stage(detailed, noises[level + 1], refiner_steps, known, side) * scale
        return image.clamp(-1, 1)


def load_cascade(folder: Path | None = None) -> Cascade:
    """Load both nets.

    Args:
        folder: Of ``diffusion_base.safetensors`` and ``diffusion_refiner.safetensors``; this package's when left out.

    Raises:
        ConfigurationError: The weights are missing or don't fit.
    """
    folder = folder or Path(__file__).parent / "weights"
    base, refiner = load_net(folder / "diffusion_base.safetensors"), load_net(folder / "diffusion_refiner.safetensors")
    if base.config.labels != len(_CATEGORIES) or refiner.config.labels != LEVELS:
        raise ConfigurationError("The diffusion model's weights are of another version.")
    return Cascade(base, refiner)


def label_of(prompt: str) -> int:
    """The category that a prompt's words name, as the base net's label."""
    category = category_of(prompt)
    return len(_CATEGORIES) if category is None else _CATEGORIES.index(category)


def stage_noises(rng: np.random.Generator, n: int) -> list[Tensor]:
    """Noise of every stage for ``n`` pictures, in the order in which the stages need it."""
    sides = [BASE_SIDE << level for level in range(LEVELS + 1)]
    return [torch.from_numpy(rng.standard_normal((n, 3, side, side), dtype=np.float32)) for side in sides]


def picture_of(image: Tensor) -> RGB:
    """(3, h, w) in [-1, 1] as uint8 (h, w, 3)."""
    pixels = (image.permute(1, 2, 0).numpy() * 127.5 + 128).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def tensor_of(pixels: RGB) -> Tensor:
    """Uint8 (h, w, 3) as (1, 3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None].contiguous()


def _shrunk(images: Tensor, side: int) -> Tensor:
    return images if images.shape[-1] == side else functional.adaptive_avg_pool2d(images, side)
