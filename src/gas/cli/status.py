"""``gascli status``: what a home holds, at a glance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["look", "status"]


def status(
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="The home.")] = Path(".gas"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What a home holds: chain, wallets, submissions, rounds, media."""
    found = look(home)
    if json_output:
        print(json.dumps(found))
        return
    for part, values in found.items():
        text = ", ".join(f"{key} {value}" for key, value in values.items()) if isinstance(values, dict) else str(values)
        print(f"{part:12} {text or '–'}")


def look(home: Path) -> dict[str, Any]:
    """The home's parts and their counts.

    Raises:
        ConfigurationError: There is no such home.
    """
    from sqlalchemy import func, select

    from gas.chain.keys import list_wallets
    from gas.chain.local.ledger import Ledger
    from gas.clock import SystemClock
    from gas.config import HomeSettings
    from gas.errors import ConfigurationError
    from gas.storage.database import open_database
    from gas.storage.tables import MediumRow, RoundRow, RunRow, SubmissionRow

    settings = HomeSettings(home=home)
    if not home.is_dir():
        raise ConfigurationError(f"There is no home {home}.", hint="gascli demo makes one; or name --home.")
    found: dict[str, Any] = {"home": str(home)}
    if settings.ledger_path.exists():
        with Ledger(settings.ledger_path, SystemClock()) as ledger:
            totals = ledger.totals()
            found["chain"] = {"block": ledger.block(), "issued": totals.issued, "staked": totals.staked}
    if settings.wallets_path.exists():
        found["wallets"] = {"count": len(list_wallets(settings.wallets_path))}
    if settings.database_url or (home / "gas.db").exists():
        database = open_database(settings.resolved_database_url)
        try:
            with database.read() as session:
                for name, column in (
                    ("submissions", SubmissionRow.state),
                    ("rounds", RoundRow.state),
                    ("runs", RunRow.state),
                    ("media", MediumRow.modality),
                ):
                    counts = session.execute(select(column, func.count()).group_by(column)).tuples()
                    found[name] = dict(counts.all())
        finally:
            database.close()
    report = home / "report.html"
    if report.exists():
        found["report"] = str(report)
    return found
