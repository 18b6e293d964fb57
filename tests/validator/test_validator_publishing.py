"""Publishing: every medium in one shard, once, in the form that data sets of an arena are read in."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import structlog
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).parent))

from hub_uploads import serve_uploads
from publishing_helpers import DAY, HOTKEYS, WEEK, open_store_at, sha256_hex
from s3_peer import serve_s3, weed

from gas.cli.validator_store import app as store_app
from gas.cli.validator_store import prune, publish
from gas.datasets.sources.arena import ArenaSource, ShardManifest, shard_schema
from gas.datasets.sources.folder import FolderSource
from gas.datasets.sources.huggingface import HuggingFaceSource
from gas.datasets.sources.s3 import S3Source
from gas.datasets.sources.transfer import Patience
from gas.errors import ConfigurationError, GasError, SourceUnreachable, StorageError
from gas.media.image import encode_png
from gas.storage.database import open_database
from gas.storage.tables import MediumRow, ShardRow
from gas.validator.publishing import Publisher
from gas.validator.shards import week_end, week_of
from gas.validator.targets import FolderTarget, check_target, open_target

REPOSITORY = "owner/set"


@pytest.fixture
def store(tmp_path):
    store = open_store_at(tmp_path)
    yield store
    store.database.close()
    # What a command has set up writes to an output that is gone.
    structlog.reset_defaults()


@pytest.fixture
def opened():
    """Opens targets, which end with the test."""
    targets = []

    def open_it(address, env):
        targets.append(open_target(address, env, sleep=lambda _: None))
        return targets[-1]

    yield open_it
    for target in targets:
        target.close()


@pytest.fixture
def filled(store):
    """Nine media of two miners and one of the validator, with a mask; three a shard."""
    store.media = [store.add(n, day=n / 2) for n in range(9)]
    store.media.append(store.add(50, day=5, source="local", mask=True))
    return store


def publisher(store, target, **limits):
    return Publisher(store.database, store.blobs, target, store.clock, **({"shard_media": 3} | limits))


def read_back(folder: Path) -> Counter[str]:
    """Media of every complete week of a folder, checked against manifest and checksums."""
    found: Counter[str] = Counter()
    for manifest in folder.glob("*/manifest.json"):
        said = ShardManifest.model_validate_json(manifest.read_bytes())
        assert {path.name for path in manifest.parent.glob("data-*")} == {one.path for one in said.files}
        for one in said.files:
            data = (manifest.parent / one.path).read_bytes()
            assert (len(data), sha256_hex(data)) == (one.size, one.sha256)
            table = pq.read_table(manifest.parent / one.path)
            assert table.num_rows == one.rows
            for row in table.to_pylist():
                assert sha256_hex(row["bytes"]) == row["sha256"]
                found[row["sha256"]] += 1
        sums = (manifest.parent / "SHA256SUMS").read_text().splitlines()
        for line in sums:
            digest, name = line.split("  ")
            assert sha256_hex((manifest.parent / name).read_bytes()) == digest
    return found


def test_a_week_is_published_in_the_form_that_the_arena_source_reads(filled, tmp_path):
    out = tmp_path / "out"
    result = publisher(filled, FolderTarget(out)).publish(WEEK)
    assert (result.state, result.media, result.shards, result.lost) == ("published", 10, 4, ())
    assert read_back(out) == Counter(filled.media)
    source = ArenaSource(FolderSource(out))
    assert [file.path for file in source.files()] == [f"{WEEK}/data-0000{n}.parquet" for n in range(4)]
    tables = [pq.read_table(out / file.path) for file in source.files()]
    assert all(table.schema.equals(shard_schema()) for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    (local,) = [row for row in rows if row["mask"] is not None]
    assert (local["media_type"], local["model"], local["width"]) == ("semisynthetic", "model-a", 32)
    assert {row["generator_hotkey"] for row in rows} == set(HOTKEYS)
    assert len({row["prompt_id"] for row in rows}) == 3
    assert "prompt 1" not in str(rows)
    with filled.database.read() as session:
        assert set(session.scalars(select(MediumRow.state))) == {"published"}
        assert set(session.scalars(select(ShardRow.state))) == {"published"}


def test_the_card_says_what_is_in_and_a_miners_words_do_no_harm_there(store, tmp_path):
    store.add(1, model="x | <script>alert(1)</script> [a](b)")
    out = tmp_path / "out"
    publisher(store, FolderTarget(out)).publish(WEEK)
    card = (out / WEEK / "README.md").read_text()
    assert "1 media in 1 Parquet file," in card
    assert "<script>" not in card
    assert "](" not in card
    whole = (out / "README.md").read_text()
    assert whole.startswith("---\nlicense:")
    assert f"| {WEEK} | 1 | 1 |" in whole


def test_publishing_again_sends_nothing_and_changes_nothing(filled, tmp_path):
    out = tmp_path / "out"
    first = publisher(filled, FolderTarget(out)).publish(WEEK)
    assert first.sent == 4 + 4
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = publisher(filled, FolderTarget(out)).publish(WEEK)
    assert (again.state, again.media, again.sent) == ("published", 10, 0)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_the_same_media_make_the_same_bytes_wherever_they_are_published(filled, tmp_path):
    other = open_store_at(tmp_path / "other")
    for n in range(9):
        other.add(n, day=n / 2)
    other.add(50, day=5, source="local", mask=True)
    for store, name in ((filled, "a"), (other, "b")):
        publisher(store, FolderTarget(tmp_path / name)).publish(WEEK)
    other.database.close()
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


class Killed(BaseException):
    """Stands for the end of the process: nothing of ours catches it."""


class Fragile:
    """A target that is killed before or after its n-th file."""

    def __init__(self, inner, at, after):
        self.inner, self.address, self.left, self.after = inner, inner.address, at, after

    def put(self, path, file, sha256):
        if self.left == 0 and not self.after:
            raise Killed
        sent = self.inner.put(path, file, sha256)
        if self.left == 0:
            raise Killed
        self.left -= 1
        return sent

    def close(self):
        self.inner.close()


@pytest.mark.parametrize("after", [False, True])
def test_a_publisher_that_is_killed_at_any_file_goes_on_and_no_week_is_seen_before_it_is_whole(filled, tmp_path, after):
    for at in range(8):
        out = tmp_path / f"out{at}"
        with filled.database.write() as session:
            session.query(ShardRow).delete()
            session.query(MediumRow).update({"published_in": None, "state": "kept"})
        with pytest.raises(Killed):
            publisher(filled, Fragile(FolderTarget(out), at, after)).publish(WEEK)
        whole = (out / WEEK / "manifest.json").exists()
        assert whole == (at == 7 and after)
        assert publisher(filled, FolderTarget(out)).due() == [WEEK]
        result = publisher(filled, FolderTarget(out)).publish(WEEK)
        assert (result.state, result.media) == ("published", 10)
        assert result.sent <= 8 - at
        assert read_back(out) == Counter(filled.media)
        assert publisher(filled, FolderTarget(out)).due() == []


_CHILD = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from publishing_helpers import open_store_at, WEEK
from gas.validator.publishing import Publisher
from gas.validator.targets import FolderTarget
import gas.validator.targets as targets
copies = 0
def half(source, sink, length):
    global copies
    copies += 1
    data = source.read()
    if copies == 3:
        sink.write(data[: len(data) // 2])
        sink.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    sink.write(data)
targets.shutil.copyfileobj = half
store = open_store_at(Path(sys.argv[1]))
Publisher(store.database, store.blobs, FolderTarget(Path(sys.argv[2])), store.clock, shard_media=3).publish(WEEK)
"""


