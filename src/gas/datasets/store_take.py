"""Taking one medium into the store: look at it, put its bytes into the blobs, note what is known of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gas.datasets.entries import DatasetEntry
from gas.datasets.probe import check_mask, probe
from gas.datasets.store_room import Room
from gas.datasets.store_rows import Row
from gas.errors import MediaRejected
from gas.media.limits import MediaLimits
from gas.storage.blobs import FolderBlobs, sha256_hex
from gas.submissions.text import printable
from gas.types import MediaType

if TYPE_CHECKING:
    from gas.datasets.formats import RawItem
    from gas.media.guard import GuardedDecoder

__all__ = ["Taker"]

_HOTKEY: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,48}")
_WORD: Final = re.compile(r"[a-z]{1,40}")
_LONGEST: Final = 100


@dataclass(frozen=True, slots=True)
class Taker:
    """Takes media of one set; safe to be shared by threads.

    Attributes:
        entry: Of the set.
        blobs: Where bytes go.
        room: Bound of the disk.
        limits: What one medium may cost.
        guard: Decodes in processes of its own; None: in this one.
    """

    entry: DatasetEntry
    blobs: FolderBlobs
    room: Room
    limits: MediaLimits
    guard: GuardedDecoder | None = None

    def take(self, raw: RawItem, mask: bytes | None, index: int) -> Row:
        """Look at one medium, and put it into the blobs.

        Args:
            raw: As its file holds it.
            mask: Of the medium, from wherever it came.
            index: The medium's number in its file.

        Raises:
            MediaRejected: What :func:`gas.datasets.probe.probe` and :func:`gas.datasets.probe.check_mask` raise;
                ``mask_missing``; for shards of the arena ``hash``, ``hotkey`` and ``label``.
            NoRoom: The disk's bound is reached.
            StorageError: The disk is full.
        """
        entry = self.entry
        limits = self.limits
        seen = probe(raw.data, entry.modality, limits, self.guard)
        media_type = _label(raw, entry)
        if mask is not None and media_type == MediaType.SEMISYNTHETIC:
            check_mask(mask, entry.modality, (seen.width, seen.height), limits)
        else:
            if entry.mask_column and media_type == MediaType.SEMISYNTHETIC:
                raise MediaRejected("The medium has no mask.", code="mask_missing")
            mask = None
        name = sha256_hex(raw.data)
        maker = _maker(raw, name) if entry.source == "arena" else _NOBODY
        real = media_type == MediaType.REAL
        return Row(
            path=raw.path,
            sha256=self._put(name, raw.data),
            size=len(raw.data),
            mime=seen.mime,
            media_type=media_type,
            width=seen.width,
            height=seen.height,
            seconds=seen.seconds,
            rate=seen.rate,
            codec=seen.codec,
            mask_sha256=self._put(sha256_hex(mask), mask) if mask is not None else None,
            source=f"{entry.name}/{maker.hotkey}" if maker.hotkey else "",
            origin="",
            generator="" if real else entry.generator or maker.model,
            category=maker.category or entry.category(raw.path),
            hotkey=maker.hotkey or None,
            place=index,
        )

    def _put(self, name: str, data: bytes) -> str:
        if not self.blobs.exists(name):
            self.room.take(len(data))
            self.blobs.put(data)
        return name


@dataclass(frozen=True, slots=True)
class _Maker:
    """What a shard's row says of who made its medium; empty where it says nothing."""

    hotkey: str = ""
    model: str = ""
    category: str = ""


_NOBODY: Final = _Maker()


def _maker(raw: RawItem, sha256: str) -> _Maker:
    columns = raw.columns
    if columns.get("sha256", sha256) != sha256:
        raise MediaRejected("The medium has another hash than its shard says.", code="hash")
    hotkey = columns.get("generator_hotkey", "")
    if not _HOTKEY.fullmatch(hotkey):
        raise MediaRejected("The shard's row names no hotkey.", code="hotkey")
    category = columns.get("category", "")
    return _Maker(hotkey, printable(columns.get("model", ""))[:_LONGEST], category if _WORD.fullmatch(category) else "")


def _label(raw: RawItem, entry: DatasetEntry) -> str:
    """The media type: of the row in a shard of the arena, of the set otherwise."""
    said = raw.columns.get("media_type", entry.media_type.value) if entry.source == "arena" else entry.media_type.value
    if said not in set(MediaType):
        raise MediaRejected(f"The shard's row is labelled {printable(said)[:40]!r}.", code="label")
    return said
