"""The running generator: everything that ``gascli g serve`` puts together."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
from pathlib import Path

import structlog

from gas.chain.base import Axon
from gas.chain.keys import load_hotkey
from gas.cli.endpoint import home_settings, open_chain
from gas.cli.servers import Server, listen
from gas.clock import RandomIds, SystemClock
from gas.miners.copies import LocalCopies, sole_owner
from gas.miners.delivery import DeliveryRules
from gas.miners.generator import GeneratorRules, create_app
from gas.miners.making import MakingRules
from gas.miners.seal import CertificateSeal
from gas.miners.services import open_services
from gas.miners.settings import GeneratorSettings
from gas.miners.tasks import TaskStore
from gas.miners.worker import GeneratorWorker, WorkRules
from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.types import RAO_PER_TAO

__all__ = ["run"]

_PATIENCE_SECONDS = 10.0


async def run(settings: GeneratorSettings, env_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT; prints one line of JSON when it takes work.

    Args:
        settings: The operator's.
        env_file: Where the providers' keys are, beside the environment.

    Raises:
        gas.errors.ConfigurationError: Something of the operator's is wrong; nothing was published.
        gas.errors.ChainError: The chain can't be reached, or refuses the address.
    """
    clock, ids = SystemClock(), RandomIds()
    ip, port = settings.axon
    if env_file is not None:
        _warn_of_readers(env_file)
    signer = load_hotkey(settings.wallets_path, settings.bt_wallet_name, settings.bt_wallet_hotkey)
    seal = CertificateSeal(
        settings.miner_c2pa_dir, settings.credential_name, f"{settings.bt_wallet_name} medium", clock
    )
    copies = LocalCopies(settings.miner_output_dir) if settings.miner_save_locally else None
    home = home_settings(settings.gas_home, netuid=settings.bt_netuid, chain_endpoint=settings.bt_chain_endpoint)
    with sole_owner(settings.state_path, patience_seconds=_PATIENCE_SECONDS):
        socket = listen(settings.bt_axon_ip, settings.bt_axon_port)
        try:
            services = open_services(settings, env_file, clock)
            chain = await open_chain(home, signer, clock)
            try:
                store = TaskStore(settings.state_path, clock, ids)
                worker = GeneratorWorker(
                    store,
                    services,
                    seal,
                    signer,
                    clock,
                    ids,
                    _work_rules(settings),
                    keep=copies.keep if copies else None,
                )
                gate = EpistulaGate(
                    signer.ss58_address,
                    MetagraphCache(chain, settings.bt_netuid, clock),
                    clock,
                    ReplayGuard(),
                    min_stake=int(settings.miner_min_stake * RAO_PER_TAO),
                    need_permit=settings.miner_force_vpermit,
                )
                neuron = (await chain.metagraph(settings.bt_netuid)).by_hotkey(signer.ss58_address)
                rules = GeneratorRules(settings.miner_queue_size, settings.miner_allow_local_webhooks)
                app = create_app(
                    store, worker, services, gate, signer.ss58_address, neuron.uid if neuron else None, rules, ids=ids
                )
                server = Server(app, socket)
                loop = asyncio.get_running_loop()
                for number in (signal.SIGINT, signal.SIGTERM):
                    loop.add_signal_handler(number, server.stop)
                await server.start()
                there = Axon(ip, port or server.port)
                # A service that starts again has said it before, and a network may not hear it twice in some blocks.
                if settings.miner_publish_axon and (neuron is None or neuron.axon != there):
                    await chain.serve_axon(settings.bt_netuid, there)
                offered = {modality.value: service.name for modality, service in services.items()}
                about = {"event": "serving", "hotkey": signer.ss58_address, "port": server.port, "services": offered}
                print(json.dumps(about), flush=True)
                await server.wait()
            finally:
                await chain.close()
        finally:
            socket.close()


def _warn_of_readers(env_file: Path) -> None:
    """Tell the operator when other users of the machine can read the providers' keys."""
    try:
        mode = stat.S_IMODE(env_file.stat().st_mode)
    except OSError:
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        structlog.get_logger("gas.miner").warning(
            "settings_readable",
            code="settings_readable",
            file=str(env_file),
            mode=f"{mode:03o}",
            what_to_do=f"Others can read your keys: chmod 600 {env_file}",
        )


def _work_rules(settings: GeneratorSettings) -> WorkRules:
    age = settings.miner_task_timeout
    return WorkRules(
        concurrent=settings.miner_max_concurrent_tasks,
        making=MakingRules(max_age_seconds=age),
        delivery=DeliveryRules(max_age_seconds=age),
        min_free_bytes=settings.miner_min_free_mb * 1024 * 1024,
        keep_seconds=settings.miner_keep_days * 86_400.0,
        allow_local_webhooks=settings.miner_allow_local_webhooks,
    )
