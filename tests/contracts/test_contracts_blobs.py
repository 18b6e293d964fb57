"""What every blob store must do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.errors import StorageError
from gas.storage.blobs import BlobStore, FolderBlobs


@pytest.fixture(params=["folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return {"folder": lambda: FolderBlobs(tmp_path / "blobs")}[request.param]()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(data=st.binary(max_size=4096))
def test_bytes_come_back_under_their_own_hash(blobs: BlobStore, data: bytes) -> None:
    name = blobs.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert blobs.put(data) == name
    assert blobs.get(name) == data
    assert blobs.exists(name)


def test_files_go_in_and_out_without_change(blobs: BlobStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(bytes(range(256)) * 10_000)
    name = blobs.put_file(source)
    blobs.get_file(name, target)
    assert target.read_bytes() == source.read_bytes() == blobs.get(name)


def test_an_unknown_name_is_a_storage_error_and_leaves_no_file(blobs: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as missing:
        blobs.get("0" * 64)
    assert missing.value.error_code == "blob_missing"
    with pytest.raises(StorageError):
        blobs.get_file("0" * 64, tmp_path / "target")
    assert not (tmp_path / "target").exists()
    assert not blobs.exists("0" * 64)
    blobs.delete("0" * 64)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
def test_a_name_that_is_no_hash_never_becomes_a_path(blobs: BlobStore, name: str) -> None:
    for use in (blobs.get, blobs.exists, blobs.delete):
        with pytest.raises(StorageError) as bad:
            use(name)
        assert bad.value.error_code == "blob_name"


def test_deleted_blobs_are_gone_and_the_others_are_listed(blobs: BlobStore) -> None:
    a, b = blobs.put(b"a"), blobs.put(b"b")
    blobs.delete(a)
    assert list(blobs.names()) == [b]


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    name = blobs.put(b"whole")
    (tmp_path / "blobs" / name[:2] / name).write_bytes(b"torn")
    with pytest.raises(StorageError) as damaged:
        blobs.get(name)
    assert damaged.value.error_code == "blob_damaged"
    with pytest.raises(StorageError):
        blobs.get_file(name, tmp_path / "target")
    assert not (tmp_path / "target").exists()
