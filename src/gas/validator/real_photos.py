"""The validator's own real photos in the index of copies: a stolen photo is found even when it is encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gas.datasets.items import Item
from gas.datasets.store import DataStore
from gas.errors import MediaRejected, StorageError
from gas.media.hashing import pixel_key, thumbnail
from gas.media.image import decode_image
from gas.types import MediaType, Modality
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.prints import print_picture

__all__ = ["RealPhotos", "real_photos"]

if TYPE_CHECKING:
    from gas.verification.base import Embedder

_LIST: Final = "photos.txt"
_SIDE: Final = 256


def real_photos(store: DataStore) -> Iterator[Item]:
    """All real pictures of a data store."""
    for name in store.names():
        for item in store.items(name):
            if item.media_type is MediaType.REAL and item.modality is Modality.IMAGE:
                yield item


class RealPhotos:
    """Adds the photos of a data store to an index, a few at a time.

    Args:
        store: Where the photos are.
        index: Of copies.
        folder: Of the index; what was added stands in a list there.
        embedder: Of the index, where it has one.
    """

    def __init__(self, store: DataStore, index: MediaIndex, folder: Path, embedder: Embedder | None = None) -> None:
        self._store = store
        self._index = index
        self._embedder = embedder
        self._list = folder / _LIST
        if not len(index):
            # The list of an index that was lost says nothing.
            self._list.unlink(missing_ok=True)
        self._done = set(self._list.read_text(encoding="utf-8").split()) if self._list.exists() else set()
        self._left: Iterator[Item] | None = None

    def step(self, most: int) -> int:
        """Add photos that are not in the index yet; returns how many were looked at, 0 when all are.

        Raises:
            gas.errors.StorageError: The index or its list can't be written.
        """
        if self._left is None:
            self._left = real_photos(self._store)
        looked = 0
        for item in self._left:
            if item.sha256 in self._done:
                continue
            self._add(item)
            looked += 1
            if looked == most:
                return looked
        self._left = None
        return looked

    def _add(self, item: Item) -> None:
        try:
            rgb = decode_image(self._store.read(item))
        except (MediaRejected, StorageError):
            # The data service looks after damaged sets; here one photo less is known.
            self._note(item.sha256)
            return
        printed = print_picture(rgb)
        vector = np.zeros(0, np.float32) if self._embedder is None else self._embedder.embed(thumbnail(rgb, _SIDE))
        self._index.add(
            Seen(
                item.sha256,
                phash=int.from_bytes(printed.upright.tobytes(), "big"),
                pixels=f"{pixel_key(rgb):016x}",
                modality=Modality.IMAGE,
                frames=(printed,),
                embedding=vector,
            )
        )
        self._note(item.sha256)

    def _note(self, sha256: str) -> None:
        self._done.add(sha256)
        try:
            with self._list.open("a", encoding="utf-8") as file:
                file.write(f"{sha256}\n")
        except OSError as error:
            raise StorageError(f"The list of photos can't be written ({error.strerror}).") from error
