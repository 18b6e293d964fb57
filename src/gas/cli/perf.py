"""``gascli d perf | withdraw``: how a pushed model did, where it is weak, and taking it back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gas.protocol.client import SignedClient

__all__ = ["perf", "withdraw"]

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="Id of the model, as the push printed it.")]
_Wallet = Annotated[str, typer.Option(help="Wallet whose hotkey pushed it.")]
_Hotkey = Annotated[str, typer.Option(help="Name of the hotkey.")]
_Home = Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the wallets.")]
_Url = Annotated[str, typer.Option(help="The arena's address.")]
_Arena = Annotated[str, typer.Option(help="The arena's hotkey; default: the validator's of the home.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_SHOWN = 6


def perf(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="Id of a model; every model of the hotkey when left out.")
    ] = None,
    wallet_name: _Wallet = "default",
    wallet_hotkey: _Hotkey = "default",
    home: _Home = Path(".gas"),
    api_url: _Url = "http://127.0.0.1:8100",
    arena_hotkey: _Arena = "",
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", help="Write a page here (HTML): charts of the weak points, and the worst errors in pictures."
        ),
    ] = None,
    as_json: _Json = False,
) -> None:
    """How pushed models did: exam, runs, scores with intervals, where they are weak, and why one was refused.

    Weak points are told per source of real media, per generator, and per kind and strength of distortion. Distorted
    are a few of the exam's public media, whose figures are no part of a score. The pictures are of public media only:
    those of the exam at once, those of a round when it is closed.
    """
    from gas.cli.arena_link import arena_at
    from gas.errors import ConfigurationError

    with arena_at(api_url):
        found = asyncio.run(_perf(model, wallet_name, wallet_hotkey, home, api_url, arena_hotkey, page is not None))
    if page is not None:
        from gas.cli.perf_page import perf_page

        try:
            page.write_text(perf_page(found), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{page} can't be written ({error.strerror}).") from error
    for one in found:
        for shown in one["errors"]:
            shown.pop("jpeg", None)
    if as_json:
        print(json.dumps({"models": [_with_weak(one) for one in found]}))
        return
    for one in found:
        _show(one)
    if not found:
        print("This hotkey has pushed nothing to this arena.")
    if page is not None:
        print(f"{page}: the weak points as charts, the worst errors in pictures")


def withdraw(
    model: _Model,
    wallet_name: _Wallet = "default",
    wallet_hotkey: _Hotkey = "default",
    home: _Home = Path(".gas"),
    api_url: _Url = "http://127.0.0.1:8100",
    arena_hotkey: _Arena = "",
    as_json: _Json = False,
) -> None:
    """Take a model back, whatever its state; its slot is free at once, and its zip is deleted there.

    A scored one leaves the standings of its round while that is open; in those of a closed one it stays.
    """
    from gas.cli.arena_link import arena_at

    with arena_at(api_url):
        asyncio.run(_withdraw(model, wallet_name, wallet_hotkey, home, api_url, arena_hotkey))
    print(json.dumps({"model_id": model, "state": "withdrawn"}) if as_json else f"{model} is withdrawn.")


def _with_weak(found: dict[str, Any]) -> dict[str, Any]:
    """What the text shows of each run under ``weak``, for programs."""
    from gas.cli.perf_text import weak_points

    for run in found.get("runs") or ():
        if run.get("metrics"):
            run["weak"] = weak_points(run["metrics"], str(found["modality"])).as_dict()
    return found


async def _perf(
    model: str | None, wallet: str, hotkey: str, home: Path, url: str, arena: str, pictures: bool
) -> list[dict[str, Any]]:
    from gas.protocol.client import PeerUnreachable

    out = []
    async for client, arena_key in _session(wallet, hotkey, home, arena):
        base = f"{url.rstrip('/')}/api/v1/submissions"
        if model is not None:
            ids = [model]
        else:
            mine = (await client.get(base, signed_for=arena_key, attempts=3)).json()
            ids = [str(one["model_id"]) for one in mine if isinstance(one, dict)] if isinstance(mine, list) else []
        for name in ids:
            found = (await client.get(f"{base}/{name}", signed_for=arena_key, attempts=3)).json()
            errors = (await client.get(f"{base}/{name}/errors", signed_for=arena_key, attempts=3)).json()
            if not isinstance(found, dict) or not isinstance(errors, list):
                raise PeerUnreachable("The arena's answer makes no sense.", code="bad_answer")
            found["errors"] = [error for error in errors if isinstance(error, dict)]
            for error in found["errors"] if pictures else ():
                answer = await client.get(
                    f"{base}/{name}/errors/{error.get('sample_id')}", signed_for=arena_key, attempts=3
                )
                error["jpeg"] = base64.b64encode(answer.body).decode()
            out.append(found)
    return out


async def _withdraw(model: str, wallet: str, hotkey: str, home: Path, url: str, arena: str) -> None:
    async for client, arena_key in _session(wallet, hotkey, home, arena):
        await client.send("DELETE", f"{url.rstrip('/')}/api/v1/submissions/{model}", signed_for=arena_key)


async def _session(wallet: str, hotkey: str, home: Path, arena: str) -> AsyncIterator[tuple[SignedClient, str]]:
    import httpx

    from gas.chain.keys import load_hotkey
    from gas.cli.push import homes_arena
    from gas.clock import RandomIds, SystemClock
    from gas.config import HomeSettings
    from gas.protocol.client import SignedClient

    wallets = HomeSettings(home=home).wallets_path
    signer = load_hotkey(wallets, wallet, hotkey)
    arena_key = arena or homes_arena(wallets)
    async with httpx.AsyncClient(timeout=60) as http:
        yield SignedClient(signer, http, SystemClock(), RandomIds()), arena_key


def _show(found: Mapping[str, Any]) -> None:
    from gas.cli.perf_text import error_text, model_lines

    print(f"{found.get('name') or found['model_id']}  {found['model_id']}  {found['modality']}  {found['state']}")
    for depth, line in model_lines(found):
        print(f"  {'  ' * depth}{line}")
    if found["errors"]:
        print(f"  worst errors on public media ({len(found['errors'])} known; --page FILE.html shows them):")
    for error in found["errors"][:_SHOWN]:
        print(f"    {error_text(error)}")
