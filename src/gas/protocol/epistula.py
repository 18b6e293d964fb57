"""Epistula v2: the headers that sign an HTTP request, and the order in which a receiver refuses one.

=====  ====================  ==========================================================
400    ``unknown_version``   no version, another version, or a header of ours twice
400    ``not_for_us``        signed for another hotkey
401    ``unknown_signer``    signer not in the metagraph
401    ``no_permit``         stake below the minimum, or no validator permit
400    ``stale_timestamp``   time stamp missing, no number, or more than 15 s off
400    ``bad_uuid``          no UUID
400    ``bad_signature``     body, time, UUID or receiver isn't what was signed
409    ``replayed``          this UUID was seen from this signer before
429    ``too_many_requests`` more requests in the window than a signer may send
413    ``body_too_large``    found while the body streams in (:mod:`gas.protocol.server`)
=====  ====================  ==========================================================

Everything above the signature is checked before the body is read. The signature itself covers the body; that the sender
has the key is told before by :func:`holds_key`, where peers send secret signatures and a body may be large.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import re
import uuid as uuid_module
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gas.chain.keys import Signer, verify
from gas.errors import RequestRefused
from gas.types import Hotkey

__all__ = [
    "VERSION",
    "WINDOW_MS",
    "Claim",
    "ReplayGuard",
    "Standing",
    "check_body",
    "check_headers",
    "holds_key",
    "sign_request",
    "verify_request",
]

VERSION: Final = "2"

WINDOW_MS: Final = 15_000
"""How far a request's time stamp may be from the receiver's clock, either way, in ms."""

_INTERVAL_MS: Final = 10_000
_DIGITS: Final = re.compile(r"[0-9]{1,15}")
_SIGNATURE: Final = re.compile(r"0x[0-9a-fA-F]{128}")
_PREFIX: Final = "epistula-"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the metagraph says of a signer.

    Attributes:
        uid: Its slot.
        stake: Rao.
        permit: Whether it is a validator.
    """

    uid: int
    stake: int
    permit: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """Headers that are acceptable; proven once :func:`check_body` agrees.

    Attributes:
        hotkey: Who says to have signed.
        signed_for: For whom; "" for nobody in particular.
        timestamp: Milliseconds since the epoch, as sent.
        uuid: The request's UUID, as sent.
        signature: 64 bytes.
    """

    hotkey: Hotkey
    signed_for: str
    timestamp: str
    uuid: str
    signature: bytes


def sign_request(
    signer: Signer, body: bytes | str, *, signed_for: str | None, now_ms: int, uuid: str
) -> dict[str, str]:
    """The headers that sign one request.

    Args:
        signer: Who sends.
        body: The body's bytes exactly as sent (``b""`` when there is none), or the hex SHA-256 of them.
        signed_for: The receiver's hotkey; None or "" for nobody in particular.
        now_ms: Milliseconds since the epoch.
        uuid: A fresh UUID, never used before.

    Returns:
        Header names and values.
    """
    receiver = signed_for or ""
    digest = body if isinstance(body, str) else hashlib.sha256(body).hexdigest()
    headers = {
        "Epistula-Version": VERSION,
        "Epistula-Timestamp": str(now_ms),
        "Epistula-Uuid": uuid,
        "Epistula-Signed-By": signer.ss58_address,
        "Epistula-Signed-For": receiver,
        "Epistula-Request-Signature": "0x" + signer.sign(_message(digest, uuid, str(now_ms), receiver)).hex(),
    }
    if receiver:
        interval = _interval(now_ms)
        for index, offset in enumerate((-1, 0, 1)):
            # Peers print the interval as a float.
            secret = signer.sign(_secret(interval + offset, receiver))
            headers[f"Epistula-Secret-Signature-{index}"] = "0x" + secret.hex()
    return headers


