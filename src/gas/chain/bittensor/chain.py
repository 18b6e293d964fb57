"""A live Bittensor network behind the chain's seam."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from gas.chain.base import Axon, Commitment, Hyperparameters, Metagraph
from gas.chain.bittensor import reading, timelock, views
from gas.chain.bittensor.extrinsics import Inclusion, Submitter
from gas.chain.bittensor.heads import follow_heads
from gas.chain.bittensor.node import Head, Node
from gas.chain.bittensor.reading import PALLET, check_number
from gas.chain.bittensor.refusals import Refusal, typed_error
from gas.chain.bittensor.rpc import RpcConnection
from gas.chain.keys import Signer
from gas.chain.weights import WeightsReceipt, check_weights, weights_hash
from gas.clock import Clock
from gas.errors import ChainError, ChainRefused, ConfigurationError, NotRegistered
from gas.types import Rao

__all__ = ["BittensorChain"]

_AXON_VERSION: Final = 1


class BittensorChain:
    """One key's view of a Bittensor network; implements :class:`gas.chain.base.Chain`.

    Connects at the first call, over one socket, and again when it drops. Reads are of the newest block; which calls
    the network has is read from its metadata.

    Args:
        endpoint: ``ws://`` or ``wss://`` address of a node; a light node is enough.
        signer: The hotkey that signs; None is enough for reading.
        clock: Measures the stall of :meth:`blocks`.
        coldkey: Pays for registration and stake; without one, the hotkey is its own coldkey.

    Raises:
        ConfigurationError: The endpoint is no WebSocket address (``bad_endpoint``).
    """

    def __init__(self, endpoint: str, signer: Signer | None, clock: Clock, *, coldkey: Signer | None = None) -> None:
        self._rpc = RpcConnection(endpoint)
        self._node = Node(self._rpc)
        self._submitter = Submitter(self._node)
        self._signer = signer
        self._cold = coldkey or signer
        self._clock = clock

    async def block(self) -> int:
        """Number of the newest block."""
        return await self._node.number()

    def blocks(self) -> AsyncIterator[int]:
        """The newest block, and every one that comes after, over dropped sockets, none twice.

        Raises:
            ChainUnreachable: No new block for 120 s.
        """
        return follow_heads(self._rpc, self._clock)

    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet in the newest block; ``owner_uid`` is -1 when the owner's hotkey holds no slot.

        Raises:
            ChainRefused: ``unknown_subnet``.
        """
        return await reading.read_metagraph(self._node, netuid)

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet.

        Raises:
            ChainRefused: ``unknown_subnet``.
        """
        return await reading.read_hyperparameters(self._node, netuid)

    async def weights_in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out.

        Raises:
            ChainRefused: ``unknown_subnet``.
        """
        return await reading.read_weights(self._node, netuid)

    async def registration_price(self, netuid: int) -> Rao:
        """What a slot of the subnet costs now, in rao.

        Raises:
            ChainRefused: ``unknown_subnet``.
        """
        return await reading.read_price(self._node, netuid)

    async def register(self, netuid: int) -> int:
        """Take a slot for the hotkey by burning the price from the coldkey's account; returns the uid.

        Raises:
            ChainRefused: ``already_registered``, ``insufficient_balance``, ``unknown_subnet``, ...
        """
        hotkey = self._hotkey().ss58_address
        done = await self._send(self._coldkey(), PALLET, "burned_register", {"netuid": netuid, "hotkey": hotkey})
        head = await self._node.head()
        (uid,) = await self._node.storage(Head(done.block_hash, head.runtime), [(PALLET, "Uids", [netuid, hotkey])])
        if uid is None:
            raise NotRegistered("The hotkey has lost its slot again.", hint="Register once more.")
        return int(uid)

    async def serve_axon(self, netuid: int, axon: Axon) -> None:
        """Publish where the hotkey listens.

        Raises:
            ChainRefused: ``bad_axon``.
        """
        check_number("port", axon.port, 16)
        check_number("protocol", axon.protocol, 8)
        try:
            address = ipaddress.ip_address(axon.ip)
        except ValueError:
            raise ChainRefused("The axon's ip is no IP address.", code="bad_axon") from None
        if address.is_unspecified or address.is_multicast or address.is_loopback:
            # Not every one of them is refused by every runtime.
            raise ChainRefused(
                "Nobody can reach the axon's ip.", code="bad_axon", hint="Publish the address that others see."
            )
        params = {
            "netuid": netuid,
            "version": _AXON_VERSION,
            "ip": int(address),
            "port": axon.port,
            "ip_type": address.version,
            "protocol": axon.protocol,
            "placeholder1": 0,
            "placeholder2": 0,
        }
        await self._send(self._hotkey(), PALLET, "serve_axon", params)

    async def set_weights(self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0) -> None:
        """Set the hotkey's weights; refusals as in :class:`gas.chain.base.Chain`."""
        await self._set_weights(netuid, uids, weights, version_key)

    async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
        """Commit to the hash of weights; :func:`gas.chain.weights.weights_hash` makes it."""
        await self._commit_weights(netuid, commit_hash)

    async def reveal_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], salt: Sequence[int], version_key: int = 0
    ) -> None:
        """Reveal weights in exactly the epoch that is one period after their commit."""
        check_weights(uids, weights, salt)
        params = {
            "netuid": netuid,
            "uids": list(uids),
            "values": list(weights),
            "salt": list(salt),
            "version_key": version_key,
        }
        check_number("netuid", netuid, 16)
        check_number("version_key", version_key, 64)
        try:
            await self._send_either(netuid, "reveal_mechanism_weights", "reveal_weights", params)
        except ChainRefused as refused:
            me = self._hotkey().ss58_address
            digest = weights_hash(me, netuid, uids, weights, salt, version_key)
            # The pool has one number for too early and too late.
            if refused.error_code == "reveal_too_early" and await reading.is_expired(self._node, netuid, me, digest):
                raise ChainRefused("The commit has expired.", code="commit_expired", hint="Commit again.") from None
            raise

    async def commit_timelocked(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0
    ) -> WeightsReceipt:
        """Commit to weights that the network itself reveals (commit-reveal version 4).

        Raises:
            ChainRefused: ``timelock_unsupported`` or ``commit_too_large``, and as :meth:`commit_weights`.
        """
        check_weights(uids, weights)
        check_number("netuid", netuid, 16)
        check_number("version_key", version_key, 64)
        hotkey = self._hotkey().ss58_address
        head = await self._node.head()
        sealed = await timelock.seal_weights(self._node, head, hotkey, netuid, uids, weights, version_key)
        params = {
            "netuid": netuid,
            "commit": "0x" + sealed.data.hex(),
            "reveal_round": sealed.reveal_round,
            "commit_reveal_version": await timelock.wanted_version(self._node, head),
        }
        done = await self._send_either(
            netuid, "commit_timelocked_mechanism_weights", "commit_timelocked_weights", params
        )
        return WeightsReceipt(
            "timelocked", netuid, tuple(uids), tuple(weights), version_key, done.block, reveal_round=sealed.reveal_round
        )

    async def publish_weights(
        self,
        netuid: int,
        uids: Sequence[int],
        weights: Sequence[int],
        version_key: int = 0,
        *,
        salt: Sequence[int],
    ) -> WeightsReceipt:
        """Set weights in the way that the subnet asks for: plainly, sealed by time-lock, or by commit and reveal.

        Args:
            netuid: The subnet.
            uids: u16 each.
            weights: u16 each, any scale.
            version_key: u64.
            salt: u16 each, unpredictable; only a commit by hash uses it.

        Returns:
            What was done. When its ``kind`` is ``committed``, the caller keeps it, and hands its ``uids``,
            ``weights``, ``salt`` and ``version_key`` to :meth:`reveal_weights` one period later.
        """
        check_weights(uids, weights, salt)
        check_number("version_key", version_key, 64)
        rules = await self.hyperparameters(netuid)
        said = (netuid, tuple(uids), tuple(weights), version_key)
        if not rules.commit_reveal:
            done = await self._set_weights(netuid, uids, weights, version_key)
            return WeightsReceipt("plain", *said, done.block)
        head = await self._node.head()
        if timelock.can_seal(head):
            version = await timelock.wanted_version(self._node, head)
            if version == timelock.TIMELOCK_VERSION:
                return await self.commit_timelocked(netuid, uids, weights, version_key)
        digest = weights_hash(self._hotkey().ss58_address, netuid, uids, weights, salt, version_key)
        done = await self._commit_weights(netuid, digest)
        return WeightsReceipt("committed", *said, done.block, salt=tuple(salt))

    async def set_commitment(self, netuid: int, data: str) -> None:
        """Publish up to 128 bytes of UTF-8 text under the hotkey, in place of the text before.

        Raises:
            ChainRefused: ``commitment_too_long``.
        """
        try:
            info = views.commitment_fields(data.encode())
        except UnicodeEncodeError:
            raise ChainRefused("A commitment must be valid Unicode.", code="malformed_call") from None
        except ValueError as error:
            raise ChainRefused(str(error), code="commitment_too_long") from None
        await self._send(self._hotkey(), "Commitments", "set_commitment", {"netuid": netuid, "info": info})

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication.

        Raises:
            ChainRefused: ``unknown_subnet``, or ``malformed_call`` when ``hotkey`` is no address.
        """
        return await reading.read_commitment(self._node, netuid, hotkey)

    async def add_stake(self, netuid: int, amount: int) -> None:
        """Stake the coldkey's rao to the hotkey, at the subnet's price of the moment."""
        params = {"hotkey": self._hotkey().ss58_address, "netuid": netuid, "amount_staked": amount}
        await self._send(self._coldkey(), PALLET, "add_stake", params)

    async def remove_stake(self, netuid: int, amount: int) -> None:
        """Take staked rao (of the subnet's alpha) back to the coldkey's account."""
        params = {"hotkey": self._hotkey().ss58_address, "netuid": netuid, "amount_unstaked": amount}
        await self._send(self._coldkey(), PALLET, "remove_stake", params)

    async def balance_of(self, address: str) -> Rao:
        """Free rao on an account; 0 for one that nobody has seen.

        Raises:
            ChainRefused: ``malformed_call``, when it is no address.
        """
        return await reading.read_balance(self._node, address)

    async def balance(self) -> Rao:
        """Free rao on the coldkey's account."""
        return await self.balance_of(self._coldkey().ss58_address)

    async def close(self) -> None:
        """Free the connection."""
        await self._rpc.close()

    async def _set_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int
    ) -> Inclusion:
        check_weights(uids, weights)
        params = {"netuid": netuid, "dests": list(uids), "weights": list(weights), "version_key": version_key}
        return await self._send_either(netuid, "set_mechanism_weights", "set_weights", params)

    async def _commit_weights(self, netuid: int, commit_hash: bytes) -> Inclusion:
        if len(commit_hash) != 32:
            raise ChainRefused("A commit is a hash of 32 bytes.", code="malformed_call")
        params = {"netuid": netuid, "commit_hash": "0x" + commit_hash.hex()}
        return await self._send_either(netuid, "commit_mechanism_weights", "commit_weights", params)

    async def _send_either(self, netuid: int, mechanism: str, plain: str, params: Mapping[str, Any]) -> Inclusion:
        """A call for the subnet's first mechanism where the runtime knows mechanisms, else the plain one."""
        check_number("netuid", netuid, 16)
        head = await self._node.head()
        if head.has_call(PALLET, mechanism):
            return await self._send(self._hotkey(), PALLET, mechanism, {**params, "mecid": 0})
        return await self._send(self._hotkey(), PALLET, plain, params)

    async def _send(self, signer: Signer, pallet: str, name: str, params: Mapping[str, Any]) -> Inclusion:
        netuid = check_number("netuid", params["netuid"], 16)
        try:
            return await self._submitter.submit(signer, pallet, name, params)
        except Refusal as refusal:
            raise await self._typed(refusal.name, netuid, signer) from None

    async def _typed(self, name: str, netuid: int, signer: Signer) -> ChainError:
        async def wait(limit: str) -> int:
            return await reading.blocks_to_wait(self._node, limit, netuid, signer.ss58_address)

        error = await typed_error(name, wait)
        if isinstance(error, NotRegistered):
            # Nobody is registered on a subnet that there isn't.
            await reading.require_subnet(self._node, await self._node.head(), netuid)
        return error

    def _hotkey(self) -> Signer:
        if self._signer is None:
            raise ConfigurationError("This call needs a hotkey.", code="no_signer", hint="Name it with --wallet-name.")
        return self._signer

    def _coldkey(self) -> Signer:
        if self._cold is None:
            raise ConfigurationError("This call needs a key.", code="no_signer", hint="Name it with --wallet-name.")
        return self._cold
