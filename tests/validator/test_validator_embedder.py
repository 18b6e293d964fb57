"""The embedder that is on by default: the same vectors everywhere, and copies found that no hash forgives."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gas.errors import ConfigurationError
from gas.generation.prompts.labels import DEVIATION, MEAN, load_mobilenet, mobilenet_weights
from gas.media.image import encode_png
from gas.types import Modality
from gas.validator.embedder import MobileNetEmbedder, open_copy_embedder
from gas.verification.base import Asked
from gas.verification.duplicates import MediaIndex
from gas.verification.pipeline import Verifier

pytestmark = pytest.mark.skipif(mobilenet_weights() is None, reason="MobileNet's weights are not installed")


def picture(seed: int, side: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(0, 256, (n, n, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
        for n in (4, 9, 40)
    ]
    return np.mean(layers, axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embedder")


@pytest.fixture(scope="module")
def embedder(folder: Path) -> MobileNetEmbedder:
    found = open_copy_embedder("auto", folder)
    assert isinstance(found, MobileNetEmbedder)
    found.embed(picture(0))
    return found


def test_the_fast_form_computes_what_the_network_computes(embedder: MobileNetEmbedder) -> None:
    import torch

    weights = mobilenet_weights()
    assert weights is not None
    rgb = picture(1, 128)
    pixels = (rgb.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    with torch.inference_mode():
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]))
        plain = load_mobilenet(weights).features(batch).mean((2, 3))[0].numpy() @ embedder._projection
    assert np.allclose(embedder.embed(rgb), plain / np.linalg.norm(plain), atol=1e-4)


def test_the_kept_form_is_taken_up_again_unless_it_is_damaged(embedder: MobileNetEmbedder, folder: Path) -> None:
    (kept,) = folder.glob("*.onnx")
    wanted, whole = embedder.embed(picture(2)), kept.read_bytes()
    # Without its weights nothing but the kept form can have made it.
    assert np.array_equal(MobileNetEmbedder(folder / "none", folder).embed(picture(2)), wanted)
    kept.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ConfigurationError) as wrong:
        MobileNetEmbedder(folder / "none", folder).embed(picture(2))
    assert wrong.value.error_code == "weights_unknown"


def test_a_bent_copy_is_refused_by_its_embedding_and_another_picture_is_not(embedder: MobileNetEmbedder) -> None:
    verifier = Verifier(
        MediaIndex(embedding=(embedder.size, embedder.threshold)), b"", guarded=False, embedder=embedder
    )  # fmt: skip
    # The hashes find most copies; here it is shown what the embedding finds alone.
    verifier.steps = tuple(step for step in verifier.steps if step.name != "provenance")
    copies = next(step for step in verifier.steps if step.name == "copies")
    copies._index = MediaIndex()  # type: ignore[attr-defined]

    def judge(rgb: np.ndarray, owner: str) -> list[str]:
        verdict = verifier.judge(encode_png(rgb), Asked(Modality.IMAGE, 0.0, 100.0, 50.0, "a lake", {}, owner))
        assert verdict.reasons or "embedding" in verdict.facts
        return [reason.code for reason in verdict.reasons]

    rgb = picture(3)
    matrix = cv2.getRotationMatrix2D((128, 128), 3, 1.03)
    bent = cv2.warpAffine(rgb, matrix, (256, 256), borderMode=cv2.BORDER_REFLECT)
    assert judge(rgb, "v/one/t") == []
    assert judge(bent, "v/thief/t") == ["near_duplicate"]
    assert judge(picture(4), "v/two/t") == []


def test_none_turns_it_off_and_a_folder_that_is_not_there_is_the_operators_error() -> None:
    assert open_copy_embedder("none") is None
    with pytest.raises(ConfigurationError):
        open_copy_embedder("no/such/folder")