class ReplayGuard:
    """Remembers the UUIDs of each signer for as long as their requests could be accepted again.

    Memory is bounded: a signer that sends more than ``per_signer`` requests in a window is refused, because
    forgetting early would open the door to replays. Only proven requests are remembered. The memory ends with the
    process: what must not happen twice across a restart (a delivery, a submission) has its own key in the database.

    Args:
        per_signer: Most requests of one signer in a window.
        signers: Most signers in a window.
        window_ms: How far a time stamp may be off, either way.
    """

    def __init__(self, *, per_signer: int = 10_000, signers: int = 5_000, window_ms: int = WINDOW_MS) -> None:
        self._per_signer = per_signer
        self._signers = signers
        self._window = window_ms
        self._seen: dict[str, _Seen] = {}

    @property
    def remembered(self) -> int:
        """How many UUIDs are remembered now."""
        return sum(len(seen.uuids) for seen in self._seen.values())

    def admit(self, hotkey: str, uuid: str, timestamp_ms: int, now_ms: int) -> None:
        """Take note of a proven request.

        Raises:
            RequestRefused: 409 ``replayed`` or 429 ``too_many_requests``.
        """
        seen = self._seen.get(hotkey)
        if seen is None:
            if len(self._seen) >= self._signers:
                self._forget(now_ms)
            if len(self._seen) >= self._signers:
                raise _too_many()
            seen = self._seen.setdefault(hotkey, _Seen())
        seen.forget(now_ms)
        if timestamp_ms + self._window < seen.latest:
            # Our clock was set back: what has been forgotten by the later time mustn't come in again.
            raise _stale()
        if uuid in seen.uuids:
            raise RequestRefused("This request has been received before.", status=409, code="replayed")
        if len(seen.uuids) >= self._per_signer:
            raise _too_many()
        seen.uuids.add(uuid)
        # One more millisecond, because a time stamp exactly a window old is still accepted.
        heapq.heappush(seen.expiries, (timestamp_ms + self._window + 1, uuid))

    def _forget(self, now_ms: int) -> None:
        for seen in self._seen.values():
            seen.forget(now_ms)
        self._seen = {hotkey: seen for hotkey, seen in self._seen.items() if seen.uuids}


@dataclass(slots=True)
class _Seen:
    uuids: set[str] = field(default_factory=set)
    expiries: list[tuple[int, str]] = field(default_factory=list)
    latest: int = 0

    def forget(self, now_ms: int) -> None:
        self.latest = max(self.latest, now_ms)
        while self.expiries and self.expiries[0][0] <= self.latest:
            self.uuids.discard(heapq.heappop(self.expiries)[1])


def check_headers(
    headers: Mapping[str, str],
    *,
    receiver: str,
    now_ms: int,
    standing: Callable[[str], Standing | None],
    min_stake: int = 0,
    need_permit: bool = False,
    accept_unaddressed: bool = False,
) -> Claim:
    """Check everything that the headers alone decide.

    Args:
        headers: Names in any case; a multi-dict whose ``items()`` names a header twice is refused.
        receiver: Our hotkey.
        now_ms: Our clock, ms since the epoch.
        standing: What the metagraph says of a hotkey; None when it isn't there.
        min_stake: Rao that the signer must have staked.
        need_permit: Whether the signer must be a validator.
        accept_unaddressed: Whether a request signed for nobody in particular will do.

    Returns:
        The claim, still to be proven.

    Raises:
        RequestRefused: In the module's order.
    """
    ours: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if key.startswith(_PREFIX):
            if key in ours:
                raise _bad("A signature header is there twice.", "unknown_version")
            ours[key] = value
    if ours.get("epistula-version") != VERSION:
        raise RequestRefused(
            "The request isn't signed by Epistula version 2.",
            status=400,
            code="unknown_version",
            hint="Send Epistula-Version: 2 and the headers that go with it.",
        )
    signed_for = ours.get("epistula-signed-for", "")
    if signed_for != receiver and not (accept_unaddressed and not signed_for):
        raise _bad("The request is signed for another hotkey.", "not_for_us")
    hotkey = ours.get("epistula-signed-by", "")
    known = standing(hotkey) if hotkey else None
    if known is None:
        raise RequestRefused("The signer isn't registered.", status=401, code="unknown_signer")
    if known.stake < min_stake or (need_permit and not known.permit):
        raise RequestRefused("The signer has too little stake, or no validator permit.", status=401, code="no_permit")
    timestamp = ours.get("epistula-timestamp", "")
    if not _DIGITS.fullmatch(timestamp) or abs(now_ms - int(timestamp)) > WINDOW_MS:
        raise _stale()
    uuid = ours.get("epistula-uuid", "")
    if not _is_uuid(uuid):
        raise _bad("The request has no UUID.", "bad_uuid")
    signature = ours.get("epistula-request-signature", "")
    if not _SIGNATURE.fullmatch(signature):
        raise _bad_signature()
    return Claim(Hotkey(hotkey), signed_for, timestamp, uuid, bytes.fromhex(signature[2:]))


