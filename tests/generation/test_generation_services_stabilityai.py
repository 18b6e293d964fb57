"""Stability AI against a peer that behaves as its documentation says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import io
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from services_suite import JOB, SYNC, ServiceSuite, a_source, a_task, refusal
from stabilityai_peer import StabilityPeer

from gas.errors import ConfigurationError, RequestRefused, ServiceUnavailable
from gas.generation.base import GenerationTask
from gas.types import MediaType, Modality


class TestStability(ServiceSuite):
    name = "stabilityai"
    peer_type = StabilityPeer
    makes: ClassVar = {Modality.IMAGE: SYNC, Modality.AUDIO: SYNC}
    key_field, url_field, key_variable = "stability_api_key", "stability_base_url", "STABILITY_API_KEY"

    @pytest.mark.parametrize(
        ("model", "path", "fields"),
        [
            ("core", "/v2beta/stable-image/generate/core", {"aspect_ratio": "1:1"}),
            ("ultra", "/v2beta/stable-image/generate/ultra", {"aspect_ratio": "1:1"}),
            (
                "sd3.5-medium",
                "/v2beta/stable-image/generate/sd3",
                {"model": "sd3.5-medium", "mode": "text-to-image", "aspect_ratio": "1:1"},
            ),
        ],
    )
    def test_each_model_has_its_call(self, model: str, path: str, fields: dict[str, str]) -> None:
        with self.peer() as peer:
            medium = self.make(peer, a_task(), stability_image_model=model)
            assert peer.submits[0].path == path
            assert fields.items() <= peer.submits[0].form().items()
            assert medium.model == f"stabilityai/{model}"

    def test_shapes_seeds_and_what_not_to_show_are_passed_on(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(aspect_ratio="16:9", negative_prompt="people", seed=2**40 + 9))
            form = peer.submits[0].form()
        assert (form["aspect_ratio"], form["negative_prompt"], form["output_format"]) == ("16:9", "people", "png")
        assert 0 <= int(form["seed"]) <= 4294967294

    def test_a_tier_above_what_it_makes_gets_the_largest_and_a_size_in_numbers_is_refused(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(tier=2))
            with pytest.raises(RequestRefused) as caught:
                self.make(peer, a_task(width=2048, height=2048))
            assert caught.value.error_code == "unsupported_parameters"
            assert len(peer.submits) == 1

    def test_a_picture_that_was_filtered_afterwards_is_a_moderation_refusal(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.filtered())
            with pytest.raises(RequestRefused) as caught:
                self.submit(peer, a_task())
            assert caught.value.error_code == "moderation_refused"

    def test_inpainting_sends_the_mask_as_it_is_and_tells_what_changes(self) -> None:
        task = GenerationTask(Modality.IMAGE, "a red ball", 1, {}, a_source(mask=True))
        with self.peer() as peer:
            medium = self.make(peer, task)
            form = peer.submits[0].form()
        assert peer.submits[0].path == "/v2beta/stable-image/edit/inpaint"
        sent = np.asarray(Image.open(io.BytesIO(form["mask"][2])))
        assert (sent[:, :64] == 255).all() and (sent[:, 64:] == 0).all()
        assert medium.media_type is MediaType.SEMISYNTHETIC and medium.mask is not None
        changed = np.asarray(Image.open(io.BytesIO(medium.mask)))
        grown = 64 + int(form["grow_mask"])
        assert (changed[:, :grown] == 255).all() and (changed[:, grown:] == 0).all()

    def test_a_picture_of_another_size_than_the_mask_comes_without_one(self) -> None:
        with self.peer() as peer:
            peer.keeps_size = False
            medium = self.make(peer, GenerationTask(Modality.IMAGE, "a red ball", 1, {}, a_source(mask=True)))
        assert medium.mask is None

    def test_an_edit_without_a_mask_is_image_to_image(self) -> None:
        task = GenerationTask(Modality.IMAGE, "at night", 1, {"strength": 0.4}, a_source())
        with self.peer() as peer:
            medium = self.make(peer, task)
            form = peer.submits[0].form()
            assert (form["mode"], form["strength"], form["model"]) == ("image-to-image", "0.4", "sd3.5-large")
            assert medium.model == "stabilityai/sd3.5-large" and medium.mask is None
            self.make(peer, task, stability_image_model="ultra")
            assert peer.submits[1].path == "/v2beta/stable-image/generate/ultra"
            assert "mode" not in peer.submits[1].form()

    def test_a_changed_picture_keeps_its_size(self) -> None:
        with self.peer() as peer, pytest.raises(RequestRefused) as caught:
            self.make(peer, GenerationTask(Modality.IMAGE, "at night", 1, {"tier": 1}, a_source()))
        assert caught.value.error_code == "unsupported_parameters"

    def test_sound_takes_the_duration_of_the_task(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(Modality.AUDIO, "rain on a tin roof", duration=30))
            form = peer.submits[0].form()
            assert (form["duration"], form["model"], form["output_format"]) == ("30", "stable-audio-2.5", "mp3")
            with pytest.raises(RequestRefused, match="190"):
                self.make(peer, a_task(Modality.AUDIO, "rain", duration=191))

    def test_a_model_that_doesnt_exist_is_refused_at_start(self) -> None:
        with self.peer() as peer, pytest.raises(ConfigurationError, match="STABILITY_IMAGE_MODEL"):
            self.make(peer, a_task(), stability_image_model="sdxl")

    def test_413_says_that_the_picture_is_too_large(self) -> None:
        with self.peer() as peer:
            too_large = peer.refusal("invalid")
            too_large.status = 413
            peer.fail("submit", too_large)
            with pytest.raises(RequestRefused) as caught:
                self.submit(peer, GenerationTask(Modality.IMAGE, "at night", 1, {}, a_source()))
            assert caught.value.error_code == "bad_source"


class TestStabilityThatDefers(ServiceSuite):
    """The same where the provider answers 202 and is asked for the result."""

    name = "stabilityai"
    peer_type = StabilityPeer
    makes: ClassVar = {Modality.IMAGE: JOB, Modality.AUDIO: JOB}
    key_field, url_field, key_variable = "stability_api_key", "stability_base_url", "STABILITY_API_KEY"

    @pytest.fixture(autouse=True)
    def _deferred(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(StabilityPeer, "deferred", True)

    def test_a_deferred_edit_is_still_semisynthetic(self) -> None:
        task = GenerationTask(Modality.IMAGE, "a red ball", 1, {}, a_source(mask=True))
        with self.peer() as peer:
            assert self.make(peer, task).media_type is MediaType.SEMISYNTHETIC

    def test_a_result_that_was_filtered_is_a_moderation_refusal(self) -> None:
        with self.peer() as peer:
            peer.fail("poll", peer.filtered())
            with pytest.raises(RequestRefused, match="moderation"):
                self.make(peer, a_task())

    def test_a_result_that_breaks_off_is_asked_for_again(self) -> None:
        with self.peer() as peer:
            job = self.submit(peer, a_task())
            half = peer.medium("image")
            half.cut = len(half.body) // 2
            peer.fail("poll", half)
            with pytest.raises(ServiceUnavailable) as caught:
                self.use(peer, lambda service: service.collect(job))
            assert refusal(caught)[1] is not None
