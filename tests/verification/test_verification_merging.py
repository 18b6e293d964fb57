"""Runs of postings: merged beside without being missed, the same as if built at once, of one version."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest

from gas.errors import StorageError
from gas.media.segments import SEGMENT_BYTES, Segments, mirrored
from gas.verification import pieces, postings
from gas.verification.journal import Journal
from gas.verification.postings import Entries, Postings, spread_codes
from gas.verification.runs import SKETCH_BITS, Layout, build_run, merge_runs

ROW = np.dtype([("value", "<u8"), ("crc", "<u4")])
PER_ROW = 4
CODE_BITS = 9


def entries(rows, first, table):
    """Four postings a row, each found by the row's value and its place."""
    at = np.arange(PER_ROW)
    values = rows["value"][:, None] * np.uint64(PER_ROW) + at.astype(np.uint64)
    numbers = np.arange(first, first + len(rows))[:, None] * PER_ROW + at
    codes = spread_codes(values.ravel() ^ np.uint64(table << 50))
    return Entries(codes, numbers.ravel(), values.ravel() & np.uint64((1 << SKETCH_BITS) - 1))


def opened(folder, journal, **more):
    options = {"tables": 2, "per_row": PER_ROW, "code_bits": CODE_BITS} | more
    return Postings(folder, "some", journal, entries, **options)


def add(journal, index, values):
    rows = np.zeros(len(values), ROW)
    rows["value"] = values
    journal.append(rows)
    index.refresh()


def check(index, values):
    """Every value is found in its row, and nowhere else."""
    for row in range(0, len(values), 977):
        asked = np.uint64(values[row]) * np.uint64(PER_ROW) + np.uint64(1)
        codes = [spread_codes(np.array([asked ^ np.uint64(table << 50)])) for table in range(2)]
        numbers, _ = index.find(np.array(codes), np.array([asked]), 0)
        wanted = np.flatnonzero(values == values[row]) * PER_ROW + 1
        assert sorted(numbers.tolist()) == sorted([*wanted.tolist(), *wanted.tolist()])


@pytest.fixture
def held(monkeypatch):
    """Merges beside wait until they are let go."""
    gate = threading.Event()
    real = postings.merge_runs

    def merge(layout, rows, group, *, stop=None, kept=True):
        if stop is not None:
            assert gate.wait(60)
        return real(layout, rows, group, stop=stop, kept=kept)

    monkeypatch.setattr(postings, "merge_runs", merge)
    yield gate
    gate.set()


def test_a_large_merge_holds_up_neither_look_ups_nor_additions(tmp_path, held):
    journal = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, journal)
    values = np.random.default_rng(0).integers(0, 1 << 40, 20_000)
    for start in range(0, 20_000, 2500):
        add(journal, index, values[start : start + 2500])
        check(index, values[: start + 2500])
    before = index.runs
    held.set()
    index.settle()
    assert index.runs < before
    check(index, values)
    index.close()
    journal.close()
    again = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, again)
    check(index, values)
    assert not list(tmp_path.glob("*.new"))


def test_a_merge_that_is_under_way_at_the_end_leaves_nothing_half_done(tmp_path, monkeypatch):
    real = postings.merge_runs

    def merge(layout, rows, group, *, stop=None, kept=True):
        assert stop is None or stop.wait(60)
        return real(layout, rows, group, stop=stop, kept=kept)

    monkeypatch.setattr(postings, "merge_runs", merge)
    journal = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, journal)
    values = np.random.default_rng(1).integers(0, 1 << 40, 6144)
    add(journal, index, values[:3072])
    add(journal, index, values[3072:])
    index.close()
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.glob("some-*")) == [
        "some-0000000000-0000003072.run",
        "some-0000003072-0000006144.run",
    ]
    journal.close()
    again = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, again)
    index.settle()
    check(index, values)


def test_a_merge_that_fails_is_told_and_tried_again_later(tmp_path, monkeypatch):
    journal = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, journal)
    values = np.random.default_rng(2).integers(0, 1 << 40, 6144)
    with monkeypatch.context() as patched:

        def full(*given, **named):
            raise StorageError("The index can't be written (No space left on device).")

        patched.setattr(postings, "merge_runs", full)
        add(journal, index, values[:3072])
        add(journal, index, values[3072:])
        with pytest.raises(StorageError, match="No space"):
            index.settle()
    check(index, values)
    # Not at once: a full disk would be filled again with every row.
    index.refresh()
    index.settle()
    assert index.runs == 2
    more = np.random.default_rng(3).integers(0, 1 << 40, 4096)
    add(journal, index, more)
    index.settle()
    assert index.runs == 1
    check(index, np.concatenate([values, more]))


@pytest.mark.parametrize("cuts", [(1024, 5120), (2048, 2100, 4096), (64, 128, 6000)])
@pytest.mark.parametrize("folder", ["on disk", None])
def test_merged_runs_are_those_that_building_at_once_would_give(tmp_path, cuts, folder):
    where = tmp_path if folder else None
    journal = Journal(where, "some", ROW)
    rows = np.zeros(6144, ROW)
    rows["value"] = np.random.default_rng(3).integers(0, 500, 6144)
    journal.append(rows)
    layout = Layout(where, "some", journal, entries, tables=2, code_bits=CODE_BITS, per_row=PER_ROW)
    edges = [0, *cuts, 6144]
    parts = [build_run(layout, rows, *edge) for edge in pairwise(edges)]
    merged, whole = merge_runs(layout, rows, parts), build_run(layout, rows, 0, 6144, kept=False)
    assert (merged.first, merged.last, merged.bits) == (0, 6144, whole.bits)
    assert (merged.ends == whole.ends).all()
    assert (merged.postings == whole.postings).all()


def test_runs_of_another_version_are_built_again(tmp_path):
    journal = Journal(tmp_path, "some", ROW)
    index = opened(tmp_path, journal, version=1)
    values = np.random.default_rng(4).integers(0, 1 << 40, 2048)
    add(journal, index, values)
    path = tmp_path / "some-0000000000-0000002048.run"
    first = path.read_bytes()
    again = opened(tmp_path, journal, version=2)
    check(again, values)
    assert path.read_bytes() != first
    second = path.stat()
    opened(tmp_path, journal, version=2)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (second.st_ino, second.st_mtime_ns)


def test_a_segment_and_its_mirror_image_have_the_same_codes():
    hashes = np.random.default_rng(5).integers(0, 256, (200, SEGMENT_BYTES), dtype=np.uint8)
    other = mirrored(Segments(hashes, np.zeros((200, 4), np.float32))).hashes
    one, two = pieces._all_codes(hashes), pieces._all_codes(other)
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
    assert all(len(set(codes.tolist())) > 190 for codes in one[0])
