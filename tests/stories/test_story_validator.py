"""A validator in three processes and eight generators, most of them cheats: challenges, ``kill -9``, an epoch, pay."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from validator_story import CAST, play, table

ROUNDS = 5
KILLS = ((2, "sn34-generator"), (3, "sn34-data"), (4, "sn34-validator"))


def test_honest_generators_are_paid_by_the_formula_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    said: list[str] = []
    story = play(tmp_path, ROUNDS, seconds=12.0, kills=KILLS, say=said.append)
    shown = "\n".join([*said, table(story)])
    # Every challenge has ended, pay and weights are the formula's, what was taken is there once: see the story.
    assert not story.problems, shown
    assert [line.challenges for line in story.lines] == [ROUNDS] * len(CAST)
    assert story.epochs == 2
    assert set(story.kills) == {service for _, service in KILLS}
    honest = story.line("honest")
    # On a machine with much else to do one may come too late; none is refused.
    assert set(honest.states) <= {"verified", "expired", "failed"}, shown
    assert honest.states["verified"] >= ROUNDS - 2, shown
    for name in ("slow", "dead", "thief", "forger", "vandal", "cutpurse"):
        assert story.line(name).weight < 0.5 * honest.weight, shown
    for name in ("slow", "dead", "thief", "forger"):
        assert story.line(name).weight == 0.0, shown
