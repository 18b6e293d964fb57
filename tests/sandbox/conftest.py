"""Packages built on the spot, and the rungs to run them on."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gas.errors import SandboxUnavailable
from gas.sandbox import BubblewrapSandbox, ModelSpec, PlainSandbox, Tier, probe

SHAPE = (3, 4, 4)
WEIGHT = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.25]], dtype=np.float32)


def expected_logits(batch):
    """What the honest models of these tests answer."""
    return batch.astype(np.float32).mean(axis=(2, 3)) @ WEIGHT.T


@pytest.fixture(scope="session")
def found():
    """One probe for all tests."""
    return probe()


@pytest.fixture(scope="session")
def isolating(found):
    """The isolating rung of this machine; skips where there is none."""
    if found.tier < Tier.BUBBLEWRAP:
        pytest.skip(f"This machine can't isolate: {found.reasons[Tier.BUBBLEWRAP]}")
    return BubblewrapSandbox(found.executable)


@pytest.fixture(params=["plain", "isolating"])
def rung(request):
    """Each rung in turn."""
    return PlainSandbox() if request.param == "plain" else request.getfixturevalue("isolating")


@pytest.fixture
def torch_package(tmp_path):
    """Writes model.py and weights; returns the spec."""
    from safetensors.numpy import save_file

    count = 0

    def build(code, *, num_classes=2, params=None, dtype="float32", shape=SHAPE, input_dtype="uint8"):
        nonlocal count
        count += 1
        folder = tmp_path / f"package{count}"
        folder.mkdir(mode=0o700)
        (folder / "model.py").write_text(code)
        save_file({"weight": WEIGHT}, folder / "model.safetensors")
        return ModelSpec(
            folder, "safetensors", "model.py", "model.safetensors", shape, input_dtype, num_classes, dtype, params or {}
        )

    return build


@pytest.fixture
def onnx_package(tmp_path):
    """Writes a graph that averages each channel and multiplies; returns the spec."""
    from onnx import TensorProto, helper, numpy_helper, save

    def build(num_classes=2):
        folder = tmp_path / "graph"
        folder.mkdir(exist_ok=True)
        nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        ]
        graph = helper.make_graph(
            nodes,
            "average",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *SHAPE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
            [numpy_helper.from_array(np.ascontiguousarray(WEIGHT.T), "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        save(model, folder / "model.onnx")
        return ModelSpec(folder, "onnx", "model.onnx", None, SHAPE, "uint8", num_classes)

    return build


@pytest.fixture
def next_model_works(onnx_package):
    """Asserts that an honest model runs right after whatever happened before."""

    def check(sandbox):
        batch = images(2)
        try:
            with sandbox.start(onnx_package(), batch_size=2) as session:
                np.testing.assert_allclose(session.infer(batch), expected_logits(batch), rtol=1e-5)
        except SandboxUnavailable as error:
            pytest.fail(f"The machine did not recover: {error}")

    return check


def images(count, seed=0):
    """A batch of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture
def batch():
    """Three images."""
    return images(3)


@pytest.fixture
def expected():
    """The honest answer as a function."""
    return expected_logits


def load_hostile_model():
    """The module of attacks, read but not run."""
    path = Path(__file__).with_name("hostile_model.py")
    spec = importlib.util.spec_from_file_location("hostile_model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


@pytest.fixture(scope="session")
def hostile():
    """Path of the hostile model.py and the names of its attacks."""
    path, module = load_hostile_model()
    return path, [attack.__name__ for attack in module.ATTACKS]
