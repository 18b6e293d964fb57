"""``gascli generator``: serve prompts with a local pipeline."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from gas.cli.endpoint import ChainEndpoint

__all__ = ["serve", "try_pipeline"]


def serve(
    wallet_name: Annotated[str, typer.Option(help="Wallet whose hotkey serves.")],
    pipeline: Annotated[str, typer.Option(help="Local pipeline: resynthesis or diffusion.")],
    credential: Annotated[Path, typer.Option(help="Folder with the C2PA signing credential (<wallet>.pem, .key).")],
    library: Annotated[Path | None, typer.Option(help="Folder of source photos, for pipelines that need one.")] = None,
    wallet_hotkey: Annotated[str, typer.Option(help="Name of the hotkey.")] = "default",
    home: Annotated[Path, typer.Option(envvar="GAS_HOME", help="Home with the ledger and the wallets.")] = Path(".gas"),
    netuid: Annotated[int, typer.Option(help="The subnet.")] = 1,
    chain_endpoint: ChainEndpoint = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8091,
    axon: Annotated[
        str, typer.Option(help="IP:PORT to publish when others reach it there; default: what it listens on.")
    ] = "",
    state: Annotated[Path | None, typer.Option(help="Folder for tasks; default: in the home.")] = None,
    allow_local_webhooks: Annotated[bool, typer.Option(help="Deliver to loop-back and private addresses.")] = False,
    require_permit: Annotated[bool, typer.Option(help="Serve only validators with a permit.")] = True,
    threads: Annotated[int, typer.Option(min=1, help="Threads that the pipeline computes with.")] = 1,
) -> None:
    """Answer validators' prompts over HTTP: generate, sign with C2PA, deliver to the webhook.

    Publishes the address on the chain (serve_axon) and runs until SIGTERM or Ctrl-C.
    """
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent

    die_with_parent()
    configure_logs()
    asyncio.run(
        _serve(
            wallet_name, wallet_hotkey, pipeline, credential, library, home, netuid, chain_endpoint, host, port, axon,
            state or home / "miners" / wallet_name, allow_local_webhooks, require_permit, threads,
        )
    )  # fmt: skip


async def _serve(
    wallet: str,
    hotkey: str,
    pipeline_name: str,
    credential: Path,
    library: Path | None,
    home: Path,
    netuid: int,
    endpoint: str | None,
    host: str,
    port: int,
    axon: str,
    state: Path,
    allow_local_webhooks: bool,
    require_permit: bool,
    threads: int,
) -> None:
    from gas.chain.base import Axon
    from gas.chain.keys import load_hotkey
    from gas.cli.endpoint import home_settings, open_chain, parse_axon
    from gas.cli.servers import Server, listen
    from gas.clock import RandomIds, SystemClock
    from gas.generation.local import load_pipeline
    from gas.generation.signing import load_leaf, sign_medium
    from gas.miners.generator import GeneratorRules, create_app
    from gas.miners.tasks import TaskStore
    from gas.miners.worker import GeneratorWorker
    from gas.protocol.epistula import ReplayGuard
    from gas.protocol.server import EpistulaGate, MetagraphCache

    settings, clock, ids = home_settings(home, chain_endpoint=endpoint), SystemClock(), RandomIds()
    published = parse_axon(axon) if axon else None
    signer = load_hotkey(settings.wallets_path, wallet, hotkey)
    leaf = load_leaf(credential, wallet)
    chain = await open_chain(settings, signer, clock)
    socket = listen(host, port)
    try:
        pipeline = load_pipeline(pipeline_name, library=_library(pipeline_name, library), threads=threads)

        def seal(data: bytes, mime: str, model: str) -> bytes:
            return sign_medium(data, mime, leaf, title=f"{wallet} medium", model=model)

        store = TaskStore(state, clock, ids)
        worker = GeneratorWorker(store, pipeline, seal, signer, clock, ids)
        gate = EpistulaGate(
            signer.ss58_address, MetagraphCache(chain, netuid, clock), clock, ReplayGuard(), need_permit=require_permit
        )
        neuron = (await chain.metagraph(netuid)).by_hotkey(signer.ss58_address)
        uid = neuron.uid if neuron else None
        rules = GeneratorRules(allow_local_webhooks=allow_local_webhooks)
        app = create_app(store, worker, pipeline, gate, signer.ss58_address, uid, rules)
        server = Server(app, socket)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        await server.start()
        there = published or Axon(host, server.port)
        # A service that starts again has said it before, and a network may not hear it twice within some blocks.
        if neuron is None or neuron.axon != there:
            await chain.serve_axon(netuid, there)
        print(json.dumps({"event": "serving", "hotkey": signer.ss58_address, "port": server.port}), flush=True)
        await server.wait()
    finally:
        socket.close()
        await chain.close()


def try_pipeline(
    prompt: Annotated[str, typer.Argument(help="What the medium should show.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("medium.png"),
    pipeline: Annotated[str, typer.Option(help="Local pipeline: resynthesis or diffusion.")] = "diffusion",
    library: Annotated[Path | None, typer.Option(help="Folder of source photos, for pipelines that need one.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same medium.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 1,
) -> None:
    """Make one medium from a prompt, without a network."""
    from gas.generation.base import GenerationTask
    from gas.generation.local import load_pipeline
    from gas.types import Modality

    made = load_pipeline(pipeline, library=_library(pipeline, library), threads=threads).generate(
        GenerationTask(Modality.IMAGE, prompt, seed)
    )
    out.write_bytes(made.data)
    print(f"{out}: {made.mime}, {len(made.data)} bytes, made by {made.model}")


def _library(pipeline: str, folder: Path | None) -> Path:
    from gas.errors import ConfigurationError

    if folder is None and pipeline == "resynthesis":
        raise ConfigurationError("A resynthesis starts from photos.", hint="Name a folder of them with --library.")
    return folder or Path()
