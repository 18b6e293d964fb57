"""A chain of blocks over a ledger: extrinsics wait in a pool, and each block carries out those whose turn it is."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bittensor_sdist import golden
from scale_metadata import Metadata, Reader, compact
from substrate_extrinsics import Extrinsic, Refusal, Rules, invalid, read_extrinsic
from subtensor_calls import Dispatcher, Failure
from subtensor_state import Memory, State, snapshot

from gas.chain.keys import Signer
from gas.chain.local.ledger import Ledger

__all__ = ["Block", "Blocks", "real_metadata", "real_rules"]

_KEPT_STATES: Final = 256
_START_MS: Final = 1_700_000_000_000
_BLOCK_MS: Final = 12_000
_WEIGHT: Final = {"ref_time": 250_000_000, "proof_size": 5_000}


def real_rules() -> Rules:
    """What the real network's signatures cover."""
    network = golden()["network"]
    return Rules(bytes.fromhex(network["genesis_hash"][2:]), network["spec_version"], network["transaction_version"])


@functools.cache
def real_metadata(hidden: tuple[str, ...] = ()) -> tuple[bytes, Metadata]:
    """The real runtime's metadata, raw and read.

    Args:
        hidden: Names of calls or runtime functions that this runtime shall not have; each is overwritten with as
            many other letters, so that everything else stays as it is.
    """
    option = Reader(bytes.fromhex(golden()["metadata"]["v15_hex"][2:]))
    option.number(1)
    raw = option.blob()
    for name in hidden:
        text = compact(len(name)) + name.encode()
        if text not in raw:
            raise ValueError(f"The metadata has no {name}.")
        raw = raw.replace(text, compact(len(name)) + b"q" * len(name))
    return raw, Metadata(raw)


@dataclass
class Block:
    number: int
    hash: bytes
    header: dict[str, Any]
    extrinsics: list[bytes]
    state: State | None
    included: list[Extrinsic] = field(default_factory=list)


