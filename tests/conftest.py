"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast a machine draws examples is no property of the code under test.
settings.register_profile("gas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gas")