def holds_key(headers: Mapping[str, str], claim: Claim) -> bool:
    """Whether a request proves by its secret signature that its sender has the key, before any of the body is read.

    The signature is over an interval of ten seconds and the receiver, not over the body: it lets a sender in, and says
    nothing of what is sent. A request that is signed for nobody in particular has none.
    """
    secret = headers.get("epistula-secret-signature-1", "")
    if not claim.signed_for or not _SIGNATURE.fullmatch(secret):
        return False
    message = _secret(_interval(int(claim.timestamp)), claim.signed_for)
    return verify(claim.hotkey, message, bytes.fromhex(secret[2:]))


def check_body(claim: Claim, body_sha256: str, *, now_ms: int, guard: ReplayGuard) -> Hotkey:
    """Prove a claim by its body, and take note of it; returns the signer.

    Args:
        claim: From :func:`check_headers`.
        body_sha256: Hex digest of the body as received.
        now_ms: Our clock, ms since the epoch.
        guard: Remembers the request.

    Raises:
        RequestRefused: 400 ``bad_signature``, 409 ``replayed``, 429 ``too_many_requests``.
    """
    message = _message(body_sha256, claim.uuid, claim.timestamp, claim.signed_for)
    if not verify(claim.hotkey, message, claim.signature):
        raise _bad_signature()
    guard.admit(claim.hotkey, claim.uuid, int(claim.timestamp), now_ms)
    return claim.hotkey


def verify_request(
    headers: Mapping[str, str],
    body: bytes,
    *,
    receiver: str,
    now_ms: int,
    standing: Callable[[str], Standing | None],
    guard: ReplayGuard,
    min_stake: int = 0,
    need_permit: bool = False,
    accept_unaddressed: bool = False,
) -> Hotkey:
    """Check a whole request whose body is at hand; returns the signer.

    Raises:
        RequestRefused: In the module's order.
    """
    claim = check_headers(
        headers,
        receiver=receiver,
        now_ms=now_ms,
        standing=standing,
        min_stake=min_stake,
        need_permit=need_permit,
        accept_unaddressed=accept_unaddressed,
    )
    return check_body(claim, hashlib.sha256(body).hexdigest(), now_ms=now_ms, guard=guard)


def _interval(now_ms: int) -> int:
    """The interval of ten seconds that a moment belongs to, named by its end."""
    return math.ceil(now_ms / _INTERVAL_MS) * _INTERVAL_MS


def _secret(moment: int, receiver: str) -> bytes:
    return f"{float(moment)}.{receiver}".encode()


def _message(body_sha256: str, uuid: str, timestamp: str, receiver: str) -> bytes:
    return f"{body_sha256}.{uuid}.{timestamp}.{receiver}".encode()


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid_module.UUID(text)) == text.lower()
    except ValueError:
        return False


def _bad(message: str, code: str) -> RequestRefused:
    return RequestRefused(message, status=400, code=code)


def _bad_signature() -> RequestRefused:
    return RequestRefused(
        "The signature doesn't match the request.",
        status=400,
        code="bad_signature",
        hint="Sign the body's bytes exactly as they are sent.",
    )


def _stale() -> RequestRefused:
    return RequestRefused(
        "The request's time stamp is missing or more than 15 s off.",
        status=400,
        code="stale_timestamp",
        hint="Check this machine's clock.",
    )


def _too_many() -> RequestRefused:
    return RequestRefused(
        "Too many requests in the last seconds.", status=429, code="too_many_requests", hint="Wait some seconds."
    )
