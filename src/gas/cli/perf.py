"""``gascli d perf | withdraw``: how a pushed model did, where it is weak, and taking it back."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
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
_WEAKEST = 6


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
        Path | None, typer.Option("--page", help="Write a page with pictures of the worst errors here (HTML).")
    ] = None,
    as_json: _Json = False,
) -> None:
    """How pushed models did: exam, runs, scores with intervals, where they are weak, and why one was refused.

    The pictures are of public media only: those of the exam at once, those of a round when it is closed.
    """
    found = asyncio.run(_perf(model, wallet_name, wallet_hotkey, home, api_url, arena_hotkey, page is not None))
    if page is not None:
        page.write_text(_html(found), encoding="utf-8")
    for one in found:
        for error in one["errors"]:
            error.pop("jpeg", None)
    if as_json:
        print(json.dumps({"models": found}))
        return
    for one in found:
        _show(one)
    if not found:
        print("This hotkey has pushed nothing to this arena.")
    if page is not None:
        print(f"{page}: the worst errors in pictures")


def withdraw(
    model: _Model,
    wallet_name: _Wallet = "default",
    wallet_hotkey: _Hotkey = "default",
    home: _Home = Path(".gas"),
    api_url: _Url = "http://127.0.0.1:8100",
    arena_hotkey: _Arena = "",
    as_json: _Json = False,
) -> None:
    """Take a model back that has not been scored yet; its slot is free at once, and its zip is deleted there."""
    asyncio.run(_withdraw(model, wallet_name, wallet_hotkey, home, api_url, arena_hotkey))
    print(json.dumps({"model_id": model, "state": "withdrawn"}) if as_json else f"{model} is withdrawn.")


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
    print(f"{found.get('name') or found['model_id']}  {found['model_id']}  {found['modality']}  {found['state']}")
    for depth, line in _lines(found):
        print(f"  {'  ' * depth}{line}")
    if found["errors"]:
        print(f"  worst errors on public media ({len(found['errors'])} known; --page FILE.html shows them):")
    for error in found["errors"][:_WEAKEST]:
        print(f"    {_error(error)}")


def _lines(found: Mapping[str, Any]) -> list[tuple[int, str]]:
    """All that is known of a model but its errors, in sentences, each with its depth: 0, or 1 for what is of a run."""
    from gas.cli.push import push_lines, run_scores

    out = []
    for reason in found.get("reasons") or ():
        where = f"{reason['file']}:{reason['line']}: " if reason.get("file") and reason.get("line") else ""
        out.append((0, f"{where}{reason['message']} [{reason['code']}]"))
    if found.get("error"):
        out.append((0, f"our fault: {found['error'].get('message')} The slot is free again; push once more."))
    out += [(0, line) for line in push_lines(found)]
    if near := found.get("near_weights"):
        text = (
            f"look-alike: weights at a distance of {near['distance']:.4f} from {near['submission']} of another "
            f"hotkey; {near['tensors_apart']} of {near['tensors']} tensors are your own"
        )
        out.append((0, text))
    for run in found.get("runs") or ():
        metrics = run.get("metrics") or {}
        out.append((0, f"{run['kind']}: {run['state']}{run_scores(metrics)}"))
        out += [(1, line) for line in (*_weak(metrics), *_distorted(metrics))]
    return out


def _error(error: Mapping[str, Any]) -> str:
    called = "fake" if error["media_type"] == "real" else "real"
    sure = error["p_fake"] if called == "fake" else 1 - error["p_fake"]
    return f"{error['media_type']}, of {error['source']}: called {called}, {sure:.1%} sure"


def _weak(metrics: Mapping[str, Any]) -> list[str]:
    """The weakest data sets and sources, in sentences."""
    out = []
    rows = [
        (source["correct"] / source["count"], source) for source in metrics.get("sources") or () if source.get("count")
    ]
    for rate, source in sorted(rows, key=lambda row: row[0])[:_WEAKEST]:
        what = f"{source['media_type']} media of {source['source']}"
        out.append(f"{rate:4.0%} right of {source['count']:3} {what}")
    if metrics.get("model_errors"):
        counts = ", ".join(f"{count} {code}" for code, count in metrics["model_errors"].items())
        out.append(f"failures that count as wrong: {counts}")
    return out


def _distorted(metrics: Mapping[str, Any]) -> list[str]:
    """How the answers hold when media are distorted, as far as a run measures it: as they are, shared, stored anew."""
    out = []
    base, robust, again = metrics.get("base"), metrics.get("robust"), metrics.get("reencoding")
    if base and robust and base.get("accuracy") is not None and robust.get("accuracy") is not None:
        out.append(f"{base['accuracy']:4.0%} right of {base['n']:3} media as they are")
        out.append(f"{robust['accuracy']:4.0%} right of {robust['n']:3} media after sharing: smaller, compressed twice")
    if again and again.get("asked"):
        out.append(f"{again['flipped']} of {again['asked']} answers changed when pictures were compressed once more")
    return out


def _html(models: Sequence[Mapping[str, Any]]) -> str:
    """One page without anything from elsewhere; everything that came from the arena is escaped."""
    from html import escape

    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Worst errors</title><style>",
        "body{font:15px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1c2430}",
        "section{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:16rem}img{max-width:100%;border-radius:6px}",
        "figcaption{color:#566}h1,h2{font-weight:600}.run{margin-left:1.5rem;color:#566}p{margin:.2rem 0}",
        "section{margin-top:1rem}</style><h1>Where the model was most wrong</h1>",
        "<p>The pictures are of public media only, the worst first.</p>",
    ]
    for one in models:
        title = escape(f"{one.get('name') or one['model_id']}, {one['modality']}, {one['state']}")
        parts.append(f"<h2>{title}</h2>")
        parts += [f"<p{' class=run' if depth else ''}>{escape(line)}</p>" for depth, line in _lines(one)]
        parts.append("<section>")
        for error in one["errors"]:
            picture = f'<img alt="" src="data:image/jpeg;base64,{error["jpeg"]}">'
            parts.append(f"<figure>{picture}<figcaption>{escape(_error(error))}</figcaption></figure>")
        parts.append("</section>" if one["errors"] else "<p>No errors to show.</p></section>")
    if any(one.get("runs") for one in models):
        parts.append("<p>Blur, noise, compression and colour one by one: <code>gascli d bench PACKAGE</code>.</p>")
    return "\n".join(parts) + "</html>\n"