def test_a_process_that_is_killed_in_the_middle_of_a_file_leaves_no_half_of_one(filled, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", _CHILD, str(tmp_path), str(out), str(Path(__file__).parent)]
    ended = subprocess.run(command, check=False, timeout=120, env={**os.environ, "PYTHONPATH": ""})
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in sorted(out.rglob("*.parquet"))] == ["data-00000.parquet", "data-00001.parquet"]
    result = publisher(filled, FolderTarget(out)).publish(WEEK)
    assert (result.sent, result.media) == (2 + 4, 10)
    assert read_back(out) == Counter(filled.media)
    assert not (out / ".part").exists()


def test_what_is_verified_late_belongs_to_the_next_week(filled, tmp_path):
    out = tmp_path / "out"
    publisher(filled, FolderTarget(out)).publish(WEEK)
    late, next_ = filled.add(90, day=6.9), filled.add(91, day=8)
    assert publisher(filled, FolderTarget(out)).publish(WEEK).media == 10
    filled.clock.advance(7 * DAY)
    assert publisher(filled, FolderTarget(out)).due() == ["2026-W48"]
    assert publisher(filled, FolderTarget(out)).publish("2026-W48").media == 2
    assert read_back(out) == Counter([*filled.media, late, next_])
    assert "| 2026-W47 | 4 | 10 |" in (out / "README.md").read_text()


