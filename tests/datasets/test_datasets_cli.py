from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from gas.cli.data import app
from gas.cli.main import main
from gas.datasets.plan import freeze_round, write_round
from gas.media.image import encode_jpeg, encode_png
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (180, 170), interpolation=cv2.INTER_CUBIC)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    real, fake = tmp_path / "real", tmp_path / "fake"
    real.mkdir()
    fake.mkdir()
    for i in range(30):
        (real / f"{i}.jpg").write_bytes(encode_jpeg(photo(i), 80))
        (fake / f"{i}.png").write_bytes(encode_png(photo(100 + i)))
    (real / "notes.txt").write_text("not a picture")
    return real, fake


def test_two_folders_are_audited_raw_and_normalised(folders: tuple[Path, Path]) -> None:
    code, out = run("audit", "--real", str(folders[0]), "--fake", str(folders[1]), "--json")
    report = json.loads(out)
    assert report["pairs"]["as it is"]["balanced_accuracy"] > 0.9
    assert report["pairs"]["normalised"]["balanced_accuracy"] < report["pairs"]["as it is"]["balanced_accuracy"]
    assert report["pairs"]["normalised"]["real"] == 30
    assert code == (0 if report["passes"] else 1)


def test_a_leaking_round_ends_with_one_and_names_the_leak(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    samples = []
    for i in range(40):
        fake = i % 2 == 1
        name = blobs.put(encode_png(photo(i)) if fake else encode_jpeg(photo(i), 80))
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, "made" if fake else "photos", "s", name))
    write_round(freeze_round(samples, 1, {}, code_version="1"), tmp_path / "round")
    code, out = run("audit", "--round", str(tmp_path / "round"), "--blobs", str(tmp_path / "blobs"))
    assert code == 1
    assert "made" in out
    assert "is_jpeg" in out


def test_an_audit_of_nothing_says_what_to_give() -> None:
    assert run("audit")[0] == 2


def test_an_audit_names_a_folder_that_is_missing(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "audit", "--real", str(folders[0]), "--fake", str(tmp_path / "nowhere")])
    assert caught.value.code == 2
    assert f"There is no folder {tmp_path / 'nowhere'}." in capsys.readouterr().err


def test_photos_of_a_registry_of_ones_own_are_counted(folders: tuple[Path, Path], tmp_path: Path) -> None:
    registry = tmp_path / "registry.yaml"
    registry.write_text(
        "version: 1\ndatasets:\n  - {name: mine, modality: image, media_type: real, source: folder, "
        f"path: '{folders[0]}', include: ['*'], licence: CC0-1.0}}\n"
    )
    arguments = ("--registry", str(registry), "--material", str(tmp_path))
    code, out = run("photos", *arguments, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["packages"] == {"mine": found["photos"]}
    assert sum(found["splits"].values()) == found["photos"]
    assert found["dropped"]["unsupported"] == 1
    assert json.loads(run("list", *arguments, "--json")[1])["datasets"][0]["files"] == 31
    assert json.loads(run("fetch", *arguments, "--json")[1])["fetched"] == []
