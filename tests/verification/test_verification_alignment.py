"""The embedded prompt alignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.datasets.words import Category
from gas.errors import ConfigurationError, MediaRejected
from gas.media.image import encode_png
from gas.types import Modality
from gas.verification.alignment import CATEGORIES, LightAlignment, features


@pytest.fixture(scope="module")
def alignment() -> LightAlignment:
    return LightAlignment()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(16, 200), st.integers(16, 200))
def test_probabilities_sum_to_one_for_any_picture(seed: int, height: int, width: int) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = LightAlignment().probabilities(rgb)
    assert found.shape == (len(CATEGORIES),)
    assert found.sum() == pytest.approx(1.0)
    assert np.isfinite(features(rgb)).all()


def test_something_on_a_blank_ground_is_rather_food_than_a_scene(alignment: LightAlignment) -> None:
    rgb = np.full((256, 256, 3), 255, np.uint8)
    yy, xx = np.mgrid[:256, :256]
    rgb[(yy - 128) ** 2 + (xx - 128) ** 2 < 70**2] = (200, 60, 30)
    assert alignment.score_pixels(rgb, "ripe tomatoes on a plate") > alignment.score_pixels(rgb, "a mountain landscape")


def test_a_prompt_without_a_known_category_says_nothing(alignment: LightAlignment) -> None:
    assert alignment.score_pixels(np.zeros((64, 64, 3), np.uint8), "qwertz") == 0.5


def test_the_score_of_bytes_is_that_of_their_pixels(alignment: LightAlignment) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    prompt = f"a photo of {Category.FOOD}"
    assert alignment.score(encode_png(rgb), Modality.IMAGE, prompt) == alignment.score_pixels(rgb, prompt)


def test_other_modalities_and_broken_bytes_are_refused(alignment: LightAlignment) -> None:
    with pytest.raises(ConfigurationError):
        alignment.score(b"", Modality.AUDIO, "food")
    with pytest.raises(MediaRejected):
        alignment.score(b"no picture", Modality.IMAGE, "food")


def test_weights_of_another_shape_are_an_error() -> None:
    from safetensors.numpy import save

    with pytest.raises(ConfigurationError):
        LightAlignment(save({"weight": np.zeros((3, 5), np.float32)}))
