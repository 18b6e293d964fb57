"""Six generators answer signed prompts of three modalities, and every medium is checked by ``gascli g verify-c2pa``.

One miner for each hosted service, against a local peer that answers as the provider's documentation says, and two with
pipelines of this machine; each is a real ``gascli g serve``. The prompts come out of a bank that ``gascli v prompts
compose`` fills, the webhook takes deliveries that are signed by the miner that was asked, once each, and each file must
be ``Trusted`` for ``gascli g verify-c2pa``. Nothing leaves this machine, and nothing costs money.

Run it from the repository: ``python tools/generators_acceptance.py --prompts 200``. It prints a table, and ends with 1
when anything is missing, doubled, of another kind than was asked for, or not trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support" / "providers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "generation"))

import httpx
from fastapi import FastAPI, Request
from ledger_network import keep_keys, key
from openai_peer import OpenAIPeer
from openrouter_peer import OpenRouterPeer
from provider_peer import Peer
from runway_peer import RunwayPeer
from services_suite import sample_media
from stabilityai_peer import StabilityPeer

from gas.chain.local.founding import add_stake, create_ledger, create_subnet, faucet, register
from gas.cli.main import main as gascli
from gas.cli.servers import Server, listen
from gas.clock import RandomIds, SystemClock
from gas.errors import RequestRefused
from gas.media.image import sniff_mime
from gas.protocol.client import PeerUnreachable, SignedClient
from gas.protocol.epistula import ReplayGuard, Standing, check_body, check_headers
from gas.types import RAO_PER_TAO

__all__ = ["main"]

VALIDATOR: Final = "validator"
KINDS: Final = ("image", "video", "audio")
MOST_BYTES: Final = 64 * 1024 * 1024
AT_ONCE: Final = 4

PEERS: Final[dict[str, tuple[type[Peer], dict[str, str], tuple[str, ...]]]] = {
    "openai": (
        OpenAIPeer,
        {"OPENAI_API_KEY": "{key}", "OPENAI_BASE_URL": "{url}", "OPENAI_VIDEO_MODEL": "sora-2"},
        ("image", "video", "audio"),
    ),
    "openrouter": (
        OpenRouterPeer,
        {
            "OPENROUTER_API_KEY": "{key}",
            "OPENROUTER_BASE_URL": "{url}",
            "OPENROUTER_VIDEO_MODEL": "google/veo-3.1",
            "OPENROUTER_AUDIO_MODEL": "openai/gpt-4o-mini-tts",
            "OPENROUTER_VOICE": "alloy",
        },
        ("image", "video", "audio"),
    ),
    "stabilityai": (
        StabilityPeer,
        {"STABILITY_API_KEY": "{key}", "STABILITY_BASE_URL": "{url}"},
        ("image", "audio"),
    ),
    "runway": (
        RunwayPeer,
        {"RUNWAYML_API_SECRET": "{key}", "RUNWAY_BASE_URL": "{url}"},
        ("image", "video", "audio"),
    ),
}
"""Of each service: its peer, what its operator sets, and what it makes."""

LOCAL: Final[dict[str, tuple[dict[str, str], dict[str, float]]]] = {
    "local-resynthesis": (
        {"IMAGE_PIPELINE": "resynthesis", "MINER_LIBRARY": "{library}"},
        {"image": 0.04, "audio": 0.04},
    ),
    "local-diffusion": ({"IMAGE_PIPELINE": "diffusion", "VIDEO_PIPELINE": "video"}, {"image": 0.04, "video": 0.02}),
}
"""Of each local miner: what its operator sets, and its part of all prompts by modality; a processor makes these."""


@dataclass
class Row:
    """What one miner was asked for in one modality, and what came of it."""

    miner: str
    kind: str
    prompts: list[str]
    tasks: dict[str, str] = field(default_factory=dict)
    delivered: int = 0
    trusted: int = 0
    seconds: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)


@dataclass
class Delivery:
    """What came to the webhook for one task."""

    miner: str
    body: bytes
    failed: bool
    at: float


def main() -> int:
    """Run the whole, print the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200, help="prompts in all, at least 20")
    parser.add_argument("--quick", action="store_true", help="one prompt of each miner and modality")
    parser.add_argument("--seconds", type=float, default=900.0, help="how long to wait for all deliveries")
    parser.add_argument("--library", type=Path, help="folder of photos for the resynthesis; default: drawn ones")
    parser.add_argument("--out", type=Path, help="keep everything in this folder, which must not exist yet")
    chosen = parser.parse_args()
    if chosen.prompts < 20:
        parser.error("--prompts must be at least 20")
    with contextlib.ExitStack() as stack:
        if chosen.out is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="generators-")))
        else:
            folder = chosen.out.resolve()
            folder.mkdir(parents=True)
        rows = asyncio.run(_run(folder, _shares(0 if chosen.quick else chosen.prompts), chosen.seconds, chosen.library))
    return _report(rows)


