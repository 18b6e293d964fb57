"""Bad input that every chain refuses, with typed errors, and by which nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from chain_suite import ChainSuite, Network

from gas.chain.base import Axon, Chain
from gas.errors import ChainRefused

__all__ = ["ChainBadInput"]


class ChainBadInput(ChainSuite):
    """Part of the suite."""

    def test_an_unknown_subnet_is_refused(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            with pytest.raises(ChainRefused) as error:
                await chain.metagraph(60_000)
            assert error.value.error_code == "unknown_subnet"

        self._as(network, network.validator, scenario)

    @pytest.mark.parametrize(
        ("uids", "weights", "version_key"),
        [
            ([-1], [1], 2),
            ([0], [-1], 2),
            ([70_000], [1], 2),
            ([0], [70_000], 2),
            ([0], [2**70], 2),
            ([0], [1], -1),
            ([0], [1], 2**64),
            (range(10**6), [1] * 10**6, 2),
            ([0] * 10**6, [1] * 10**6, 2),
            ([0], [1] * 10**6, 2),
        ],
        ids=[
            "uid<0",
            "weight<0",
            "uid>u16",
            "weight>u16",
            "huge",
            "version<0",
            "version>u64",
            "1e6",
            "1e6same",
            "1:1e6",
        ],
    )
    def test_weights_that_make_no_sense_are_refused_and_change_nothing(
        self, network: Network, uids: Sequence[int], weights: Sequence[int], version_key: int
    ) -> None:
        async def scenario(chain: Chain) -> None:
            await network.advance(3)
            before = (await chain.metagraph(network.netuid)).by_hotkey(network.validator.ss58_address)
            with pytest.raises(ChainRefused):
                await chain.set_weights(network.netuid, uids, weights, version_key)
            with pytest.raises(ChainRefused):
                await chain.reveal_weights(network.commit_reveal_netuid, uids, weights, [1, 2], version_key)
            after = (await chain.metagraph(network.netuid)).by_hotkey(network.validator.ss58_address)
            assert before is not None
            assert after is not None
            assert after.last_update == before.last_update
            # The connection is as good as before.
            await chain.set_weights(network.netuid, [0], [1], 2)

        self._as(network, network.validator, scenario)

    @pytest.mark.parametrize("netuid", [-1, 60_000, 65_536, 2**31, 2**70])
    def test_no_call_finds_a_subnet_that_cannot_be(self, network: Network, netuid: int) -> None:
        async def scenario(chain: Chain) -> None:
            me = network.validator.ss58_address
            for call in (
                lambda: chain.metagraph(netuid),
                lambda: chain.hyperparameters(netuid),
                lambda: chain.register(netuid),
                lambda: chain.serve_axon(netuid, Axon("203.0.113.7", 8091)),
                lambda: chain.set_weights(netuid, [0], [1], 2),
                lambda: chain.commit_weights(netuid, bytes(32)),
                lambda: chain.reveal_weights(netuid, [0], [1], [1], 2),
                lambda: chain.set_commitment(netuid, "mine"),
                lambda: chain.get_commitment(netuid, me),
                lambda: chain.publish_weights(netuid, [0], [1], 2, salt=[1]),
                lambda: chain.weights_in_force(netuid),
            ):
                with pytest.raises(ChainRefused):
                    await call()

        self._as(network, network.validator, scenario)

    @pytest.mark.parametrize(
        ("ip", "port"),
        [
            ("203.0.113.7", 0),
            ("203.0.113.7", -1),
            ("203.0.113.7", 65_536),
            ("0.0.0.0", 8091),
            ("224.0.0.1", 8091),
            ("localhost", 8091),
            ("", 8091),
            ("203.0.113.7/24", 8091),
            ("1" * 5000, 8091),
        ],
    )
    def test_an_axon_where_nobody_can_listen_is_refused(self, network: Network, ip: str, port: int) -> None:
        async def scenario(chain: Chain) -> None:
            with pytest.raises(ChainRefused):
                await chain.serve_axon(network.netuid, Axon(ip, port))
            me = (await chain.metagraph(network.netuid)).by_hotkey(network.miner.ss58_address)
            assert me is not None
            assert me.axon is None

        self._as(network, network.miner, scenario)

    @pytest.mark.parametrize(
        "data", ["x" * 129, "\u00e4" * 65, "x" * 10**6, "\ud800"], ids=["129", "utf8", "1e6", "lone"]
    )
    def test_a_commitment_that_does_not_fit_is_refused(self, network: Network, data: str) -> None:
        async def scenario(chain: Chain) -> None:
            with pytest.raises(ChainRefused):
                await chain.set_commitment(network.netuid, data)
            assert await chain.get_commitment(network.netuid, network.miner.ss58_address) is None

        self._as(network, network.miner, scenario)

    @pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), bytes(10**6)], ids=["0", "31", "33", "1e6"])
    def test_a_commit_is_a_hash_of_32_bytes(self, network: Network, digest: bytes) -> None:
        async def scenario(chain: Chain) -> None:
            with pytest.raises(ChainRefused):
                await chain.commit_weights(network.commit_reveal_netuid, digest)

        self._as(network, network.validator, scenario)

    @pytest.mark.parametrize("amount", [-(10**9), 0, 10**30, 2**62, 2**63, 2**64], ids=str)
    def test_amounts_that_nobody_has_are_refused_and_move_nothing(self, network: Network, amount: int) -> None:
        async def scenario(chain: Chain) -> None:
            before = (await chain.metagraph(network.netuid)).by_hotkey(network.validator.ss58_address)
            for name in ("add_stake", "remove_stake"):
                with pytest.raises(ChainRefused):
                    await getattr(chain, name)(network.netuid, amount)
            after = (await chain.metagraph(network.netuid)).by_hotkey(network.validator.ss58_address)
            assert before is not None
            assert after is not None
            # Not equal: on a live network an epoch may pay meanwhile.
            assert before.stake <= after.stake < before.stake + 100 * 10**9

        self._as(network, network.validator, scenario)

    def test_nobody_stakes_more_than_the_account_holds(self, network: Network) -> None:
        async def scenario(chain: Any) -> None:
            held = await chain.balance()
            with pytest.raises(ChainRefused) as error:
                await chain.add_stake(network.netuid, held + 10**9)
            assert error.value.error_code == "insufficient_balance"
            assert await chain.balance() <= held

        self._as(network, network.validator, scenario)
