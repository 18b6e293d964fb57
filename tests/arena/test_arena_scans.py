"""The static checks in an arena: whatever they break on, everybody else's submissions go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import arena_fakes
import pytest
from arena_fakes import Arena

from gas.arena.ports import CheckedPackage
from gas.chain.base import Commitment
from gas.errors import ChainError, InfrastructureError
from gas.storage.tables import SubmissionRow
from gas.types import Modality, SubmissionState

_S = SubmissionState
Make = Callable[..., Arena]


def breaking(path: Path, modality: Modality) -> CheckedPackage:
    """Checks that break on some packages."""
    if path.read_text().startswith("bomb"):
        raise RecursionError("maximum recursion depth exceeded")
    return arena_fakes.check(path, modality)


@pytest.fixture
def brittle(arena: Arena) -> Arena:
    arena.submissions = replace(arena.submissions, check=breaking)
    object.__setattr__(arena.foreman, "submissions", arena.submissions)
    return arena


def left_behind(arena: Arena, *submission_ids: str, scans: int = 1) -> None:
    """As a service leaves them that died while it scanned."""
    with arena.database.write() as session:
        for submission_id in submission_ids:
            row = session.get_one(SubmissionRow, submission_id)
            row.state, row.weights_sha256, row.state_since, row.scans = "scanning", None, 0.0, scans


def test_a_package_on_which_the_checks_break_is_our_fault_and_ends(brittle: Arena) -> None:
    for _ in range(2):
        with pytest.raises(InfrastructureError) as broken:
            brittle.push("alice", "bomb")
        assert broken.value.error_code == "internal"
    assert brittle.push("alice", "w1").slot == 1
    assert len(list(brittle.blobs.names())) == 1


def test_one_package_takes_no_worker_down_and_delays_nobody(brittle: Arena) -> None:
    bomb, good = brittle.push("mallory", "w1"), brittle.push("alice", "w2")
    left_behind(brittle, bomb.model_id, good.model_id)
    brittle.blobs.get_file(brittle.row(good.model_id).zip_blob or "", brittle.home / "x")
    with brittle.database.write() as session:
        row = session.get_one(SubmissionRow, bomb.model_id)
        (brittle.home / "bomb").write_text("bomb")
        row.zip_blob = brittle.blobs.put_file(brittle.home / "bomb")
    brittle.jobs.start()
    for _ in range(2):
        brittle.foreman.tick()
    row = brittle.row(bomb.model_id)
    assert (row.state, row.error and row.error["code"]) == ("failed", "internal")
    assert brittle.row(good.model_id).weights_sha256 is not None


def test_a_package_that_kills_whoever_scans_it_is_given_up(arena: Arena) -> None:
    received = arena.push("mallory", "w1")
    left_behind(arena, received.model_id, scans=3)
    arena.submissions.resume_scans(older_than_seconds=0.0)
    row = arena.row(received.model_id)
    assert (row.state, row.error and row.error["code"]) == ("failed", "worker_lost")


def test_of_two_workers_one_scans_what_was_left_behind(arena: Arena) -> None:
    received = arena.push("alice", "w1")
    left_behind(arena, received.model_id)
    others: list[object] = []

    def scanning(path: Path, modality: Modality) -> CheckedPackage:
        others.extend(arena.submissions.resume_scans(older_than_seconds=900.0))
        return arena_fakes.check(path, modality)

    mine = replace(arena.submissions, check=scanning).resume_scans(older_than_seconds=900.0)
    assert (mine, others) == ([received.model_id], [])


def test_a_package_that_is_withdrawn_and_pushed_again_while_it_is_scanned_stays_as_its_author_wants(
    arena: Arena,
) -> None:
    def withdrawn(path: Path, modality: Modality) -> CheckedPackage:
        arena.submissions.withdraw("alice", received.model_id)
        made.append(arena.push("alice", "w1").model_id)
        return arena_fakes.check(path, modality)

    received, made = arena.push("alice", "w1"), list[str]()
    left_behind(arena, received.model_id)
    replace(arena.submissions, check=withdrawn).resume_scans(older_than_seconds=900.0)
    assert arena.state(made[0]) is _S.SCANNING


def test_each_hotkeys_commitment_is_read_once_a_look_and_one_that_fails_costs_nobody(
    make_arena: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    arena = make_arena()
    mine = [arena.push("alice", f"w{index}", block=7) for index in range(3)]
    others = arena.push("bob", "w9", block=8)
    asked: list[str] = []
    answer = arena.chain.get_commitment

    async def get_commitment(netuid: int, hotkey: str) -> Commitment | None:
        asked.append(hotkey)
        if hotkey == "alice":
            raise ChainError("An odd answer.")
        return await answer(netuid, hotkey)

    monkeypatch.setattr(arena.chain, "get_commitment", get_commitment)
    arena.jobs.start()
    arena.foreman.tick()
    assert sorted(asked) == ["alice", "bob"]
    assert arena.row(others.model_id).committed_block == 8
    assert {arena.state(one.model_id) for one in mine} == {_S.SCANNING}
