"""How the runner lays out a model's weights, and what happens to models that mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gas.sandbox.inside import models

pytest.importorskip("torch")

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 36, 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        HERE
        return self.head(y)


def load_model(weights_path, num_classes):
    return Net()
"""
BATCH = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)


def loaded(folder: Path, line: str) -> models.Model:
    folder.mkdir()
    (folder / "model.py").write_text(CODE.replace("HERE", line))
    config: dict[str, Any] = {
        "format": "safetensors",
        "model_folder": str(folder),
        "entry": "model.py",
        "weights_file": "none",
        "num_classes": 2,
        "params": {},
        "dtype": "float32",
        "device": "cpu",
        "batch_size": 5,
        "input_shape": [3, 8, 8],
        "input_dtype": "uint8",
    }
    return models.load(config)


FLAT = "y = self.conv(x.float() / 255).flatten(1)"
VIEWED = "y = self.conv(x.float() / 255).view(len(x), -1)"
PARTICULAR = "y = self.conv(x.float() / 255); assert y.is_contiguous(); y = y.flatten(1)"


def test_convolutions_have_their_channels_last(tmp_path: Path) -> None:
    last = "y = self.conv(x.float() / 255); y = y.flatten(1) + y.is_contiguous()"
    assert np.array_equal(loaded(tmp_path / "a", last)(BATCH), loaded(tmp_path / "b", FLAT)(BATCH))


@pytest.mark.parametrize("line", [VIEWED, PARTICULAR])
def test_a_model_that_relies_on_the_usual_order_answers_as_any_other(tmp_path: Path, line: str) -> None:
    expected = loaded(tmp_path / "flat", FLAT)(BATCH)
    model = loaded(tmp_path / "other", line)
    for samples in (5, 1, 4):
        assert np.allclose(model(BATCH[:samples]), expected[:samples], atol=1e-5)


def test_an_order_that_fails_only_in_a_later_batch_is_changed_then(tmp_path: Path) -> None:
    line = VIEWED.replace("view(len(x), -1)", "view(len(x) * 4, 36).reshape(len(x), -1)")
    model, expected = loaded(tmp_path / "other", line), loaded(tmp_path / "flat", FLAT)(BATCH)
    for samples in (1, 5):
        assert np.allclose(model(BATCH[:samples]), expected[:samples], atol=1e-5)


def test_a_model_that_fails_by_itself_is_not_asked_twice(tmp_path: Path) -> None:
    model = loaded(tmp_path / "a", FLAT + "\n        if self.calls == 2: raise RuntimeError('on purpose')")
    model(BATCH)
    with pytest.raises(RuntimeError, match="on purpose"):
        model(BATCH)
