"""While the validator was down nobody could deliver: that time is not taken from the miners."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from postgres import service_url

from gas.clock import ManualClock
from gas.errors import RequestRefused
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database
from gas.types import Modality
from gas.validator.hindrance import Hindrance, Space
from gas.validator.tasks import Challenges, ChallengeState


@pytest.fixture
def ground(tmp_path: Path):
    database, clock = open_database(service_url(tmp_path)), ManualClock()
    yield Challenges(database, "validator", clock), clock
    database.close()


def test_an_outage_is_added_to_the_deadlines_of_open_tasks(ground) -> None:
    challenges, clock = ground
    challenges.record("miner", "open", Modality.IMAGE, "a cat", {}, 60)
    challenges.record("miner", "delivered", Modality.IMAGE, "a dog", {}, 60)
    challenges.claim("miner", "delivered")
    clock.advance(20)
    last_sign = clock.time()
    clock.advance(300)
    assert challenges.make_up(last_sign) == 1
    # Forty seconds were left when it went down, and forty are left now.
    clock.advance(39)
    challenges.expire()
    assert challenges.claim("miner", "open").state is ChallengeState.DELIVERED


def test_what_had_run_out_before_the_outage_stays_run_out(ground) -> None:
    challenges, clock = ground
    challenges.record("miner", "late", Modality.IMAGE, "a cat", {}, 60)
    clock.advance(61)
    last_sign = clock.time()
    clock.advance(300)
    assert challenges.make_up(last_sign) == 0
    with pytest.raises(RequestRefused) as refusal:
        challenges.claim("miner", "late")
    assert refusal.value.error_code == "too_late"


def test_a_clock_that_was_set_back_takes_no_time_away(ground) -> None:
    challenges, clock = ground
    challenges.record("miner", "open", Modality.IMAGE, "a cat", {}, 60)
    assert challenges.make_up(clock.time() + 50) == 0
    clock.advance(59)
    assert challenges.claim("miner", "open").deadline == pytest.approx(clock.time() + 1)


def hindered(challenges: Challenges, clock: ManualClock, folder: Path) -> tuple[Hindrance, Space]:
    space = Space(folder, 0, clock)
    return Hindrance(challenges, space, clock), space


def wait(hindrance: Hindrance, challenges: Challenges, clock: ManualClock, seconds: int) -> None:
    """As the service does, in longer steps."""
    for _ in range(seconds // 25):
        clock.advance(25)
        hindrance.settle()
        challenges.expire()


def test_while_the_disk_is_full_no_time_runs_out_and_nobody_is_asked(ground, tmp_path: Path) -> None:
    challenges, clock = ground
    challenges.record("miner", "t", Modality.IMAGE, "a cat", {}, 60)
    hindrance, space = hindered(challenges, clock, tmp_path)
    space._least = 1 << 62
    assert hindrance.wrong() == "The disk is nearly full."
    wait(hindrance, challenges, clock, 300)
    space._least = 0
    wait(hindrance, challenges, clock, 50)
    assert hindrance.wrong() is None
    assert challenges.claim("miner", "t").state is ChallengeState.DELIVERED


def test_after_an_outage_that_miners_do_not_wait_for_nobody_is_to_blame(ground, tmp_path: Path) -> None:
    challenges, clock = ground
    challenges.record("miner", "t", Modality.IMAGE, "a cat", {}, 60)
    clock.advance(5)
    hindrance, space = hindered(challenges, clock, tmp_path)
    space._least = 1 << 62
    wait(hindrance, challenges, clock, 900)
    counts = challenges.counts("miner")
    assert (counts.states, counts.refused) == ({"untaken": 1}, 0)


def test_between_the_tries_of_a_patient_miner_its_time_does_not_run_out(ground, tmp_path: Path) -> None:
    challenges, clock = ground
    challenges.record("miner", "t", Modality.IMAGE, "a cat", {}, 60)
    hindrance, _ = hindered(challenges, clock, tmp_path)
    # A store that does not answer for five minutes, and a miner that tries every half a minute.
    for second in range(5, 301, 5):
        if second % 30 == 5:
            hindrance.refused("miner", "t", "blobs_unreachable")
        clock.advance(5)
        hindrance.settle()
        challenges.expire()
    assert challenges.claim("miner", "t").state is ChallengeState.DELIVERED


def test_who_brings_about_that_there_is_no_place_gains_nothing_by_it(ground, tmp_path: Path) -> None:
    challenges, clock = ground
    for miner in ("honest", "idle"):
        challenges.record(miner, "t", Modality.IMAGE, "a cat", {}, 60)
    hindrance, _ = hindered(challenges, clock, tmp_path)
    wait(hindrance, challenges, clock, 50)
    hindrance.refused("honest", "t", "no_place")
    assert hindrance.wrong() is None
    clock.advance(11)
    assert hindrance.pending("honest", "t") and not hindrance.pending("idle", "t")
    assert hindrance.settle() == 1
    assert challenges.claim("honest", "t").state is ChallengeState.DELIVERED
    with pytest.raises(RequestRefused):
        challenges.claim("idle", "t")


def test_a_blob_whose_name_is_known_is_stored_under_it(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    name = blobs.put(b"a medium")
    blobs.delete(name)
    assert blobs.put(b"a medium", name=name) == name
    assert blobs.get(name) == b"a medium"
