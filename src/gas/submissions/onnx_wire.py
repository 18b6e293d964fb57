"""Measure an ONNX file on the wire, before any parser builds objects from it.

Protobuf is compact: two bytes on the wire may become an object of hundreds of bytes in memory, and one byte of a
packed list becomes eight. A file of some megabytes could so take the whole machine. This walk follows the messages
of ONNX (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), counts fields and literal bytes, stops at the
limits, and builds nothing.

Covered: broken wire format, nesting, counts, sizes. Not covered: meaning; see :mod:`gas.submissions.onnx_check`.

The walk also tells where the weights lie: :func:`skeleton` gives the same message with a number of eight bytes in
place of each stretch of raw tensor data, so that a parser holds the graph in memory and not the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gas.submissions.limits import Limits

__all__ = ["WireError", "skeleton"]

_MAX_DEPTH: Final = 64

# Field numbers whose value is a message, and which message; everything else is a scalar, text or bytes.
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 8: "Leaf", 14: "Leaf", 20: "Training", 25: "Function", 26: "Forbidden"},
    "Training": {1: "Graph", 2: "Graph", 3: "Leaf", 4: "Leaf"},
    "Function": {7: "Node", 9: "Leaf", 11: "Attribute", 12: "ValueInfo", 14: "Leaf"},
    "Graph": {
        1: "Node",
        5: "Tensor",
        11: "ValueInfo",
        12: "ValueInfo",
        13: "ValueInfo",
        14: "Annotation",
        15: "Sparse",
        16: "Leaf",
    },
    "Node": {5: "Attribute", 9: "Leaf", 10: "Forbidden"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        14: "Type",
        15: "Type",
        22: "Sparse",
        23: "Sparse",
    },
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {3: "Leaf", 13: "Leaf", 16: "Leaf"},
    "Annotation": {2: "Leaf"},
    "ValueInfo": {2: "Type", 4: "Leaf"},
    "Type": {1: "TensorType", 4: "Nested", 5: "Nested", 8: "TensorType", 9: "Nested"},
    "TensorType": {2: "Shape"},
    "Nested": {1: "Type", 2: "Type"},
    "Shape": {1: "Leaf"},
    "Leaf": {},
}
_RAW_DATA: Final = ("Tensor", 9)


class WireError(Exception):
    """The bytes are no protobuf message, or too much of one; ``code`` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _Walk:
    data: memoryview
    limits: Limits
    fields: int = 0
    literal: int = 0
    spans: list[tuple[int, int]] = field(default_factory=list)


def skeleton(data: memoryview, limits: Limits) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Walk the wire format of an ``onnx.ModelProto`` and leave the raw data of its tensors out.

    Args:
        data: The whole file.
        limits: ``onnx_fields`` and ``onnx_literal_bytes`` are asked.

    Returns:
        The message with the place's number, eight bytes little-endian, for each ``raw_data``; and the places: first
        byte, and the one behind the last.

    Raises:
        WireError: ``onnx_broken`` (not protobuf), ``onnx_too_deep`` or ``onnx_too_large``.
    """
    walk = _Walk(data, limits)
    message = _message(walk, "Model", 0, len(data), 0)
    return b"".join(message), tuple(walk.spans)


def _message(walk: _Walk, kind: str, at: int, end: int, depth: int) -> list[bytes]:
    """Pieces of a message between two places, without raw data."""
    if depth > _MAX_DEPTH:
        raise WireError("onnx_too_deep", "Graphs and types are nested too deeply.")
    data, children = walk.data, _MESSAGES[kind]
    pieces: list[bytes] = []
    copied = at
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        walk.fields += 1
        if walk.fields > walk.limits.onnx_fields:
            raise WireError("onnx_too_large", f"The file has more than {walk.limits.onnx_fields} protobuf fields.")
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        elif wire == 2:
            length, at = _varint(data, at, end)
            behind = at + length
            if behind > end:
                raise WireError("onnx_broken", "This is no ONNX file, or it is cut off.")
            inner = None
            if children.get(number) == "Forbidden":
                raise WireError("onnx_device_config", "Models that name devices are not taken: export for one.")
            if number in children and length:
                known = len(walk.spans)
                found = _message(walk, children[number], at, behind, depth + 1)
                inner = found if len(walk.spans) > known else None
            elif (kind, number) == _RAW_DATA:
                inner = [len(walk.spans).to_bytes(8, "little")]
                walk.spans.append((at, behind))
            else:
                walk.literal += length
                if walk.literal > walk.limits.onnx_literal_bytes:
                    raise WireError(
                        "onnx_too_large",
                        f"Over {walk.limits.onnx_literal_bytes} bytes lie outside of raw tensor data: "
                        "store weights as raw data.",
                    )
            at = behind
            if inner is not None:
                pieces += [bytes(data[copied:start]), _number(key), _number(sum(map(len, inner))), *inner]
                copied = at
        else:
            raise WireError("onnx_broken", "This is no ONNX file.")
        if at > end:
            raise WireError("onnx_broken", "This is no ONNX file, or it is cut off.")
    # What holds no weights is copied whole by the message around it.
    return [*pieces, bytes(data[copied:end])] if pieces or depth == 0 else []


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    if at < end and (byte := data[at]) < 0x80:
        return byte, at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError("onnx_broken", "This is no ONNX file, or it is cut off.")
