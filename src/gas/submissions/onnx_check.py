"""Check an ONNX file: shape of its door, version, domains, where its weights are.

Covered: files that are no ONNX model, external data (files beside the model), domains and operators beyond the
standard, in sub-graphs and functions too, tensors whose bytes don't fit their shape, more than one input or output,
fixed batch, old opsets, and files that would blow up in memory.

Not covered: what the graph computes, and bugs of a runtime that a graph may try to use. No native checker runs
here, only a parser; the runtime itself meets the model in the sandbox.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from gas.errors import InfrastructureError, Reason
from gas.submissions.limits import Limits
from gas.submissions.lookup import LEAST_BYTES, LOOKUP, holds_hashes, lookup_message
from gas.submissions.onnx_wire import WireError, skeleton
from gas.submissions.parts import Part
from gas.types import Modality

__all__ = ["OnnxFile", "OnnxModel", "OnnxReport", "check_onnx", "iter_tensors", "numbers_of", "read_onnx", "text"]

MIN_OPSET: Final = 11
DEFAULT_SIDE: Final = 224
DEFAULT_FRAMES: Final = 16
DEFAULT_AUDIO_SAMPLES: Final = 96_000
DEFAULT_CLASSES: Final = 2
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_EXTERNAL: Final = 1
_STRING: Final = 8
# Bits of one element by TensorProto.DataType; complex types and those below a byte count as written by onnx.proto.
_BITS: Final = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8,
}  # fmt: skip
_UINT8: Final = 2
_FLOAT: Final = 1
_FLOATS: Final = frozenset({1, 10, 11})
_WIDE: Final = {7: ("I64", "int64_data"), 13: ("U64", "uint64_data")}
_NUMPY: Final = {"I64": "<i8", "U64": "<u8"}
# In which field onnx.proto keeps the numbers of a tensor that is not stored as raw bytes.
_FIELDS: Final = {
    1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data", 14: "float_data",
    15: "double_data",
}  # fmt: skip
_ALL_FIELDS: Final = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_MAX_RANK: Final = 32
_MAX_SAME: Final = 20
_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """What a sound ONNX file says about itself.

    Attributes:
        modality: Read from rank and dtype of the input.
        input_shape: Shape of one sample; free axes filled with the defaults.
        input_dtype: ``"uint8"`` or ``"float32"``.
        num_classes: Width of the output; 2 when the file leaves it open.
        version: ``model_version`` of the file, as text.
    """

    modality: Modality
    input_shape: tuple[int, ...]
    input_dtype: str
    num_classes: int
    version: str


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A parsed file, of which the weights stay on the disk.

    Attributes:
        part: Where it lies.
        proto: ``onnx.ModelProto``; ``raw_data`` of its tensors holds the number of a place, not bytes of weights.
        spans: The places: first byte in the file, and the one behind the last.
    """

    part: Part
    proto: Any
    spans: tuple[tuple[int, int], ...]

    def span(self, tensor: Any) -> tuple[int, int] | None:
        """Where the raw bytes of one of its tensors lie; None for one that is written as numbers."""
        return self.spans[int.from_bytes(tensor.raw_data, "little")] if tensor.HasField("raw_data") else None


@dataclass(frozen=True, slots=True)
class OnnxReport:
    """Findings against an ONNX file, or what it says.

    Attributes:
        reasons: Findings.
        model: None when there are reasons.
        file: None when it could not be parsed.
    """

    reasons: tuple[Reason, ...]
    model: OnnxModel | None = None
    file: OnnxFile | None = None


