"""What a medium shows, in words: described from a real one, or made up from the lexicon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from gas.datasets.words import Category
from gas.generation.prompts.lexicon import COLOURS, GARMENTS, NOUNS, PERSONS, QUALITIES

__all__ = ["Scene", "draw_scene", "pick", "with_article"]

_T = TypeVar("_T")

_BARE: Final = (
    "people",
    "two ",
    "three ",
    "steamed buns",
    "skewers",
    "corn ",
    "a ",
    "an ",
    "the ",
    "some ",
    "his ",
    "her ",
)
_VOWEL: Final = re.compile(r"(?:[aeio]|u(?!ni|se|su|ti|ko)|hour|honest)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scene:
    """The content of one medium.

    Attributes:
        category: Coarsely.
        subject: A noun phrase with its article, e.g. ``a muddy dog``; a caption may be a whole ``a dog on a beach``.
        origin: Who says so: ``caption``, ``labels``, ``words`` or ``lexicon``.
        complete: Whether the subject already says what happens and where, so that nothing is made up about it.
    """

    category: Category
    subject: str
    origin: str = "lexicon"
    complete: bool = False

    @property
    def is_plural(self) -> bool:
        """Whether a verb after the subject has to be in the plural."""
        return self.subject.startswith(("people", "two ", "three ", "steamed buns", "skewers", "some "))


def draw_scene(rng: np.random.Generator, category: Category | None = None) -> Scene:
    """Make up a scene.

    Args:
        rng: Decides everything.
        category: Of the scene; any when left out.
    """
    kind = category or pick(rng, tuple(Category))
    if kind is Category.PORTRAIT and rng.random() < 0.6:
        quality = with_article(pick(rng, QUALITIES[kind]))
        dressed = with_article(f"{pick(rng, COLOURS)} {pick(rng, GARMENTS)}")
        return Scene(kind, f"{quality} {pick(rng, PERSONS)} in {dressed}")
    noun = pick(rng, NOUNS[kind])
    quality = pick(rng, QUALITIES[kind])
    takes = with_article(noun) != noun and rng.random() < 0.5
    return Scene(kind, with_article(f"{quality} {noun}" if takes and quality else noun))


def with_article(noun: str) -> str:
    """A noun phrase with ``a`` or ``an`` before it, unless it has or needs none."""
    if noun.lower().startswith(_BARE) or noun.lower() == "corn":
        return noun
    return f"{'an' if _VOWEL.match(noun) else 'a'} {noun}"


def pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    """One of several, all equally likely."""
    return choices[int(rng.integers(len(choices)))]
