"""Find tables of hashes among a model's weights: what a model needs that knows its answers by heart.

Covered: 64-bit whole numbers that fill their whole range, some hundred of them, stored as such. Layers have no use for
them: counters are single, indexes and positions small, quantised weights narrower, and the ends of slices are all the
same largest number. Not covered: keys that are cut in pieces or written as something else; the exam's re-encoding
(:mod:`gas.arena.memorising`) finds what they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from gas.errors import Reason
from gas.submissions.parts import Part
from gas.submissions.weights import Tensor

__all__ = ["LEAST_BYTES", "LOOKUP", "holds_hashes", "lookup_in_weights", "lookup_message"]

LOOKUP: Final = "lookup_table"
"""Code of the finding."""

_LEAST: Final = 256
LEAST_BYTES: Final = 8 * _LEAST
"""A smaller tensor holds no table worth looking for."""
_LARGE: Final = 2**32
_CHUNK: Final = 1 << 20
_WIDE: Final = {"I64": "<i8", "U64": "<u8"}


def holds_hashes(chunks: Iterable[memoryview], dtype: str) -> bool:
    """Whether a tensor holds at least 256 different 64-bit numbers beyond 32 bits.

    Args:
        chunks: Its bytes, little-endian, cut between numbers.
        dtype: As safetensors calls it.
    """
    if dtype not in _WIDE:
        return False
    found: set[int] = set()
    for chunk in chunks:
        values = np.frombuffer(chunk, _WIDE[dtype])
        wide = values >= _LARGE
        if dtype == "I64":
            wide |= values <= -_LARGE
        # A few are enough to tell, so that a huge tensor costs no memory.
        found.update(int(value) for value in np.unique(values[wide])[:_LEAST])
        if len(found) >= _LEAST:
            return True
    return False


def lookup_message(tensor: str) -> str:
    """What the author is told of a tensor, whose printable name this is."""
    return f"Tensor {tensor} holds 64-bit numbers as tables of hashes have them: no model may know answers by heart."


def lookup_in_weights(source: Part | Path, tensors: Iterable[Tensor]) -> tuple[Reason, ...]:
    """Findings about a safetensors file whose header is clean.

    Args:
        source: The file, or where it lies in an archive.
        tensors: Of its header.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    wide = [tensor for tensor in tensors if tensor.dtype in _WIDE and tensor.end - tensor.begin >= LEAST_BYTES]
    if not wide:
        return ()
    part, buffer = Part.of(source), memoryview(bytearray(_CHUNK))
    with part.open() as reader:
        return tuple(
            Reason(LOOKUP, lookup_message(repr(tensor.name[:80])), part.name)
            for tensor in wide
            if holds_hashes(reader.chunks(tensor.begin, tensor.end, buffer), tensor.dtype)
        )
