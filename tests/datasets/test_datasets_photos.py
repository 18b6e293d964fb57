from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.datasets.photos import SPLITS, Photo, gather, judge, split_photos
from gas.datasets.registry import Registry
from gas.datasets.sources.packages import default_material_dir
from gas.errors import ConfigurationError
from gas.media.image import decode_image, encode_jpeg, encode_png


def scene(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.normal(0, 60 / level, (4 * level, 5 * level, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        for level in (1, 3, 8)
    ]
    return np.clip(128 + sum(layers), 0, 255).astype(np.uint8)


def drawing() -> np.ndarray:
    card = np.full((300, 300, 3), 255, np.uint8)
    cv2.circle(card, (150, 150), 80, (200, 30, 30), -1)
    return card


def registry(folder: Path) -> Registry:
    entry = {
        "modality": "image",
        "media_type": "real",
        "source": "folder",
        "include": ["*"],
        "licence": "CC0-1.0",
        "series": ["set-*"],
    }
    return Registry.model_validate(
        {"version": 1, "datasets": [{**entry, "name": name, "path": str(folder / name)} for name in ("one", "two")]}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = tmp_path / "one", tmp_path / "two"
    for i in range(20):
        (one / f"photo{i}.jpg").write_bytes(encode_jpeg(scene(i), 90))
    for i in range(20, 30):
        (two / f"photo{i}.png").write_bytes(encode_png(scene(i)))
    (one / "copy.png").write_bytes(encode_png(decode_image((one / "photo3.jpg").read_bytes())))
    (two / "smaller copy.jpg").write_bytes(
        encode_jpeg(cv2.resize(scene(4), (216, 180), interpolation=cv2.INTER_AREA), 50)
    )
    (one / "set-1.jpg").write_bytes(encode_jpeg(scene(100)))
    (one / "set-2.jpg").write_bytes(encode_jpeg(scene(101)))
    (one / "icon.png").write_bytes(encode_png(scene(7, 64, 64)))
    (one / "card.png").write_bytes(encode_png(drawing()))
    (two / "broken.jpg").write_bytes((one / "photo1.jpg").read_bytes()[:900])
    (two / "notes.txt").write_text("hello")
    return tmp_path


def test_copies_drawings_and_broken_files_are_dropped_with_their_reason(folder: Path) -> None:
    library = gather(folder, registry=registry(folder))
    assert library.packages == {"one": 22, "two": 10}
    assert library.dropped == {"duplicate": 2, "flat": 1, "too_small": 1, "undecodable": 1, "unsupported": 1}
    assert library.dropped_files["one/card.png"] == "flat"
    assert library.dropped_files["two/smaller copy.jpg"] == "duplicate"
    assert len({photo.sha256 for photo in library.photos}) == len(library.photos)
    assert library.licences == {"one": "CC0-1.0", "two": "CC0-1.0"}


def test_gathering_again_gives_the_same_library_and_reports_progress(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    first = gather(folder, lambda *step: steps.append(step), registry=registry(folder))
    assert gather(folder, registry=registry(folder), workers=1) == first
    assert steps[-1][1] == steps[-1][2] == 38


def test_shots_of_a_series_and_near_duplicates_share_a_split(folder: Path) -> None:
    library = gather(folder, registry=registry(folder))
    for seed in range(20):
        where = {photo.relative: name for name, photos in library.split(seed).items() for photo in photos}
        assert where["set-1.jpg"] == where["set-2.jpg"]


def test_an_empty_folder_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with pytest.raises(ConfigurationError):
        gather(tmp_path, registry=registry(tmp_path))


def photos(groups: list[tuple[int, int]]) -> list[Photo]:
    return [
        Photo(f"{i:064x}", i, Path("x"), f"{i}", f"package{package}", "MIT", 300, 200, "scene", f"group{group}")
        for i, (package, group) in enumerate(groups)
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=120),
    st.integers(0, 2**32),
    st.randoms(use_true_random=False),
)
def test_a_split_is_a_partition_that_never_tears_a_group(groups: list[tuple[int, int]], seed: int, random) -> None:  # type: ignore[no-untyped-def]
    everything = photos(groups)
    split = split_photos(everything, seed)
    assert sorted(p.sha256 for part in split.values() for p in part) == [p.sha256 for p in everything]
    owner = {p.group: name for name, part in split.items() for p in part}
    assert all(owner[p.group] == name for name, part in split.items() for p in part)
    shuffled = list(everything)
    random.shuffle(shuffled)
    assert split_photos(shuffled, seed) == split


def test_every_package_is_split_in_the_shares_asked_for() -> None:
    everything = photos([(i % 3, i) for i in range(300)])
    split = split_photos(everything, 5)
    for package in ("package0", "package1", "package2"):
        for name, share in SPLITS.items():
            count = sum(photo.package == package for photo in split[name])
            assert abs(count - share * 100) <= 1
    assert split_photos(everything, 6) != split


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        split_photos(photos([(0, 0)]), 1, {"train": 0.5, "holdout": 0.4})


def test_the_judge_keeps_photos_and_refuses_flat_or_tiny_ones() -> None:
    assert judge(scene(1)) is None
    assert judge(scene(1, 159, 400)) == "too_small"
    assert judge(drawing()) == "flat"
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[::2] = 255
    stripes = cv2.resize(stripes[:20, :20], (300, 300), interpolation=cv2.INTER_NEAREST)
    assert judge(stripes) in ("few_colours", "flat")


@pytest.mark.slow
@pytest.mark.skipif(
    not (default_material_dir() / "tabler-preview-1.2.0" / "manifest.json").exists(),
    reason="the material was not fetched",
)
def test_the_packages_hold_hundreds_of_distinct_photos() -> None:
    library = gather(default_material_dir())
    assert len(library.photos) >= 600
    assert len(library.packages) >= 4
    split = library.split(0)
    assert min(len(part) for part in split.values()) >= 100
