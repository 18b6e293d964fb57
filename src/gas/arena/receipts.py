"""Receipts: what was measured, on what, by whom; canonical JSON under the validator's signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gas.chain.keys import Signer, verify
from gas.errors import GasError

__all__ = ["RECEIPT_VERSION", "BadReceipt", "Receipt", "canonical_json", "sign_receipt", "verify_receipt"]

RECEIPT_VERSION = 1


class BadReceipt(GasError):
    """A receipt does not hold: ``format``, ``signer``, ``signature`` or ``records``."""

    code = "bad_receipt"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verified receipt.

    Attributes:
        body: What is attested.
        signer: SS58 address of the validator's hotkey.
    """

    body: Mapping[str, Any]
    signer: str


def canonical_json(value: object) -> bytes:
    """The one form of a JSON value that is hashed and signed: sorted keys, no spaces, UTF-8, finite numbers only.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: The value is not plain JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sign_receipt(body: Mapping[str, Any], signer: Signer) -> dict[str, Any]:
    """Sign a body.

    Returns:
        ``{"version", "body", "signer", "signature"}``; the signature (0x and hex) covers version, body and signer.
    """
    signed = {"version": RECEIPT_VERSION, "body": dict(body), "signer": str(signer.ss58_address)}
    return {**signed, "signature": "0x" + signer.sign(canonical_json(signed)).hex()}


def verify_receipt(receipt: object, *, signer: str | None = None, records_sha256: str | None = None) -> Receipt:
    """Check a receipt that came from outside.

    Args:
        receipt: The parsed JSON.
        signer: The address that must have signed; any when None.
        records_sha256: Hash of the records file at hand; compared when given.

    Raises:
        BadReceipt: With code ``format``, ``signer``, ``signature`` or ``records``.
    """
    if not isinstance(receipt, dict) or set(receipt) != {"version", "body", "signer", "signature"}:
        raise BadReceipt("This is no receipt.", code="format")
    body, who, signature = receipt["body"], receipt["signer"], receipt["signature"]
    if receipt["version"] != RECEIPT_VERSION or not isinstance(body, dict) or not isinstance(who, str):
        raise BadReceipt("This is no receipt of a version that is known here.", code="format")
    if signer is not None and who != signer:
        raise BadReceipt("The receipt was signed by somebody else.", code="signer")
    try:
        raw = bytes.fromhex(str(signature).removeprefix("0x"))
        message = canonical_json({"version": RECEIPT_VERSION, "body": body, "signer": who})
    except (ValueError, TypeError) as error:
        raise BadReceipt("The receipt can't be read.", code="format") from error
    if not verify(who, message, raw):
        raise BadReceipt("The signature does not belong to this receipt.", code="signature")
    if records_sha256 is not None and body.get("records_sha256") != records_sha256:
        raise BadReceipt("The records are not the ones of this receipt.", code="records")
    return Receipt(body, who)
