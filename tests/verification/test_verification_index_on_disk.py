"""The index of copies on disk: killed, torn, read beside its writer, built again."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.errors import ConfigurationError, IntegrityError
from gas.media.hashing import distances
from gas.media.segments import Segments
from gas.types import Modality
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.journal import Journal
from gas.verification.pictures import PictureIndex
from gas.verification.postings import Entries, Postings, spread_codes
from gas.verification.prints import FramePrint

ROW = np.dtype([("value", "<u8"), ("crc", "<u4")])


def name(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def phash(number):
    return int.from_bytes(hashlib.sha256(b"hash %d" % number).digest(), "big")


def filled(folder, count):
    with MediaIndex(folder) as index:
        for number in range(count):
            index.add(Seen(name(number), phash(number)))


def test_what_was_added_is_there_after_opening_again(tmp_path):
    filled(tmp_path, 20)
    with MediaIndex(tmp_path) as index:
        assert len(index) == 20
        match = index.duplicate_of(Seen(name("new"), phash(7) ^ 0b101))
        assert match is not None
        assert (match.sha256, match.distance) == (name(7), 2)


def test_only_one_process_writes_and_others_read(tmp_path):
    with MediaIndex(tmp_path) as writer, MediaIndex(tmp_path, writable=False) as reader:
        with pytest.raises(ConfigurationError):
            MediaIndex(tmp_path)
        writer.add(Seen(name(1), phash(1)))
        assert len(reader) == 0
        reader.refresh()
        assert reader.duplicate_of(Seen(name(2), phash(1))) is not None


def test_there_is_nothing_to_read_where_nothing_was_written(tmp_path):
    with pytest.raises(ConfigurationError):
        MediaIndex(tmp_path / "empty", writable=False)


WRITER = """
import hashlib, sys
from pathlib import Path
from gas.verification.duplicates import MediaIndex, Seen
index = MediaIndex(Path(sys.argv[1]))
for number in range(len(index), 10**6):
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    index.add(Seen(digest, int.from_bytes(hashlib.sha256(b"hash %d" % number).digest(), "big")))
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_had_told(tmp_path):
    told = -1
    for wanted in (60, 1100):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            told = int(line)
            if told >= wanted:
                os.kill(process.pid, signal.SIGKILL)
                break
        told = max([told, *(int(line) for line in process.stdout if line.strip().isdigit() and line.endswith("\n"))])
        process.stdout.close()
        process.wait()
    with MediaIndex(tmp_path) as index:
        assert told < len(index) <= told + 2
        for number in range(0, told + 1, 97):
            match = index.duplicate_of(Seen(name("other"), phash(number) ^ 1))
            assert match is not None
            assert match.sha256 == name(number)
        index.add(Seen(name("last"), phash(10**7)))
    with MediaIndex(tmp_path) as index:
        assert index.duplicate_of(Seen(name("x"), phash(10**7))) is not None


@pytest.mark.parametrize("tail", [b"\x01", b"\0" * 500, b"\0" * 2000, b"torn" * 700])
def test_a_torn_end_is_cut_off_and_writing_goes_on(tmp_path, tail):
    filled(tmp_path, 5)
    with (tmp_path / "pictures.rows").open("ab") as file:
        file.write(tail)
    with MediaIndex(tmp_path) as index:
        assert len(index) == 5
        index.add(Seen(name(5), phash(5)))
    with MediaIndex(tmp_path, writable=False) as index:
        assert len(index) == 6
        assert index.duplicate_of(Seen(name("x"), phash(5))) is not None


def test_a_last_row_that_is_half_written_is_lost_alone(tmp_path):
    filled(tmp_path, 5)
    path = tmp_path / "pictures.rows"
    path.write_bytes(path.read_bytes()[:-100])
    with MediaIndex(tmp_path) as index:
        assert len(index) == 4
        assert index.duplicate_of(Seen(name("x"), phash(3))) is not None
        assert index.duplicate_of(Seen(name("x"), phash(4))) is None


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "pictures.rows").write_bytes(b"x" * 100)
    with pytest.raises(IntegrityError):
        MediaIndex(tmp_path)


def many(folder, count, seed=0):
    index = PictureIndex(folder)
    rows = np.zeros(count, PictureIndex.row_type())
    rng = np.random.default_rng(seed)
    rows["sha256"] = rng.integers(0, 256, (count, 32))
    rows["hash"] = rng.integers(0, 256, (count, 32))
    index.add_rows(rows)
    return index, rows["hash"]


