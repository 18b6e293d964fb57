"""Commands whose work is still to come: each says what it needs and what serves until then."""

from __future__ import annotations

from gas.errors import ConfigurationError

__all__ = ["validator_start"]


def _later(what: str, needs: str, until_then: str) -> None:
    raise ConfigurationError(f"{what} is not there yet: it needs {needs}.", code="not_yet", hint=until_then)


def validator_start() -> None:
    """Run the validator's services (to come)."""
    _later(
        "The running validator",
        "the loops that challenge, publish and set weights by the clock",
        "Until then gascli demo plays each of their steps once.",
    )
