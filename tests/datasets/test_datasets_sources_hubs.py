"""Hubs, folders and arenas: what is particular to each, beside what all sources have in common."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from hub_peer import COMMIT, REPOSITORY, HubPeer, body, drop_after, git_oid, hang_up, redirect, serve, sha256, status

from gas.clock import ManualClock
from gas.datasets.formats import read_items
from gas.datasets.sources.arena import SHARD_WANTED, ArenaSource, ShardManifest, shard_schema
from gas.datasets.sources.base import RemoteFile, Source
from gas.datasets.sources.folder import FolderSource
from gas.datasets.sources.huggingface import HuggingFaceSource
from gas.datasets.sources.modelscope import ModelScopeSource
from gas.datasets.sources.open import open_source
from gas.datasets.sources.transfer import Patience, TransferLimits
from gas.errors import ConfigurationError, IntegrityError, SourceUnreachable

LARGE = bytes(range(256)) * 100
FILES = {"README.md": b"# a set", "data/train-0.parquet": LARGE, "data/train-1.parquet": b"1" * 2000}


@pytest.fixture
def peer() -> Iterator[HubPeer]:
    with serve(FILES) as peer:
        yield peer


@dataclass
class Opener:
    """Opens hubs at a peer, and closes them in the end."""

    opened: list[Source]

    def patience(self) -> Patience:
        clock = ManualClock()
        return Patience(clock=clock, sleep=clock.advance)

    def huggingface(self, peer: HubPeer, token: str = "", revision: str = "", name: str = REPOSITORY) -> Source:
        env = {"HF_ENDPOINT": peer.url, "HF_TOKEN": token}
        return self.keep(HuggingFaceSource(name, self.patience(), env, revision))

    def modelscope(self, peer: HubPeer, token: str = "", revision: str = "", name: str = REPOSITORY) -> Source:
        env = {"MODELSCOPE_ENDPOINT": peer.url, "MODELSCOPE_API_TOKEN": token}
        return self.keep(ModelScopeSource(name, self.patience(), env, revision))

    def keep(self, source: Source) -> Source:
        self.opened.append(source)
        return source


@pytest.fixture
def hubs() -> Iterator[Opener]:
    opener = Opener([])
    yield opener
    for source in opener.opened:
        source.close()


def test_a_branch_becomes_a_commit_and_files_are_asked_for_by_it(peer: HubPeer, hubs: Opener, tmp_path: Path) -> None:
    source = hubs.huggingface(peer)
    assert source.revision == COMMIT
    listing = {file.path: file for file in source.files()}
    assert list(listing) == sorted(FILES)
    assert listing["data/train-0.parquet"].sha256 == sha256(LARGE)
    assert listing["README.md"].sha256 is None
    assert listing["README.md"].version == git_oid(FILES["README.md"])
    source.fetch(listing["data/train-0.parquet"], tmp_path / "x")
    assert peer.seen[-1].path == f"/datasets/{REPOSITORY}/resolve/{COMMIT}/data/train-0.parquet"


def test_a_listing_of_many_pages_comes_whole(hubs: Opener) -> None:
    files = {f"data/{number:04}.png": b"x" for number in range(450)}
    with serve(files, page=100) as peer:
        assert [file.path for file in hubs.huggingface(peer).files()] == sorted(files)
        assert [file.path for file in hubs.modelscope(peer).files()][:1] == ["data/0000.png"]
    with serve(files, page=200) as peer:
        assert [file.path for file in hubs.modelscope(peer).files()] == sorted(files)
        assert len(peer.asked("/repo/tree")) == 3


def test_small_files_are_checked_by_the_name_that_git_gives_them(peer: HubPeer, hubs: Opener, tmp_path: Path) -> None:
    source = hubs.huggingface(peer)
    readme = source.files()[0]
    peer.fail("README.md", body(b"# a sit"))
    with pytest.raises(IntegrityError, match="hash"):
        source.fetch(readme, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_large_files_come_from_another_host_which_never_sees_the_token(
    hubs: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serve(FILES, token="hf_secret") as peer, serve(FILES) as storage:
        source = hubs.huggingface(peer, "hf_secret")
        large = source.files()[1]
        where = f"{storage.url}/files/data/train-0.parquet?X-Amz-Signature=s1gned"

        def elsewhere(handler: object) -> bool:
            return redirect(where)(handler)  # type: ignore[arg-type]

        peer.fail("train-0.parquet", elsewhere, elsewhere)
        storage.fail("train-0.parquet", drop_after(10_000))
        source.fetch(large, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == LARGE
        assert [one.headers.get("range") for one in storage.seen] == [None, "bytes=10000-"]
        assert all("authorization" not in one.headers for one in storage.seen)
        assert all(one.headers["authorization"] == "Bearer hf_secret" for one in peer.seen)
    assert "hf_secret" not in caplog.text
    assert "s1gned" not in caplog.text


def test_a_gated_set_asks_for_a_token(hubs: Opener) -> None:
    with serve(FILES, token="hf_secret") as peer:
        for source in (hubs.huggingface(peer), hubs.huggingface(peer, "wrong"), hubs.modelscope(peer, "wrong")):
            with pytest.raises(ConfigurationError, match="token") as refused:
                source.files()
            assert refused.value.error_code == "source_forbidden"
            assert "wrong" not in str(refused.value)
        hubs.modelscope(peer, "hf_secret").files()
        assert peer.seen[-1].headers["cookie"] == "m_session_id=hf_secret"


def test_an_unknown_repository_or_revision_is_said_so(peer: HubPeer, hubs: Opener) -> None:
    for source in (
        hubs.huggingface(peer, name="owner/other"),
        hubs.huggingface(peer, revision="nowhere"),
        hubs.modelscope(peer, name="owner/other"),
        hubs.modelscope(peer, revision="nowhere"),
    ):
        with pytest.raises(ConfigurationError) as missing:
            source.files()
        assert missing.value.error_code == "source_missing"
    peer.fail("/repo/tree", body(b'{"Code": 1, "Success": false, "Message": "no such\\u001b[31m thing"}'))
    with pytest.raises(ConfigurationError, match="no such") as refused:
        hubs.modelscope(peer).files()
    assert "\x1b" not in str(refused.value)


def test_a_hub_that_is_down_is_tried_three_times(peer: HubPeer, hubs: Opener) -> None:
    peer.fail("revision/main", hang_up, status(503), status(500))
    with pytest.raises(SourceUnreachable):
        hubs.huggingface(peer).files()
    assert len(peer.asked("revision/main")) == 3


@pytest.mark.parametrize(
    "page",
    [
        b"{}",
        b"[1]",
        b'[{"type": "file", "path": "../../x", "size": 1}]',
        b'[{"type": "file", "path": "x", "size": -1}]',
        b'[{"type": "file", "path": "x", "size": 1, "lfs": {"oid": "md5:1"}}]',
        b"<html>",
    ],
)
def test_a_hostile_listing_of_a_hub_is_refused(peer: HubPeer, hubs: Opener, page: bytes) -> None:
    peer.fail(f"tree/{COMMIT}", body(page))
    with pytest.raises(IntegrityError):
        hubs.huggingface(peer).files()


@pytest.mark.parametrize(
    "page", [b'{"Data": 7}', b'{"Data": {"Files": [{"Path": "/x"}]}}', b'{"Data": {"Files": [{}]}}']
)
def test_a_hostile_listing_of_the_other_hub_is_refused(peer: HubPeer, hubs: Opener, page: bytes) -> None:
    peer.fail("/repo/tree", body(page))
    with pytest.raises(IntegrityError):
        hubs.modelscope(peer).files()


def test_a_listing_can_not_lead_the_token_to_another_host_or_go_on_for_ever(
    peer: HubPeer, hubs: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.fail(f"tree/{COMMIT}", body(b"[]", Link='<http://127.0.0.2:1/next?cursor=2&limit=9>; rel="next"'))
    assert len(hubs.huggingface(peer, "secret").files()) == 2
    assert peer.seen[-1].path.endswith(f"/tree/{COMMIT}?cursor=2&limit=9")
    peer.fail(f"tree/{COMMIT}", body(b"[]", Link='<http://[>; rel="next"'))
    with pytest.raises(IntegrityError):
        hubs.huggingface(peer, "secret").files()
    monkeypatch.setattr("gas.datasets.sources.huggingface._MAX_PAGES", 3)
    peer.fail(f"tree/{COMMIT}", *[body(b"[]", Link=f'<{peer.url}/tree/{COMMIT}>; rel="next"')] * 9)
    with pytest.raises(IntegrityError, match="no end"):
        hubs.huggingface(peer).files()


def test_a_pinned_listing_of_a_branch_that_moved_is_refused(peer: HubPeer, hubs: Opener) -> None:
    revision = hubs.modelscope(peer).revision
    assert len(hubs.modelscope(peer, revision=revision).files()) == 3
    peer.files["new.bin"] = b"new"
    with pytest.raises(IntegrityError, match="changed"):
        hubs.modelscope(peer, revision=revision).files()


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a b", "owner/..", "owner/set?x=1", "https://x/y", "a\n/b"])
def test_names_that_are_no_repositories_never_become_an_address(name: str) -> None:
    for kind in (HuggingFaceSource, ModelScopeSource):
        with pytest.raises(ConfigurationError):
            kind(name, Patience(), {})


@pytest.mark.parametrize("revision", ["../x", "a b", "x?y", "a#b"])
def test_names_that_are_no_revisions_never_become_an_address(revision: str) -> None:
    for kind in (HuggingFaceSource, ModelScopeSource):
        with pytest.raises(ConfigurationError):
            kind(REPOSITORY, Patience(), {}, revision)


def test_links_out_of_a_folder_are_refused_and_links_inside_are_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").write_bytes(b"a")
    (root / "b.png").symlink_to("a.png")
    assert [file.path for file in FolderSource(root).files()] == ["a.png", "b.png"]
    for target in (tmp_path / "secret", "../secret", tmp_path):
        (root / "c.png").symlink_to(target)
        with pytest.raises(ConfigurationError) as refused:
            FolderSource(root).files()
        assert refused.value.error_code == "link_leaves_folder"
        (root / "c.png").unlink()


def test_a_file_that_becomes_a_link_after_the_listing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"a")
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").write_bytes(b"a")
    source = FolderSource(root)
    (file,) = source.files()
    (root / "a.png").unlink()
    (root / "a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(IntegrityError):
        source.fetch(file, tmp_path / "x")


def test_hidden_files_and_things_that_are_no_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a.png").write_bytes(b"a")
    assert [file.path for file in FolderSource(tmp_path).files()] == ["a.png"]


def test_names_that_are_not_utf_8_get_a_label_and_can_be_fetched(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    try:
        (root / os.fsdecode(b"p\xfft\\e.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = FolderSource(root)
    (found,) = source.files()
    assert found.path == "p%FFt%5Ce.png"
    source.fetch(found, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"x"


def test_a_folder_with_too_many_files_or_none_at_all_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as missing:
        FolderSource(tmp_path / "nowhere")
    assert missing.value.error_code == "material_missing"
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    with pytest.raises(IntegrityError):
        FolderSource(tmp_path, TransferLimits(max_files=4)).files()
    with pytest.raises(ConfigurationError):
        FolderSource(tmp_path).fetch(RemoteFile("7.png"), tmp_path / "x")


def publish(root: Path, week: str, *, manifest: bool = True, **shards: bytes) -> Path:
    folder = root / week
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in shards.items():
        (folder / f"data-{name}.parquet").write_bytes(data)
    records = [
        {"path": f"data-{name}.parquet", "size": len(data), "sha256": sha256(data), "rows": 1}
        for name, data in shards.items()
    ]
    if manifest:
        (folder / "manifest.json").write_text(ShardManifest(week=week, files=records).model_dump_json())  # type: ignore[arg-type]
    return folder


def test_a_week_without_its_manifest_is_not_there_yet(tmp_path: Path) -> None:
    publish(tmp_path, "2026-W45", a=b"one")
    publish(tmp_path, "2026-W46", a=b"two", manifest=False)
    assert [file.path for file in ArenaSource(FolderSource(tmp_path)).files()] == ["2026-W45/data-a.parquet"]
    publish(tmp_path, "2026-W46", a=b"two", b=b"three")
    (tmp_path / "2026-W46" / "data-stray.parquet").write_bytes(b"not in the manifest")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "manifest.json").write_text("{}")
    found = ArenaSource(FolderSource(tmp_path)).files()
    assert [file.path for file in found] == [
        "2026-W45/data-a.parquet",
        "2026-W46/data-a.parquet",
        "2026-W46/data-b.parquet",
    ]
    assert [file.sha256 for file in found] == [sha256(b"one"), sha256(b"two"), sha256(b"three")]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("week", "2026-W40"),
        ("week", "../x"),
        ("version", 2),
        ("files", [{"path": "../data-a.parquet", "size": 3, "sha256": "0" * 64, "rows": 1}]),
        ("files", [{"path": "data-z.parquet", "size": 3, "sha256": "0" * 64, "rows": 1}]),
        ("files", [{"path": "data-a.parquet", "size": 4, "sha256": "0" * 64, "rows": 1}]),
        ("files", [{"path": "data-a.parquet", "size": 3, "sha256": "x", "rows": 1}]),
    ],
)
def test_a_manifest_that_can_not_be_true_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = publish(tmp_path, "2026-W46", a=b"one")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
    with pytest.raises(IntegrityError):
        ArenaSource(FolderSource(tmp_path)).files()


def test_a_shard_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path / "arena", "2026-W46", a=b"one")
    (folder / "data-a.parquet").write_bytes(b"two")
    source = ArenaSource(FolderSource(tmp_path / "arena"))
    with pytest.raises(IntegrityError, match="hash"):
        source.fetch(source.files()[0], tmp_path / "x")
    with pytest.raises(ConfigurationError):
        source.fetch(RemoteFile("2026-W46/data-b.parquet"), tmp_path / "x")


def test_a_manifest_of_absurd_size_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path, "2026-W46", a=b"one")
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(17 << 20)
    with pytest.raises(IntegrityError, match="larger"):
        ArenaSource(FolderSource(tmp_path)).files()


def test_shards_come_from_the_web_to_the_medium(tmp_path: Path, hubs: Opener) -> None:
    row = {
        "bytes": b"\x89PNG fake",
        "sha256": sha256(b"\x89PNG fake"),
        "media_type": "synthetic",
        "modality": "image",
        "mime": "image/png",
        "generator_hotkey": "5F",
        "verified_at": datetime(2026, 11, 16, tzinfo=UTC),
    }
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row], schema=shard_schema()), sink)
    folder = publish(tmp_path, "2026-W46", a=sink.getvalue())
    files = {f"2026-W46/{path.name}": path.read_bytes() for path in folder.iterdir()}
    with serve(files) as peer:
        source = hubs.keep(open_source(Line("arena", f"{peer.url}/files"), tmp_path, {}))  # type: ignore[arg-type]
        peer.fail("data-a.parquet", drop_after(100))
        (shard,) = source.files()
        source.fetch(shard, tmp_path / "shard.part")
    (item,) = read_items(tmp_path / "shard.part", shard.path, SHARD_WANTED)
    assert item.path == "2026-W46/data-a.parquet#0:bytes"
    assert sha256(item.data) == item.columns["sha256"]
    assert item.columns["generator_hotkey"] == "5F"
    assert item.mask is None


def test_the_schema_of_a_shard_has_what_a_round_needs() -> None:
    schema = shard_schema()
    assert schema.names[:3] == ["bytes", "sha256", "media_type"]
    assert {"generator_hotkey", "mask", "prompt_id", "verified_at", "modality", "mime"} <= set(schema.names)
    assert not schema.field("bytes").nullable
    assert schema.field("mask").nullable


@dataclass
class Line:
    """What a line of the registry says."""

    source: str
    path: str
    revision: str = ""


def test_every_kind_of_line_opens_its_source(tmp_path: Path, peer: HubPeer, hubs: Opener) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a")
    publish(tmp_path / "arena", "2026-W46", a=b"one")
    env = {"HF_ENDPOINT": peer.url, "MODELSCOPE_ENDPOINT": peer.url}
    lines = [
        (Line("folder", "photos"), ["a.png"]),
        (Line("folder", str(tmp_path / "photos")), ["a.png"]),
        (Line("http", f"{peer.url}/files/index.json"), sorted(FILES)),
        (Line("http", f"{peer.url}/files/README.md"), ["README.md"]),
        (Line("huggingface", REPOSITORY), sorted(FILES)),
        (Line("modelscope", REPOSITORY, "master"), sorted(FILES)),
        (Line("arena", "arena"), ["2026-W46/data-a.parquet"]),
        (Line("arena", f"{peer.url}/files"), []),
        (Line("arena", f"huggingface:{REPOSITORY}"), []),
    ]
    for line, paths in lines:
        source = hubs.keep(open_source(line, tmp_path, env))  # type: ignore[arg-type]
        assert [file.path for file in source.files()] == paths, line
    for line in (Line("folder", "nowhere"), Line("s3", "bucket/x"), Line("http", "x"), Line("carrier pigeon", "x")):
        with pytest.raises(ConfigurationError):
            open_source(line, tmp_path, env)  # type: ignore[arg-type]
