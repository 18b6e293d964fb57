"""OpenRouter against a peer that behaves as its documentation says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import base64

import pytest
from openrouter_peer import OpenRouterPeer
from provider_peer import Reply
from services_suite import JOB, SYNC, ServiceSuite, a_source, a_task, refusal

from gas.errors import RequestRefused, ServiceUnavailable
from gas.generation.base import GenerationTask
from gas.types import MediaType, Modality


class TestOpenRouter(ServiceSuite):
    name = "openrouter"
    peer_type = OpenRouterPeer
    makes: ClassVar = {Modality.IMAGE: SYNC, Modality.VIDEO: JOB, Modality.AUDIO: SYNC}
    key_field, url_field, key_variable = "openrouter_api_key", "openrouter_base_url", "OPENROUTER_API_KEY"
    more: ClassVar = {"openrouter_video_model": "google/veo-3.1", "openrouter_audio_model": "openai/some-tts"}

    @pytest.mark.parametrize(
        ("wish", "config"),
        [
            ({}, None),
            ({"aspect_ratio": "16:9"}, {"aspect_ratio": "16:9"}),
            ({"resolution": "2K"}, {"aspect_ratio": "1:1", "image_size": "2K"}),
            ({"tier": 1, "aspect_ratio": "16:9"}, {"aspect_ratio": "16:9", "image_size": "4K"}),
        ],
    )
    def test_shapes_and_sizes_are_told_in_openrouters_words(
        self, wish: dict[str, object], config: dict[str, str] | None
    ) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(**wish))
            assert peer.submits[0].json().get("image_config") == config

    def test_a_picture_to_change_goes_along_as_a_data_url(self) -> None:
        with self.peer() as peer:
            medium = self.make(peer, GenerationTask(Modality.IMAGE, "at night", 1, {}, a_source()))
            content = peer.submits[0].json()["messages"][0]["content"]
        assert [part["type"] for part in content] == ["text", "image_url"]
        assert content[1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
        assert medium.media_type is MediaType.SEMISYNTHETIC

    def test_a_mask_is_refused_rather_than_ignored(self) -> None:
        with self.peer() as peer:
            with pytest.raises(RequestRefused, match="mask"):
                self.make(peer, GenerationTask(Modality.IMAGE, "at night", 1, {}, a_source(mask=True)))
            assert peer.seen == []

    @pytest.mark.parametrize(
        ("what", "code", "again"),
        [("busy", "provider_busy", True), ("broken", "provider_failed", True), ("credit", "provider_account", False)],
    )
    def test_an_error_inside_a_200_answer_counts_as_what_it_says(self, what: str, code: str, again: bool) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.inside(what))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught)[0] == code
            assert (refusal(caught)[1] is not None) == again

    def test_moderation_shows_in_many_ways(self) -> None:
        with self.peer() as peer:
            answers = [
                peer.inside("moderation"),
                peer.completion(finish="content_filter", message={"role": "assistant", "content": ""}),
                peer.completion(native="IMAGE_SAFETY", message={"role": "assistant", "content": None}),
                peer.completion(message={"role": "assistant", "content": None, "refusal": "I can't help with that."}),
            ]
            for answer in answers:
                peer.fail("submit", answer)
                with pytest.raises(RequestRefused) as caught:
                    self.submit(peer, a_task())
                assert caught.value.error_code == "moderation_refused"

    def test_words_instead_of_a_picture_are_no_picture(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.completion(message={"role": "assistant", "content": "A dog, barking."}))
            with pytest.raises(ServiceUnavailable, match="words") as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_failed", None)

    def test_an_error_on_a_choice_counts_too(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.completion(error={"code": 429, "message": "slow down"}, message=None))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught)[0] == "provider_busy"

    def test_402_with_a_waiting_time_is_no_empty_account(self) -> None:
        with self.peer() as peer:
            credit = peer.refusal("credit")
            credit.headers["Retry-After"] = "4"
            peer.fail("submit", credit)
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_busy", 4.0)

    def test_403_without_a_flagged_prompt_is_the_accounts(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply.of({"error": {"code": 403, "message": "Key limit exceeded"}}, 403))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_account", None)

    def test_a_prompt_that_is_too_long_for_the_model_is_told_as_that(self) -> None:
        answer = {"error": {"code": 400, "message": "long", "metadata": {"error_type": "context_length_exceeded"}}}
        with self.peer() as peer:
            peer.fail("submit", Reply.of(answer, 400))
            with pytest.raises(RequestRefused) as caught:
                self.submit(peer, a_task())
            assert caught.value.error_code == "prompt_too_long"

    def test_a_picture_at_an_address_is_fetched_without_a_second_order(self) -> None:
        with self.peer() as peer:
            peer.begin("video")
            peer.media["video"] = peer.media["image"]
            images = [{"image_url": {"url": f"{peer.url}/videos/job-1/content"}}]
            peer.fail("submit", peer.completion(message={"role": "assistant", "images": images}))
            assert self.make(peer, a_task()).data == peer.media["image"]
            assert len(peer.submits) == 1

    def test_a_picture_at_an_address_that_fails_is_not_ordered_again(self) -> None:
        with self.peer() as peer:
            images = [{"image_url": {"url": f"{peer.url}/videos/job-1/content"}}]
            peer.fail("submit", peer.completion(message={"role": "assistant", "images": images}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught) == ("provider_uncertain", None)

    @pytest.mark.parametrize(
        "url", ["data:image/png;base64,%%%", "data:image/png,plain", "file:///etc/passwd", "x" * 9000]
    )
    def test_pictures_that_cant_be_read_are_none(self, url: str) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.completion(message={"role": "assistant", "images": [{"image_url": {"url": url}}]}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught)[0] in ("provider_failed", "provider_uncertain") and refusal(caught)[1] is None

    def test_a_clip_can_begin_with_a_picture(self) -> None:
        task = GenerationTask(Modality.VIDEO, "it moves", 1, {"tier": 2, "duration": 8}, a_source())
        with self.peer() as peer:
            self.make(peer, task)
            wanted = peer.submits[0].json()
        assert (wanted["resolution"], wanted["aspect_ratio"], wanted["duration"]) == ("1080p", "16:9", 8)
        frame = wanted["frame_images"][0]
        assert frame["frame_type"] == "first_frame"
        assert base64.b64decode(frame["image_url"]["url"].partition(",")[2]).startswith(b"\x89PNG")

    @pytest.mark.parametrize("status", ["failed", "cancelled", "expired"])
    def test_a_job_that_ends_without_a_clip_ends(self, status: str) -> None:
        with self.peer() as peer:
            job = self.submit(peer, a_task(Modality.VIDEO))
            peer.fail("poll", Reply.of({"id": "job-1", "status": status, "error": "no capacity"}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.use(peer, lambda service: service.collect(job))
            assert refusal(caught) == ("provider_failed", None)
