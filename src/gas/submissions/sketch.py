"""Short sketches of tensors, from which the cosine between two of them can be told without having either.

Covered: other names, another order, another shape, format or precision, scaling, noise, light fine-tuning.
Padding: an unused tensor as large as the model makes a copy half as far as a stranger is; the older model is still
inside, and that is measured, too (:attr:`WeightsDistance.inside`).
Not covered: tensors that are transposed, cut or joined, permuted channels, models that are trained on for long, and
padding by more than 63 times, or by 512 tensors each larger than any of the model's own, of which no sketch is kept
then; the correlation of answers finds more of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHUNK_ELEMENTS",
    "SKETCH_ROW",
    "SKETCH_SIZE",
    "SMALLEST_SHARE",
    "TensorSketch",
    "WeightsDistance",
    "distance",
    "item_size",
    "largest",
    "load_sketches",
    "measure_distance",
    "sketch",
    "store_sketches",
    "unit_rows",
]

SKETCH_SIZE: Final = 64
"""Numbers of a sketch; the cosine of unrelated tensors is told to about one over the root of it."""
CHUNK_ELEMENTS: Final = 1 << 20
"""Elements that are folded at a time."""
_MIN_ELEMENTS: Final = 256
_MAX_SKETCHES: Final = 512
_SIGN_SEED: Final = 0x6A5
_MAX_WEIGHT: Final = 1e12
_FLOATS: Final = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
_NEAR: Final = 0.9
SMALLEST_SHARE: Final = 1 / 64
"""A model with a smaller part of another one's weights is not looked for inside it."""
SKETCH_ROW: Final = np.dtype([("elements", "<u8"), ("values", "i1", SKETCH_SIZE)])
"""How one sketch is stored."""


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
class WeightsDistance:
    """How far two models' weights are apart.

    Attributes:
        distance: From 0 (the same weights but for scale) to 1 (unrelated), measured by the larger model.
        inside: The same, measured by the smaller model: 0 when all of it is in the larger one. 1 where it has less
            than a 64th of the larger one's weights, because a standard tensor or two say nothing.
        apart: Tensors of the model with more sketches that have no near partner in the other one: what was trained anew
            on a shared base.
        tensors: Sketches of the model with more of them.
    """

    distance: float
    inside: float
    apart: int
    tensors: int


def item_size(dtype: str) -> int:
    """Bytes of one number of a dtype that is sketched (as safetensors calls it); 0 for every other."""
    return 2 if dtype == "BF16" else np.dtype(_FLOATS[dtype]).itemsize if dtype in _FLOATS else 0


def sketch(chunks: Iterable[memoryview], dtype: str, count: int) -> TensorSketch | None:
    """Sketch of a tensor's bytes; None for small, constant and whole-number tensors.

    Args:
        chunks: Its bytes, little-endian; :data:`CHUNK_ELEMENTS` numbers each but for the last.
        dtype: As safetensors calls it.
        count: Its elements.
    """
    if not item_size(dtype) or count < _MIN_ELEMENTS:
        return None
    sums, ones = np.zeros(SKETCH_SIZE), np.zeros(SKETCH_SIZE)
    total, constant, first = 0.0, True, None
    for index, chunk in enumerate(chunks):
        values = _floats(chunk, dtype)
        first = values[0] if first is None else first
        constant = constant and bool((values[:SKETCH_SIZE] == first).all()) and bool((values == first).all())
        # Every chunk turns the buckets by one, so that equal signs at equal places of two chunks do not add up.
        sums += np.roll(_fold(values), index)
        ones += np.roll(_folded_signs() if len(values) == CHUNK_ELEMENTS else _fold(np.ones_like(values)), index)
        total += float(values.sum(dtype=np.float32 if len(values) == CHUNK_ELEMENTS else np.float64))
    vector = sums - total / count * ones
    peak = float(np.abs(vector).max())
    if constant or peak == 0.0:
        return None
    return TensorSketch(count, tuple(int(v) for v in np.rint(vector * (127.0 / peak))))


def largest(sketches: Iterable[TensorSketch | None]) -> tuple[TensorSketch, ...]:
    """The sketches that are kept of a model: those of its largest tensors, the largest first, 512 at most."""
    kept = [s for s in sketches if s is not None]
    return tuple(sorted(kept, key=lambda s: (-s.elements, s.values))[:_MAX_SKETCHES])


