"""sn34-validator as a whole, on a real ledger, with its two servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gas.chain.keys import signer_from_seed
from gas.chain.local.chain import LocalChain
from gas.chain.local.founding import create_ledger, create_subnet, ensure_balance, ensure_registered, ensure_stake
from gas.cli.validator_service import _listening
from gas.clock import RandomIds, SystemClock
from gas.errors import ChainUnreachable, ConfigurationError
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.types import RAO_PER_TAO
from gas.validator.asking import CURSOR
from gas.validator.ground import Ground, ServiceState
from gas.validator.service_validator import Blocks, ValidatorService
from gas.validator.settings import read_settings


def ground_of(folder: Path) -> Ground:
    """A validator on a ledger whose blocks come when the test says so."""
    clock, owner, own = SystemClock(), signer_from_seed(b"o" * 32), signer_from_seed(b"v" * 32)
    ledger = create_ledger(folder / "chain.db", root=owner.ss58_address, clock=clock, manual=True)
    create_subnet(ledger, owner, 1, owner=owner.ss58_address, owner_hotkey=owner.ss58_address)
    ensure_balance(ledger, owner, own.ss58_address, 100 * RAO_PER_TAO)
    ensure_registered(ledger, own, own, 1)
    ensure_stake(ledger, own, own.ss58_address, 1, 10 * RAO_PER_TAO)
    ledger.close()
    settings = read_settings(
        None, gas_home=folder, callback_ip="127.0.0.1", callback_port=0, metrics_port=0, challenge_interval_blocks=2,
        callback_min_free_mb=0,
    )  # fmt: skip
    chain = LocalChain(folder / "chain.db", own, clock, poll_seconds=0.02)
    database = open_database(f"sqlite:///{folder / 'gas.db'}")
    return Ground("sn34-validator", settings, database, FolderBlobs(folder / "blobs"), chain, own, clock, RandomIds())


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110  (the database has no event for it)
            await asyncio.sleep(0.02)


def test_the_service_follows_the_blocks_answers_and_stops_when_told(tmp_path: Path) -> None:
    ground = ground_of(tmp_path)
    chain = ground.chain
    assert isinstance(chain, LocalChain)
    ports: list[int] = []

    async def play() -> None:
        running = asyncio.ensure_future(ValidatorService(ground, _listening, ports.append).run())
        await until(lambda: ports and ground.state.get(CURSOR))
        first = ground.state.get(CURSOR)["block"]
        await asyncio.to_thread(chain.ledger.advance, 50)
        await until(lambda: ground.state.get(CURSOR)["block"] == first + 50)
        async with httpx.AsyncClient() as http:
            health = await http.get(f"http://127.0.0.1:{ports[0]}/health")
            unsigned = await http.post(f"http://127.0.0.1:{ports[0]}/generation/callback", content=b"x")
        assert (health.status_code, unsigned.status_code) == (200, 400)
        await until(lambda: ServiceState.heartbeats(ground.database))
        ground.stop.set()
        async with asyncio.timeout(10):
            await running
        await chain.close()

    asyncio.run(play())
    ground.database.close()


def test_health_and_metrics_tell_of_all_three_services(tmp_path: Path) -> None:
    from gas.validator.metrics import create_metrics_app

    ground = ground_of(tmp_path)
    app = create_metrics_app(ground.database, ground.hotkey, ground.clock)

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vali") as http:
            return await http.get(path)

    ground.beat(block=3)
    assert asyncio.run(ask("/health")).status_code == 503
    for name in ("sn34-generator", "sn34-data"):
        ServiceState(ground.database, name, ground.clock).put("heartbeat", {})
    assert asyncio.run(ask("/health")).json()["status"] == "ok"
    text = asyncio.run(ask("/metrics")).text
    assert "gas_validator_backlog 0.0" in text
    assert 'gas_validator_heartbeat_seconds{service="sn34-data"}' in text
    asyncio.run(ground.chain.close())
    ground.database.close()


def test_who_waits_for_a_block_sees_the_newest_only() -> None:
    async def play() -> list[int]:
        blocks, seen = Blocks(), []
        blocks.see(1)
        seen.append(await blocks.after(-1))
        for block in (2, 3, 4):
            blocks.see(block)
        seen.append(await blocks.after(seen[-1]))
        waiting = asyncio.ensure_future(blocks.after(4))
        await asyncio.sleep(0)
        blocks.see(5)
        return [*seen, await waiting]

    assert asyncio.run(play()) == [1, 4, 5]


def test_an_unreachable_chain_at_the_start_ends_the_process_to_be_started_again(tmp_path: Path) -> None:
    ground = ground_of(tmp_path)

    class Gone:
        async def metagraph(self, _netuid: int) -> None:
            raise ChainUnreachable("Nobody answers.")

    service = ValidatorService(ground, _listening)
    service._graph._chain = Gone()  # type: ignore[assignment]
    with pytest.raises(ChainUnreachable):
        asyncio.run(service.run())
    asyncio.run(ground.chain.close())
    ground.database.close()


def test_a_wrong_blobs_address_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gas.chain.keys import create_wallet
    from gas.cli.validator_service import check

    ground_of(tmp_path).database.close()
    create_wallet(tmp_path / "wallets", "validator")
    monkeypatch.setitem(os.environ, "GAS_BLOBS_URL", "ftp://somewhere")
    settings = read_settings(None, gas_home=tmp_path, callback_ip="127.0.0.1")
    with pytest.raises(ConfigurationError, match="GAS_BLOBS_URL"):
        check(settings)
    monkeypatch.delenv("GAS_BLOBS_URL")
    assert check(read_settings(None, gas_home=tmp_path, callback_ip="127.0.0.1")).startswith("5")