def check_onnx(source: Part | Path, limits: Limits | None = None) -> OnnxReport:
    """Check one ONNX file.

    Args:
        source: The file, or where it lies in an archive.
        limits: What it may measure.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    limits, part = limits or Limits(), Part.of(source)
    try:
        file = read_onnx(part, limits)
    except WireError as error:
        return OnnxReport((Reason(error.code, str(error), part.name),))
    proto = file.proto
    found: dict[tuple[str, str], None] = {}
    for findings in (_check_versions(proto), _check_nodes(proto), _check_tensors(file)):
        for code, message in findings:
            found[(code, message)] = None
            if len(found) > _MAX_SAME:
                break
    tensors = sum(1 for _ in iter_tensors(proto))
    if tensors > limits.tensors:
        found[("too_many_tensors", f"The file has {tensors} tensors; allowed are {limits.tensors}.")] = None
    door, model = _door(proto)
    found |= dict.fromkeys(door)
    reasons = tuple(Reason(code, message, part.name) for code, message in found)
    return OnnxReport(reasons, None if reasons else model, file)


def read_onnx(source: Part | Path, limits: Limits | None = None) -> OnnxFile:
    """Parse a file after measuring it.

    Raises:
        WireError: It is no ONNX model, or too large a one; ``code`` says which.
        gas.errors.InfrastructureError: The file can't be read.
    """
    part = Part.of(source)
    if part.size == 0:
        raise WireError("onnx_broken", "The file is empty.")
    if part.size >= 2**31:
        raise WireError("onnx_too_large", "An ONNX file can't have 2 GiB or more.")
    try:
        with (
            part.file.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as whole,
            whole[part.offset : part.offset + part.size] as view,
        ):
            if _is_text(bytes(view[:4096])):
                raise WireError("onnx_text", "This is a text file, not an ONNX model.")
            message, spans = skeleton(view, limits or Limits())
    except OSError as error:
        raise InfrastructureError(f"The model {part.name} can't be read: {error.strerror}.") from error
    return OnnxFile(part, _parse(message), spans)


def _is_text(head: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in head) and not any(byte == 127 for byte in head)


def _parse(data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    proto = ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise WireError("onnx_broken", "This is no ONNX file, or it is damaged.") from None
    if not proto.HasField("graph"):
        raise WireError("onnx_broken", "This is no ONNX model: it has no graph.")
    return proto


def _iter_nodes(proto: Any) -> Iterator[tuple[Any, Any]]:
    """Every node with the opset table in force, of the graph, its sub-graphs and the functions."""
    stack = [(list(proto.graph.node), proto.opset_import)]
    stack += [(list(function.node), function.opset_import) for function in proto.functions]
    while stack:
        nodes, opsets = stack.pop()
        for node in nodes:
            yield node, opsets
            for attribute in node.attribute:
                graphs = ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
                stack += [(list(graph.node), opsets) for graph in graphs]


def _iter_graphs(proto: Any) -> Iterator[Any]:
    yield proto.graph
    for node, _ in _iter_nodes(proto):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def iter_tensors(proto: Any) -> Iterator[Any]:
    """Every ``TensorProto`` of a model: initializers and constants, at any depth."""
    for graph in _iter_graphs(proto):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    attributes = [a for node, _ in _iter_nodes(proto) for a in node.attribute]
    attributes += [a for function in proto.functions for a in function.attribute_proto]
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparses = ([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []) + list(
            attribute.sparse_tensors
        )
        for sparse in sparses:
            yield from (sparse.values, sparse.indices)


def text(value: str | bytes) -> str:
    """A text field of a message; protobuf hands over the bytes of one that is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _check_versions(proto: Any) -> Iterator[tuple[str, str]]:
    if proto.training_info:
        yield "onnx_training", "Models with training information are not taken: export for inference."
    own = {text(function.domain) for function in proto.functions}
    tables = [proto.opset_import, *(function.opset_import for function in proto.functions)]
    for table in tables:
        for entry in table:
            domain = text(entry.domain)
            if domain not in _DOMAINS and domain not in own:
                yield "onnx_custom_domain", f"The domain {domain[:80]!r} is not standard ONNX."
            elif domain in ("", "ai.onnx") and not MIN_OPSET <= entry.version <= 1000:
                yield "onnx_opset", f"The opset is {entry.version}; it must be {MIN_OPSET} or newer."
    if not any(entry.domain in ("", "ai.onnx") for entry in proto.opset_import):
        yield "onnx_opset", f"The file names no opset; it must be {MIN_OPSET} or newer."


