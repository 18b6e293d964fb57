"""Prompts from templates: varied, free of charge, and in words that every pipeline understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from gas.datasets.words import SUBJECTS, Category

__all__ = ["PromptSource"]

_SETTINGS: Final[dict[Category, tuple[str, ...]]] = {
    Category.FOOD: (
        "on a white background",
        "on a dark table",
        "in a basket",
        "on a plate",
        "at a market",
        "seen from above",
    ),
    Category.PORTRAIT: (
        "in front of a plain wall",
        "outdoors",
        "in the city",
        "in a studio",
        "by a window",
        "against a dark background",
    ),
    Category.SCENE: ("in the morning", "at dusk", "under heavy clouds", "in bright sun", "after the rain", "in winter"),
    Category.OBJECT: (
        "on a wooden table",
        "on a white bed",
        "by a window",
        "on a marble surface",
        "in a home office",
        "in a cafe",
    ),
    Category.ANIMAL: (
        "on a white background",
        "on a farm",
        "in the grass",
        "outdoors",
        "against a dark background",
        "at a market",
    ),
}
_LOOKS: Final = (
    "",
    "close up",
    "shallow depth of field",
    "wide angle",
    "soft light",
    "high contrast",
    "muted colours",
    "vivid colours",
    "natural light",
    "film grain",
    "flash photography",
    "slightly out of focus",
)
_FRAMES: Final = (
    "{what} {where}",
    "photo of {what} {where}",
    "a photograph of {what} {where}",
    "{what} {where}, realistic",
)


@dataclass(frozen=True, slots=True)
class PromptSource:
    """Draws prompts.

    Attributes:
        categories: What prompts may be about; all are equally likely.
    """

    categories: tuple[Category, ...] = tuple(Category)

    def draw(self, rng: np.random.Generator) -> str:
        """One prompt of up to some 100 characters; the same generator state gives the same prompt."""
        category = self.categories[int(rng.integers(len(self.categories)))]
        what = _pick(rng, SUBJECTS[category])
        where = _pick(rng, _SETTINGS[category])
        look = _pick(rng, _LOOKS)
        prompt = _pick(rng, _FRAMES).format(what=what, where=where)
        return f"{prompt}, {look}" if look else prompt


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
