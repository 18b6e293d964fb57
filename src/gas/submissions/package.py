"""What a package is: its files, and what its configuration says.

Two forms: one ``.onnx`` file; or ``model_config.yaml``, ``model.py`` and one ``.safetensors`` file, with an
optional ``config.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from gas.errors import Reason
from gas.sandbox.base import ModelSpec
from gas.submissions.limits import Limits
from gas.submissions.onnx_check import OnnxModel
from gas.submissions.yaml_tree import Node, YamlRefused, parse_yaml
from gas.types import Modality

__all__ = [
    "CODE",
    "CONFIG",
    "EXTRA_CONFIG",
    "Layout",
    "Package",
    "Preprocessing",
    "layout",
    "onnx_package",
    "read_config",
]

CONFIG: Final = "model_config.yaml"
CODE: Final = "model.py"
EXTRA_CONFIG: Final = "config.json"
_NAME: Final = (re.compile(r"[A-Za-z0-9_-]{1,100}"), "1 to 100 letters, digits, '_' or '-'")
_VERSION: Final = (re.compile(r"[A-Za-z0-9._+-]{1,50}"), "1 to 50 letters, digits, '.', '_', '+' or '-'")
_DTYPES: Final = {
    "float32": "float32",
    "fp32": "float32",
    "float16": "float16",
    "fp16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}
_TOP_KEYS: Final = frozenset({"name", "version", "modality", "dtype", "preprocessing", "model"})
_PREPROCESSING_KEYS: Final = {
    Modality.IMAGE: frozenset({"resize"}),
    Modality.VIDEO: frozenset({"resize", "num_frames", "frame_rate"}),
    Modality.AUDIO: frozenset({"sample_rate", "duration_seconds"}),
}
_MODEL_KEYS: Final = frozenset({"num_classes", "weights_file", "classes"})
_RESERVED: Final = frozenset({"weights_path", "self"})
_MAX_SIDE: Final = 4096
_MAX_FRAMES: Final = 512
_MAX_SAMPLE_BYTES: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a medium becomes the model's input.

    Attributes:
        resize: Height and width in pixels; None for audio.
        num_frames: Frames of a video; None for others.
        frame_rate: Frames a second at which a video is sampled from its start; None takes the first consecutive.
        sample_rate: Hz; None for image and video.
        duration_seconds: Length of an audio sample; None for image and video.
    """

    resize: tuple[int, int] | None = None
    num_frames: int | None = None
    frame_rate: float | None = None
    sample_rate: int | None = None
    duration_seconds: float | None = None

    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (3, H, W), (T, 3, H, W) or (samples,)."""
        if self.resize is None:
            return (round((self.sample_rate or 0) * (self.duration_seconds or 0.0)),)
        image = (3, *self.resize)
        return image if self.num_frames is None else (self.num_frames, *image)


@dataclass(frozen=True, slots=True)
class Package:
    """A checked package's own statement about itself.

    Attributes:
        name: The model's name.
        version: As the author wrote it.
        modality: What the model looks at.
        format: ``"onnx"`` or ``"safetensors"``.
        entry: The ``.onnx`` file's name, or ``model.py``.
        weights_file: The safetensors file's name; None for ONNX.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        preprocessing: How media become input.
        num_classes: Width of the answer, 1 to 100.
        classes: Names of the classes, as many as ``num_classes``; None when not given.
        params: Further arguments of ``load_model``; plain JSON values.
    """

    name: str
    version: str
    modality: Modality
    format: str
    entry: str
    weights_file: str | None
    dtype: str
    preprocessing: Preprocessing
    num_classes: int
    classes: tuple[str, ...] | None = None
    params: dict[str, object] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (3, H, W), (T, 3, H, W) or (samples,)."""
        return self.preprocessing.input_shape()

    @property
    def input_dtype(self) -> str:
        """``"uint8"`` for pixels, ``"float32"`` for sound."""
        return "float32" if self.modality is Modality.AUDIO else "uint8"

    def to_spec(self, folder: Path) -> ModelSpec:
        """What the sandbox must know to run the package.

        Args:
            folder: Where the package lies unpacked and checked.
        """
        return ModelSpec(
            folder=folder,
            format=self.format,
            entry=self.entry,
            weights_file=self.weights_file,
            input_shape=self.input_shape,
            input_dtype=self.input_dtype,
            num_classes=self.num_classes,
            dtype=self.dtype,
            params=dict(self.params),
            input_rate=self.preprocessing.sample_rate or self.preprocessing.frame_rate,
        )

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "name": self.name,
            "version": self.version,
            "modality": str(self.modality),
            "format": self.format,
            "dtype": self.dtype,
            "input_shape": list(self.input_shape),
            "input_dtype": self.input_dtype,
            "num_classes": self.num_classes,
            "classes": list(self.classes) if self.classes else None,
            "weights_file": self.weights_file,
            "params": self.params,
        }


@dataclass(frozen=True, slots=True)
class Layout:
    """Which files play which part.

    Attributes:
        format: ``"onnx"``, ``"safetensors"``, or None when the files fit neither.
        weights: The ``.onnx`` or ``.safetensors`` file; None when there is none, or more than one.
        reasons: What is missing or too much.
    """

    format: str | None
    weights: str | None
    reasons: tuple[Reason, ...]


