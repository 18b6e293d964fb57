"""The number of files in a model's private folders: bubblewrap limits their bytes only."""

from __future__ import annotations

import numpy as np
import pytest

from gas.errors import ModelFailed
from gas.sandbox import Limits

LIMITS = Limits(memory_bytes=2**30, tmp_files=500)

MAKES_FILES = """
import os, time
import torch

class Model(torch.nn.Module):
    def __init__(self, folder, count):
        self.folder, self.count = folder, count

    def forward(self, batch):
        for number in range(self.count):
            os.close(os.open(f"{self.folder}/{number}", os.O_CREAT | os.O_WRONLY))
        time.sleep(1000 if self.count > 500 else 0)
        return torch.zeros(len(batch), 2)

def load_model(weights_path, num_classes, folder, count):
    return Model(folder, count)
"""


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_a_model_that_makes_too_many_files_is_stopped_and_told_where(folder, light, torch_package, batch):
    spec = torch_package(MAKES_FILES, params={"folder": folder, "count": 600})
    wanted = pytest.raises(ModelFailed, match=f"more than 500 files in {folder}")
    with wanted as caught, light.start(spec, batch_size=3, limits=LIMITS) as session:
        session.infer(batch)
    assert caught.value.error_code == "out_of_memory"


def test_a_model_may_make_as_many_files_as_allowed(light, torch_package, batch):
    spec = torch_package(MAKES_FILES, params={"folder": "/tmp", "count": 400})
    with light.start(spec, batch_size=3, limits=LIMITS) as session:
        for _ in range(3):
            np.testing.assert_array_equal(session.infer(batch), np.zeros((3, 2)))
