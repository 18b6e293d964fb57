"""Close the open round of a home's arena and print its standings.

    python examples/close_round.py --home HOME

The winner holds its modality's share until the next round ends. A round with submissions under way stays open.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from sqlalchemy import select

from gas.arena.rounds import close_round, standings
from gas.chain.keys import load_hotkey
from gas.chain.local.chain import LocalChain
from gas.clock import SystemClock
from gas.config import HomeSettings
from gas.errors import ConfigurationError, GasError
from gas.storage.database import open_database
from gas.storage.tables import RoundRow
from gas.types import Modality


def main() -> int:
    """Close, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".gas"), help="home of the arena")
    parser.add_argument("--modality", type=Modality, choices=list(Modality), default=Modality.IMAGE)
    parser.add_argument("--netuid", type=int, default=1)
    parser.add_argument("--wallet-name", default="validator", help="wallet of the arena")
    arguments = parser.parse_args()
    try:
        print("\n".join(close(arguments)))
    except GasError as error:
        print(f"close_round: {error}", file=sys.stderr)
        return 1
    return 0


def close(arguments: argparse.Namespace) -> list[str]:
    """End the round; returns one line a model."""
    settings, clock = HomeSettings(home=arguments.home), SystemClock()
    uids = asyncio.run(registered(settings, arguments.wallet_name, arguments.netuid))
    database = open_database(settings.resolved_database_url)
    try:
        with database.read() as session:
            open_rounds = select(RoundRow.id).where(RoundRow.state == "open", RoundRow.modality == arguments.modality)
            round_id = session.scalar(open_rounds)
        if round_id is None:
            raise ConfigurationError(f"No round of {arguments.modality} is open.")
        winner = close_round(database, round_id, uids, clock)
        with database.read() as session:
            table = standings(session, round_id)
    finally:
        database.close()
    lines = [f"round {round_id} is closed; {winner.name if winner else 'nobody'} won"]
    for entry in table:
        score = "unscored" if entry.score is None else f"{entry.score:.4f}"
        lines.append(f"{entry.rank:>3}  {score:>8}  {entry.name}  {entry.hotkey}")
    return lines


async def registered(settings: HomeSettings, wallet: str, netuid: int) -> dict[str, int]:
    """Uids of the subnet's hotkeys: only these can win."""
    chain = LocalChain(settings.ledger_path, load_hotkey(settings.wallets_path, wallet), SystemClock())
    try:
        return {str(neuron.hotkey): neuron.uid for neuron in (await chain.metagraph(netuid)).neurons}
    finally:
        await chain.close()


if __name__ == "__main__":
    raise SystemExit(main())
