"""Media out of Parquet tables: what comes out, and what hostile tables are worth."""

from __future__ import annotations

import io
import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.datasets.formats import FormatLimits, RawItem, Wanted, kind_of, read_items
from gas.datasets.formats.magic import is_container
from gas.datasets.sources.arena import SHARD_WANTED, shard_schema
from gas.errors import ConfigurationError, GasError, MediaRejected
from gas.types import Modality

PNG = b"\x89PNG "


def write(path: Path, table: pa.Table, **how: Any) -> Path:
    pq.write_table(table, path, **how)
    return path


def read(path: Path, wanted: Wanted | None = None, limits: FormatLimits | None = None) -> list[RawItem]:
    return list(read_items(path, "data/x.parquet", wanted or Wanted(), limits or FormatLimits()))


def media(count: int) -> list[bytes]:
    return [PNG + bytes([number % 256]) * (number + 1) for number in range(count)]


def test_rows_come_in_their_order_byte_for_byte_with_the_columns_that_are_wanted(tmp_path: Path) -> None:
    table = pa.table({"image": media(50), "prompt": [f"p{n}" for n in range(50)], "n": [None, *range(49)]})
    path = write(tmp_path / "x.part", table, row_group_size=7)
    assert kind_of(path) == "parquet"
    items = read(path, Wanted(text_columns=("prompt", "n")))
    assert [item.data for item in items] == media(50)
    assert items[0].path == "data/x.parquet#0:image"
    assert items[49].path == "data/x.parquet#49:image"
    assert items[0].columns == {"prompt": "p0"}
    assert items[3].columns == {"prompt": "p3", "n": "2"}


def test_pairs_of_bytes_and_path_are_read_as_hugging_face_writes_them(tmp_path: Path) -> None:
    cells = [
        {"bytes": PNG, "path": "a.png"},
        {"bytes": None, "path": "somewhere/else.png"},
        None,
        {"bytes": b"", "path": None},
        {"bytes": PNG + b"2", "path": None},
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", kind), ("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": features}})}
    )
    path = write(tmp_path / "x", pa.table({"image": pa.array(cells, kind), "label": [0, 1, 0, 1, 7]}, schema=schema))
    items = read(path, Wanted(text_columns=("label",)))
    assert [item.error.code if item.error else item.data for item in items] == [
        PNG,
        "outside",
        "empty",
        "empty",
        PNG + b"2",
    ]
    assert [item.columns.get("label") for item in items if not item.error] == ["cat", "7"]
    by_name = read(path, Wanted(filter_column="label", filter_values=("dog",)))
    by_number = read(path, Wanted(filter_column="label", filter_values=("1",)))
    assert [item.path for item in by_name] == [item.path for item in by_number] == [items[1].path, items[3].path]


def test_lists_of_media_are_numbered_and_paired_with_their_masks(tmp_path: Path) -> None:
    table = pa.table(
        {"frames": [[PNG, PNG + b"2"], [], None, [PNG + b"3"]], "masks": [[b"m1", b"m2"], [], None, [None]]}
    )
    items = read(write(tmp_path / "x", table), Wanted(data_columns=("frames",), mask_column="masks"))
    assert [(item.path.partition("#")[2], item.data, item.mask) for item in items] == [
        ("0:frames[0]", PNG, b"m1"),
        ("0:frames[1]", PNG + b"2", b"m2"),
        ("3:frames[0]", PNG + b"3", None),
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(8), pa.dictionary(pa.int32(), pa.binary())])
def test_bytes_are_bytes_in_every_type_of_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    values = [b"\x89PNG-one", b"\x89PNG-two", b"\x89PNG-one"]
    column = (
        pa.array(values, pa.binary()).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)
    )
    assert [item.data for item in read(write(tmp_path / "x", pa.table({"media": column})))] == values


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_of_every_kind_are_read(tmp_path: Path, compression: str, version: str) -> None:
    for how in ({"use_dictionary": True}, {"use_dictionary": False, "column_encoding": {"image": "DELTA_BYTE_ARRAY"}}):
        path = write(
            tmp_path / "x",
            pa.table({"image": media(300)}),
            compression=compression,
            data_page_version=version,
            data_page_size=2000,
            **how,
        )
        assert [item.data for item in read(path)] == media(300)


