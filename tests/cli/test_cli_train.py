"""`gascli d train` as an author gives it: on folders of media, and on what nothing can be learnt from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gas.cli.main import main
from gas.clock import derive_rng
from gas.media.image import encode_png
from gas.submissions.package import Package
from gas.submissions.trainer import Example, Trained, train_package

_COUNT = 12
_REGISTRY = """\
version: 1
datasets:
  - {{name: photos, modality: image, media_type: real, source: folder, path: real, include: ["*"], licence: CC0-1.0}}
  - {{name: painted, modality: image, media_type: {fake}, source: folder, path: fake, include: ["*"], licence: CC0-1.0}}
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair of folders: each fake is called as the picture that it is a smooth version of."""
    folder = tmp_path_factory.mktemp("media")
    for kind, strength in (("real", 40), ("fake", 3)):
        (folder / kind).mkdir()
        for number in range(_COUNT):
            rng = derive_rng(3, kind, number)
            pixels = np.clip(rng.normal(128, strength, (160, 160, 3)), 0, 255).astype(np.uint8)
            (folder / kind / f"scene-{number}.png").write_bytes(encode_png(pixels))
    (folder / "registry.yaml").write_text(_REGISTRY.format(fake="synthetic"))
    return folder


@pytest.fixture
def gascli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        status = 0
        try:
            main(["d", *map(str, words)])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        assert status == code, out + err
        return json.loads(out) if "--json" in words and not code else out + err

    return run


def test_a_scaffold_learns_from_two_folders_and_keeps_photo_and_fake_together(
    gascli: Callable[..., Any], media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Example] = []

    def watched(folder: Path, package: Package, examples: Sequence[Example], *rest: Any) -> Trained:
        seen.extend(examples)
        return train_package(folder, package, examples, *rest)

    monkeypatch.setattr("gas.submissions.trainer.train_package", watched)
    gascli("init", "mine", "--seed", 1)
    words = ("--dataset-config", media / "registry.yaml", "--epochs", 6, "--batch-size", 4, "--device", "cpu")
    done = gascli("train", "mine", *words, "--json")
    assert (done["learned"], done["kept_out"], done["resumed"], done["device"]) == (2 * _COUNT - 4, 4, 0, "cpu")
    assert done["accuracy"] == 1.0
    assert "clean" in gascli("check", "mine")
    assert not list(Path("home", "training").glob("*"))
    by_origin: dict[str, list[tuple[bool, int]]] = {}
    for one in seen:
        by_origin.setdefault(one.origin, []).append((one.fake, len(one.views)))
    # What is kept out is shown as one round would: as it is, and shared.
    assert sorted(sorted(found) for found in by_origin.values()) == [[(False, 2), (True, 2)]] * 2 + [
        [(False, 6), (True, 6)]
    ] * (_COUNT - 2)


def test_a_folder_without_fakes_of_one_class_or_of_broken_media_is_refused_in_a_sentence(
    gascli: Callable[..., Any], media: Path, tmp_path: Path
) -> None:
    gascli("init", "mine", "--seed", 1)
    before = Path("mine", "model.safetensors").read_bytes()

    def train(folder: Path, code: int = 2) -> str:
        return str(gascli("train", "mine", "--dataset-config", folder / "registry.yaml", code=code))

    empty = tmp_path / "empty"
    for kind in ("real", "fake"):
        (empty / kind).mkdir(parents=True)
    (empty / "registry.yaml").write_text(_REGISTRY.format(fake="synthetic"))
    assert "The source of the data set painted is empty." in train(empty)
    for kind in ("real", "fake"):
        for number in range(3):
            (empty / kind / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture %d" % number)
    assert "painted has no usable media: all were set aside (3 undecodable)" in train(empty)
    one = tmp_path / "one"
    one.mkdir()
    (one / "real").symlink_to(media / "real")
    (one / "fake").symlink_to(media / "fake")
    (one / "registry.yaml").write_text(_REGISTRY.format(fake="real"))
    assert "are real, so there is no score" in train(one)
    assert "can't compute on 'nowhere'" in gascli(
        "train", "mine", "--dataset-config", media / "registry.yaml", "--device", "nowhere", code=2
    )
    assert Path("mine", "model.safetensors").read_bytes() == before
