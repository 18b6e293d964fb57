"""Media out of archives: what comes out, and what hostile archives are worth."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.datasets.formats import (
    FormatLimits,
    RawItem,
    Wanted,
    is_mask,
    is_side_file,
    kind_of,
    mask_path,
    masks_among,
    read_items,
)
from gas.datasets.formats.magic import is_container
from gas.errors import ConfigurationError, GasError, MediaRejected

MEDIA = {"a.png": b"\x89PNG one", "deep/b.jpg": b"\xff\xd8\xff two" * 1000, "deep/c.wav": b"RIFF" + bytes(3000)}


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def read(path: Path, wanted: Wanted | None = None, limits: FormatLimits | None = None) -> list[RawItem]:
    return list(read_items(path, "set/x", wanted or Wanted(), limits or FormatLimits()))


def good(items: list[RawItem]) -> dict[str, bytes]:
    return {item.path.partition("!")[2]: item.data for item in items if item.error is None}


def errors(items: list[RawItem]) -> dict[str, str]:
    return {item.path.partition("!")[2]: item.error.code for item in items if item.error is not None}


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_kind_give_their_media_byte_for_byte(tmp_path: Path, packer: str, form: int) -> None:
    long_name = "f" * 90 + "/" + "g" * 90 + "/ünï.png"
    files = MEDIA | ({long_name: b"long"} if form != tarfile.USTAR_FORMAT else {})
    path = make_tar(tmp_path / "x", files, form)
    path.write_bytes(PACKERS[packer](path.read_bytes()))
    assert kind_of(path) == "tar"
    items = read(path)
    assert good(items) == files
    assert items[0].path == "set/x!a.png"


@pytest.mark.parametrize("packer", [kind for kind in PACKERS if kind != "plain"])
def test_tars_in_several_compressed_pieces_are_read_to_their_end(tmp_path: Path, packer: str) -> None:
    raw = make_tar(tmp_path / "x", MEDIA | {"z.png": bytes(np.random.default_rng(0).bytes(600_000))}).read_bytes()
    pieces = [PACKERS[packer](raw[at : at + 10_007]) for at in range(0, len(raw), 10_007)]
    (tmp_path / "x").write_bytes(b"".join(pieces))
    assert len(good(read(tmp_path / "x"))) == 4


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_give_their_media_byte_for_byte(tmp_path: Path, method: int) -> None:
    path = make_zip(tmp_path / "x", MEDIA, method)
    assert kind_of(path) == "zip"
    assert good(read(path)) == MEDIA


def test_zips_with_bytes_in_front_a_comment_and_64_bit_sizes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"hello PK\x05\x06"
        with archive.open("a.png", "w", force_zip64=True) as file:
            file.write(b"one")
        archive.writestr("deep/", b"")
        archive.writestr("b.png", b"two")
    assert good(read(path)) == {"a.png": b"one", "b.png": b"two"}
    stub = tmp_path / "stub"
    stub.write_bytes(b"PK\x03\x04" + b"#" * 96 + path.read_bytes())
    assert good(read(stub)) == {"a.png": b"one", "b.png": b"two"}


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "photo.jpg", MEDIA)
    assert good(read(path)) == MEDIA
    assert [item.error and item.error.code for item in read(path, Wanted(format="tar"))] == ["wrong_format"]
    assert [item.error and item.error.code for item in read(path, Wanted(format="files"))] == ["nested_archive"]
    with pytest.raises(ConfigurationError):
        read(path, Wanted(format="rar"))


def test_a_single_medium_is_one_item_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    path.write_bytes(b"\x89PNG")
    assert read(path) == [RawItem("set/x", b"\x89PNG")]
    path.write_bytes(b"")
    assert errors(read(path)) == {"": "empty"}
    path.write_bytes(b"x" * 11)
    assert errors(read(path, limits=FormatLimits(max_item_bytes=10))) == {"": "too_large"}
    path.write_bytes(gzip.compress(b"\x89PNG"))
    assert errors(read(path)) == {"": "nested_archive"}


def test_members_are_chosen_by_their_paths_and_side_files_are_left_out(tmp_path: Path) -> None:
    files = MEDIA | {"labels.json": b"{}", "README": b"x", "__MACOSX/._a.png": b"x", ".hidden/x.png": b"x"}
    for path in (make_zip(tmp_path / "z", files), make_tar(tmp_path / "t", files)):
        assert good(read(path)) == MEDIA
        only = Wanted(member=lambda name: name.startswith("deep/"))
        assert sorted(good(read(path, only))) == ["deep/b.jpg", "deep/c.wav"]
        assert "labels.json" in good(read(path, Wanted(member=lambda name: True)))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd.png", "/etc/x.png", "C:\\win\\x.png", "a/\x1b[31m.png", "..", "a/./b.png"]
)
def test_names_that_lead_elsewhere_are_labels_only(tmp_path: Path, name: str) -> None:
    for path in (make_zip(tmp_path / "z", {name: b"data"}), make_tar(tmp_path / "t", {name: b"data"})):
        (item,) = read(path, Wanted(member=lambda name: True))
        label = item.path.removeprefix("set/x!")
        assert item.data == b"data"
        assert label
        assert not label.startswith("/")
        assert ".." not in label.split("/")
        assert "\\" not in label
        assert label.isprintable()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["t", "z"]


def test_names_that_are_not_utf_8_are_no_obstacle(tmp_path: Path) -> None:
    tar = make_tar(tmp_path / "t", {"n.png": b"data"}, tarfile.USTAR_FORMAT)
    raw = bytearray(tar.read_bytes())
    raw[:2] = b"\xff\xfe"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + 8 * 32 + sum(raw[156:512]))
    tar.write_bytes(raw)
    (item,) = read(tar, Wanted(member=lambda name: True))
    assert item.data == b"data"
    assert item.path.isprintable()
    path = make_zip(tmp_path / "z", {"ab.png": b"data"})
    path.write_bytes(path.read_bytes().replace(b"ab.png", b"\xff\xfe.png"))
    assert [item.data for item in read(path)] == [b"data"]


def test_a_damaged_member_is_set_aside_and_the_others_come(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "z", {"a.png": b"a" * 100, "b.png": bytes(range(256)), "c.png": b"c"}, zipfile.ZIP_STORED
    )
    raw = path.read_bytes()
    path.write_bytes(raw.replace(bytes(range(256)), bytes(range(255)) + b"\x00"))
    items = read(path)
    assert good(items) == {"a.png": b"a" * 100, "c.png": b"c"}
    assert errors(items) == {"b.png": "checksum"}


def test_encrypted_linked_unknown_and_nested_members_are_set_aside(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner", MEDIA).read_bytes()
    path = tmp_path / "z"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nested.bin", inner)
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, b"../../etc/passwd")
        archive.writestr(zipfile.ZipInfo("bz.png"), b"x" * 100, zipfile.ZIP_BZIP2)
        archive.writestr("secret.png", b"x")
        archive.writestr("empty.png", b"")
        archive.writestr("last.png", b"last")
    raw = bytearray(path.read_bytes())
    central = raw.rfind(b"PK\x01\x02", 0, raw.rfind(b"secret.png"))
    raw[central + 8] |= 1
    path.write_bytes(raw)
    items = read(path)
    assert good(items) == {"last.png": b"last"}
    assert errors(items) == {
        "nested.bin": "nested_archive",
        "link.png": "link",
        "bz.png": "method",
        "secret.png": "encrypted",
        "empty.png": "empty",
    }


def test_links_devices_and_sparse_files_of_a_tar_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        archive.addfile(folder := tarfile.TarInfo("folder/"))
        folder.type = tarfile.DIRTYPE
        sparse = tarfile.TarInfo("sparse.png")
        sparse.pax_headers, sparse.size = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, 4
        archive.addfile(sparse, io.BytesIO(b"data"))
        inner = tarfile.TarInfo("inner.bin")
        inner.size = 1024
        archive.addfile(inner, io.BytesIO(make_tar(tmp_path / "i", {"x": b""}).read_bytes()[:1024]))
        last = tarfile.TarInfo("last.png")
        last.size = 4
        archive.addfile(last, io.BytesIO(b"last"))
    items = read(path)
    assert good(items) == {"last.png": b"last"}
    assert errors(items) == {
        "s.png": "link",
        "h.png": "link",
        "d.png": "device",
        "sparse.png": "sparse",
        "inner.bin": "nested_archive",
    }


def test_members_larger_than_allowed_are_set_aside_unread(tmp_path: Path) -> None:
    files = {"a.png": b"x" * 1001, "b.png": b"y" * 1000}
    limits = FormatLimits(max_item_bytes=1000)
    for path in (make_zip(tmp_path / "z", files), make_tar(tmp_path / "t", files)):
        items = read(path, limits=limits)
        assert good(items) == {"b.png": b"y" * 1000}
        assert errors(items) == {"a.png": "too_large"}


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    files = {f"{number}.png": b"x" for number in range(11)}
    limits = FormatLimits(max_members=10)
    with pytest.raises(MediaRejected, match="10"):
        read(make_zip(tmp_path / "z", files), limits=limits)
    with pytest.raises(MediaRejected, match="10"):
        read(make_tar(tmp_path / "t", files), limits=limits)


def test_bombs_are_ended_by_what_comes_out_of_them(tmp_path: Path) -> None:
    zeros = bytes(8 << 20)
    path = make_zip(tmp_path / "z", {"a.png": zeros, "b.png": b"b"})
    items = read(path)
    assert errors(items) == {"a.png": "ratio"}
    assert good(items) == {"b.png": b"b"}
    bomb = make_tar(tmp_path / "t", {"unwanted.json": bytes(90 << 20), "b.png": b"b"})
    bomb.write_bytes(PACKERS["zstd"](bomb.read_bytes()))
    with pytest.raises(MediaRejected, match="unpacks to far more") as refused:
        read(bomb)
    assert refused.value.error_code == "archive"
    with pytest.raises(MediaRejected, match="unpacks to far more"):
        read(make_zip(tmp_path / "z2", MEDIA), limits=FormatLimits(max_total_bytes=5000))


def test_entries_over_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb of entries that share one stream: small, and without any large ratio."""
    path = make_zip(tmp_path / "z", {"a.png": b"x" * 1000, "b.png": b"y" * 1000}, zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    second = raw.rfind(b"PK\x01\x02")
    raw[second + 42 : second + 46] = struct.pack("<L", 0)
    path.write_bytes(raw)
    with pytest.raises(MediaRejected, match="overlap"):
        read(path)


def test_a_member_that_lies_about_its_size_is_set_aside(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "z", {"a.png": b"x" * 5000, "b.png": b"b"})
    raw = bytearray(path.read_bytes())
    first = raw.find(b"PK\x01\x02")
    raw[first + 24 : first + 28] = struct.pack("<L", 10)
    path.write_bytes(raw)
    items = read(path)
    assert errors(items) == {"a.png": "checksum"}
    assert good(items) == {"b.png": b"b"}


@pytest.mark.parametrize("cut", [1, 30, 600, 2000])
def test_archives_that_are_cut_off_keep_what_came_before(tmp_path: Path, cut: int) -> None:
    files = {"a.png": b"a" * 1000, "b.png": bytes(np.random.default_rng(0).bytes(3000))}
    path = make_zip(tmp_path / "z", files)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(MediaRejected):
        read(path)
    path = make_tar(tmp_path / "t", files, tarfile.USTAR_FORMAT)
    path.write_bytes(path.read_bytes()[: 512 + 1024 + 512 + 3000 - cut])
    found = []
    with pytest.raises(MediaRejected, match="cut off"):
        for item in read_items(path, "set/x", Wanted()):
            found.append(item.path)
    assert found == ["set/x!a.png"]
    packed = gzip.compress(make_tar(tmp_path / "g", files).read_bytes())
    path.write_bytes(packed[: len(packed) - cut - 1000])
    with pytest.raises(MediaRejected):
        read(path)


def test_a_damaged_header_of_a_tar_ends_the_reading_after_what_came_before(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "t", {"a.png": b"a", "b.png": b"b"}, tarfile.USTAR_FORMAT)
    raw = bytearray(path.read_bytes())
    raw[1024 + 3] ^= 1
    path.write_bytes(raw)
    found = []
    with pytest.raises(MediaRejected, match="checksum"):
        for item in read_items(path, "x", Wanted()):
            found.append(item.path)
    assert found == ["x!a.png"]


@pytest.mark.parametrize("kind", [b"L", b"x", b"K", b"g"])
def test_headers_that_declare_gigabytes_are_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    head = bytearray(512)
    head[:4] = b"name"
    head[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    head[156:157] = kind
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % (sum(head) + 8 * 32)
    path = tmp_path / "t"
    path.write_bytes(bytes(head) + bytes(2048))
    with pytest.raises(MediaRejected):
        read(path)


def test_masks_come_with_their_media_and_are_no_media_themselves(tmp_path: Path) -> None:
    files = {
        "images/1.jpg": b"one",
        "masks/1.png": b"mask one",
        "masks/2.png": b"mask two",
        "images/2.jpg": b"two",
        "images/3.jpg": b"three",
        "masks/9.png": b"of nobody",
    }
    wanted = Wanted(mask_column="masks/{stem}.png")
    for path in (make_zip(tmp_path / "z", files), make_tar(tmp_path / "t", files)):
        found = {item.path.partition("!")[2]: item.mask for item in read(path, wanted)}
        assert found == {"images/1.jpg": b"mask one", "images/2.jpg": b"mask two", "images/3.jpg": None}
    narrow = Wanted(mask_column="masks/{stem}.png", member=lambda name: name == "images/2.jpg")
    for path in (tmp_path / "z", tmp_path / "t"):
        assert [item.mask for item in read(path, narrow)] == [b"mask two"]


def test_media_of_a_tar_do_not_wait_for_their_masks_with_unlimited_memory(tmp_path: Path) -> None:
    files = {f"images/{number}.jpg": b"x" * 1000 for number in range(10)}
    files |= {f"masks/{number}.png": b"m" for number in range(10)}
    path = make_tar(tmp_path / "t", files)
    items = read(path, Wanted(mask_column="masks/{stem}.png"), FormatLimits(max_pending_bytes=3500))
    assert [item.error and item.error.code for item in items].count("mask_too_far") == 7
    assert [item.mask for item in items if item.error is None] == [b"m"] * 3


def test_patterns_of_masks() -> None:
    assert mask_path("set/images/7.jpg", "masks/{stem}.png") == "masks/7.png"
    assert mask_path("set/images/7.jpg", "{folder}/../masks/{name}") == "set/masks/7.jpg"
    assert mask_path("7.jpg", "{folder}/{stem}_mask.png") == "7_mask.png"
    assert is_mask("set/masks/7.png", "{folder}/../masks/{stem}.png")
    assert not is_mask("set/images/7.png", "{folder}/../masks/{stem}.png")
    assert not is_mask("a/b_maskXpng", "{folder}/{stem}_mask.png")
    paths = ["i/1.png", "i/1_mask.png", "i/2.png", "j/3.png", "j/3_mask.png"]
    assert masks_among(paths, "{folder}/{stem}_mask.png") == {"i/1.png": "i/1_mask.png", "j/3.png": "j/3_mask.png"}
    assert masks_among(paths, "") == {}
    with pytest.raises(ConfigurationError):
        masks_among(paths, "mask.png")


def test_side_files_are_known_by_their_names() -> None:
    assert all(
        map(is_side_file, ["README.md", "a/LICENSE", ".gitattributes", "x/.git/y.png", "__MACOSX/a.png", "a.json"])
    )
    assert not any(map(is_side_file, ["a.png", "deep/readme.png", "x", "a.b/c.mp4"]))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\\/"), min_size=1, max_size=30).map(
    lambda name: f"m/{name}.png"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.dictionaries(NAMES, st.binary(min_size=1, max_size=2000), max_size=8),
    packer=st.sampled_from(sorted(PACKERS)),
)
def test_what_goes_into_an_archive_comes_out_of_it(tmp_path: Path, files: dict[str, bytes], packer: str) -> None:
    everything = Wanted(member=lambda name: True)
    expected = [data for data in files.values() if not is_container(data)]
    zipped = read(make_zip(tmp_path / "z", files), everything) if files else []
    assert [item.data for item in zipped if item.error is None] == expected
    tar = make_tar(tmp_path / "t", files)
    tar.write_bytes(PACKERS[packer](tar.read_bytes()))
    if files:
        assert [item.data for item in read(tar, everything) if item.error is None] == expected


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["zip", *sorted(PACKERS)]))
def test_no_damage_to_an_archive_is_worse_than_a_typed_outcome(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    if kind == "zip":
        raw = bytearray(make_zip(tmp_path / "x", MEDIA).read_bytes())
    else:
        raw = bytearray(PACKERS[kind](make_tar(tmp_path / "x", MEDIA).read_bytes()))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    (tmp_path / "x").write_bytes(raw)
    try:
        for item in read_items(tmp_path / "x", "x", Wanted(mask_column="masks/{stem}.png")):
            assert item.data or item.error
    except GasError as error:
        assert isinstance(error, MediaRejected)
