"""The files of a published week: its shards as Parquet, the card, the checksums and the manifest.

All of them are made of the database and the blobs alone, without times or chance, so that whoever makes them again
makes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.datasets.sources.arena import SHARD_COLUMNS, ShardManifest, ShardRecord, shard_schema
from gas.errors import StorageError
from gas.storage.blobs import BlobStore
from gas.storage.tables import MediumRow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "BuiltShard",
    "WeekSummary",
    "build_shard",
    "checksums_text",
    "data_card",
    "manifest_text",
    "prompt_id",
    "week_card",
    "week_end",
    "week_of",
]

_ROW_GROUP: Final = 16 << 20
_MOST_ROWS: Final = 256
_WEEK: Final = re.compile(r"(\d{4})-W(\d\d)")
_GONE: Final = ("blob_missing", "blob_damaged")
_HEAVY: Final = ("bytes", "mask")


def week_of(seconds: float) -> str:
    """The ISO week of a time (seconds since the epoch, UTC), e.g. ``2026-W47``."""
    year, week, _ = datetime.fromtimestamp(seconds, UTC).isocalendar()
    return f"{year:04}-W{week:02}"


def week_end(week: str) -> float:
    """The first moment after an ISO week, seconds since the epoch.

    Raises:
        ValueError: There is no such week.
    """
    found = _WEEK.fullmatch(week)
    if found is None:
        raise ValueError("A week is written like 2026-W47.")
    monday = date.fromisocalendar(int(found[1]), int(found[2]), 1) + timedelta(days=7)
    return datetime(monday.year, monday.month, monday.day, tzinfo=UTC).timestamp()


def prompt_id(prompt: str | None) -> str | None:
    """16 hex digits of the prompt's SHA-256: tells equal prompts without telling them; None without a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16] if prompt else None


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """A shard's file.

    Attributes:
        rows: Media in it.
        size: Bytes.
        sha256: Hex SHA-256 of the file.
        lost: Media whose bytes are missing or damaged, and which are therefore not in it.
    """

    rows: int
    size: int
    sha256: str
    lost: tuple[str, ...] = ()


def build_shard(rows: Iterable[MediumRow], blobs: BlobStore, target: Path) -> BuiltShard:
    """Write a shard of :func:`gas.datasets.sources.arena.shard_schema`; holds at most about 16 MiB and one medium.

    Args:
        rows: In the order of their hash.
        blobs: Holds the media and masks.
        target: File to write.

    Raises:
        StorageError: The blobs can't be reached, or the file can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = shard_schema()
    light = [name for name in SHARD_COLUMNS if name not in _HEAVY]
    lost: list[str] = []
    count = 0
    try:
        with pq.ParquetWriter(
            target,
            schema,
            compression={name: "none" if name in _HEAVY else "zstd" for name in SHARD_COLUMNS},
            use_dictionary=[name for name in light if name != "sha256"],
            # The smallest and largest medium of a group would be kept as statistics.
            write_statistics=light,
        ) as writer:
            for batch in _batches(rows, blobs, schema, lost):
                writer.write_batch(batch, row_group_size=batch.num_rows)
                count += batch.num_rows
        with target.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise StorageError(f"A shard can't be written ({reason}).", hint="Is the disk full?") from error
    return BuiltShard(count, size, digest, tuple(lost))


def _batches(
    rows: Iterable[MediumRow], blobs: BlobStore, schema: pa.Schema, lost: list[str]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    waiting: list[dict[str, object]] = []
    held = 0
    for row in rows:
        try:
            data = blobs.get(row.sha256)
            mask = blobs.get(row.mask_sha256) if row.mask_sha256 else None
        except StorageError as error:
            if error.error_code not in _GONE:
                raise
            lost.append(row.sha256)
            continue
        waiting.append(
            {
                "bytes": data,
                "sha256": row.sha256,
                "media_type": row.media_type,
                "modality": row.modality,
                "mime": row.mime,
                "generator_hotkey": row.generator,
                "model": row.model,
                "prompt_id": prompt_id(row.prompt),
                "category": None,
                "width": row.width or None,
                "height": row.height or None,
                "seconds": row.seconds,
                "mask": mask,
                "verified_at": int(row.verified_at * 1000),
            }
        )
        held += len(data) + len(mask or b"")
        if held >= _ROW_GROUP or len(waiting) >= _MOST_ROWS:
            yield pa.RecordBatch.from_pylist(waiting, schema=schema)
            waiting, held = [], 0
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema=schema)


def manifest_text(week: str, shards: Sequence[ShardRecord]) -> bytes:
    """The manifest, which is written last."""
    manifest = ShardManifest(week=week, files=tuple(sorted(shards, key=lambda shard: shard.path)))
    return (json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def checksums_text(files: Mapping[str, str]) -> bytes:
    """``SHA256SUMS``: what ``sha256sum -c`` reads.

    Args:
        files: Hex SHA-256 by name.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items())).encode()


