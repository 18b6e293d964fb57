from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.datasets.registry import (
    DatasetEntry,
    RegistryInvalid,
    add_entry,
    builtin_registries,
    builtin_registry,
    load_registry,
    remove_entry,
)
from gas.datasets.sources.open import open_source
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


def reasons_of(text: str, tmp_path: Path) -> dict[int | None, str]:
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with pytest.raises(RegistryInvalid) as caught:
        load_registry(path)
    assert str(caught.value).count("registry.yaml:") >= len(caught.value.reasons)
    return {reason.line: reason.message for reason in caught.value.reasons}


def test_every_mistake_is_named_with_its_line_and_what_was_meant(tmp_path: Path) -> None:
    text = (
        "version: 1\n"
        "dataset: []\n"
        "datasets:\n"
        "  - name: one\n"
        "    modality: imge\n"
        "    media_type: fake\n"
        "    sorce: folder\n"
        "    source: foldr\n"
        "    path: photos\n"
        "    licence: CC0-1.0\n"
        "    include: '*.jpg'\n"
        "  - name: one\n"
        "    modality: audio\n"
        "    media_type: real\n"
        "    generator: gan\n"
        "    source: folder\n"
        "    path: sounds\n"
        "    licence: CC0-1.0\n"
        "    max_items: many\n"
        "    categories:\n"
        "      - {glb: 'a*', category: portrait}\n"
        "  - 17\n"
    )
    found = reasons_of(text, tmp_path)
    assert "did you mean 'datasets'" in found[2]
    assert "did you mean 'image'" in found[5]
    assert "real, synthetic, semisynthetic" in found[6]
    assert "did you mean 'source'" in found[7]
    assert "did you mean 'folder'" in found[8]
    assert "list" in found[11]
    assert "line 4" in found[12]
    assert "integer" in found[19]
    assert "categories.0.glob" in found[21] or "glob" in found[21]
    assert "mapping" in found[22]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("    generator: gan\n", "real media have no generator"),
        ("    mask_column: mask\n", "only semisynthetic media have masks"),
        ("    filter_column: kind\n", "go together"),
        ("    releasable: true\n", "only a holdout"),
        ("    revision: 'a b'\n", "revision"),
        ("    max_bytes: 0\n", "greater"),
        ("    holdout: perhaps\n", "boolean"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(change: str, what: str, tmp_path: Path) -> None:
    assert what in " ".join(reasons_of(GOOD + change, tmp_path).values())


@pytest.mark.parametrize(
    ("source", "path", "good"),
    [
        ("huggingface", "owner/name", True),
        ("huggingface", "name", False),
        ("huggingface", "../name", False),
        ("s3", "s3://bucket/prefix", True),
        ("s3", "bucket/prefix", False),
        ("http", "https://host.example/set/index.json", True),
        ("http", "ftp://host.example/set", False),
        ("http", "https://me:secret@host.example/set", False),
        ("arena", "shards", True),
    ],
)
def test_a_path_has_the_form_of_its_source(source: str, path: str, good: bool, tmp_path: Path) -> None:
    text = GOOD.replace("source: folder", f"source: {source}").replace("path: photos", f"path: {path}")
    if good:
        assert entry_of(text, tmp_path).path == path
    else:
        message = " ".join(reasons_of(text, tmp_path).values())
        assert "path" in message
        assert "secret" not in message


@pytest.mark.parametrize(
    ("source", "version", "integrity", "good"),
    [
        ("debian", "4:5.27.5-2", "sha256-" + "A" * 43 + "=", True),
        ("debian", "4.6.0+dfsg-12", "sha512-" + "A" * 86 + "==", True),
        ("pypi", "1.1.11", "sha256-" + "A" * 43 + "=", True),
        ("pypi", "latest", "sha256-" + "A" * 43 + "=", False),
        ("npm", "1.1", "sha256-" + "A" * 43 + "=", False),
        ("debian", "1.0", "", False),
    ],
)
def test_packages_are_pinned(source: str, version: str, integrity: str, good: bool, tmp_path: Path) -> None:
    text = GOOD.replace("source: folder", f"source: {source}\n    package: opencv-doc").replace(
        "path: photos", f"version: {version}\n    integrity: {integrity or chr(39) * 2}"
    )
    if good:
        assert entry_of(text, tmp_path).version == version
    else:
        reasons_of(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("name: mine", "name: &a mine").replace("path: photos", "path: *a"),
        GOOD + "    name: again\n",
        "version: 1\ndatasets: " + "[" * 40 + "]" * 40,
        GOOD + "    notes: !!python/name:os.system\n",
    ],
)
def test_hostile_yaml_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    (line,) = reasons_of(text, tmp_path)
    assert line is not None


