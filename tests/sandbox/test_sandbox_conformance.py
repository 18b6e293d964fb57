"""What every rung must do for honest models."""

from pathlib import Path

import numpy as np
import pytest

from gas.errors import ModelFailed, SandboxUnavailable
from gas.sandbox import Limits, PlainSandbox
from gas.sandbox.base import DEFAULT_LIMITS, Environment
from gas.sandbox.spares import Spares

HONEST = """
import torch
from safetensors.torch import load_file

class Answer:
    def __init__(self, logits):
        self.logits = logits

class Average(torch.nn.Module):
    FORMS = [
        lambda x: x, Answer, lambda x: {"logits": x}, lambda x: {"output": x}, lambda x: (x,), lambda x: x.double(),
    ]

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(weight)
        self.turn = -1

    def forward(self, batch):
        self.turn += 1
        assert not self.training and not torch.is_grad_enabled()
        logits = batch.float().mean((2, 3)) @ self.weight.T
        batch.zero_()  # works in place
        return self.FORMS[self.turn % len(self.FORMS)](logits)

def load_model(weights_path, num_classes=2):
    assert num_classes == 2
    return Average(load_file(weights_path)["weight"])
"""

TELLS = """
import os
import torch

class Tells(torch.nn.Module):
    def __init__(self, facts):
        super().__init__()
        self.facts = facts

    def forward(self, audio):
        product = torch.ones(1, 1) @ torch.ones(1, 1)
        facts = [*self.facts, float(product.dtype is torch.bfloat16), torch.get_num_threads(), float("nan"),
                 float("inf"), audio[0, 0].item()]
        return torch.tensor([facts])

def load_model(weights_path, num_classes, offset, nested):
    os.environ["OMP_NUM_THREADS"]
    return Tells([offset, len(nested["list"]), num_classes])
"""


class EachInASpare:
    """Gives every model to a process that waited for it."""

    def __init__(self, spares):
        self.tier, self.spares = spares.tier, spares

    def start(self, spec, *, limits=DEFAULT_LIMITS, threads=1, **rest):
        self.spares.prepare(Environment.of(spec, limits, threads))
        return self.spares.start(spec, limits=limits, threads=threads, **rest)


@pytest.fixture(params=["plain", "isolating", "spares"])
def rung(request, tmp_path_factory):
    """Each rung in turn, and the isolating one with processes that wait."""
    if request.param == "plain":
        yield PlainSandbox()
        return
    isolating = request.getfixturevalue("isolating")
    if request.param == "isolating":
        yield isolating
        return
    with Spares(isolating, refill=False, folder=tmp_path_factory.mktemp("spares"), least_free=0) as spares:
        yield EachInASpare(spares)


def test_an_onnx_model_answers_as_in_process(rung, onnx_package, batch, expected):
    import onnxruntime

    spec = onnx_package()
    with rung.start(spec, batch_size=4) as session:
        assert session.tier is rung.tier
        logits = session.infer(batch)
        one = session.infer(batch[2:])
    direct = onnxruntime.InferenceSession(spec.folder / spec.entry).run(None, {"image": batch})[0]
    np.testing.assert_array_equal(logits, direct)
    np.testing.assert_allclose(logits, expected(batch), rtol=1e-5)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(one, expected(batch[2:]), rtol=1e-5)


def test_a_safetensors_model_may_answer_in_every_agreed_form_and_work_in_place(rung, torch_package, batch, expected):
    with rung.start(torch_package(HONEST), batch_size=3) as session:
        for _ in range(6):
            np.testing.assert_allclose(session.infer(batch), expected(batch), rtol=1e-5)


def test_parameters_dtype_threads_and_special_values_pass_through(rung, torch_package):
    spec = torch_package(
        TELLS,
        num_classes=8,
        dtype="bfloat16",
        shape=(5,),
        input_dtype="float32",
        params={"offset": 0.25, "nested": {"list": [1, None, "x"]}},
    )
    with rung.start(spec, batch_size=1, threads=2) as session:
        answer = session.infer(np.full((1, 5), 0.5, dtype=np.float32))
    np.testing.assert_array_equal(answer, [[0.25, 3, 8, 1, 2, np.nan, np.inf, 0.5]])


def test_two_sessions_live_side_by_side(rung, onnx_package, batch, expected):
    spec = onnx_package()
    with rung.start(spec, batch_size=3) as first, rung.start(spec, batch_size=3) as second:
        other = 255 - batch
        for _ in range(3):
            np.testing.assert_allclose(first.infer(batch), expected(batch), rtol=1e-5)
            np.testing.assert_allclose(second.infer(other), expected(other), rtol=1e-5)
        first.close()
        np.testing.assert_allclose(second.infer(batch), expected(batch), rtol=1e-5)


def test_a_batch_of_another_form_than_agreed_is_refused_without_harm(rung, onnx_package, batch, expected):
    with rung.start(onnx_package(), batch_size=2) as session:
        for wrong in (batch, batch[:0], batch[:2].astype(np.float32), batch[:2, :, :3]):
            with pytest.raises(ValueError, match="batch must have"):
                session.infer(wrong)
        np.testing.assert_allclose(session.infer(batch[:2]), expected(batch[:2]), rtol=1e-5)


def test_a_closed_session_says_so_and_leaves_no_descriptor_behind(rung, onnx_package, batch):
    rung.start(onnx_package(), batch_size=3).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    session = rung.start(onnx_package(), batch_size=3)
    session.close()
    session.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        session.infer(batch)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_nonsense_from_the_caller_is_not_the_models_fault(rung, onnx_package):
    with pytest.raises(ValueError, match="at least 1"):
        rung.start(onnx_package(), batch_size=0)
    spec = onnx_package()
    (spec.folder / spec.entry).unlink()
    spec.folder.rmdir()
    with pytest.raises(SandboxUnavailable):
        rung.start(spec, batch_size=1)


def test_parameters_that_are_not_json_are_the_authors_fault(rung, torch_package):
    with pytest.raises(ModelFailed, match="plain JSON") as caught:
        rung.start(torch_package(HONEST, params={"x": float("nan")}), batch_size=1)
    assert caught.value.error_code == "load_failed"


def test_limits_too_small_for_the_runner_itself_are_our_fault(rung, onnx_package):
    with pytest.raises(SandboxUnavailable):
        rung.start(onnx_package(), batch_size=1, limits=Limits(memory_bytes=16 * 2**20))
