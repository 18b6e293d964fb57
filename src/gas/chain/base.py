"""The chain's seam: one interface for the embedded ledger and for a live network.

Amounts are rao as ``int``; weights are u16. Calls are asynchronous because a live network is far away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gas.chain.weights import WeightsReceipt
from gas.types import Hotkey, Rao

__all__ = ["Axon", "Chain", "Commitment", "Hyperparameters", "Metagraph", "Neuron"]


@dataclass(frozen=True, slots=True)
class Axon:
    """Where a neuron listens."""

    ip: str
    port: int
    protocol: int = 4


@dataclass(frozen=True, slots=True)
class Neuron:
    """One slot of a subnet as of one block.

    Attributes:
        uid: Slot number.
        hotkey: Key that signs.
        coldkey: Key that owns the stake and is paid through the hotkey.
        stake: Rao staked to the hotkey on this subnet.
        permit: Whether it may set weights.
        axon: Where it listens, if it has said so.
        last_update: Block of its last weights.
        registered_at: Block in which it took the slot.
        incentive: Miner's part of the last epoch, in [0, 1].
        dividends: Validator's part of the last epoch, in [0, 1].
        validator_trust: Row sum of its clipped weights, in [0, 1].
        consensus: Stake-weighted median of the weights set on it, in [0, 1].
        emission: Rao paid in the last epoch.
        active: False when its weights are older than the activity cut-off.
    """

    uid: int
    hotkey: Hotkey
    coldkey: str
    stake: Rao
    permit: bool
    axon: Axon | None
    last_update: int
    registered_at: int
    incentive: float
    dividends: float
    validator_trust: float
    consensus: float
    emission: Rao
    active: bool


@dataclass(frozen=True, slots=True)
class Metagraph:
    """Frozen snapshot of a subnet; ``neurons[i].uid == i``.

    Attributes:
        netuid: Which subnet.
        block: As of which block.
        owner_uid: Slot of the owner's hotkey, to which what nobody has earned is given to be burnt; -1 when it
            holds none.
        neurons: One for each slot.
    """

    netuid: int
    block: int
    owner_uid: int
    neurons: tuple[Neuron, ...]

    def by_hotkey(self, hotkey: str) -> Neuron | None:
        """The neuron of a hotkey, or None when it is not registered."""
        return next((n for n in self.neurons if n.hotkey == hotkey), None)


@dataclass(frozen=True, slots=True)
class Commitment:
    """What a hotkey has published on the chain, and when."""

    hotkey: Hotkey
    data: str
    block: int


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Rules of one subnet; the names are the network's own."""

    tempo: int = 360
    max_allowed_uids: int = 256
    max_allowed_validators: int = 64
    min_allowed_weights: int = 1
    weights_rate_limit: int = 100
    weights_version: int = 0
    activity_cutoff: int = 5000
    immunity_period: int = 4096
    kappa: int = 32767
    bonds_moving_avg: int = 900_000
    bonds_penalty: int = 65535
    yuma3: bool = False
    liquid_alpha: bool = False
    alpha_low: int = 45875
    alpha_high: int = 58982
    alpha_sigmoid_steepness: int = 1000
    commit_reveal: bool = False
    commit_reveal_period: int = 1
    min_stake: int = 0


class Chain(Protocol):
    """What services ask of a chain; every method may raise :class:`gas.errors.ChainUnreachable`.

    The conformance suite in ``tests/contracts`` runs on every implementation.
    """

    async def block(self) -> int:
        """Number of the newest block."""
        ...

    def blocks(self) -> AsyncIterator[int]:
        """Every new block's number; raises :class:`~gas.errors.ChainUnreachable` on a stall."""
        ...

    async def metagraph(self, netuid: int) -> Metagraph:
        """Snapshot of a subnet."""
        ...

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        """Rules of a subnet."""
        ...

    async def register(self, netuid: int) -> int:
        """Take a slot for the caller's hotkey by burning the price; returns the uid."""
        ...

    async def serve_axon(self, netuid: int, axon: Axon) -> None:
        """Publish where the caller's hotkey listens."""
        ...

    async def set_weights(self, netuid: int, uids: Sequence[int], weights: Sequence[int], version_key: int = 0) -> None:
        """Set the caller's weights (u16, any scale).

        Raises:
            gas.errors.RateLimited: Too soon after the last weights.
            gas.errors.NotRegistered: The caller has no uid.
            gas.errors.NoPermit: The caller may not set weights on others.
            gas.errors.StaleVersion: ``version_key`` is below the subnet's.
            gas.errors.CommitRevealRequired: The subnet wants commit and reveal.
            gas.errors.ChainRefused: Any other rule, e.g. ``duplicate_uids``.
        """
        ...

    async def commit_weights(self, netuid: int, commit_hash: bytes) -> None:
        """Commit to the hash of weights to be revealed later."""
        ...

    async def reveal_weights(
        self, netuid: int, uids: Sequence[int], weights: Sequence[int], salt: Sequence[int], version_key: int = 0
    ) -> None:
        """Reveal weights in exactly the epoch that is one period after their commit.

        Raises:
            gas.errors.ChainRefused: ``reveal_too_early``, ``commit_expired``, ``no_such_commit``, ...
        """
        ...

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
            What was done. When its ``kind`` is ``committed``, the caller keeps it, over restarts too, and hands its
            ``uids``, ``weights``, ``salt`` and ``version_key`` to :meth:`reveal_weights` one period later.

        Raises:
            gas.errors.ChainError: As :meth:`set_weights` and :meth:`commit_weights`.
        """
        ...

    async def weights_in_force(self, netuid: int) -> dict[int, dict[int, int]]:
        """Uid of the validator -> uid of the miner -> u16, max-upscaled; validators without weights left out."""
        ...

    async def set_commitment(self, netuid: int, data: str) -> None:
        """Publish up to 128 bytes of UTF-8 text under the caller's hotkey."""
        ...

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        """A hotkey's published text and the block of its publication."""
        ...

    async def close(self) -> None:
        """Free the connection."""
        ...
