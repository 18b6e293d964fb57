"""Extrinsics as a node takes them in: decoded, and checked against their signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bittensor_wallet import Keypair
from scale_metadata import Call, Metadata, Reader
from subtensor_state import address

__all__ = ["Extrinsic", "Refusal", "Rules", "invalid", "read_extrinsic", "signed_payload"]

_MAX_BYTES: Final = 3_932_160
"""A normal extrinsic's share of a block's length (75 % of 5 MiB)."""


class Refusal(Exception):
    """The transaction pool, or the RPC, says no."""

    def __init__(self, code: int, message: str, data: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


def invalid(data: str) -> Refusal:
    return Refusal(1010, "Invalid Transaction", data)


@dataclass(frozen=True)
class Rules:
    """What a signature covers besides the call."""

    genesis: bytes
    spec_version: int
    transaction_version: int


@dataclass(frozen=True)
class Extrinsic:
    raw: bytes
    signer: bytes
    nonce: int
    call: Call

    @property
    def hash(self) -> bytes:
        return hashlib.blake2b(self.raw, digest_size=32).digest()


def signed_payload(
    metadata: Metadata, rules: Rules, call: bytes, extra: bytes, mortality: bytes, metadata_hash: bytes | None = None
) -> bytes:
    """The bytes that a signer signs.

    Args:
        metadata: Of the runtime; it names the extensions.
        rules: Of the network.
        call: The encoded call.
        extra: The extensions' own bytes.
        mortality: Hash of the block from which on the extrinsic may be included.
        metadata_hash: What CheckMetadataHash vouches for, or None when it is off.
    """
    implicit: dict[str, Any] = {
        "CheckSpecVersion": rules.spec_version,
        "CheckTxVersion": rules.transaction_version,
        "CheckGenesis": rules.genesis,
        "CheckMortality": mortality,
        "CheckMetadataHash": metadata_hash,
    }
    payload = call + extra
    for name, _, additional in metadata.extensions:
        if name in implicit:
            payload += metadata.encode(additional, implicit[name])
    return hashlib.blake2b(payload, digest_size=32).digest() if len(payload) > 256 else payload


def _era(first: tuple[str, Any] | str, newest: int) -> tuple[int, int | None]:
    """Birth and death of an era: the block from which on, and the first in which not any more."""
    name, second = first if isinstance(first, tuple) else (first, ())
    if name == "Immortal":
        return 0, None
    encoded = int(name.removeprefix("Mortal")) | int(second) << 8
    period = 2 << (encoded & 15)
    phase = (encoded >> 4) * max(period >> 12, 1)
    birth = (max(newest, phase) - phase) // period * period + phase
    return birth, birth + period


def read_extrinsic(
    metadata: Metadata, rules: Rules, raw: bytes, newest: int, block_hash: Callable[[int], bytes | None]
) -> Extrinsic:
    """Decode a signed extrinsic and check what the pool checks before its nonce.

    Raises:
        Refusal: It can't be decoded, is unsigned, too old, too large, or its signature isn't its signer's.
    """
    if len(raw) > _MAX_BYTES:
        raise invalid("Transaction would exhaust the block limits")
    undecodable = Refusal(1002, "Verification Error: Runtime error: Execution failed", "RuntimeApi: could not decode")
    reader = Reader(raw)
    try:
        if reader.compact() != reader.left:
            raise undecodable
        if reader.number(1) != 0x84:
            missing = "Could not find an unsigned validator for the unsigned transaction"
            raise Refusal(1011, "Unknown Transaction Validity", missing)
        kind, account = metadata.decode(metadata.address, reader)
        scheme, signature = metadata.decode(metadata.signature, reader)
        start = reader.at
        extensions = {name: metadata.decode(ty, reader) for name, ty, _ in metadata.extensions}
        extra, start = raw[start : reader.at], reader.at
        call = metadata.read_call(reader)
    except (ValueError, StopIteration, UnicodeDecodeError):
        raise undecodable from None
    if reader.left or kind != "Id":
        raise undecodable
    birth, death = _era(extensions["CheckMortality"], newest)
    mortality = block_hash(birth)
    if mortality is None or (death is not None and newest >= death):
        raise invalid("Transaction has an ancient birth block")
    payload = signed_payload(metadata, rules, raw[start:], extra, mortality)
    if scheme != "Sr25519" or not Keypair(ss58_address=address(account)).verify(payload, signature):
        raise invalid("Transaction has a bad signature")
    return Extrinsic(raw, account, extensions["CheckNonce"], call)
