"""Fixtures of the arena's tests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gas.clock import SystemClock

sys.path.insert(0, str(Path(__file__).parent))

from arena_fakes import Arena


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with migrated, empty databases: migrating them is most of an arena's start."""
    home = tmp_path_factory.mktemp("prepared")
    arena = Arena(home, SystemClock())
    arena.jobs.start()
    arena.close()
    return home


@pytest.fixture
def make_arena(prepared: Path, tmp_path: Path) -> Iterator[Callable[..., Arena]]:
    made: list[Arena] = []
    for file in prepared.glob("*.db*"):
        shutil.copy(file, tmp_path)

    def make(**options: Any) -> Arena:
        made.append(Arena(tmp_path, options.pop("clock", SystemClock()), **options))
        return made[-1]

    yield make
    for arena in made:
        arena.close()


@pytest.fixture
def arena(make_arena: Callable[..., Arena]) -> Arena:
    return make_arena()
