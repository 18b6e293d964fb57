"""The records on disk."""

import hashlib

import pytest

from gas.bench.batches import Pass
from gas.bench.records import SampleRecord, from_parquet, records_sha256, to_parquet, write_records
from gas.errors import StorageError
from gas.types import SampleStatus

RECORDS = (
    SampleRecord("a" * 64, Pass.BASE, SampleStatus.OK, 0.75, 1, True, (0.5, 1.5)),
    SampleRecord("a" * 64, Pass.ROBUST, SampleStatus.MODEL_ERROR, 0.0, None, False, None, "crashed"),
    SampleRecord("b" * 64, Pass.BASE, SampleStatus.MEDIA_ERROR, None, None, None, None, "undecodable"),
)


def test_records_come_back_as_they_were():
    assert from_parquet(to_parquet(RECORDS)) == RECORDS
    assert from_parquet(to_parquet(())) == ()


def test_the_bytes_do_not_depend_on_the_order_of_evaluation():
    assert to_parquet(RECORDS) == to_parquet(RECORDS[::-1])


def test_another_answer_is_another_hash():
    assert records_sha256(RECORDS) != records_sha256(RECORDS[:2])


def test_the_file_has_the_hash_that_was_returned(tmp_path):
    path = tmp_path / "deep" / "records.parquet"
    digest = write_records(path, RECORDS)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest == records_sha256(RECORDS)
    assert [p.name for p in path.parent.iterdir()] == ["records.parquet"]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_records(tmp_path / "file" / "records.parquet", RECORDS)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 40 + b"PAR1", to_parquet(RECORDS)[:-20]])
def test_damaged_records_are_refused(data):
    with pytest.raises(StorageError):
        from_parquet(data)
