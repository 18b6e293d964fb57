"""Training a scaffold: it learns what can be learnt, writes weights that pass the checks, and says what it can't do."""

from __future__ import annotations

from dataclasses import replace
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


def scaffold_again(folder: Path) -> None:
    """The untrained weights as they were."""
    (folder / "model.safetensors").write_bytes((made(folder.parent / "again") / "model.safetensors").read_bytes())


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


def test_a_training_that_was_cut_short_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    def cut(at: TrainProgress) -> None:
        if at.epoch == 3:
            raise Cut

    weights, options = [], TrainOptions(epochs=4, batch_size=8, crop=48, seed=5)
    for run in ("through", "cut"):
        folder, kept = made(tmp_path / run), tmp_path / run / "training"
        package = check(folder).require()
        if run == "cut":
            with pytest.raises(Cut):
                train_package(folder, package, pictures(16, 64), options, SystemClock(), cut, kept)
            other = replace(options, seed=6)
            assert train_package(folder, package, pictures(16, 64), other, SystemClock(), None, None).resumed == 0
            scaffold_again(folder)
        done = train_package(folder, package, pictures(16, 64), options, SystemClock(), None, kept)
        assert (done.epochs, done.resumed) == (4, 2 if run == "cut" else 0)
        assert not list(kept.glob("*"))
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_checkpoint_of_another_training_or_a_broken_one_is_left_alone(tmp_path: Path) -> None:
    folder, kept = made(tmp_path), tmp_path / "training"
    package, options = check(folder).require(), TrainOptions(epochs=2, batch_size=8, crop=48)

    def cut(at: TrainProgress) -> None:
        if at.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_package(folder, package, pictures(12, 64), options, SystemClock(), cut, kept)
    (checkpoint,) = kept.glob("*")
    other = train_package(folder, package, pictures(14, 64), options, SystemClock(), None, kept)
    assert (other.resumed, list(kept.glob("*"))) == (0, [checkpoint])
    scaffold_again(folder)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert train_package(folder, package, pictures(12, 64), options, SystemClock(), None, kept).resumed == 0


def test_a_loss_that_is_no_number_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    folder = made(tmp_path)
    code = (folder / "model.py").read_text().replace("return self.head(", "return torch.nan * self.head(")
    (folder / "model.py").write_text(code)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigurationError, match="smaller --rate") as refused:
        train_package(folder, check(folder).require(), pictures(12, 48), TrainOptions(crop=0), SystemClock())
    assert refused.value.error_code == "diverged"
    assert (folder / "model.safetensors").read_bytes() == before


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
