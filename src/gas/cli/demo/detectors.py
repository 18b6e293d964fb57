"""The demo's detectors: packed, pushed through the real submission API, examined and benchmarked in the sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from gas.arena.push import push, submission_status
from gas.chain.keys import load_hotkey
from gas.chain.local.chain import LocalChain
from gas.cli.demo.cast import DETECTORS, NETUID, VALIDATOR
from gas.cli.demo.home import DemoHome
from gas.cli.demo.processes import Processes, Service
from gas.clock import RandomIds, SystemClock
from gas.errors import InfrastructureError, RequestRefused
from gas.protocol.client import SignedClient
from gas.storage.database import Database
from gas.submissions.pack import pack
from gas.types import TERMINAL_STATES, Modality, SubmissionState, Vertical

__all__ = ["CANARY", "PACKAGES", "submit"]

PACKAGES: Final = Path(__file__).parent / "packages"
"""One folder a detector, named like its author's wallet."""

CANARY: Final = Path("/tmp/gas-demo-canary")  # noqa: S108  (the hostile package would write just there)

_HOSTILE: Final = "det-hostile"
_POLL_SECONDS: Final = 0.25
# How far a submission has come, of five, for the progress display.
_PROGRESS: Final = {
    SubmissionState.UPLOADED: 1,
    SubmissionState.SCANNING: 1,
    SubmissionState.EXAMINING: 2,
    SubmissionState.CONFIRMED: 3,
    SubmissionState.QUEUED: 3,
    SubmissionState.RUNNING: 4,
}
_STEPS: Final = 5


async def submit(
    home: DemoHome, _database: Database, processes: Processes, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Push every package and wait until each has come to its end.

    Args:
        home: The demo, its round open.
        processes: Starts the arena; it is stopped before this returns.
        report: Told how many steps of how many are done.

    Returns:
        ``{"formats": {name: format}, "states": {name: state}, "canary_untouched": bool}``

    Raises:
        InfrastructureError: The arena did not start or broke, or the hostile package ran.
    """
    settings, clock = home.settings, SystemClock()
    CANARY.unlink(missing_ok=True)
    arena_hotkey = load_hotkey(settings.wallets_path, VALIDATOR.name).ss58_address
    zips = {m.name: home.path / "packages" / f"{m.name}.zip" for m in DETECTORS}
    for name, path in zips.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(pack, PACKAGES / name, path)
    service = processes.start(
        "arena", ["arena", "serve", "--home", str(home.path), "--wallet-name", VALIDATOR.name, "--port", "0"]
    )
    formats = {name: "onnx" if list((PACKAGES / name).glob("*.onnx")) else "safetensors" for name in zips}
    try:
        async with httpx.AsyncClient(timeout=60) as http:
            url = await service.url("/readyz", http)
            ended: dict[str, str] = {}
            waiting: dict[str, tuple[SignedClient, str]] = {}
            for name, path in zips.items():
                signer = load_hotkey(settings.wallets_path, name)
                client = SignedClient(signer, http, clock, RandomIds())
                if name == _HOSTILE:
                    ended[name] = await _refused(path, url, arena_hotkey, client)
                    continue
                chain = LocalChain(settings.ledger_path, signer, clock)
                try:
                    pushed = await push(
                        path,
                        Modality.IMAGE,
                        Vertical.GENERAL,
                        url=url,
                        arena_hotkey=arena_hotkey,
                        hotkey=signer.ss58_address,
                        netuid=NETUID,
                        client=client,
                        chain=chain,
                    )
                finally:
                    await chain.close()
                waiting[name] = client, pushed.receipt.model_id
            await _ends(waiting, ended, url, arena_hotkey, service, report)
    finally:
        service.stop()
    untouched = not CANARY.exists()
    if not untouched:
        raise InfrastructureError("The hostile package has run: its canary was touched.", code="sandbox_escape")
    return {"formats": formats, "states": ended, "canary_untouched": untouched}


async def _refused(package: Path, url: str, arena_hotkey: str, client: SignedClient) -> str:
    """Upload the hostile package as its author would: without asking the checks on this side first."""
    data = await asyncio.to_thread(package.read_bytes)
    try:
        await client.post_multipart(
            f"{url}/api/v1/submissions",
            {"modality": "image", "vertical": "general"},
            {"zip": (package.name, data, "application/zip")},
            signed_for=arena_hotkey,
        )
    except RequestRefused as refusal:
        if refusal.error_code not in ("package_rejected", "content_known"):
            raise
        return SubmissionState.REJECTED.value
    raise InfrastructureError("The arena took the hostile package.", code="static_checks_failed")


async def _ends(
    waiting: dict[str, tuple[SignedClient, str]],
    ended: dict[str, str],
    url: str,
    arena_hotkey: str,
    service: Service,
    report: Callable[[int, int], None],
) -> None:
    """Wait until every submission is in a terminal state."""
    total = _STEPS * (len(waiting) + len(ended))
    while waiting:
        done = _STEPS * len(ended)
        for name, (client, model_id) in list(waiting.items()):
            found = await submission_status(client, url, arena_hotkey, model_id)
            state = SubmissionState(str(found["state"]))
            if state in TERMINAL_STATES:
                ended[name] = state.value
                del waiting[name]
            done += _STEPS if state in TERMINAL_STATES else _PROGRESS.get(state, 0)
        report(done, total)
        if service.process.poll() is not None:
            raise InfrastructureError("The arena broke.", code="arena_lost", hint=f"Look into {service.log}.")
        await asyncio.sleep(_POLL_SECONDS)
