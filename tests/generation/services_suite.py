"""What every hosted service must do, whoever the provider is: run by each service's own test against its own peer."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

from provider_peer import PAGE, Peer, Reply

from gas.clock import ManualClock
from gas.errors import ConfigurationError, GasError, RequestRefused, ServiceUnavailable
from gas.generation.base import GeneratedMedium, GenerationTask, Job, Service, SourceImage
from gas.generation.services import ServiceSettings, open_service, service_names
from gas.media.encode import encode_audio, encode_mp4
from gas.media.image import encode_png
from gas.types import MediaType, Modality

T = TypeVar("T")

SYNC, JOB = "in the answer", "as a job"
PROMPT = "A dog on a beach, filmed with a phone"


@cache
def sample_media() -> dict[str, bytes]:
    """A small picture, clip and sound."""
    rng = np.random.default_rng(7)
    picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    frames = np.repeat(picture[None], 4, axis=0)
    tone = np.sin(np.arange(8000, dtype=np.float32) / 9).astype(np.float32)
    return {
        "image": encode_png(picture),
        "video": encode_mp4(list(frames), 8),
        "audio": encode_audio(tone, 8000, "mp3"),
    }


def a_task(modality: Modality = Modality.IMAGE, prompt: str = PROMPT, **parameters: object) -> GenerationTask:
    return GenerationTask(modality, prompt, 5, parameters)


def a_source(mask: bool = False) -> SourceImage:
    """A picture of 128 x 96 pixels, to be changed in its left half or everywhere."""
    pixels = np.random.default_rng(3).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    if not mask:
        return SourceImage(encode_png(pixels))
    grey = np.zeros((96, 128, 3), np.uint8)
    grey[:, :64] = 255
    return SourceImage(encode_png(pixels), encode_png(grey))


async def finish(service: Service, outcome: GeneratedMedium | Job) -> GeneratedMedium:
    """The medium, asked for until it is there."""
    if isinstance(outcome, GeneratedMedium):
        return outcome
    for _ in range(20):
        medium = await service.collect(outcome)
        if medium is not None:
            return medium
    raise AssertionError("the job never ends")


def refusal(error: pytest.ExceptionInfo[GasError]) -> tuple[str, float | None]:
    value = error.value
    return value.error_code, value.retry_after if isinstance(value, ServiceUnavailable) else None


class ServiceSuite:
    """A subclass names the peer, the settings and what the service makes."""

    name: ClassVar[str]
    peer_type: ClassVar[type[Peer]]
    makes: ClassVar[dict[Modality, str]]
    key_field: ClassVar[str]
    url_field: ClassVar[str]
    key_variable: ClassVar[str]
    more: ClassVar[dict[str, Any]] = {}

    @contextmanager
    def peer(self) -> Iterator[Any]:
        with self.peer_type(sample_media()) as peer:
            yield peer

    def settings(self, peer: Peer, **more: Any) -> ServiceSettings:
        fast = {"service_retry_pause": 0, "service_timeout": 20, "service_poll_seconds": 0.01}
        where = {self.key_field: peer.key, self.url_field: peer.url}
        wanted = {**fast, **where, **self.more, **more}
        return ServiceSettings(None, **{name: value for name, value in wanted.items() if value is not None})

    def use(self, peer: Peer, act: Callable[[Any], Awaitable[T]], **more: Any) -> T:
        """Open the service, do something with it, close it."""

        async def run() -> T:
            service = open_service(self.name, self.settings(peer, **more), clock=ManualClock())
            try:
                return await act(service)
            finally:
                await service.close()

        return asyncio.run(run())

    def make(self, peer: Peer, task: GenerationTask, **more: Any) -> GeneratedMedium:
        async def act(service: Service) -> GeneratedMedium:
            return await finish(service, await service.submit(task))

        return self.use(peer, act, **more)

    def submit(self, peer: Peer, task: GenerationTask, **more: Any) -> GeneratedMedium | Job:
        return self.use(peer, lambda service: service.submit(task), **more)

    def any_modality(self, how: str) -> Modality:
        found = [modality for modality, way in self.makes.items() if way == how]
        if not found:
            pytest.skip(f"nothing is made {how}")
        return found[0]

    @property
    def first(self) -> GenerationTask:
        return a_task(next(iter(self.makes)))

    # Good cases.

    def test_it_is_one_of_the_known_services_and_says_what_it_makes(self) -> None:
        assert self.name in service_names()
        with self.peer() as peer:

            async def act(service: Service) -> tuple[str, frozenset[Modality], bool]:
                return service.name, service.modalities, service.paid

            assert self.use(peer, act) == (self.name, frozenset(self.makes), True)
            assert peer.seen == []

    def test_every_kind_of_medium_is_made_with_one_paid_call(self) -> None:
        for modality, way in self.makes.items():
            with self.peer() as peer:
                medium = self.make(peer, a_task(modality))
                assert medium.data == peer.media[modality]
                assert medium.mime == peer.mimes[modality]
                assert medium.media_type is MediaType.SYNTHETIC
                assert medium.model.startswith(f"{self.name}/") and len(medium.model) > len(self.name) + 1
                assert peer.count("submit") == len(peer.submits) == 1
                assert (peer.count("poll") > 0) == (way == JOB)

    def test_a_job_is_found_again_after_a_restart_and_isnt_ordered_again(self) -> None:
        task = a_task(self.any_modality(JOB))
        with self.peer() as peer:
            peer.waiting_polls = 3
            job = self.submit(peer, task)
            assert isinstance(job, Job) and len(job.id) <= 512 and job.poll_seconds == 0.01

            async def again(service: Service) -> list[GeneratedMedium | None]:
                return [await service.collect(job) for _ in range(4)]

            early = self.use(peer, again)
            assert early[:3] == [None, None, None]
            assert early[3] is not None and early[3].data == peer.media[task.modality]
            assert len(peer.submits) == 1

    # Refusals.

    def test_a_moderation_refusal_is_told_as_one(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.refusal("moderation"))
            with pytest.raises(RequestRefused) as caught:
                self.submit(peer, self.first)
        assert (caught.value.status, caught.value.error_code) == (422, "moderation_refused")

    def test_a_job_that_moderation_stops_is_told_as_one(self) -> None:
        task = a_task(self.any_modality(JOB))
        with self.peer() as peer:
            if not hasattr(peer, "job_failed"):
                pytest.skip("this provider's jobs can't be refused")
            peer.fail("poll", peer.job_failed())
            with pytest.raises(RequestRefused, match="moderation"):
                self.make(peer, task)

    def test_what_it_cant_follow_is_refused_before_anything_is_asked_for(self) -> None:
        modality = next(iter(self.makes))
        wishes = [{"resolution": "9K"}, {"tier": 7}, {"width": 640}, {"sparkle": 3}, {"aspect_ratio": "wide"}]
        wishes += [{"width": 8000, "height": 8000}, {"seed": "one"}, {"width": float("nan"), "height": 64}]
        with self.peer() as peer:
            for wish in wishes:
                with pytest.raises(RequestRefused) as caught:
                    self.submit(peer, a_task(modality, **wish))
                assert (caught.value.status, caught.value.error_code) == (422, "unsupported_parameters"), wish
            assert peer.seen == []

    def test_a_prompt_is_never_cut(self) -> None:
        with self.peer() as peer:
            for prompt, code in (("x" * 40_000, "prompt_too_long"), ("  ", "bad_prompt"), ("\ud800", "bad_prompt")):
                with pytest.raises(RequestRefused) as caught:
                    self.submit(peer, a_task(next(iter(self.makes)), prompt))
                assert (caught.value.status, caught.value.error_code) == (422, code)
            assert peer.seen == []

    def test_a_kind_of_medium_that_it_doesnt_make_is_refused(self) -> None:
        for modality in set(Modality) - set(self.makes):
            with self.peer() as peer, pytest.raises(RequestRefused) as caught:
                self.submit(peer, a_task(modality))
            assert caught.value.error_code == "unsupported_modality"

    # Too much, too early, out of order.

    def test_429_says_when_to_ask_again_in_seconds_or_by_date(self) -> None:
        dated = {"Date": "Sat, 21 Nov 2026 12:00:00 GMT", "Retry-After": "Sat, 21 Nov 2026 12:01:30 GMT"}
        with self.peer() as peer:
            for headers, seconds in (({"Retry-After": "7"}, 7.0), (dated, 90.0), ({"Retry-After": "86400"}, 3600.0)):
                busy = peer.refusal("busy")
                busy.headers |= headers
                peer.fail("submit", busy)
                with pytest.raises(ServiceUnavailable) as caught:
                    self.submit(peer, self.first)
                assert refusal(caught) == ("provider_busy", seconds)
            assert self.make(peer, self.first).data == peer.media[self.first.modality]

    def test_429_for_ever_stays_429_and_is_never_asked_twice_in_one_call(self) -> None:
        with self.peer() as peer:
            busy = peer.refusal("busy")
            busy.forever = True
            peer.fail("submit", busy)
            for _ in range(5):
                with pytest.raises(ServiceUnavailable) as caught:
                    self.submit(peer, self.first)
                code, wait = refusal(caught)
                assert code == "provider_busy" and wait is not None and 1 <= wait <= 3600
            assert len(peer.submits) == 5

    def test_a_5xx_may_be_tried_again_and_then_works(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.refusal("broken"))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, self.first)
            code, wait = refusal(caught)
            assert code == "provider_failed" and wait is not None
            assert self.make(peer, self.first).data == peer.media[self.first.modality]

    def test_a_question_after_a_job_that_fails_costs_nothing_and_is_asked_again(self) -> None:
        task = a_task(self.any_modality(JOB))
        troubles = [("broken", "provider_failed"), ("busy", "provider_busy"), ("key", "provider_account")]
        with self.peer() as peer:
            job = self.submit(peer, task)
            assert isinstance(job, Job)
            for trouble, expected in troubles:
                peer.fail("poll", peer.refusal(trouble))
                with pytest.raises(ServiceUnavailable) as caught:
                    self.use(peer, lambda service: service.collect(job))
                code, wait = refusal(caught)
                assert code == expected and wait is not None
            peer.fail("poll", Reply(200, PAGE, {"Content-Type": "text/html"}))
            with pytest.raises(ServiceUnavailable, match="web page") as caught:
                self.use(peer, lambda service: service.collect(job))
            assert refusal(caught)[1] is not None
            # On a busy machine a short time-out may end before the peer has seen the question, and leave it its fault.
            for fault, patience in ((Reply(hang_up=True), 20), (Reply(hold=True), 1)):
                peer.fail("poll", fault)
                with pytest.raises(ServiceUnavailable) as caught:
                    self.use(peer, lambda service: service.collect(job), service_timeout=patience)
                assert refusal(caught)[0] == "provider_unreachable" and refusal(caught)[1] is not None
            assert self.use(peer, lambda service: finish(service, job)).data == peer.media[task.modality]
            assert len(peer.submits) == 1

    def test_a_job_that_the_provider_has_forgotten_ends(self) -> None:
        task = a_task(self.any_modality(JOB))
        with self.peer() as peer:
            job = self.submit(peer, task)
            peer.jobs.clear()
            assert isinstance(job, Job)
            with pytest.raises(ServiceUnavailable) as caught:
                self.use(peer, lambda service: service.collect(job))
        assert refusal(caught) == ("provider_failed", None)

    # Broken answers.

    def test_a_web_page_with_status_200_is_no_answer(self) -> None:
        for modality in self.makes:
            with self.peer() as peer:
                peer.fail("submit", Reply(200, PAGE, {"Content-Type": "text/html"}))
                with pytest.raises(ServiceUnavailable, match="web page") as caught:
                    self.submit(peer, a_task(modality))
                assert refusal(caught) == ("provider_failed", None)
                assert len(peer.submits) == 1

    def test_something_else_than_the_medium_is_no_medium(self) -> None:
        for modality in self.makes:
            for other in (b"GIF89a" + bytes(200), b"certainly not a medium", sample_media()["image"][:150]):
                with self.peer() as peer:
                    peer.media[modality] = other
                    with pytest.raises(ServiceUnavailable) as caught:
                        self.make(peer, a_task(modality))
                    assert refusal(caught)[0] == "provider_failed"
                    assert len(peer.submits) == 1

    def test_an_answer_cut_off_half_way_may_have_been_paid_and_isnt_repeated(self) -> None:
        for modality in self.makes:
            with self.peer() as peer:
                whole = peer.media[modality] * 50
                for fault in (Reply(200, whole, {"Content-Type": peer.mimes[modality]}, cut=1000), Reply(hang_up=True)):
                    peer.fail("submit", fault)
                    with pytest.raises(ServiceUnavailable) as caught:
                        self.submit(peer, a_task(modality))
                    assert refusal(caught) == ("provider_uncertain", None)
                assert len(peer.submits) == 2

    def test_an_answer_that_doesnt_come_in_time_may_have_been_paid_and_isnt_repeated(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", Reply(hold=True))
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, self.first, service_timeout=1)
            assert refusal(caught) == ("provider_uncertain", None)
            assert len(peer.submits) == 1

    def test_a_download_that_breaks_off_is_fetched_again(self) -> None:
        task = a_task(self.any_modality(JOB))
        with self.peer() as peer:
            if "download" not in {peer._kind(asked) for asked in self._job_calls(task)}:
                pytest.skip("this provider's jobs end with the medium itself")
            half = peer.medium(task.modality)
            half.cut = len(half.body) // 2
            short = Reply(200, half.body[: len(half.body) // 2], {"Content-Type": half.headers["Content-Type"]})
            peer.fail("download", half, short)
            assert self.make(peer, task).data == peer.media[task.modality]
            assert peer.count("download") == 3 and len(peer.submits) == 1

    def test_a_download_that_always_breaks_off_is_left_for_later(self) -> None:
        task = a_task(self.any_modality(JOB))
        with self.peer() as peer:
            if "download" not in {peer._kind(asked) for asked in self._job_calls(task)}:
                pytest.skip("this provider's jobs end with the medium itself")
            for fault in (Reply(hang_up=True, forever=True), Reply(200, PAGE, {"Content-Type": "text/html"})):
                peer.faults.clear()
                peer.fail("download", fault)
                with pytest.raises(ServiceUnavailable) as caught:
                    self.make(peer, task)
                assert refusal(caught)[0] == "provider_failed" and refusal(caught)[1] is not None

    def test_an_answer_without_an_end_is_left_off(self) -> None:
        for modality in self.makes:
            with self.peer() as peer:
                peer.fail("submit", Reply(200, headers={"Content-Length": "9000000000"}, endless=True))
                with pytest.raises(ServiceUnavailable, match="bytes") as caught:
                    self.submit(peer, a_task(modality))
                assert refusal(caught) == ("provider_failed", None)

    # Keys and accounts.

    def test_a_wrong_key_is_the_operators_to_mend(self) -> None:
        with self.peer() as peer:
            with pytest.raises(ServiceUnavailable) as caught:
                self.submit(peer, self.first, **{self.key_field: "sk-wrong"})
            assert refusal(caught) == ("provider_account", None)
            assert self.key_variable in str(caught.value) and "sk-wrong" not in str(caught.value)

    def test_no_credit_is_the_operators_to_mend(self) -> None:
        with self.peer() as peer:
            peer.fail("submit", peer.refusal("credit"))
            with pytest.raises(ServiceUnavailable, match="credit") as caught:
                self.submit(peer, self.first)
            assert refusal(caught) == ("provider_account", None)

    def test_without_a_key_it_doesnt_open(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(self.key_variable, raising=False)
        with pytest.raises(ConfigurationError) as caught:
            open_service(self.name, ServiceSettings(), clock=ManualClock())
        assert caught.value.error_code == "missing_key" and self.key_variable in caught.value.message

    def test_its_settings_come_from_the_environment_and_the_operators_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with self.peer() as peer:
            file = tmp_path / ".env.gen_miner"
            lines = [f"{self.url_field.upper()}={peer.url}", f"{self.key_variable}=sk-file", "BT_NETUID=3"]
            lines += [f"{name.upper()}={value}" for name, value in self.more.items()]
            file.write_text("\n".join(lines) + "\n")
            monkeypatch.setenv(self.key_variable, peer.key)

            async def act() -> GeneratedMedium:
                service = open_service(self.name, ServiceSettings(file), clock=ManualClock())
                medium = await finish(service, await service.submit(self.first))
                await service.close()
                return medium

            assert asyncio.run(act()).data == peer.media[self.first.modality]

    @pytest.mark.parametrize(
        "bad", ["ftp://host", "https://user:pw@host/v1", "https://host/v1?key=1", "not an address"]
    )
    def test_a_base_address_that_is_none_is_named(self, bad: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            open_service(
                self.name, ServiceSettings(None, **{self.key_field: "sk-1", self.url_field: bad}), clock=ManualClock()
            )
        assert self.url_field.upper() in caught.value.message and "pw" not in str(caught.value)

    def test_nobody_listens(self) -> None:
        with self.peer() as peer:
            pass
        with pytest.raises(ServiceUnavailable) as caught:
            self.submit(peer, self.first)
        code, wait = refusal(caught)
        assert code == "provider_unreachable" and wait is not None
        assert peer.submits == []

    def test_the_key_is_in_no_line_and_no_error_whatever_the_provider_says(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        said: list[str] = []
        caplog.set_level(logging.DEBUG)
        with self.peer() as peer, structlog.testing.capture_logs() as lines:
            self.make(peer, self.first)
            faults = [peer.refusal(what) for what in ("echo", "key", "credit", "broken", "busy", "moderation")]
            faults += [Reply(hang_up=True), Reply(500, f"<p>{peer.key}</p>".encode())]
            faults += [Reply(200, f'"{peer.key}"'.encode())]
            for fault in faults:
                peer.fail("submit", fault)
                with pytest.raises(GasError) as caught:
                    self.submit(peer, self.first)
                said += [str(caught.value), repr(caught.value), str(caught.value.as_dict())]

            async def shown(service: Service) -> str:
                return repr(service) + repr(vars(service))

            said += [self.use(peer, shown), repr(self.settings(peer)), str(lines), caplog.text]
        assert lines
        assert peer.key not in "".join(said)

    def _job_calls(self, task: GenerationTask) -> list[Any]:
        with self.peer() as peer:
            self.make(peer, task)
            return list(peer.seen)
