"""Packages built on the spot, and the rungs to run them on."""

import sys
from pathlib import Path

import numpy as np
import pytest

from gas.sandbox import BubblewrapSandbox, ModelSpec, NamespaceSandbox, PlainSandbox, Tier

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from models.light import in_place_of_torch, write_light_site
from models.suite import OWN_ROOT, ROOT, find

SHAPE = (3, 4, 4)
WEIGHT = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.25]], dtype=np.float32)


@pytest.fixture
def expected():
    """What the honest models of these tests answer, computed here."""
    return lambda batch: batch.astype(np.float32).mean(axis=(2, 3)) @ WEIGHT.T


@pytest.fixture
def batch():
    """Three images of noise."""
    return np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="session")
def found():
    """One probe for all tests."""
    return find(ROOT)


@pytest.fixture(scope="session")
def isolating(found):
    """The isolating rung of this machine; skips where there is none."""
    if found.tier < Tier.BUBBLEWRAP:
        pytest.skip(f"This machine can't isolate: {found.reasons[Tier.BUBBLEWRAP]}")
    return BubblewrapSandbox(found.executable, groups=found.groups)


@pytest.fixture(scope="session")
def found_without_bubblewrap():
    """One probe for all tests, as on a machine that has no bubblewrap."""
    return find(OWN_ROOT)


@pytest.fixture(scope="session")
def own(found_without_bubblewrap):
    """The rung of our own name spaces; skips where the kernel gives none."""
    found = found_without_bubblewrap
    if found.tier < Tier.NAMESPACES:
        pytest.skip(f"This machine can't isolate: {found.reasons[Tier.NAMESPACES]}")
    return NamespaceSandbox(groups=found.groups)


@pytest.fixture
def light(found, isolating, tmp_path_factory):
    """The isolating rung, with a few lines in place of torch inside."""
    with in_place_of_torch(write_light_site(tmp_path_factory.mktemp("light"))):
        yield BubblewrapSandbox(found.executable, groups=found.groups)


@pytest.fixture(params=["plain", "isolating"])
def rung(request):
    """Each rung in turn."""
    return PlainSandbox() if request.param == "plain" else request.getfixturevalue("isolating")


@pytest.fixture
def torch_package(tmp_path):
    """Writes model.py and weights into a folder that only its owner may enter; returns the spec."""
    from safetensors.numpy import save_file

    def build(code, *, num_classes=2, params=None, dtype="float32", shape=SHAPE, input_dtype="uint8"):
        folder = tmp_path / f"package{len(list(tmp_path.iterdir()))}"
        folder.mkdir(mode=0o700)
        (folder / "model.py").write_text(code)
        save_file({"weight": WEIGHT}, folder / "model.safetensors")
        (folder / "model.safetensors").chmod(0o600)
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
def next_model_works(onnx_package, batch, expected):
    """Asserts that an honest model runs right after whatever happened before."""

    def check(sandbox):
        with sandbox.start(onnx_package(), batch_size=3) as session:
            np.testing.assert_allclose(session.infer(batch), expected(batch), rtol=1e-5)

    return check
