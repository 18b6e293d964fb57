"""``--chain-endpoint`` with a live node behind it, whose metadata is the real network's: the same commands."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from ledger_network import TAO, LedgerNetwork, found_network
from peer_network import decode_metadata_once
from substrate_peer import SubstratePeer

from gas.chain.bittensor.chain import BittensorChain
from gas.chain.connect import connect
from gas.chain.keys import load_coldkey, load_hotkey
from gas.chain.local.founding import faucet
from gas.cli.main import main

Run = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LedgerNetwork, SubstratePeer]]:
    """A node, and a wallet with money on its chain in the home that ``run`` uses."""
    decode_metadata_once(monkeypatch)
    with pytest.raises(SystemExit):
        main(["wallet", "new", "ann", "--no-password", "--home", str(tmp_path), "--json"])
    coldkey, hotkey = load_coldkey(tmp_path / "wallets", "ann"), load_hotkey(tmp_path / "wallets", "ann")
    (tmp_path / "net").mkdir()
    with found_network(tmp_path / "net") as net:
        faucet(net.ledger, net.root, coldkey.ss58_address, 100 * TAO)
        keyring = {**net.keyring, coldkey.ss58_address: coldkey, hotkey.ss58_address: hotkey}
        with SubstratePeer(net.ledger, keyring, net.root) as peer:
            monkeypatch.setenv("GAS_CHAIN_ENDPOINT", peer.url)
            yield net, peer
            assert peer.faults == []


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        status = 0
        try:
            main([*words, "--home", str(tmp_path), "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, json.loads(capsys.readouterr().out)

    return call


@pytest.mark.slow
def test_a_miner_takes_part_in_a_live_network(live: tuple[LedgerNetwork, SubstratePeer], run: Run) -> None:
    _, peer = live
    price = run("chain", "status")[1]["registration_price"]
    assert price > 0
    status, refused = run("chain", "register", "--wallet", "ann", "--at-most", "0.0001")
    assert (status, refused["error"]["code"]) == (1, "price_too_high")
    status, uid = run("chain", "register", "--wallet", "ann", "--at-most", str(price / TAO))
    assert (status, uid) == (0, {"uid": 3})
    status, committed = run("chain", "commit", "hello", "--wallet", "ann")
    assert (status, committed["commitment"]["data"]) == (0, "hello")
    assert run("chain", "stake", "5", "--wallet", "ann")[1]["stake"] > 0
    status, refused = run("chain", "weights", "0=1", "--version-key", "2", "--wallet", "ann")
    assert (status, refused["error"]["code"]) == (1, "no_permit")
    status, shown = run("chain", "status")
    assert status == 0
    assert [neuron["uid"] for neuron in shown["neurons"]] == [0, 1, 2, 3]
    assert shown["tempo"] == 10
    # The node sees the end of the last connection a moment later than the client.
    deadline = time.monotonic() + 30
    while peer.open_connections and time.monotonic() < deadline:
        time.sleep(0.01)
    assert peer.open_connections == 0


def test_what_only_a_ledger_of_ours_has_is_refused_on_a_live_network(
    live: tuple[LedgerNetwork, SubstratePeer], run: Run
) -> None:
    for words in (["faucet", "1", "--to", "ann"], ["advance", "1"], ["pause"], ["resume"]):
        status, refused = run("chain", *words, "--root", "ann")
        assert (status, refused["error"]["code"]) == (2, "configuration")
    status, refused = run("chain", "rules", "tempo=5", "--wallet", "ann")
    assert (status, refused["error"]["code"]) == (2, "configuration")


def test_a_node_is_recognised_as_a_live_network(live: tuple[LedgerNetwork, SubstratePeer], tmp_path: Path) -> None:
    net, peer = live

    async def work() -> None:
        chain = await connect(peer.url, net.validator, net.clock, ledger_path=tmp_path / "none.db")
        try:
            assert isinstance(chain, BittensorChain)
            assert await chain.block() >= 10
        finally:
            await chain.close()

    asyncio.run(work())