def _shares(prompts: int) -> dict[tuple[str, str], int]:
    """How many prompts each miner gets of each modality; 0 means one of each."""
    hosted = [(name, kind) for name, (_peer, _values, kinds) in PEERS.items() for kind in kinds]
    own = {
        (name, kind): max(1, round(part * prompts))
        for name, (_v, parts) in LOCAL.items()
        for kind, part in parts.items()
    }
    if not prompts:
        return own | dict.fromkeys(hosted, 1)
    left = prompts - sum(own.values())
    return own | {pair: left // len(hosted) + (n < left % len(hosted)) for n, pair in enumerate(hosted)}


async def _run(folder: Path, shares: dict[tuple[str, str], int], seconds: float, library: Path | None) -> list[Row]:
    home, names = folder / ".gas", [*PEERS, *LOCAL]
    _found(home, names)
    _command(folder, "g", "cert", "new", "--name", "miner", "--organisation", "Acceptance")
    prompts = _compose(folder, shares)
    rows = [Row(miner, kind, [prompts[kind].pop() for _ in range(count)]) for (miner, kind), count in shares.items()]
    deliveries: dict[str, list[Delivery]] = {}
    validator = Server(_webhook(names, deliveries), listen("127.0.0.1", 0))
    await validator.start()
    try:
        with contextlib.ExitStack() as stack:
            for name in names:
                _settings(folder, name, stack, library or _photos(folder))
            urls = await asyncio.to_thread(_started, folder, names, stack)
            webhook = f"http://127.0.0.1:{validator.port}/generation/callback"
            async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
                client = SignedClient(key(VALIDATOR), http, SystemClock(), RandomIds())
                waiting = [_ask(client, row, urls[row.miner], webhook, deliveries, seconds) for row in rows]
                await asyncio.gather(*waiting)
    finally:
        validator.stop()
        await validator.wait()
    media = folder / "media"
    media.mkdir()
    for row in rows:
        _judge(row, deliveries, media, folder / "authority" / "root.pem")
    return rows


def _found(home: Path, miners: list[str]) -> None:
    """A home with a ledger on which a validator and the miners are registered."""
    clock, root = SystemClock(), key("root")
    home.mkdir(parents=True)
    with create_ledger(home / "chain.db", root=root.ss58_address, clock=clock, manual=True) as ledger:
        rules = {"tempo": 5, "max_allowed_validators": 1}
        owner = root.ss58_address
        create_subnet(ledger, root, 1, owner=owner, owner_hotkey=owner, hyperparameters=rules)
        for name in (VALIDATOR, *miners):
            faucet(ledger, root, key(name).ss58_address, 2000 * RAO_PER_TAO)
            register(ledger, key(name), key(name), 1)
        add_stake(ledger, key(VALIDATOR), key(VALIDATOR).ss58_address, 1, 400 * RAO_PER_TAO)
        ledger.advance(6)
    for name in (VALIDATOR, *miners):
        keep_keys(home, name)


def _command(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gas.cli.main", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"gascli {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _compose(folder: Path, shares: dict[tuple[str, str], int]) -> dict[str, list[str]]:
    """As many prompts of each modality as are asked, out of a bank."""
    wanted: Counter[str] = Counter()
    for (_miner, kind), count in shares.items():
        wanted[kind] += count
    _command(folder, "v", "prompts", "compose", "--count", str(max(wanted.values())), "--seed", "7")
    drawn = {}
    for kind, count in wanted.items():
        told = _command(folder, "v", "prompts", "draw", "--modality", kind, "-n", str(count), "--json")
        drawn[kind] = [prompt["text"] for prompt in json.loads(told)["prompts"]]
    return drawn


def _photos(folder: Path) -> Path:
    """Some smooth drawn pictures: the resynthesis starts from pictures, whatever they show."""
    import cv2
    import numpy as np

    library = folder / "photos"
    library.mkdir(exist_ok=True)
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(library / f"photo-{number}.jpg"), cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC))
    return library


def _settings(folder: Path, name: str, stack: contextlib.ExitStack, library: Path) -> None:
    """The operator's file of one miner; a peer of its provider runs from now on."""
    values = {
        "GAS_HOME": ".gas",
        "BT_WALLET_NAME": name,
        "BT_AXON_PORT": "0",
        "MINER_C2PA_NAME": "miner",
        "MINER_STATE_DIR": f"state-{name}",
        "MINER_ALLOW_LOCAL_WEBHOOKS": "true",
        "MINER_MIN_FREE_MB": "1",
        "SERVICE_POLL_SECONDS": "0.05",
    }
    if name in PEERS:
        kind_of_peer, keys, kinds = PEERS[name]
        peer = stack.enter_context(kind_of_peer(sample_media()))
        values |= {variable: text.format(key=peer.key, url=peer.url) for variable, text in keys.items()}
        values |= {f"{kind.upper()}_SERVICE": name for kind in kinds}
    else:
        own, parts = LOCAL[name]
        values |= {variable: text.format(library=library) for variable, text in own.items()}
        values |= {f"{kind.upper()}_SERVICE": "local" for kind in parts}
    file = folder / f".env.{name}"
    file.touch(mode=0o600)
    file.write_text("".join(f"{variable}={text}\n" for variable, text in values.items()), encoding="utf-8")


def _started(folder: Path, names: list[str], stack: contextlib.ExitStack) -> dict[str, str]:
    """Start every miner; their addresses, once all of them take work."""
    running = {}
    for name in names:
        log = stack.enter_context((folder / f"{name}.log").open("wb"))
        words = ["g", "serve", "--env-file", f".env.{name}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gas.cli.main", *words], cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        stack.callback(_ended, process)
        running[name] = process
    return {name: _address(folder / f"{name}.log", process) for name, process in running.items()}


def _address(log: Path, process: subprocess.Popen[bytes], seconds: float = 120.0) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for line in log.read_text(encoding="utf-8").splitlines():
            if '"event": "serving"' in line:
                return f"http://127.0.0.1:{json.loads(line)['port']}"
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"{log.stem} does not take work:\n{log.read_text(encoding='utf-8')}")


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _webhook(miners: list[str], deliveries: dict[str, list[Delivery]]) -> FastAPI:
    """The validator's side: takes what one of the miners has signed."""
    names = {key(name).ss58_address: name for name in miners}
    standing = {address: Standing(uid, stake=0, permit=False) for uid, address in enumerate(names)}
    guard, clock = ReplayGuard(), SystemClock()
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.post("/generation/callback")
    async def callback(request: Request) -> dict[str, object]:
        import hashlib

        body = await request.body()
        now = int(clock.time() * 1000)
        claim = check_headers(request.headers, receiver=key(VALIDATOR).ss58_address, now_ms=now, standing=standing.get)
        signer = check_body(claim, hashlib.sha256(body).hexdigest(), now_ms=now, guard=guard)
        failed = request.headers.get("task-status") == "failed"
        found = Delivery(names[signer], body, failed, time.monotonic())
        deliveries.setdefault(request.headers["task-id"], []).append(found)
        return {"status": "verified", "reasons": []}

    return app


