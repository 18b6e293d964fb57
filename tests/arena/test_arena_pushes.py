"""Exams over a push: the average over its modalities decides, nobody is waited for without an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from arena_fakes import Arena, ScriptedEvaluator, outcome
from sqlalchemy import select

from gas.arena.ports import ArenaConfig, RunOutcome, RunTask
from gas.arena.push import label_push, push
from gas.arena.pushes import PushLabel, push_standing
from gas.arena.submissions import Received, file_sha256
from gas.clock import SystemClock
from gas.errors import ModelFailed, PackageRejected, RequestRefused
from gas.storage.tables import RoundRow, RunRow
from gas.types import TERMINAL_STATES, Modality, SubmissionState, Vertical

_S = SubmissionState
_IMAGE, _VIDEO, _AUDIO = Modality.IMAGE, Modality.VIDEO, Modality.AUDIO
_PUSH = "ab" * 16


class Accurate(ScriptedEvaluator):
    """The accuracy of a model stands in its package: ``w1 0.75``; a dash is a model that crashes."""

    def __call__(self, task: RunTask) -> RunOutcome:
        self.tasks.append(task)
        said = task.package.read_text().split()[1]
        if said == "-":
            raise ModelFailed("It crashed.", code="crashed")
        return outcome(float(said))


class Skipping(SystemClock):
    """The system's clock, that can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


Together = Callable[..., dict[Modality, Received]]


@pytest.fixture
def busy(make_arena: Callable[..., Arena]) -> Arena:
    arena = make_arena(evaluator=Accurate(), clock=Skipping())
    for modality in Modality:
        arena.open_round(f"round-{modality}", modality)
    arena.jobs.start()
    return arena


def hand_in(
    arena: Arena, modality: Modality, text: str, of: frozenset[Modality], *, hotkey: str = "alice", push: str = _PUSH
) -> Received:
    package = arena.home / "package.zip"
    package.write_text(text)
    received = arena.submissions.receive(hotkey, package, modality, Vertical.GENERAL, PushLabel(push, of))
    arena.chain.publish(hotkey, received, 7)
    # One commitment of a hotkey at a time: the arena reads each before the next.
    arena.foreman.tick()
    return received


