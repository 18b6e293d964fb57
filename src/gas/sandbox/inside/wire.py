"""The frames between the parent and the runner; both sides import this module.

A request is 20 bytes. The first is ``b"LOAD"``, the size of the JSON behind it, a nonce, 0: the runner's one package.
Each other is ``b"RUN!"``, the number of samples, a random 64-bit nonce, the slot of the shared memory that holds them.
Up to :data:`SLOTS` of these may wait; they are answered in their order. An answer is a header of 16 bytes (kind, size
of the payload, the nonce of the request) and its payload. Nothing is ever unpickled.
"""

from __future__ import annotations

import struct

__all__ = [
    "BEGUN",
    "CONFINED",
    "FAILED",
    "HEADER",
    "LOAD",
    "LOGITS",
    "MAX_PAYLOAD",
    "READY",
    "REPORT",
    "REQUEST",
    "RUN",
    "SLOTS",
    "pack_failure",
    "unpack_failure",
]

SLOTS = 2
"""Batches that the shared memory holds: while the model computes one, the next is handed over."""

REQUEST = struct.Struct("=4sIQI")
HEADER = struct.Struct("=4sIQ")

LOAD = b"LOAD"
RUN = b"RUN!"

CONFINED = b"CONF"
"""Every restriction is in force; nothing of a submission is known yet."""
BEGUN = b"BEGN"
"""The package is known; the submission's code comes next. Faults from here on are the author's."""
READY = b"REDY"
LOGITS = b"LOGI"
FAILED = b"FAIL"
"""Payload: code, newline, one sentence; UTF-8, at most :data:`MAX_PAYLOAD` bytes."""
REPORT = b"REPT"
"""Findings of the self-check; JSON."""

MAX_PAYLOAD = 4096


def pack_failure(code: str, text: str) -> bytes:
    """Payload of a :data:`FAILED` frame."""
    return f"{code}\n{text}".encode(errors="replace")[:MAX_PAYLOAD]


def unpack_failure(payload: bytes) -> tuple[str, str]:
    """Code and sentence of a :data:`FAILED` frame; both come from a hostile process."""
    code, _, text = payload.decode(errors="replace").partition("\n")
    return code, text
