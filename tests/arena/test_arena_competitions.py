"""Competitions: their file, what they allow, and who comes next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from arena_fakes import Arena, outcome
from hypothesis import given
from hypothesis import strategies as st

from gas.arena.competitions import Competition, Competitions, default_competitions, read_competitions
from gas.arena.dispatch import Load, fair_order
from gas.arena.exam import judge_exam
from gas.arena.ports import ArenaConfig
from gas.arena.rounds import score_class
from gas.errors import ConfigurationError, RequestRefused
from gas.sandbox.base import Tier
from gas.storage.tables import SubmissionRow
from gas.types import Modality, SubmissionState, Vertical

FILE = """
competitions:
  - name: photos
    modality: image
    share: 3
    slots: 2
    exam: {accuracy: 0.6, minutes: 30, total: 60}
    run: {hours: 1}
    round: {mode: small, total: 120, robustness: 10, include: ["photos-*"]}
    limits: {memory_mib: 4096, batch_seconds: 30}
  - name: faces
    modality: image
    vertical: human
    share: 1
    min_tier: bubblewrap
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "competitions.yaml"
    path.write_text(text)
    return path


def test_a_file_says_every_rule_and_the_rest_is_the_default(tmp_path: Path) -> None:
    found = read_competitions(written(tmp_path, FILE))
    photos, faces = found.named("photos"), found.of(Modality.IMAGE, Vertical.HUMAN)
    assert (photos.slots, photos.exam_accuracy, photos.exam_seconds, photos.run_seconds) == (2, 0.6, 1800, 3600)
    assert (photos.exam.total, photos.exam.mode, photos.round.total, photos.round.mode) == (60, "small", 120, "small")
    assert (photos.limits.memory_bytes, photos.limits.batch_seconds) == (4096 * 2**20, 30)
    assert (faces.name, faces.min_tier, faces.slots) == ("faces", Tier.BUBBLEWRAP, 3)
    assert found.shares(Modality.IMAGE) == {Vertical.GENERAL: 0.75, Vertical.HUMAN: 0.25}
    assert found.shares(Modality.AUDIO) == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("slots: 2", "slot: 2"), "slot"),
        (("slots: 2", "slots: 0"), "slots"),
        (("slots: 2", "slots: true"), "slots"),
        (("share: 3", "share: -1"), "share"),
        (("share: 3", "share: .nan"), "share"),
        (("modality: image", "modality: smell"), "modality"),
        (("vertical: human", "vertical: cats"), "vertical"),
        (("min_tier: bubblewrap", "min_tier: strong"), "min_tier"),
        (("mode: small", "mode: huge"), "mode"),
        (("accuracy: 0.6", "accuracy: 80"), "accuracy"),
        (("minutes: 30", "minute: 30"), "minute"),
        (("memory_mib: 4096", "memory_gib: 4"), "memory_gib"),
        (("name: faces", "name: photos"), "photos"),
        (("    vertical: human\n", ""), "faces"),
        (("competitions:", "competition:"), "competitions"),
        ((FILE, "competitions: []"), "competitions"),
        ((FILE, "- 1\n- [2"), "YAML"),
        ((FILE, "competitions: [!!python/object/apply:os.system [ls]]"), "YAML"),
        ((FILE, "x" * 300_000), "larger"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        read_competitions(written(tmp_path, FILE.replace(*change)))
    assert named in str(wrong.value)
    assert wrong.value.error_code == "competitions"


def test_there_is_no_vertical_of_people_for_sounds(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no vertical"):
        read_competitions(
            written(tmp_path, FILE.replace("modality: image\n    vertical", "modality: audio\n    vertical"))
        )


def test_what_is_not_offered_is_refused_with_what_there_is(make_arena: Callable[..., Arena], tmp_path: Path) -> None:
    config = ArenaConfig(competitions=read_competitions(written(tmp_path, FILE)))
    arena = make_arena(config=config)
    package = tmp_path / "one.zip"
    package.write_text("one")
    with pytest.raises(RequestRefused) as refused:
        arena.submissions.receive("5Alice", package, Modality.VIDEO, Vertical.GENERAL)
    assert refused.value.error_code == "no_competition"
    assert "image (human)" in str(refused.value)
    assert arena.submissions.receive("5Alice", package, Modality.IMAGE, Vertical.HUMAN).slots == 3


def test_each_competition_counts_its_own_slots(make_arena: Callable[..., Arena], tmp_path: Path) -> None:
    offered = Competitions(tuple(replace(one, slots=1) for one in default_competitions().all))
    arena = make_arena(config=ArenaConfig(competitions=offered))
    for number, vertical in enumerate(Vertical):
        package = tmp_path / f"{number}.zip"
        package.write_text(f"weights{number}")
        assert arena.submissions.receive("5Alice", package, Modality.IMAGE, vertical).created
    package.write_text("more")
    with pytest.raises(RequestRefused, match="slots"):
        arena.submissions.receive("5Alice", package, Modality.IMAGE, Vertical.HUMAN)


def test_the_winner_of_a_vertical_is_kept_beside_the_general_one() -> None:
    assert score_class(Modality.IMAGE, Vertical.GENERAL) == "image"
    assert score_class(Modality.IMAGE, Vertical.HUMAN) == "image/human"


def test_a_look_alike_is_shown_to_the_owner_and_above_the_limit_blocked() -> None:
    rules = Competition("c", Modality.IMAGE, similarity_flag=0.9, similarity_limit=0.99)
    mine = {str(k): k / 100 for k in range(100)}
    near = {name: p + (0.05 if int(name) % 2 else -0.05) for name, p in mine.items()}
    flagged = judge_exam(outcome(0.9, mine), rules, {"older": near})
    assert flagged.state is SubmissionState.CONFIRMED
    assert flagged.resembles is not None
    assert 0.9 < flagged.resembles.as_dict()["order"] < 0.99
    blocked = judge_exam(outcome(0.9, mine), rules, {"older": mine, "other": near})
    assert blocked.state is SubmissionState.BLOCKED
    assert blocked.resembles is not None
    assert blocked.resembles.submission_id == "older"
    other = judge_exam(outcome(0.9, mine), rules, {"older": {k: float(hash(k) % 7) for k in mine}})
    assert other.resembles is None


def row(number: int, hotkey: str, modality: str, vertical: str = "general") -> SubmissionRow:
    return SubmissionRow(id=str(number), hotkey=hotkey, modality=modality, vertical=vertical)


def test_nobody_waits_behind_anothers_pile() -> None:
    pile = [row(k, "greedy", "image") for k in range(5)]
    rest = [row(10, "modest", "image"), row(11, "other", "audio")]
    order = [one.id for one in fair_order([*pile, *rest], Load())]
    assert order[:3] == ["0", "11", "10"]
    assert order[3:] == ["1", "2", "3", "4"]


def test_who_has_had_much_comes_later() -> None:
    load = Load()
    for _ in range(3):
        load.count("busy", "image", "general")
    waiting = [row(0, "busy", "image"), row(1, "fresh", "image"), row(2, "busy", "video")]
    assert [one.id for one in fair_order(waiting, load)] == ["2", "1", "0"]
    assert load.hotkeys["busy"] == 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["image", "video"])), max_size=25))
def test_everybody_has_a_turn_and_a_hotkeys_own_order_is_that_of_its_commitments(who: list[tuple[str, str]]) -> None:
    waiting = [row(k, hotkey, modality) for k, (hotkey, modality) in enumerate(who)]
    order = fair_order(waiting, Load())
    assert sorted(int(one.id) for one in order) == list(range(len(who)))
    for hotkey, modality in set(who):
        own = [int(one.id) for one in order if (one.hotkey, one.modality) == (hotkey, modality)]
        assert own == sorted(own)
