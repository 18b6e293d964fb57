"""Training a scaffold: it learns what can be learnt, writes weights that pass the checks, and says what it can't do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gas.clock import ManualClock, SystemClock, derive_rng
from gas.errors import ConfigurationError
from gas.submissions import scaffold
from gas.submissions.check import check
from gas.submissions.trainer import Example, TrainOptions, TrainProgress, keep_out, train_package
from gas.types import Modality


def made(tmp_path: Path, modality: Modality = Modality.IMAGE) -> Path:
    folder = tmp_path / "model"
    scaffold.create(folder, "model", modality)
    return folder


def pictures(count: int, side: int = 96) -> list[Example]:
    """Real ones are noisy, fakes are smooth."""
    out = []
    for k in range(count):
        rng = derive_rng(3, "picture", k)
        strength = 3 if k % 2 else 40
        pixels = np.clip(rng.normal(128, strength, (3, side, side)), 0, 255).astype(np.uint8)
        out.append(Example((pixels,), bool(k % 2), f"origin-{k}"))
    return out


def test_a_scaffold_learns_and_stays_a_clean_package(tmp_path: Path) -> None:
    folder = made(tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    seen: list[TrainProgress] = []
    options = TrainOptions(epochs=4, batch_size=8, threads=1, crop=48)
    done = train_package(folder, check(folder).require(), pictures(48), options, SystemClock(), seen.append)
    assert done.accuracy == 1.0
    assert (done.learned + done.kept, done.epochs) == (48, 4)
    assert (seen[-1].step, seen[-1].steps) == (seen[-1].steps, len(seen))
    assert (folder / "model.safetensors").read_bytes() != before
    check(folder, modality=Modality.IMAGE).require()


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    weights = []
    for run in ("one", "two"):
        folder = made(tmp_path / run)
        options = TrainOptions(epochs=1, batch_size=4, threads=1, crop=0, seed=5)
        train_package(folder, check(folder).require(), pictures(12, 48), options, SystemClock())
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_sounds_are_learnt_too(tmp_path: Path) -> None:
    folder = made(tmp_path, Modality.AUDIO)
    time = np.arange(16_000, dtype=np.float32) / 16_000
    sounds = []
    for k in range(16):
        rng = derive_rng(4, "sound", k)
        sound = np.sin(2 * np.pi * 440 * time) * 0.3 if k % 2 else rng.normal(0, 0.2, time.size)
        sounds.append(Example((sound.astype(np.float32),), bool(k % 2), f"sound-{k}"))
    options = TrainOptions(epochs=2, batch_size=4, threads=1)
    assert train_package(folder, check(folder).require(), sounds, options, SystemClock()).learned > 8


def test_a_network_of_one_size_is_trained_on_whole_pictures(tmp_path: Path) -> None:
    folder = made(tmp_path)
    code = (folder / "model.py").read_text().replace("x = x.float()", "x = x.float() + torch.zeros(48, 48)")
    (folder / "model.py").write_text(code)
    options = TrainOptions(epochs=1, batch_size=4, threads=1, crop=24)
    assert train_package(folder, check(folder).require(), pictures(12, 48), options, SystemClock()).epochs == 1


def test_training_ends_after_the_epoch_that_passes_the_limit(tmp_path: Path) -> None:
    folder, clock = made(tmp_path), ManualClock()
    options = TrainOptions(epochs=50, batch_size=4, threads=1, crop=0, seconds=10.0)
    done = train_package(
        folder, check(folder).require(), pictures(12, 48), options, clock, lambda _: clock.advance(4.0)
    )
    assert done.epochs == 1


def test_one_class_an_onnx_file_and_broken_code_are_refused(tmp_path: Path) -> None:
    folder = made(tmp_path)
    package = check(folder).require()
    with pytest.raises(ConfigurationError) as refused:
        train_package(folder, package, pictures(12)[::2], TrainOptions(), SystemClock())
    assert refused.value.error_code == "one_class"
    (folder / "model.py").write_text("def load_model(weights_path, num_classes=2):\n    raise ValueError('no')\n")
    with pytest.raises(ConfigurationError, match="ValueError: no") as refused:
        train_package(folder, package, pictures(12), TrainOptions(), SystemClock())
    assert refused.value.error_code == "model_code"
    scaffold.create(tmp_path / "onnx", "onnx", Modality.IMAGE, "onnx")
    with pytest.raises(ConfigurationError) as refused:
        train_package(
            tmp_path / "onnx", check(tmp_path / "onnx").require(), pictures(12), TrainOptions(), SystemClock()
        )
    assert refused.value.error_code == "onnx_not_trained"


def test_a_sixth_of_each_class_is_kept_out_and_never_in_part() -> None:
    examples = pictures(60, 8)
    twice = [*examples, *examples[:10]]
    kept = keep_out(twice[::-1], 1)
    assert kept == keep_out(twice, 1) != keep_out(twice, 2)
    assert sorted(e.fake for e in examples if e.origin in kept) == [False] * 5 + [True] * 5


def test_a_few_media_still_leave_one_of_each_class_to_try_it_on() -> None:
    examples = pictures(6, 8)
    kept = keep_out(examples, 0)
    assert sorted(e.fake for e in examples if e.origin in kept) == [False, True]
