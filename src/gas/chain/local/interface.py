"""What every way to a ledger of ours has in common: the calls, and what a ledger shows beyond any chain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from gas.chain.base import Axon, Commitment, Hyperparameters, Metagraph
from gas.chain.keys import Signer
from gas.chain.local.calls import JsonValue
from gas.chain.local.views import Pay, Standing
from gas.chain.weights import WeightsReceipt, check_weights, weights_hash
from gas.errors import ChainRefused, ChainUnreachable, ConfigurationError
from gas.types import Hotkey, Rao

__all__ = ["STALL_SECONDS", "LedgerChain"]

STALL_SECONDS: Final = 120.0
"""Seconds without a new block after which a chain counts as stalled (or ten blocks, if that is longer)."""


class LedgerChain(ABC):
    """One key's view of a ledger; implements :class:`gas.chain.base.Chain`.

    Every call may raise what its rules say (see :class:`gas.chain.base.Chain`), and
    :class:`~gas.errors.ConfigurationError` (``no_signer``) when there is no key to sign it with.

    Args:
        signer: The hotkey that signs; None for one who only looks.
        coldkey: Pays for registration and stake, and is the root's key for the root's calls. Without one, the hotkey
            is its own coldkey.
    """

    def __init__(self, signer: Signer | None, coldkey: Signer | None) -> None:
        self._signer = signer
        self._cold = coldkey

    @property
    def signer(self) -> Signer:
        """The hotkey that signs.

        Raises:
            ConfigurationError: There is none (``no_signer``).
        """
        if self._signer is None:
            raise ConfigurationError("This call needs a hotkey.", code="no_signer", hint="Name it with --wallet-name.")
        return self._signer

    @property
    def coldkey(self) -> Signer:
        """The key that pays.

        Raises:
            ConfigurationError: There is none (``no_signer``).
        """
        return self._cold if self._cold is not None else self.signer

    # Looking

    @abstractmethod
    async def block(self) -> int:
        """Number of the newest block, with every epoch up to it run."""

    @abstractmethod
    def blocks(self) -> AsyncIterator[int]:
        """The newest block, and every one that comes after.

        Raises:
            ChainUnreachable: No new block for 120 s (or ten blocks, if that is longer). A paused ledger may stand
                still as long as it likes.
        """

    @abstractmethod
    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet in the newest block."""

    @abstractmethod
    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet."""

    @abstractmethod
    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication."""

    @abstractmethod
    async def balance_of(self, address: str) -> Rao:
        """Free rao on an account; 0 for one that nobody has seen."""

    @abstractmethod
    async def emissions(self, netuid: int, since_epoch: int = 0) -> dict[Hotkey, Pay]:
        """What each hotkey has been paid in the epochs from ``since_epoch`` on (the first epoch is 1), in rao."""

    @abstractmethod
    async def standing(self, netuid: int) -> Standing:
        """Where the ledger and a subnet stand: block, epochs, price of a slot, money."""

    @abstractmethod
    async def weights_in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out."""

    @abstractmethod
    async def close(self) -> None:
        """Free what is open."""

    async def balance(self) -> Rao:
        """Free rao on the coldkey's account."""
        return await self.balance_of(self.coldkey.ss58_address)

    # Calling

    @abstractmethod
    async def _call(
        self, signer: Signer, kind: str, params: Mapping[str, JsonValue], *, cosigner: Signer | None = None
    ) -> int | None:
        """Sign a call and have it included once; returns its number, or None when it has none or it got lost."""

    async def register(self, netuid: int) -> int:
        """Take a slot for the hotkey by burning the price from the coldkey's account; returns the uid."""
        hotkey = self.signer
        uid = await self._call(
            self.coldkey, "register", {"netuid": netuid, "hotkey": hotkey.ss58_address}, cosigner=hotkey
        )
        if uid is not None:
            return uid
        neuron = (await self.metagraph(netuid)).by_hotkey(hotkey.ss58_address)
        if neuron is None:
            raise ChainUnreachable("The registration went through, and the slot is gone again.")
        return neuron.uid

    async def add_stake(self, netuid: int, amount: int) -> None:
        """Stake the coldkey's rao to the hotkey."""
        await self._stake("add_stake", netuid, amount)

    async def remove_stake(self, netuid: int, amount: int) -> None:
        """Take staked rao back to the coldkey's account."""
        await self._stake("remove_stake", netuid, amount)

    async def _stake(self, kind: str, netuid: int, amount: int) -> None:
        await self._call(self.coldkey, kind, {"netuid": netuid, "hotkey": self.signer.ss58_address, "amount": amount})

    async def transfer(self, address: str, amount: int) -> None:
        """Move rao from the coldkey's account to another."""
        await self._call(self.coldkey, "transfer", {"address": address, "amount": amount})

    async def serve_axon(self, netuid: int, axon: Axon) -> None:
        """Publish where the hotkey listens."""
        await self._call(
            self.signer,
            "serve_axon",
            {"netuid": netuid, "ip": axon.ip, "port": axon.port, "protocol": axon.protocol},
        )

    async def set_weights(self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0) -> None:
        """Set the hotkey's weights; refusals as in :class:`gas.chain.base.Chain`."""
        check_weights(uids, weights)
        await self._call(
            self.signer,
            "set_weights",
            {"netuid": netuid, "uids": list(uids), "weights": list(weights), "version_key": version_key},
        )

    async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
        """Commit to the hash of weights; :func:`gas.chain.weights.weights_hash` makes it."""
        await self._call(self.signer, "commit_weights", {"netuid": netuid, "hash": commit_hash.hex()})

    async def reveal_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], salt: Sequence[int], version_key: int = 0
    ) -> None:
        """Reveal weights in exactly the epoch that is one period after their commit."""
        check_weights(uids, weights, salt)
        await self._call(
            self.signer,
            "reveal_weights",
            {
                "netuid": netuid,
                "uids": list(uids),
                "weights": list(weights),
                "salt": list(salt),
                "version_key": version_key,
            },
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
        """Set weights in the way that the subnet asks for: plainly, or by commit and reveal.

        Args:
            netuid: The subnet.
            uids: u16 each.
            weights: u16 each, any scale.
            version_key: u64.
            salt: u16 each, unpredictable; only a commit uses it.

        Returns:
            What was done. When its ``kind`` is ``committed``, the caller keeps it, and hands its ``uids``,
            ``weights``, ``salt`` and ``version_key`` to :meth:`reveal_weights` one period later.
        """
        check_weights(uids, weights, salt)
        said = (netuid, tuple(uids), tuple(weights), version_key)
        if not (await self.hyperparameters(netuid)).commit_reveal:
            await self.set_weights(netuid, uids, weights, version_key)
            return WeightsReceipt("plain", *said, await self.block())
        try:
            digest = weights_hash(self.signer.ss58_address, netuid, uids, weights, salt, version_key)
        except ValueError as error:
            raise ChainRefused(str(error), code="malformed_call") from error
        await self.commit_weights(netuid, digest)
        return WeightsReceipt("committed", *said, await self.block(), salt=tuple(salt))

    async def set_commitment(self, netuid: int, data: str) -> None:
        """Publish up to 128 bytes of UTF-8 text under the hotkey, in place of the text before."""
        await self._call(self.signer, "set_commitment", {"netuid": netuid, "data": data})

    # What the subnet's owner and the root may do; their key is the coldkey.

    async def set_hyperparameters(self, netuid: int, changes: Mapping[str, JsonValue]) -> None:
        """Change rules of a subnet; the names are those of :class:`gas.chain.base.Hyperparameters`.

        Raises:
            ChainRefused: ``not_owner``, ``unknown_parameter``, ``bad_parameter``.
        """
        await self._call(self.coldkey, "set_hyperparameters", {"netuid": netuid, "changes": dict(changes)})

    async def faucet(self, address: str, amount: int) -> None:
        """Mint rao for an account."""
        await self._call(self.coldkey, "faucet", {"address": address, "amount": amount})

    async def advance(self, blocks: int) -> int:
        """Let blocks pass on a paused ledger, with the epochs that fall due; returns the block."""
        to_block = await self.block() + blocks
        await self._call(self.coldkey, "advance", {"to_block": to_block})
        return to_block

    async def pause(self) -> None:
        """Stop the clock of the blocks."""
        await self._call(self.coldkey, "pause", {})

    async def resume(self) -> None:
        """Let blocks follow the clock again."""
        await self._call(self.coldkey, "resume", {})
