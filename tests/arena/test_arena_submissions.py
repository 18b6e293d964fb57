"""Handing packages in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from arena_fakes import Arena
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.arena.ports import ArenaConfig
from gas.arena.states import TRANSITIONS, IllegalTransition, transition
from gas.arena.submissions import Received
from gas.clock import ManualClock
from gas.errors import PackageRejected, RequestRefused
from gas.storage.tables import SubmissionRow
from gas.types import TERMINAL_STATES, Modality, SubmissionState, Vertical

_S = SubmissionState


def test_a_sound_package_is_kept_and_waits_for_its_commitment(arena: Arena) -> None:
    received = arena.push("alice", "w1")
    row = arena.row(received.model_id)
    assert received.created
    assert (received.slot, received.slots) == (1, 3)
    assert row.state == "scanning"
    assert row.name == "model-w1"
    assert arena.blobs.get(row.zip_blob or "") == b"w1"


def test_the_same_content_twice_is_one_submission_with_one_key(arena: Arena) -> None:
    first, second = arena.push("alice", "w1"), arena.push("alice", "w1")
    other = arena.push("bob", "w1")
    assert not second.created
    assert (second.model_id, second.key) == (first.model_id, first.key)
    assert other.created
    assert other.key != first.key


def test_a_refused_package_leaves_its_reasons_and_no_file(arena: Arena) -> None:
    with pytest.raises(PackageRejected) as refused:
        arena.push("alice", "bad")
    assert str(refused.value.reasons[0]).startswith("model.py:3:")
    again = arena.push("alice", "bad")
    assert not again.created
    assert again.state is _S.REJECTED
    assert again.reasons == refused.value.reasons
    assert arena.row(again.model_id).zip_blob is None
    assert list(arena.blobs.names()) == []
    assert [p for p in (arena.home / "blobs").rglob("*") if p.is_file()] == []


def test_a_blob_that_another_submission_needs_outlives_a_withdrawal(arena: Arena) -> None:
    alice, bob = arena.push("alice", "w1"), arena.push("bob", "w1")
    arena.submissions.withdraw("alice", alice.model_id)
    assert arena.blobs.exists(arena.row(bob.model_id).zip_blob or "")
    arena.submissions.withdraw("bob", bob.model_id)
    assert list(arena.blobs.names()) == []


def test_slots_are_counted_by_modality_and_given_back(arena: Arena) -> None:
    received = [arena.push("alice", f"w{i}") for i in range(3)]
    assert [r.slot for r in received] == [1, 2, 3]
    with pytest.raises(RequestRefused) as full:
        arena.push("alice", "w4")
    assert (full.value.status, full.value.error_code) == (429, "no_slot")
    assert arena.push("alice", "w4", modality=Modality.AUDIO).slot == 1
    assert arena.push("bob", "w4").slot == 1
    arena.submissions.withdraw("alice", received[0].model_id)
    assert arena.push("alice", "w5").slot == 3


def test_slots_hold_under_parallel_uploads(arena: Arena, tmp_path: Path) -> None:
    results: list[object] = []

    def push(index: int) -> None:
        package = tmp_path / f"p{index}.zip"
        package.write_text(f"w{index}")
        try:
            results.append(arena.submissions.receive("alice", package, Modality.IMAGE, Vertical.GENERAL))
        except RequestRefused as refused:
            results.append(refused.error_code)

    threads = [threading.Thread(target=push, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(r, Received) for r in results) == 3
    assert results.count("no_slot") == 5
    assert len(list(arena.blobs.names())) == 3


def test_a_hotkey_may_climb_only_so_many_times_a_round(make_arena: Callable[..., Arena], tmp_path: Path) -> None:
    arena = make_arena(clock=ManualClock(), config=ArenaConfig(pushes_per_round=2))
    arena.open_round()
    for index in range(2):
        received = arena.push("alice", f"w{index}")
        with arena.database.write() as session:
            row = session.get_one(SubmissionRow, received.model_id)
            transition(session, row, _S.EXAMINING, now=0.0)
            transition(session, row, _S.EXAM_FAILED, now=0.0)
    with pytest.raises(RequestRefused) as limit:
        arena.push("alice", "w9")
    assert (limit.value.status, limit.value.error_code) == (429, "push_limit")


def test_too_large_and_senseless_uploads_are_refused(make_arena: Callable[..., Arena], tmp_path: Path) -> None:
    arena = make_arena(clock=ManualClock(), config=ArenaConfig(max_upload_bytes=10))
    with pytest.raises(RequestRefused) as large:
        arena.push("alice", "w" * 11)
    assert (large.value.status, large.value.error_code) == (413, "too_large")
    package = tmp_path / "package.zip"
    package.write_text("w1")
    with pytest.raises(RequestRefused) as vertical:
        arena.submissions.receive("alice", package, Modality.AUDIO, Vertical.HUMAN)
    assert vertical.value.error_code == "vertical"
    assert list(arena.blobs.names()) == []


def test_only_the_owner_withdraws_and_only_once(arena: Arena) -> None:
    received = arena.push("alice", "w1")
    with pytest.raises(RequestRefused) as stranger:
        arena.submissions.withdraw("bob", received.model_id)
    assert stranger.value.status == 404
    arena.submissions.withdraw("alice", received.model_id)
    with pytest.raises(IllegalTransition):
        arena.submissions.withdraw("alice", received.model_id)


def test_a_withdrawn_content_may_be_handed_in_anew(arena: Arena) -> None:
    first = arena.push("alice", "w1")
    arena.submissions.withdraw("alice", first.model_id)
    second = arena.push("alice", "w1")
    assert second.created
    assert second.key == first.key
    assert second.model_id != first.model_id


def test_what_a_dead_service_left_unscanned_is_scanned_later(arena: Arena) -> None:
    good, broken = arena.push("alice", "w1"), arena.push("alice", "w2")
    with arena.database.write() as session:
        for received in (good, broken):
            row = session.get_one(SubmissionRow, received.model_id)
            row.state, row.weights_sha256, row.state_since = "uploaded", None, 0.0
    arena.blobs.delete(arena.row(broken.model_id).zip_blob or "")
    assert set(arena.submissions.resume_scans(older_than_seconds=1)) == {good.model_id, broken.model_id}
    assert arena.row(good.model_id).weights_sha256 is not None
    assert arena.state(good.model_id) is _S.SCANNING
    assert arena.state(broken.model_id) is _S.FAILED
    assert arena.submissions.resume_scans(older_than_seconds=1) == []
    assert list((arena.home / "incoming").iterdir()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(steps=st.lists(st.sampled_from(list(SubmissionState)), max_size=10))
def test_no_path_leaves_a_terminal_state(arena: Arena, steps: list[SubmissionState]) -> None:
    received = arena.push("walker", "w1")
    for step in steps:
        before = arena.state(received.model_id)
        with arena.database.write() as session:
            row = session.get_one(SubmissionRow, received.model_id)
            try:
                transition(session, row, step, now=1.0)
            except IllegalTransition:
                assert step not in TRANSITIONS[before]
        after = arena.state(received.model_id)
        assert before not in TERMINAL_STATES or after is before or (before, after) == (_S.SCORED, _S.WITHDRAWN)
        assert after in {before, step}
    with arena.database.write() as session:
        session.delete(session.get_one(SubmissionRow, received.model_id))


def test_every_state_can_reach_an_end_and_only_ends_are_dead_ends() -> None:
    for state in SubmissionState:
        reached, front = set(), {state}
        while front:
            reached |= front
            front = {after for before in front for after in TRANSITIONS[before]} - reached
        assert reached & TERMINAL_STATES
        assert (not TRANSITIONS[state]) == (state in TERMINAL_STATES and state is not _S.SCORED)
    assert TRANSITIONS[_S.SCORED] == {_S.WITHDRAWN}
