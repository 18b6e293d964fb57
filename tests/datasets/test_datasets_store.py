from __future__ import annotations

import io
import json
import os
import random
import tempfile
import threading
import wave
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import MemorySource, entry_of, picture

from gas.clock import ManualClock
from gas.datasets.items import item_schema
from gas.datasets.sources.arena import ShardManifest, ShardRecord, shard_schema
from gas.datasets.sources.open import open_source
from gas.datasets.store import DataStore, open_store
from gas.datasets.store_fetch import FetchOptions, FetchProgress
from gas.errors import ConfigurationError, GasError, SourceUnreachable, StorageError
from gas.media.encode import encode_mp4
from gas.media.image import encode_png, encode_png_mask
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.types import MediaType, Modality, Provenance

PICTURES = {f"a/{number:02}.jpg": picture(number) for number in range(12)}


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(tmp_path / "data", ManualClock())


def wav(seconds: float = 0.5, rate: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        rng = np.random.default_rng(int(seconds * 1000))
        file.writeframes(rng.integers(-9000, 9000, int(seconds * rate), dtype=np.int16).tobytes())
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def table_of(columns: dict[str, list[object]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def test_media_are_kept_byte_for_byte_with_what_is_known_of_them(store: DataStore) -> None:
    manifest = store.fetch(entry_of(category="scene"), MemorySource(PICTURES))
    assert (manifest.items, manifest.rejected) == (12, 0)
    assert manifest.bytes == sum(map(len, PICTURES.values()))
    items = store.items("mine")
    assert [item.path for item in items] == sorted(PICTURES)
    for item in items:
        assert store.read(item) == PICTURES[item.path]
        assert (item.width, item.height, item.mime, item.codec) == (64, 48, "image/jpeg", "jpeg")
        assert (item.dataset, item.source, item.origin, item.category) == ("mine", "mine", item.sha256, "scene")
        assert (item.licence, item.media_type, item.seconds) == ("CC0-1.0", MediaType.REAL, None)
    assert store.table("mine").schema.equals(item_schema())
    assert store.names() == ("mine",)
    assert store.under_way() == ()


def test_a_set_that_is_here_is_left_alone_and_a_refresh_brings_only_what_changed(store: DataStore) -> None:
    first = store.fetch(entry_of(), MemorySource(PICTURES))
    again = MemorySource(PICTURES)
    assert store.fetch(entry_of(), again) == first
    assert again.fetched == []
    changed = MemorySource({**PICTURES, "a/00.jpg": picture(100), "b.jpg": picture(101)})
    second = store.fetch(entry_of(), changed, FetchOptions(refresh=True))
    assert sorted(changed.fetched) == ["a/00.jpg", "b.jpg"]
    assert second.items == 13
    assert second.content_hash != first.content_hash
    assert store.prune(10**12).freed > 0, "the picture that was replaced is of no use any more"
    assert store.verify("mine").found is False


def test_another_entry_of_the_same_name_is_fetched_anew(store: DataStore) -> None:
    store.fetch(entry_of(), MemorySource(PICTURES))
    store.fetch(entry_of(licence="MIT", include=["*0.jpg"]), MemorySource(PICTURES))
    assert {item.licence for item in store.items("mine")} == {"MIT"}
    assert [item.path for item in store.items("mine")] == ["a/00.jpg", "a/10.jpg"]


@settings(max_examples=8)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_content_hash_and_the_rows_do_not_depend_on_the_order(rng: random.Random, jobs: int) -> None:
    order = sorted(PICTURES)
    rng.shuffle(order)
    with tempfile.TemporaryDirectory() as folder:
        store = DataStore(Path(folder), ManualClock())
        whole = store.fetch(entry_of(name="whole"), MemorySource({**PICTURES, "z.jpg": PICTURES["a/03.jpg"]}))
        some = rng.sample(order, 5)
        mixed = MemorySource({**PICTURES, "z.jpg": PICTURES["a/03.jpg"]}, [*order, "z.jpg"])
        mixed.broken = set(some)
        with pytest.raises(SourceUnreachable):
            store.fetch(entry_of(), mixed, FetchOptions(jobs=jobs))
        mixed.broken = set()
        shuffled = store.fetch(entry_of(), mixed, FetchOptions(jobs=jobs))
        first, second = store.table("whole"), store.table("mine")
        for column in set(first.column_names) - {"dataset", "source"}:
            assert first.column(column).equals(second.column(column))
        assert whole.rejected == shuffled.rejected == 1
        again = DataStore(Path(folder) / "again", ManualClock(5.0))
        assert again.fetch(entry_of(), MemorySource({**PICTURES, "z.jpg": PICTURES["a/03.jpg"]})).content_hash == (
            shuffled.content_hash
        )


def test_what_can_not_be_used_is_set_aside_with_its_reason_and_the_rest_goes_on(store: DataStore) -> None:
    bad = {
        "0.jpg": b"",
        "1.jpg": b"GIF89a" + b"\0" * 9,
        "2.jpg": picture(1)[:300],
        "3.jpg": b"no picture at all",
        "4.jpg": wav(),
        "5.jpg": picture(2),
        "6.jpg": picture(2),
    }
    manifest = store.fetch(entry_of(), MemorySource({**bad, **PICTURES}))
    reasons = {row.path: row.code for row in store.rejected("mine")}
    assert reasons == {
        "0.jpg": "empty",
        "1.jpg": reasons["1.jpg"],
        "2.jpg": "undecodable",
        "3.jpg": "unsupported",
        "4.jpg": "wrong_modality",
        "6.jpg": "duplicate",
        "a/02.jpg": "duplicate",
    }
    assert manifest.items == 12
    assert manifest.rejected == 7
    assert store.stats("mine").rejected["duplicate"] == 2


def test_an_empty_set_says_why_and_where_to_look(store: DataStore) -> None:
    with pytest.raises(ConfigurationError, match="2 unsupported") as caught:
        store.fetch(entry_of(), MemorySource({"a.jpg": b"text", "b.jpg": b"more"}))
    assert caught.value.error_code == "empty_set"
    assert "rejected.jsonl" in str(caught.value)
    assert store.names() == ()
    with pytest.raises(ConfigurationError) as caught:
        store.fetch(entry_of(include=["*.tiff"]), MemorySource(PICTURES))
    assert caught.value.error_code == "no_files"
    with pytest.raises(ConfigurationError) as caught:
        store.fetch(entry_of(), MemorySource({}))
    assert caught.value.error_code == "no_files"


def test_a_zip_and_a_table_are_read_medium_by_medium(store: DataStore) -> None:
    files = {"b.zip": zipped({"x/1.jpg": picture(1), "x/2.jpg": picture(2), "note.txt": b"hello"})}
    store.fetch(entry_of(name="zipped"), MemorySource(files))
    assert [item.path for item in store.items("zipped")] == ["b.zip!x/1.jpg", "b.zip!x/2.jpg"]
    table = table_of(
        {
            "picture": [{"bytes": picture(number), "path": None} for number in range(4)],
            "label": [1, 0, 1, 1],
        }
    )
    entry = entry_of(
        name="table",
        source="huggingface",
        path="o/n",
        filter_column="label",
        filter_values=["1"],
        media_type="synthetic",
    )
    store.fetch(entry.model_copy(update={"generator": "gan"}), MemorySource({"data/0.parquet": table}))
    items = store.items("table")
    assert [sha256_hex(picture(number)) for number in (0, 2, 3)] == [item.sha256 for item in items]
    assert {item.generator for item in items} == {"gan"}
    with pytest.raises(ConfigurationError) as caught:
        store.fetch(entry_of(name="none", data_columns=["image"]), MemorySource({"data/0.parquet": table}))
    assert caught.value.error_code == "column_missing"
    assert "picture" in str(caught.value)


def test_a_broken_archive_is_set_aside_and_the_others_count(store: DataStore) -> None:
    good = zipped({"1.jpg": picture(1)})
    store.fetch(entry_of(), MemorySource({"a.zip": good[:-30], "b.zip": good}))
    assert [item.path for item in store.items("mine")] == ["b.zip!1.jpg"]
    assert [row.path for row in store.rejected("mine")] == ["a.zip"]


def test_a_semisynthetic_medium_comes_with_its_mask_or_not_at_all(store: DataStore) -> None:
    grey = np.zeros((48, 64), np.uint8)
    grey[10:20, 10:20] = 255
    masks = [
        encode_png_mask(grey),
        None,
        encode_png_mask(grey[:40]),
        b"nothing",
        encode_png(np.zeros((48, 64, 3), np.uint8)),
    ]
    table = table_of({"image": [picture(number) for number in range(5)], "mask": masks})
    entry = entry_of(
        source="huggingface", path="o/n", media_type="semisynthetic", data_columns=["image"], mask_column="mask"
    )
    store.fetch(entry, MemorySource({"0.parquet": table}))
    items = store.items("mine")
    assert [store.read_mask(item) for item in items] == [masks[0], masks[4]]
    assert {row.code for row in store.rejected("mine")} == {"mask_missing", "mask_size", "mask_broken"}
    assert store.stats("mine").masks == 2


def test_masks_beside_the_pictures_find_them(store: DataStore) -> None:
    mask = encode_png_mask(np.full((48, 64), 255, np.uint8))
    files = {"images/1.jpg": picture(1), "images/2.jpg": picture(2), "masks/1.png": mask}
    entry = entry_of(media_type="semisynthetic", mask_column="masks/{stem}.png")
    store.fetch(entry, MemorySource(files))
    assert [(item.path, store.read_mask(item)) for item in store.items("mine")] == [("images/1.jpg", mask)]
    assert [(row.path, row.code) for row in store.rejected("mine")] == [("images/2.jpg", "mask_missing")]


def test_sounds_have_lengths_and_rates(store: DataStore) -> None:
    store.fetch(entry_of(modality="audio"), MemorySource({"a.wav": wav(0.5), "b.wav": wav(0.25, 16000)}))
    items = store.items("mine")
    assert [(item.seconds, item.rate) for item in items] == [(0.5, 8000), (0.25, 16000)]
    assert all(item.modality is Modality.AUDIO and item.width is None and "pcm" in item.codec for item in items)


def test_shots_of_a_series_share_one_origin(store: DataStore) -> None:
    files = {"desk.jpg": picture(1), "desk-2.jpg": picture(2), "tree.jpg": picture(3)}
    store.fetch(entry_of(series=["*"]), MemorySource(files))
    origins = {item.path: item.origin for item in store.items("mine")}
    assert origins["desk.jpg"] == origins["desk-2.jpg"] == min(sha256_hex(picture(1)), sha256_hex(picture(2)))
    assert origins["tree.jpg"] == sha256_hex(picture(3))


def test_limits_take_the_first_media_by_path_and_fetch_little_more(store: DataStore) -> None:
    source = MemorySource(PICTURES)
    store.fetch(entry_of(max_items=3), source, FetchOptions(jobs=2))
    assert [item.path for item in store.items("mine")] == ["a/00.jpg", "a/01.jpg", "a/02.jpg"]
    assert len(source.fetched) <= 5
    bound = len(PICTURES["a/00.jpg"]) + len(PICTURES["a/01.jpg"]) + 5
    store.fetch(entry_of(name="small", max_bytes=bound), MemorySource(PICTURES), FetchOptions(jobs=5))
    assert [item.path for item in store.items("small")] == ["a/00.jpg", "a/01.jpg"]


def test_a_source_that_stops_answering_leaves_what_has_arrived(store: DataStore) -> None:
    big = {f"{number}.jpg": picture(number, (300, 400)) for number in range(3)}
    source = MemorySource(big, chunk=512)
    source.broken = {"1.jpg"}
    with pytest.raises(SourceUnreachable) as caught:
        store.fetch(entry_of(), source, FetchOptions(jobs=1))
    assert "1 of its files" in str(caught.value)
    assert store.under_way() == ("mine",)
    assert store.names() == ()
    source.broken = set()
    source.fetched.clear()
    assert store.fetch(entry_of(), source).items == 3
    assert sorted(source.fetched) == ["1.jpg", "2.jpg"]
    assert source.resumed["1.jpg"] > 0


def test_progress_counts_up_to_the_whole(store: DataStore) -> None:
    seen: list[FetchProgress] = []
    store.fetch(entry_of(), MemorySource(PICTURES), FetchOptions(on_progress=seen.append))
    assert [now.files_done for now in seen] == sorted(now.files_done for now in seen)
    last = seen[-1]
    assert (last.files_done, last.files, last.items) == (12, 12, 12)
    assert last.bytes_done == last.bytes == sum(map(len, PICTURES.values()))


def test_an_interrupt_keeps_what_is_done(store: DataStore) -> None:
    def interrupt(now: FetchProgress) -> None:
        if now.files_done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch(entry_of(), MemorySource(PICTURES), FetchOptions(jobs=1, on_progress=interrupt))
    source = MemorySource(PICTURES)
    assert store.fetch(entry_of(), source).items == 12
    assert len(source.fetched) == 8


def test_a_store_makes_room_by_dropping_what_was_unused_longest(tmp_path: Path) -> None:
    clock = ManualClock()
    store = DataStore(tmp_path, clock)
    for name, first in (("old", 0), ("used", 20), ("new", 40)):
        clock.advance(10)
        files = {f"{number}.jpg": picture(number, (200, 200)) for number in range(first, first + 6)}
        store.fetch(entry_of(name=name), MemorySource(files))
    clock.advance(10)
    store.table("old")
    budget = store.size() + 4000
    more = {f"{number}.jpg": picture(number, (200, 200)) for number in range(60, 66)}
    store.fetch(entry_of(name="more"), MemorySource(more), FetchOptions(disk_budget=budget))
    assert store.names() == ("more", "new", "old")
    assert store.size() <= budget
    for name in store.names():
        assert not store.verify(name).found


def test_a_set_larger_than_the_budget_is_refused_and_what_was_done_is_kept(store: DataStore) -> None:
    big = {f"{number}.jpg": picture(number, (200, 200)) for number in range(8)}
    budget = 4 * len(big["0.jpg"])
    with pytest.raises(StorageError) as caught:
        store.fetch(entry_of(), MemorySource(big), FetchOptions(disk_budget=budget, jobs=2))
    assert caught.value.error_code == "disk_budget"
    assert store.size() <= budget
    source = MemorySource(big)
    store.fetch(entry_of(), source)
    assert len(source.fetched) < 8


def test_a_full_disk_is_a_typed_error_and_the_next_run_goes_on(
    store: DataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FolderBlobs.put
    left = [5]

    def full(self: FolderBlobs, data: bytes) -> str:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("The blob could not be stored (No space left on device).")
        return put(self, data)

    monkeypatch.setattr(FolderBlobs, "put", full)
    with pytest.raises(StorageError, match="No space left"):
        store.fetch(entry_of(), MemorySource(PICTURES), FetchOptions(jobs=1))
    monkeypatch.undo()
    source = MemorySource(PICTURES)
    assert store.fetch(entry_of(), source).items == 12
    assert len(source.fetched) == 7


def test_pruning_spares_the_media_of_open_rounds_and_of_other_sets(store: DataStore) -> None:
    store.fetch(entry_of(), MemorySource(PICTURES))
    store.fetch(entry_of(name="half"), MemorySource(dict(list(PICTURES.items())[:6])))
    needed = sha256_hex(PICTURES["a/11.jpg"])
    store.remove("mine", pinned={needed})
    assert store.get(needed) == PICTURES["a/11.jpg"]
    assert not store.verify("half").found
    with pytest.raises(StorageError):
        store.get(sha256_hex(PICTURES["a/10.jpg"]))
    found = store.prune(0, pinned={needed})
    assert found.removed == ("half",)
    assert found.pinned == 1
    assert list(store.blobs.names()) == [needed]
    with pytest.raises(ConfigurationError) as caught:
        store.remove("half")
    assert caught.value.error_code == "not_fetched"


def test_pruning_spares_what_an_unfinished_fetch_has(store: DataStore) -> None:
    source = MemorySource(PICTURES)
    source.broken = {"a/06.jpg"}
    with pytest.raises(SourceUnreachable):
        store.fetch(entry_of(), source, FetchOptions(jobs=1))
    store.prune(0)
    again = MemorySource(PICTURES)
    store.fetch(entry_of(), again)
    assert len(again.fetched) == 6


def test_verify_finds_every_missing_and_damaged_medium_and_a_refresh_mends_them(store: DataStore) -> None:
    store.fetch(entry_of(), MemorySource(PICTURES))
    first, second = (sha256_hex(PICTURES[path]) for path in ("a/01.jpg", "a/02.jpg"))
    store.blobs.delete(first)
    path = store.folder / "blobs" / second[:2] / second
    times = path.stat()
    with path.open("r+b") as file:
        file.write(b"rotten")
    # As when a disk loses bits: nothing says that the file has changed.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    steps: list[tuple[int, int]] = []
    damage = store.verify("mine", lambda done, total: steps.append((done, total)), discard=True)
    assert (damage.missing, damage.damaged, damage.checked) == (("a/01.jpg",), ("a/02.jpg",), 12)
    assert steps[-1] == (12, 12)
    source = MemorySource(PICTURES)
    store.fetch(entry_of(), source, FetchOptions(refresh=True))
    assert sorted(source.fetched) == ["a/01.jpg", "a/02.jpg"]
    assert not store.verify("mine").found
    table = store.folder / "sets" / "mine" / "items.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    assert store.verify("mine").table
    with pytest.raises(StorageError, match="--refresh"):
        store.table("mine")


def test_two_fetches_of_one_set_at_once_do_the_work_once(tmp_path: Path) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold(_path: str) -> None:
        inside.set()
        assert go.wait(30)

    slow, quick = MemorySource(PICTURES, before=hold), MemorySource(PICTURES)
    stores = [DataStore(tmp_path, ManualClock()) for _ in range(2)]
    results: list[int] = []
    first = threading.Thread(target=lambda: results.append(stores[0].fetch(entry_of(), slow).items))
    first.start()
    assert inside.wait(30)
    with pytest.raises(StorageError) as caught:
        stores[1].fetch(entry_of(), quick, FetchOptions(wait=False))
    assert caught.value.error_code == "busy"
    with pytest.raises(StorageError):
        stores[1].remove("mine")
    second = threading.Thread(target=lambda: results.append(stores[1].fetch(entry_of(), quick).items))
    second.start()
    go.set()
    first.join(30)
    second.join(30)
    assert results == [12, 12]
    assert quick.fetched == []


def test_two_sets_at_once_share_their_media(tmp_path: Path) -> None:
    gate = threading.Barrier(2)
    store = DataStore(tmp_path, ManualClock())
    errors: list[GasError] = []

    def bring(name: str) -> None:
        gate.wait(30)
        try:
            store.fetch(entry_of(name=name), MemorySource(PICTURES))
        except GasError as error:
            errors.append(error)

    threads = [threading.Thread(target=bring, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(list(store.blobs.names())) == 12
    assert store.manifest("one").bytes == store.manifest("two").bytes


def test_provenance_comes_from_the_entry(store: DataStore) -> None:
    store.fetch(entry_of(name="public"), MemorySource(PICTURES))
    store.fetch(entry_of(name="secret", holdout=True, releasable=True), MemorySource(PICTURES))
    assert store.provenances() == {"public": Provenance.PUBLIC, "secret": Provenance.HOLDOUT}
    assert store.release("secret")
    assert not store.release("secret")
    assert store.provenances()["secret"] is Provenance.PUBLIC
    store.fetch(entry_of(name="kept", holdout=True), MemorySource(PICTURES))
    for name in ("kept", "public"):
        with pytest.raises(ConfigurationError) as caught:
            store.release(name)
        assert caught.value.error_code == "not_releasable"
    store.remove("secret")
    store.fetch(entry_of(name="secret", holdout=True, releasable=True), MemorySource(PICTURES))
    assert store.provenances()["secret"] is Provenance.PUBLIC


def test_items_are_found_by_their_hash_and_by_their_place(store: DataStore) -> None:
    store.fetch(entry_of(), MemorySource(PICTURES))
    item = store.item("mine", 3)
    assert item.path == "a/03.jpg"
    assert store.find(item.sha256[:10]) == item
    for prefix, code in (("zz", "item_unknown"), ("0" * 64, "item_unknown"), ("abc", "item_unknown")):
        with pytest.raises(ConfigurationError) as caught:
            store.find(prefix)
        assert caught.value.error_code == code
    with pytest.raises(ConfigurationError) as caught:
        store.item("mine", 12)
    assert caught.value.error_code == "item_unknown"
    with pytest.raises(ConfigurationError) as caught:
        store.item("nothing", 0)
    assert caught.value.error_code == "not_fetched"


def test_columns_of_several_sets_come_as_one_table(store: DataStore) -> None:
    for name in ("one", "two"):
        store.fetch(entry_of(name=name), MemorySource(PICTURES))
    found = store.tables(["one", "two"], ["sha256", "dataset"])
    assert (found.num_rows, found.column_names) == (24, ["sha256", "dataset"])
    assert store.tables([]).num_rows == 0


@pytest.mark.parametrize("name", ["../x", "", "A", ".hidden", "a/b", "x" * 200])
def test_a_name_can_not_leave_the_store(store: DataStore, name: str) -> None:
    with pytest.raises(ConfigurationError):
        store.table(name)
    with pytest.raises(ConfigurationError):
        store.remove(name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "entry": {}}'])
def test_a_broken_manifest_is_said_and_a_fetch_mends_it(store: DataStore, text: str) -> None:
    store.fetch(entry_of(), MemorySource(PICTURES))
    path = store.folder / "sets" / "mine" / "manifest.json"
    path.write_text(text)
    with pytest.raises(StorageError, match="manifest"):
        store.manifest("mine")
    source = MemorySource(PICTURES)
    assert store.fetch(entry_of(), source).items == 12
    assert source.fetched == []


def test_a_set_killed_between_the_old_and_the_new_is_complete(store: DataStore) -> None:
    manifest = store.fetch(entry_of(), MemorySource(PICTURES))
    sets = store.folder / "sets"
    (sets / "mine").rename(sets / ".mine.new")
    assert store.manifest("mine") == manifest
    (sets / "mine").rename(sets / ".mine.new")
    assert store.names() == ("mine",)
    (sets / ".mine.new").mkdir()
    assert store.table("mine").num_rows == 12


def test_the_registry_of_a_store_is_its_own_file(tmp_path: Path) -> None:
    store = open_store(tmp_path, ManualClock())
    assert store.entries() == ()
    assert not store.folder.exists()
    store.add(entry_of())
    assert [entry.name for entry in store.entries()] == ["mine"]
    assert store.forget("mine")
    assert not store.forget("mine")


def test_rejected_media_and_the_manifest_are_plain_files(store: DataStore) -> None:
    store.fetch(entry_of(), MemorySource({**PICTURES, "x.jpg": b"x"}))
    folder = store.folder / "sets" / "mine"
    line = json.loads((folder / "rejected.jsonl").read_text())
    assert line["path"] == "x.jpg"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["entry"]["name"] == "mine"
    assert len(manifest["entry_hash"]) == len(manifest["content_hash"]) == 64
    assert list((store.folder / "fetching").iterdir()) == []


def shard(rows: list[dict[str, object]]) -> bytes:
    plain = {"mime": "image/jpeg", "modality": "image", "verified_at": 1_700_000_000_000}
    out = io.BytesIO()
    filled = [dict.fromkeys(shard_schema().names) | plain | row for row in rows]
    pq.write_table(pa.Table.from_pylist(filled, schema=shard_schema()), out)
    return out.getvalue()


def test_shards_of_the_arena_say_who_made_a_medium_and_are_read_as_they_come(tmp_path: Path, store: DataStore) -> None:
    alice, bob = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"

    def row(seed: int, hotkey: str = alice, **more: object) -> dict[str, object]:
        data = picture(seed)
        plain = {"bytes": data, "sha256": sha256_hex(data), "media_type": "synthetic", "generator_hotkey": hotkey}
        return {**plain, "model": "small-diffusion", "category": "food", **more}

    def week(name: str, data: bytes, rows: int) -> None:
        folder = tmp_path / "arena" / name
        folder.mkdir(parents=True)
        (folder / "data-00000.parquet").write_bytes(data)
        record = ShardRecord(path="data-00000.parquet", size=len(data), sha256=sha256_hex(data), rows=rows)
        (folder / "manifest.json").write_text(ShardManifest(week=name, files=(record,)).model_dump_json())

    mask = encode_png_mask(np.full((48, 64), 255, np.uint8))
    bad = [row(5, sha256="0" * 64), row(6, generator_hotkey="nobody"), row(7, modality="audio")]
    bad += [row(8, media_type="rael")]
    kinds = [row(1), row(2, bob, media_type="semisynthetic", mask=mask), row(3, category="<b>", model="x\x1b[31m")]
    week("2026-W46", shard(kinds + bad), 7)
    entry = entry_of(source="arena", path="arena", media_type="synthetic", generator="", category="other")
    store.fetch(entry, open_source(entry, tmp_path, {}))
    first, second, third = store.items("mine")
    assert (first.hotkey, first.source, first.generator, first.category) == (
        *(alice, f"mine/{alice}"),
        *("small-diffusion", "food"),
    )
    assert (second.hotkey, second.media_type, store.read_mask(second)) == (bob, MediaType.SEMISYNTHETIC, mask)
    assert (third.category, third.generator) == ("other", "x\\x1b[31m")
    assert {row.code for row in store.rejected("mine")} == {"hash", "hotkey", "label"}
    assert store.provenances() == {"mine": Provenance.ARENA}
    week("2026-W47", shard([row(9)]), 1)
    assert store.fetch(entry, open_source(entry, tmp_path, {}), FetchOptions(refresh=True)).items == 4


def test_videos_have_sizes_rates_and_lengths(store: DataStore) -> None:
    frames = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]
    clip = encode_mp4(frames, 20.0)
    store.fetch(entry_of(modality="video"), MemorySource({"a.mp4": clip, "b.mp4": clip[:700], "c.mp4": picture(1)}))
    (item,) = store.items("mine")
    assert (item.mime, item.width, item.height, item.rate, item.codec) == ("video/mp4", 64, 48, 20.0, "h264")
    assert item.seconds == pytest.approx(0.5, abs=0.01)
    assert store.read(item) == clip
    assert {row.path: row.code for row in store.rejected("mine")} == {"b.mp4": "undecodable", "c.mp4": "wrong_modality"}


def test_media_of_strangers_are_decoded_in_processes_of_their_own_with_the_same_result(store: DataStore) -> None:
    files = {**PICTURES, "x.jpg": picture(50)[:300], "y.jpg": wav()}
    here = store.fetch(entry_of(name="here"), MemorySource(files), FetchOptions(guarded=False))
    there = store.fetch(entry_of(name="there"), MemorySource(files), FetchOptions(guarded=True, jobs=2))
    assert (here.items, here.rejected) == (there.items, there.rejected) == (12, 2)
    first, second = store.table("here"), store.table("there")
    assert all(first.column(name).equals(second.column(name)) for name in ("sha256", "width", "codec", "mime"))
    assert [row.code for row in store.rejected("here")] == [row.code for row in store.rejected("there")]
