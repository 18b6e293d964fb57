"""The demo's generators: two miners in processes of their own, challenged and judged by the validator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httpx

from gas.chain.base import Metagraph
from gas.chain.keys import load_hotkey
from gas.chain.local.chain import LocalChain
from gas.cli.demo.cast import GENERATORS, NETUID, VALIDATOR
from gas.cli.demo.home import DemoHome
from gas.cli.demo.material import library_folder
from gas.cli.demo.processes import Processes
from gas.cli.servers import Server, listen
from gas.clock import RandomIds, SystemClock, derive_rng
from gas.errors import InfrastructureError
from gas.generation.prompts import PromptSource
from gas.generation.signing import TestAuthority
from gas.protocol.client import SignedClient
from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database
from gas.types import Modality
from gas.validator.callbacks import CALLBACK_PATH, create_app
from gas.validator.challenges import Challenger, ChallengeRules, GeneratorPeer
from gas.validator.tasks import Challenge, Challenges
from gas.verification.alignment import LightAlignment
from gas.verification.base import Asked, Verdict
from gas.verification.duplicates import MediaIndex
from gas.verification.pipeline import Verifier

__all__ = ["PIPELINES", "WANTED", "generate"]

WANTED: Final = 20
"""Verified media that each generator should deliver."""

PIPELINES: Final = {"gen-resynthesis": "resynthesis", "gen-diffusion": "diffusion"}
_MAX_CHALLENGES: Final = 40


async def generate(
    home: DemoHome, database: Database, processes: Processes, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Challenge both generators until each has delivered enough.

    Args:
        home: The demo.
        database: The validator's.
        processes: Starts the miners; they are stopped before this returns.
        report: Told how many media of how many are verified.

    Returns:
        ``{"generators": {name: {"verified", "refused", "states", "reasons"}}}``

    Raises:
        InfrastructureError: A miner did not start, or delivered nothing.
    """
    clock, settings = SystemClock(), home.settings
    authority = TestAuthority(home.path / "authority", clock)
    for member in GENERATORS:
        authority.leaf(member.name, f"Demo operator {member.name}")
    signer = load_hotkey(settings.wallets_path, VALIDATOR.name)
    chain = LocalChain(settings.ledger_path, signer, clock)
    challenges = Challenges(database, signer.ss58_address, clock)
    index = MediaIndex(home.path / "copies")
    verifier = Verifier(index, authority.anchors_pem, alignments=(LightAlignment(),), clock=clock)
    hotkeys = {m.name: home.results["found"]["members"][m.name]["hotkey"] for m in GENERATORS}
    running = {m.name: _start_miner(home, m.name, processes) for m in GENERATORS}
    socket = listen("127.0.0.1", 0)
    try:

        def judge(data: bytes, challenge: Challenge) -> Verdict:
            asked = Asked(
                challenge.modality,
                challenge.created_at,
                challenge.deadline,
                challenge.delivered_at or clock.time(),
                challenge.prompt,
                challenge.parameters,
                owner=f"{signer.ss58_address}/{challenge.miner}/{challenge.task_id}",
            )
            return verifier.judge(data, asked)

        def settled(_challenge: Challenge, _verdict: Verdict | None) -> None:
            challenger.settled()
            report(sum(challenges.verified_count(hotkey) for hotkey in hotkeys.values()), WANTED * len(hotkeys))

        gate = EpistulaGate(signer.ss58_address, MetagraphCache(chain, NETUID, clock), clock, ReplayGuard())
        blobs = FolderBlobs(settings.blobs_path)
        app = create_app(challenges, judge, blobs, gate, signer.ss58_address, clock, on_settled=settled)
        server = Server(app, socket)
        async with httpx.AsyncClient(timeout=30) as http:
            challenger = Challenger(
                challenges,
                SignedClient(signer, http, clock, RandomIds()),
                f"http://127.0.0.1:{server.port}{CALLBACK_PATH}",
                PromptSource().draw,
                ChallengeRules(wanted=WANTED, max_challenges=_MAX_CHALLENGES),
            )
            await server.start()
            peers = [GeneratorPeer(hotkeys[name], await miner.url("/health", http)) for name, miner in running.items()]
            await _published(chain, [peer.hotkey for peer in peers])
            rng = derive_rng(home.seed, "prompts", sum(challenges.verified_count(h) for h in hotkeys.values()))
            await challenger.collect(peers, Modality.IMAGE, rng)
        server.stop()
        await server.wait()
    finally:
        socket.close()
        verifier.close()
        index.close()
        for miner in running.values():
            miner.stop()
        await chain.close()
    out = {}
    for name, hotkey in hotkeys.items():
        counts = challenges.counts(hotkey)
        if not counts.verified:
            raise InfrastructureError(
                f"The generator {name} delivered no medium that could be verified.",
                code="no_media",
                hint=f"Look into {home.path / 'logs' / f'{name}.log'}.",
            )
        out[name] = {
            "verified": counts.verified,
            "refused": counts.refused,
            "states": counts.states,
            "reasons": counts.reasons,
        }
    return {"generators": out}


def _start_miner(home: DemoHome, name: str, processes: Processes) -> Any:
    arguments = [
        *("generator", "serve", "--wallet-name", name, "--pipeline", PIPELINES[name]),
        *("--credential", str(home.path / "authority"), "--library", str(library_folder(home, name))),
        *("--home", str(home.path), "--netuid", str(NETUID), "--port", "0", "--allow-local-webhooks"),
    ]
    return processes.start(name, arguments)


async def _published(chain: LocalChain, hotkeys: list[str]) -> Metagraph:
    """Wait until the generators' addresses stand on the chain, as a validator of a real network finds them."""
    while True:
        graph = await chain.metagraph(NETUID)
        if all((neuron := graph.by_hotkey(hotkey)) and neuron.axon for hotkey in hotkeys):
            return graph
        await asyncio.sleep(0.05)
