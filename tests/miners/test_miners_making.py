"""From a task to a medium or to a failure with a name: retries, limits, and what is never asked twice."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import noise_png

from gas.clock import ManualClock, SeededIds, SystemClock
from gas.errors import InfrastructureError, RequestRefused, ServiceUnavailable, StorageError
from gas.generation.base import GeneratedMedium, GenerationTask, Job
from gas.generation.signing import TestAuthority
from gas.miners.local import LocalService
from gas.miners.making import MakingRules, MediumMaker
from gas.miners.seal import CertificateSeal
from gas.miners.states import Task, TaskState
from gas.miners.tasks import TaskStore
from gas.types import MediaType, Modality

PNG = noise_png(48)


def picture(data: bytes = PNG, **values: Any) -> GeneratedMedium:
    return GeneratedMedium(data, "image/png", MediaType.SYNTHETIC, "scripted-1", **values)


class Scripted:
    """A service that plays a list of answers, and remembers what it was asked."""

    modalities = frozenset({Modality.IMAGE})
    edits = True

    def __init__(self, *answers: object, paid: bool = True, name: str = "scripted") -> None:
        self.name, self.paid = name, paid
        self.answers = list(answers)
        self.asked: list[GenerationTask] = []
        self.polled: list[str] = []

    def _play(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer

    async def submit(self, task: GenerationTask) -> GeneratedMedium | Job:
        self.asked.append(task)
        answer = self._play()
        return await answer if asyncio.iscoroutine(answer) else answer

    async def collect(self, job: Job) -> GeneratedMedium | None:
        self.polled.append(job.id)
        return self._play()

    async def close(self) -> None: ...


class Unsealed:
    def check(self) -> None: ...

    def sign(self, medium: GeneratedMedium) -> bytes:
        return medium.data


class Ground:
    """A store with one task, and a maker whose pauses are the clock's."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.store = TaskStore(folder, self.clock, SeededIds())
        self.pauses: list[float] = []
        task = self.store.add("v", "image", "a cat", {"resolution": "1K"}, "http://x", limit=9)
        assert task is not None
        self.id = task.id

    @property
    def task(self) -> Task:
        task = self.store.get(self.id)
        assert task is not None
        return task

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    def make(self, service: Scripted | LocalService, seal: Any = None, **rules: float) -> float | None:
        """Work on the task until it waits for delivery or for another time."""
        maker = MediumMaker(
            self.store, {Modality.IMAGE: service}, seal or Unsealed(), self.clock, MakingRules(**rules),
            sleep=self._sleep,
        )  # fmt: skip
        return asyncio.run(maker.make(self.task))


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path / "state")
    yield ground
    ground.store.close()


@pytest.fixture
def log() -> Iterator[LogCapture]:
    capture = LogCapture()
    old = structlog.get_config()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    yield capture
    structlog.configure(**old)


def test_the_same_task_asks_with_the_same_seed_again(ground: Ground) -> None:
    broken = Scripted(ServiceUnavailable("Busy.", code="provider_busy", retry_after=5), picture(), paid=False)
    assert ground.make(broken) == 5
    assert ground.make(broken) is None
    assert broken.asked[0].seed == broken.asked[1].seed
    assert broken.asked[0].parameters == {"resolution": "1K"}
    assert ground.store.medium(ground.task) == PNG
    assert (ground.task.model, ground.task.width, ground.task.height) == ("scripted-1", 48, 48)


def test_a_task_is_marked_before_a_paid_call_and_not_asked_again_when_the_mark_is_found(ground: Ground) -> None:
    seen: list[TaskState] = []

    async def cut_off() -> GeneratedMedium:
        seen.append(ground.task.state)
        raise asyncio.CancelledError

    service = Scripted(cut_off, picture())
    with pytest.raises(asyncio.CancelledError):
        ground.make(service)
    assert seen == [TaskState.ASKING]
    ground.store.recover()
    assert ground.task.state is TaskState.DELIVERING
    assert ground.task.error_code == "provider_uncertain"
    assert len(service.asked) == 1


