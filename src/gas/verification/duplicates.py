"""Copies and near copies of media that the network has seen already: one index for pictures, videos and sounds.

The database is the truth: what is verified has its facts there, and an index that is lost or damaged is built again
from them. The index itself survives being killed (:mod:`gas.verification.journal`), lets other processes read, and
keeps in memory only its newest rows (:mod:`gas.verification.postings`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gas.types import Modality
from gas.verification.pictures import AGREEING, PROMPT_BITS, STORE_BITS, Match, PictureIndex
from gas.verification.prints import Seen
from gas.verification.sounds import EmbeddingIndex, SoundIndex

__all__ = ["NEAR_BITS", "DuplicateIndex", "Match", "MediaIndex", "Seen"]

NEAR_BITS: Final = STORE_BITS
"""Two pictures whose 256-bit perceptual hashes differ in at most so many bits are one picture."""


class MediaIndex:
    """Finds copies; may be used from several threads. One process writes, others may read.

    Args:
        folder: Where it is kept, made when it isn't there; None for memory only.
        writable: Whether this process adds to it. A reader sees what :meth:`refresh` finds.
        near_bits: Largest distance of 256-bit hashes in the whole store, up to 8.
        prompt_bits: Largest distance among media of one prompt, up to 8.
        agreeing: So many segments that agree make a copy.
        embedding: Numbers of an embedding and the smallest cosine of a copy; None to keep no embeddings.

    Attributes:
        version: Grows with everything that this object adds.

    Raises:
        ConfigurationError: Another process writes this index, or there is none to read.
        IntegrityError: It is of another version.
        StorageError: The folder can't be written.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        writable: bool = True,
        near_bits: int = STORE_BITS,
        prompt_bits: int = PROMPT_BITS,
        agreeing: int = AGREEING,
        embedding: tuple[int, float] | None = None,
    ) -> None:
        self.near_bits = near_bits
        self.version = 0
        self._lock = threading.Lock()
        self._pictures = PictureIndex(
            folder, writable=writable, near_bits=near_bits, prompt_bits=prompt_bits, agreeing=agreeing
        )
        self._sounds = SoundIndex(folder, writable=writable)
        self._embeddings = EmbeddingIndex(folder, *embedding, writable=writable) if embedding else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Rows: one a picture, one a kept frame of a video, one for six seconds of a sound."""
        return len(self._pictures) + len(self._sounds)

    def close(self) -> None:
        """Give the files and the lock back."""
        with self._lock:
            for part in (self._pictures, self._sounds, self._embeddings):
                if part is not None:
                    part.close()

    def refresh(self) -> None:
        """Take in what the writing process has added."""
        with self._lock:
            for part in (self._pictures, self._sounds, self._embeddings):
                if part is not None:
                    part.refresh()

    def find(self, phash: int) -> Match | None:
        """The nearest picture by 256-bit hash, however far; None when nothing was seen yet. Looks at every row."""
        with self._lock:
            return self._pictures.nearest(Seen("", phash).prints()[0].upright)

    def duplicate_of(self, medium: Seen) -> Match | None:
        """The medium of which this one is a copy or a near copy, or None."""
        with self._lock:
            return self._match(medium)

    def add(self, medium: Seen) -> None:
        """Remember a medium, whatever is there already."""
        with self._lock:
            self._add(medium)

    def add_all(self, media: Sequence[Seen]) -> None:
        """Remember many media, those of known bytes left out; several times quicker than one by one."""
        with self._lock:
            pictures = [medium for medium in media if medium.modality is not Modality.AUDIO]
            for medium in self._pictures.add_new(pictures) if pictures else ():
                self.version += 1
                if self._embeddings is not None and len(medium.embedding):
                    self._embeddings.add(medium)
            for medium in media:
                if medium.modality is Modality.AUDIO:
                    self._add(medium)

    def claim(self, medium: Seen, *, since: int | None = None) -> Match | None:
        """Remember a medium unless it is a copy; of two equal media that come at once, one gets None.

        Args:
            medium: Which one.
            since: The :attr:`version` at which it was found to be no copy; not looked for again when nothing has come
                in since.
        """
        with self._lock:
            match = self._match(medium) if since is None or since != self.version else None
            if match is None:
                self._add(medium)
            return match

    def copy_of(self, medium: Seen) -> Match | None:
        """As :meth:`duplicate_of`, without the embeddings."""
        with self._lock:
            return self._match_prints(medium)

    def near_copies_of(self, medium: Seen) -> list[Match]:
        """Every medium of which this one is a near copy by its hashes, segments or sound, each once; the nearest first.

        Bytes and pixels are not compared: those of equal pixels are at distance 0.
        """
        with self._lock:
            if medium.modality is Modality.AUDIO:
                return self._sounds.all_near(medium)
            found = [*self._pictures.all_near(medium), *self._pictures.all_by_segments(medium)]
            first: dict[str, Match] = {}
            for match in found:
                first.setdefault(match.sha256, match)
            return list(first.values())

    def alike(self, medium: Seen) -> Match | None:
        """The medium with nearly the same embedding, or None."""
        with self._lock:
            return self._embeddings.near(medium) if self._embeddings is not None else None

    def _match(self, medium: Seen) -> Match | None:
        found = self._match_prints(medium)
        return found or (self._embeddings.near(medium) if self._embeddings is not None else None)

    def _match_prints(self, medium: Seen) -> Match | None:
        if medium.modality is Modality.AUDIO:
            return self._sounds.same(medium) or self._sounds.near(medium)
        return self._pictures.same(medium) or self._pictures.near(medium) or self._pictures.by_segments(medium)

    def _add(self, medium: Seen) -> None:
        self.version += 1
        # A delivery that is judged again after a crash has its rows already.
        if medium.modality is not Modality.AUDIO:
            new = bool(self._pictures.add_new([medium]))
        else:
            new = self._sounds.same(replace(medium, owner="")) is None
            if new:
                self._sounds.add(medium)
        if new and self._embeddings is not None and len(medium.embedding):
            self._embeddings.add(medium)


class DuplicateIndex(MediaIndex):
    """An index in memory, filled from what is known.

    Args:
        seen: What was accepted before.
        near_bits: Largest distance of a near duplicate in the whole store, up to 8.
    """

    def __init__(self, seen: Iterable[Seen] = (), *, near_bits: int = NEAR_BITS) -> None:
        super().__init__(near_bits=near_bits)
        for medium in seen:
            self.add(medium)
