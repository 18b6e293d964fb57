"""What a package may measure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a package may measure; every number is a most.

    Attributes:
        packed_bytes: The zip file.
        unpacked_bytes: All unpacked files together.
        ratio: Unpacked over packed bytes, of one entry and of the whole; asked only above 1 MiB of output, because
            small text files squeeze well.
        entries: Entries of the archive, folders counted.
        config_bytes: ``model_config.yaml`` and ``config.json``, each.
        source_bytes: ``model.py``.
        header_bytes: Header of a safetensors file.
        tensors: Tensors of a safetensors file, or initializers of an ONNX file.
        onnx_fields: Protobuf fields of an ONNX file, a measure of what its objects take in memory.
        onnx_literal_bytes: Bytes of an ONNX file outside raw tensor data, which a parser may blow up eightfold.
    """

    packed_bytes: int = 2 * 2**30
    unpacked_bytes: int = 4 * 2**30
    ratio: float = 100.0
    entries: int = 16
    config_bytes: int = 64 * 2**10
    source_bytes: int = 256 * 2**10
    header_bytes: int = 8 * 2**20
    tensors: int = 100_000
    onnx_fields: int = 2_000_000
    onnx_literal_bytes: int = 64 * 2**20