def check(index, hashes):
    rng = np.random.default_rng(1)
    for row in range(0, len(hashes), 301):
        bits = np.unpackbits(hashes[row])
        bits[rng.choice(256, 8, replace=False)] ^= 1
        assert [found[:2] for found in index.within(np.packbits(bits)[None], 8)] == [(row, 8)]


@pytest.mark.parametrize("damage", ["missing", "short", "changed", "left over"])
def test_damaged_runs_are_built_again_from_the_rows(tmp_path, damage):
    index, hashes = many(tmp_path, 3000)
    index.close()
    runs = sorted(tmp_path.glob("hashes-*.run"))
    assert runs
    for path in runs:
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        elif damage == "short":
            path.write_bytes(data[:-4])
        elif damage == "changed":
            path.write_bytes(data[:9] + b"\xff" + data[10:])
        else:
            path.with_suffix(".new").write_bytes(data[:1000])
    again = PictureIndex(tmp_path)
    check(again, hashes)
    assert not list(tmp_path.glob("*.new"))
    again.close()


def test_runs_are_merged_and_nothing_is_lost(tmp_path):
    index = PictureIndex(tmp_path)
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 256, (9 * 1024 + 17, 32), dtype=np.uint8)
    for start in range(0, len(hashes), 1024):
        part = hashes[start : start + 1024]
        rows = np.zeros(len(part), PictureIndex.row_type())
        rows["sha256"][:, :8] = np.arange(start, start + len(part), dtype=np.uint64)[:, None].view(np.uint8)
        rows["hash"] = part
        index.add_rows(rows)
    check(index, hashes)
    index.settle()
    names = sorted(path.name for path in tmp_path.glob("hashes-*"))
    assert names == ["hashes-0000000000-0000008192.run", "hashes-0000008192-0000009216.run"]
    check(index, hashes)
    reader = PictureIndex(tmp_path, writable=False)
    check(reader, hashes)
    reader.close()
    index.close()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_everything_within_eight_bits_is_found_as_by_counting(seed, bits):
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 256, (4, 32), dtype=np.uint8)
    noise = np.packbits(rng.random((80, 256)) < 0.025, axis=1)
    hashes = centres[rng.integers(0, 4, 80)] ^ noise
    index = PictureIndex(None)
    rows = np.zeros(80, PictureIndex.row_type())
    rows["sha256"], rows["hash"] = rng.integers(0, 256, (80, 32)), hashes
    index.add_rows(rows)
    for query in centres:
        wanted = set(np.flatnonzero(distances(hashes, query) <= bits).tolist())
        assert {row for row, _, _ in index.within(query[None], bits)} == wanted


def test_postings_find_every_row_of_a_key_in_runs_and_tail():
    journal = Journal(None, "x", ROW)

    def entries(rows, first, table):
        values = (rows["value"] % np.uint64(50)).astype(np.uint64)
        return Entries(
            spread_codes(values), np.arange(first, first + len(rows), dtype=np.uint32), values.astype(np.uint32)
        )

    postings = Postings(None, "x", journal, entries)
    values = np.random.default_rng(0).integers(0, 1000, 5000).astype(np.uint64)
    for start in range(0, 5000, 700):
        rows = np.zeros(len(values[start : start + 700]), ROW)
        rows["value"] = values[start : start + 700]
        journal.append(rows)
        postings.refresh()
    wanted = np.array([7, 999], np.uint64)
    rows, which = postings.find(spread_codes(wanted)[None], wanted.astype(np.uint32), 0)
    assert {int(row) for row in rows[which == 0]} == set(np.flatnonzero(values % 50 == 7).tolist())
    assert not (which == 1).any()
    assert postings.runs


def test_a_video_of_which_a_killed_writer_left_a_part_is_remembered_whole(tmp_path):
    rng = np.random.default_rng(8)
    nothing = Segments(np.zeros((0, 16), np.uint8), np.zeros((0, 4), np.float32))
    frames = tuple(FramePrint(rng.integers(0, 256, (1, 32), dtype=np.uint8), nothing) for _ in range(5))
    video = Seen(name("video"), frames=frames, modality=Modality.VIDEO)
    with MediaIndex(tmp_path) as index:
        index.add(video)
    path = tmp_path / "pictures.rows"
    path.write_bytes(path.read_bytes()[: -3 * PictureIndex.row_type().itemsize - 7])
    with MediaIndex(tmp_path) as index:
        assert len(index) == 1
        index.add_all([video, video])
        assert len(index) == 6
        index.add(video)
        assert len(index) == 6
        match = index.duplicate_of(replace(video, sha256=name("copy"), frames=frames[2:] + frames[:2]))
        assert match is not None
        assert match.sha256 == name("video")
