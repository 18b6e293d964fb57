"""Rounds of challenges: who is asked what, and what is on record of those who do not do as they should."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import PROMPTS, WEBHOOK, Ground, Miner, key, neuron

from gas.chain.base import Axon, Metagraph
from gas.scoring.generators import TIERS
from gas.types import Hotkey, Modality
from gas.validator.asking import Ask
from gas.validator.sampling import Target, axon_url, candidates, draw_wish, sample
from gas.validator.tasks import ChallengeState


def test_a_round_asks_a_generator_for_what_it_makes_and_puts_the_task_on_record(tmp_path: Path) -> None:
    miner = Miner("one", 3, ("video", "audio"))
    ground = Ground(tmp_path, miner, modalities=(Modality.IMAGE, Modality.VIDEO))
    ground.tick(10)
    ((path, body, webhook),) = miner.asked
    (row,) = ground.rows()
    assert path == "/gen_video" and webhook == WEBHOOK and body["prompt"] in PROMPTS
    assert (row.state, row.task_id, row.uid, row.block) == ("accepted", "t1", 3, 10)
    assert body["parameters"] == {"resolution": TIERS[Modality.VIDEO][row.tier or 0]} == row.parameters
    assert row.deadline == ground.clock.now + 60 and ground.tasks == [(miner.hotkey, "t1", row.deadline)]
    assert ground.bank.count(unused=True) == 3


def slow(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("too slow", request=request)


def dead(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody", request=request)


REFUSAL = {"error": {"code": "bad_prompt", "message": "No such\x00 thing."}}
ANSWERS = {
    "dead": (dead, "failed", "silent"),
    "busy": (lambda _r: httpx.Response(503), "untaken", "busy"),
    "limiting": (lambda _r: httpx.Response(429, json=REFUSAL), "untaken", "busy"),
    "refusing": (lambda _r: httpx.Response(422, json=REFUSAL), "failed", "refused"),
    "broken": (lambda _r: httpx.Response(500), "failed", "bad_answer"),
    "no task id": (lambda _r: httpx.Response(202, json={"status": "pending"}), "failed", "bad_answer"),
    "no JSON": (lambda _r: httpx.Response(202, content=b"\xff" * 10), "failed", "bad_answer"),
    "odd task id": (lambda _r: httpx.Response(202, json={"task_id": "a\x00b"}), "failed", "bad_answer"),
    "endless": (lambda _r: httpx.Response(202, content=b" " * (2 << 20)), "failed", "bad_answer"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_miner_does_wrong_is_on_record(tmp_path: Path, name: str) -> None:
    bad, honest = Miner("bad", 1), Miner("good", 2)
    bad.answer, state, code = ANSWERS[name]
    ground = Ground(tmp_path, bad, honest)
    ground.tick(10)
    (row,) = ground.rows(bad)
    assert (row.state, row.reasons[0]["code"]) == (state, code) and row.settled_at == ground.clock.now
    assert "\x00" not in row.reasons[0]["message"]
    assert ground.rows(honest)[0].state == "accepted"


def test_a_miner_that_takes_too_long_to_answer_is_slow(tmp_path: Path) -> None:
    import asyncio

    ground = Ground(tmp_path, Miner("slow", 1))
    rounds = ground.rounds(timeout=0.05)

    async def never(*_args: object, **_rest: object) -> None:
        await asyncio.Event().wait()

    rounds._client.send = never  # type: ignore[method-assign, assignment]
    ground.tick(10, rounds)
    (row,) = ground.rows()
    assert (row.state, row.reasons[0]["code"], row.prompt) == ("failed", "slow", "")


def test_a_task_id_that_was_used_before_is_a_lie_and_touches_nothing(tmp_path: Path) -> None:
    miner = Miner("one", 1)
    miner.answer = lambda _r: httpx.Response(202, json={"task_id": "always"})
    ground = Ground(tmp_path, miner)
    ground.tick(10)
    ground.tick(20)
    first, second = sorted(ground.rows(), key=lambda row: row.block or 0)
    assert (first.state, first.task_id) == ("accepted", "always")
    assert (second.state, second.reasons[0]["code"]) == ("failed", "task_id_reused")


def test_a_miner_that_gives_another_hotkey_is_not_asked_but_on_record(tmp_path: Path) -> None:
    liar, detector = Miner("liar", 1), Miner("detector", 2)
    told = {"miner_type": "GENERATOR", "hotkey": key("another").ss58_address, "modalities": ["image"]}
    liar.info = lambda _r: httpx.Response(200, json=told)
    detector.info = lambda _r: httpx.Response(200, json={"miner_type": "DETECTOR", "hotkey": detector.hotkey})
    ground = Ground(tmp_path, liar, detector)
    ground.tick(10)
    assert not liar.asked and not detector.asked
    (row,) = ground.rows()
    assert (row.miner, row.state, row.reasons[0]["code"]) == (liar.hotkey, "failed", "bad_info")
    assert ground.bank.count(unused=True) == 2


def test_who_generates_nothing_takes_no_place_in_a_round_and_a_new_validator_is_not_on_record(tmp_path: Path) -> None:
    others = [Miner(f"other{uid}", uid) for uid in (1, 2, 3, 4)]
    new, silent, poor, detector = others
    new.info = lambda _r: httpx.Response(404, json={"detail": "Not Found"})
    poor.info = new.info
    silent.info = dead
    detector.info = lambda _r: httpx.Response(200, json={"miner_type": "DETECTOR", "hotkey": detector.hotkey})
    honest = [Miner(f"good{uid}", uid) for uid in (5, 6)]
    ground = Ground(tmp_path, *others, *honest)
    plain = ground.graph
    permits = {new.uid, silent.uid, *(miner.uid for miner in honest)}
    ground.graph = lambda block=1: replace(  # type: ignore[method-assign]
        plain(block), neurons=tuple(replace(one, permit=one.uid in permits) for one in plain(block).neurons)
    )
    rounds = ground.rounds(sample_size=3)
    ground.tick(10, rounds)
    # Pay brings miners a permit too: they are challenged. Who has none answers for what it published.
    assert {(row.miner, row.state) for row in ground.rows()} == {
        (poor.hotkey, "failed"), *((miner.hotkey, "accepted") for miner in honest)
    }  # fmt: skip
    # A generator with a permit that goes away is on record.
    honest[0].info = honest[0].answer = dead
    ground.tick(20, rounds)
    ground.tick(30, rounds)
    (gone,) = {row.state for row in ground.rows(honest[0]) if row.block in (20, 30)}
    assert gone == "failed" and not ground.rows(new) + ground.rows(silent) + ground.rows(detector)


def test_when_nobody_at_all_can_be_reached_nobody_is_to_blame(tmp_path: Path) -> None:
    miners = [Miner(f"m{uid}", uid) for uid in (1, 2, 3)]
    for miner in miners:
        miner.info = dead
    ground = Ground(tmp_path, *miners)
    ground.tick(10)
    assert {(row.state, row.reasons[0]["code"]) for row in ground.rows()} == {("untaken", "validator_offline")}
    miners[0].info = None
    ground.tick(20)
    late = [row for row in ground.rows() if row.block == 20]
    assert Counter(row.state for row in late) == {"accepted": 1, "failed": 2}


def test_a_restart_repeats_no_round_and_a_long_pause_makes_no_burst(tmp_path: Path) -> None:
    miner = Miner("one", 1)
    ground = Ground(tmp_path, miner)
    for block in (10, 11, 19, 19):
        ground.tick(block)
    assert len(miner.asked) == 1
    ground.tick(5_000)
    ground.tick(5_001)
    assert len(miner.asked) == 2
    # The chain fell back by some blocks, as after a change of node.
    ground.tick(4_999)
    assert len(miner.asked) == 2


def test_a_generator_with_its_hands_full_and_a_full_backlog_are_left_alone(tmp_path: Path) -> None:
    miner = Miner("one", 1)
    ground = Ground(tmp_path, miner)
    rounds = ground.rounds(max_open=2)
    for block in (10, 20, 30, 40):
        ground.tick(block, rounds)
    assert len(miner.asked) == 2
    ground.challenges.claim(miner.hotkey, "t1")
    report = ground.tick(50, ground.rounds(max_backlog=1))
    assert report.skipped and len(miner.asked) == 2  # type: ignore[attr-defined]


def test_while_nobody_could_deliver_nobody_is_asked(tmp_path: Path) -> None:
    miner = Miner("one", 1)
    ground = Ground(tmp_path, miner)
    assert ground.tick(10, ground.rounds(obstacle=lambda: "The disk is nearly full.")).skipped  # type: ignore[attr-defined]
    assert not miner.asked and not ground.rows()
    ground.tick(11)
    assert len(miner.asked) == 1


def test_who_is_busy_for_what_pays_little_is_asked_the_very_same_again(tmp_path: Path) -> None:
    picky, honest = Miner("picky", 1), Miner("honest", 2)
    ground = Ground(tmp_path, picky, honest)

    def choose(request: httpx.Request) -> httpx.Response:
        best = picky.asked[-1][1]["parameters"] == {"resolution": "4K"}
        return httpx.Response(202, json={"task_id": f"t{len(picky.asked)}"}) if best else httpx.Response(503)

    picky.answer = choose
    for block in range(10, 130, 10):
        # Each of them as after a restart, and sometimes the miner can't even be asked what it makes.
        picky.info = dead if block == 90 else None
        ground.clock.advance(60)
        ground.tick(block, ground.rounds(max_open=100))
    first = next(at for at, row in enumerate(picky.asked) if row[1]["parameters"] != {"resolution": "4K"})
    assert first < 5 and len(picky.asked) == 11
    assert {str(asked) for asked in picky.asked[first:]} == {str(picky.asked[first])}
    taken = {row.tier for row in ground.rows(honest) if row.state == "accepted"}
    assert len(taken) > 1 and len([row for row in ground.rows(picky) if row.state == "accepted"]) == first


def test_a_wish_that_was_taken_after_all_is_done_with(tmp_path: Path) -> None:
    miner = Miner("one", 1, ("image", "video"))
    ground = Ground(tmp_path, miner, modalities=(Modality.IMAGE, Modality.VIDEO))
    for block in range(10, 130, 10):
        miner.answer = (lambda _r: httpx.Response(503)) if block % 20 else None
        ground.clock.advance(1)
        ground.tick(block, ground.rounds(max_open=100))
    wishes = {
        state: Counter((row.modality, row.prompt, row.tier) for row in ground.rows() if row.state == state)
        for state in ("accepted", "untaken")
    }
    # Of each modality one wish may still be owed.
    assert wishes["accepted"].total() == 6 and (wishes["untaken"] - wishes["accepted"]).total() <= 3
    assert len(wishes["accepted"]) > 2


def test_without_prompts_the_round_waits_and_says_what_to_do(tmp_path: Path) -> None:
    ground = Ground(tmp_path, Miner("one", 1))
    ground.bank.remove([prompt.id for prompt in ground.bank.page()])
    report = ground.tick(10)
    assert "compose" in report.skipped and not ground.rows()  # type: ignore[attr-defined]


def test_open_challenges_of_a_replaced_hotkey_end(tmp_path: Path) -> None:
    gone, stays = Miner("gone", 1), Miner("stays", 2)
    ground = Ground(tmp_path, gone, stays)
    rounds = ground.rounds()
    ground.tick(10, rounds)
    ground.tick(20, rounds)
    ground.challenges.claim(gone.hotkey, "t1")
    assert ground.asking.end_replaced({stays.hotkey}) == 2
    assert {(row.task_id, row.state) for row in ground.rows(gone)} == {("t1", "refused"), ("t2", "expired")}
    assert {row.reasons[0]["code"] for row in ground.rows(gone)} == {"hotkey_replaced"}
    assert {row.state for row in ground.rows(stays)} == {"accepted"}


def test_what_a_kill_cut_off_ends_without_blame_and_late_tasks_expire(tmp_path: Path) -> None:
    miner = Miner("one", 1)
    ground = Ground(tmp_path, miner)
    ground.tick(10)
    ask = Ask("asked-x", miner.hotkey, 1, Modality.IMAGE, 0, "p", None, 11)
    ground.asking.ask([ask], 30.0, ground.state, {})
    assert ground.asking.end_interrupted() == 1
    ground.clock.advance(70)
    assert ground.challenges.expire() == 1
    states = {row.task_id: row.state for row in ground.rows()}
    assert states == {"t1": ChallengeState.EXPIRED, "asked-x": ChallengeState.UNTAKEN}
    assert ground.challenges.counts(miner.hotkey).refused == 1


def test_only_public_addresses_of_those_who_do_not_validate_are_asked() -> None:
    axon = Axon("8.8.8.8", 8091)
    graph = Metagraph(
        1,
        9,
        0,
        (
            neuron(0, "ours", axon),
            neuron(1, "miner", axon),
            neuron(2, "validator", axon, permit=True, trust=0.9),
            neuron(3, "rich miner", axon, permit=True),
            neuron(4, "no axon"),
            neuron(5, "inside", Axon("10.0.0.1", 80)),
            neuron(6, "metadata", Axon("169.254.169.254", 80)),
            neuron(7, "nonsense", Axon("evil.example", 80)),
        ),
    )
    assert [target.uid for target in candidates(graph, "ours", local=False)] == [1, 3]
    assert 5 in [target.uid for target in candidates(graph, "ours", local=True)]
    assert axon_url(Axon("2001:4860:4860::8888", 9), local=False) == "http://[2001:4860:4860::8888]:9"


@settings(max_examples=50, deadline=None)
@given(
    loads=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=12),
    count=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_a_sample_takes_those_who_were_asked_least(loads: list[tuple[int, int]], count: int, seed: int) -> None:
    targets = [Target(uid, Hotkey(f"h{uid}"), "u") for uid in range(len(loads))]
    opened = {f"h{uid}": load[0] for uid, load in enumerate(loads)}
    recent = {f"h{uid}": load[1] for uid, load in enumerate(loads)}
    drawn = sample(targets, opened, recent, count, 4, np.random.default_rng(seed))
    free = sorted(recent[t.hotkey] for t in targets if opened[t.hotkey] < 4)
    assert sorted(recent[t.hotkey] for t in drawn) == free[:count]
    assert len({t.uid for t in drawn}) == len(drawn)


def test_tiers_are_drawn_by_their_odds() -> None:
    rng = np.random.default_rng(5)
    tiers = Counter(draw_wish([Modality.IMAGE], rng)[1] for _ in range(4000))
    assert [round(tiers[tier] / 4000, 1) for tier in range(3)] == [0.4, 0.4, 0.2]
    assert draw_wish([Modality.AUDIO], rng) == (Modality.AUDIO, 0, TIERS[Modality.AUDIO][0])
