"""The detector packages that the demo pushes: three that may run, and one that must not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import gas.cli.demo
from gas.submissions.check import check
from gas.types import Modality

PACKAGES = Path(gas.cli.demo.__file__).parent / "packages"
HONEST = ("det-onnx", "det-torch", "det-weak")


def pictures(size: tuple[int, int], n: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 3, *size), dtype=np.uint8)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_package_passes_the_static_checks(name: str) -> None:
    report = check(PACKAGES / name, modality=Modality.IMAGE)
    assert report.reasons == ()
    assert report.require().num_classes == 2


def test_the_hostile_package_is_refused_for_its_code_only_with_line_and_reason() -> None:
    report = check(PACKAGES / "det-hostile", modality=Modality.IMAGE)
    assert {reason.file for reason in report.reasons} == {"model.py"}
    lines = (PACKAGES / "det-hostile" / "model.py").read_text().splitlines()
    blamed = [lines[reason.line - 1] for reason in report.reasons if reason.line]
    assert len(blamed) == len(report.reasons) >= 3
    for deed in ("import os", "import socket", 'ACCOUNTS = open("/etc/passwd")', 'with open("/etc/passwd")', "CANARY,"):
        assert any(deed in line for line in blamed), deed


@pytest.mark.parametrize("name", (*HONEST, "det-hostile"))
def test_weights_are_small(name: str) -> None:
    weights = [p for p in (PACKAGES / name).iterdir() if p.suffix in (".onnx", ".safetensors")]
    assert len(weights) == 1
    assert 0 < weights[0].stat().st_size < 2_000_000


def test_the_onnx_detector_answers_each_picture_on_its_own() -> None:
    package = check(PACKAGES / "det-onnx").require()
    session = onnxruntime.InferenceSession(PACKAGES / "det-onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert package.preprocessing.resize is not None
    x = pictures(package.preprocessing.resize)
    feed = session.get_inputs()[0].name
    together = session.run(None, {feed: x})[0]
    alone = np.concatenate([session.run(None, {feed: x[i : i + 1]})[0] for i in range(len(x))])
    assert together.shape == (len(x), 2)
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, atol=1e-3)


@pytest.mark.parametrize("name", ["det-torch", "det-weak"])
def test_a_torch_detector_answers_each_picture_on_its_own(name: str) -> None:
    package = check(PACKAGES / name).require()
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), PACKAGES / name / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = str(PACKAGES / name / str(package.weights_file))
    model = module.load_model(weights, num_classes=package.num_classes, **package.params)
    assert package.preprocessing.resize is not None
    x = torch.from_numpy(pictures(package.preprocessing.resize))
    with torch.inference_mode():
        together, alone = model(x), torch.cat([model(x[i : i + 1]) for i in range(len(x))])
    assert together.shape == (len(x), 2)
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
