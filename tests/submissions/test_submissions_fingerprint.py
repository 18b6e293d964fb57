"""Copies are recognised, originals are not accused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from good_packages import onnx_model, safetensors_bytes

from gas.submissions.fingerprint import code_sha256, onnx_weights, tensor_weights
from gas.submissions.sketch import TensorSketch, distance

Weights = dict[str, np.ndarray]


def weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {
        "a": rng.normal(size=(64, 3, 7, 7)).astype(np.float32),
        "b": rng.normal(size=(128, 64)).astype(np.float32),
        "c": rng.normal(size=(128, 64)).astype(np.float32) * 0.01,
        "norm": np.ones(512, np.float32),
    }


def sketches(tmp_path: Path, tensors: Weights) -> tuple[TensorSketch, ...]:
    return hashed(tmp_path, tensors)[1]


def hashed(tmp_path: Path, tensors: Weights) -> tuple[str, tuple[TensorSketch, ...]]:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    return tensor_weights(path)


def noisy(tensors: Weights) -> Weights:
    rng = np.random.default_rng(99)
    return {n: (t + rng.normal(size=t.shape) * t.std() * 0.02).astype(np.float32) for n, t in tensors.items()}


@pytest.mark.parametrize(
    "disguise",
    [
        lambda w: {f"model.{n}": t for n, t in w.items()},
        lambda w: {n: t.astype(np.float16) for n, t in w.items()},
        lambda w: {n: t * 3 for n, t in w.items()},
        lambda w: {n: t.reshape(-1) for n, t in w.items()},
        noisy,
    ],
    ids=["renamed", "half precision", "scaled", "reshaped", "small noise"],
)
def test_near_copies_are_near(tmp_path: Path, disguise) -> None:  # type: ignore[no-untyped-def]
    assert distance(sketches(tmp_path, weights(1)), sketches(tmp_path, disguise(weights(1)))) < 0.02


def test_other_models_are_far(tmp_path: Path) -> None:
    found = [
        distance(sketches(tmp_path, weights(a)), sketches(tmp_path, weights(b))) for a in range(6) for b in range(a)
    ]
    assert min(found) > 0.5


def test_distance_is_symmetric_and_zero_to_itself(tmp_path: Path) -> None:
    a, b = sketches(tmp_path, weights(1)), sketches(tmp_path, noisy(weights(1)))
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(a, a) == pytest.approx(0)
    assert distance(a, ()) == 1


def test_a_part_of_a_model_is_not_the_model(tmp_path: Path) -> None:
    part = {"a": weights(1)["a"]}
    assert distance(sketches(tmp_path, weights(1)), sketches(tmp_path, part)) > 0.4


def test_the_hash_of_weights_asks_for_names_dtypes_and_bytes_only(tmp_path: Path) -> None:
    base = weights(1)
    backwards = dict(reversed(base.items()))
    assert hashed(tmp_path, base)[0] == hashed(tmp_path, backwards)[0]
    changed = {**base, "b": base["b"] + np.float32(1e-3)}
    renamed = {("z" if n == "b" else n): t for n, t in base.items()}
    assert len({hashed(tmp_path, w)[0] for w in (base, changed, renamed)}) == 3


def test_weights_that_are_not_numbers_do_no_harm(tmp_path: Path) -> None:
    odd = {"a": np.full((512,), np.nan, np.float32), "b": np.full(512, 3e38, np.float32)}
    odd["c"] = np.array([np.inf, -np.inf] * 256, np.float32)
    assert distance(sketches(tmp_path, odd), sketches(tmp_path, weights(1))) == 1


def test_onnx_weights_have_the_same_hash_however_the_graph_is_saved(tmp_path: Path) -> None:
    def as_floats(model) -> None:  # type: ignore[no-untyped-def]
        tensor = model.graph.initializer[0]
        values = np.frombuffer(tensor.raw_data, np.float32)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.tolist())

    found = []
    for data in (onnx_model(), onnx_model(change=as_floats), onnx_model(opset=13)):
        (tmp_path / "m.onnx").write_bytes(data)
        found.append(onnx_weights(tmp_path / "m.onnx")[0])
    assert len(set(found)) == 1


def test_the_hash_of_code_ignores_comments_and_blank_lines_only() -> None:
    base = code_sha256(b"x = 1\ny = '# no comment'\n")
    assert base == code_sha256(b"# hello\nx = 1   # one\n\n\ny = '# no comment'  \n")
    assert base != code_sha256(b"x = 2\ny = '# no comment'\n")
    assert base != code_sha256(b"x = 1\ny = '# NO comment'\n")
    assert code_sha256(b"\xff\xfe") != code_sha256(b"((((")