def test_the_column_is_found_by_its_type_and_its_name(tmp_path: Path) -> None:
    one = pa.table({"id": [1], "blob": [PNG]})
    assert [item.path[-6:] for item in read(write(tmp_path / "x", one))] == ["0:blob"]
    several = pa.table({"thumb": [PNG], "image": [PNG + b"2"], "audio": [b"RIFF"]})
    path = write(tmp_path / "y", several)
    assert [item.data for item in read(path, Wanted(modality=Modality.IMAGE))] == [PNG + b"2"]
    assert [item.data for item in read(path, Wanted(modality=Modality.AUDIO))] == [b"RIFF"]
    with pytest.raises(ConfigurationError) as unclear:
        read(path)
    assert unclear.value.error_code == "column_ambiguous"
    assert [item.data for item in read(path, Wanted(data_columns=("thumb", "image")))] == [PNG, PNG + b"2"]
    masked = pa.table({"picture": [PNG], "picture_mask": [b"m"]})
    (item,) = read(write(tmp_path / "z", masked), Wanted(mask_column="picture_mask"))
    assert (item.data, item.mask) == (PNG, b"m")


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted(data_columns=("imgae",)),
        Wanted(mask_column="mask"),
        Wanted(filter_column="split", filter_values=("train",)),
        Wanted(text_columns=("label",)),
        Wanted(data_columns=("prompt",)),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, wanted: Wanted) -> None:
    path = write(tmp_path / "x", pa.table({"image": [PNG], "prompt": ["p"]}))
    with pytest.raises(ConfigurationError) as missing:
        read(path, wanted)
    assert missing.value.error_code == "column_missing"
    assert "'image'" in str(missing.value.hint)


def test_a_table_without_any_media_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no column that holds media"):
        read(write(tmp_path / "x", pa.table({"prompt": ["p"]})))


