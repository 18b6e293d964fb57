"""Fixtures of the arena's tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gas.clock import SystemClock

sys.path.insert(0, str(Path(__file__).parent))

from arena_fakes import Arena


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    arena = Arena(tmp_path, SystemClock())
    yield arena
    arena.close()
