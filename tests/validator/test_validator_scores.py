"""From the database to weights: who is paid, who isn't, and what a cheat earns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

from gas.errors import ConfigurationError
from gas.scoring.generators import default_prices
from gas.scoring.weights import EMISSION_PROFILES, EmissionProfile, MinerClass
from gas.storage.database import open_database
from gas.storage.tables import ChallengeRow, JudgementRow, MediumRow, RoundRow, RunRow, SubmissionRow
from gas.types import Modality
from gas.validator.scores import (
    DetectorStanding,
    generator_standings,
    plan_weights,
    update_history,
    weights_to_u16,
)

NOW = 2_000_000.0
IMAGES = EmissionProfile.from_table("images", {"image": 0.7, "generator": 0.3})


@pytest.fixture
def database(tmp_path: Path):
    database = open_database(service_url(tmp_path))
    yield database
    database.close()


def _challenge(session, miner: str, number: int, state: str, *, age: float = 60.0, width: int = 256) -> str:
    sha = f"{miner}{number}".encode().hex().zfill(64)
    session.add(
        ChallengeRow(
            validator="v", miner=miner, task_id=f"t{number}", modality="image", prompt="p", parameters={}, state=state,
            created_at=NOW - age, deadline=NOW, reasons=[], media_sha256=sha if state == "verified" else None,
        )
    )  # fmt: skip
    if state == "verified":
        session.add(
            MediumRow(
                sha256=sha, validator="v", generator=miner, task_id=f"t{number}", modality="image",
                media_type="synthetic", width=width, height=width, mime="image/png", verified_at=NOW - age,
            )
        )  # fmt: skip
    return sha


def _run(session) -> None:
    session.add(
        SubmissionRow(
            id="s", hotkey="d", key="k", sha256="0" * 64, size=1, modality="image", vertical="general", state="scored",
            state_since=0.0, created_at=0.0,
        )
    )  # fmt: skip
    session.add(
        RoundRow(
            id="r", modality="image", seed="1", state="open", plan_blob="", data_hash="", code_version="", opened_at=0.0
        )
    )
    session.flush()
    run = RunRow(id="run", submission_id="s", round_id="r", kind="full", state="done", started_at=0.0, finished_at=NOW)
    session.add(run)
    session.flush()


def test_a_generator_earns_by_what_was_verified_of_the_last_day(database) -> None:
    with database.write() as session:
        for number in range(10):
            _challenge(session, "good", number, "verified")
            _challenge(session, "sloppy", number, "verified" if number % 2 else "refused")
            _challenge(session, "yesterday", number, "verified", age=90_000.0)
    good, sloppy, yesterday, unknown = generator_standings(
        database, "v", ["good", "sloppy", "yesterday", "unknown"], now=NOW, shares={Modality.IMAGE: 1.0},
        prices=default_prices(),
    )  # fmt: skip
    assert good.reward.reward > sloppy.reward.reward > 0
    assert (sloppy.verified, sloppy.refused) == (5, 5)
    assert yesterday.reward.reward == unknown.reward.reward == 0


def test_media_that_fool_detectors_raise_the_reward_but_not_of_a_silent_generator(database) -> None:
    with database.write() as session:
        _run(session)
        for number in range(20):
            for miner, age in (("plain", 60.0), ("fooler", 60.0), ("silent", 100_000.0)):
                sha = _challenge(session, miner, number, "verified", age=age)
                session.flush()
                session.add(JudgementRow(media_sha256=sha, run_id="run", fooled=miner != "plain"))
    plain, fooler, silent = generator_standings(
        database, "v", ["plain", "fooler", "silent"], now=NOW, shares={Modality.IMAGE: 1.0}, prices=default_prices()
    )
    assert fooler.reward.reward == pytest.approx(2 * plain.reward.reward)
    assert (fooler.reward.fool_rate, plain.reward.fool_rate) == (1.0, 0.0)
    assert silent.reward.reward == silent.reward.bonus == 0


def test_the_best_detector_takes_the_share_of_its_modality_and_the_weights_sum_to_one() -> None:
    entries = [
        DetectorStanding(4, "a", Modality.IMAGE, 0.8, 10),
        DetectorStanding(5, "b", Modality.IMAGE, 0.8, 9),
        DetectorStanding(6, "c", Modality.IMAGE, None, 1),
    ]
    plan = plan_weights(entries, {2: 3.0, 3: 1.0}, IMAGES, owner_uid=0)
    assert plan.weights == pytest.approx({5: 0.7, 2: 0.225, 3: 0.075})
    assert plan.winners == {Modality.IMAGE: 5}
    assert "winner takes the whole 70%" in plan.reasons[5][0]
    assert all(plan.reasons[uid] for uid in (2, 3, 4, 5, 6))


def test_a_share_that_cannot_be_burnt_is_told_and_never_given_to_others() -> None:
    with pytest.raises(ConfigurationError) as error:
        plan_weights([], {2: 1.0}, EMISSION_PROFILES["gas"], owner_uid=-1)
    assert error.value.error_code == "no_burn_slot"
    everything = EmissionProfile("all", {MinerClass.GENERATOR: 1.0})
    assert plan_weights([], {2: 1.0}, everything, owner_uid=-1).weights == {2: 1.0}


def test_the_share_of_a_class_with_nobody_to_pay_is_burnt_and_said() -> None:
    plan = plan_weights([], {}, EMISSION_PROFILES["gas"], owner_uid=7)
    assert plan.weights == pytest.approx({7: 1.0})
    assert "burnt" in plan.reasons[7][0]


def test_history_moves_slowly_and_is_kept(database) -> None:
    assert update_history(database, {"a": 10.0}, now=1.0) == pytest.approx({"a": 0.2})
    assert update_history(database, {"a": 10.0, "b": 0.0}, now=2.0) == pytest.approx({"a": 0.396, "b": 0.0})


@given(st.dictionaries(st.integers(0, 255), st.floats(1e-6, 1.0), min_size=1, max_size=50))
def test_weights_on_the_chain_keep_their_order_and_their_largest(weights: dict[int, float]) -> None:
    uids, values = weights_to_u16(weights)
    assert max(values) == 65_535
    by_uid = dict(zip(uids, values, strict=True))
    ordered = sorted(by_uid, key=lambda uid: weights[uid])
    assert [by_uid[uid] for uid in ordered] == sorted(by_uid.values())


def test_no_weight_at_all_is_an_error() -> None:
    with pytest.raises(ConfigurationError):
        weights_to_u16({1: 0.0})
