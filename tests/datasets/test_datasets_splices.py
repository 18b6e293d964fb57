"""The example that makes splices: its folder is a set with masks, all the way to a round."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from store_helpers import entry_of, picture

from gas.cli.main import main
from gas.datasets.plan import read_round
from gas.datasets.sources.open import open_source
from gas.datasets.store import open_store
from gas.media.image import decode_image
from gas.media.masks import decode_mask
from gas.storage.blobs import FolderBlobs

EXAMPLE = Path(__file__).parents[2] / "examples" / "make_splices.py"


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_make_splices", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_splices_carry_their_masks_into_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    store = open_store(home)
    for name in ("photos", "stamps"):
        (tmp_path / name).mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(picture(number, (180, 200)))
    stamp = np.zeros((60, 60, 4), np.uint8)
    cv2.circle(stamp, (30, 30), 25, (0, 0, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "stamps" / "red.png"), stamp)
    for name in ("photos", "stamps"):
        entry = entry_of(name=name, path=str(tmp_path / name))
        store.fetch(entry, open_source(entry, tmp_path, {}))
    out = tmp_path / "splices"
    options = ("--home", home, "--photos", "photos", "--cutouts", "stamps", "--out", out, "--count", "6")
    monkeypatch.setattr("sys.argv", ["make_splices.py", *map(str, options)])
    assert example().main() == 0

    entry = entry_of(
        name="splices",
        path=str(out),
        media_type="semisynthetic",
        include=["images/*"],
        mask_column="masks/{stem}.png",
        generator="splice",
    )
    assert store.fetch(entry, open_source(entry, tmp_path, {})).items == 6
    for item in store.items("splices"):
        rgb, mask = decode_image(store.read(item)).astype(int), decode_mask(store.read_mask(item) or b"") > 0
        red = rgb[..., 0] - np.maximum(rgb[..., 1], rgb[..., 2])
        assert 0.01 < mask.mean() < 0.25
        assert red[mask].mean() > 200
    words = ("--modality", "image", "--include", "photos", "--include", "splices", "--size", "128")
    files = ("-o", tmp_path / "p.parquet", "--round", tmp_path / "round", "--home", home)
    with pytest.raises(SystemExit) as caught:
        main(["data", "plan", *words, *map(str, files)])
    assert not caught.value.code
    masks = read_round(tmp_path / "round").parameters["masks"]
    assert isinstance(masks, dict)
    blobs = FolderBlobs(tmp_path / "round" / "blobs")
    for sample, mask_id in masks.items():
        moved = decode_mask(blobs.get(mask_id)) > 0
        rgb = decode_image(blobs.get(sample)).astype(int)
        inside = cv2.erode(moved.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert (rgb[..., 0] - rgb[..., 1])[inside].mean() > 150
