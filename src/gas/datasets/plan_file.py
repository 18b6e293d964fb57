"""A plan: the samples that were drawn, as one Parquet file that can be read, compared and signed.

The rows are in the order of their ids. The data hash covers every value of every row and nothing of how Parquet
packs them, so that another version of the library writes a plan with the same hash. The plan's id covers the data
hash and everything else, and the signature covers the id's own text.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gas.chain.keys import verify
from gas.datasets.drawing import hash_words
from gas.datasets.plan import Round, freeze_round
from gas.datasets.plan_spec import PlanMode
from gas.errors import ConfigurationError, IntegrityError, StorageError
from gas.types import Hotkey, MediaType, Modality, Provenance, Sample

if TYPE_CHECKING:
    from gas.chain.keys import Signer

__all__ = [
    "PLAN_SCHEMA",
    "Plan",
    "PlanSignature",
    "plan_data_hash",
    "read_plan",
    "sign_plan",
    "verify_plan",
    "write_plan",
]

PLAN_SCHEMA: Final = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("media_type", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("generator_hotkey", pa.string()),
        pa.field("mime", pa.string(), nullable=False),
        pa.field("generator", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("mask_sha256", pa.string()),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("seed", pa.uint64(), nullable=False),
    ]
)
"""Columns of a plan. ``weight``: of the sample in every metric, mean 1; ``seed``: of the sample's own draws (crops,
distortions); the others as in :class:`~gas.types.Sample` and :class:`~gas.datasets.items.Item`."""

_FORMAT: Final = "1"
_PREFIX: Final = "gas.plan."
_KEYS: Final = ("format", "modality", "mode", "seed", "spec", "code_version", "data_hash", "plan_id")
_MAX_FILE: Final = 1 << 30
_MAX_ROWS: Final = 5_000_000
_MAX_UNPACKED: Final = 4 << 30
_MAX_METADATA: Final = 1 << 20
_BROKEN: Final = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError)


@dataclass(frozen=True, slots=True)
class PlanSignature:
    """Who vouches for a plan: an SS58 address, and its sr25519 signature in hex."""

    address: Hotkey
    signature: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Samples that were drawn, with all that decided which.

    Attributes:
        table: Of :data:`PLAN_SCHEMA`, in the order of the ids.
        modality: Of all samples.
        mode: How much was asked for.
        seed: Of every draw.
        spec: What was asked for, as JSON values.
        code_version: Version of the project that drew it.
        data_hash: Hex SHA-256 over the table's content.
        signature: None until somebody signs.
        dropped: Candidates that were left out, by reason; known to who draws, not written down.
    """

    table: pa.Table
    modality: Modality
    mode: PlanMode
    seed: int
    spec: Mapping[str, Any]
    code_version: str
    data_hash: str
    signature: PlanSignature | None = None
    dropped: Mapping[str, int] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def plan_id(self) -> str:
        """16 hex digits over everything but the signature."""
        return hashlib.sha256(_message(self)).hexdigest()[:16]

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples by ``provenance/media_type``."""
        return _counts(self.table, "provenance", "media_type")

    @property
    def datasets(self) -> dict[str, int]:
        """Number of samples by ``dataset/media_type``."""
        return _counts(self.table, "dataset", "media_type")

    def samples(self) -> tuple[Sample, ...]:
        """The samples as the benchmark knows them, in the order of their ids."""
        columns = {name: self.table[name].to_pylist() for name in _SAMPLE_COLUMNS}
        return tuple(
            Sample(
                sample_id=sample_id,
                modality=Modality(modality),
                media_type=MediaType(media_type),
                provenance=Provenance(provenance),
                dataset=dataset,
                source=source,
                origin=origin,
                generator_hotkey=None if hotkey is None else Hotkey(hotkey),
            )
            for sample_id, modality, media_type, provenance, dataset, source, origin, hotkey in zip(
                *columns.values(), strict=True
            )
        )

    def to_round(
        self, parameters: Mapping[str, object] | None = None, *, media: Mapping[str, str] | None = None
    ) -> Round:
        """Freeze the plan to a round that the benchmark and the arena run on.

        Args:
            parameters: Further parameters of the round; shares, plan and mode are the plan's own.
            media: Blob that stands in for each sample, e.g. the normalised medium; a sample that is not in it is
                left out. The samples themselves when left out.

        Raises:
            ConfigurationError: As :func:`~gas.datasets.plan.freeze_round`.
        """
        samples = self.samples()
        if media is not None:
            samples = tuple(
                replace(sample, sample_id=media[sample.sample_id]) for sample in samples if sample.sample_id in media
            )
        own: dict[str, object] = {"plan": self.plan_id, "mode": str(self.mode), "shares": self.spec["shares"]}
        return freeze_round(samples, self.seed, {**(parameters or {}), **own}, code_version=self.code_version)


_SAMPLE_COLUMNS: Final = tuple(PLAN_SCHEMA.names[:8])


def plan_data_hash(table: pa.Table) -> str:
    """Hex SHA-256 over a plan's content, whatever its chunks and its encoding.

    For each column of :data:`PLAN_SCHEMA` in turn: its name and type, one byte a row that says whether there is a
    value, then for text the length of each value (bytes, int64 little-endian) and all values in UTF-8 one after
    the other, for numbers the values themselves, little-endian. The number of rows comes first.
    """
    digest = hashlib.sha256(f"gas plan {_FORMAT}\n{table.num_rows}\n".encode())
    for column_field in PLAN_SCHEMA:
        column = table[column_field.name].combine_chunks()
        digest.update(f"{column_field.name} {column_field.type}\n".encode())
        digest.update(column.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8).tobytes())
        if pa.types.is_string(column_field.type):
            text = pc.fill_null(column, "").cast(pa.large_string())
            digest.update(pc.binary_length(text).to_numpy().astype("<i8").tobytes())
            offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
            if len(text) and offsets[-1] > offsets[0]:
                digest.update(memoryview(text.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        else:
            kind = "<f8" if pa.types.is_floating(column_field.type) else "<u8"
            digest.update(column.to_numpy(zero_copy_only=False).astype(kind).tobytes())
    return digest.hexdigest()


def sign_plan(plan: Plan, signer: Signer) -> Plan:
    """The same plan, signed; an earlier signature is replaced."""
    return replace(plan, signature=PlanSignature(Hotkey(str(signer.ss58_address)), signer.sign(_message(plan)).hex()))


def verify_plan(plan: Plan, address: str | None = None) -> Hotkey:
    """Check who vouches for a plan.

    Args:
        plan: From :func:`read_plan`.
        address: Who is expected; anybody when left out.

    Returns:
        The signer's address.

    Raises:
        IntegrityError: ``unsigned``, ``bad_signature``, or ``other_signer``.
    """
    if plan.signature is None:
        raise IntegrityError("The plan is not signed.", code="unsigned")
    try:
        raw = bytes.fromhex(plan.signature.signature)
    except ValueError:
        raw = b""
    if not verify(plan.signature.address, _message(plan), raw):
        raise IntegrityError("The plan's signature is not good.", code="bad_signature")
    if address is not None and plan.signature.address != address:
        raise IntegrityError(f"The plan is signed by {plan.signature.address}.", code="other_signer")
    return plan.signature.address


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan; a reader sees the whole file or none.

    Raises:
        StorageError: The file can't be written.
    """
    import pyarrow.parquet as pq

    values = {**_described(plan), "format": _FORMAT, "plan_id": plan.plan_id}
    if plan.signature is not None:
        values |= {"signer": str(plan.signature.address), "signature": plan.signature.signature}
    metadata = {_PREFIX + key: value if isinstance(value, str) else _json(value) for key, value in values.items()}
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            pq.write_table(plan.table.replace_schema_metadata(metadata), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise StorageError(f"The plan can't be written ({error.strerror or error}).") from error


def read_plan(path: Path) -> Plan:
    """Read a plan and check everything: sizes, columns, values, both hashes, and the signature when there is one.

    Raises:
        StorageError: ``plan_missing`` (no such file) or ``plan_damaged`` (no plan, or something was changed).
    """
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size > _MAX_FILE:
            raise _damaged("size")
        packed = pa.py_buffer(path.read_bytes())
    except OSError as error:
        raise StorageError(f"There is no plan at {path}.", code="plan_missing") from error
    try:
        file = pq.ParquetFile(pa.BufferReader(packed))
        groups = [file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups)]
        stored = {
            key.decode().removeprefix(_PREFIX): value.decode()
            for key, value in (file.metadata.metadata or {}).items()
            if key.startswith(_PREFIX.encode())
        }
    except _BROKEN as error:
        raise _damaged("content") from error
    if file.metadata.num_rows > _MAX_ROWS or sum(groups) > _MAX_UNPACKED:
        raise _damaged("size")
    if any(key not in stored or len(stored[key]) > _MAX_METADATA for key in _KEYS) or stored["format"] != _FORMAT:
        raise _damaged("description")
    try:
        table = file.read(columns=PLAN_SCHEMA.names).select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA).combine_chunks()
        table = table.replace_schema_metadata(None)
        table.validate(full=True)
        plan = Plan(
            table=table,
            modality=Modality(stored["modality"]),
            mode=PlanMode(stored["mode"]),
            seed=int(stored["seed"]),
            spec=json.loads(stored["spec"]),
            code_version=stored["code_version"],
            data_hash=stored["data_hash"],
            signature=PlanSignature(Hotkey(stored["signer"]), stored["signature"]) if "signature" in stored else None,
        )
        _check(plan)
        if plan_data_hash(table) != plan.data_hash:
            raise _damaged("data hash")
        if plan.plan_id != stored["plan_id"]:
            raise _damaged("id")
    except (*_BROKEN, ConfigurationError) as error:
        raise _damaged("content") from error
    if plan.signature is not None:
        try:
            verify_plan(plan)
        except IntegrityError as error:
            raise _damaged("signature") from error
    return plan


