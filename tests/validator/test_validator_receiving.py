"""The running validator's webhook: takes a delivery once, from the right miner, in time; keeps it, then answers."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import key
from webhook_ground import MINERS, Webhook, code

from gas.protocol.epistula import ReplayGuard
from gas.protocol.server import EpistulaGate, MetagraphCache
from gas.types import Modality
from gas.validator.callbacks import create_app
from gas.validator.doors import Doors, Floods
from gas.validator.receiving import STATUS_PATH, create_spool_app


@pytest.fixture
def hook(tmp_path: Path) -> Webhook:
    return Webhook(tmp_path)


def test_a_delivery_is_on_the_disk_before_the_miner_hears_of_it(hook: Webhook) -> None:
    hook.clock.advance(7)
    answer = asyncio.run(hook.send("one", "t0", b"medium"))
    row, name = hook.row("one", "t0"), hashlib.sha256(b"medium").hexdigest()
    assert (answer.status_code, answer.json()) == (202, {"status": "received"})
    assert (row.state, row.blob_sha256, row.delivered_at) == ("delivered", name, hook.clock.now)
    assert hook.blobs.get(name) == b"medium" and (hook.counts.deliveries, hook.counts.bytes) == (1, 6)


def test_many_deliveries_at_once_are_each_kept_once(hook: Webhook) -> None:
    async def play() -> list[tuple[int, str]]:
        sent = [hook.send(name, f"t{n}", f"{name}{n}".encode()) for name in MINERS for n in range(10)]
        again = [hook.send("one", f"t{n}", f"one{n}".encode()) for n in range(10)]
        return [code(answer) for answer in await asyncio.gather(*sent, *again)]

    codes = asyncio.run(play())
    assert codes[:20] == [(202, "")] * 20
    assert {status for status, _ in codes[20:]} <= {409, 429}
    assert len(list(hook.blobs.names())) == 20
    assert {hook.row(name, f"t{n}").state for name in MINERS for n in range(10)} == {"delivered"}


def test_only_the_first_delivery_counts_also_after_a_restart(hook: Webhook) -> None:
    asyncio.run(hook.send("one", "t0", b"first"))
    assert code(asyncio.run(hook.send("one", "t0", b"second"))) == (409, "already_delivered")
    hook.start()
    assert code(asyncio.run(hook.send("one", "t0", b"second"))) == (409, "already_delivered")
    assert list(hook.blobs.names()) == [hashlib.sha256(b"first").hexdigest()]


def test_what_is_unknown_late_or_anothers_is_refused_and_nothing_is_stored(hook: Webhook) -> None:
    assert code(asyncio.run(hook.send("one", "nonsense", b"x"))) == (404, "unknown_task")
    hook.challenges.record(key("two").ss58_address, "hers", Modality.IMAGE, "p", {}, 100.0)
    assert code(asyncio.run(hook.send("one", "hers", b"x"))) == (404, "unknown_task")
    assert code(asyncio.run(hook.send("stranger", "t0", b"x"))) == (401, "unknown_signer")
    assert code(asyncio.run(hook.send("one", "t0", b"x", signed=b"y"))) == (400, "bad_signature")
    hook.clock.advance(101)
    assert code(asyncio.run(hook.send("one", "t0", b"x"))) == (410, "too_late")
    hook.clock.advance(5)
    hook.challenges.expire()
    assert code(asyncio.run(hook.send("one", "t1", b"x"))) == (410, "too_late")
    assert list(hook.blobs.names()) == [] and hook.row("two", "hers").state == "expired"
    assert hook.counts.refused["unknown_task"] == 2 and hook.counts.deliveries == 0


def test_a_deregistered_hotkey_delivers_nothing(hook: Webhook) -> None:
    hook.chain.names = ("vali", "two")
    assert code(asyncio.run(hook.send("one", "t0", b"x"))) == (401, "unknown_signer")


def test_a_large_medium_goes_through_a_file_and_a_larger_one_is_cut_off(hook: Webhook) -> None:
    large, larger = bytes(2 << 20), bytes((3 << 20) + 1)

    async def stream(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1 << 18):
            yield data[start : start + (1 << 18)]

    assert code(asyncio.run(hook.send("one", "t0", large))) == (202, "")
    assert code(asyncio.run(hook.send("one", "t1", stream(large), signed=large))) == (202, "")
    assert code(asyncio.run(hook.send("one", "t2", stream(larger), signed=larger))) == (413, "body_too_large")
    assert code(asyncio.run(hook.send("one", "t3", b"x", **{"content-length": str(10 << 30)}))) == (
        413,
        "body_too_large",
    )
    assert list((hook.folder / "incoming").iterdir()) == [] and len(list(hook.blobs.names())) == 1


def test_who_floods_is_answered_429_and_nobody_else(hook: Webhook) -> None:
    async def play() -> list[int]:
        return [(await hook.send("one", f"x{n}", b"")).status_code for n in range(80)]

    statuses = asyncio.run(play())
    assert statuses[:60] == [404] * 60 and set(statuses[60:]) == {429}
    assert code(asyncio.run(hook.send("two", "t0", b"hers"))) == (202, "")


def test_a_flood_in_ones_name_does_not_shut_out_ones_own_deliveries(hook: Webhook) -> None:
    async def play() -> tuple[int, str]:
        # Known to the loop that made it, as every task of this process is.
        for number in range(80):
            await hook.send("one", f"x{number}", b"", signed=b"forged")
        return code(await hook.send("one", "t0", b"mine"))

    hook_doors_open(hook)
    assert asyncio.run(play()) == (202, "")


def hook_doors_open(hook: Webhook) -> None:
    """Start again as the service does, which tells its doors of every open task."""
    cache = MetagraphCache(hook.chain, 1, hook.clock)  # type: ignore[arg-type]
    gate = EpistulaGate(hook.ground.validator, cache, hook.clock, ReplayGuard())
    doors = Doors(hook.challenges, hook.clock)
    for (miner, task), deadline in hook.challenges.open_tasks().items():
        doors.opened(miner, task, deadline)
    app = create_spool_app(hook.challenges, doors, hook.blobs, gate, hook.clock, folder=hook.folder / "incoming")
    hook.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vali")


def test_when_the_disk_is_full_the_miner_may_come_again(hook: Webhook) -> None:
    hook.blobs.full = True
    assert asyncio.run(hook.send("one", "t0", b"medium")).status_code == 503
    assert hook.row("one", "t0").state == "accepted"
    hook.blobs.full = False
    assert asyncio.run(hook.send("one", "t0", b"medium")).status_code == 202


def test_a_delivery_that_a_full_disk_made_late_is_taken_all_the_same(hook: Webhook) -> None:
    hook.clock.advance(98)
    hook.blobs.full = True
    assert asyncio.run(hook.send("one", "t0", b"medium")).status_code == 503
    hook.blobs.full = False
    hook.clock.advance(4)
    # The deadline is past, and is about to be moved.
    assert code(asyncio.run(hook.send("one", "t0", b"medium"))) == (503, "not_ready")
    assert code(asyncio.run(hook.send("two", "none", b"medium"))) == (404, "unknown_task")
    assert hook.hindrance.settle() == 20
    hook.challenges.expire()
    hook.open_doors()
    assert asyncio.run(hook.send("one", "t0", b"medium")).status_code == 202
    hook.clock.advance(102)
    assert code(asyncio.run(hook.send("one", "t1", b"medium"))) == (410, "too_late")


def test_a_miner_that_gives_up_says_so_once(hook: Webhook) -> None:
    failure = b'{"error_message": "The \\u0000 GPU burned down."}'
    answer = asyncio.run(hook.send("one", "t0", failure, **{"task-status": "failed"}))
    row = hook.row("one", "t0")
    assert (answer.json(), row.state) == ({"status": "noted"}, "failed")
    assert [(one["code"], one["message"]) for one in row.reasons] == [("miner_failed", "The  GPU burned down.")]
    assert code(asyncio.run(hook.send("one", "t0", b"medium"))) == (409, "already_delivered")


def test_a_miner_asks_what_came_of_its_delivery_and_of_no_other(hook: Webhook) -> None:
    async def ask(name: str, task: str) -> httpx.Response:
        return await hook.http.get(f"{STATUS_PATH}/{task}", headers=dict(hook.signature(name, b"")))

    asyncio.run(hook.send("one", "t0", b"medium"))
    assert asyncio.run(ask("one", "t0")).json() == {"status": "received", "reasons": []}
    assert asyncio.run(ask("one", "t1")).json()["status"] == "pending"
    assert asyncio.run(ask("one", "nonsense")).status_code == 404
    assert asyncio.run(ask("two", "t0")).json()["status"] == "pending"


def test_without_a_judge_the_webhook_only_keeps(hook: Webhook) -> None:
    cache = MetagraphCache(hook.chain, 1, hook.clock)  # type: ignore[arg-type]
    gate = EpistulaGate(hook.ground.validator, cache, hook.clock, ReplayGuard())
    app = create_app(hook.challenges, None, hook.blobs, gate, hook.ground.validator, hook.clock)
    hook.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vali")
    assert asyncio.run(hook.send("one", "t0", b"medium")).json() == {"status": "received"}


def test_attempts_in_vain_come_back_with_time(hook: Webhook) -> None:
    floods = Floods(hook.clock, burst=2, per_second=0.5)
    floods.spend("a")
    floods.spend("a")
    floods.spend("b")
    with pytest.raises(Exception, match="Too many"):
        floods.spend("a")
    hook.clock.advance(2)
    floods.spend("a")