def test_a_job_is_asked_for_again_after_a_restart_and_never_ordered_twice(ground: Ground) -> None:
    async def cut_off() -> None:
        raise asyncio.CancelledError

    stopped = asyncio.CancelledError()
    service = Scripted(Job("job-7", 3.0), None, stopped, None, picture())
    with pytest.raises(asyncio.CancelledError):
        ground.make(service)
    recovery = ground.store.recover()
    assert [(task.state, task.job_id) for task in recovery.open] == [(TaskState.RUNNING, "job-7")]
    ground.pauses.clear()
    assert ground.make(service) is None
    # The first question comes at once: the job has had its time while nobody was there.
    assert ground.pauses == [0.0, 3.0]
    assert len(service.asked) == 1
    assert service.polled == ["job-7"] * 4
    assert ground.task.state is TaskState.DELIVERING


def test_local_work_that_was_cut_off_is_done_again(ground: Ground) -> None:
    ground.store.start(ground.id, "local", paid=False)
    ground.store.recover()
    service = Scripted(picture(), paid=False)
    assert ground.make(service) is None
    assert len(service.asked) == 1


def test_429_for_an_hour_ends_in_time_for_the_failure_to_be_told(ground: Ground, log: LogCapture) -> None:
    busy = [ServiceUnavailable("Busy.", code="provider_busy", retry_after=60.0) for _ in range(60)]
    service = Scripted(*busy)
    began = ground.clock.time()
    while (pause := ground.make(service)) is not None:
        assert ground.task.state is TaskState.QUEUED
        ground.clock.advance(pause)
    assert ground.task.error_code == "provider_busy"
    assert ground.task.error == "The miner could not make it."
    assert 500 < ground.clock.time() - began < 600
    assert len(service.asked) == 10
    assert "MINER_MAX_CONCURRENT_TASKS" in log.entries[-1]["what_to_do"]


def test_while_a_provider_rests_other_tasks_do_not_ask_it(ground: Ground) -> None:
    service = Scripted(ServiceUnavailable("Busy.", code="provider_busy", retry_after=30.0), picture())
    other = ground.store.add("w", "image", "a dog", {}, "http://x", limit=9)
    assert other is not None
    maker = MediumMaker(ground.store, {Modality.IMAGE: service}, Unsealed(), ground.clock, MakingRules())

    async def both() -> tuple[float | None, float | None]:
        return await maker.make(ground.task), await maker.make(other)

    assert asyncio.run(both()) == (30.0, 30.0)
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RequestRefused("No weapons.", status=422, code="moderation_refused"), "moderation_refused", "No weapons."),
        (ServiceUnavailable("Key?", code="provider_account"), "provider_account", "The miner could not make it."),
        (ServiceUnavailable("Lost.", code="provider_uncertain", retry_after=1), "provider_uncertain",
         "The miner could not make it."),
        (InfrastructureError("/dev/x burned."), "infrastructure", "The miner could not make it."),
    ],
)  # fmt: skip
def test_a_failure_has_a_code_and_tells_the_validator_no_secret(
    ground: Ground, log: LogCapture, error: Exception, code: str, told: str
) -> None:
    assert ground.make(Scripted(error)) is None
    assert (ground.task.state, ground.task.error_code, ground.task.error) == (TaskState.DELIVERING, code, told)
    assert log.entries[-1]["event"] == "generation_failed"
    assert log.entries[-1]["what_to_do"]


@pytest.mark.parametrize("data", [b"<html>Please log in</html>", PNG[:40], b""])
def test_a_picture_that_is_none_is_not_delivered(ground: Ground, data: bytes) -> None:
    ground.make(Scripted(picture(data)))
    assert (ground.task.error_code, ground.task.media_blob) == ("bad_medium", None)