def layout(names: Iterable[str]) -> Layout:
    """Tell the form of a package by its files' names, which :func:`archive.expected_name` has let through."""
    present = sorted(names)
    onnx = [n for n in present if n.endswith(".onnx")]
    tensors = [n for n in present if n.endswith(".safetensors")]
    others = [n for n in present if n not in onnx and n not in tensors]
    found = []
    if onnx and (tensors or others):
        found += [
            Reason("mixed_formats", "An ONNX package holds its .onnx file and nothing else.", n)
            for n in [*others, *tensors]
        ]
    if len(onnx) > 1:
        found.append(Reason("several_models", f"One .onnx file is allowed; there are {len(onnx)}."))
    if onnx:
        return Layout("onnx", onnx[0] if len(onnx) == 1 else None, tuple(found))
    if not present:
        return Layout(None, None, (Reason("missing_file", "The package holds no model."),))
    hint = "A package is one .onnx file, or model_config.yaml, model.py and one .safetensors file."
    found += [Reason("missing_file", f"{n} is missing. {hint}", n) for n in (CONFIG, CODE) if n not in present]
    if not tensors:
        found.append(Reason("missing_file", f"The .safetensors file is missing. {hint}"))
    elif len(tensors) > 1:
        found.append(Reason("several_models", f"One .safetensors file is allowed; there are {len(tensors)}."))
    return Layout("safetensors", tensors[0] if len(tensors) == 1 else None, tuple(found))


def onnx_package(entry: str, model: OnnxModel) -> tuple[Package | None, tuple[Reason, ...]]:
    """The package that an ONNX file makes; its name is the file's.

    Args:
        entry: The ``.onnx`` file's name.
        model: What the file says about itself.
    """
    shape = model.input_shape
    if model.modality is Modality.AUDIO:
        rate = 16_000
        steps = Preprocessing(sample_rate=rate, duration_seconds=shape[0] / rate)
    else:
        steps = Preprocessing(
            resize=(shape[-2], shape[-1]), num_frames=shape[0] if model.modality is Modality.VIDEO else None
        )
    if message := _oversize(steps):
        return None, (Reason("onnx_input", message, entry),)
    name = re.sub(r"[^A-Za-z0-9_-]", "-", entry.removesuffix(".onnx"))[:100] or "model"
    package = Package(name, model.version, model.modality, "onnx", entry, None, "float32", steps, model.num_classes)
    return package, ()


def read_config(data: bytes, weights: str | None, limits: Limits | None = None) -> tuple[Package | None, list[Reason]]:
    """Read ``model_config.yaml``.

    Args:
        data: Its bytes.
        weights: Name of the package's safetensors file, where there is exactly one.
        limits: ``config_bytes`` is asked.

    Returns:
        The package, or None with the findings; never raises for what the file holds.
    """
    try:
        root = parse_yaml(data, CONFIG, max_bytes=(limits or Limits()).config_bytes)
    except YamlRefused as refused:
        return None, [refused.reason]
    reader = _ConfigReader()
    package = reader.package(root, weights)
    return (None if reader.found else package), reader.found


