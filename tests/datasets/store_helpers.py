"""A data store's sources and media, small and under the test's control."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from gas.datasets.registry import DatasetEntry
from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.errors import SourceUnreachable
from gas.media.image import encode_jpeg
from gas.storage.blobs import sha256_hex


def picture(seed: int, size: tuple[int, int] = (48, 64)) -> bytes:
    """A JPEG that no other seed makes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return encode_jpeg(cv2.resize(small, (size[1], size[0]), interpolation=cv2.INTER_CUBIC), 80)


def entry_of(**fields: object) -> DatasetEntry:
    """An entry of a local set of real pictures, with some fields changed."""
    plain = {
        "name": "mine",
        "modality": "image",
        "media_type": "real",
        "source": "folder",
        "path": "photos",
        "licence": "CC0-1.0",
    }
    return DatasetEntry.model_validate({**plain, **fields})


class MemorySource:
    """A source that offers what it is given, in any order, and can be made to fail.

    Args:
        files: Path -> content.
        order: Of the listing; sorted when left out.
        before: Called before each transfer with the path.
        chunk: Bytes at a time.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        order: list[str] | None = None,
        before: Callable[[str], None] | None = None,
        chunk: int = 4096,
    ) -> None:
        self.content = dict(files)
        self.order = order or sorted(files)
        self.before = before
        self.chunk = chunk
        self.fetched: list[str] = []
        self.resumed: dict[str, int] = {}
        self.broken: set[str] = set()
        self.lock = threading.Lock()

    @property
    def revision(self) -> str:
        """A hash over the listing."""
        return sha256_hex(repr(sorted(self.content.items())).encode())[:16]

    def files(self) -> tuple[RemoteFile, ...]:
        """What it was given."""
        return tuple(
            RemoteFile(path, len(self.content[path]), version=sha256_hex(self.content[path])) for path in self.order
        )

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Go on after what is there; break off in the middle when told to."""
        if self.before:
            self.before(file.path)
        data = self.content[file.path]
        here = part.stat().st_size if part.exists() else 0
        with self.lock:
            self.fetched.append(file.path)
            self.resumed[file.path] = here
        with part.open("ab") as sink:
            for at in range(here, len(data), self.chunk):
                if file.path in self.broken and at + self.chunk >= len(data):
                    raise SourceUnreachable("The source does not answer.")
                piece = data[at : at + self.chunk]
                if on_bytes:
                    on_bytes(len(piece))
                sink.write(piece)

    def close(self) -> None:
        """Nothing is open."""
