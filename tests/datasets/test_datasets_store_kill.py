from __future__ import annotations

import io
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from store_helpers import MemorySource, entry_of, picture

from gas.clock import ManualClock
from gas.datasets.items import items_from_table
from gas.datasets.sources.base import RemoteFile
from gas.datasets.store import DataStore
from gas.datasets.store_fetch import FetchOptions
from gas.datasets.store_files import FileRecord, Journal

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from store_helpers import entry_of
from gas.clock import ManualClock
from gas.datasets.sources.open import open_source
from gas.datasets.store import DataStore
from gas.datasets.store_fetch import FetchOptions
entry = entry_of(path=sys.argv[3])
source = open_source(entry, Path(), {})
def told(now):
    print(now.files_done, flush=True)
    sys.stdin.readline()
DataStore(Path(sys.argv[2]), ManualClock()).fetch(entry, source, FetchOptions(jobs=2, on_progress=told))
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number:02}.jpg").write_bytes(picture(number, (120, 160)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(10, 40):
            archive.writestr(f"{number}.jpg", picture(number))
        archive.writestr("broken.jpg", picture(41)[:200])
    (folder / "05.zip").write_bytes(packed.getvalue())
    return folder


def test_a_fetch_that_is_killed_again_and_again_ends_like_an_undisturbed_one(tmp_path: Path, photos: Path) -> None:
    from gas.datasets.sources.open import open_source

    entry = entry_of(path=str(photos))
    killed = tmp_path / "killed"
    reached = []
    for steps in (2, 6, 7):
        arguments = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(killed), str(photos)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            for _ in range(steps):
                line = child.stdout.readline()
                if not line:
                    break
                reached.append(int(line))
                child.stdin.write("\n")
                child.stdin.flush()
            child.kill()
    assert 0 < max(reached) < 11
    store = DataStore(killed, ManualClock())
    assert store.names() == ()
    again = store.fetch(entry, open_source(entry, Path(), {}))
    whole = DataStore(tmp_path / "whole", ManualClock())
    undisturbed = whole.fetch(entry, open_source(entry, Path(), {}))
    assert again.content_hash == undisturbed.content_hash
    assert again.items == 40
    assert store.table("mine").equals(whole.table("mine"))
    assert store.rejected("mine") == whole.rejected("mine")
    assert not store.verify("mine").found
    assert set(store.blobs.names()) == set(whole.blobs.names())
    assert {item.path for item in items_from_table(whole.table("mine"))} >= {"00.jpg", "05.zip!10.jpg"}


def test_a_journal_that_was_cut_off_at_any_byte_is_gone_on_with(tmp_path: Path) -> None:
    files = {f"{number}.jpg": picture(number) for number in range(4)}
    source = MemorySource(files)
    source.broken = {"3.jpg"}
    store = DataStore(tmp_path / "data", ManualClock())
    with pytest.raises(Exception, match="3 of its files"):
        store.fetch(entry_of(), source, FetchOptions(jobs=1))
    journal = store.folder / "fetching" / "mine" / "files.jsonl"
    whole = journal.read_bytes()
    lines = [len(line) + 1 for line in whole.splitlines()]
    for cut in (0, 3, lines[0], lines[0] + 10, sum(lines[:2]), sum(lines[:2]) - 1, len(whole) - 1, len(whole)):
        journal.parent.mkdir(parents=True, exist_ok=True)
        journal.write_bytes(whole[:cut])
        again = MemorySource(files)
        assert store.fetch(entry_of(), again).items == 4
        complete = sum(cut >= sum(lines[: count + 2]) for count in range(3))
        assert len(again.fetched) == 4 - complete
        (store.folder / "sets" / "mine" / "manifest.json").unlink()
        (store.folder / "sets" / "mine" / "files.jsonl").unlink()


def test_a_journal_that_many_threads_write_loses_nothing(tmp_path: Path) -> None:
    for trial in range(20):
        journal = Journal(tmp_path / f"{trial}.jsonl", "digest")
        gate = threading.Barrier(8)

        def write(number: int, journal: Journal = journal, gate: threading.Barrier = gate) -> None:
            gate.wait(30)
            journal.append(FileRecord(RemoteFile(f"{number}.jpg"), [], []))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(record.file.path for record in journal.read()) == [f"{number}.jpg" for number in range(8)]
