"""Tell copies and near copies of models apart from originals.

Exact copies: SHA-256 of the zip, of the canonical weights and of the code without comments. Near copies: a short
sketch of each large tensor, from which the cosine between two tensors can be told to about one in ten, whatever the
tensors are called and in whichever format they are stored.

Covered: renamed tensors, another format or precision, a new zip, comments and blank lines, small noise, scaling,
light fine-tuning. Not covered: permuted channels, retrained copies; the correlation of answers finds more of these.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import tokenize
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import InfrastructureError
from gas.submissions.limits import Limits
from gas.submissions.onnx_check import iter_tensors, parse_onnx, text
from gas.submissions.weights import read_header

__all__ = ["Fingerprint", "TensorSketch", "code_sha256", "distance", "file_sha256", "onnx_weights", "tensor_weights"]

SKETCH_SIZE: Final = 64
MIN_ELEMENTS: Final = 256
MAX_SKETCHES: Final = 512
_CHUNK: Final = 1 << 20
_SIGN_SEED: Final = 0x6A5
_MAX_WEIGHT: Final = 1e12
_FLOATS: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_ONNX_DTYPES: Final = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 12: "U32",
    13: "U64", 16: "BF16",
}  # fmt: skip
_ONNX_STRING: Final = 8


@dataclass(frozen=True, slots=True)
class TensorSketch:
    """A signed count sketch (Charikar, Chen, Farach-Colton 2002) of one tensor, centred and brought to one length.

    Attributes:
        elements: Number of elements of the tensor.
        values: 64 numbers from -127 to 127; only their direction means something.
    """

    elements: int
    values: tuple[int, ...]


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


def distance(first: tuple[TensorSketch, ...], second: tuple[TensorSketch, ...]) -> float:
    """How far two models' weights are apart.

    Tensors of one size are matched so that the nearest go together; the result is one minus the mean of their
    cosines, weighted by size, where a tensor without a partner counts as 0.

    Returns:
        From 0 (the same weights but for scale) to 1 (unrelated); unrelated weights come out above 0.5. 1 when
        either has no sketches.
    """
    total = max(sum(s.elements for s in first), sum(s.elements for s in second))
    if not total or not first or not second:
        return 1.0
    alike = 0.0
    for elements in {s.elements for s in first} & {s.elements for s in second}:
        ours = _unit([s for s in first if s.elements == elements])
        theirs = _unit([s for s in second if s.elements == elements])
        cosines = np.clip(ours @ theirs.T, 0.0, 1.0)
        for _ in range(min(cosines.shape)):
            row, column = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
            alike += elements * float(cosines[row, column])
            cosines[row, :] = -1.0
            cosines[:, column] = -1.0
    return float(np.clip(1.0 - alike / total, 0.0, 1.0))


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


def tensor_weights(path: Path, limits: Limits | None = None) -> tuple[str, tuple[TensorSketch, ...]]:
    """Canonical hash and sketches of a safetensors file that :func:`weights.check_weights` has passed.

    Raises:
        gas.errors.InfrastructureError: The file can't be read, or its header changed since the check.
    """
    header = read_header(path, limits)
    if header.reasons:
        raise InfrastructureError(f"The weights {path.name} changed while they were read.")
    digest, sketches = hashlib.sha256(), []
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ThreadPoolExecutor(1, thread_name_prefix="sketch") as pool,
        ):
            for tensor in sorted(header.tensors, key=lambda t: t.name):
                with memoryview(data) as view, view[tensor.begin : tensor.end] as part:
                    # Both read the same pages; the hash, which takes longer, hides the sketch.
                    sketch = pool.submit(_sketch, part, tensor.dtype) if len(part) > _CHUNK else None
                    _feed(digest, tensor.name, tensor.dtype, part)
                    sketches.append(_sketch(part, tensor.dtype) if sketch is None else sketch.result())
    except OSError as error:
        raise InfrastructureError(f"The weights {path.name} can't be read: {error.strerror}.") from error
    return digest.hexdigest(), _largest(sketches)


def onnx_weights(path: Path, limits: Limits | None = None) -> tuple[str, tuple[TensorSketch, ...]]:
    """Canonical hash and sketches of an ONNX file that :func:`onnx_check.check_onnx` has passed.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    parts = sorted(
        (
            (text(t.name), _ONNX_DTYPES.get(t.data_type, f"ONNX{t.data_type}"), _onnx_bytes(t))
            for t in _tensors(path, limits)
        ),
        key=lambda part: (part[0], part[1], hashlib.sha256(part[2]).digest()),
    )
    digest, sketches = hashlib.sha256(), []
    for name, dtype, raw in parts:
        _feed(digest, name, dtype, memoryview(raw))
        sketches.append(_sketch(memoryview(raw), dtype))
    return digest.hexdigest(), _largest(sketches)