def _check(plan: Plan) -> None:
    """Raise ValueError or ConfigurationError for values that no plan can hold."""
    table, known = plan.table, {"modality": Modality, "media_type": MediaType, "provenance": Provenance}
    for name, words in known.items():
        if not set(pc.unique(table[name]).to_pylist()) <= {str(word) for word in words}:
            raise ValueError(name)
    if set(pc.unique(table["modality"]).to_pylist()) - {str(plan.modality)} or not isinstance(plan.spec, dict):
        raise ValueError("modality")
    for name in ("sample_id", "origin"):
        hash_words(table[name], name)
    hash_words(table["mask_sha256"].drop_null(), "mask_sha256")
    ids = table["sample_id"].combine_chunks()
    if len(ids) == 0 or not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
        raise ValueError("The ids are not in their order.")
    weights = table["weight"].to_numpy()
    if any(column.null_count for name, column in zip(table.column_names, table.columns, strict=True)
           if not PLAN_SCHEMA.field(name).nullable):  # fmt: skip
        raise ValueError("A value is missing.")
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError("A weight is no number.")
    if "shares" not in plan.spec or plan.seed < 0:
        raise ValueError("spec")


def _described(plan: Plan) -> dict[str, Any]:
    return {
        "modality": str(plan.modality),
        "mode": str(plan.mode),
        "seed": plan.seed,
        "spec": dict(plan.spec),
        "code_version": plan.code_version,
        "data_hash": plan.data_hash,
    }


def _message(plan: Plan) -> bytes:
    """What is signed; the first words keep the signature from being taken for one of another kind."""
    return f"gas plan {_FORMAT}\n{_json(_described(plan))}".encode()


def _counts(table: pa.Table, first: str, second: str) -> dict[str, int]:
    grouped = table.group_by([first, second]).aggregate([([], "count_all")])
    return dict(sorted((f"{row[first]}/{row[second]}", row["count_all"]) for row in grouped.to_pylist()))


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _damaged(what: str) -> StorageError:
    return StorageError(f"The plan's {what} is not as it was written.", code="plan_damaged")