def _check_nodes(proto: Any) -> Iterator[tuple[str, str]]:
    from onnx import defs

    functions = {(text(function.domain), text(function.name)) for function in proto.functions}
    known: dict[tuple[str, str], bool] = {}
    newest = {"": defs.onnx_opset_version(), "ai.onnx.ml": 1000}
    for node, opsets in _iter_nodes(proto):
        written, operator = text(node.domain), text(node.op_type)
        domain = "" if written == "ai.onnx" else written
        key = (domain, operator)
        if (written, operator) in functions or known.get(key):
            continue
        shown = f"{domain[:80]}::{operator[:80]}" if domain else operator[:80]
        if domain not in _DOMAINS:
            yield "onnx_custom_domain", f"The operator {shown} is not standard ONNX."
            continue
        version = max((e.version for e in opsets if text(e.domain) in {domain, written}), default=1)
        # A newer opset than this library knows may have new operators: the runtime decides about those.
        if version > newest[domain] or not 1 <= version <= 1000:
            continue
        known[key] = defs.has(operator, version, domain)
        if not known[key]:
            yield "onnx_unknown_operator", f"ONNX opset {version} has no operator {shown}."


def _check_tensors(file: OnnxFile) -> Iterator[tuple[str, str]]:
    for tensor in iter_tensors(file.proto):
        shown = repr(text(tensor.name)[:80])
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            yield "onnx_external_data", f"Tensor {shown} lies in another file: save the model with its data inside."
            continue
        if tensor.data_type != _STRING and tensor.data_type not in _BITS:
            yield "onnx_dtype", f"Tensor {shown} has no known dtype."
            continue
        # The rank first: the product of a million dimensions is a number that takes minutes.
        if len(tensor.dims) > _MAX_RANK or any(dim < 0 for dim in tensor.dims) or tensor.HasField("segment"):
            yield "onnx_tensor_size", f"Tensor {shown} has no valid shape."
            continue
        span = file.span(tensor)
        if not _sized(tensor, span):
            yield "onnx_tensor_size", f"Tensor {shown}: its bytes don't fit its shape and dtype."
            continue
        if tensor.data_type in _WIDE and _holds_hashes(file.part, tensor, span):
            yield LOOKUP, lookup_message(shown)


def _holds_hashes(part: Part, tensor: Any, span: tuple[int, int] | None) -> bool:
    dtype, values = _WIDE[tensor.data_type]
    if span is None:
        return holds_hashes([memoryview(np.array(getattr(tensor, values), _NUMPY[dtype]).tobytes())], dtype)
    if span[1] - span[0] < LEAST_BYTES:
        return False
    with part.open() as reader:
        return holds_hashes(reader.chunks(*span, memoryview(bytearray(_CHUNK))), dtype)


def numbers_of(tensor: Any) -> Any:
    """The repeated field in which onnx.proto keeps the numbers of a tensor of its dtype."""
    return getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))