async def _ask(
    client: SignedClient,
    row: Row,
    url: str,
    webhook: str,
    deliveries: dict[str, list[Delivery]],
    seconds: float,
) -> None:
    """Ask for everything of one row, and wait for it."""
    began = time.monotonic()
    places = asyncio.Semaphore(AT_ONCE)
    receiver = key(row.miner).ss58_address

    async def ask(prompt: str) -> None:
        message = {"prompt": prompt, "parameters": {}}
        while time.monotonic() - began < seconds:
            try:
                async with places:
                    answer = await client.post_json(
                        f"{url}/gen_{row.kind}", message, signed_for=receiver, headers={"X-Webhook-URL": webhook}
                    )
            except PeerUnreachable as error:
                if error.error_code != "peer_busy":
                    row.wrong[error.error_code] += 1
                    return
                await asyncio.sleep(1.0)
            except RequestRefused as error:
                row.wrong[error.error_code] += 1
                return
            else:
                told: Any = answer.json()
                row.tasks[told["task_id"]] = prompt
                return
        row.wrong["queue_full"] += 1

    await asyncio.gather(*(ask(prompt) for prompt in row.prompts))
    while time.monotonic() - began < seconds and any(t not in deliveries for t in row.tasks):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    row.seconds = max([d[0].at for task in row.tasks if (d := deliveries.get(task))], default=began) - began