def test_members_of_archives_are_chosen_by_globs_with_a_bang(tmp_path: Path) -> None:
    entry = entry_of(
        GOOD.replace('include: ["*.jpg"]', 'include: ["a.zip!faces/*", "b.zip"]').replace(
            'exclude: ["*thumb*"]', 'exclude: ["*.zip!*small*"]'
        ),
        tmp_path,
    )
    assert entry.wants("a.zip")
    assert entry.wants("b.zip")
    assert not entry.wants("c.zip")
    assert entry.wants_member("a.zip", "faces/1.jpg")
    assert not entry.wants_member("a.zip", "dogs/1.jpg")
    assert not entry.wants_member("a.zip", "faces/small-1.jpg")
    assert entry.wants_member("b.zip", "dogs/1.jpg")


def test_a_folder_is_relative_to_its_registry_and_values_stay_as_written(tmp_path: Path) -> None:
    text = GOOD + "    filter_column: kind\n    filter_values: [1, yes, 2.50]\n    revision: 1.10\n    category: food\n"
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    registry = load_registry(path)
    assert registry.datasets[0].filter_values == ("1", "yes", "2.50")
    assert registry.datasets[0].revision == "1.10"
    assert registry.datasets[0].category("elsewhere.jpg") == "food"
    assert registry.located().datasets[0].path == str(tmp_path / "photos")
    assert registry.datasets[0].digest == load_registry(path).datasets[0].digest


def test_an_added_set_stands_beside_what_was_there_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    new = entry_of(GOOD, tmp_path).model_copy(update={"name": "new", "generator": "", "max_items": 7})
    path.write_text(GOOD + "# a comment of mine\n")
    add_entry(path, new)
    assert [entry.name for entry in load_registry(path).datasets] == ["mine", "new"]
    assert load_registry(path).get("new") == new
    assert "# a comment of mine" in path.read_text()
    with pytest.raises(ConfigurationError, match="already"):
        add_entry(path, new)
    flow = tmp_path / "flow.yaml"
    flow.write_text("version: 1\ndatasets: []\n")
    add_entry(flow, new)
    assert load_registry(flow).datasets == (new,)
    fresh = tmp_path / "deep" / "fresh.yaml"
    add_entry(fresh, new)
    add_entry(fresh, new.model_copy(update={"name": "newer"}))
    assert [entry.name for entry in load_registry(fresh).datasets] == ["new", "newer"]
    assert remove_entry(fresh, "new")
    assert not remove_entry(fresh, "new")
    assert [entry.name for entry in load_registry(fresh).datasets] == ["newer"]


def test_the_shipped_registries_are_right_and_share_no_name() -> None:
    names: set[str] = set()
    for registry in builtin_registries():
        for entry in builtin_registry(registry).datasets:
            assert entry.name not in names
            names.add(entry.name)
    with pytest.raises(ConfigurationError, match="did you mean 'photos'"):
        builtin_registry("photo")


def test_public_sets_say_that_nobody_has_fetched_them() -> None:
    registry = builtin_registry("public")
    kinds = {(entry.modality, entry.media_type.is_fake) for entry in registry.datasets}
    assert len(kinds) == 6
    assert len(registry.datasets) >= 25
    for entry in registry.datasets:
        assert "not fetched by us" in entry.notes, entry.name
        open_source(entry, Path(), {}).close()


@given(
    st.lists(
        st.sampled_from([line for line in GOOD.splitlines() if line] + ["  - {", "    name: x", "- 1", "a: b", "\t"]),
        max_size=30,
    )
)
def test_any_mix_of_lines_is_a_registry_or_a_sentence(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.yaml"
        path.write_text("\n".join(lines))
        try:
            load_registry(path)
        except ConfigurationError as error:
            assert "registry.yaml" in str(error)