def _tensors(path: Path, limits: Limits | None) -> Iterator[Any]:
    return iter_tensors(parse_onnx(path, limits))


def _onnx_bytes(tensor: Any) -> bytes:
    from onnx import numpy_helper

    if tensor.data_type == _ONNX_STRING:
        return b"".join(len(item).to_bytes(8, "little") + item for item in tensor.string_data)
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(numpy_helper.to_array(tensor).tobytes())


def _feed(digest: Any, name: str, dtype: str, data: memoryview) -> None:
    for field in (name.encode(), dtype.encode(), data):
        digest.update(len(field).to_bytes(8, "little"))
        digest.update(field)


def _largest(sketches: list[TensorSketch | None]) -> tuple[TensorSketch, ...]:
    kept = [s for s in sketches if s is not None]
    return tuple(sorted(kept, key=lambda s: (-s.elements, s.values))[:MAX_SKETCHES])


def _sketch(data: memoryview, dtype: str) -> TensorSketch | None:
    """Sketch of a tensor's bytes; None for small, constant and whole-number tensors."""
    width = 2 if dtype == "BF16" else np.dtype(_FLOATS[dtype]).itemsize if dtype in _FLOATS else 0
    count = len(data) // width if width else 0
    if count < MIN_ELEMENTS:
        return None
    sums, ones = np.zeros(SKETCH_SIZE), np.zeros(SKETCH_SIZE)
    total, low, high = 0.0, np.inf, -np.inf
    for index, start in enumerate(range(0, count, _CHUNK)):
        values = _floats(data[start * width : min(start + _CHUNK, count) * width], dtype)
        signs = _signs()[: len(values)]
        # Every chunk turns the buckets by one, so that equal signs at equal places of two chunks do not add up.
        sums += np.roll(_fold(signs * values), index)
        ones += np.roll(_folded_signs() if len(values) == _CHUNK else _fold(signs), index)
        total += float(values.sum(dtype=np.float64))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    vector = sums - total / count * ones
    peak = float(np.abs(vector).max())
    if low == high or peak == 0.0:
        return None
    return TensorSketch(count, tuple(int(v) for v in np.rint(vector * (127.0 / peak))))


@cache
def _signs() -> NDArray[np.float32]:
    """One fixed sign for each place of a chunk: +1 or -1."""
    # The raw stream of PCG64 is fixed for good, other than what numpy draws from it.
    raw = np.random.PCG64(_SIGN_SEED).random_raw(_CHUNK // 64).astype("<u8").view(np.uint8)
    signs = np.unpackbits(raw, bitorder="little").astype(np.float32) * 2 - 1
    signs.setflags(write=False)
    return signs


@cache
def _folded_signs() -> NDArray[np.float64]:
    """What a whole chunk of ones folds to."""
    folded = _fold(_signs())
    folded.setflags(write=False)
    return folded


def _fold(values: NDArray[np.float32]) -> NDArray[np.float64]:
    if rest := -len(values) % SKETCH_SIZE:
        values = np.pad(values, (0, rest))
    return np.asarray(np.add.reduce(values.reshape(-1, SKETCH_SIZE), axis=0, dtype=np.float64))


def _floats(data: memoryview, dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype == "F64":
        values = np.clip(np.frombuffer(data, "<f8"), -_MAX_WEIGHT, _MAX_WEIGHT).astype(np.float32)
    else:
        values = np.frombuffer(data, _FLOATS[dtype]).astype(np.float32, copy=False)
    if not (values.min() >= -_MAX_WEIGHT and values.max() <= _MAX_WEIGHT):
        # Values beyond any real weight, and those that are no numbers, would drown the others.
        values = np.clip(np.nan_to_num(values), -_MAX_WEIGHT, _MAX_WEIGHT)
    return values


def _unit(sketches: list[TensorSketch]) -> NDArray[np.float64]:
    table = np.array([s.values for s in sketches], dtype=np.float64)
    return np.asarray(table / np.linalg.norm(table, axis=1, keepdims=True))
