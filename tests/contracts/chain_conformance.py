"""What every chain must do; a test module subclasses :class:`ChainConformance` and provides the ``network`` fixture."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from chain_bad_input import ChainBadInput
from chain_suite import Network, Scenario, run

from gas.chain.base import Axon, Chain
from gas.chain.weights import weights_hash
from gas.errors import ChainRefused, CommitRevealRequired, NoPermit, NotRegistered, RateLimited, StaleVersion

__all__ = ["ChainConformance", "Network", "Scenario", "run"]


class ChainConformance(ChainBadInput):
    """The suite; every chain passes all of it."""

    def test_blocks_come_one_by_one(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            start = await chain.block()
            seen: list[int] = []
            async for block in chain.blocks():
                seen.append(block)
                if len(seen) == 4:
                    break
                if len(seen) == 1:
                    await network.advance(3)
            assert seen[0] >= start
            assert seen == list(range(seen[0], seen[0] + 4))

        self._as(network, network.validator, scenario)

    def test_the_metagraph_is_a_snapshot_in_uid_order(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            graph = await chain.metagraph(network.netuid)
            assert [n.uid for n in graph.neurons] == list(range(len(graph.neurons)))
            validator = graph.by_hotkey(network.validator.ss58_address)
            miner = graph.by_hotkey(network.miner.ss58_address)
            assert validator is not None
            assert validator.permit
            assert validator.stake > 0
            assert miner is not None
            assert not miner.permit
            assert graph.by_hotkey(network.stranger.ss58_address) is None
            assert 0 <= graph.owner_uid < len(graph.neurons)

        self._as(network, network.validator, scenario)

    def test_hyperparameters_are_the_subnets(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            rules = await chain.hyperparameters(network.netuid)
            assert (rules.tempo, rules.weights_rate_limit, rules.weights_version) == (10, 3, 2)
            assert not rules.commit_reveal
            assert (await chain.hyperparameters(network.commit_reveal_netuid)).commit_reveal

        self._as(network, network.validator, scenario)

    def test_registration_takes_a_slot_once(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            uid = await chain.register(network.netuid)
            neuron = (await chain.metagraph(network.netuid)).neurons[uid]
            assert neuron.hotkey == network.stranger.ss58_address
            with pytest.raises(ChainRefused) as error:
                await chain.register(network.netuid)
            assert error.value.error_code == "already_registered"

        self._as(network, network.stranger, scenario)

    def test_an_axon_is_seen_by_others(self, network: Network) -> None:
        async def publish(chain: Chain) -> None:
            await chain.serve_axon(network.netuid, Axon("203.0.113.7", 8091))

        async def look(chain: Chain) -> None:
            miner = (await chain.metagraph(network.netuid)).by_hotkey(network.miner.ss58_address)
            assert miner is not None
            assert miner.axon is not None
            assert (miner.axon.ip, miner.axon.port) == ("203.0.113.7", 8091)

        self._as(network, network.miner, publish)
        self._as(network, network.validator, look)

    def test_who_is_not_registered_publishes_nothing(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            with pytest.raises(NotRegistered):
                await chain.serve_axon(network.netuid, Axon("203.0.113.7", 8091))
            with pytest.raises(NotRegistered):
                await chain.set_commitment(network.netuid, "mine")
            with pytest.raises(NotRegistered):
                await chain.set_weights(network.netuid, [0], [1], 2)

        self._as(network, network.stranger, scenario)

    def test_a_commitment_is_dated_and_replaced(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            me = network.miner.ss58_address
            assert await chain.get_commitment(network.netuid, me) is None
            await chain.set_commitment(network.netuid, '{"key":"a","hash":"0011223344556677"}')
            first = await chain.get_commitment(network.netuid, me)
            assert first is not None
            assert first.data == '{"key":"a","hash":"0011223344556677"}'
            await network.advance(2)
            await chain.set_commitment(network.netuid, "new")
            second = await chain.get_commitment(network.netuid, me)
            assert second is not None
            assert (second.hotkey, second.data) == (me, "new")
            assert second.block >= first.block + 2

        self._as(network, network.miner, scenario)

    def test_weights_pay_whom_they_name_at_the_epoch(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            miner = (await chain.metagraph(network.netuid)).by_hotkey(network.miner.ss58_address)
            assert miner is not None
            await network.advance(3)
            await chain.set_weights(network.netuid, [miner.uid], [17], 2)
            await network.advance(11)
            graph = await chain.metagraph(network.netuid)
            paid = graph.neurons[miner.uid]
            validator = graph.by_hotkey(network.validator.ss58_address)
            assert validator is not None
            assert paid.incentive > 0.99
            assert paid.emission > 0
            assert paid.stake > miner.stake
            assert validator.dividends > 0.99
            assert validator.validator_trust > 0.99

        self._as(network, network.validator, scenario)

    def test_weights_are_refused_with_typed_errors(self, network: Network) -> None:
        async def validator(chain: Chain) -> None:
            await network.advance(3)
            with pytest.raises(StaleVersion):
                await chain.set_weights(network.netuid, [0], [1], 1)
            for uids, weights, code in (
                ([0, 1], [1], "length_mismatch"),
                ([0, 0], [1, 1], "duplicate_uids"),
                ([4000], [1], "unknown_uids"),
            ):
                with pytest.raises(ChainRefused) as error:
                    await chain.set_weights(network.netuid, uids, weights, 2)
                assert error.value.error_code == code
            await chain.set_weights(network.netuid, [0], [1], 2)
            with pytest.raises(RateLimited) as limited:
                await chain.set_weights(network.netuid, [0], [1], 2)
            assert 1 <= limited.value.blocks <= 3
            with pytest.raises(CommitRevealRequired):
                await chain.set_weights(network.commit_reveal_netuid, [0], [1], 2)

        async def miner(chain: Chain) -> None:
            await network.advance(3)
            with pytest.raises(NoPermit):
                await chain.set_weights(network.netuid, [0], [1], 2)

        self._as(network, network.validator, validator)
        self._as(network, network.miner, miner)

    def test_weights_are_committed_and_revealed_a_period_later(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            netuid = network.commit_reveal_netuid
            me = network.validator.ss58_address
            await network.advance(3)
            digest = weights_hash(me, netuid, [0], [5], [1, 2, 3], 2)
            await chain.commit_weights(netuid, digest)
            with pytest.raises(ChainRefused) as early:
                await chain.reveal_weights(netuid, [0], [5], [1, 2, 3], 2)
            assert early.value.error_code == "reveal_too_early"
            await network.advance(10)
            with pytest.raises(ChainRefused) as other:
                await chain.reveal_weights(netuid, [0], [6], [1, 2, 3], 2)
            assert other.value.error_code == "no_such_commit"
            await chain.reveal_weights(netuid, [0], [5], [1, 2, 3], 2)

        self._as(network, network.validator, scenario)

    def test_an_axon_may_have_an_ipv6_address(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            await chain.serve_axon(network.netuid, Axon("2001:db8::7", 8091))
            me = (await chain.metagraph(network.netuid)).by_hotkey(network.miner.ss58_address)
            assert me is not None
            assert me.axon == Axon("2001:db8::7", 8091)

        self._as(network, network.miner, scenario)

    @pytest.mark.parametrize("data", ["x" * 128, "\u00e4" * 64, "a\u0000b"], ids=["128", "utf8", "nul"])
    def test_a_commitment_comes_back_as_it_was(self, network: Network, data: str) -> None:
        async def scenario(chain: Chain) -> None:
            await chain.set_commitment(network.netuid, data)
            found = await chain.get_commitment(network.netuid, network.miner.ss58_address)
            assert found is not None
            assert found.data == data

        self._as(network, network.miner, scenario)

    def test_two_connections_of_one_key_do_not_take_each_others_turn(self, network: Network) -> None:
        async def work() -> None:
            chains = [network.connect(network.miner) for _ in range(2)]
            try:
                for turn in range(3):
                    for which, chain in enumerate(chains):
                        await chain.set_commitment(network.netuid, f"{turn}/{which}")
                found = await chains[0].get_commitment(network.netuid, network.miner.ss58_address)
                assert found is not None
                assert found.data == "2/1"
            finally:
                for chain in chains:
                    await chain.close()

        run(work())

    def test_a_metagraph_is_whole_while_a_neuron_is_replaced(self, network: Network) -> None:
        full: int | None = getattr(network, "full_netuid", None)
        if full is None:
            return

        async def work() -> None:
            watcher, newcomer = network.connect(network.validator), network.connect(network.stranger)
            try:
                before = (await watcher.metagraph(full)).by_hotkey(network.miner.ss58_address)
                assert before is not None
                joining = asyncio.ensure_future(newcomer.register(full))
                seen = [await watcher.metagraph(full)]
                while not joining.done():
                    seen.append(await watcher.metagraph(full))
                uid = await joining
                seen.append(await watcher.metagraph(full))
            finally:
                await watcher.close()
                await newcomer.close()
            assert uid == before.uid
            for graph in seen:
                hotkeys = [neuron.hotkey for neuron in graph.neurons]
                assert [neuron.uid for neuron in graph.neurons] == [0, 1, 2]
                assert len(set(hotkeys)) == 3
                assert (network.miner.ss58_address in hotkeys) != (network.stranger.ss58_address in hotkeys)
            new = seen[-1].neurons[uid]
            assert new.hotkey == network.stranger.ss58_address
            assert new.registered_at == new.last_update > before.registered_at
            assert (new.axon, new.permit, new.incentive, new.emission) == (None, False, 0.0, 0)

        run(work())

    def test_published_weights_go_the_subnets_own_way(self, network: Network) -> None:
        async def scenario(chain: Chain) -> None:
            await network.advance(3)
            me = network.validator.ss58_address
            for netuid in (network.netuid, network.commit_reveal_netuid):
                graph = await chain.metagraph(netuid)
                mine, miner = graph.by_hotkey(me), graph.by_hotkey(network.miner.ss58_address)
                assert mine is not None
                assert miner is not None
                said = ([0, miner.uid], [13_107, 65_535], 2)
                receipt = await chain.publish_weights(netuid, *said, salt=[4, 5, 6])
                assert (receipt.netuid, list(receipt.uids), list(receipt.weights)) == (netuid, said[0], said[1])
                assert receipt.block > graph.block - 1
                if receipt.kind == "committed":
                    await network.advance(10)
                    await chain.reveal_weights(netuid, *said[:2], receipt.salt, 2)
                if receipt.kind != "timelocked":
                    weights = await chain.weights_in_force(netuid)
                    assert weights[mine.uid] == dict(zip(*said[:2], strict=True))

        self._as(network, network.validator, scenario)

    def test_a_slot_costs_its_buyer_and_nobody_else(self, network: Network) -> None:
        async def scenario(chain: Any) -> None:
            buyer, other = network.stranger.ss58_address, network.miner.ss58_address
            before, idle = await chain.balance_of(buyer), await chain.balance_of(other)
            assert await chain.balance() == before
            await chain.register(network.netuid)
            assert 0 < await chain.balance_of(buyer) < before
            assert await chain.balance_of(other) == idle

        self._as(network, network.stranger, scenario)