@dataclass(slots=True)
class WeekSummary:
    """What a published week holds.

    Attributes:
        week: ISO week.
        shards: Number of files.
        size: Bytes of all of them.
        kinds: Media by modality and media type, as ``image/synthetic``.
        generators: Media by the hotkey of who made them.
        models: Media by the model's name; at most 50 in the card.
        masks: Media with a mask.
        photos: Changed pictures by the data set of the photo that was sent to be changed, and its licence.
    """

    week: str
    shards: int
    size: int
    kinds: Counter[str]
    generators: Counter[str]
    models: Counter[str]
    masks: int = 0
    photos: Counter[str] = field(default_factory=Counter)

    @property
    def media(self) -> int:
        """All of them."""
        return self.kinds.total()


def week_card(summary: WeekSummary) -> bytes:
    """The data card of one week, Markdown."""
    lines = [
        f"# Arena media of {summary.week}",
        "",
        f"{summary.media:,} media in {summary.shards} Parquet file{'s' * (summary.shards != 1)}, "
        f"{summary.size:,} bytes; {summary.masks:,} with a mask of what was changed. Every medium was verified by the "
        "validator that publishes it, or made by it.",
        "",
        *_table("Kind", summary.kinds),
        *_table("Generator (hotkey)", summary.generators),
        *_table("Model", summary.models),
        *_table("Changed photos of (data set, licence)", summary.photos),
        "## Files",
        "`manifest.json` names each file with its size, SHA-256 and number of rows, and was written last; `SHA256SUMS` "
        "is for `sha256sum -c`.",
        "",
    ]
    return "\n".join(lines).encode()


def data_card(weeks: Sequence[tuple[str, int, int, int]]) -> bytes:
    """The data card of the whole data set, Markdown with the hub's front matter.

    Args:
        weeks: Of every week its name, its shards, its media and its bytes.
    """
    rows = [f"| {week} | {shards} | {media:,} | {size:,} |" for week, shards, media, size in sorted(weeks)]
    columns = [f"| `{name}` | {kind} | {'may be missing' if empty else ''} |" for name, (kind, empty) in _columns()]
    lines = [
        "---",
        "license: other",
        "task_categories:",
        "- image-classification",
        "tags:",
        "- synthetic-media",
        "- deepfake-detection",
        "configs:",
        "- config_name: default",
        "  data_files: '*/data-*.parquet'",
        "---",
        "# Verified synthetic media",
        "",
        "Media that generators made on a validator's order and that it verified: decodable, of the right kind and "
        "size, with trusted content credentials, no copies; and media that the validator made itself. One folder a "
        "week, by the time of verification (UTC). All of them are synthetic or semisynthetic; none is real.",
        "",
        "| Week | Files | Media | Bytes |",
        "|---|---|---|---|",
        *rows,
        "",
        "| Column | Type | |",
        "|---|---|---|",
        *columns,
        "",
        "`bytes` is the medium exactly as it was delivered and `sha256` its hash. `mask` (PNG) shows in white what was "
        "changed of a real picture. `prompt_id` tells media of equal prompts. `verified_at` is in UTC.",
        "",
        "Read it with `gascli data add arena --source arena --path ADDRESS --modality image --media-type synthetic`.",
        "",
    ]
    return "\n".join(lines).encode()


def _columns() -> Iterable[tuple[str, tuple[str, bool]]]:
    return SHARD_COLUMNS.items()


def _table(name: str, counts: Counter[str]) -> list[str]:
    if not counts:
        return []
    top = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:50]
    rows = [f"| {_cell(label)} | {count:,} |" for label, count in top]
    more = len(counts) - len(top)
    return [f"| {name} | Media |", "|---|---|", *rows, *([f"| {more:,} more | |"] if more else []), ""]


def _cell(text: str) -> str:
    """A miner's word, made harmless in a table of Markdown."""
    plain = "".join(sign if sign.isprintable() and sign not in "|`<>[]\\" else " " for sign in text)
    return f"`{plain[:100].strip() or ' '}`"
