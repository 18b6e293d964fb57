"""``gascli generator``: serve prompts, and try a pipeline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gas.cli.endpoint import ChainEndpoint

__all__ = ["EnvFile", "serve", "settings_file", "try_pipeline"]

EnvFile = Annotated[Path | None, typer.Option("--env-file", help="Settings; .env.gen_miner in this folder by default.")]
"""Option of every command that reads the operator's settings."""


def serve(
    env_file: EnvFile = None,
    wallet_name: Annotated[str | None, typer.Option(help="Wallet whose hotkey serves.")] = None,
    wallet_hotkey: Annotated[str | None, typer.Option(help="Name of the hotkey.")] = None,
    pipeline: Annotated[
        str | None, typer.Option(help="Make pictures with this local pipeline, and nothing else.")
    ] = None,
    credential: Annotated[
        Path | None, typer.Option(help="Folder with the C2PA credential (<wallet>.pem, <wallet>.key).")
    ] = None,
    library: Annotated[Path | None, typer.Option(help="Folder of source photos, for pipelines that need one.")] = None,
    home: Annotated[Path | None, typer.Option(help="Home with the wallets, and the ledger of a local chain.")] = None,
    netuid: Annotated[int | None, typer.Option(help="The subnet.")] = None,
    chain_endpoint: ChainEndpoint = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    axon: Annotated[
        str, typer.Option(help="IP:PORT to publish when others reach it there; default: what it listens on.")
    ] = "",
    state: Annotated[Path | None, typer.Option(help="Folder for tasks; default: in the home.")] = None,
    allow_local_webhooks: Annotated[
        bool | None,
        typer.Option("--allow-local-webhooks/--no-local-webhooks", help="Deliver to loop-back and private addresses."),
    ] = None,
    force_vpermit: Annotated[
        bool | None,
        typer.Option(
            "--force-vpermit/--no-force-vpermit",
            "--require-permit/--no-require-permit",
            help="Serve only validators with a permit.",
        ),
    ] = None,
    min_stake: Annotated[float | None, typer.Option(help="TAO that a caller must have staked.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that local pipelines compute with.")] = None,
) -> None:
    """Answer validators' prompts over HTTP: have media made, sign them with C2PA, deliver them to the webhook.

    Reads .env.gen_miner; an option goes before the file. Publishes the address on the chain and runs until SIGTERM or
    Ctrl-C.
    """
    from gas.cli.generator_serve import run
    from gas.cli.logs import configure_logs
    from gas.cli.processes import die_with_parent
    from gas.miners.local import leave_pipelines
    from gas.miners.settings import read_settings

    die_with_parent()
    configure_logs()
    only = None if pipeline is None else "none"
    # Whoever names a pipeline says all that matters; a file that lies about must not add services that cost money.
    file = env_file if pipeline is not None else settings_file(env_file)
    axon_ip, axon_port = _published(axon)
    settings = read_settings(
        file,
        image_service=None if pipeline is None else "local",
        image_pipeline=pipeline,
        video_service=only,
        audio_service=only,
        bt_wallet_name=wallet_name,
        bt_wallet_hotkey=wallet_hotkey,
        miner_c2pa_dir=credential,
        miner_library=library,
        gas_home=home,
        bt_netuid=netuid,
        bt_chain_endpoint=chain_endpoint or _chain_of_environment(),
        bt_axon_ip=host,
        bt_axon_port=port,
        bt_axon_external_ip=axon_ip,
        bt_axon_external_port=axon_port,
        miner_state_dir=state,
        miner_allow_local_webhooks=allow_local_webhooks,
        miner_force_vpermit=force_vpermit,
        miner_min_stake=min_stake,
        miner_threads=threads,
    )
    asyncio.run(run(settings, file))
    leave_pipelines()


def settings_file(named: Path | None) -> Path | None:
    """The settings' file: the one that is named, or the one of this folder where there is one."""
    from gas.miners.settings import ENV_FILE

    if named is not None:
        return named
    usual = Path(ENV_FILE)
    return usual if usual.is_file() else None


def _chain_of_environment() -> str | None:
    """``GAS_CHAIN_ENDPOINT``, which every other command reads too, unless the operator's own name is set."""
    import os

    return None if os.environ.get("BT_CHAIN_ENDPOINT") else os.environ.get("GAS_CHAIN_ENDPOINT") or None


def _published(axon: str) -> tuple[str | None, int | None]:
    if not axon:
        return None, None
    from gas.cli.endpoint import parse_axon

    there = parse_axon(axon)
    return there.ip, there.port


def try_pipeline(
    prompt: Annotated[str, typer.Argument(help="What the medium should show or say.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("medium.png"),
    pipeline: Annotated[
        str,
        typer.Option(help="diffusion, resynthesis, inpainting, image-to-image, video, speech or diffusers:FOLDER."),
    ] = "diffusion",
    library: Annotated[Path | None, typer.Option(help="Folder of source photos, for pipelines that need one.")] = None,
    source: Annotated[Path | None, typer.Option(help="Picture to change, for pipelines that change one.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Where to change it: white, in a picture of the same size.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same medium.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N, for diffusers models.")] = "auto",
    allow_downloads: Annotated[
        bool, typer.Option("--allow-downloads", help="Fetch a diffusers model from the hub when it isn't here.")
    ] = False,
) -> None:
    """Make one medium from a prompt, without a network."""
    from gas.errors import ConfigurationError
    from gas.generation.base import GenerationTask, SourceImage
    from gas.generation.local import load_pipeline

    if library is None and pipeline == "resynthesis":
        raise ConfigurationError("A resynthesis starts from photos.", hint="Name a folder of them with --library.")
    try:
        picture = None
        if source is not None:
            picture = SourceImage(source.read_bytes(), mask.read_bytes() if mask is not None else None)
        maker = load_pipeline(pipeline, library=library, threads=threads, device=device, downloads=allow_downloads)
        modality = min(maker.modalities)
        made = maker.generate(GenerationTask(modality, prompt, seed, source=picture))
        out.write_bytes(made.data)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {error.strerror}.") from error
    print(f"{out}: {made.mime}, {len(made.data)} bytes, made by {made.model}")
