"""A new detector passes the checks and really runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gas.errors import ConfigurationError
from gas.submissions.check import check
from gas.submissions.scaffold import FORMATS, create
from gas.types import Modality


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("modality", list(Modality))
def test_a_new_detector_is_clean_and_of_its_modality(tmp_path: Path, modality: Modality, format: str) -> None:
    create(tmp_path / "new", "my-first", modality, format)
    package = check(tmp_path / "new", modality=modality).require()
    assert (package.name, package.format) == ("my-first", format)


@pytest.mark.parametrize("modality", list(Modality))
def test_both_formats_answer_with_logits(tmp_path: Path, modality: Modality) -> None:
    torch = pytest.importorskip("torch")
    runtime = pytest.importorskip("onnxruntime")
    answers = []
    for format in FORMATS:
        folder = tmp_path / format
        create(folder, "m", modality, format)
        package = check(folder).require()
        rng = np.random.default_rng(0)
        size = (2, *package.input_shape)
        batch = (
            rng.uniform(-1, 1, size).astype(np.float32)
            if modality is Modality.AUDIO
            else rng.integers(0, 256, size, dtype=np.uint8)
        )
        if format == "onnx":
            session = runtime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
            answers.append(session.run(None, {session.get_inputs()[0].name: batch})[0])
            continue
        spec = importlib.util.spec_from_file_location("scaffolded", folder / "model.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with torch.no_grad():
            model = module.load_model(str(folder / "model.safetensors"), num_classes=2)
            answers.append(model(torch.from_numpy(batch)).numpy())
    assert [answer.shape for answer in answers] == [(2, 2), (2, 2)]
    assert all(np.isfinite(answer).all() for answer in answers)


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigurationError):
        create(tmp_path, "m", Modality.IMAGE)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_name_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        create(tmp_path / "x", "../evil", Modality.IMAGE)