def test_after_weeks_of_rest_each_week_is_published_for_itself_and_what_is_late_leaves_with_the_last(store, tmp_path):
    weeks = [store.add(1, day=-13), store.add(2, day=-6), store.add(3, day=1)]
    here = publisher(store, FolderTarget(tmp_path / "out"))
    assert here.due() == ["2026-W45", "2026-W46", WEEK]
    assert [here.plan(week, since=week_end("2026-W45")).media for week in here.due()[1:]] == [1, 2]
    here.publish("2026-W45")
    late = store.add(4, day=-12)
    assert here.due() == ["2026-W46", WEEK]
    for week in here.due():
        here.publish(week)
    assert here.due() == []
    assert store.row(late).published_in == "2026-W46/data-00000.parquet"
    assert store.row(weeks[2]).published_in == f"{WEEK}/data-00000.parquet"
    later = store.add(5, day=2)
    assert here.due() == []
    store.clock.advance(7 * DAY)
    assert here.due() == ["2026-W48"]
    here.publish("2026-W48")
    assert read_back(tmp_path / "out") == Counter([*weeks, late, later])


def test_a_week_that_goes_on_or_is_none_or_was_begun_elsewhere_is_refused(filled, tmp_path):
    here = publisher(filled, FolderTarget(tmp_path / "out"))
    for week, code in (("2026-W48", "week_not_over"), ("2026-W54", "week_unknown"), ("soon", "week_unknown")):
        with pytest.raises(ConfigurationError) as refused:
            here.publish(week)
        assert refused.value.error_code == code
    with pytest.raises(Killed):
        publisher(filled, Fragile(FolderTarget(tmp_path / "out"), 1, True)).publish(WEEK)
    with pytest.raises(ConfigurationError) as refused:
        publisher(filled, FolderTarget(tmp_path / "elsewhere")).publish(WEEK)
    assert refused.value.error_code == "week_elsewhere"
    assert not (tmp_path / "elsewhere").exists()


def test_a_dry_run_says_what_would_go_and_claims_nothing(filled):
    planned = publisher(filled, None).plan(WEEK)
    assert (planned.state, planned.media, [one.media for one in planned.plan]) == ("planned", 10, [3, 3, 3, 1])
    with filled.database.read() as session:
        assert session.scalars(select(ShardRow)).all() == []
    assert publisher(filled, None).plan("2026-W46").state == "nothing"


def test_media_whose_bytes_are_gone_or_damaged_are_left_out_and_said_so(filled, tmp_path):
    gone, damaged = filled.media[0], filled.media[4]
    filled.blobs.delete(gone)
    (tmp_path / "blobs" / damaged[:2] / damaged).write_bytes(b"rot")
    out = tmp_path / "out"
    result = publisher(filled, FolderTarget(out)).publish(WEEK)
    assert set(result.lost) == {gone, damaged}
    assert read_back(out) == Counter(set(filled.media) - {gone, damaged})
    assert filled.row(gone).state == "lost"


def test_a_shard_of_which_nothing_is_left_is_not_published(store, tmp_path):
    for number in range(2):
        store.blobs.delete(store.add(number))
    out = tmp_path / "out"
    assert publisher(store, FolderTarget(out)).publish(WEEK).media == 0
    assert read_back(out) == Counter()
    assert publisher(store, FolderTarget(out)).due() == []


def test_a_blob_store_that_does_not_answer_stops_the_publishing_and_loses_nothing(filled, tmp_path, monkeypatch):
    def down(name):
        raise StorageError("The blob store does not answer.", code="blobs_unreachable")

    with monkeypatch.context() as patch:
        patch.setattr(filled.blobs, "get", down)
        with pytest.raises(StorageError):
            publisher(filled, FolderTarget(tmp_path / "out")).publish(WEEK)
    assert publisher(filled, FolderTarget(tmp_path / "out")).publish(WEEK).media == 10


