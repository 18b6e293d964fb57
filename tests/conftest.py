"""Settings of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

LONGEST: Final = (
    "stories/test_story_demo.py",
    "stories/test_story_arena.py",
    "web/test_web_serve.py",
    "chain/test_chain_services_far.py",
    "arena/test_arena_load.py",
    "bench/test_bench_ray.py",
    "sandbox/test_sandbox_hostile_models.py",
    "stories/",
    "web/",
    "chain/test_chain_wallet_passwords.py",
    "bench/test_bench_gasbench.py",
)
"""Files that take a minute or so, the longest first: at the end they would keep one worker busy and the others idle."""

# How fast a machine draws examples is no property of the code under test.
settings.register_profile("gas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gas")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; the order is kept otherwise."""

    def rank(item: pytest.Item) -> int:
        name = item.path.as_posix()
        return next((place for place, part in enumerate(LONGEST) if f"/tests/{part}" in name), len(LONGEST))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """A command that sets the logs up must not do so for the tests after it."""
    yield
    structlog.reset_defaults()
