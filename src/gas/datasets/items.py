"""One row a medium: what is known about the media of a fetched data set.

A data set in the store is a table of these rows beside the media themselves. Big sets are handled as Arrow
tables of :func:`item_schema` (a million rows take some 200 MB); :class:`Item` is one row for people and tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from gas.types import MediaType, Modality

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Item", "item_schema", "items_from_table", "items_to_table"]


@dataclass(frozen=True, slots=True)
class Item:
    """One medium of a data set, exactly as it was published.

    Attributes:
        sha256: Hex SHA-256 of the medium's bytes as published; its name in the blob store.
        dataset: Name of the data set.
        modality: Which decoder reads it.
        media_type: Ground truth.
        mime: Content type by its bytes, not by its name.
        size: Bytes.
        path: Where it was found: the file's path in the source; ``file!member`` inside an archive,
            ``file#row:column`` inside a table.
        source: Cluster for the bootstrap and for per-source rates; the data set's name unless something finer is
            known.
        origin: Hex SHA-256 of the medium that this one derives from; its own where none is known. Splits never
            tear media of one origin apart.
        generator: Family of the generator (``diffusion``, ``gan`` ...); empty for real media.
        category: Coarse word for what it shows; ``other`` when nobody has said.
        licence: SPDX expression.
        mask_sha256: Blob of the mask of a semisynthetic medium (PNG; for video a zip of one PNG a frame).
        width: Pixels as displayed; None for sound.
        height: Pixels as displayed; None for sound.
        seconds: Length of a video or a sound; None for pictures.
        rate: Frames a second of a video, Hz of a sound; None for pictures.
        codec: Of the stream (``h264``, ``pcm_s16le``, ``jpeg`` ...).
        hotkey: Who made it, for arena media.
    """

    sha256: str
    dataset: str
    modality: Modality
    media_type: MediaType
    mime: str
    size: int
    path: str
    source: str
    origin: str
    generator: str = ""
    category: str = "other"
    licence: str = ""
    mask_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    rate: float | None = None
    codec: str = ""
    hotkey: str | None = None


def item_schema() -> pa.Schema:
    """Arrow schema of a data set's table; columns are named and ordered as in :class:`Item`."""
    import pyarrow as pa

    whole, real = {"size", "width", "height"}, {"seconds", "rate"}
    nullable = {"mask_sha256", "width", "height", "seconds", "rate", "hotkey"}

    def kind(name: str) -> pa.DataType:
        return pa.int64() if name in whole else pa.float64() if name in real else pa.string()

    return pa.schema([pa.field(f.name, kind(f.name), nullable=f.name in nullable) for f in fields(Item)])


def items_to_table(items: Iterable[Item]) -> pa.Table:
    """Arrow table of :func:`item_schema`, rows in the order given."""
    import pyarrow as pa

    rows = list(items)
    columns = {
        f.name: [
            value if (value := getattr(row, f.name)) is None or not isinstance(value, str) else str(value)
            for row in rows
        ]
        for f in fields(Item)
    }
    return pa.table(columns, schema=item_schema())


def items_from_table(table: pa.Table) -> tuple[Item, ...]:
    """The rows of a table as objects.

    Raises:
        KeyError: A column is missing.
        ValueError: A modality or media type that doesn't exist.
    """
    return tuple(
        Item(**{**row, "modality": Modality(row["modality"]), "media_type": MediaType(row["media_type"])})
        for row in table.select([f.name for f in fields(Item)]).to_pylist()
    )
