"""Check a safetensors file by its header, without loading a tensor.

Covered: headers that lie (offsets outside of the file, overlapping, with gaps, sizes that don't follow from shape
and dtype), bytes before, between and behind, unknown dtypes, duplicate names, headers that would blow up in memory.

Not covered: what the numbers do; look-up tables and copies are found by fingerprints and audits.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.errors import InfrastructureError, Reason
from gas.submissions.limits import Limits
from gas.submissions.parts import Part, Reader
from gas.submissions.text import printable

__all__ = ["ITEM_SIZES", "Tensor", "WeightsHeader", "check_weights", "read_header"]

ITEM_SIZES: Final = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
"""Bytes of one element of each dtype that a package may use."""

_MAX_RANK: Final = 16
_MAX_NAME: Final = 1024


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies.

    Attributes:
        name: Its key in the state dict.
        dtype: A key of :data:`ITEM_SIZES`.
        shape: Its dimensions; () is a scalar.
        begin: Offset of its first byte in the safetensors file.
        end: Offset behind its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class WeightsHeader:
    """What a safetensors file declares, as far as it could be read.

    Attributes:
        tensors: In the order of their bytes; empty when there are reasons.
        reasons: Findings; empty for a sound file.
    """

    tensors: tuple[Tensor, ...] = ()
    reasons: tuple[Reason, ...] = ()


class _Lie(Exception):
    """The header can't be believed; carries the finding's code and sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_weights(source: Part | Path, limits: Limits | None = None, scratch: Path | None = None) -> tuple[Reason, ...]:
    """Findings against a safetensors file: our own parser's, and the library's.

    Args:
        source: The file, or where it lies in an archive.
        limits: ``header_bytes`` and ``tensors`` are asked.
        scratch: Folder for what the library reads of a file in an archive; the system's when None.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    from safetensors import SafetensorError, safe_open

    part = Part.of(source)
    header = read_header(part, limits)
    if header.reasons:
        return header.reasons
    try:
        with _as_file(part, header, scratch) as path, safe_open(path, framework="numpy") as file:
            names = set(file.keys())
    except SafetensorError as error:
        return (
            Reason(
                "safetensors_header", f"The safetensors library refuses the file: {printable(str(error))}.", part.name
            ),
        )
    except OSError as error:
        raise InfrastructureError(f"The weights {part.name} can't be read: {error.strerror}.") from error
    if names != {tensor.name for tensor in header.tensors}:
        return (Reason("safetensors_header", "Two readers see different tensors in this file.", part.name),)
    return ()


@contextmanager
def _as_file(part: Part, header: WeightsHeader, scratch: Path | None) -> Iterator[Path]:
    """A file of the part's size with its header; the library looks no further to know the tensors."""
    if part.offset == 0 and part.file.stat().st_size == part.size:
        yield part.file
        return
    with part.open() as reader, tempfile.NamedTemporaryFile(dir=scratch, prefix=".header-") as stub:
        stub.write(reader.read(0, min(tensor.begin for tensor in header.tensors)))
        # The rest is a hole, which takes no room on the disk.
        stub.truncate(part.size)
        stub.flush()
        yield Path(stub.name)


def read_header(source: Part | Path, limits: Limits | None = None) -> WeightsHeader:
    """Parse and check the header of a safetensors file.

    The format (https://github.com/huggingface/safetensors): 8 bytes little-endian length of the header, the header
    in JSON, then the tensors' bytes without gaps.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    part = Part.of(source)
    try:
        with part.open() as reader:
            return WeightsHeader(tensors=_tensors(reader, part.size, limits or Limits()))
    except _Lie as lie:
        return WeightsHeader(reasons=(Reason(lie.code, lie.message, part.name),))


def _tensors(file: Reader, size: int, limits: Limits) -> tuple[Tensor, ...]:
    if size < 8:
        raise _Lie("safetensors_header", "The file is too short for safetensors.")
    (length,) = struct.unpack("<Q", file.read(0, 8))
    if length > size - 8:
        raise _Lie("safetensors_header", f"The header declares {length} bytes; the file has {size - 8} more.")
    if length > limits.header_bytes:
        raise _Lie("safetensors_header", f"The header has {length} bytes; allowed are {limits.header_bytes}.")
    table = _json_object(file.read(8, length))
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _Lie("safetensors_header", "__metadata__ must map text to text.")
    if not table:
        raise _Lie("safetensors_header", "The file holds no tensors.")
    if len(table) > limits.tensors:
        raise _Lie("too_many_tensors", f"The file has {len(table)} tensors; allowed are {limits.tensors}.")
    start = 8 + length
    tensors = sorted((_tensor(name, entry, start) for name, entry in table.items()), key=lambda t: (t.begin, t.end))
    at = start
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps another" if tensor.begin < at else "leaves a gap before it"
            raise _Lie("safetensors_offsets", f"Tensor {tensor.name!r} {what}.")
        at = tensor.end
    if at > size:
        raise _Lie("safetensors_offsets", f"The tensors end at byte {at}; the file has {size}.")
    if at < size:
        raise _Lie("safetensors_trailing", f"{size - at} bytes follow the last tensor.")
    return tuple(tensors)


def _json_object(raw: bytes) -> dict[str, object]:
    if not raw.startswith(b"{"):
        raise _Lie("safetensors_header", "The header must start with '{'.")
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _Lie("safetensors_header", "The header is no valid JSON.") from None
    if not isinstance(table, dict):
        raise _Lie("safetensors_header", "The header must be a JSON object.")
    return table


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _Lie("safetensors_duplicate", "A name stands twice in the header.")
    return table


def _no_constant(text: str) -> object:
    raise ValueError(text)


def _tensor(name: str, entry: object, start: int) -> Tensor:
    shown = repr(name[:80])
    if len(name) > _MAX_NAME or not name.isprintable():
        raise _Lie("safetensors_header", f"Tensor {shown} has a name that is too long or not printable.")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _Lie("safetensors_header", f"Tensor {shown} must have dtype, shape and data_offsets, nothing else.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise _Lie("safetensors_dtype", f"Tensor {shown} has an unknown dtype; known are {', '.join(ITEM_SIZES)}.")
    if not _is_sizes(shape) or len(shape) > _MAX_RANK:
        raise _Lie("safetensors_header", f"Tensor {shown} has no valid shape.")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise _Lie("safetensors_offsets", f"Tensor {shown} must have two offsets.")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        raise _Lie("safetensors_size", f"Tensor {shown}: shape and dtype don't make the bytes that its offsets span.")
    return Tensor(name, dtype, tuple(shape), start + begin, start + end)


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)