def distance(first: Sequence[TensorSketch], second: Sequence[TensorSketch]) -> float:
    """The distance alone; see :func:`measure_distance`."""
    return measure_distance(first, second).distance


def measure_distance(first: Sequence[TensorSketch], second: Sequence[TensorSketch]) -> WeightsDistance:
    """How far two models' weights are apart.

    Tensors of one size are matched so that the nearest go together; the distance is one minus the mean of their
    cosines, weighted by size, where a tensor without a partner counts as 0. Unrelated weights come out above 0.5.
    Models without sketches are at 1 from every other.
    """
    less, total = sorted((sum(s.elements for s in first), sum(s.elements for s in second)))
    tensors = max(len(first), len(second))
    if not first or not second:
        return WeightsDistance(1.0, 1.0, tensors, tensors)
    alike, near = 0.0, 0
    for elements in {s.elements for s in first} & {s.elements for s in second}:
        ours = unit_rows([s.values for s in first if s.elements == elements])
        theirs = unit_rows([s.values for s in second if s.elements == elements])
        cosines = np.clip(ours @ theirs.T, 0.0, 1.0)
        for _ in range(min(cosines.shape)):
            row, column = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
            alike += elements * float(cosines[row, column])
            near += bool(cosines[row, column] >= _NEAR)
            cosines[row, :] = -1.0
            cosines[:, column] = -1.0
    distance, inside = (float(np.clip(1.0 - alike / of, 0.0, 1.0)) for of in (total, less))
    return WeightsDistance(distance, inside if less >= total * SMALLEST_SHARE else 1.0, tensors - near, tensors)


def unit_rows(values: object) -> NDArray[np.float64]:
    """Rows of numbers, each brought to length 1; shape (n, 64)."""
    table = np.asarray(values, dtype=np.float64).reshape(-1, SKETCH_SIZE)
    return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12))


def store_sketches(sketches: Sequence[TensorSketch]) -> bytes:
    """Sketches as bytes: 72 for each, its number of elements (little-endian) and its values."""
    table = np.zeros(len(sketches), SKETCH_ROW)
    for row, one in zip(table, sketches, strict=True):
        row["elements"], row["values"] = one.elements, one.values
    return table.tobytes()


def load_sketches(data: bytes) -> tuple[TensorSketch, ...]:
    """What :func:`store_sketches` made bytes of.

    Raises:
        ValueError: The bytes are no sketches.
    """
    table = np.frombuffer(data, SKETCH_ROW)
    return tuple(TensorSketch(int(row["elements"]), tuple(row["values"].tolist())) for row in table)


@cache
def _signs() -> NDArray[np.float32]:
    """One fixed sign for each place of a chunk, +1 or -1; shape (rows, 64)."""
    # The raw stream of PCG64 is fixed for good, other than what numpy draws from it.
    raw = np.random.PCG64(_SIGN_SEED).random_raw(CHUNK_ELEMENTS // 64).astype("<u8").view(np.uint8)
    signs = np.unpackbits(raw, bitorder="little").astype(np.float32).reshape(-1, SKETCH_SIZE) * 2 - 1
    signs.setflags(write=False)
    return signs


@cache
def _folded_signs() -> NDArray[np.float64]:
    """What a whole chunk of ones folds to."""
    folded = _fold(np.ones(CHUNK_ELEMENTS, np.float32))
    folded.setflags(write=False)
    return folded


def _fold(values: NDArray[np.float32]) -> NDArray[np.float64]:
    if rest := -len(values) % SKETCH_SIZE:
        values = np.pad(values, (0, rest))
    rows = values.reshape(-1, SKETCH_SIZE)
    # One pass without a copy, and without the threads of a linear algebra library beside those of the hashes.
    return np.asarray(np.einsum("ij,ij->j", _signs()[: len(rows)], rows), dtype=np.float64)


def _floats(data: memoryview, dtype: str) -> NDArray[np.float32]:
    if dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype == "F64":
        values = np.clip(np.frombuffer(data, "<f8"), -_MAX_WEIGHT, _MAX_WEIGHT).astype(np.float32)
    else:
        values = np.frombuffer(data, _FLOATS[dtype]).astype(np.float32, copy=False)
    if not np.einsum("i,i->", values, values) <= _MAX_WEIGHT**2:
        # Values beyond any real weight, and those that are no numbers, would drown the others.
        values = np.clip(np.nan_to_num(values), -_MAX_WEIGHT, _MAX_WEIGHT)
    return values