def test_rows_are_filtered_before_their_media_are_read(tmp_path: Path) -> None:
    splits = ["train"] * 20 + ["test"] * 20 + ["train"] * 5 + ["test"] * 15
    table = pa.table({"image": media(60), "split": splits})
    path = write(tmp_path / "x", table, row_group_size=20)
    items = read(path, Wanted(filter_column="split", filter_values=("train",)))
    assert [item.data for item in items] == [
        data for data, split in zip(media(60), splits, strict=True) if split == "train"
    ]
    assert read(path, Wanted(filter_column="split", filter_values=("validation",))) == []
    # The media of the group that holds no wanted row may even be damaged.
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    raw[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(raw)
    assert read(path, Wanted(filter_column="split", filter_values=("train",))) == items


def test_truth_values_may_be_written_as_people_do(tmp_path: Path) -> None:
    path = write(tmp_path / "x", pa.table({"image": media(3), "fake": [True, False, None]}))
    for value in ("true", "True"):
        assert [item.data for item in read(path, Wanted(filter_column="fake", filter_values=(value,)))] == media(1)


def test_a_damaged_page_costs_its_group_of_rows_only(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x", pa.table({"image": media(30)}), row_group_size=10, compression="zstd", use_dictionary=False
    )
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    raw[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(raw)
    items = read(path)
    assert [item.data for item in items if item.error is None] == media(30)[:10] + media(30)[20:]
    (lost,) = [item for item in items if item.error]
    assert lost.path == "data/x.parquet#10-19"
    assert lost.error is not None
    assert lost.error.code == "rows_damaged"


def test_a_page_that_does_not_fit_its_checksum_is_noticed(tmp_path: Path) -> None:
    how = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    path = write(tmp_path / "x", pa.table({"image": [PNG * 9]}), **how)
    path.write_bytes(path.read_bytes().replace(PNG * 9, PNG * 8 + b"other"))
    assert [item.error and item.error.code for item in read(path)] == ["rows_damaged"]


def test_media_larger_than_allowed_and_archives_in_cells_are_set_aside(tmp_path: Path) -> None:
    table = pa.table(
        {"image": [b"x" * 1001, b"y" * 1000, b"PK\x03\x04" + b"z" * 50, b"s"], "mask": [b"m", None, None, b"m" * 1001]}
    )
    items = read(
        write(tmp_path / "x", table),
        Wanted(data_columns=("image",), mask_column="mask"),
        FormatLimits(max_item_bytes=1000),
    )
    assert [item.error.code if item.error else item.data[:1] for item in items] == [
        "too_large",
        b"y",
        "nested_archive",
        "too_large",
    ]


def test_pages_larger_than_allowed_are_never_unpacked(tmp_path: Path) -> None:
    """Zeros: a page of 16 MiB takes a few bytes, and one of 2 GiB would too."""
    table = pa.table({"image": [PNG, bytes(16 << 20), PNG]})
    path = write(tmp_path / "x", table, row_group_size=1, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 20_000
    items = read(path, limits=FormatLimits(max_page_bytes=1 << 20))
    assert [item.error.code if item.error else item.data for item in items] == [PNG, "rows_damaged", PNG]


def test_a_value_that_every_row_refers_to_does_not_multiply_in_memory(tmp_path: Path) -> None:
    """A dictionary of one value of 4 MiB and 2,000 rows: 8 GB when unpacked at once."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array([bytes(4 << 20)], pa.binary()))
    path = write(tmp_path / "x", pa.table({"image": column}), compression="zstd")
    assert path.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    most = 0
    for number, item in enumerate(read_items(path, "x", Wanted())):
        assert len(item.data) == 4 << 20
        most = max(most, pa.total_allocated_bytes() - before)
        if number == 40:
            break
    assert most < 200 << 20


def test_a_row_with_millions_of_values_is_refused(tmp_path: Path) -> None:
    row = pa.ListArray.from_arrays(pa.array([0, 5_000_000], pa.int32()), pa.nulls(5_000_000, pa.binary()))
    path = write(tmp_path / "x", pa.table({"frames": row}))
    assert path.stat().st_size < 50_000
    items = read(path)
    assert [item.error and item.error.code for item in items] == ["rows_damaged"]


def nested(depth: int) -> pa.Table:
    kind: pa.DataType = pa.binary()
    for _ in range(depth):
        kind = pa.struct([("a", kind)])
    return pa.table({"image": [PNG], "deep": pa.nulls(1, kind)})


def test_deep_schemas_are_refused_before_anything_recurses(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "x", nested(20)))) == 1
    with pytest.raises(MediaRejected, match="deeper"):
        read(write(tmp_path / "x", nested(60)))


def test_metadata_that_are_absurd_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x", pa.table({"image": [PNG]}))
    raw = path.read_bytes()
    (size,) = struct.unpack("<I", raw[-8:-4])
    for damaged in (
        b"PAR1",
        b"PAR1" + raw[-8:],
        raw[:-1],
        raw[:-4] + b"PARE",
        raw[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1",
        raw[:-8] + struct.pack("<I", len(raw)) + b"PAR1",
        raw[: -8 - size] + b"\xff" * size + raw[-8:],
        raw[: -8 - size] + b"\x29" * size + raw[-8:],
        raw[: -8 - size] + b"\x1c" * size + raw[-8:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(MediaRejected) as refused:
            read(path)
        assert refused.value.error_code == "archive"
    path.write_bytes(raw)
    with pytest.raises(MediaRejected, match="larger"):
        read(path, limits=FormatLimits(max_footer_bytes=size - 1))


def test_shards_of_an_arena_are_read_with_their_columns_and_masks(tmp_path: Path) -> None:
    row = {
        "bytes": PNG,
        "sha256": "0" * 64,
        "media_type": "semisynthetic",
        "modality": "image",
        "mime": "image/png",
        "generator_hotkey": "5F",
        "model": None,
        "prompt_id": "p1",
        "category": "food",
        "width": 8,
        "height": 8,
        "seconds": None,
        "mask": b"mask",
        "verified_at": datetime(2026, 11, 16, 12, 0, 0, 5000, tzinfo=UTC),
    }
    path = write(tmp_path / "x", pa.Table.from_pylist([row, row | {"mask": None}], schema=shard_schema()))
    items = read(path, SHARD_WANTED)
    assert [item.mask for item in items] == [b"mask", None]
    assert items[0].data == PNG
    assert items[0].columns["generator_hotkey"] == "5F"
    assert items[0].columns["media_type"] == "semisynthetic"
    assert items[0].columns["verified_at"] == "2026-11-16T12:00:00.005000+00:00"
    assert "model" not in items[0].columns
    with pytest.raises(ConfigurationError):
        read(write(tmp_path / "y", pa.table({"bytes": [PNG]})), SHARD_WANTED)


def test_metadata_that_would_end_the_process_are_a_typed_outcome(tmp_path: Path) -> None:
    """Arrow's accessors end the process when the statistics of a column's sizes are damaged: they are not asked."""
    raw = bytearray(ORIGINAL)
    footer = len(raw) - 8 - struct.unpack("<I", raw[-8:-4])[0]
    for at in range(footer, len(raw) - 8, 13):
        damaged = bytearray(raw)
        damaged[at] ^= 0x10
        (tmp_path / "x").write_bytes(damaged)
        try:
            read(tmp_path / "x", Wanted(data_columns=("image",)))
        except (MediaRejected, ConfigurationError):
            continue


def original() -> bytes:
    sink = io.BytesIO()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": data, "path": "p"} for data in media(40)]
    table = pa.table(
        {"image": pa.array(cells, kind), "label": [f"l{n % 3}" for n in range(40)], "many": [[b"x"] * 3] * 40}
    )
    pq.write_table(table, sink, row_group_size=15, compression="zstd", data_page_size=500)
    return sink.getvalue()


ORIGINAL = original()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_table_is_worse_than_a_typed_outcome(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(ORIGINAL)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(raw)
    wanted = Wanted(
        data_columns=("image", "many"), text_columns=("label",), filter_column="label", filter_values=("l1", "l2")
    )
    try:
        for item in read_items(tmp_path / "x", "x", wanted):
            assert item.data or item.error
    except GasError as error:
        assert isinstance(error, MediaRejected | ConfigurationError)


CELLS = st.binary(min_size=1, max_size=300).filter(lambda data: not is_container(data))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(CELLS),
    group=st.integers(1, 50),
    budget=st.integers(1, 5000),
)
def test_what_goes_into_a_table_comes_out_of_it(tmp_path: Path, values: list[bytes], group: int, budget: int) -> None:
    path = write(tmp_path / "x", pa.table({"image": pa.array(values, pa.binary())}), row_group_size=group)
    assert [item.data for item in read(path, limits=FormatLimits(batch_bytes=budget))] == values