class _ConfigReader:
    """Takes values out of the tree and collects what is wrong with them."""

    def __init__(self) -> None:
        self.found: list[Reason] = []

    def fail(self, line: int, message: str, code: str = "config_invalid") -> None:
        self.found.append(Reason(code, message, CONFIG, line))

    def package(self, root: Node, weights: str | None) -> Package | None:
        top = self.table(root, "the file")
        for key in sorted(top.keys() - _TOP_KEYS):
            self.fail(top[key].line, f"Unknown key {key[:80]!r}; known are {', '.join(sorted(_TOP_KEYS))}.")
        name = self.word(root, top, "name", _NAME)
        version = self.word(root, top, "version", _VERSION)
        modality = self.modality(root, top)
        dtype = self.dtype(top)
        model = self.section(top, "model")
        steps_table = self.section(top, "preprocessing")
        num_classes = self.integer(model, "num_classes", 1, 100, 2)
        classes = self.classes(model, num_classes)
        weights_file = self.weights_file(model, weights)
        if modality is None:
            return None
        steps = self.steps(steps_table, modality, top.get("preprocessing", root).line)
        params = self.params(model, steps_table, modality)
        return Package(
            name, version, modality, "safetensors", CODE, weights_file, dtype, steps, num_classes, classes, params
        )

    def table(self, node: Node, what: str) -> dict[str, Node]:
        if isinstance(node.value, dict):
            return cast("dict[str, Node]", node.value)
        self.fail(node.line, f"{what.capitalize()} must be a table of keys and values.")
        return {}

    def section(self, top: dict[str, Node], key: str) -> dict[str, Node]:
        node = top.get(key)
        return {} if node is None or node.value is None else self.table(node, key)

    def word(self, root: Node, top: dict[str, Node], key: str, rule: tuple[re.Pattern[str], str]) -> str:
        node = top.get(key)
        if node is None:
            self.fail(root.line, f"The key {key!r} is missing.", "config_missing")
            return ""
        # The text as written, so that version 1.0 stays "1.0" and not a number.
        if isinstance(node.value, (dict, list)) or not rule[0].fullmatch(node.text):
            self.fail(node.line, f"{key} must be {rule[1]}.")
        return node.text

    def modality(self, root: Node, top: dict[str, Node]) -> Modality | None:
        node = top.get("modality")
        if node is None:
            self.fail(root.line, "The key 'modality' is missing.", "config_missing")
            return None
        if node.value not in list(Modality):
            self.fail(node.line, "modality must be image, video or audio.", "wrong_modality")
            return None
        return Modality(str(node.value))

    def dtype(self, top: dict[str, Node]) -> str:
        node = top.get("dtype")
        if node is None:
            return "float32"
        if not isinstance(node.value, str) or node.value not in _DTYPES:
            self.fail(node.line, "dtype must be float32, float16 or bfloat16.")
            return "float32"
        return _DTYPES[node.value]

    def integer(self, table: dict[str, Node], key: str, low: int, high: int, default: int) -> int:
        node = table.get(key)
        if node is None:
            return default
        if type(node.value) is not int or not low <= node.value <= high:
            self.fail(node.line, f"{key} must be a whole number from {low} to {high}.")
            return default
        return node.value

    def number(self, table: dict[str, Node], key: str, low: float, high: float) -> float | None:
        node = table.get(key)
        if node is None or node.value is None:
            return None
        if type(node.value) not in (int, float) or not low <= cast("float", node.value) <= high:
            self.fail(node.line, f"{key} must be a number from {low:g} to {high:g}.")
            return None
        return float(cast("float", node.value))

    def classes(self, model: dict[str, Node], num_classes: int) -> tuple[str, ...] | None:
        node = model.get("classes")
        if node is None or node.value is None:
            return None
        items = node.value if isinstance(node.value, list) else []
        names = tuple(item.text for item in items if isinstance(item.value, str) and len(item.text) <= 100)
        if len(names) != num_classes or len(items) != num_classes:
            self.fail(node.line, f"classes must be a list of {num_classes} short names, as num_classes says.")
        return names

    def weights_file(self, model: dict[str, Node], weights: str | None) -> str:
        node = model.get("weights_file")
        name = node.value if node is not None else "model.safetensors"
        if not isinstance(name, str) or (weights is not None and name != weights):
            line = node.line if node is not None else 1
            self.fail(line, f"weights_file is {str(name)[:80]!r}, but the package holds {weights!r}.", "weights_name")
        return weights or str(name)

    def steps(self, table: dict[str, Node], modality: Modality, line: int) -> Preprocessing:
        if modality is Modality.AUDIO:
            rate = self.integer(table, "sample_rate", 1000, 192_000, 16_000)
            duration = self.number(table, "duration_seconds", 0.01, 600)
            steps = Preprocessing(sample_rate=rate, duration_seconds=6.0 if duration is None else duration)
        else:
            frames = rate_fps = None
            if modality is Modality.VIDEO:
                frames = self.integer(table, "num_frames", 1, _MAX_FRAMES, 16)
                rate_fps = self.number(table, "frame_rate", 0.01, 240)
            steps = Preprocessing(resize=self.resize(table, line), num_frames=frames, frame_rate=rate_fps)
        if message := _oversize(steps):
            self.fail(line, message)
        return steps

    def resize(self, table: dict[str, Node], line: int) -> tuple[int, int]:
        node = table.get("resize")
        if node is None:
            self.fail(line, "preprocessing needs resize: [H, W].", "config_missing")
            return 224, 224
        value = node.plain()
        if isinstance(value, list) and len(value) == 2 and all(type(v) is int and 1 <= v <= _MAX_SIDE for v in value):
            return value[0], value[1]
        self.fail(node.line, f"resize must be [H, W] with whole numbers from 1 to {_MAX_SIDE}.")
        return 224, 224

    def params(self, model: dict[str, Node], steps: dict[str, Node], modality: Modality) -> dict[str, object]:
        params: dict[str, object] = {}
        for table, known in ((steps, _PREPROCESSING_KEYS[modality]), (model, _MODEL_KEYS)):
            for key, node in table.items():
                if key in known:
                    continue
                if key in params or key in _RESERVED or key in _MODEL_KEYS or not key.isidentifier():
                    self.fail(node.line, f"{key[:80]!r} can't be handed to load_model: the name is taken or no name.")
                params[key] = node.plain()
        return params


def _oversize(steps: Preprocessing) -> str | None:
    shape = steps.input_shape()
    count = 4 if steps.resize is None else 1
    for size in shape:
        count *= size
    if steps.resize is not None and max(steps.resize) > _MAX_SIDE:
        return f"Height and width can have {_MAX_SIDE} pixels at most."
    if min(shape) < 1 or not 0 < count <= _MAX_SAMPLE_BYTES:
        return f"One sample would have {count} bytes; allowed are 1 to {_MAX_SAMPLE_BYTES}."
    return None