def test_a_paid_call_that_outlasts_the_task_is_uncertain_and_local_work_is_late(ground: Ground) -> None:
    def forever() -> Any:
        return asyncio.sleep(3600)

    ground.make(Scripted(forever), max_age_seconds=0.05)
    assert ground.task.error_code == "provider_uncertain"
    again = ground.store.add("v", "image", "b", {}, "http://x", limit=9)
    assert again is not None
    ground.id = again.id
    ground.make(Scripted(forever, paid=False), max_age_seconds=0.05)
    assert ground.task.error_code == "task_timeout"


def test_an_expired_certificate_stops_the_work_before_anything_is_paid(ground: Ground, tmp_path: Path) -> None:
    TestAuthority(tmp_path / "ca", ground.clock).leaf("miner", "Lab")
    seal = CertificateSeal(tmp_path / "ca", "miner", "t", ground.clock)
    ground.clock.advance(366 * 86_400)
    fresh = ground.store.add("v", "image", "a cat", {}, "http://x", limit=9)
    assert fresh is not None
    ground.id = fresh.id
    service = Scripted(picture())
    ground.make(service, seal)
    assert (ground.task.error_code, service.asked) == ("certificate_expired", [])


def test_media_that_a_provider_has_signed_are_not_signed_again(tmp_path: Path) -> None:
    TestAuthority(tmp_path / "ca", SystemClock()).leaf("miner", "Lab")
    seal = CertificateSeal(tmp_path / "ca", "miner", "t", SystemClock())
    assert seal.sign(picture(signed=True)) == PNG
    assert len(seal.sign(picture())) > len(PNG)


def _full() -> StorageError:
    error = StorageError("The blob could not be stored.")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


def _failing(times: int, real: Callable[..., Any]) -> Callable[..., Any]:
    left = [times]

    def call(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise _full()
        return real(*arguments, **options)

    return call


def test_a_full_disk_is_waited_for_a_while_so_that_a_paid_medium_is_kept(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, log: LogCapture
) -> None:
    monkeypatch.setattr(ground.store, "generated", _failing(3, ground.store.generated))
    service = Scripted(picture())
    assert ground.make(service) is None
    assert ground.task.state is TaskState.DELIVERING
    assert ground.task.error is None
    full = [entry for entry in log.entries if entry.get("code") == "disk_full"]
    assert "MINER_STATE_DIR" in full[0]["what_to_do"]


def test_a_disk_that_stays_full_ends_the_task_with_its_code(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground.store, "generated", _failing(10**6, ground.store.generated))
    ground.make(Scripted(picture()))
    assert ground.task.error_code == "disk_full"


def test_a_job_whose_service_is_no_longer_set_up_ends_with_a_name(ground: Ground) -> None:
    ground.store.start(ground.id, "runway", paid=True)
    ground.store.running(ground.id, Job("j"))
    service = Scripted(picture())
    ground.make(service)
    assert (ground.task.error_code, service.polled) == ("service_gone", [])


class Painter:
    name = "painter"
    modalities = frozenset({Modality.IMAGE})

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        raise MemoryError


def test_a_pipeline_without_memory_fails_one_task_only(ground: Ground) -> None:
    ground.make(LocalService(Painter()))
    assert ground.task.error_code == "out_of_memory"


def test_a_pipeline_that_never_ends_does_not_hold_up_the_end_of_the_service() -> None:
    program = """
import asyncio, threading
from gas.generation.base import GenerationTask
from gas.miners.local import LocalService, leave_pipelines
from gas.types import Modality

begun = threading.Event()

class Endless:
    name, modalities = "endless", frozenset({Modality.IMAGE})
    def generate(self, task):
        begun.set()
        threading.Event().wait()

async def main():
    service = LocalService(Endless())
    work = asyncio.create_task(service.submit(GenerationTask(Modality.IMAGE, "a cat", 1)))
    await asyncio.to_thread(begun.wait)
    work.cancel()
    await service.close()
    print("closed")

asyncio.run(main())
leave_pipelines()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")
