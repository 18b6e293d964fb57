"""The search by segments: what is found through the index is what comparing with every row finds."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from gas.media.segments import SEGMENT_BYTES, SEGMENTS, Segments, mirrored
from gas.verification.pictures import AGREEING, PictureIndex
from gas.verification.prints import FramePrint, Seen

COUNT = 3000


def made_up(count, seed=0):
    """Rows of pictures with random hashes; a quarter of the segments are ones that very many pictures have."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, PictureIndex.row_type())
    rows["sha256"] = rng.integers(0, 256, (count, 32))
    rows["hash"] = rng.integers(0, 256, (count, 32))
    rows["segments"] = SEGMENTS
    rows["pieces"] = rng.integers(0, 256, (count, SEGMENTS, SEGMENT_BYTES))
    common = rng.integers(0, 256, (5, SEGMENT_BYTES), dtype=np.uint8)
    rows["pieces"][:, : SEGMENTS // 4] = common[rng.integers(0, 5, (count, SEGMENTS // 4))]
    rows["places"][..., :2], rows["places"][..., 2] = rng.uniform(2, 120, (count, SEGMENTS, 2)), 8
    rows["places"][..., 3] = rng.uniform(0, 6, (count, SEGMENTS))
    return rows


def damaged(row, rng, keep=8):
    """Segments of a copy: some of the row's, with a twelfth of their bits wrong, among strange ones."""
    pieces = rng.integers(0, 256, (SEGMENTS, SEGMENT_BYTES), dtype=np.uint8)
    kept = SEGMENTS // 4 + rng.permutation(SEGMENTS * 3 // 4)[:keep]
    pieces[kept] = row["pieces"][kept] ^ np.packbits(rng.random((keep, 8 * SEGMENT_BYTES)) < 1 / 12, axis=1)
    return Segments(pieces, row["places"].astype(np.float32))


def asked(segments, owner=""):
    hashes = np.random.default_rng(9).integers(0, 256, (8, 32), dtype=np.uint8)
    return Seen("ff" * 32, owner=owner, frames=(FramePrint(hashes, segments),))


@pytest.fixture(scope="module")
def index():
    index = PictureIndex(None)
    index.add_rows(made_up(COUNT))
    return index


def test_copies_with_a_quarter_of_their_segments_left_are_found_among_strangers(index):
    rng = np.random.default_rng(1)
    rows = index.journal.rows()
    for at in range(0, COUNT, 61):
        match = index.by_segments(asked(damaged(rows[at], rng)))
        assert match is not None
        assert match.sha256 == bytes(rows[at]["sha256"]).hex()
        assert (match.placing, match.agreeing >= AGREEING) == ("upright", True)


def test_a_mirrored_copy_is_found_and_told(index):
    rng = np.random.default_rng(2)
    row = index.journal.rows()[77]
    match = index.by_segments(asked(mirrored(damaged(row, rng, keep=12))))
    assert match is not None
    assert (match.sha256, match.placing) == (bytes(row["sha256"]).hex(), "mirrored")


def test_segments_that_everybody_has_make_no_copy(index):
    rng = np.random.default_rng(3)
    for at in range(0, COUNT, 300):
        segments = damaged(index.journal.rows()[at], rng, keep=1)
        segments.hashes[: SEGMENTS // 4] = index.journal.rows()[at]["pieces"][: SEGMENTS // 4]
        places = rng.uniform(2, 120, (SEGMENTS, 4)).astype(np.float32)
        assert index.by_segments(asked(Segments(segments.hashes, places))) is None


def test_ones_own_rows_are_passed_over_and_the_next_ones_are_found():
    from gas.verification.pictures import name_key

    index = PictureIndex(None)
    rows = made_up(2)
    rows["pieces"][1], rows["places"][1] = rows["pieces"][0], rows["places"][0]
    rows["owner"][0] = name_key("v/m/t")
    index.add_rows(rows)
    segments = damaged(rows[0], np.random.default_rng(4), keep=16)
    match = index.by_segments(asked(segments, owner="v/m/t"))
    assert match is not None
    assert match.sha256 == bytes(rows[1]["sha256"]).hex()


def check(index, count):
    rng = np.random.default_rng(5)
    rows = index.journal.rows()
    for at in range(0, count, 211):
        match = index.by_segments(asked(damaged(rows[at], rng, keep=12)))
        assert match is not None
        assert match.sha256 == bytes(rows[at]["sha256"]).hex()


def test_a_reader_finds_all_that_was_written_while_runs_are_merged(tmp_path):
    rows = made_up(2400)
    writer = PictureIndex(tmp_path)
    writer.add_rows(rows[:10])
    readers = [PictureIndex(tmp_path, writable=False) for _ in range(2)]
    for start in range(10, len(rows), 478):
        writer.add_rows(rows[start : start + 478])
        readers[0].refresh()
        check(readers[0], len(writer))
    readers[1].refresh()
    check(readers[1], len(rows))
    writer.settle()
    readers[0].refresh()
    check(readers[0], len(rows))
    assert [path.name for path in sorted(tmp_path.glob("segments-*"))] == ["segments-0000000000-0000002048.run"]
    for one in (*readers, writer):
        one.close()


CRASHING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_verification_pieces import made_up
from gas.verification.pictures import PictureIndex
index = PictureIndex(Path(sys.argv[1]))
where, left = sys.argv[2], int(sys.argv[3])
owner = Path if hasattr(Path, where) else os
real = getattr(owner, where)
def killed(*given, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)
setattr(owner, where, killed)
rows = made_up(2200)
for start in range(0, 2200, 550):
    index.add_rows(rows[start : start + 550])
    index.settle()
"""


@pytest.mark.parametrize(("where", "left"), [("replace", 4), ("unlink", 2), ("pwrite", 40)])
def test_a_writer_killed_while_it_merges_leaves_an_index_that_knows_its_rows(tmp_path, where, left):
    folder = str(__file__).rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path), where, str(left), folder], timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL
    index = PictureIndex(tmp_path)
    assert len(index) >= 1024
    assert (index.journal.rows()["sha256"] == made_up(2200)["sha256"][: len(index)]).all()
    check(index, len(index))
    index.settle()
    check(index, len(index))
    assert not list(tmp_path.glob("*.new"))
    index.close()


@pytest.mark.parametrize("damage", ["missing", "short", "of the version before"])
def test_damaged_postings_of_segments_are_built_again_from_the_rows(tmp_path, damage):
    index = PictureIndex(tmp_path)
    index.add_rows(made_up(2100))
    index.close()
    for path in tmp_path.glob("segments-*.run"):
        data = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(data[:-8] if damage == "short" else b"GASRUN01" + data[8:])
    again = PictureIndex(tmp_path)
    check(again, 2100)
    again.close()


def test_a_closed_index_has_no_room_left_at_its_end(tmp_path):
    index = PictureIndex(tmp_path)
    index.add_rows(made_up(3))
    index.close()
    assert (tmp_path / "pictures.rows").stat().st_size == 64 + 3 * PictureIndex.row_type().itemsize
