"""Wheels by the real pip from a local folder, Debian packages by an apt-get that hands out a prepared file."""

from __future__ import annotations

import base64
import hashlib
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from gas.datasets.registry import DatasetEntry
from gas.datasets.sources.base import RemoteFile
from gas.datasets.sources.packages import PackageSource, fetch, files_of
from gas.errors import ConfigurationError, InfrastructureError, IntegrityError


def wheel() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("clips/data/one.mp4", b"1" * 10)
        archive.writestr("clips/data/two.mp4", b"2" * 20)
        archive.writestr("clips/code.py", b"raise SystemExit")
        archive.writestr("clips-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: clips\nVersion: 1.0\n")
        archive.writestr("clips-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("clips-1.0.dist-info/RECORD", b"")
    return out.getvalue()


def deb(data_name: str = "data.tar.xz", *, link: bool = False) -> bytes:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name, data in (("./usr/share/sounds/a.wav", b"a" * 5), ("./usr/share/sounds/deep/b.wav", b"b" * 7)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo("./usr/share/sounds/passwd.wav")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    body = lzma.compress(tar.getvalue())
    out = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (data_name, body)):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        out += b"\n" * (len(content) % 2)
    return out


def entry(data: bytes, source: str, include: str, **more: object) -> DatasetEntry:
    return DatasetEntry.model_validate(
        {
            "name": "some-set",
            "modality": "audio",
            "media_type": "real",
            "source": source,
            "package": "clips",
            "version": "1.0",
            "integrity": "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode(),
            "include": [include],
            "licence": "MIT",
            **more,
        }
    )


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "clips-1.0-py3-none-any.whl").write_bytes(wheel())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "apt-get"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> "{folder}/calls"\n[ "$1" = download ] || exit 0\n'
        f'[ -f "{folder}/source.deb" ] || exit 1\ncp "{folder}/source.deb" clips_1.0_all.deb\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_a_wheel_gives_its_wanted_files_and_none_of_its_code(pip: Path, tmp_path: Path) -> None:
    wanted = entry(wheel(), "pypi", "clips/data/*", modality="video")
    assert fetch([wanted], tmp_path / "material") == ["some-set"]
    files = files_of(wanted, tmp_path / "material")
    assert [(file.relative, file.path.stat().st_size) for file in files] == [
        ("clips/data/one.mp4", 10),
        ("clips/data/two.mp4", 20),
    ]


def test_a_debian_package_gives_regular_files_only(apt: Path, tmp_path: Path) -> None:
    data = deb(link=True)
    (apt / "source.deb").write_bytes(data)
    wanted = entry(data, "debian", "usr/share/sounds/*")
    fetch([wanted], tmp_path / "material")
    names = [file.relative for file in files_of(wanted, tmp_path / "material")]
    assert names == ["usr/share/sounds/a.wav", "usr/share/sounds/deep/b.wav"]
    assert "clips=1.0" in (apt / "calls").read_text()


def test_a_package_of_another_content_is_not_used(apt: Path, tmp_path: Path) -> None:
    (apt / "source.deb").write_bytes(deb(link=True))
    with pytest.raises(IntegrityError, match="another hash"):
        fetch([entry(deb(), "debian", "*")], tmp_path / "material")
    assert not list((tmp_path / "material").glob("some-set*"))


def test_two_sets_of_one_package_fetch_it_once(apt: Path, tmp_path: Path) -> None:
    data = deb()
    (apt / "source.deb").write_bytes(data)
    sets = [entry(data, "debian", "*a.wav", name="one"), entry(data, "debian", "*b.wav", name="two")]
    assert fetch(sets, tmp_path / "material") == ["one", "two"]
    assert (apt / "calls").read_text().count("download") == 1


def test_a_compression_that_cannot_be_read_is_named(apt: Path, tmp_path: Path) -> None:
    data = deb("data.tar.zst")
    (apt / "source.deb").write_bytes(data)
    with pytest.raises(InfrastructureError, match=r"data\.tar\.zst"):
        fetch([entry(data, "debian", "*")], tmp_path / "material")


@pytest.mark.parametrize("cut", [9, 40, 100, 300])
def test_a_truncated_debian_package_is_refused(apt: Path, tmp_path: Path, cut: int) -> None:
    data = deb()[:cut]
    (apt / "source.deb").write_bytes(data)
    with pytest.raises(InfrastructureError) as error:
        fetch([entry(data, "debian", "*")], tmp_path / "material")
    assert error.value.error_code == "archive"


def test_without_apt_the_entry_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="some-set is a Debian package"):
        fetch([entry(deb(), "debian", "*")], tmp_path / "material")


def test_a_package_is_a_source_like_any_other(pip: Path, tmp_path: Path) -> None:
    source = PackageSource(entry(wheel(), "pypi", "clips/data/*"), tmp_path / "material")
    files = source.files()
    assert [(file.path, file.size) for file in files] == [("clips/data/one.mp4", 10), ("clips/data/two.mp4", 20)]
    assert source.revision.startswith("1.0 sha256-")
    arrived: list[int] = []
    source.fetch(files[1], tmp_path / "part", arrived.append)
    assert (tmp_path / "part").read_bytes() == b"2" * 20
    assert arrived == [20]
    with pytest.raises(ConfigurationError):
        source.fetch(RemoteFile("../secret"), tmp_path / "part")
    source.close()
