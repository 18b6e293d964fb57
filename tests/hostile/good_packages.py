"""Sound packages, and the parts of which hostile ones are made."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

GOOD_CONFIG = """\
name: tiny-net
version: 1.0
modality: image
preprocessing:
  resize: [32, 32]
model:
  num_classes: 2
"""

GOOD_CODE = '''\
"""A tiny network."""

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.conv(x.float() / 255)).mean(dim=(2, 3)))


def load_model(weights_path: str, num_classes: int = 2, **model_params):
    model = Net(num_classes)
    model.load_state_dict(load_file(weights_path))
    return model.eval()
'''


def refused(code: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Say with which code a hostile submission must be refused."""

    def mark(function: Callable[[], Any]) -> Callable[[], Any]:
        function.expected = code  # type: ignore[attr-defined]
        return function

    return mark


def cases(module: ModuleType) -> list[Callable[[], Any]]:
    """Every hostile submission of a module, in the order of its lines."""
    return [v for v in vars(module).values() if hasattr(v, "expected")]


def safetensors_bytes(tensors: dict[str, np.ndarray] | None = None) -> bytes:
    from safetensors.numpy import save

    return save(tensors if tensors is not None else net_weights())


def net_weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def safetensors_with(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with any header at all."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def zip_of(files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def package(config: str | bytes = GOOD_CONFIG, code: str | bytes = GOOD_CODE, weights: bytes | None = None) -> bytes:
    """A safetensors package with some parts replaced."""
    files: dict[str, bytes | str] = {
        "model_config.yaml": config,
        "model.py": code,
        "model.safetensors": safetensors_bytes() if weights is None else weights,
    }
    return zip_of(files)


def onnx_model(
    shape: tuple[object, ...] = ("N", 3, 32, 32),
    dtype: int = 2,
    opset: int = 17,
    classes: object = 2,
    change: Callable[[Any], None] | None = None,
) -> bytes:
    """A small ONNX model: cast, mean over the last axes, one matrix product."""
    from onnx import TensorProto, helper, numpy_helper

    rank = len(shape)
    axes = list(range(1, rank))
    weights = np.random.default_rng(0).normal(size=(1, classes if isinstance(classes, int) else 2)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["input"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", dtype, list(shape))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1], np.int64), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if change is not None:
        change(model)
    return model.SerializeToString()


def onnx_package(data: bytes | None = None) -> bytes:
    return zip_of({"model.onnx": onnx_model() if data is None else data})
