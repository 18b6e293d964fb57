"""Start a new detector: a folder that passes the checks, with a tiny untrained network to be replaced."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError
from gas.types import Modality

__all__ = ["FORMATS", "create"]

FORMATS: Final = ("safetensors", "onnx")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WIDTH: Final = 8

_PREPROCESSING: Final = {
    Modality.IMAGE: "  resize: [224, 224]          # height and width of what the model sees",
    Modality.VIDEO: "  resize: [224, 224]          # height and width of each frame\n  num_frames: 16",
    Modality.AUDIO: "  sample_rate: 16000\n  duration_seconds: 2.0       # as much as most rounds show",
}

_CONFIG: Final = """\
name: {name}
version: "0.1.0"
modality: {modality}
dtype: float32
preprocessing:
{preprocessing}
model:
  num_classes: 2              # logits of real and of fake
  weights_file: model.safetensors
"""

_CODE: Final = '''\
"""A small {modality} detector to start from: untrained, it only guesses; `gascli d train` teaches it.

Input: {input}.
Output: logits [B, num_classes]; the first is real, the second fake.
"""
{imports}
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
{constants}

class Detector(nn.Module):
    """{about}"""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
{build}        layers, before = [], {channels}
        for width, kernel, stride in ({widths}):
            layers += [nn.Conv2d(before, width, kernel, stride, kernel // 2, bias=False)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(2 * before, num_classes)
{more}
    def forward(self, x: torch.Tensor) -> torch.Tensor:
{prepare}
        x = self.layers(x)
        # Where something is says little; how much there is of it, and how unevenly, says more.
        mean = x.mean(dim=(2, 3))
        spread = torch.sqrt(F.relu(x.square().mean(dim=(2, 3)) - mean.square()) + 1e-4)
        x = torch.cat((mean, spread), dim=1){combine}
        return self.head(self.dropout(x))


def load_model(weights_path: str, num_classes: int = 2, **model_params) -> nn.Module:
    """Build the network and fill it; called once, inside of the sandbox."""
    model = Detector(num_classes)
    model.load_state_dict(load_file(weights_path))
    return model.eval()
'''

_WAVES: Final = """\
        place = torch.arange(BLOCK) + 0.5
        basis = torch.cos(math.pi / BLOCK * torch.arange(BLOCK)[:, None] * place) * math.sqrt(2 / BLOCK)
        window = 0.1 + 0.9 * torch.hann_window(BLOCK, periodic=False)
        waves = torch.einsum("ua,vb,a,b->uvab", basis, basis, window, window).reshape(-1, 1, BLOCK, BLOCK)
        half = BLOCK // 2
        low = [i for i in range(1, BLOCK * BLOCK) if i // BLOCK < half and i % BLOCK < half]
        # A block's mean says nothing of how the picture was made. Colours are often stored at half the size: the
        # lower half of their frequencies is enough.
        self.register_buffer("waves", waves[1:], persistent=False)
        self.register_buffer("low_waves", waves[low], persistent=False)
        self.register_buffer("planes", torch.tensor(YCBCR).reshape(3, 3, 1, 1), persistent=False)
"""

_ENERGIES: Final = '''
    def energies(self, x: torch.Tensor) -> torch.Tensor:
        """Pictures [N, 3, H, W] -> log energies of the blocks' frequencies [N, 381, rows, columns], about -2 to 2."""
        with torch.no_grad():
            planes, step = F.conv2d(x.float() / 255, self.planes), BLOCK // 2
            parts = [F.conv2d(planes[:, :1], self.waves, stride=step)]
            parts += [F.conv2d(planes[:, i : i + 1], self.low_waves, stride=step) for i in (1, 2)]
            # A logarithm: what tells is how the frequencies compare, and not how much contrast the picture has.
            return (torch.log(torch.cat(parts, dim=1).square() + 1e-5) + 7) / 2.5
'''

_PICTURES: Final[dict[str, object]] = {
    "imports": "\nimport math\n",
    "constants": "\nBLOCK = 16\nYCBCR = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))\n",
    "build": _WAVES,
    "more": _ENERGIES,
    "channels": 381,
    "widths": "(128, 1, 1), (64, 1, 1), (64, 1, 1)",
}

_FILL: Final[dict[Modality, dict[str, object]]] = {
    Modality.IMAGE: {
        **_PICTURES,
        "input": "uint8 [B, 3, H, W], RGB, 0 to 255",
        "about": "Energies of each block's frequencies, a small net on each block, mean and spread over the blocks.",
        "prepare": "        x = self.energies(x)",
        "combine": "",
    },
    Modality.VIDEO: {
        **_PICTURES,
        "input": "uint8 [B, T, 3, H, W], RGB, 0 to 255",
        "about": "Energies of each block's frequencies in every fourth frame, a small net on each; mean over frames.",
        "prepare": (
            "        x = x[:, ::4]\n        batch, frames = x.shape[:2]\n        x = self.energies(x.flatten(0, 1))"
        ),
        "combine": ".view(batch, frames, -1).mean(dim=1)",
    },
    Modality.AUDIO: {
        "imports": "",
        "constants": "",
        "build": "",
        "more": "",
        "channels": 1,
        "widths": "(24, 5, 2), (48, 3, 2), (64, 3, 2)",
        "input": "float32 [B, samples], -1 to 1, mono",
        "about": "Convolutions over the logarithm of a spectrogram.",
        "prepare": (
            "        window = torch.hann_window(512, device=x.device)\n"
            "        spectrum = torch.stft(x.float(), 512, 256, window=window, return_complex=True)\n"
            "        x = torch.log(spectrum.abs() + 1e-4).unsqueeze(1)\n"
            "        # Loudness must not tell the classes apart.\n"
            "        x = x - x.mean(dim=(2, 3), keepdim=True)"
        ),
        "combine": "",
    },
}
_PICTURE_LAYERS: Final = (381, ((128, 1), (64, 1), (64, 1)))
_LAYERS: Final = {
    Modality.IMAGE: _PICTURE_LAYERS,
    Modality.VIDEO: _PICTURE_LAYERS,
    Modality.AUDIO: (1, ((24, 5), (48, 3), (64, 3))),
}
"""Channels that go in, and width and kernel of the scaffold's convolutions."""


def create(folder: Path, name: str, modality: Modality, format: str = "safetensors", seed: int = 0) -> tuple[Path, ...]:
    """Write a new package's files.

    Args:
        folder: Where to; made when it isn't there, and must be empty.
        name: The model's name: letters, digits, ``_`` and ``-``.
        modality: What it shall look at.
        format: ``"safetensors"`` or ``"onnx"``.
        seed: Seed of the untrained weights.

    Returns:
        The files, in the order of their names.

    Raises:
        gas.errors.ConfigurationError: The name or the format isn't possible, or the folder is not empty.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError("A model's name is made of 1 to 100 letters, digits, '_' or '-'.")
    if format not in FORMATS:
        raise ConfigurationError(f"The format must be {' or '.join(FORMATS)}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigurationError(f"The folder {folder.name} is not empty.", hint="Choose a new one.")
        files = _onnx(name, modality, seed) if format == "onnx" else _safetensors(name, modality, seed)
        for file, data in files.items():
            (folder / file).write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"The folder {folder.name} can't be written: {error.strerror}.") from error
    return tuple(folder / file for file in sorted(files))


def _safetensors(name: str, modality: Modality, seed: int) -> dict[str, bytes]:
    from safetensors.numpy import save

    config = _CONFIG.format(name=name, modality=modality, preprocessing=_PREPROCESSING[modality])
    code = _CODE.format(modality=modality, **_FILL[modality])
    return {
        "model_config.yaml": config.encode(),
        "model.py": code.encode(),
        "model.safetensors": save(_network(modality, seed)),
    }


def _network(modality: Modality, seed: int) -> dict[str, NDArray[np.generic]]:
    """Untrained weights of the safetensors scaffold."""
    rng, (before, layers) = np.random.default_rng(seed), _LAYERS[modality]
    tensors: dict[str, NDArray[np.generic]] = {}
    for number, (width, kernel) in enumerate(layers):
        scale = np.sqrt(2.0 / (before * kernel * kernel))
        values = rng.normal(size=(width, before, kernel, kernel)) * scale
        tensors[f"layers.{3 * number}.weight"] = values.astype(np.float32)
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"layers.{3 * number + 1}.{name}"] = np.full(width, value, np.float32)
        tensors[f"layers.{3 * number + 1}.num_batches_tracked"] = np.zeros((), np.int64)
        before = width
    tensors["head.weight"] = (rng.normal(size=(2, 2 * before)) * 0.1).astype(np.float32)
    tensors["head.bias"] = np.zeros(2, np.float32)
    return tensors


def _weights(modality: Modality, seed: int) -> dict[str, NDArray[np.float32]]:
    """Untrained weights of the ONNX scaffold."""
    kernel = (3,) if modality is Modality.AUDIO else (3, 3)
    channels = 1 if modality is Modality.AUDIO else 3
    shapes: dict[str, tuple[int, ...]] = {
        "first.weight": (_WIDTH, channels, *kernel),
        "first.bias": (_WIDTH,),
        "second.weight": (_WIDTH, _WIDTH, *kernel),
        "second.bias": (_WIDTH,),
        "head.weight": (2, _WIDTH),
        "head.bias": (2,),
    }
    rng = np.random.default_rng(seed)
    return {name: (rng.normal(size=shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}


def _onnx(name: str, modality: Modality, seed: int) -> dict[str, bytes]:
    from onnx import TensorProto, checker, helper, numpy_helper

    weights = _weights(modality, seed)
    audio, video = modality is Modality.AUDIO, modality is Modality.VIDEO
    pads, strides = ([1, 1], [4]) if audio else ([1, 1, 1, 1], [2, 2])
    shape: list[object] = {
        Modality.IMAGE: ["batch", 3, 224, 224],
        Modality.VIDEO: ["batch", 16, 3, 224, 224],
        Modality.AUDIO: ["batch", 96_000],
    }[modality]
    tensors = {
        **weights,
        "head.weight": np.ascontiguousarray(weights["head.weight"].T),
        "scale": np.array(127.5, np.float32),
        "one": np.array(1.0, np.float32),
        "inner": np.array([-1, 1, 96_000] if audio else [-1, 3, 224, 224], np.int64),
        "outer": np.array([-1, 16, _WIDTH] if video else [-1, 1, _WIDTH], np.int64),
    }
    steps = [
        ("Cast", ["media"], "numbers", {"to": TensorProto.FLOAT}),
        ("Div", ["numbers", "scale"], "scaled", {}),
        ("Sub", ["scaled", "one"], "centred", {}),
        ("Reshape", ["numbers" if audio else "centred", "inner"], "maps", {}),
        ("Conv", ["maps", "first.weight", "first.bias"], "c1", {"pads": pads, "strides": strides}),
        ("Relu", ["c1"], "r1", {}),
        ("Conv", ["r1", "second.weight", "second.bias"], "c2", {"pads": pads, "strides": strides}),
        ("Relu", ["c2"], "r2", {}),
        ("ReduceMean", ["r2"], "pooled", {"axes": [2] if audio else [2, 3], "keepdims": 0}),
        ("Reshape", ["pooled", "outer"], "parts", {}),
        ("ReduceMean", ["parts"], "features", {"axes": [1], "keepdims": 0}),
        ("Gemm", ["features", "head.weight", "head.bias"], "logits", {}),
    ]
    if audio:
        steps = [step for step in steps if step[2] not in ("scaled", "centred")]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output], **options) for operator, inputs, output, options in steps],
        name,
        [helper.make_tensor_value_info("media", TensorProto.FLOAT if audio else TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, key) for key, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, model_version=1)
    checker.check_model(model)
    return {f"{name}.onnx": bytes(model.SerializeToString())}
