"""Room for uploads: how many bodies are read at a time, whose, for how long, and whether the disk holds them.

A signature covers the body, so that only its end proves who sent a request; until then a body would be a stranger's to
choose. Peers send secret signatures beside it, which prove the key by the headers alone. Who does is let in by its
hotkey and may send a whole package; who does not may send little, and few of them at a time.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fastapi import Request

from gas.errors import RequestRefused, StorageError
from gas.protocol.epistula import Claim, holds_key

__all__ = ["RESERVE_BYTES", "UNPROVEN_BYTES", "UploadRoom", "in_time", "room_left"]

UNPROVEN_BYTES: Final = 16 * 2**20
"""Most bytes of a package whose sender is not proven before its body is read."""
RESERVE_BYTES: Final = 256 * 2**20
"""What uploads leave free of the disk."""
_UNPROVEN: Final = 8
_PROVEN: Final = 64
_OF_ONE: Final = 6
_COPIES: Final = 2
"""A form's body, and the package that is taken out of it."""
_START_SECONDS: Final = 60.0
_BYTES_A_SECOND: Final = 64 * 1024


@dataclass(slots=True)
class UploadRoom:
    """Bodies that are being read; used by one event loop.

    Attributes:
        folder: Where they go.
        largest: Most bytes of one.
        free: Bytes that are free where a folder lies.
    """

    folder: Path
    largest: int
    free: Callable[[Path], int] = field(default=lambda folder: shutil.disk_usage(folder).free)
    _unproven: int = field(default=0, init=False)
    _proven: Counter[str] = field(default_factory=Counter, init=False)
    _claimed: int = field(default=0, init=False)

    @asynccontextmanager
    async def admit(self, request: Request, claim: Claim) -> AsyncIterator[int]:
        """Hold a place, and room on the disk, for as long as the block lasts.

        Args:
            request: Its body unread.
            claim: Its acceptable headers.

        Yields:
            Most bytes that its body may have.

        Raises:
            RequestRefused: 413 ``not_proven``: too large for a sender that only the body's end will prove; 429
                ``too_many_uploads``: of this hotkey; 503 ``busy``: of others.
            StorageError: ``no_room``: the disk would not hold it.
        """
        proven = holds_key(request.headers, claim)
        most = self.largest if proven else min(self.largest, UNPROVEN_BYTES)
        length = request.headers.get("content-length", "")
        size = int(length) if length.isascii() and length.isdigit() and len(length) <= 18 else most
        if most < size <= self.largest:
            raise RequestRefused(
                f"A body above {most} bytes must carry Epistula-Secret-Signature headers.",
                status=413,
                code="not_proven",
                hint="Or send the package in pieces: PUT /api/v1/uploads/{sha256}.",
            )
        if proven and self._proven[claim.hotkey] >= _OF_ONE:
            raise RequestRefused("This hotkey has too many uploads under way.", status=429, code="too_many_uploads")
        if (self._proven.total() >= _PROVEN) if proven else (self._unproven >= _UNPROVEN):
            raise RequestRefused("Too many uploads are under way.", status=503, code="busy", hint="Try again later.")
        # What is larger than allowed is refused while it is read.
        needed = _COPIES * min(size, most)
        self._claimed += needed
        self._unproven += not proven
        self._proven[claim.hotkey] += proven
        try:
            if await asyncio.to_thread(self.free, self.folder) < self._claimed + RESERVE_BYTES:
                raise room_left()
            yield most
        finally:
            self._claimed -= needed
            self._unproven -= not proven
            self._proven[claim.hotkey] -= proven
            self._proven += Counter()


def room_left() -> StorageError:
    """What somebody is told whose upload the disk would not hold."""
    return StorageError("The arena has no room for uploads.", code="no_room", hint="Try again later.")


@asynccontextmanager
async def in_time(most_bytes: int) -> AsyncIterator[None]:
    """A time limit for reading one body.

    Raises:
        RequestRefused: 408 ``body_slow``: it took longer than a minute and another second for every 64 KiB.
    """
    try:
        async with asyncio.timeout(_START_SECONDS + most_bytes / _BYTES_A_SECOND):
            yield
    except TimeoutError:
        raise RequestRefused("The body took too long to arrive.", status=408, code="body_slow") from None
