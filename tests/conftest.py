"""Settings of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

# How fast a machine draws examples is no property of the code under test.
settings.register_profile("gas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gas")


@pytest.fixture(autouse=True)
def logs_of_its_own() -> Iterator[None]:
    """A command that sets the logs up must not do so for the tests after it."""
    yield
    structlog.reset_defaults()
