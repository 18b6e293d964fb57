"""What a submission is compared by: exact hashes of the zip, the weights and the code, and sketches of its tensors.

Exact copies: SHA-256 of the zip, of the canonical weights and of the code without comments. Near copies: the sketches
of :mod:`gas.submissions.sketch`, one for each large tensor.
"""

from __future__ import annotations

import hashlib
import io
import tokenize
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gas.errors import InfrastructureError
from gas.submissions.limits import Limits
from gas.submissions.onnx_check import OnnxFile, iter_tensors, numbers_of, read_onnx, text
from gas.submissions.parts import Part, Reader
from gas.submissions.sketch import CHUNK_ELEMENTS, TensorSketch, item_size, largest, sketch
from gas.submissions.weights import read_header

__all__ = ["Fingerprint", "code_sha256", "file_sha256", "onnx_weights", "tensor_weights"]

# What a level 2 cache holds, so that what was just read is hashed before it leaves it.
_HASH_BYTES: Final = 256 * 2**10
_ONNX_DTYPES: Final = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 16: "BF16",
}  # fmt: skip
_ONNX_STRING: Final = 8
# How onnx.proto keeps numbers that are not raw bytes, and of which dtype they are; by TensorProto.DataType.
_ONNX_LITERALS: Final = {
    1: ("<f4", "<f4"), 4: ("<i4", "<u2"), 5: ("<i4", "<i2"), 6: ("<i4", "<i4"), 7: ("<i8", "<i8"), 9: ("<i4", "?"),
    10: ("<i4", "<u2"), 11: ("<f8", "<f8"), 12: ("<u8", "<u4"), 13: ("<u8", "<u8"), 14: ("<f4", "<f4"),
    15: ("<f8", "<f8"), 16: ("<i4", "<u2"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a submission is compared by.

    Attributes:
        archive_sha256: Hex SHA-256 of the zip; None for a folder.
        weights_sha256: Hex SHA-256 of the canonical weights: for each tensor, sorted by name, its name, dtype and
            bytes, each with its length in front.
        code_sha256: Hex SHA-256 of ``model.py`` without comments; None for ONNX.
        sketches: One for each of the largest floating-point tensors.
    """

    archive_sha256: str | None
    weights_sha256: str | None
    code_sha256: str | None
    sketches: tuple[TensorSketch, ...] = ()

    def hashes(self) -> dict[str, str | None]:
        """The exact hashes, for JSON."""
        return {
            "archive_sha256": self.archive_sha256,
            "weights_sha256": self.weights_sha256,
            "code_sha256": self.code_sha256,
        }


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file.

    Raises:
        gas.errors.InfrastructureError: It can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InfrastructureError(f"The file {path.name} can't be read: {error.strerror}.") from error


def code_sha256(source: bytes) -> str:
    """Hex SHA-256 of a Python file without comments, blank lines and spaces at the ends of lines."""
    try:
        text = source.decode("utf-8-sig")
        lines = text.splitlines(keepends=True)
        for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                lines[row - 1] = lines[row - 1][:column]
    except (UnicodeDecodeError, tokenize.TokenError, SyntaxError, IndexError):
        return hashlib.sha256(source).hexdigest()
    bare = "\n".join(line for line in (line.rstrip() for line in lines) if line)
    return hashlib.sha256(bare.encode()).hexdigest()


def tensor_weights(source: Part | Path, limits: Limits | None = None) -> tuple[str, tuple[TensorSketch, ...]]:
    """Canonical hash and sketches of a safetensors file that :func:`weights.check_weights` has passed.

    Args:
        source: The file, or where it lies in an archive.
        limits: As for the check.

    Raises:
        gas.errors.InfrastructureError: The file can't be read, or its header changed since the check.
    """
    part = Part.of(source)
    header = read_header(part, limits)
    if header.reasons:
        raise InfrastructureError(f"The weights {part.name} changed while they were read.")
    stored = [_Stored(tensor.name, tensor.dtype, (tensor.begin, tensor.end)) for tensor in header.tensors]
    return _prints(part, stored)


def onnx_weights(source: OnnxFile | Part | Path, limits: Limits | None = None) -> tuple[str, tuple[TensorSketch, ...]]:
    """Canonical hash and sketches of an ONNX file that :func:`onnx_check.check_onnx` has passed.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    file = source if isinstance(source, OnnxFile) else read_onnx(source, limits)
    stored = [
        _Stored(text(t.name), _ONNX_DTYPES.get(t.data_type, f"ONNX{t.data_type}"), file.span(t) or _literal(t))
        for t in iter_tensors(file.proto)
    ]
    return _prints(file.part, stored)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor and its bytes, or between which places of the file they lie."""

    name: str
    dtype: str
    data: tuple[int, int] | bytes


def _prints(part: Part, tensors: list[_Stored]) -> tuple[str, tuple[TensorSketch, ...]]:
    # Each has its own order, its own buffer and its own pass over the pages that the kernel holds anyway.
    with ThreadPoolExecutor(1, thread_name_prefix="sketch") as pool:
        sketches = pool.submit(_sketches, part, tensors)
        return _canonical(part, tensors), sketches.result()


def _canonical(part: Part, tensors: list[_Stored]) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_HASH_BYTES))
    twins = {key for key, count in Counter((t.name, t.dtype) for t in tensors).items() if count > 1}

    def order(tensor: _Stored) -> tuple[str, str, bytes]:
        alone = (tensor.name, tensor.dtype) not in twins
        # Names of ONNX constants may repeat; then the bytes decide.
        return tensor.name, tensor.dtype, b"" if alone else _digest_of(reader, tensor, buffer)

    with part.open() as reader:
        for tensor in sorted(tensors, key=order):
            for field in (tensor.name.encode(), tensor.dtype.encode()):
                digest.update(len(field).to_bytes(8, "little") + field)
            if isinstance(tensor.data, bytes):
                digest.update(len(tensor.data).to_bytes(8, "little") + tensor.data)
                continue
            begin, end = tensor.data
            digest.update((end - begin).to_bytes(8, "little"))
            for chunk in reader.chunks(begin, end, buffer):
                digest.update(chunk)
    return digest.hexdigest()


def _digest_of(reader: Reader, tensor: _Stored, buffer: memoryview) -> bytes:
    digest = hashlib.sha256()
    for chunk in _chunks(reader, tensor, buffer):
        digest.update(chunk)
    return digest.digest()


def _sketches(part: Part, tensors: list[_Stored]) -> tuple[TensorSketch, ...]:
    widest = max((item_size(tensor.dtype) for tensor in tensors), default=0)
    buffer = memoryview(bytearray(CHUNK_ELEMENTS * widest))
    found = []
    with part.open() as reader:
        for tensor in tensors:
            if width := item_size(tensor.dtype):
                size = len(tensor.data) if isinstance(tensor.data, bytes) else tensor.data[1] - tensor.data[0]
                chunks = _chunks(reader, tensor, buffer[: CHUNK_ELEMENTS * width])
                found.append(sketch(chunks, tensor.dtype, size // width))
    return largest(found)


def _chunks(reader: Reader, tensor: _Stored, buffer: memoryview) -> Iterable[memoryview]:
    if not isinstance(tensor.data, bytes):
        return reader.chunks(*tensor.data, buffer)
    whole = memoryview(tensor.data)
    return (whole[at : at + len(buffer)] for at in range(0, len(whole), len(buffer)))


def _literal(tensor: Any) -> bytes:
    """Bytes of a tensor that are not stored as such: little-endian, as its raw data would have them."""
    if tensor.data_type == _ONNX_STRING:
        return b"".join(len(item).to_bytes(8, "little") + item for item in tensor.string_data)
    stored, wanted = _ONNX_LITERALS.get(tensor.data_type, ("<i4", "<u1"))
    # What does not fit is cut, as a reader of the bits would: the author of a file decides what stands in it.
    return np.array(numbers_of(tensor), stored).astype(wanted).tobytes()
