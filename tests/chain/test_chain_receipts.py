"""A validator sets what it planned, on any chain; what is committed is revealed later, over restarts."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from ledger_network import LedgerNetwork, found_network, keep_keys
from peer_network import decode_metadata_once
from substrate_peer import SubstratePeer
from test_chain_served import served

from gas.chain.local.chain import LocalChain
from gas.cli.chain_receipts import publish, reveal_kept
from gas.cli.main import main
from gas.clock import ManualClock
from gas.config import HomeSettings
from gas.errors import ChainUnreachable, StorageError
from gas.storage.database import open_database

Run = Callable[..., tuple[int, dict[str, object], str]]

OWNER, VALIDATOR = 0, 1


@dataclass
class Setting:
    """A validator's home and the networks behind its endpoint."""

    home: Path
    net: LedgerNetwork
    advance: Callable[[int], object]

    def kept(self) -> list[Path]:
        return sorted((self.home / "receipts").glob("*"))

    def in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        async def look() -> dict[int, dict[int, int]]:
            chain = LocalChain(self.net.ledger.path, None, self.net.clock)
            try:
                return await chain.weights_in_force(netuid)
            finally:
                await chain.close()

        return asyncio.run(look())


@pytest.fixture(params=["local", "served", "peer"])
def setting(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    home = tmp_path / "home"
    keep_keys(home, "validator")
    open_database(f"sqlite:///{home / 'gas.db'}").close()
    folder = home if request.param == "local" else tmp_path / "net"
    folder.mkdir(exist_ok=True)
    with found_network(folder) as net:
        if request.param == "peer":
            decode_metadata_once(monkeypatch)
            with SubstratePeer(net.ledger, net.keyring, net.root, commit_reveal_version=2) as peer:
                monkeypatch.setenv("GAS_CHAIN_ENDPOINT", peer.url)
                yield Setting(home, net, peer.advance)
                assert peer.faults == []
            return
        if request.param == "local":
            yield Setting(home, net, net.ledger.advance)
            return
        with served(net.ledger.path, net.clock) as endpoint:
            monkeypatch.setenv("GAS_CHAIN_ENDPOINT", endpoint)
            yield Setting(home, net, net.ledger.advance)


@pytest.fixture
def run(setting: Setting, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, dict[str, object], str]:
        capsys.readouterr()
        status = 0
        try:
            main([*words, "--home", str(setting.home), "--wallet-name", "validator", "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err

    return call


def test_a_validator_sets_its_plan_on_any_chain(setting: Setting, run: Run) -> None:
    setting.advance(3)
    status, plan, _ = run("v", "weights")
    assert (status, plan["weights"], "receipt" in plan) == (0, {str(OWNER): 1.0}, False)
    assert setting.in_force(1) == {}
    status, refused, _ = run("v", "weights", "--set")
    assert (status, refused["error"]["code"]) == (1, "stale_version")
    status, done, _ = run("v", "weights", "--set", "--version-key", "2")
    assert (status, done["weights"], done["receipt"]["kind"]) == (0, {str(OWNER): 1.0}, "plain")
    assert setting.in_force(1) == {VALIDATOR: {OWNER: 65535}}
    status, refused, err = run("v", "weights", "--set", "--version-key", "2")
    assert (status, refused["error"]["code"]) == (1, "rate_limited")
    assert "Try again in" in err
    assert setting.kept() == []


def test_what_a_validator_committed_is_revealed_by_a_later_run(setting: Setting, run: Run) -> None:
    words = ("v", "weights", "--set", "--version-key", "2", "--netuid", "2")
    setting.advance(3)
    status, done, _ = run(*words)
    assert (status, done["receipt"]["kind"]) == (0, "committed")
    (first,) = setting.kept()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert (setting.in_force(2), run("chain", "reveal", "--netuid", "1")[1]["receipts"]) == ({}, [])
    status, early, _ = run("chain", "reveal", "--netuid", "2")
    assert (status, early["revealed"], early["receipts"][0]["state"]) == (0, 0, "waiting")
    # Too soon for other weights: what was committed before stays as good as it was.
    assert run(*words)[0] == 1
    assert setting.kept() == [first]

    setting.advance(10)
    status, done, err = run(*words)
    assert (status, done["receipt"]["kind"]) == (0, "committed")
    assert "1 weights are revealed." in err
    assert setting.in_force(2) == {VALIDATOR: {OWNER: 65535}}
    (second,) = setting.kept()
    assert second != first

    setting.advance(10)
    status, late, _ = run("chain", "reveal", "--netuid", "2")
    assert (status, late["revealed"], setting.kept()) == (0, 1, [])


def test_a_receipt_that_is_too_late_is_named_and_dropped(setting: Setting, run: Run) -> None:
    setting.advance(3)
    assert run("chain", "weights", "0=1", "--version-key", "2", "--netuid", "2")[0] == 0
    setting.advance(25)
    status, late, _ = run("chain", "reveal", "--netuid", "2")
    assert (status, late["revealed"], late["receipts"][0]["state"]) == (0, 0, "expired")
    assert setting.kept() == []


def publish_with(chain: LocalChain, settings: HomeSettings) -> None:
    async def work() -> None:
        try:
            await publish(chain, settings, chain.signer.ss58_address, [0], [1], 2, ManualClock())
        finally:
            await chain.close()

    asyncio.run(work())


@pytest.fixture
def net(tmp_path: Path) -> Iterator[LedgerNetwork]:
    with found_network(tmp_path) as found:
        found.ledger.advance(3)
        yield found


def test_a_commit_whose_answer_was_lost_can_still_be_revealed(net: LedgerNetwork, tmp_path: Path) -> None:
    class Lost(LocalChain):
        """The call gets through, and its answer doesn't."""

        async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
            await super().commit_weights(netuid, commit_hash)
            raise ChainUnreachable("The connection broke.")

    settings = HomeSettings(home=tmp_path, netuid=2)
    with pytest.raises(ChainUnreachable):
        publish_with(Lost(net.ledger.path, net.validator, net.clock), settings)
    net.ledger.advance(10)

    async def reveal() -> list[str]:
        chain = LocalChain(net.ledger.path, net.validator, net.clock)
        try:
            return [
                done.state for done in await reveal_kept(chain, settings, net.validator.ss58_address, ManualClock())
            ]
        finally:
            await chain.close()

    broken = tmp_path / "receipts" / f"weights-2-{net.validator.ss58_address}-0.json"
    broken.write_text("[" * 10_000)
    assert sorted(asyncio.run(reveal())) == ["revealed", "unreadable"]
    assert asyncio.run(reveal()) == ["unreadable"]
    assert list((tmp_path / "receipts").iterdir()) == [broken]


def test_a_receipt_of_another_endpoint_is_left_alone(net: LedgerNetwork, tmp_path: Path) -> None:
    settings = HomeSettings(home=tmp_path, netuid=2)
    publish_with(LocalChain(net.ledger.path, net.validator, net.clock), settings)
    (tmp_path / "other").mkdir()

    async def reveal(endpoint: str) -> list[str]:
        chain = LocalChain(other.ledger.path, other.validator, other.clock)
        there = settings.model_copy(update={"chain_endpoint": endpoint})
        try:
            return [done.state for done in await reveal_kept(chain, there, other.validator.ss58_address, ManualClock())]
        finally:
            await chain.close()

    with found_network(tmp_path / "other") as other:
        assert asyncio.run(reveal("ws://127.0.0.1:9")) == ["elsewhere"]
        # Here it must have been, and it isn't.
        assert asyncio.run(reveal("local")) == ["gone"]
        assert asyncio.run(reveal("local")) == []


def test_nothing_is_committed_that_could_not_be_revealed(net: LedgerNetwork, tmp_path: Path) -> None:
    (tmp_path / "receipts").write_text("no folder")
    with pytest.raises(StorageError):
        publish_with(LocalChain(net.ledger.path, net.validator, net.clock), HomeSettings(home=tmp_path, netuid=2))
    with net.ledger.read() as tx:
        assert tx.sql.execute("SELECT COUNT(*) FROM weight_commits").fetchone()[0] == 0


def test_a_commit_that_is_still_on_its_way_keeps_its_receipt(net: LedgerNetwork, tmp_path: Path) -> None:
    class Slow(LocalChain):
        """The call is handed in and has not arrived when the connection breaks."""

        late: bytes = b""

        async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
            self.late = commit_hash
            raise ChainUnreachable("The connection broke.")

    settings, clock = HomeSettings(home=tmp_path, netuid=2), ManualClock()
    slow = Slow(net.ledger.path, net.validator, net.clock)
    with pytest.raises(ChainUnreachable):
        publish_with(slow, settings)

    async def reveal() -> list[str]:
        chain = LocalChain(net.ledger.path, net.validator, net.clock)
        try:
            return [done.state for done in await reveal_kept(chain, settings, net.validator.ss58_address, clock)]
        finally:
            await chain.close()

    assert asyncio.run(reveal()) == ["waiting"]
    net.ledger.call(net.validator, "commit_weights", {"netuid": 2, "hash": slow.late.hex()})
    assert asyncio.run(reveal()) == ["waiting"]
    net.ledger.advance(10)
    assert asyncio.run(reveal()) == ["revealed"]
    # One that never arrived is given up after an hour.
    with pytest.raises(ChainUnreachable):
        publish_with(Slow(net.ledger.path, net.validator, net.clock), settings)
    clock.advance(4000)
    assert asyncio.run(reveal()) == ["gone"]
