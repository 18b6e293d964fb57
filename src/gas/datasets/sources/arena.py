"""What a validator publishes every week: verified media of the generators, and the form in which they are read.

Below a prefix (a folder, a bucket, a web index or a hub's repository) lies one folder a week::

    2026-W47/data-00000.parquet
    2026-W47/data-00001.parquet
    2026-W47/manifest.json        {"version": 1, "week": "2026-W47", "files": [{"path", "size", "sha256", "rows"}]}

The manifest is written last: a week without one is not there yet. Its checksums, not the listing's, say what a shard
must be. Every shard is a Parquet file of :func:`shard_schema`.
"""

from __future__ import annotations

import re
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gas.datasets.formats import Wanted
from gas.datasets.sources.base import OnBytes, RemoteFile, Source
from gas.datasets.sources.listing import check_pin, checked_listing, listing_hash
from gas.errors import ConfigurationError, IntegrityError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MANIFEST_NAME",
    "SHARD_COLUMNS",
    "SHARD_WANTED",
    "ArenaSource",
    "ShardManifest",
    "ShardRecord",
    "shard_schema",
]

MANIFEST_NAME: Final = "manifest.json"
"""Name of the file that makes a week complete."""

_MANIFEST: Final = re.compile(r"(?:.*/)?(?P<week>\d{4}-W[0-5]\d)/manifest\.json")
_MAX_MANIFEST: Final = 16 * 1024 * 1024

SHARD_COLUMNS: Final[dict[str, tuple[str, bool]]] = {
    "bytes": ("binary", False),
    "sha256": ("string", False),
    "media_type": ("string", False),
    "modality": ("string", False),
    "mime": ("string", False),
    "generator_hotkey": ("string", False),
    "model": ("string", True),
    "prompt_id": ("string", True),
    "category": ("string", True),
    "width": ("int32", True),
    "height": ("int32", True),
    "seconds": ("float64", True),
    "mask": ("binary", True),
    "verified_at": ("timestamp", False),
}
"""Columns of a shard in their order: Arrow type, and whether a value may be missing.

``bytes`` is the medium exactly as it was delivered and ``sha256`` its hash; ``mask`` is a PNG (for video a zip of one
PNG a frame) and there for semisynthetic media only; ``verified_at`` is in UTC, to the millisecond.
"""

SHARD_WANTED: Final = Wanted(
    format="parquet",
    data_columns=("bytes",),
    mask_column="mask",
    text_columns=(
        "sha256",
        "media_type",
        "modality",
        "mime",
        "generator_hotkey",
        "model",
        "prompt_id",
        "category",
        "verified_at",
    ),
)
"""How :func:`gas.datasets.formats.read_items` reads a shard."""


def shard_schema() -> pa.Schema:
    """Arrow schema of a shard, for whoever publishes."""
    import pyarrow as pa

    kinds = {
        "binary": pa.binary(),
        "string": pa.string(),
        "int32": pa.int32(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("ms", tz="UTC"),
    }
    return pa.schema([pa.field(name, kinds[kind], nullable=empty) for name, (kind, empty) in SHARD_COLUMNS.items()])


class ShardRecord(BaseModel):
    """One shard of a week's manifest.

    Attributes:
        path: Name inside the week's folder.
        size: Bytes.
        sha256: Hex SHA-256 of the shard.
        rows: Media in it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    path: str = Field(pattern=r"^data-[A-Za-z0-9_-]{1,64}\.parquet$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=0)


class ShardManifest(BaseModel):
    """A week's manifest; write it last, as JSON of this model.

    Attributes:
        version: Of this form.
        week: ISO week, as its folder is called.
        files: The shards.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int = Field(default=1, ge=1, le=1)
    week: str = Field(pattern=r"^\d{4}-W[0-5]\d$")
    files: tuple[ShardRecord, ...]


class ArenaSource:
    """The shards of all complete weeks of a prefix.

    Args:
        inner: What the prefix lies on.
        revision: The pinned revision, or empty.
    """

    def __init__(self, inner: Source, revision: str = "") -> None:
        self._inner = inner
        self._pinned = revision
        self._listing: tuple[RemoteFile, ...] | None = None
        self._versions: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def revision(self) -> str:
        """Hash over the shards' names and checksums: another one as soon as a week comes in."""
        return listing_hash(self.files())

    def files(self) -> tuple[RemoteFile, ...]:
        """The shards of every week that has its manifest, by path.

        Raises:
            SourceUnreachable: No answer after three tries.
            ConfigurationError: There is no such prefix.
            IntegrityError: A manifest is broken, names shards that are not there, or the pinned weeks have changed.
            StorageError: The manifests can't be kept on this machine.
        """
        with self._lock:
            if self._listing is None:
                offered = {file.path: file for file in self._inner.files()}
                found: list[RemoteFile] = []
                for path in sorted(offered):
                    if match := _MANIFEST.fullmatch(path):
                        found += self._week(offered, offered[path], match["week"])
                listing = checked_listing(found, max(1, len(offered)))
                check_pin(self._pinned, listing_hash(listing))
                self._versions = {path: file.version for path, file in offered.items()}
                self._listing = listing
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one shard to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        self.files()
        if file.path not in self._versions:
            raise ConfigurationError(f"The arena has no shard {file.path[:80]!a}.", code="source_missing")
        self._inner.fetch(replace(file, version=self._versions[file.path]), part, on_bytes)

    def close(self) -> None:
        """Close what the prefix lies on."""
        self._inner.close()

    def _week(self, offered: dict[str, RemoteFile], manifest: RemoteFile, week: str) -> list[RemoteFile]:
        folder = manifest.path.removesuffix(MANIFEST_NAME)
        said = self._manifest(manifest)
        if said.week != week:
            raise IntegrityError(f"The manifest of {week} says that it is of {said.week}.", code="bad_listing")
        found = []
        for shard in said.files:
            there = offered.get(folder + shard.path)
            if there is None or (there.size is not None and there.size != shard.size):
                raise IntegrityError(
                    f"The manifest of {week} names {shard.path}, which is not there or has another size.",
                    code="bad_listing",
                )
            found.append(RemoteFile(there.path, shard.size, shard.sha256, shard.sha256))
        return found

    def _manifest(self, file: RemoteFile) -> ShardManifest:
        if file.size is not None and file.size > _MAX_MANIFEST:
            raise IntegrityError(f"{file.path} is larger than a manifest may be.", code="bad_listing")
        try:
            with tempfile.TemporaryDirectory(prefix="gas-arena-") as folder:
                part = Path(folder) / MANIFEST_NAME
                self._inner.fetch(file, part, _Ceiling(_MAX_MANIFEST, file.path))
                text = part.read_bytes()
        except OSError as error:
            raise StorageError(f"A manifest can't be kept on this machine ({error.strerror}).") from error
        try:
            return ShardManifest.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "its top"
            raise IntegrityError(f"{file.path} is wrong at {where}: {first['msg']}.", code="bad_listing") from error


class _Ceiling:
    """Ends a transfer that goes beyond a number of bytes."""

    def __init__(self, most: int, path: str) -> None:
        self._left = most
        self._path = path

    def __call__(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise IntegrityError(f"{self._path} is larger than a manifest may be.", code="bad_listing")
