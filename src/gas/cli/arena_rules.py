"""Whether a service has the rules under which the rounds it works on were opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.arena.ports import ArenaConfig
    from gas.storage.database import Database

__all__ = ["require_rules"]


def require_rules(database: Database, config: ArenaConfig) -> None:
    """Refuse to work under other rules: an exam would be judged by a threshold that nobody was told.

    Only names are compared: an owner may change a competition's rules while its round is open.

    Args:
        database: Of the arena.
        config: The rules that this process was given.

    Raises:
        ConfigurationError: ``other_rules``: a round that is not closed belongs to a competition that is not in them.
    """
    from sqlalchemy import select

    from gas.storage.tables import RoundRow

    with database.read() as session:
        rounds = session.scalars(select(RoundRow).where(RoundRow.state != "closed")).all()
    offered = {(one.modality.value, one.vertical.value): one.name for one in config.offered.all}
    for row in rounds:
        name = row.parameters.get("competition")
        if isinstance(name, str) and offered.get((row.modality, row.vertical)) != name:
            raise ConfigurationError(
                f"The round {row.id} was opened for the competition {name[:80]}, which is not among the rules here.",
                code="other_rules",
                hint="Give this process the arena's file: --competitions FILE, or competitions.yaml in its home.",
            )
