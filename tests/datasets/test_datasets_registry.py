from __future__ import annotations

from pathlib import Path

import pytest

from gas.datasets.registry import DatasetEntry, builtin_registry, load_registry
from gas.errors import ConfigurationError

GOOD = """
version: 1
datasets:
  - name: mine
    modality: image
    media_type: real
    source: folder
    path: photos
    include: ["*.jpg"]
    exclude: ["*thumb*"]
    licence: CC0-1.0
    series: ["shots/*"]
    categories: [{glob: "faces/*", category: portrait}]
"""


def entry_of(text: str, tmp_path: Path) -> DatasetEntry:
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    return load_registry(path).datasets[0]


def test_the_shipped_registry_pins_every_package_and_names_no_address() -> None:
    registry = builtin_registry()
    assert len({entry.package for entry in registry.datasets}) >= 3
    for entry in registry.datasets:
        assert entry.licence
        assert entry.include
        if entry.source == "npm":
            assert entry.integrity.startswith("sha512-")
        assert "://" not in entry.model_dump_json()


def test_globs_choose_files_and_categories(tmp_path: Path) -> None:
    entry = entry_of(GOOD, tmp_path)
    assert entry.wants("a/b.jpg")
    assert not entry.wants("a/b.png")
    assert not entry.wants("a/thumb-b.jpg")
    assert entry.category("faces/b.jpg") == "portrait"
    assert entry.category("b.jpg") == "other"


def test_numbered_shots_of_a_series_belong_together(tmp_path: Path) -> None:
    entry = entry_of(GOOD, tmp_path)
    assert (
        entry.series_of("shots/desk.jpg") == entry.series_of("shots/desk-2.jpg") == entry.series_of("shots/desk-13.jpg")
    )
    assert entry.series_of("other/desk-2.jpg") == "other/desk-2.jpg"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 2\ndatasets: []",
        "a: [unclosed",
        GOOD.replace("name: mine", "name: ../mine"),
        GOOD.replace("source: folder", "source: web"),
        GOOD.replace("path: photos", "path: ''"),
        GOOD.replace("source: folder", "source: npm"),
        GOOD + "    surprise: 1\n",
        GOOD.replace("licence: CC0-1.0", ""),
        GOOD + GOOD.split("datasets:")[1],
        "version: !!python/object/apply:os.system ['true']",
    ],
)
def test_a_wrong_registry_is_refused_with_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"registry\.yaml"):
        load_registry(path)


def test_a_missing_or_huge_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load_registry(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_text("#" * (2 * 1024 * 1024))
    with pytest.raises(ConfigurationError, match="larger"):
        load_registry(tmp_path / "big.yaml")
