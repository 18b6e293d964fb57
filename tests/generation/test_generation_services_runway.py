"""Runway against a peer that behaves as its documentation says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import pytest
from provider_peer import Reply
from runway_peer import RunwayPeer
from services_suite import JOB, ServiceSuite, a_source, a_task, refusal

from gas.errors import ConfigurationError, RequestRefused, ServiceUnavailable
from gas.generation.base import GenerationTask
from gas.types import MediaType, Modality


class TestRunway(ServiceSuite):
    name = "runway"
    peer_type = RunwayPeer
    makes: ClassVar = {Modality.IMAGE: JOB, Modality.VIDEO: JOB, Modality.AUDIO: JOB}
    key_field, url_field, key_variable = "runwayml_api_secret", "runway_base_url", "RUNWAYML_API_SECRET"

    def test_calls_carry_the_version_and_files_are_fetched_without_the_key(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task())
            assert {asked.headers.get("x-runway-version") for asked in peer.seen[:-1]} == {"2024-11-06"}

    def test_a_file_at_another_address_never_sees_the_key(self) -> None:
        with self.peer() as peer, self.peer() as store:
            peer.fail(
                "poll", Reply.of({"id": "job-1", "status": "SUCCEEDED", "output": [f"{store.url}/files/image/x"]})
            )
            assert self.make(peer, a_task()).data == store.media["image"]
            assert [asked.headers.get("authorization") for asked in store.seen] == [None]
            assert [asked.headers.get("x-runway-version") for asked in store.seen] == [None]

    @pytest.mark.parametrize(
        ("wish", "ratio"),
        [
            ({}, "1024:1024"),
            ({"aspect_ratio": "16:9"}, "1360:768"),
            ({"resolution": 720, "aspect_ratio": "16:9"}, "1280:720"),
            ({"resolution": "4K", "aspect_ratio": "9:16"}, "1080:1920"),
            ({"width": 700, "height": 700}, "720:720"),
        ],
    )
    def test_pictures_get_the_nearest_of_the_models_sizes(self, wish: dict[str, object], ratio: str) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(**wish))
            assert peer.submits[0].json()["ratio"] == ratio

    def test_clips_come_from_text_or_from_a_first_frame(self) -> None:
        with self.peer() as peer:
            medium = self.make(peer, a_task(Modality.VIDEO, duration=7.2))
            wanted = peer.submits[0].json()
            assert (peer.submits[0].path, wanted["ratio"], wanted["duration"]) == ("/v1/text_to_video", "1280:720", 8)
            assert medium.media_type is MediaType.SYNTHETIC and medium.model == "runway/gen4.5"
            framed = self.make(peer, GenerationTask(Modality.VIDEO, "it moves", 1, {"aspect_ratio": "1:1"}, a_source()))
            wanted = peer.submits[1].json()
            assert (peer.submits[1].path, wanted["ratio"]) == ("/v1/image_to_video", "960:960")
            assert wanted["promptImage"].startswith("data:image/png;base64,")
            assert framed.media_type is MediaType.SEMISYNTHETIC

    def test_a_picture_cant_be_changed_and_a_frame_takes_no_mask(self) -> None:
        with self.peer() as peer:
            for modality, mask in ((Modality.IMAGE, False), (Modality.VIDEO, True)):
                with pytest.raises(RequestRefused) as caught:
                    self.make(peer, GenerationTask(modality, "at night", 1, {}, a_source(mask)))
                assert caught.value.error_code == "unsupported_parameters"
            assert peer.seen == []

    def test_prompts_are_counted_as_runway_counts_them(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(prompt="🐕" * 500))
            with pytest.raises(RequestRefused) as caught:
                self.make(peer, a_task(prompt="🐕" * 501))
            assert caught.value.error_code == "prompt_too_long"

    def test_speech_names_a_preset_voice(self) -> None:
        with self.peer() as peer:
            self.make(peer, a_task(Modality.AUDIO, "Good morning."), runway_voice="Arjun")
            assert peer.submits[0].json()["voice"] == {"type": "runway-preset", "presetId": "Arjun"}

    @pytest.mark.parametrize(
        ("code", "expected"),
        [
            ("SAFETY.INPUT.TEXT", "moderation_refused"),
            ("SAFETY.OUTPUT.VIDEO", "moderation_refused"),
            ("INPUT_PREPROCESSING.SAFETY.TEXT", "moderation_refused"),
            ("ASSET.INVALID", "bad_source"),
        ],
    )
    def test_failures_that_are_the_prompts_are_told_as_that(self, code: str, expected: str) -> None:
        with self.peer() as peer:
            peer.fail("poll", peer.ended("FAILED", code))
            with pytest.raises(RequestRefused) as caught:
                self.make(peer, a_task())
            assert (caught.value.status, caught.value.error_code) == (422, expected)

    @pytest.mark.parametrize(
        ("status", "code"), [("FAILED", "INTERNAL.BAD_OUTPUT.CODE01"), ("FAILED", ""), ("CANCELLED", "")]
    )
    def test_other_failures_end_the_job(self, status: str, code: str) -> None:
        with self.peer() as peer:
            peer.fail("poll", peer.ended(status, code))
            with pytest.raises(ServiceUnavailable) as caught:
                self.make(peer, a_task())
            assert refusal(caught) == ("provider_failed", None)

    def test_addresses_that_have_expired_are_asked_for_anew(self) -> None:
        with self.peer() as peer:
            peer.fail("download", Reply(403, b"<Error>Expired</Error>", {"Content-Type": "application/xml"}))
            job = self.submit(peer, a_task())
            self.use(peer, lambda service: service.collect(job))
            with pytest.raises(ServiceUnavailable) as caught:
                self.use(peer, lambda service: service.collect(job))
            assert refusal(caught)[1] is not None
            medium = self.use(peer, lambda service: service.collect(job))
            assert medium is not None and medium.data == peer.media["image"]
            assert peer.count("poll") == 3 and len(peer.submits) == 1

    @pytest.mark.parametrize("output", [[], None, [7], ["/etc/passwd"], ["ftp://host/x"], ["http://user:pw@host/x"]])
    def test_answers_without_an_address_are_none(self, output: object) -> None:
        with self.peer() as peer:
            peer.fail("poll", Reply.of({"id": "job-1", "status": "SUCCEEDED", "output": output}))
            with pytest.raises(ServiceUnavailable) as caught:
                self.make(peer, a_task())
            assert refusal(caught) == ("provider_failed", None)

    def test_504_may_be_tried_again_as_runway_says(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply(504))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, a_task())
            assert refusal(caught)[0] == "provider_failed" and refusal(caught)[1] is not None

    def test_the_other_name_of_the_key_works_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RUNWAYML_API_SECRET", raising=False)
        with self.peer() as peer:
            monkeypatch.setenv("RUNWAY_API_KEY", peer.key)
            assert self.make(peer, a_task(), **{self.key_field: None}).mime == "image/png"

    def test_a_model_that_isnt_known_is_refused_at_start(self) -> None:
        with self.peer() as peer, pytest.raises(ConfigurationError, match="RUNWAY_VIDEO_MODEL"):
            self.make(peer, a_task(), runway_video_model="gen9")
