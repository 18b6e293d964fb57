"""Calls to the ledger: one canonical payload, signed, with a nonce.

The payload is ``gas-ledger-v1:`` and compact JSON with sorted keys of chain id, call, nonce, parameters and signer.
The chain id keeps a call from being replayed on another ledger, the nonce (the count of the signer's calls so far)
from being replayed on this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gas.chain.keys import Signer, is_address, verify
from gas.errors import ChainRefused

__all__ = ["MAX_CALL_BYTES", "JsonValue", "Params", "SignedCall", "sign_call"]

JsonValue = None | bool | int | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

MAX_CALL_BYTES: Final = 256 * 1024
"""Most bytes that a call's payload may have."""


@dataclass(frozen=True, slots=True)
class SignedCall:
    """One call, ready to be submitted.

    Attributes:
        kind: Name of the call.
        signer: SS58 address of the key that pays and decides.
        nonce: How many calls of this signer the ledger has included before.
        params: The call's parameters, as JSON types.
        signature: The signer's signature over the payload.
        cosigner: A second key that agrees (a hotkey that lets a coldkey own it), or "".
        cosignature: Its signature over the same payload.
    """

    kind: str
    signer: str
    nonce: int
    params: Mapping[str, JsonValue]
    signature: bytes
    cosigner: str = ""
    cosignature: bytes = b""

    def check(self, chain_id: str) -> None:
        """Check size and signatures.

        Raises:
            ChainRefused: ``malformed_call`` or ``bad_signature``.
        """
        payload = _payload(chain_id, self.kind, self.signer, self.nonce, self.params)
        if not verify(self.signer, payload, self.signature):
            raise ChainRefused("The call's signature isn't its signer's.", code="bad_signature")
        if self.cosigner and not verify(self.cosigner, payload, self.cosignature):
            raise ChainRefused("The call's second signature isn't its cosigner's.", code="bad_signature")


def sign_call(
    chain_id: str,
    kind: str,
    params: Mapping[str, JsonValue],
    *,
    signer: Signer,
    nonce: int,
    cosigner: Signer | None = None,
) -> SignedCall:
    """Sign one call for one ledger.

    Raises:
        ChainRefused: ``malformed_call``: too large, or no plain JSON.
    """
    payload = _payload(chain_id, kind, signer.ss58_address, nonce, params)
    second = cosigner if cosigner is not None and cosigner.ss58_address != signer.ss58_address else None
    return SignedCall(
        kind=kind,
        signer=signer.ss58_address,
        nonce=nonce,
        params=params,
        signature=signer.sign(payload),
        cosigner=second.ss58_address if second else "",
        cosignature=second.sign(payload) if second else b"",
    )


class Params:
    """Typed reading of a call's parameters; each reader refuses what isn't what it says.

    Every reader raises :class:`~gas.errors.ChainRefused` with code ``malformed_call``.
    """

    def __init__(self, values: Mapping[str, JsonValue]) -> None:
        self._values = values

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer in [low, high]."""
        value = self._values.get(name)
        if type(value) is not int or not low <= value <= high:
            raise _malformed(f"{name} must be an integer from {low} to {high}.")
        return value

    def netuid(self) -> int:
        """The subnet's number."""
        return self.integer("netuid", 0, 65535)

    def amount(self) -> int:
        """A positive amount of rao."""
        return self.integer("amount", 1, 2**62)

    def u16s(self, name: str) -> list[int]:
        """A list of at most 4,096 u16."""
        value = self._values.get(name)
        if not isinstance(value, list | tuple) or len(value) > 4096:
            raise _malformed(f"{name} must be a list of at most 4096 numbers.")
        numbers = []
        for item in value:
            if type(item) is not int or not 0 <= item <= 65535:
                raise _malformed(f"{name} must hold integers from 0 to 65535.")
            numbers.append(item)
        return numbers

    def text(self, name: str, most_bytes: int) -> str:
        """A text of at most ``most_bytes`` bytes in UTF-8."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise _malformed(f"{name} must be a text.")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise _malformed(f"{name} must be valid Unicode.") from None
        if size > most_bytes:
            raise _malformed(f"{name} may have at most {most_bytes} bytes.")
        return value

    def address(self, name: str) -> str:
        """An SS58 address."""
        value = self._values.get(name)
        if not isinstance(value, str) or not is_address(value):
            raise _malformed(f"{name} must be an SS58 address.")
        return value

    def mapping(self, name: str) -> dict[str, JsonValue]:
        """A JSON object; {} when it is missing."""
        value = self._values.get(name, {})
        if not isinstance(value, Mapping):
            raise _malformed(f"{name} must be an object.")
        return dict(value)


def _malformed(message: str) -> ChainRefused:
    return ChainRefused(message, code="malformed_call")


def _payload(chain_id: str, kind: str, signer: str, nonce: int, params: Mapping[str, JsonValue]) -> bytes:
    body = {"call": kind, "chain": chain_id, "nonce": nonce, "params": params, "signer": signer}
    try:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise _malformed("The call's parameters are not plain JSON.") from None
    if len(text) > MAX_CALL_BYTES:
        raise ChainRefused(
            f"The call is larger than {MAX_CALL_BYTES // 1024} KiB.",
            code="malformed_call",
            hint="Weights name each uid once, and a subnet has at most 4096.",
        )
    return b"gas-ledger-v1:" + text.encode()
