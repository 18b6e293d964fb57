"""Receipts of committed weights, kept in the home until they are revealed.

A receipt holds the salt without which a commit can't be revealed, so it is on the disk before the commit is on its
way: whoever is killed in between can still reveal. Until the reveal it is a secret: others could copy the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from gas.chain.base import Chain
from gas.chain.weights import U16_MAX, WeightsReceipt, check_weights, weights_hash
from gas.clock import Clock
from gas.errors import ChainError, ChainRefused, ChainUnreachable, ConfigurationError, StorageError

__all__ = ["ReceiptPlace", "Revealed", "publish", "read_receipt", "reveal_kept", "sentence_of"]

_SALT_NUMBERS: Final = 8
"""128 bits, so that nobody finds the weights behind a commit by trying."""
_UNDER_WAY_SECONDS: Final = 3600.0
"""Longer than any signed call stays valid."""
_MAX_BYTES: Final = 256 * 1024


class ReceiptPlace(Protocol):
    """Where receipts are kept, and of which subnet: :class:`gas.config.HomeSettings` is one."""

    @property
    def home(self) -> Path:
        """The home."""
        ...

    @property
    def netuid(self) -> int:
        """The subnet."""
        ...

    @property
    def chain_endpoint(self) -> str:
        """The chain's address; only its digest is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Revealed:
    """What became of a kept receipt.

    Attributes:
        state: ``revealed``; ``waiting`` for the epoch in which the reveal is due; ``expired``; ``gone``: the chain
            knows no such commit, or asks for none any more; ``elsewhere``: the same, on another endpoint than the
            one of the commit; ``unreadable``. The file stays when it is waiting, elsewhere or unreadable.
        file: Name of the receipt's file.
        weights: How many.
        message: The chain's sentence; empty when revealed.
    """

    state: Literal["revealed", "waiting", "expired", "gone", "elsewhere", "unreadable"]
    file: str
    weights: int
    message: str = ""

    def sentence(self) -> str:
        """The same for people."""
        if self.state == "revealed":
            return f"{self.weights} weights are revealed."
        kept = f"; {self.file} is kept" if self.state in ("waiting", "elsewhere", "unreadable") else ""
        return f"{self.weights} weights are not revealed ({self.state}): {self.message.rstrip('.')}{kept}."


async def publish(
    chain: Chain,
    settings: ReceiptPlace,
    hotkey: str,
    uids: Sequence[int],
    weights: Sequence[int],
    version_key: int,
    clock: Clock,
) -> WeightsReceipt:
    """Set weights in the subnet's own way, and keep the receipt in the home while a reveal is due.

    Args:
        chain: Signs with the hotkey.
        settings: The home, the subnet and the endpoint.
        hotkey: Its address.
        uids: u16 each.
        weights: u16 each, any scale.
        version_key: u64.
        clock: Dates the receipt.

    Raises:
        ChainError: As :meth:`gas.chain.base.Chain.publish_weights`.
        StorageError: The receipt can't be written; then nothing is committed.
    """
    check_weights(uids, weights)
    salt = [secrets.randbelow(U16_MAX + 1) for _ in range(_SALT_NUMBERS)]
    said = settings.netuid, list(uids), list(weights)
    file: Path | None = None
    values: dict[str, Any] = {}
    if (await chain.hyperparameters(settings.netuid)).commit_reveal:
        try:
            digest = weights_hash(hotkey, *said, salt, version_key)
        except ValueError as error:
            raise ChainRefused(str(error), code="malformed_call") from error
        file = _folder(settings) / f"{_prefix(settings, hotkey)}{digest.hex()[:16]}.json"
        values |= {
            "netuid": settings.netuid,
            "hotkey": hotkey,
            "uids": said[1],
            "weights": said[2],
            "salt": salt,
            "version_key": version_key,
            "endpoint": _digest(settings.chain_endpoint),
            "at": clock.time(),
            "block": None,
        }
        _write(file, values)
    try:
        receipt = await chain.publish_weights(*said, version_key, salt=salt)
    except ChainUnreachable:
        # It may be on the chain all the same.
        raise
    except ChainError:
        _remove(file)
        raise
    if receipt.kind != "committed":
        _remove(file)
    elif file is not None:
        _write(file, {**values, "block": receipt.block})
    return receipt