def test_a_shard_is_written_in_groups_that_fit_the_memory(store, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        data = rng.bytes(5 << 20)
        store.blobs.put(data)
        store.add(number, sha256=sha256_hex(data), bytes=len(data))
    out = tmp_path / "out"
    publisher(store, FolderTarget(out), shard_media=100).publish(WEEK)
    groups = pq.ParquetFile(out / WEEK / "data-00000.parquet").metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [4, 4, 2]


@pytest.fixture(scope="module")
def sizes(tmp_path_factory):
    store = open_store_at(tmp_path_factory.mktemp("sizes"))
    yield store
    store.database.close()


@settings(max_examples=25)
@given(st.lists(st.integers(1, 100), max_size=20), st.integers(1, 150), st.integers(1, 8))
def test_shards_hold_every_medium_once_and_are_no_larger_than_allowed(sizes, given_sizes, most_bytes, most_media):
    with sizes.database.write() as session:
        session.query(MediumRow).delete()
        for number, size in enumerate(given_sizes):
            session.add(
                MediumRow(
                    sha256=f"{number:064x}", validator="v", generator="g", task_id="t", modality="image", bytes=size,
                    media_type="synthetic", width=1, height=1, mime="image/png", verified_at=1_794_800_000.0 + number,
                )
            )  # fmt: skip
    plan = publisher(sizes, None, shard_bytes=most_bytes, shard_media=most_media).plan(WEEK).plan
    assert sum(one.media for one in plan) == len(given_sizes)
    assert sum(one.bytes for one in plan) == sum(given_sizes)
    assert all(one.media == 1 or (one.bytes <= most_bytes and one.media <= most_media) for one in plan)


@given(st.floats(0, 4e9))
def test_a_time_lies_in_its_own_week(seconds):
    end = week_end(week_of(seconds))
    assert end - 7 * DAY <= seconds < end


# ---- a hub


def hub_env(peer) -> dict[str, str]:
    return {"HF_ENDPOINT": peer.url, "HF_TOKEN": "hf_test"}


@pytest.mark.parametrize("part_bytes", [0, 3000])
def test_a_week_goes_to_a_hub_and_comes_back_by_the_arena_source(filled, opened, tmp_path, part_bytes):
    with serve_uploads(part_bytes=part_bytes, large=2000) as peer:
        target = opened(f"hf://{REPOSITORY}", hub_env(peer))
        result = publisher(filled, target).publish(WEEK)
        assert (result.media, result.sent, result.target) == (10, 8, f"hf://{REPOSITORY}")
        assert peer.commits[-1] == f"Publish {WEEK}/manifest.json"
        assert len(peer.verified) == 4
        assert publisher(filled, target).publish(WEEK).sent == 0
        # The bytes go where the hub says; its token doesn't.
        assert peer.sent("PUT")
        assert not any("authorization" in one.headers for one in peer.sent("PUT"))
        source = ArenaSource(HuggingFaceSource(REPOSITORY, Patience(), hub_env(peer)))
        found: Counter[str] = Counter()
        for number, file in enumerate(source.files()):
            source.fetch(file, tmp_path / f"part{number}")
            found.update(pq.read_table(tmp_path / f"part{number}", columns=["sha256"]).column(0).to_pylist())
        source.close()
    assert found == Counter(filled.media)


def test_a_hub_that_stumbles_is_asked_again_and_a_killed_publisher_uploads_nothing_twice(filled, opened):
    with serve_uploads() as peer:
        target = opened(f"hf://{REPOSITORY}", hub_env(peer))
        for method, ending, status in (
            ("POST", "preupload/main", 503), ("POST", "objects/batch", 429), ("PUT", "/0", 500),
            ("POST", "verify", 502), ("POST", "commit/main", 504),
        ):  # fmt: skip
            peer.break_once(method, ending, status)
        with pytest.raises(Killed):
            publisher(filled, Fragile(target, 1, False)).publish(WEEK)
        assert publisher(filled, target).publish(WEEK).media == 10
        assert peer.broken == []
        # The first shard and its failed try; then three others.
        assert len(peer.sent("PUT")) == 5
        assert sorted(peer.files) == sorted(
            ["README.md", *(f"{WEEK}/{name}" for name in ("README.md", "SHA256SUMS", "manifest.json")),
             *(f"{WEEK}/data-0000{n}.parquet" for n in range(4))]
        )  # fmt: skip


def test_a_hub_that_refuses_or_is_down_is_told_without_the_token(filled, opened):
    with serve_uploads() as peer:
        wrong = hub_env(peer) | {"HF_TOKEN": "hf_s3cret"}
        cases = [
            (f"hf://{REPOSITORY}", wrong, "publish_refused"),
            ("hf://owner/other", hub_env(peer), "publish_missing"),
            (f"hf://{REPOSITORY}", {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_TOKEN": "hf_s3cret"}, None),
        ]
        for address, env, code in cases:
            with filled.database.write() as session:
                session.query(ShardRow).delete()
                session.query(MediumRow).update({"published_in": None})
            with pytest.raises(GasError) as refused:
                publisher(filled, opened(address, env)).publish(WEEK)
            assert "s3cret" not in str(refused.value)
            assert refused.value.error_code == code or isinstance(refused.value, SourceUnreachable)
        with pytest.raises(ConfigurationError) as refused:
            open_target(f"hf://{REPOSITORY}", {})
        assert refused.value.error_code == "missing_key"


# ---- a bucket


def test_a_week_goes_to_a_bucket_and_comes_back_by_the_arena_source(filled, tmp_path):
    if weed() is None:
        pytest.skip("seaweedfs is not installed")
    (tmp_path / "weed").mkdir()
    with serve_s3(tmp_path / "weed") as peer:
        import obstore

        obstore.put(peer.bucket("arena"), "other", b"x")
        target = open_target("s3://arena/media", peer.env)
        with pytest.raises(Killed):
            publisher(filled, Fragile(target, 2, True)).publish(WEEK)
        assert publisher(filled, target).publish(WEEK).media == 10
        source = ArenaSource(S3Source("s3://arena/media", Patience(), peer.env))
        found: Counter[str] = Counter()
        for number, file in enumerate(source.files()):
            source.fetch(file, tmp_path / f"part{number}")
            found.update(pq.read_table(tmp_path / f"part{number}", columns=["sha256"]).column(0).to_pylist())
    assert found == Counter(filled.media)


# ---- addresses and commands


@pytest.mark.parametrize(
    "address",
    ["", "ftp://host/a", "s3://user:s3cret@bucket/a", "s3://", "hf://a/b?token=s3cret", "s3://b/a#s3cret", "a\nb"],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(address):
    with pytest.raises(ConfigurationError) as refused:
        check_target(address)
    assert refused.value.error_code == "publish_address"
    assert "s3cret" not in str(refused.value)


def gascli(*arguments: object) -> tuple[int, str]:
    commands = typer.Typer()
    commands.command("publish")(publish)
    commands.command("prune")(prune)
    commands.add_typer(store_app, name="store")
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_what_the_command_publishes_becomes_a_data_set_and_a_plan_by_the_other_commands(filled, tmp_path, monkeypatch):
    from gas.cli.data import app as data_app
    from gas.datasets.plan_file import read_plan

    monkeypatch.chdir(tmp_path)
    filled.database.close()
    # The command goes by the machine's clock: this week is over when it runs.
    out = tmp_path / "out"
    common = ("--home", tmp_path, "--json")
    dry = json.loads(gascli("publish", "--target", out, "--week", "2020-W01", "--dry-run", *common)[1])
    assert dry["weeks"][0]["state"] == "nothing"
    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    with database.write() as session:
        for row in session.scalars(select(MediumRow)):
            row.verified_at -= 400 * DAY
    database.close()
    found = json.loads(gascli("publish", "--target", out, "--week", "2025-W42", *common)[1])
    assert (found["weeks"][0]["state"], found["weeks"][0]["media"]) == ("published", 10)
    assert "nothing had to be sent" in gascli("publish", "--target", out, "--week", "2025-W42", "--home", tmp_path)[1]
    stats = json.loads(gascli("store", "stats", *common)[1])
    assert stats["media"] == {"local/image/semisynthetic/published": 1, "miner/image/synthetic/published": 9}
    assert stats["weeks"]["2025-W42"]["published"]
    kept = json.loads(gascli("prune", "--max-size", "0", *common)[1])
    assert (kept["media"], kept["kept"]) == (1, {"reward": 9})

    def data(*arguments: object) -> str:
        result = CliRunner().invoke(data_app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    entry = ("--source", "arena", "--path", out, "--modality", "image", "--media-type", "synthetic")
    data("add", "arena", *entry, "--generator", "diffusion", "--home", tmp_path)
    (fetched,) = json.loads(data("fetch", "arena", *common))["sets"]
    assert (fetched["items"], fetched["rejected"]) == (10, 0)
    (tmp_path / "real").mkdir()
    for number in range(10):
        picture = np.random.default_rng(900 + number).integers(0, 256, (24, 32, 3), np.uint8)
        (tmp_path / "real" / f"{number}.png").write_bytes(encode_png(picture))
    photos = ("--source", "folder", "--path", tmp_path / "real", "--modality", "image", "--media-type", "real")
    data("add", "photos", *photos, "--home", tmp_path)
    data("fetch", "photos", "--home", tmp_path, "--json")
    data("plan", "--modality", "image", "-o", tmp_path / "plan.parquet", *common)
    plan = read_plan(tmp_path / "plan.parquet").table.to_pylist()
    fakes = [row for row in plan if row["media_type"] != "real"]
    assert {row["sample_id"] for row in fakes} == set(filled.media)
    assert {row["provenance"] for row in fakes} == {"arena"}
    assert {row["media_type"] for row in fakes} == {"synthetic", "semisynthetic"}


def test_a_home_without_a_store_is_said_so_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as refused:
        gascli("store", "stats", "--home", tmp_path / "none")
    assert refused.value.error_code == "no_home"
    assert not (tmp_path / "none").exists()
