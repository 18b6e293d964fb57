"""From the database to weights: who is paid, who isn't, and what a cheat earns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url

sys.path.insert(0, str(Path(__file__).parent))

from rounds_ground import neuron

from gas.chain.base import Metagraph
from gas.errors import ConfigurationError
from gas.scoring.generators import default_prices
from gas.storage.database import open_database
from gas.storage.tables import ChallengeRow, JudgementRow, MediumRow, RoundRow, RunRow, SubmissionRow
from gas.types import Modality
from gas.validator.factors import GeneratorFactors
from gas.validator.reckoning import Since, reckon_generators
from gas.validator.scores import fold_scores, weights_to_u16
from gas.validator.tallies import DAY

NOW = 2_000_000.0


@pytest.fixture
def database(tmp_path: Path):
    database = open_database(service_url(tmp_path))
    yield database
    database.close()


def _reckoned(database, *miners: str) -> dict[str, GeneratorFactors]:
    graph = Metagraph(1, 9, 0, tuple(neuron(uid, name) for uid, name in enumerate(miners)))
    with database.read() as session:
        found = reckon_generators(
            session, graph, validator="v", shares={Modality.IMAGE: 1.0}, prices=default_prices(), now=NOW,
            since=Since(NOW - DAY, None), keep=False,
        )  # fmt: skip
    return {one.hotkey: one for one in found}


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
    found = _reckoned(database, "good", "sloppy", "yesterday", "unknown")
    assert found["good"].reward > found["sloppy"].reward > 0
    assert {"yesterday", "unknown"}.isdisjoint(found)


def test_media_that_fool_detectors_raise_the_reward_but_not_of_a_silent_generator(database) -> None:
    with database.write() as session:
        _run(session)
        for number in range(20):
            for miner, age in (("plain", 60.0), ("fooler", 60.0), ("silent", 100_000.0)):
                sha = _challenge(session, miner, number, "verified", age=age)
                session.flush()
                session.add(JudgementRow(media_sha256=sha, run_id="run", fooled=miner != "plain"))
        _challenge(session, "silent", 20, "refused")
    found = _reckoned(database, "plain", "fooler", "silent")
    plain, fooler, silent = (found[name] for name in ("plain", "fooler", "silent"))
    assert fooler.reward == pytest.approx(2 * plain.reward)
    assert (fooler.fool_rate, plain.fool_rate) == (1.0, 0.0)
    assert silent.reward == silent.bonus == 0


def test_what_was_withdrawn_after_all_earns_no_bonus_for_having_fooled(database) -> None:
    with database.write() as session:
        _run(session)
        for miner in ("honest", "seller"):
            for number in range(20):
                sha = _challenge(session, miner, number, "verified")
                session.flush()
                session.add(JudgementRow(media_sha256=sha, run_id="run", fooled=number >= 10))
        session.flush()
        # The ten that fool were sold to another validator before.
        sold = [f"t{number}" for number in range(10, 20)]
        session.query(ChallengeRow).filter(ChallengeRow.miner == "seller", ChallengeRow.task_id.in_(sold)).update(
            {"state": "refused", "reasons": [{"code": "sold_elsewhere"}]}
        )
    found = _reckoned(database, "honest", "seller")
    assert (found["honest"].bonus, found["seller"].bonus) == (0.5, 0.0)


def test_who_changes_photos_earns_what_the_drawn_tiers_are_worth(database) -> None:
    changed = {"source_sha256": "0" * 64, "mask_sha256": "1" * 64}
    with database.write() as session:
        for number, tier in enumerate((0, 0, 1, 1, 2)):
            _challenge(session, "plain", number, "verified", width=(1024, 2048, 4096)[tier])
            _challenge(session, "editor", number, "verified", width=900)
            session.flush()
            session.query(ChallengeRow).filter(ChallengeRow.task_id == f"t{number}").update({"tier": tier})
        session.query(ChallengeRow).filter(ChallengeRow.miner == "editor").update({"parameters": changed})
    found = _reckoned(database, "plain", "editor")
    assert found["editor"].reward == pytest.approx(found["plain"].reward) and found["plain"].reward > 5


def test_history_moves_slowly_and_is_kept(database) -> None:
    with database.write() as session:
        assert fold_scores(session, {"a": 10.0}, now=1.0) == {"a": (0.0, pytest.approx(0.2))}
    with database.write() as session:
        found = fold_scores(session, {"a": 10.0, "b": 0.0}, now=2.0)
    assert {hotkey: score for hotkey, (_, score) in found.items()} == pytest.approx({"a": 0.396, "b": 0.0})


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