def _judge(row: Row, deliveries: dict[str, list[Delivery]], media: Path, root: Path) -> None:
    """Look at each delivery of a row as the validator's operator does."""
    for task in row.tasks:
        came = deliveries.get(task, [])
        if not came:
            row.wrong["not_delivered"] += 1
            continue
        first = came[0]
        if len(came) > 1:
            row.wrong["delivered_twice"] += 1
        if first.miner != row.miner:
            row.wrong["another_signer"] += 1
        if first.failed:
            row.wrong[str(json.loads(first.body).get("code"))] += 1
            continue
        mime = sniff_mime(first.body)
        if len(first.body) > MOST_BYTES or mime is None or not mime.startswith(f"{row.kind}/"):
            row.wrong["another_kind"] += 1
            continue
        row.delivered += 1
        file = media / f"{task}.{mime.partition('/')[2]}"
        file.write_bytes(first.body)
        state = _state(file, root)
        row.trusted += state == "Trusted"
        if state != "Trusted":
            row.wrong[f"c2pa_{state}"] += 1


def _state(file: Path, root: Path) -> str:
    """What ``gascli g verify-c2pa`` says of a file."""
    said, status = io.StringIO(), 0
    with contextlib.redirect_stdout(said):
        try:
            gascli(["g", "verify-c2pa", str(file), "--trust", str(root), "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
    state = str(json.loads(said.getvalue()).get("state"))
    return state if (state == "Trusted") == (status == 0) else f"{state}, status {status}"


def _report(rows: list[Row]) -> int:
    print(f"{'miner':18} {'modality':9} {'prompts':>7} {'delivered':>9} {'Trusted':>7} {'seconds':>7}")
    for row in rows:
        wrong = ", ".join(f"{count} x {code}" for code, count in row.wrong.items())
        print(
            f"{row.miner:18} {row.kind:9} {len(row.prompts):7} {row.delivered:9} {row.trusted:7} "
            f"{row.seconds:7.1f}{'  ' if wrong else ''}{wrong}"
        )
    asked, delivered = sum(len(row.prompts) for row in rows), sum(row.delivered for row in rows)
    trusted = sum(row.trusted for row in rows)
    longest = max((row.seconds for row in rows), default=0.0)
    print(f"{'all':18} {len({row.kind for row in rows}):<9} {asked:7} {delivered:9} {trusted:7} {longest:7.1f}")
    good = asked == delivered == trusted and not any(row.wrong for row in rows)
    print(
        "Every prompt was answered once, by who was asked, and every medium is Trusted." if good else "Not all is well."
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