class Blocks:
    """The blocks so far, and the pool.

    Args:
        ledger: A manual ledger, whose blocks these are; those before now are empty, and their states pruned.
        keyring: The keys that may call, by address.
        root: The ledger's root key, which is the network's sudo key too.
        hidden: Calls and runtime functions that the runtime shall not have.
        memory: What the node knows beyond the ledger.
    """

    def __init__(
        self, ledger: Ledger, keyring: MutableMapping[str, Signer], root: Signer, hidden: Sequence[str], memory: Memory
    ) -> None:
        self.ledger, self.rules, self.memory = ledger, real_rules(), memory
        self.raw_metadata, self.metadata = real_metadata(tuple(hidden))
        self.dispatcher = Dispatcher(self.metadata, ledger, keyring, root)
        self.blocks: list[Block] = []
        self.by_hash: dict[str, Block] = {}
        self.pool: list[Extrinsic] = []
        for number in range(ledger.block() + 1):
            self._append(number, [], b"\0")

    def close(self) -> None:
        for block in self.blocks:
            if block.state is not None:
                block.state.close()

    @property
    def head(self) -> Block:
        return self.blocks[-1]

    def block(self, digest: str | None) -> Block:
        """The block of a hash, or the head.

        Raises:
            Refusal: There is none.
        """
        if digest is None:
            return self.head
        found = self.by_hash.get(digest)
        if found is None:
            raise Refusal(4003, f"Client error: UnknownBlock: Header was not found in the database: {digest}")
        return found

    def state(self, digest: str | None) -> State:
        """The state after the block of a hash, or after the head.

        Raises:
            Refusal: There is no such block, or its state is pruned.
        """
        state = self.block(digest).state
        if state is None:
            raise Refusal(4003, f"Client error: Api called for an unknown Block: State already discarded for {digest}")
        return state

    def accept(self, raw: bytes) -> Extrinsic:
        """Take an extrinsic into the pool.

        Raises:
            Refusal: It is not valid now.
        """

        def block_hash(number: int) -> bytes | None:
            return self.blocks[number].hash if number < len(self.blocks) else None

        extrinsic = read_extrinsic(self.metadata, self.rules, raw, self.head.number, block_hash)
        if extrinsic.nonce < self.nonce(extrinsic.signer):
            raise invalid("Transaction is outdated")
        for other in self.pool:
            if other.raw == raw:
                raise Refusal(1013, "Transaction is already in the pool", "Already imported")
            if (other.signer, other.nonce) == (extrinsic.signer, extrinsic.nonce):
                raise Refusal(1014, "Priority is too low: (0 vs 0)", "It can't replace another of the same nonce.")
        self.dispatcher.pool(extrinsic, self.memory)
        self.pool.append(extrinsic)
        return extrinsic

    def nonce(self, account: bytes) -> int:
        """How many extrinsics of an account are included."""
        return self.memory.nonces.get(account, 0)

    def next_index(self, account: bytes) -> int:
        """The nonce that an account should sign with next."""
        waiting = {e.nonce for e in self.pool if e.signer == account}
        nonce = self.nonce(account)
        while nonce in waiting:
            nonce += 1
        return nonce

    def next_ready(self) -> Extrinsic | None:
        """The first extrinsic in the pool whose turn it is."""
        return next((e for e in self.pool if e.nonce == self.nonce(e.signer)), None)

    def seal(self) -> Block:
        """Make a block of everything that waits and may."""
        number = self.ledger.advance(1)
        now = {"now": _START_MS + number * _BLOCK_MS}
        inherent = b"\x05" + self.metadata.encode(self.metadata.outer_call, ("Timestamp", ("set", now)))
        extrinsics = [compact(len(inherent)) + inherent]
        records = [_record(0, "System", _success("Mandatory"))]
        included: list[Extrinsic] = []
        while ready := self.next_ready():
            self.pool.remove(ready)
            index = len(extrinsics)
            extrinsics.append(ready.raw)
            included.append(ready)
            self.memory.nonces[ready.signer] = ready.nonce + 1
            records += self._apply(index, ready, number)
        events = self.metadata.encode(self.metadata.item("System", "Events").value, records)
        block = self._append(number, extrinsics, events)
        block.included = included
        return block

    def _append(self, number: int, extrinsics: list[bytes], events: bytes) -> Block:
        parent = self.blocks[-1].hash if self.blocks else b"\0" * 32
        moment = _START_MS + number * _BLOCK_MS
        roots = [hashlib.blake2b(part, digest_size=32).digest() for part in (events, b"".join(extrinsics))]
        slot = bytes.fromhex("0661757261") + compact(8) + (moment // _BLOCK_MS).to_bytes(8, "little")
        encoded = parent + compact(number) + roots[0] + roots[1] + compact(1) + slot
        digest = self.rules.genesis if number == 0 else hashlib.blake2b(encoded, digest_size=32).digest()
        header = {
            "parentHash": "0x" + parent.hex(),
            "number": hex(number),
            "stateRoot": "0x" + roots[0].hex(),
            "extrinsicsRoot": "0x" + roots[1].hex(),
            "digest": {"logs": ["0x" + slot.hex()]},
        }
        state = None
        if number == self.ledger.block():
            copy = snapshot(self.ledger.path)
            state = State(self.metadata, copy, number, moment, self.memory.copy(), events)
        block = Block(number, digest, header, extrinsics, state)
        self.blocks.append(block)
        self.by_hash["0x" + digest.hex()] = block
        if number >= _KEPT_STATES and (old := self.blocks[number - _KEPT_STATES]).state is not None:
            old.state.close()
            old.state = None
        return block

    def _apply(self, index: int, extrinsic: Extrinsic, number: int) -> list[dict[str, Any]]:
        fee = ("TransactionFeePaid", {"who": extrinsic.signer, "actual_fee": 0, "tip": 0})
        paid = _record(index, "TransactionPayment", fee)
        try:
            events = self.dispatcher.dispatch(extrinsic, self.memory, number)
        except Failure as failure:
            module, error = self.metadata.error_index(failure.pallet, failure.name)
            reason = ("Module", {"index": module, "error": bytes([error, 0, 0, 0])})
            failed = {"dispatch_error": reason, "dispatch_info": _info("Normal")}
            return [paid, _record(index, "System", ("ExtrinsicFailed", failed))]
        told = [_record(index, pallet, event) for pallet, event in events]
        return [*told, paid, _record(index, "System", _success("Normal"))]


def _record(index: int, pallet: str, event: Any) -> dict[str, Any]:
    return {"phase": ("ApplyExtrinsic", index), "event": (pallet, event), "topics": []}


def _info(kind: str) -> dict[str, Any]:
    return {"weight": _WEIGHT, "class": kind, "pays_fee": "Yes"}


def _success(kind: str) -> tuple[str, Any]:
    return "ExtrinsicSuccess", {"dispatch_info": _info(kind)}
