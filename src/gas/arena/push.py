"""An author's side of a push: check, upload, commit, look that the commitment is there and that the arena has seen it.

A hotkey has one commitment on the chain at a time, so that the next one waits until the arena has read this one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError

from gas.arena.allowances import COMMITMENT_MISSING
from gas.arena.pushes import PushLabel
from gas.arena.submissions import file_sha256
from gas.chain.base import Chain
from gas.errors import ChainError, PackageRejected, Reason, RequestRefused
from gas.protocol.client import Answer, PeerUnreachable, SignedClient
from gas.protocol.messages import CommitmentPayload, SubmissionReceipt
from gas.submissions.check import check
from gas.submissions.limits import Limits
from gas.types import Modality, SubmissionState, Vertical

__all__ = ["Pushed", "commitment_seen", "label_push", "push", "submission_status"]

_UPLOAD_ATTEMPTS = 3
_WHOLE_BYTES = 8 * 2**20
"""Packages up to this size travel in one request."""
_MOST_OF_A_PIECE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Pushed:
    """A package that is handed in and committed.

    Attributes:
        receipt: The arena's answer.
        created: False when the arena had this content of this hotkey already.
        block: Block of the commitment.
    """

    receipt: SubmissionReceipt
    created: bool
    block: int


async def push(
    package: Path,
    modality: Modality,
    vertical: Vertical,
    *,
    url: str,
    arena_hotkey: str,
    hotkey: str,
    netuid: int,
    client: SignedClient,
    chain: Chain,
    limits: Limits | None = None,
    label: PushLabel | None = None,
    checked: bool = False,
    on_step: Callable[[str], None] | None = None,
    on_upload: Callable[[int, int], None] | None = None,
) -> Pushed:
    """Push one package; safe to be repeated after any interruption.

    Args:
        package: The zip.
        modality: What it detects.
        vertical: In which specialisation it competes.
        url: The arena's address, without ``/api/v1``.
        arena_hotkey: The arena's hotkey, for which requests are signed.
        hotkey: The author's hotkey: the one that ``client`` and ``chain`` sign with.
        netuid: The subnet.
        client: Sends signed requests.
        chain: Takes the commitment.
        limits: What the local check allows.
        label: With which other packages it is pushed; see :func:`label_push`.
        checked: Whether the local check has been made already.
        on_step: Told what is being done.
        on_upload: Told how many bytes of how many have arrived, where the package travels in pieces.

    Raises:
        gas.errors.PackageRejected: The local check or the arena found reasons.
        gas.errors.RequestRefused: The arena refuses (no slot, too large ...).
        gas.errors.ChainError: The commitment did not go through or is not there afterwards.
        gas.protocol.client.PeerUnreachable: The arena does not answer.
    """
    say = on_step or (lambda _step: None)
    if not checked:
        say("checking the package")
        (await asyncio.to_thread(check, package, limits, modality=modality)).require()
    say("uploading")
    receipt, created = await _upload(package, modality, vertical, url, arena_hotkey, client, label, on_upload)
    if not created:
        known = (await submission_status(client, url, arena_hotkey, receipt.model_id)).get("committed_block")
        if isinstance(known, int):
            # The arena has read it; another one would only stand in the way of the next package's.
            return Pushed(receipt, False, known)
    say("committing")
    payload = CommitmentPayload.of(receipt.key, receipt.sha256)
    block = await _committed_block(chain, netuid, hotkey, payload)
    if block is None:
        await chain.set_commitment(netuid, payload.encode())
        block = await _committed_block(chain, netuid, hotkey, payload)
    if block is None:
        raise ChainError("The chain took the commitment but does not show it.", hint="Push again in a few blocks.")
    return Pushed(receipt, created, block)


async def label_push(
    packages: Mapping[Modality, Path], vertical: Vertical, *, url: str, arena_hotkey: str, client: SignedClient
) -> PushLabel | None:
    """Under which name packages of several modalities are pushed: the same at every repetition of the push.

    Packages that the arena has from an earlier push do not belong to this one.

    Args:
        packages: The zips.
        vertical: In which specialisation they compete.
        url: The arena's address, without ``/api/v1``.
        arena_hotkey: The arena's hotkey.
        client: Sends requests signed by the author's hotkey.

    Returns:
        None when fewer than two are new.

    Raises:
        gas.protocol.client.PeerUnreachable: The arena does not answer.
        gas.errors.RequestRefused: It refuses.
    """
    if len(packages) < 2:
        return None
    hashes = {modality: await asyncio.to_thread(file_sha256, path) for modality, path in packages.items()}
    there = {
        str(one.get("sha256")): (one.get("push") or {}).get("push_id")
        for one in await _mine(client, url, arena_hotkey)
        if isinstance(one.get("push") or {}, dict) and not _replaceable(one)
    }
    names = set(there.values())
    groups = [frozenset(g) for size in range(len(hashes), 1, -1) for g in combinations(sorted(hashes), size)]
    begun = next((group for group in groups if _push_id(group, hashes, vertical) in names), None)
    chosen = begun or frozenset(modality for modality, sha256 in hashes.items() if sha256 not in there)
    return PushLabel(_push_id(chosen, hashes, vertical), chosen) if len(chosen) > 1 else None


async def commitment_seen(
    client: SignedClient, url: str, arena_hotkey: str, model_id: str, *, looks: int = 60, pause: float = 1.0
) -> bool:
    """Wait until the arena has read a commitment: before that, another one would replace it unread.

    Args:
        client: Sends requests signed by the author's hotkey.
        url: The arena's address, without ``/api/v1``.
        arena_hotkey: The arena's hotkey.
        model_id: The submission.
        looks: How often to ask at most.
        pause: Seconds between.

    Returns:
        False when it has not.

    Raises:
        gas.protocol.client.PeerUnreachable: The arena does not answer.
    """
    for look in range(looks):
        if look:
            await asyncio.sleep(pause)
        found = await submission_status(client, url, arena_hotkey, model_id)
        if found.get("committed_block") is not None or found.get("state") not in ("uploaded", "scanning"):
            return True
    return False


async def submission_status(client: SignedClient, url: str, arena_hotkey: str, model_id: str) -> dict[str, object]:
    """What the arena says about one of the caller's submissions.

    Raises:
        gas.errors.RequestRefused: There is no such submission of this hotkey.
        gas.protocol.client.PeerUnreachable: The arena does not answer, or with nonsense.
    """
    answer = await client.get(f"{url}/api/v1/submissions/{model_id}", signed_for=arena_hotkey, attempts=3)
    found = answer.json()
    if not isinstance(found, dict):
        raise PeerUnreachable("The arena's answer is no object.", code="bad_answer")
    return found


async def _upload(
    package: Path,
    modality: Modality,
    vertical: Vertical,
    url: str,
    arena_hotkey: str,
    client: SignedClient,
    label: PushLabel | None,
    on_upload: Callable[[int, int], None] | None,
) -> tuple[SubmissionReceipt, bool]:
    fields = {"modality": modality.value, "vertical": vertical.value}
    if label is not None:
        fields |= {"push": label.push_id, "push_modalities": label.stored}
    size = (await asyncio.to_thread(package.stat)).st_size
    try:
        if size > _WHOLE_BYTES:
            answer = await _in_pieces(package, size, fields, url, arena_hotkey, client, on_upload)
        else:
            data = await asyncio.to_thread(package.read_bytes)
            answer = await client.post_multipart(
                f"{url}/api/v1/submissions",
                fields,
                {"zip": (package.name, data, "application/zip")},
                signed_for=arena_hotkey,
                # The same content twice is one submission, so that a lost answer may be asked for again.
                attempts=_UPLOAD_ATTEMPTS,
            )
    except RequestRefused as refused:
        if refused.error_code not in ("content_known", "package_rejected"):
            raise
        return await _known(package, url, arena_hotkey, client, refused), False
    try:
        return SubmissionReceipt.model_validate_json(answer.body), True
    except ValidationError as error:
        raise PeerUnreachable("The arena's answer is no receipt.", code="bad_answer") from error


async def _in_pieces(
    package: Path,
    size: int,
    fields: Mapping[str, str],
    url: str,
    arena_hotkey: str,
    client: SignedClient,
    on_upload: Callable[[int, int], None] | None,
) -> Answer:
    """Send a package piece by piece, from where an earlier push stopped; holds one piece in memory."""
    sha256 = await asyncio.to_thread(file_sha256, package)
    address = f"{url}/api/v1/uploads/{sha256}"
    await _refuse_known(client, url, arena_hotkey, sha256)
    state = (await client.get(address, signed_for=arena_hotkey, attempts=_UPLOAD_ATTEMPTS)).json()
    offset, chunk = _numbers(state)
    with package.open("rb") as file:
        while offset < size:
            file.seek(offset)
            answer = await client.send(
                "PUT",
                address,
                body=await asyncio.to_thread(file.read, chunk),
                content_type="application/octet-stream",
                signed_for=arena_hotkey,
                headers={"Upload-Offset": str(offset)},
                # A piece that arrived and whose answer was lost is not written twice.
                attempts=_UPLOAD_ATTEMPTS,
            )
            now = _numbers({**_object(answer.json()), "chunk_bytes": chunk})[0]
            if now <= offset:
                raise PeerUnreachable("The arena takes no more of the package.", code="bad_answer")
            offset = now
            if on_upload is not None:
                on_upload(min(offset, size), size)
    return await client.send(
        "POST",
        f"{address}/submit?{urlencode(fields)}",
        signed_for=arena_hotkey,
    )


async def _refuse_known(client: SignedClient, url: str, arena_hotkey: str, sha256: str) -> None:
    """Spare the way of a content that is there already."""
    for one in await _mine(client, url, arena_hotkey):
        if one.get("sha256") == sha256 and not _replaceable(one):
            raise RequestRefused("The arena has this content.", status=409, code="content_known")


def _replaceable(one: dict[str, Any]) -> bool:
    """Whether the arena takes the same content anew, going by what it says of a submission."""
    state, reasons = one.get("state"), one.get("reasons") or ()
    uncommitted = any(isinstance(item, dict) and item.get("code") == COMMITMENT_MISSING for item in reasons)
    return (
        state == "withdrawn" or (state == "failed" and bool(one.get("error"))) or (state == "rejected" and uncommitted)
    )


async def _mine(client: SignedClient, url: str, arena_hotkey: str) -> list[dict[str, Any]]:
    found = (await client.get(f"{url}/api/v1/submissions", signed_for=arena_hotkey, attempts=3)).json()
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _push_id(group: Collection[Modality], hashes: Mapping[Modality, str], vertical: Vertical) -> str:
    text = "/".join((vertical, *(f"{modality}={hashes[modality]}" for modality in sorted(group))))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise PeerUnreachable("The arena's answer is no object.", code="bad_answer")
    return value


def _numbers(state: object) -> tuple[int, int]:
    found = _object(state)
    offset, chunk = found.get("offset"), found.get("chunk_bytes")
    if not isinstance(offset, int) or not isinstance(chunk, int) or offset < 0 or not 0 < chunk <= _MOST_OF_A_PIECE:
        raise PeerUnreachable("The arena's answer says not where to go on.", code="bad_answer")
    return offset, chunk


async def _known(
    package: Path, url: str, arena_hotkey: str, client: SignedClient, refused: RequestRefused
) -> SubmissionReceipt:
    """The receipt of what the arena has already; raises the reasons when that was rejected."""
    sha256 = await asyncio.to_thread(file_sha256, package)
    found = next((one for one in await _mine(client, url, arena_hotkey) if one.get("sha256") == sha256), None)
    if found is None:
        raise refused
    if found.get("state") == SubmissionState.REJECTED:
        reasons = tuple(_reason(item) for item in found.get("reasons", ()) if isinstance(item, dict))
        raise PackageRejected(reasons or (Reason(refused.error_code, refused.message),))
    if found.get("state") == SubmissionState.WITHDRAWN:
        raise RequestRefused(
            "This package had a score when you withdrew it; it is not run again.",
            status=409,
            code="content_known",
            hint="Its runs and receipts stay: gascli d perf.",
        )
    try:
        return SubmissionReceipt.model_validate({"slot": 0, "slots": 1, **found})
    except ValidationError as error:
        raise PeerUnreachable("The arena's answer is no submission.", code="bad_answer") from error


def _reason(item: dict[str, object]) -> Reason:
    file, line = item.get("file"), item.get("line")
    return Reason(
        str(item.get("code", "unknown")),
        str(item.get("message", "")),
        file if isinstance(file, str) else None,
        line if isinstance(line, int) else None,
    )


async def _committed_block(chain: Chain, netuid: int, hotkey: str, payload: CommitmentPayload) -> int | None:
    found = await chain.get_commitment(netuid, hotkey)
    return found.block if found is not None and CommitmentPayload.decode(found.data) == payload else None
