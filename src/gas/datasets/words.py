"""The words that prompts are made of, that pipelines understand and that alignment looks for."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

__all__ = ["SUBJECTS", "Category", "category_of", "words_of"]


class Category(StrEnum):
    """What a picture shows, coarsely; the order is the order of the diffusion model's labels."""

    FOOD = "food"
    PORTRAIT = "portrait"
    SCENE = "scene"
    OBJECT = "object"
    ANIMAL = "animal"


SUBJECTS: Final[dict[Category, tuple[str, ...]]] = {
    Category.FOOD: (
        "a bowl of lentils",
        "ripe tomatoes",
        "a bunch of bananas",
        "fresh green beans",
        "a sliced watermelon",
        "a heap of rice grains",
        "brown nuts",
        "leafy spinach",
        "fresh mushrooms",
        "red chillies",
        "potatoes and roots",
        "a plate of cooked food",
        "dried spices",
        "a basket of eggs",
        "sweet buns",
        "a red onion",
    ),
    Category.PORTRAIT: (
        "a smiling woman",
        "a bearded man",
        "a young woman with long hair",
        "a man with glasses",
        "a teen girl",
        "a businesswoman",
        "a man in a suit",
        "a face in soft light",
        "a woman wearing a hat",
        "an old man",
    ),
    Category.SCENE: (
        "a mountain landscape",
        "a city at night",
        "the sea at sunset",
        "a forest in the mist",
        "a lake with a pier",
        "a street in a town",
        "a beach with clouds",
        "a meadow in summer",
        "a modern living room",
        "a canal with boats",
    ),
    Category.OBJECT: (
        "a laptop on a desk",
        "a cup of coffee",
        "an open book",
        "coins and banknotes",
        "a sofa with pillows",
        "flowers in a vase",
        "a calendar and a watch",
        "fairy lights",
        "a workspace with a computer",
        "a yellow car",
    ),
    Category.ANIMAL: (
        "a white goat",
        "a hen in the grass",
        "a pair of rabbits",
        "a fish out of water",
        "a pig on a farm",
        "a grazing sheep",
        "a crab with its claws",
        "ducks on the ground",
    ),
}
"""Subjects of prompts by category."""

_EXTRA: Final[dict[Category, str]] = {
    Category.FOOD: (
        "food dish meal fruit fruits vegetable vegetables grain grains cereal millet pulse pulses bean lentil leaf "
        "herb spice condiment nut seed seeds meat cheese bread cake dinner breakfast "
        "tomato potato banana mango onion garlic ginger egg bun rice wheat chilli mushroom root roots"
    ),
    Category.PORTRAIT: (
        "portrait person people face faces girl boy lady avatar avatars selfie headshot child blonde blond friends "
        "woman man team group profile entrepreneur designer model"
    ),
    Category.SCENE: (
        "scene landscape nature mountain mountains city sea ocean river lake forest tree trees sky sunset sunrise "
        "beach street town night snow field desert clouds building architecture bridge room interior garden park "
        "autumn wallpaper background valley island waterfall"
    ),
    Category.OBJECT: (
        "object product laptop computer phone desk table chair cup coffee tea book books coin coins money bitcoin "
        "lamp car flower flowers office workplace camera watch toy clock pen bottle macbook imac sofa texture"
    ),
    Category.ANIMAL: (
        "animal animals cow goat sheep pig hen chicken poultry duck rabbit bird fish crab prawn shellfish dog "
        "cat horse calf deer turkey squid lobster livestock"
    ),
}

_STOP_WORDS: Final = (
    "a an and the of on in at with by to from is are it its his her their for as or no not near under over photo "
    "image picture style jpg jpeg png webp"
)
_STOP: Final = frozenset(_STOP_WORDS.split())
_WORD: Final = re.compile(r"[a-z]{2,24}")
_MOST_WORDS: Final = 64


def words_of(text: str) -> tuple[str, ...]:
    """Distinct meaningful lower-case words of a text, in their order; at most 64, so that a hostile text stays cheap.

    A plural's final ``s`` is dropped, so that "tomatoes" and "tomato" come near and "coins" meets "coin".
    """
    found: dict[str, None] = {}
    for match in _WORD.finditer(text[:4096].lower()):
        word = match.group()
        if word not in _STOP:
            found.setdefault(_singular(word))
            if len(found) == _MOST_WORDS:
                break
    return tuple(found)


def category_of(text: str, default: Category | None = None) -> Category | None:
    """The category whose words a text uses most; the earlier of two that are equal; ``default`` when it uses none."""
    words = set(words_of(text))
    scores = {category: len(words & vocabulary) for category, vocabulary in _VOCABULARY.items()}
    best = max(scores, key=lambda category: scores[category])
    return best if scores[best] else default


def _singular(word: str) -> str:
    if word.endswith("oes"):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


# Adjectives and the like that subjects of several categories share would only add noise.
_SHARED_WORDS: Final = "fresh young old open soft light long modern red green yellow brown whole hat hair suit"
_SHARED: Final = frozenset(_SHARED_WORDS.split())
_VOCABULARY: Final[dict[Category, frozenset[str]]] = {
    category: frozenset(words_of(" ".join((_EXTRA[category], category.value))))
    | frozenset(word for subject in SUBJECTS[category] for word in words_of(subject) if word not in _SHARED)
    for category in Category
}
