"""Who floods the webhook is paid less, and nobody else can spend a miner's reputation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import key
from webhook_ground import Webhook, code

from gas.errors import RequestRefused
from gas.protocol.epistula import ReplayGuard
from gas.storage.tables import ServiceStateRow
from gas.types import Modality
from gas.validator.doors import Floods
from gas.validator.offences import ALLOWED_OFFENCES, FREE_COPIES, FREE_REPEATS, offences_of
from gas.validator.receiving import CALLBACK_PATH

ONE = key("one").ss58_address


@pytest.fixture
def hook(tmp_path: Path) -> Webhook:
    return Webhook(tmp_path)


def counted(hook: Webhook, seconds: float = 60.0) -> dict[str, int]:
    """Offences of miner one, a while later."""
    hook.clock.advance(seconds)
    hook.offences.flush()
    with hook.ground.database.read() as session:
        return offences_of(session, hook.ground.validator, now=hook.clock.now).get(ONE, {})


def test_signed_deliveries_for_tasks_that_were_never_given_are_counted(hook: Webhook) -> None:
    async def play() -> None:
        for number in range(30):
            await hook.send("one", f"none-{number}", b"junk")

    asyncio.run(play())
    hook.challenges.record(key("two").ss58_address, "hers", Modality.IMAGE, "p", {}, 100.0)
    assert code(asyncio.run(hook.send("one", "hers", b"mine"))) == (404, "unknown_task")
    assert counted(hook) == {"unknown_task": 31}
    assert counted(hook) == {"unknown_task": 31}


def test_other_bytes_for_a_delivered_task_count_and_the_same_ones_are_free(hook: Webhook) -> None:
    async def play() -> None:
        await hook.send("one", "t0", b"medium")
        for _ in range(5):
            # The answer was lost.
            assert code(await hook.send("one", "t0", b"medium")) == (409, "already_delivered")
        for number in range(3):
            await hook.send("one", "t0", b"another %d" % number)

    asyncio.run(play())
    assert counted(hook) == {"already_delivered": 3}


def test_a_miner_that_waits_for_a_validator_to_note_its_task_makes_one_offence_at_most(hook: Webhook) -> None:
    async def play() -> None:
        for _ in range(10):
            await hook.send("one", "not yet", b"medium")

    asyncio.run(play())
    hook.challenges.record(ONE, "not yet", Modality.IMAGE, "p", {}, 100.0)
    assert asyncio.run(hook.send("one", "not yet", b"medium")).status_code == 202
    # It was its task after all.
    assert counted(hook) == {}


def test_a_delivery_sent_for_many_unknown_tasks_counts_beyond_what_others_could_replay(hook: Webhook) -> None:
    async def play() -> None:
        for number in range(FREE_COPIES + 5):
            await hook.send("one", f"none-{number}", b"medium")
        await hook.send("one", "t0", b"medium")

    asyncio.run(play())
    assert counted(hook) == {"unknown_task": 5}


def test_what_comes_for_a_request_that_brought_no_task_id_is_forgiven(hook: Webhook) -> None:
    with hook.ground.database.write() as session:
        for number, reason in enumerate(["slow", "silent", "interrupted", "validator_offline"] * 6 + ["refused"]):
            row = hook.task("one", f"asked-{number}")
            row.state, row.prompt_id = "untaken" if reason[0] in "iv" else "failed", 1
            row.reasons = [{"code": reason, "message": ""}]
            session.add(row)

    async def play() -> None:
        for number in range(25):
            assert code(await hook.send("one", f"late-{number}", b"medium %d" % number))[0] == 404

    asyncio.run(play())
    assert counted(hook) == {"unknown_task": 1}


def test_endless_repeats_count_in_the_end(hook: Webhook) -> None:
    asyncio.run(hook.send("one", "t0", b"medium"))
    for _ in range(FREE_REPEATS + 7):
        hook.clock.advance(1)
        asyncio.run(hook.send("one", "t0", b"medium"))
    assert counted(hook) == {"repeats": 7}


def test_nobody_else_spends_a_miners_reputation(hook: Webhook) -> None:
    async def play() -> None:
        proof = dict(hook.signature("one", b"medium"))
        # On its way it is read and sent on under other names, before the miner's own request and after it.
        for number in range(3):
            await hook.http.post(CALLBACK_PATH, content=b"medium", headers={**proof, "task-id": f"stolen-{number}"})
        answer = await hook.http.post(CALLBACK_PATH, content=b"medium", headers={**proof, "task-id": "t0"})
        assert answer.status_code == 202
        for number in range(3):
            await hook.http.post(CALLBACK_PATH, content=b"medium", headers={**proof, "task-id": f"again-{number}"})
        # In its name, without its key.
        for number in range(10):
            await hook.send("one", f"forged-{number}", b"junk", signed=b"something else")
            await hook.send("two", f"forged-{number}", b"junk", **{"epistula-signed-by": ONE})

    asyncio.run(play())
    assert counted(hook) == {}


def test_bodies_that_never_come_keep_no_flood_from_being_counted(hook: Webhook) -> None:
    async def play() -> None:
        never = asyncio.Event()

        async def body(begun: asyncio.Event) -> AsyncIterator[bytes]:
            yield b"j"
            begun.set()
            await never.wait()

        hanging = []
        for number in range(40):
            begun = asyncio.Event()
            hanging.append(asyncio.create_task(hook.send("one", f"slow-{number}", body(begun), signed=b"junk")))
            await asyncio.wait([hanging[-1], asyncio.create_task(begun.wait())], return_when=asyncio.FIRST_COMPLETED)
            hook.clock.advance(1)
        for number in range(30):
            await hook.send("two", f"none-{number}", b"junk")
        never.set()
        await asyncio.gather(*hanging)

    asyncio.run(play())
    hook.clock.advance(60)
    assert hook.offences.flush() == 30


def test_what_was_counted_outlives_the_process_and_goes_after_a_day(hook: Webhook) -> None:
    asyncio.run(hook.send("one", "none", b"junk"))
    assert counted(hook) == {"unknown_task": 1}
    hook.start()
    asyncio.run(hook.send("one", "none at all", b"junk"))
    assert counted(hook) == {"unknown_task": 2}
    assert counted(hook, 90_000.0) == {}


def test_counts_are_one_row_an_hour_however_much_is_sent(hook: Webhook) -> None:
    for miner in ("one", "two"):
        for number in range(40):
            hook.offences.note(key(miner).ss58_address, f"n{number}", f"{number:064x}", "unknown_task")
    assert counted(hook) == {"unknown_task": 40} and ALLOWED_OFFENCES < 40
    with hook.ground.database.read() as session:
        rows = session.query(ServiceStateRow).filter(ServiceStateRow.key.startswith("offences/")).all()
    assert [sorted(row.value) for row in rows] == [sorted((ONE, key("two").ss58_address))]


def test_a_flood_by_however_many_hotkeys_and_uuids_keeps_a_bounded_number_of_things_in_memory(hook: Webhook) -> None:
    vain, guard = Floods(hook.clock, burst=60, per_second=1.0), ReplayGuard()
    begin = int(hook.clock.time() * 1000)
    for number in range(101_000):
        hook.offences.note(f"hotkey-{number}", f"task-{number}", f"{number:064x}", "unknown_task")
        if number % 10 == 0:
            hook.offences.note(ONE, f"task-{number}", f"{number:064x}", "unknown_task")
        vain.spend(f"hotkey-{number}")
        # One a millisecond, signed by few: whoever sends too many is refused.
        with suppress(RequestRefused):
            guard.admit(f"hotkey-{number % 2}", str(number), begin + number, begin + number)
    assert hook.offences.held == 50_000 >= len(hook.offences._notes)
    assert len(vain._buckets) <= 100_000
    assert guard.remembered <= 20_000
    # What was noted is counted, and forgotten an hour later.
    assert sum(counted(hook).values()) == 4_096
    hook.clock.advance(3_601)
    hook.offences.flush()
    assert hook.offences.held == 0 == len(hook.offences._notes)


def test_late_deliveries_and_failures_are_no_offences(hook: Webhook) -> None:
    hook.clock.advance(101)
    assert code(asyncio.run(hook.send("one", "t0", b"late"))) == (410, "too_late")
    asyncio.run(hook.send("one", "t1", b'{"error_message": "no"}', **{"task-status": "failed"}))
    assert counted(hook) == {}