def _sized(tensor: Any, span: tuple[int, int] | None) -> bool:
    count = math.prod(tensor.dims)
    lengths = [len(getattr(tensor, name)) for name in _ALL_FIELDS]
    if tensor.data_type == _STRING:
        return bool(len(tensor.string_data) == count == sum(lengths) and span is None)
    bits = _BITS[tensor.data_type]
    if span is not None:
        return bool(span[1] - span[0] == (count * bits + 7) // 8 and not any(lengths))
    parts = 2 if tensor.data_type in (14, 15) else 1
    wanted = -(-count * bits // 8) if bits < 8 else count * parts
    # Numbers in another field than the dtype's are read by no two libraries alike.
    return bool(len(numbers_of(tensor)) == wanted == sum(lengths))


def _door(proto: Any) -> tuple[list[tuple[str, str]], OnnxModel | None]:
    graph = proto.graph
    given = {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    inputs = [value for value in graph.input if value.name not in given]
    found = []
    if len(inputs) != 1:
        found.append(("onnx_inputs", f"The model must have one input; it has {len(inputs)}."))
    if len(graph.output) != 1:
        found.append(("onnx_outputs", f"The model must have one output; it has {len(graph.output)}."))
    if found:
        return found, None
    modality, shape, dtype = _input(inputs[0], found)
    classes = _output(graph.output[0], found)
    if found or modality is None:
        return found, None
    return found, OnnxModel(modality, shape, dtype, classes, str(proto.model_version))


def _dims(value: Any) -> tuple[int, list[int | None]] | None:
    """Element type and dimensions of a tensor (None where free); None for any other type."""
    if value.type.WhichOneof("value") != "tensor_type" or not value.type.tensor_type.HasField("shape"):
        return None
    tensor = value.type.tensor_type
    return tensor.elem_type, [d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim]


def _input(value: Any, found: list[tuple[str, str]]) -> tuple[Modality | None, tuple[int, ...], str]:
    doors = "uint8 [B,3,H,W] for images, uint8 [B,T,3,H,W] for video, float32 [B,samples] for audio"
    read = _dims(value)
    if read is None:
        found.append(("onnx_input", f"The input must be a tensor with a declared rank: {doors}."))
        return None, (), ""
    dtype, dims = read
    kinds = {4: (Modality.IMAGE, _UINT8), 5: (Modality.VIDEO, _UINT8), 2: (Modality.AUDIO, _FLOAT)}
    if len(dims) not in kinds:
        found.append(("wrong_modality", f"An input of rank {len(dims)} fits no modality: {doors}."))
        return None, (), ""
    modality, wanted = kinds[len(dims)]
    if dtype != wanted:
        found.append(("onnx_dtype", f"The input's dtype doesn't fit {modality}: {doors}; cast inside of the model."))
    if dims[0] is not None:
        found.append(("onnx_batch_fixed", f"The batch axis is fixed to {dims[0]}: export it as a dynamic axis."))
    defaults = {
        Modality.IMAGE: (3, DEFAULT_SIDE, DEFAULT_SIDE),
        Modality.VIDEO: (DEFAULT_FRAMES, 3, DEFAULT_SIDE, DEFAULT_SIDE),
        Modality.AUDIO: (DEFAULT_AUDIO_SAMPLES,),
    }[modality]
    shape = tuple(default if dim is None else dim for dim, default in zip(dims[1:], defaults, strict=True))
    if modality is not Modality.AUDIO and shape[-3] != 3:
        found.append(("wrong_modality", f"The input has {shape[-3]} channels; {modality} has 3: {doors}."))
    return modality, shape, "float32" if modality is Modality.AUDIO else "uint8"


def _output(value: Any, found: list[tuple[str, str]]) -> int:
    read = _dims(value)
    if read is None:
        # Exporters may leave the output's shape open; its width is then checked on the first answer.
        return DEFAULT_CLASSES
    dtype, dims = read
    if dtype not in _FLOATS:
        found.append(("onnx_output", "The output must be floating-point logits."))
    if len(dims) != 2:
        found.append(("onnx_output", f"The output must have shape [B, classes]; its rank is {len(dims)}."))
        return DEFAULT_CLASSES
    if dims[0] is not None:
        found.append(("onnx_batch_fixed", f"The output's batch is fixed to {dims[0]}: export it as a dynamic axis."))
    width = dims[1]
    if width is not None and not 1 <= width <= 100:
        found.append(("onnx_output", f"The output has {width} classes; allowed are 1 to 100."))
    return width if width is not None else DEFAULT_CLASSES