def play(arena: Arena, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30.0
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        arena.foreman.tick()
        time.sleep(0.02)


def push_all(arena: Arena, **texts: str) -> dict[str, str]:
    """Push some modalities together; their states at the end."""
    of = frozenset(Modality(name) for name in texts)
    made = {name: hand_in(arena, Modality(name), text, of) for name, text in texts.items()}
    play(arena, lambda: all(arena.state(one.model_id) in TERMINAL_STATES for one in made.values()))
    return {name: arena.state(one.model_id).value for name, one in made.items()}


def examined(arena: Arena, one: Received) -> bool:
    with arena.database.read() as session:
        run = session.scalar(select(RunRow).where(RunRow.submission_id == one.model_id, RunRow.kind == "exam"))
        return run is not None and run.state == "done"


def test_a_strong_model_carries_a_weaker_one_of_its_push(busy: Arena) -> None:
    assert push_all(busy, image="w1 0.95", video="w2 0.72", audio="w3 0.75") == dict.fromkeys(Modality, "scored")


def test_below_the_average_all_of_the_push_fail_and_are_told_each_accuracy(busy: Arena) -> None:
    assert push_all(busy, image="w1 0.9", video="w2 0.5") == {"image": "exam_failed", "video": "exam_failed"}
    with busy.database.read() as session:
        runs = session.scalars(select(RunRow)).all()
    assert [run.metrics["push"]["accuracy"] for run in runs if run.metrics] == [0.7, 0.7]
    reason = busy.row(runs[0].submission_id).reasons[0]
    assert reason["code"] == "exam_accuracy"
    assert "70.0%" in reason["message"]
    assert "video 50.0%" in reason["message"]


def test_a_model_that_does_not_run_counts_as_nothing_right(busy: Arena) -> None:
    assert push_all(busy, image="w1 0.95", video="w2 -") == {"image": "exam_failed", "video": "exam_failed"}


def test_a_model_waits_in_examining_for_the_others_and_takes_no_worker_meanwhile(busy: Arena) -> None:
    of = frozenset({_IMAGE, _VIDEO})
    image = hand_in(busy, _IMAGE, "w1 0.7", of)
    play(busy, lambda: examined(busy, image))
    alone = busy.push("bob", "w9 0.9", block=3)
    play(busy, lambda: busy.state(alone.model_id) is _S.SCORED)
    assert busy.state(image.model_id) is _S.EXAMINING
    with busy.database.read() as session:
        standing = push_standing(session, "alice", _PUSH, busy.config.rules_of)
    assert (standing.exams, standing.waiting_for) == ({"image": 0.7}, ("video",))
    video = hand_in(busy, _VIDEO, "w2 0.95", of)
    play(busy, lambda: {busy.state(one.model_id) for one in (image, video)} == {_S.SCORED})


def test_after_the_time_limit_the_average_is_over_those_that_are_there(busy: Arena) -> None:
    image = hand_in(busy, _IMAGE, "w1 0.9", frozenset(Modality))
    video = hand_in(busy, _VIDEO, "w2 0.75", frozenset(Modality))
    play(busy, lambda: examined(busy, image) and examined(busy, video))
    busy.foreman.tick()
    assert busy.state(image.model_id) is _S.EXAMINING
    busy.clock.ahead = busy.config.exam_wait_seconds + 1.0  # type: ignore[attr-defined]
    play(busy, lambda: {busy.state(one.model_id) for one in (image, video)} == {_S.SCORED})


@pytest.mark.parametrize("end", ["withdrawn", "no round", "refused"])
def test_what_can_not_come_is_not_waited_for(busy: Arena, end: str) -> None:
    of = frozenset({_IMAGE, _VIDEO})
    image = hand_in(busy, _IMAGE, "w1 0.9", of)
    if end == "no round":
        with busy.database.write() as session:
            session.get_one(RoundRow, "round-video").state = "closed"
    if end == "refused":
        with pytest.raises(PackageRejected):
            hand_in(busy, _VIDEO, "bad", of)
    else:
        video = hand_in(busy, _VIDEO, "w2 0.1", of)
        if end == "withdrawn":
            busy.submissions.withdraw("alice", video.model_id)
    play(busy, lambda: busy.state(image.model_id) is _S.SCORED)


def test_nobody_joins_anothers_push_and_a_push_has_one_model_of_each_modality(busy: Arena) -> None:
    of = frozenset({_IMAGE, _VIDEO})
    hers = hand_in(busy, _IMAGE, "w1 0.6", of)
    his = hand_in(busy, _VIDEO, "w2 1.0", of, hotkey="bob")
    play(busy, lambda: examined(busy, hers) and examined(busy, his))
    for _ in range(3):
        busy.foreman.tick()
    assert {busy.state(one.model_id) for one in (hers, his)} == {_S.EXAMINING}
    with pytest.raises(RequestRefused, match="already"):
        hand_in(busy, _IMAGE, "w3 1.0", of)
    with pytest.raises(RequestRefused, match="other modalities"):
        hand_in(busy, _AUDIO, "w4 1.0", frozenset({_IMAGE, _AUDIO}))


def test_a_wait_survives_the_end_of_the_process(make_arena: Callable[..., Arena], busy: Arena) -> None:
    of = frozenset({_IMAGE, _VIDEO})
    image = hand_in(busy, _IMAGE, "w1 0.7", of)
    play(busy, lambda: examined(busy, image))
    busy.job.stopping.set()
    busy.jobs.stop()
    other = make_arena(evaluator=Accurate())
    other.chain.published = busy.chain.published
    other.jobs.start()
    video = hand_in(other, _VIDEO, "w2 0.95", of)
    play(other, lambda: {other.state(one.model_id) for one in (image, video)} == {_S.SCORED})
    exams = [task.package.name for task in other.evaluator.tasks if task.kind == "exam"]
    assert len(exams) == 1


class Told:
    """Stands in for a signed client: the arena's list of the author's submissions."""

    def __init__(self, *mine: dict[str, Any]) -> None:
        self.mine = mine

    async def get(self, *_: object, **__: object) -> Any:
        return type("Answer", (), {"json": lambda _: list(self.mine)})()


def test_the_same_packages_have_the_same_label_and_what_was_pushed_before_does_not_belong_to_it(tmp_path: Path) -> None:
    packages = {modality: tmp_path / f"{modality}.zip" for modality in Modality}
    for modality, path in packages.items():
        path.write_text(modality)

    def label(*mine: dict[str, Any]) -> PushLabel | None:
        client: Any = Told(*mine)
        found = label_push(packages, Vertical.GENERAL, url="http://arena", arena_hotkey="5A", client=client)
        return asyncio.run(found)

    def known(modality: Modality, push_id: str | None, state: str = "examining", **more: object) -> dict[str, Any]:
        push = None if push_id is None else {"push_id": push_id, "modalities": ["image", "video"]}
        return {"sha256": file_sha256(packages[modality]), "state": state, "push": push, **more}

    whole = label()
    assert whole is not None
    assert whole.modalities == frozenset(Modality)
    assert label(known(_IMAGE, whole.push_id)) == whole
    assert label(known(_IMAGE, whole.push_id, "withdrawn"), known(_VIDEO, whole.push_id)) == whole
    ours, missing = {"code": "worker_lost"}, [{"code": "commitment_missing"}]
    assert label(known(_IMAGE, None, "failed", error=ours), known(_VIDEO, None, "rejected", reasons=missing)) == whole
    # A model that failed by itself is not taken again.
    for last in (known(_IMAGE, None, "failed", error=None), known(_IMAGE, None, "rejected", reasons=[])):
        assert label(last) == label(known(_IMAGE, None, "scored"))
    pair = label(known(_IMAGE, None, "scored"))
    assert pair is not None
    assert pair.modalities == {_VIDEO, _AUDIO}
    assert label(known(_IMAGE, None), known(_VIDEO, pair.push_id)) == pair
    assert label(known(_IMAGE, None), known(_VIDEO, None)) is None


def test_a_package_that_was_withdrawn_with_a_score_is_not_said_to_be_pushed(tmp_path: Path) -> None:
    package = tmp_path / "model.zip"
    package.write_text("w1")

    class Knowing(Told):
        async def post_multipart(self, *_: object, **__: object) -> Any:
            raise RequestRefused("This hotkey has handed in this content already.", status=409, code="content_known")

    client: Any = Knowing({"sha256": file_sha256(package), "state": "withdrawn", "model_id": "m", "key": "k"})
    pushing = push(
        package, _IMAGE, Vertical.GENERAL, url="http://arena", arena_hotkey="5A", hotkey="5B", netuid=1,
        client=client, chain=None, checked=True,  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(RequestRefused, match="not run again"):
        asyncio.run(pushing)


@pytest.mark.parametrize(
    "sent",
    [
        (None, "image,video"),
        (_PUSH, None),
        ("zz", "image,video"),
        (_PUSH, "video"),
        (_PUSH, "image,image"),
        (_PUSH, "image,smell"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused(sent: tuple[Any, Any]) -> None:
    with pytest.raises(RequestRefused) as caught:
        PushLabel.parse(*sent, _IMAGE)
    assert caught.value.error_code == "bad_push"


def test_a_push_of_one_is_a_push_like_before() -> None:
    assert PushLabel.parse(None, None, _IMAGE) is None
    assert PushLabel.parse(_PUSH, "image", _IMAGE) is None


def test_a_model_that_is_taken_back_after_its_exam_counts_as_a_push(make_arena: Callable[..., Arena]) -> None:
    arena = make_arena(config=ArenaConfig(pushes_per_round=1))
    arena.open_round()
    unseen = arena.push("alice", "w0")
    arena.submissions.withdraw("alice", unseen.model_id)
    seen = arena.push("alice", "w1", block=1)

    class Withdrawing(ScriptedEvaluator):
        def __call__(self, task: RunTask) -> RunOutcome:
            arena.submissions.withdraw("alice", seen.model_id)
            return outcome()

    object.__setattr__(arena.job, "evaluate", Withdrawing())
    arena.jobs.start()
    play(arena, lambda: arena.state(seen.model_id) is _S.WITHDRAWN)
    package = Path(arena.home / "package.zip")
    package.write_text("w2")
    with pytest.raises(RequestRefused) as caught:
        arena.submissions.receive("alice", package, _IMAGE, Vertical.GENERAL)
    assert caught.value.error_code == "push_limit"
