"""The small diffusion model: one U-Net architecture, used twice in a cascade.

The *base* net paints 32x32 pixels for a category. The *refiner* doubles an image's side: it paints the detail that an
enlarged image lacks, and is applied three times, for 256x256. Both are flow-matching models (Lipman et al. 2023,
"Flow Matching for Generative Modeling"): for data ``x0`` and noise ``e`` the net sees ``x_t = (1 - t) x0 + t e`` and
predicts the velocity ``e - x0``; a sample follows that velocity from noise at t = 1 to data at t = 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from gas.errors import ConfigurationError

__all__ = ["BASE_SIDE", "LEVELS", "NetConfig", "UNet", "enlarge", "integrate", "load_net", "net_tensors"]

BASE_SIDE = 32
"""Pixels on a side of what the base net paints."""

LEVELS = 3
"""How often the refiner doubles the side."""

_PATCH = 2
_EMBEDDING = 96


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Shape of a net.

    Attributes:
        channels: Width at each resolution, from fine to coarse; multiples of 8.
        blocks: Residual blocks at each resolution on the way down; the way up has one less, but at least one.
        labels: Number of values of the label: categories for the base net, levels for the refiner. One more
            value, ``labels`` itself, means "none".
        conditioned: Whether an image is given beside the noise.
        scales: Standard deviation of the data by label, by which the net's own data are divided; for the base
            net one value.
        mean: Mean of the data.
    """

    channels: tuple[int, ...]
    blocks: int
    labels: int
    conditioned: bool
    scales: tuple[float, ...]
    mean: float = 0.0


class _Block(nn.Module):
    """Two convolutions with a shortcut; the embedding scales and shifts in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(_EMBEDDING, 2 * channels)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        # Starting as the identity keeps the first steps of training stable.
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h: Tensor = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(h) * (1 + scale) + shift
        change: Tensor = self.conv2(functional.silu(h))
        return x + change


class _Stage(nn.ModuleList):
    """Blocks of one resolution, one after the other."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__(_Block(channels) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class _Attention(nn.Module):
    """Lets distant places of the coarsest grid agree."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, c, h * w).transpose(2, 3).unbind(1)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, c, h, w))
        return x + out


class UNet(nn.Module):
    """Predicts the velocity of the flow.

    Args:
        config: Its shape.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        pixels = 3 * _PATCH**2
        widths = config.channels
        self.embed_time = nn.Sequential(
            nn.Linear(64, _EMBEDDING), nn.SiLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.SiLU()
        )
        self.embed_label = nn.Embedding(config.labels + 1, 64)
        self.enter = nn.Conv2d(pixels * (2 if config.conditioned else 1), widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Stage(width, config.blocks) for width in widths[:-1])
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.middle = _Stage(widths[-1], config.blocks)
        self.attention = nn.Identity() if config.conditioned else _Attention(widths[-1])
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_Stage(width, max(1, config.blocks - 1)) for width in widths[:-1])
        self.leave_norm = nn.GroupNorm(8, widths[0])
        self.leave = nn.Conv2d(widths[0], pixels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor, label: Tensor, condition: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Args:
            x: Noisy data, (n, 3, h, w) float32; h and w multiples of ``2**len(channels)``.
            t: Share of noise, (n,) in [0, 1].
            label: (n,) int64 in [0, labels].
            condition: The enlarged image, like ``x``; given exactly when the net is conditioned.

        Returns:
            The velocity, like ``x``.
        """
        angle = t[:, None] * 1000 * torch.exp(torch.arange(32, device=t.device) * (-math.log(10000.0) / 31))[None]
        waves = torch.cat([angle.sin(), angle.cos()], dim=1)
        embedding: Tensor = self.embed_time(waves + self.embed_label(label))
        given = x if condition is None else torch.cat([x, condition], dim=1)
        h: Tensor = self.enter(functional.pixel_unshuffle(given, _PATCH))
        skips = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            h = stage(h, embedding)
            skips.append(h)
            h = shrink(h)
        for index, block in enumerate(self.middle):
            h = block(h, embedding)
            if index == 0:
                h = self.attention(h)
        for stage, grow in reversed(list(zip(self.up, self.grow, strict=True))):
            h = (functional.interpolate(grow(h), scale_factor=2.0, mode="nearest") + skips.pop()) / math.sqrt(2)
            h = stage(h, embedding)
        out: Tensor = self.leave(functional.silu(self.leave_norm(h)))
        return functional.pixel_shuffle(out, _PATCH)


def integrate(velocity: Callable[[Tensor, float], Tensor], noise: Tensor, steps: int, start: float = 1.0) -> Tensor:
    """Follow the flow from noise to data by Heun's rule, with an Euler step at the end.

    Args:
        velocity: The net's prediction for (x, t).
        noise: Where to start: standard normal, or its mixture with data at ``start``.
        steps: Number of steps; all but the last call ``velocity`` twice. The grid is cosine-like, finest near the data.
        start: Share of noise in ``noise``, above 0 to 1.

    Returns:
        The sample, in the net's own data units.
    """
    grid = [start * (1 - math.sin(math.pi / 2 * i / steps)) for i in range(steps)] + [0.0]
    x = noise
    for t, t_next in pairwise(grid):
        slope = velocity(x, t)
        ahead = x + (t_next - t) * slope
        x = ahead if t_next == 0.0 else x + (t_next - t) * 0.5 * (slope + velocity(ahead, t_next))
    return x


def enlarge(images: Tensor) -> Tensor:
    """Double the side of images (n, 3, h, w) by bicubic interpolation: what the refiner starts from."""
    return functional.interpolate(images, scale_factor=2.0, mode="bicubic", align_corners=False)


def net_tensors(net: UNet) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Half-precision weights and the metadata to store with them."""
    tensors = {name: value.detach().half().contiguous() for name, value in net.state_dict().items()}
    return tensors, {"config": json.dumps(asdict(net.config), sort_keys=True)}


def load_net(path: Path) -> UNet:
    """Load a net that the training script has written.

    Raises:
        ConfigurationError: The file is missing or isn't such a net.
    """
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads((file.metadata() or {})["config"])
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        config = NetConfig(
            channels=tuple(fields["channels"]),
            blocks=fields["blocks"],
            labels=fields["labels"],
            conditioned=fields["conditioned"],
            scales=tuple(fields["scales"]),
            mean=fields["mean"],
        )
        net = UNet(config)
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"{path.name} does not hold a net of this version.", hint="Run training/diffusion.py."
        ) from error
    return net.eval().requires_grad_(False)
