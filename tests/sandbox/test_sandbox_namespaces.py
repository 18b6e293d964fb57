"""The rung without bubblewrap: what a model sees there, what it may use, and that hostile ones are contained.

``make security`` runs the whole table on it; here are those that may share a process, under each kind of parent.
"""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from models.light import in_place_of_torch, write_light_site
from models.suite import OWN_ROOT, OWN_USER, chosen, here, run_on, shares

from gas.errors import ModelFailed
from gas.sandbox import Limits, NamespaceSandbox, Tier

HERE = here()
MINE = OWN_ROOT if os.geteuid() == 0 else OWN_USER
"""The rung of this process's user."""

pytestmark = pytest.mark.skipif(bool(HERE[MINE]), reason=HERE[MINE])

MODEL = """
import os
import torch

class Model(torch.nn.Module):
    def __init__(self, count):
        self.count = count

    def forward(self, batch):
        for number in range(self.count):
            os.close(os.open(f"/tmp/{number}", os.O_CREAT | os.O_WRONLY))
        return torch.zeros(len(batch), 2)

def load_model(weights_path, num_classes, count=0, tell=()):
    for folder in tell:
        print(folder, *sorted(os.listdir(folder)))
    if tell:
        print("user", os.getuid(), "process", os.getpid(), "host", os.uname().nodename, flush=True)
        os._exit(3)
    return Model(count)
"""


@pytest.fixture
def light_own(own, found_without_bubblewrap, tmp_path_factory):
    """The rung, with a few lines in place of torch inside."""
    with in_place_of_torch(write_light_site(tmp_path_factory.mktemp("light"))):
        yield NamespaceSandbox(groups=found_without_bubblewrap.groups)


def test_models_answer_as_on_the_other_rungs(own, onnx_package, batch, expected):
    with own.start(onnx_package(), batch_size=3) as session:
        assert session.tier in {Tier.NAMESPACES, Tier.NAMESPACES_CGROUP}
        np.testing.assert_allclose(session.infer(batch), expected(batch), rtol=1e-5)


def test_a_model_finds_only_its_package_and_empty_folders(light_own, torch_package):
    spec = torch_package(MODEL, params={"tell": ["/model", "/tmp", "/dev/shm"]})
    with pytest.raises(ModelFailed, match="code 3") as caught:
        light_own.start(spec, batch_size=1)
    told = caught.value.hint.splitlines()[1:]
    assert told[:3] == ["/model model.py model.safetensors", "/tmp", "/dev/shm"]
    user, process = map(int, re.fullmatch(r"user (\d+) process (\d+) host sandbox", told[3]).groups())
    assert process == 2
    assert user != 0


def test_a_model_has_exactly_as_many_files_as_allowed(light_own, torch_package, batch):
    limits = Limits(memory_bytes=2**30, tmp_files=50)
    with light_own.start(torch_package(MODEL, params={"count": 50}), batch_size=3, limits=limits) as session:
        np.testing.assert_array_equal(session.infer(batch), np.zeros((3, 2)))
    with light_own.start(torch_package(MODEL, params={"count": 51}), batch_size=3, limits=limits) as session:
        with pytest.raises(ModelFailed, match="No space left on device") as caught:
            session.infer(batch)
        assert caught.value.error_code == "crashed"


def test_a_folder_that_can_not_be_shown_is_our_fault_in_the_launcher_s_words(own, onnx_package, monkeypatch):
    from gas.errors import SandboxUnavailable

    monkeypatch.setattr("gas.sandbox.namespaces.DEVICES", ("/dev/null", "/dev/no-such-device"))
    with pytest.raises(SandboxUnavailable) as caught:
        own.start(onnx_package(), batch_size=1)
    assert "launcher: mount on /new/dev/no-such-device failed" in f"{caught.value.message} {caught.value.hint}"


def test_hostile_models_are_contained():
    assert holes(MINE) == []


@pytest.mark.skipif(MINE != OWN_ROOT or bool(HERE[OWN_USER]), reason="only root can become somebody else")
def test_an_ordinary_user_s_own_name_spaces_contain_them_too():
    assert holes(OWN_USER) == []


def holes(rung):
    """Those that the kernel must deny, in one process; more than a hundred."""
    attempts = [attempt for attempt in chosen(rung) if shares(attempt)]
    results = []
    run_on(rung, attempts, results.append, together=True)
    assert len(results) == len(attempts) > 100
    return [(result.name, result.outcome, result.detail) for result in results if not result.contained]