async def reveal_kept(chain: Chain, settings: ReceiptPlace, hotkey: str, clock: Clock) -> list[Revealed]:
    """Reveal what the home keeps of this hotkey's commits on this subnet, as far as it is due.

    Args:
        chain: Signs with the hotkey.
        settings: The home, the subnet and the endpoint.
        hotkey: Its address.
        clock: Tells how old a receipt is.

    Returns:
        One for each receipt, the oldest first.

    Raises:
        ChainError: The chain refuses for another reason than the commit's age, e.g. a slot that was lost.
    """
    found = []
    files = _folder(settings).glob(f"{_prefix(settings, hotkey)}*.json")
    for file in sorted(files, key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            values = _read(file)
            said, version_key = _said(values)
        except ConfigurationError as error:
            found.append(Revealed("unreadable", file.name, 0, error.message))
            continue
        count = len(said[1])
        try:
            await chain.reveal_weights(*said, version_key)
        except ChainRefused as error:
            if error.error_code == "reveal_too_early":
                found.append(Revealed("waiting", file.name, count, error.message))
                continue
            if error.error_code not in ("commit_expired", "no_such_commit", "commit_reveal_disabled"):
                raise
            # A commit whose answer was lost may still be on its way to a block.
            if error.error_code == "no_such_commit" and _may_be_under_way(values, clock.time()):
                found.append(Revealed("waiting", file.name, count, error.message))
                continue
            # Another node of the same network or another network: only the operator knows.
            if error.error_code != "commit_expired" and values.get("endpoint") != _digest(settings.chain_endpoint):
                found.append(Revealed("elsewhere", file.name, count, error.message))
                continue
            state: Literal["expired", "gone"] = "expired" if error.error_code == "commit_expired" else "gone"
            found.append(Revealed(state, file.name, count, error.message))
        else:
            found.append(Revealed("revealed", file.name, count))
        _remove(file)
    return found


def read_receipt(file: Path) -> tuple[tuple[int, list[int], list[int], list[int]], int]:
    """A receipt from a file: (netuid, uids, weights, salt) and the version key.

    Raises:
        ConfigurationError: It holds none (``bad_receipt``).
    """
    return _said(_read(file))


def sentence_of(receipt: Mapping[str, Any]) -> str:
    """How weights were published, for people; the receipt as a dictionary."""
    count = f"{len(receipt['uids'])} weights are"
    if receipt["kind"] == "plain":
        return f"{count} in force from block {receipt['block']} on."
    if receipt["kind"] == "timelocked":
        return f"{count} sealed in block {receipt['block']}; the network itself opens them."
    return f"{count} committed in block {receipt['block']}; `gascli chain reveal` reveals them one period later."


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        values = json.loads(raw) if len(raw) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise _bad(file) from error
    if isinstance(values, dict):
        values = values.get("receipt", values)
    if not isinstance(values, dict):
        raise _bad(file)
    return values


def _said(values: dict[str, Any]) -> tuple[tuple[int, list[int], list[int], list[int]], int]:
    netuid, version_key = values.get("netuid"), values.get("version_key")
    lists = [values.get(name) for name in ("uids", "weights", "salt")]
    if type(netuid) is not int or type(version_key) is not int or not all(isinstance(found, list) for found in lists):
        raise ConfigurationError("The file holds no receipt of a commit.", code="bad_receipt")
    uids, weights, salt = (list(found or ()) for found in lists)
    return (netuid, uids, weights, salt), version_key


def _may_be_under_way(values: Mapping[str, Any], now: float) -> bool:
    at = values.get("at")
    return values.get("block") is None and isinstance(at, int | float) and 0 <= now - at < _UNDER_WAY_SECONDS


def _bad(file: Path) -> ConfigurationError:
    return ConfigurationError(f"{file.name} holds no receipt of a commit.", code="bad_receipt")


def _folder(settings: ReceiptPlace) -> Path:
    return settings.home / "receipts"


def _prefix(settings: ReceiptPlace, hotkey: str) -> str:
    return f"weights-{settings.netuid}-{hotkey}-"


def _digest(endpoint: str) -> str:
    # An address may hold a token.
    return hashlib.sha256(endpoint.encode()).hexdigest()[:16]


def _write(file: Path, values: dict[str, Any]) -> None:
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            json.dump(values, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        raise StorageError(
            f"The receipt can't be kept ({error.strerror}), so nothing was committed.", hint="Make space in the home."
        ) from error


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
