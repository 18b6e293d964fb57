"""A session takes a second batch while the model has one; answers come in order, and nothing is mixed up."""

from dataclasses import replace

import numpy as np
import pytest

from gas.errors import ModelFailed, SandboxUnavailable
from gas.sandbox import Limits

CODE = """
import os
import time
import torch

class Net(torch.nn.Module):
    def forward(self, batch):
        seen = int(numpy_of(batch).max())
        if seen == 250:
            os._exit(3)
        if seen == 251:
            time.sleep(0.7)
        return torch.zeros(len(batch), 2)

def numpy_of(batch):
    return batch.numpy()

def load_model(weights_path, num_classes):
    return Net()
"""


def flat(value, count=3):
    return np.full((count, 3, 4, 4), value, np.uint8)


def test_answers_come_in_the_order_of_the_batches(rung, onnx_package, expected):
    rng = np.random.default_rng(5)
    batches = [rng.integers(0, 256, (1 + k % 3, 3, 4, 4), dtype=np.uint8) for k in range(12)]
    answers = []
    with rung.start(onnx_package(), batch_size=3) as session:
        assert session.capacity == 2
        session.submit(batches[0])
        for following in batches[1:]:
            session.submit(following)
            answers.append(session.collect())
        answers.append(session.collect())
    for batch, answer in zip(batches, answers, strict=True):
        np.testing.assert_allclose(answer, expected(batch), rtol=1e-5)


def test_more_than_the_memory_holds_is_refused(rung, onnx_package, expected):
    with rung.start(onnx_package(), batch_size=3) as session:
        with pytest.raises(ValueError, match="No batch"):
            session.collect()
        session.submit(flat(1))
        session.submit(flat(2))
        with pytest.raises(ValueError, match="No more than 2"):
            session.submit(flat(3))
        with pytest.raises(ValueError, match="collected first"):
            session.infer(flat(3))
        for value in (1, 2):
            np.testing.assert_allclose(session.collect(), expected(flat(value)), rtol=1e-5)
        np.testing.assert_allclose(session.infer(flat(3)), expected(flat(3)), rtol=1e-5)


def test_a_crash_on_the_second_batch_leaves_the_first_ones_answer(light, torch_package):
    with light.start(torch_package(CODE), batch_size=3) as session:
        session.submit(flat(1))
        session.submit(flat(250))
        assert session.collect().shape == (3, 2)
        with pytest.raises(ModelFailed) as error:
            session.collect()
    assert error.value.error_code == "crashed"
    with pytest.raises(SandboxUnavailable):
        session.submit(flat(1))


def test_a_batch_has_its_whole_time_although_it_waited(light, torch_package):
    limits = replace(Limits(), batch_seconds=1.2)
    with light.start(torch_package(CODE), batch_size=3, limits=limits) as session:
        session.submit(flat(251))
        session.submit(flat(251))
        assert session.collect().shape == session.collect().shape == (3, 2)
