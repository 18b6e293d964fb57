"""The embedder that a CPU can afford: MobileNetV2's last features, seen small and projected to 128 numbers.

What it is good for: copies that were bent, turned, mirrored or cropped a little, beyond what perceptual hashes forgive.
What not: it says nothing of quality or truth, hardly finds small parts of a picture, and tells two pictures of one
subject by composition only; hence the high threshold. Weights as in :mod:`gas.generation.prompts.labels`; the
projection is a fixed draw (Johnson and Lindenstrauss), so that any two validators have the same vectors.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.clock import derive_rng
from gas.errors import ConfigurationError
from gas.generation.prompts.labels import DEVIATION, MEAN, load_mobilenet, mobilenet_weights
from gas.media.image import RGB

if TYPE_CHECKING:
    from torch import nn

    from gas.verification.base import Embedder

__all__ = ["MobileNetEmbedder", "open_copy_embedder"]

_SIDE: Final = 128
_FEATURES: Final = 1280
_NUMBERS: Final = 128
_SEED: Final = 20_260_101
_COSINE: Final = 0.92
_HIGHEST: Final = 6.0
_OPSET: Final = 17
_IR: Final = 8
_KEPT: Final = "mobilenet_v2-b0353104-1.onnx"
_DIGEST: Final = 32


class MobileNetEmbedder:
    """An :class:`gas.verification.base.Embedder`; may be used from several threads.

    The network is opened with the first picture. Bringing it into ONNX's form needs torch, which takes seconds to load;
    the form is kept, and later starts do without.

    Args:
        weights: File of the weights.
        folder: Where that form is kept; None keeps none.
    """

    name = "mobilenet"
    size = _NUMBERS
    threshold = _COSINE

    def __init__(self, weights: Path, folder: Path | None = None) -> None:
        self._weights = weights
        self._kept = None if folder is None else folder / _KEPT
        self._lock = threading.Lock()
        self._session: Any = None
        drawn = derive_rng(_SEED, "embedding").standard_normal((_FEATURES, _NUMBERS))
        self._projection = np.linalg.qr(drawn)[0].astype(np.float32)

    def embed(self, rgb: RGB) -> NDArray[np.float32]:
        """float32, (128,), of length 1, for a picture (uint8, (h, w, 3)).

        Raises:
            ConfigurationError: ``weights_unknown``, with the first picture.
        """
        small = cv2.resize(rgb, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        pixels = (small / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        (found,) = self._opened().run(None, {"x": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])})
        vector = found.reshape(-1) @ self._projection
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)

    def _opened(self) -> Any:
        with self._lock:
            if self._session is None:
                import onnxruntime

                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = options.inter_op_num_threads = 1
                self._session = onnxruntime.InferenceSession(self._model(), options, providers=["CPUExecutionProvider"])
            return self._session

    def _model(self) -> bytes:
        if self._kept is None:
            return _graph(load_mobilenet(self._weights))
        try:
            data = self._kept.read_bytes()
            # The name says of which weights; the first bytes, that the file is whole.
            if hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                return data[_DIGEST:]
        except OSError:
            pass
        data = _graph(load_mobilenet(self._weights))
        with suppress(OSError):
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            aside = self._kept.with_suffix(f".{os.getpid()}")
            aside.write_bytes(hashlib.sha256(data).digest() + data)
            aside.replace(self._kept)
        return data


def open_copy_embedder(word: str, folder: Path | None = None) -> Embedder | None:
    """The embedder that finds copies.

    Args:
        word: ``auto`` (MobileNet where its package is installed), ``none``, or the folder of a CLIP model.
        folder: Where what is made of the weights may be kept.

    Raises:
        ConfigurationError: The folder holds no such model.
    """
    if word == "none":
        return None
    if word == "auto":
        weights = mobilenet_weights()
        return MobileNetEmbedder(weights, folder) if weights is not None else None
    from gas.verification.clip import COPY_COSINE, ClipModel

    if not Path(word).is_dir():
        raise ConfigurationError(f"EMBEDDING: there is no folder {word[:200]!r}.", hint="auto, none or a folder.")
    model = ClipModel(Path(word))
    # Two pictures count as one at another cosine than a picture and its prompt.
    model.threshold = COPY_COSINE
    return model


def _graph(net: nn.Sequential) -> bytes:
    """The features' mean as an ONNX model, batch normalisation folded in: a third of the time that torch takes."""
    from onnx import TensorProto, helper, numpy_helper
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    nodes: list[Any] = []
    weights: list[Any] = [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("low", 0), ("high", _HIGHEST))
    ]

    def node(kind: str, inputs: list[str], **attributes: object) -> str:
        output = f"v{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolve(layer: nn.Conv2d, norm: nn.BatchNorm2d, x: str) -> str:
        fused = fuse_conv_bn_eval(layer, norm)
        names = []
        for value in (fused.weight, fused.bias):
            names.append(f"w{len(weights)}")
            weights.append(numpy_helper.from_array(value.detach().numpy(), names[-1]))  # type: ignore[union-attr]
        pad = int(layer.padding[0])
        return node(
            "Conv", [x, *names], kernel_shape=list(layer.kernel_size), strides=list(layer.stride), pads=[pad] * 4,
            group=layer.groups,
        )  # fmt: skip

    def walk(layers: list[nn.Module], x: str) -> str:
        at = 0
        while at < len(layers):
            layer = layers[at]
            if isinstance(layer, nn.Conv2d):
                norm = layers[at + 1]
                x = convolve(layer, norm, x)  # type: ignore[arg-type]
                at += 1
            elif isinstance(layer, nn.ReLU6):
                x = node("Clip", [x, "low", "high"])
            elif isinstance(layer, nn.Sequential):
                x = walk(list(layer), x)
            else:
                inner = walk(list(layer.conv), x)  # type: ignore[arg-type]
                x = node("Add", [x, inner]) if layer.skips else inner
            at += 1
        return x

    last = node("GlobalAveragePool", [walk(list(net.features), "x")])  # type: ignore[arg-type]
    graph = helper.make_graph(
        nodes,
        "mobilenet",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, _FEATURES, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data
