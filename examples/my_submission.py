"""Ask an arena what became of your submissions: state, reasons, exam, runs.

    python examples/my_submission.py --wallet-name alice --home HOME
    python examples/my_submission.py --wallet-name alice --home HOME MODEL_ID

The requests are signed with the wallet's hotkey: nobody else sees your scores before the round ends.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import httpx

from gas.chain.keys import load_hotkey
from gas.clock import RandomIds, SystemClock
from gas.config import HomeSettings
from gas.errors import GasError
from gas.protocol.client import SignedClient


def main() -> int:
    """Print the arena's answer as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_id", nargs="?", help="one submission; all of yours when left out")
    parser.add_argument("--wallet-name", required=True, help="wallet whose hotkey has pushed")
    parser.add_argument("--home", type=Path, default=Path(".gas"), help="home with the wallets")
    parser.add_argument("--api-url", default="http://127.0.0.1:8100", help="the arena's address")
    parser.add_argument("--arena-hotkey", default="", help="the arena's hotkey; default: the validator's of the home")
    arguments = parser.parse_args()
    try:
        print(json.dumps(asyncio.run(ask(arguments)), indent=1))
    except GasError as error:
        print(f"my_submission: {error}", file=sys.stderr)
        return 1
    return 0


async def ask(arguments: argparse.Namespace) -> object:
    """Send one signed request."""
    wallets = HomeSettings(home=arguments.home).wallets_path
    arena = arguments.arena_hotkey or load_hotkey(wallets, "validator").ss58_address
    url = f"{arguments.api_url.rstrip('/')}/api/v1/submissions"
    if arguments.model_id:
        url += f"/{arguments.model_id}"
    async with httpx.AsyncClient(timeout=60) as http:
        client = SignedClient(load_hotkey(wallets, arguments.wallet_name), http, SystemClock(), RandomIds())
        return (await client.get(url, signed_for=arena, attempts=3)).json()


if __name__ == "__main__":
    raise SystemExit(main())
