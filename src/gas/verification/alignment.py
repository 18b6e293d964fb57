"""The embedded prompt alignment: does a picture show the kind of thing that its prompt asked for?

A light model for a CPU: some 130 plain features of colour and edges, one linear layer, five coarse categories (food,
portrait, scene, object, animal). It knows nothing finer, so it can tell a portrait from a plate of food and no more;
a CLIP ensemble takes its place where there is one. ``training/alignment.py`` made its weights and prints its figures.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from gas.datasets.words import Category, category_of
from gas.errors import ConfigurationError
from gas.media.image import RGB, decode_image
from gas.types import Modality

__all__ = ["CATEGORIES", "THRESHOLD", "LightAlignment", "features"]

CATEGORIES: Final = tuple(Category)
"""In the order of the model's outputs."""

THRESHOLD: Final = 0.002
"""From this probability on a picture may show its prompt's category. Of photos that the model has not seen 3 in 100
fall below with their own category, and 57 in 100 with another one."""

_SIDE: Final = 64
_GRID: Final = 4
_BINS: Final = 8
_WEIGHTS: Final = "alignment.safetensors"


class LightAlignment:
    """Scores pictures against the category of their prompt.

    Args:
        weights: Serialised safetensors with ``weight`` (features, 5), ``bias`` (5,), ``mean`` and ``scale``
            (features,); those of this package when left out.

    Raises:
        ConfigurationError: The weights don't fit.
    """

    name = "light"
    threshold = THRESHOLD

    def __init__(self, weights: bytes | None = None) -> None:
        data = weights or resources.files("gas.verification").joinpath(_WEIGHTS).read_bytes()
        tensors = {name: array.astype(np.float64) for name, array in load(data).items()}
        count = len(features(np.zeros((_SIDE, _SIDE, 3), np.uint8)))
        wanted = {"weight": (count, len(CATEGORIES)), "bias": (len(CATEGORIES),), "mean": (count,), "scale": (count,)}
        if {name: array.shape for name, array in tensors.items()} != wanted:
            raise ConfigurationError("The alignment's weights are of another version.")
        self._weight, self._bias = tensors["weight"], tensors["bias"]
        self._mean, self._scale = tensors["mean"], tensors["scale"]

    def score(self, data: bytes, modality: Modality, prompt: str) -> float:
        """The score of an encoded picture, see :meth:`score_pixels`.

        Raises:
            gas.errors.MediaRejected: The picture can't be decoded.
            gas.errors.ConfigurationError: Another modality than pictures.
        """
        if modality is not Modality.IMAGE:
            raise ConfigurationError(f"This alignment looks at pictures only, not at {modality}.")
        return self.score_pixels(decode_image(data), prompt)

    def score_pixels(self, rgb: RGB, prompt: str) -> float:
        """Probability in [0, 1] that a picture (uint8, (h, w, 3)) is of its prompt's category.

        A prompt that names no category known here says nothing about the picture: 0.5.
        """
        category = category_of(prompt)
        if category is None:
            return 0.5
        return float(self.probabilities(rgb)[CATEGORIES.index(category)])

    def probabilities(self, rgb: RGB) -> NDArray[np.float64]:
        """Probability of each of :data:`CATEGORIES`, shape (5,), summing to 1."""
        logits = ((features(rgb) - self._mean) / self._scale) @ self._weight + self._bias
        powers = np.exp(logits - logits.max())
        normalised: NDArray[np.float64] = powers / powers.sum()
        return normalised


def features(rgb: RGB) -> NDArray[np.float64]:
    """Plain features of a picture.

    Args:
        rgb: uint8, (h, w, 3).

    Returns:
        Mean and deviation of the Lab colours of 4 x 4 fields, histograms of edge directions of 2 x 2 fields weighted
        by strength, and the share of blank pixels at the border: shape (129,), all within about [0, 1].
    """
    small = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float64) / 255
    field = _SIDE // _GRID
    fields = lab.reshape(_GRID, field, _GRID, field, 3)
    parts = [fields.mean(axis=(1, 3)).ravel(), fields.std(axis=(1, 3)).ravel()]
    grey = lab[:, :, 0]
    dx, dy = np.gradient(grey, axis=1), np.gradient(grey, axis=0)
    strength = np.hypot(dx, dy)
    direction = ((np.arctan2(dy, dx) % np.pi) / np.pi * _BINS).astype(int) % _BINS
    half = _SIDE // 2
    for rows in (slice(0, half), slice(half, _SIDE)):
        for columns in (slice(0, half), slice(half, _SIDE)):
            weights = strength[rows, columns].ravel()
            counts = np.bincount(direction[rows, columns].ravel(), weights, minlength=_BINS)
            parts.append(counts / (weights.sum() + 1e-6))
    border = np.concatenate([small[:4].reshape(-1, 3), small[-4:].reshape(-1, 3), small[:, :4].reshape(-1, 3)])
    parts.append(np.array([float((border.min(axis=1) > 240).mean())]))
    return np.concatenate(parts)
