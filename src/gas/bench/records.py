"""One row for each sample and pass of a run, and its form on disk.

The Parquet bytes depend on the rows alone: times, hosts and the order of evaluation are kept elsewhere, so that the
SHA-256 of the file can stand in a receipt and a repeated run can be compared byte for byte.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gas.bench.batches import Pass
from gas.errors import StorageError
from gas.types import SampleStatus

__all__ = ["SampleRecord", "from_parquet", "records_sha256", "to_parquet", "write_records", "write_times"]

_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("pass", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("p_fake", pa.float64()),
        pa.field("predicted", pa.int32()),
        pa.field("fake", pa.bool_()),
        pa.field("logits", pa.list_(pa.float32())),
        pa.field("error", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The outcome of one sample in one pass.

    Attributes:
        sample_id: Hex SHA-256 of the medium.
        variant: Base or robust pass.
        status: ``ok``, ``model_error`` (counts as wrong) or ``media_error`` (left out for every model).
        p_fake: Probability in [0, 1] that the medium is fake; ``1 - label`` for a model error, None for a media error.
        predicted: Decision as a label: 0 real, 1 synthetic, 2 semisynthetic (binary models say 0 or 1); a wrong
            class for a model error, None for a media error.
        fake: Binary decision; the wrong class for a model error, None for a media error.
        logits: What the model answered, float32 values; None where it gave no usable answer.
        error: Stable code of what went wrong; None when nothing did.
    """

    sample_id: str
    variant: Pass
    status: SampleStatus
    p_fake: float | None
    predicted: int | None
    fake: bool | None
    logits: tuple[float, ...] | None
    error: str | None = None


def to_parquet(records: Sequence[SampleRecord]) -> bytes:
    """The canonical Parquet form: sorted by sample and pass, the same bytes for the same rows."""
    rows = sorted(records, key=lambda r: (r.sample_id, r.variant.value))
    columns = [
        [r.sample_id for r in rows],
        [r.variant.value for r in rows],
        [r.status.value for r in rows],
        [r.p_fake for r in rows],
        [r.predicted for r in rows],
        [r.fake for r in rows],
        [list(r.logits) if r.logits is not None else None for r in rows],
        [r.error for r in rows],
    ]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    sink = io.BytesIO()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=_SCHEMA), sink, compression="zstd", version="2.6", row_group_size=65536
    )
    return sink.getvalue()


def records_sha256(records: Sequence[SampleRecord]) -> str:
    """Hex SHA-256 of the canonical Parquet form."""
    return hashlib.sha256(to_parquet(records)).hexdigest()


def write_records(path: Path, records: Sequence[SampleRecord]) -> str:
    """Write the canonical form to ``path`` (aside, then renamed) and return its hex SHA-256.

    Raises:
        gas.errors.StorageError: The file can't be written.
    """
    data = to_parquet(records)
    _write(path, data)
    return hashlib.sha256(data).hexdigest()


def write_times(path: Path, batches: Sequence[tuple[int, float]]) -> None:
    """Write how long the model had each batch: columns ``samples`` and ``seconds``, in the order of the answers.

    Beside the records and never in them, because no two runs agree on it.

    Raises:
        gas.errors.StorageError: The file can't be written.
    """
    columns = {
        "samples": pa.array([samples for samples, _ in batches], pa.int32()),
        "seconds": pa.array([seconds for _, seconds in batches], pa.float64()),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    _write(path, sink.getvalue())


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        raise StorageError(
            f"The records could not be written ({error.strerror}).", code="records_unwritable"
        ) from error


def from_parquet(data: bytes) -> tuple[SampleRecord, ...]:
    """Read the canonical form back.

    Raises:
        gas.errors.StorageError: The bytes are no records of a run.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        if not table.schema.equals(_SCHEMA):
            raise StorageError("The file holds other columns than the records of a run.", code="records_damaged")
        return tuple(_record(row) for row in table.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError("The file holds no records of a run.", code="records_damaged") from error


def _record(row: dict[str, object]) -> SampleRecord:
    p_fake, predicted, fake, logits, error = (row[k] for k in ("p_fake", "predicted", "fake", "logits", "error"))
    return SampleRecord(
        sample_id=str(row["sample_id"]),
        variant=Pass(str(row["pass"])),
        status=SampleStatus(str(row["status"])),
        p_fake=p_fake if isinstance(p_fake, float) else None,
        predicted=predicted if isinstance(predicted, int) else None,
        fake=fake if isinstance(fake, bool) else None,
        logits=tuple(logits) if isinstance(logits, list) else None,
        error=error if isinstance(error, str) else None,
    )
