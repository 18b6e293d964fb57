"""A round: frozen data, parameters, code version and seed, so that all its models see the same.

The data hash covers every field of every sample; the round's id covers the data hash and everything else. A
round on disk is a Parquet file with the samples and a ``manifest.json`` that is written last: readers need no
lock, and a folder without a manifest is no round.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Final

from gas.clock import derive_seed
from gas.errors import ConfigurationError, StorageError
from gas.types import Hotkey, MediaType, Modality, Provenance, Sample

__all__ = [
    "DEFAULT_SHARES",
    "Round",
    "check_shares",
    "data_hash",
    "freeze_round",
    "read_round",
    "select",
    "write_round",
]

DEFAULT_SHARES: Final[Mapping[Provenance, float]] = MappingProxyType(
    {Provenance.PUBLIC: 0.5, Provenance.HOLDOUT: 0.3, Provenance.ARENA: 0.2}
)
"""Share of the score that each provenance class gets (scoring.md, section 3), renormalised over those present."""

_FORMAT: Final = 1
_SAMPLES: Final = "samples.parquet"
_MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Round:
    """What a benchmark runs on.

    Attributes:
        round_id: 16 hex digits, a hash over everything below.
        seed: Every draw of the round is derived from it.
        samples: In the order of their ids, which is the same for everybody and tells nothing.
        parameters: JSON values: shares, limits, distortions, prices; the same for all models.
        code_version: Version of the project that froze it.
        data_hash: Hex SHA-256 over the samples.
    """

    round_id: str
    seed: int
    samples: tuple[Sample, ...]
    parameters: Mapping[str, object]
    code_version: str
    data_hash: str

    @property
    def sizes(self) -> dict[str, int]:
        """Number of samples by ``provenance/media_type``."""
        counts: dict[str, int] = defaultdict(int)
        for sample in self.samples:
            counts[f"{sample.provenance}/{sample.media_type}"] += 1
        return dict(sorted(counts.items()))


def data_hash(samples: Iterable[Sample]) -> str:
    """Hex SHA-256 over the canonical JSON of the samples in the order of their ids."""
    rows = [asdict(sample) for sample in sorted(samples, key=lambda s: s.sample_id)]
    return hashlib.sha256(_canonical(rows)).hexdigest()


def check_shares(shares: Mapping[str, float]) -> dict[Provenance, float]:
    """Check a table of provenance shares.

    Raises:
        ConfigurationError: An unknown class, a negative share, or a sum other than 1.
    """
    try:
        checked = {Provenance(name): float(share) for name, share in shares.items()}
    except (ValueError, TypeError) as error:
        raise ConfigurationError("Provenance shares are numbers for public, holdout and arena.") from error
    if any(not math.isfinite(share) or share < 0 for share in checked.values()) or not math.isclose(
        sum(checked.values()), 1, abs_tol=1e-9
    ):
        raise ConfigurationError("Provenance shares must not be negative and must sum to 1.")
    return checked


def select(samples: Iterable[Sample], per_dataset: int, seed: int) -> tuple[Sample, ...]:
    """Draw at most ``per_dataset`` samples of each data set and media type.

    Which ones depends on the seed and each sample's content hash only: the same on every machine, whatever
    the order in which the samples come, and stable when others are added or removed.

    Returns:
        The drawn samples in the order of their ids.
    """
    groups: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.dataset, sample.media_type].append(sample)
    drawn = [
        sample
        for group in groups.values()
        for sample in sorted(group, key=lambda s: (derive_seed(seed, "select", s.sample_id), s.sample_id))[
            : max(0, per_dataset)
        ]
    ]
    return tuple(sorted(drawn, key=lambda s: s.sample_id))


def freeze_round(samples: Iterable[Sample], seed: int, parameters: Mapping[str, object], *, code_version: str) -> Round:
    """Freeze samples and parameters to a round.

    Args:
        samples: With distinct ids.
        seed: Not negative.
        parameters: JSON values. ``shares``, when given, is checked; :data:`DEFAULT_SHARES` otherwise.
        code_version: Version of the project.

    Raises:
        ConfigurationError: No sample, an id twice, the origin of a held-out sample also outside the holdout
            (``split_leak``), shares that don't sum to 1, or a parameter that JSON can't hold.
    """
    ordered = tuple(sorted(samples, key=lambda s: s.sample_id))
    if not ordered:
        raise ConfigurationError("A round needs at least one sample.", code="empty_round")
    if len({sample.sample_id for sample in ordered}) != len(ordered):
        raise ConfigurationError("A round holds a medium twice.", code="duplicate_sample")
    held = {s.origin for s in ordered if s.provenance is Provenance.HOLDOUT}
    if held & {s.origin for s in ordered if s.provenance is not Provenance.HOLDOUT}:
        raise ConfigurationError(
            "A held-out medium derives from the same photo as one outside the holdout.", code="split_leak"
        )
    complete = dict(parameters)
    shares = complete.get("shares", {str(name): share for name, share in DEFAULT_SHARES.items()})
    if not isinstance(shares, Mapping):
        raise ConfigurationError("Provenance shares are a table.")
    complete["shares"] = {str(name): share for name, share in sorted(check_shares(shares).items())}
    try:
        frozen = json.loads(_canonical(complete))
    except (TypeError, ValueError) as error:
        raise ConfigurationError("A round's parameters must be JSON values.") from error
    content = data_hash(ordered)
    return Round(_round_id(content, seed, frozen, code_version), seed, ordered, frozen, code_version, content)


def write_round(round_: Round, folder: Path) -> Path:
    """Write a round to a folder, the manifest last.

    Returns:
        The manifest's path.

    Raises:
        StorageError: The folder can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [field.name for field in fields(Sample)]
    table = pa.table({name: pa.array([_cell(getattr(s, name)) for s in round_.samples], pa.string()) for name in names})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    manifest = {
        "format": _FORMAT,
        "round_id": round_.round_id,
        "seed": round_.seed,
        "parameters": round_.parameters,
        "code_version": round_.code_version,
        "data_hash": round_.data_hash,
        "samples": len(round_.samples),
        "sizes": round_.sizes,
        "files": {_SAMPLES: hashlib.sha256(buffer.getvalue()).hexdigest()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _MANIFEST).unlink(missing_ok=True)
        _write(folder / _SAMPLES, buffer.getvalue())
        _write(folder / _MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    except OSError as error:
        raise StorageError(f"The round can't be written ({error.strerror}).") from error
    return folder / _MANIFEST


def read_round(folder: Path) -> Round:
    """Read a round and check every hash.

    Raises:
        StorageError: ``round_missing`` (no manifest) or ``round_damaged`` (something was changed).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        packed = (folder / _SAMPLES).read_bytes()
    except OSError as error:
        raise StorageError(f"There is no complete round in {folder}.", code="round_missing") from error
    except ValueError as error:
        raise _damaged("manifest") from error
    try:
        if manifest["format"] != _FORMAT:
            raise StorageError("The round was written by another version.", code="round_damaged")
        if hashlib.sha256(packed).hexdigest() != manifest["files"][_SAMPLES]:
            raise _damaged("samples")
        rows = pq.read_table(io.BytesIO(packed)).to_pylist()
        samples = tuple(
            Sample(
                sample_id=row["sample_id"],
                modality=Modality(row["modality"]),
                media_type=MediaType(row["media_type"]),
                provenance=Provenance(row["provenance"]),
                dataset=row["dataset"],
                source=row["source"],
                origin=row["origin"],
                generator_hotkey=Hotkey(row["generator_hotkey"]) if row["generator_hotkey"] is not None else None,
            )
            for row in rows
        )
        round_ = Round(
            round_id=manifest["round_id"],
            seed=manifest["seed"],
            samples=samples,
            parameters=manifest["parameters"],
            code_version=manifest["code_version"],
            data_hash=manifest["data_hash"],
        )
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise _damaged("content") from error
    if data_hash(samples) != round_.data_hash:
        raise _damaged("data hash")
    if round_.round_id != _round_id(round_.data_hash, round_.seed, round_.parameters, round_.code_version):
        raise _damaged("id")
    return round_


def _round_id(content: str, seed: int, parameters: Mapping[str, object], code_version: str) -> str:
    everything = {"data": content, "seed": seed, "parameters": dict(parameters), "code": code_version}
    return hashlib.sha256(_canonical(everything)).hexdigest()[:16]


def _canonical(value: Mapping[str, object] | Sequence[object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _cell(value: str | None) -> str | None:
    return None if value is None else str(value)


def _damaged(what: str) -> StorageError:
    return StorageError(f"The round's {what} does not agree with its hashes.", code="round_damaged")


def _write(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
