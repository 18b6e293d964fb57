"""OpenAI against a peer that behaves as its documentation says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import io

import numpy as np
import pytest
from openai_peer import OpenAIPeer, picture_answer
from PIL import Image
from provider_peer import Reply
from services_suite import JOB, SYNC, ServiceSuite, a_source, a_task, refusal

from gas.clock import ManualClock
from gas.errors import ConfigurationError, RequestRefused, ServiceUnavailable
from gas.generation.base import GenerationTask, SourceImage
from gas.generation.services import ServiceSettings, open_service
from gas.types import MediaType, Modality


class TestOpenAI(ServiceSuite):
    name = "openai"
    peer_type = OpenAIPeer
    makes: ClassVar = {Modality.IMAGE: SYNC, Modality.VIDEO: JOB, Modality.AUDIO: SYNC}
    key_field, url_field, key_variable = "openai_api_key", "openai_base_url", "OPENAI_API_KEY"
    more: ClassVar = {"openai_video_model": "sora-2"}

    @pytest.mark.parametrize(
        ("wish", "size"),
        [
            ({}, "1024x1024"),
            ({"resolution": "2K"}, "1904x1904"),
            ({"tier": 2}, "2880x2880"),
            ({"aspect_ratio": "16:9"}, "1376x768"),
            ({"width": 1000, "height": 500}, "1152x576"),
            ({"resolution": "1920x1080"}, "1920x1088"),
        ],
    )
    def test_new_models_get_the_size_in_pixels(self, wish: dict[str, object], size: str) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(**wish))
            assert peer.submits[0].json()["size"] == size

    def test_older_models_get_the_nearest_of_their_three_sizes(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(aspect_ratio="3:2", resolution="2K"), openai_image_model="gpt-image-1.5")
            with pytest.raises(RequestRefused, match="1536 x 1024"):
                self.make(peer, a_task(width=3000, height=2000), openai_image_model="gpt-image-1.5")
            assert [asked.json()["size"] for asked in peer.submits] == ["1536x1024"]

    def test_our_white_becomes_openais_transparency(self) -> None:
        task = GenerationTask(Modality.IMAGE, "a red ball", 1, {}, a_source(mask=True))
        with self.peer() as peer:
            medium = self.make(peer, task)
            form = peer.submits[0].form()
        assert peer.submits[0].path == "/images/edits"
        mask = np.asarray(Image.open(io.BytesIO(form["mask"][2])))
        assert mask.shape == (96, 128, 4)
        assert (mask[:, :64, 3] == 0).all() and (mask[:, 64:, 3] == 255).all()
        assert Image.open(io.BytesIO(form["image"][2])).size == (128, 96)
        assert medium.media_type is MediaType.SEMISYNTHETIC
        assert medium.mask is None

    def test_an_edit_without_a_mask_sends_none(self) -> None:
        with self.peer() as peer:
            self.make(peer, GenerationTask(Modality.IMAGE, "at night", 1, {}, a_source()))
            assert "mask" not in peer.submits[0].form()

    @pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(64)])
    def test_a_source_that_is_no_picture_is_refused_before_anything_is_paid(self, data: bytes) -> None:
        with self.peer() as peer:
            with pytest.raises(RequestRefused) as caught:
                self.make(peer, GenerationTask(Modality.IMAGE, "at night", 1, {}, SourceImage(data)))
            assert (caught.value.status, caught.value.error_code) == (422, "bad_source")
            assert peer.seen == []

    def test_a_clip_begins_with_a_frame_of_its_own_size(self) -> None:
        task = GenerationTask(Modality.VIDEO, "it moves", 1, {"aspect_ratio": "9:16", "duration": 5}, a_source())
        with self.peer() as peer:
            assert self.make(peer, task).media_type is MediaType.SEMISYNTHETIC
            form = peer.submits[0].form()
        assert (form["size"], form["seconds"]) == ("720x1280", "8")
        assert Image.open(io.BytesIO(form["input_reference"][2])).size == (720, 1280)

    def test_a_longer_clip_than_there_is_is_refused(self) -> None:
        with self.peer() as peer, pytest.raises(RequestRefused, match="12 seconds"):
            self.make(peer, a_task(Modality.VIDEO, duration=13))

    def test_speech_takes_the_voice_of_the_task(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(Modality.AUDIO, "Good morning.", voice="nova"))
            assert peer.submits[0].json()["voice"] == "nova"
            with pytest.raises(RequestRefused) as caught:
                self.make(peer, a_task(Modality.AUDIO, "x" * 5000))
            assert caught.value.error_code == "prompt_too_long"

    def test_openai_itself_makes_no_clips_unless_a_model_is_named(self) -> None:
        service = open_service("openai", ServiceSettings(None, openai_api_key="k"), clock=ManualClock())
        assert service.modalities == {Modality.IMAGE, Modality.AUDIO}

    def test_a_used_up_quota_is_not_a_rate_limit(self) -> None:
        with self.peer() as peer:
            credit = peer.refusal("credit")
            credit.headers["Retry-After"] = "5"
            peer.fail("submit", credit)
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_account", None)

    @pytest.mark.parametrize("status", [504, 520, 524])
    def test_a_gateway_that_gave_up_waiting_leaves_open_whether_it_was_paid(self, status: int) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply(status, b"<html>gateway</html>", {"Content-Type": "text/html"}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_uncertain", None)

    def test_a_picture_that_breaks_off_within_the_answer_is_none(self) -> None:
        with self.peer() as peer:
            cut = picture_answer(peer.media["image"][:-400])
            peer.fail("submit", Reply(200, cut, {"Content-Type": "application/json"}))
            with pytest.raises(ServiceUnavailable, match="usable image") as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_failed", None)

    @pytest.mark.parametrize("text", ['{"data": []}', '{"data": [{"b64_json": "%%%"}]}', "[]", "{", '{"data": "x"}'])
    def test_answers_without_a_picture_are_none(self, text: str) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply(200, text.encode(), {"Content-Type": "application/json"}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_failed", None)

    def test_a_gateway_may_give_an_address_instead(self) -> None:
        with self.peer() as peer:
            peer.begin("video")
            peer.media["video"] = peer.media["image"]
            peer.fail("submit", Reply.of({"data": [{"url": f"{peer.url}/videos/job-1/content"}]}))
            assert self.make(peer, a_task()).data == peer.media["image"]
            assert len(peer.submits) == 1

    def test_a_job_without_an_id_may_have_been_paid(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply.of({"id": "../../etc/passwd", "status": "queued"}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task(Modality.VIDEO))
            assert refusal(caught) == ("provider_uncertain", None)

    def test_settings_out_of_bounds_are_named(self) -> None:
        wrong = {"openai_api_key": "sk-with a space", "openai_image_model": "no model!", "service_timeout": -1}
        for name, value in wrong.items():
            settings = ServiceSettings(None, **{"openai_api_key": "k", name: value})
            with pytest.raises(ConfigurationError) as caught:
                open_service("openai", settings, clock=ManualClock())
            assert name.upper() in caught.value.message
            assert str(value) not in caught.value.message


def test_an_unknown_service_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match="openrouter"):
        open_service("midjourney", ServiceSettings(), clock=ManualClock())
