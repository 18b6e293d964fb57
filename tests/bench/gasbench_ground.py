"""Folders of small media of all three modalities, tiny models, and the command, for tests of gasbench."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gas.media.encode import encode_mp4, encode_wav
from gas.media.image import encode_png

SHAPES = {"image": (3, 32, 32), "video": (4, 3, 32, 32), "audio": (1600,)}


def mean_onnx(path, shape, scale, middle, kind="honest"):
    """Says fake where the input's mean (sound: its mean size) is above ``middle``.

    ``nan`` answers NaN whatever it sees; ``crash`` looks up a row that isn't there for the two glaring pictures;
    ``slow`` takes some ten milliseconds a sample, and batches of one; ``hungry`` asks for more memory than there is for
    the two glaring pictures.
    """
    element = TensorProto.FLOAT if len(shape) == 1 else TensorProto.UINT8
    axes = list(range(1, len(shape) + 1))
    constants = {
        "scale": np.array([[-scale, scale]], dtype=np.float32),
        "shift": np.array([scale * middle, -scale * middle], dtype=np.float32),
        "flat": np.array([-1, 1], dtype=np.int64),
        "axes": np.array(axes, dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Abs", ["float"], ["size"]),
        helper.make_node("ReduceMean", ["size", "axes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "flat"], ["column"]),
        helper.make_node("Gemm", ["column", "scale", "shift"], ["plain"]),
    ]
    if kind == "nan":
        # One of two opposite numbers has no root.
        nodes.append(helper.make_node("Sqrt", ["plain"], ["logits"]))
    elif kind == "crash":
        constants |= {
            "edge": np.array(212, dtype=np.float32),
            "table": np.zeros((1, 2), dtype=np.float32),
            "nine": np.array(9, dtype=np.int64),
        }
        nodes += [
            helper.make_node("ReduceMax", ["mean"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "edge"], ["high"]),
            helper.make_node("Cast", ["high"], ["index"], to=TensorProto.INT64),
            helper.make_node("Mul", ["index", "nine"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["found"], axis=0),
            helper.make_node("Add", ["plain", "found"], ["logits"]),
        ]
    elif kind == "hungry":
        constants |= {
            "edge": np.array(212, dtype=np.float32),
            "much": np.array([1 << 36], dtype=np.int64),
            "one": np.array([1], dtype=np.int64),
            "nought": np.array(0, dtype=np.float32),
        }
        nodes += [
            helper.make_node("ReduceMax", ["mean"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "edge"], ["high"]),
            helper.make_node("Where", ["high", "much", "one"], ["size_of_it"]),
            helper.make_node("Expand", ["nought", "size_of_it"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["plain", "nothing"], ["logits"]),
        ]
    elif kind == "slow":
        constants |= {
            "wide": np.array([600, 600], dtype=np.int64),
            "both": np.array([0, 1], dtype=np.int64),
            "nought": np.array(0, dtype=np.float32),
        }
        nodes += [
            helper.make_node("Expand", ["mean", "wide"], ["square"]),
            helper.make_node("MatMul", ["square", "square"], ["product"]),
            helper.make_node("ReduceMean", ["product", "both"], ["work"], keepdims=0),
            helper.make_node("Mul", ["work", "nought"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["logits"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("input", element, ["batch", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def models(folder: Path) -> dict[str, Path]:
    """One good model a modality, as a bare .onnx file."""
    return {
        modality: mean_onnx(
            folder / f"mean-{modality}.onnx", shape, *((8.0, 0.25) if modality == "audio" else (0.05, 127.0))
        )
        for modality, shape in SHAPES.items()
    }


def media(folder: Path, modality: str, count: int) -> None:
    """Real media dark or quiet, fakes bright or loud; a tenth of each is not, and two fakes are glaring."""
    rng = np.random.default_rng(3)
    for side in ("real", "fake"):
        (folder / f"{modality}-{side}").mkdir(parents=True)
        for number in range(count):
            high = (side == "fake") != (number % 10 == 9)
            path = folder / f"{modality}-{side}" / f"{number:03}"
            if modality == "audio":
                sound = rng.uniform(-1, 1, 1600).astype(np.float32) * (0.9 if high else 0.2)
                path.with_suffix(".wav").write_bytes(encode_wav(sound, 16_000))
                continue
            level = (190 if high else 60) + rng.integers(-12, 12) + 40 * (side == "fake" and number in (3, 7))
            frames = [np.clip(rng.normal(level, 15, (40, 48, 3)), 0, 255).astype(np.uint8) for _ in range(4)]
            if modality == "image":
                path.with_suffix(".png").write_bytes(encode_png(frames[0]))
            else:
                path.with_suffix(".mp4").write_bytes(encode_mp4(frames, 10.0, crf=30))


def registry(path: Path, modalities=("image", "video", "audio"), sides=("real", "fake"), extra="") -> Path:
    """A registry of the folders beside it."""
    rows = []
    for modality in modalities:
        for side in sides:
            media_type = "real" if side == "real" else "synthetic"
            rows.append(
                f"  - name: {path.stem}-{modality}-{side}\n    modality: {modality}\n    media_type: {media_type}\n"
                f"    source: folder\n    path: {modality}-{side}\n    licence: CC0-1.0\n"
                + ("    generator: diffusion\n" if side == "fake" else "")
                + extra
            )
    path.write_text("version: 1\ndatasets:\n" + "".join(rows))
    return path


class Command:
    """``gasbench`` in this process, with folders of its own."""

    def __init__(self, main, folder: Path, capsys) -> None:
        self.main, self.folder, self.capsys = main, folder, capsys
        self.err = ""

    def __call__(self, *words, code=0):
        import pytest

        with pytest.raises(SystemExit) as done:
            self.main([str(word) for word in words])
        captured = self.capsys.readouterr()
        self.err = captured.err
        assert (done.value.code or 0) == code, captured
        return captured.out

    def run(self, *words, code=0):
        """``gasbench run`` with the folders' options, as JSON."""
        places = ["--cache-dir", self.folder / "cache", "--results-dir", self.folder / "results", "--processes", "1"]
        return json.loads(self("run", *places, *words, "--json", code=code))


def arena_set(folder: Path, name: str, hotkeys) -> Path:
    """A week of bright pictures by some generators, below ``folder/NAME``; returns a registry of that set alone."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from gas.datasets.sources.arena import ShardManifest, ShardRecord, shard_schema
    from gas.storage.blobs import sha256_hex

    rows = []
    for number, hotkey in enumerate(hotkeys):
        data = encode_png(np.full((40, 48, 3), 180 + number, np.uint8))
        rows.append(
            dict.fromkeys(shard_schema().names)
            | {"bytes": data, "sha256": sha256_hex(data), "media_type": "synthetic", "modality": "image"}
            | {"mime": "image/png", "generator_hotkey": hotkey, "verified_at": 1_700_000_000_000}
        )
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=shard_schema()), out)
    week = folder / name / "2026-W46"
    week.mkdir(parents=True)
    (week / "data-00000.parquet").write_bytes(out.getvalue())
    record = ShardRecord(
        path="data-00000.parquet", size=len(out.getvalue()), sha256=sha256_hex(out.getvalue()), rows=len(rows)
    )
    (week / "manifest.json").write_text(ShardManifest(week=week.name, files=(record,)).model_dump_json())
    path = folder / f"{name}.yaml"
    path.write_text(
        f"version: 1\ndatasets:\n  - name: {name}\n    modality: image\n    media_type: synthetic\n"
        f"    source: arena\n    path: {name}\n    licence: CC0-1.0\n"
    )
    return path
