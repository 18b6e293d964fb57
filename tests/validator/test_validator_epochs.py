"""Epochs: weights by the formulas, every factor of them, and no way to fold, pay or lose anything twice."""

from __future__ import annotations

import asyncio
import math
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import service_url
from verifying_ground import NOW, Deadly, Killed

from gas.arena.competitions import Competition, Competitions
from gas.chain.base import Hyperparameters, Metagraph, Neuron
from gas.chain.weights import WeightsReceipt
from gas.clock import ManualClock
from gas.errors import ChainUnreachable, ConfigurationError, NoPermit, RateLimited
from gas.scoring.generators import default_prices
from gas.scoring.weights import EMISSION_PROFILES, EmissionProfile
from gas.storage.database import Database, open_database
from gas.storage.tables import (
    ChallengeRow,
    JudgementRow,
    MediumRow,
    RoundRow,
    RunRow,
    ScoreRow,
    ServiceStateRow,
    SubmissionRow,
    WeightsLogRow,
)
from gas.types import Modality, Vertical
from gas.validator.epochs import EpochRunner, last_reckoning
from gas.validator.explain import explain, lines_of, sentences
from gas.validator.reckoning import PayRules, Since, reckon

VALIDATOR = "validator"
OWNER = 0
SIZES = {"image": ((512, 512), (2000, 2000), (3600, 3600)), "video": ((640, 480), (1280, 720), (1920, 1080))}
TABLES = (JudgementRow, RunRow, RoundRow, SubmissionRow, MediumRow, ChallengeRow, ScoreRow, ServiceStateRow,
          WeightsLogRow)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    database = open_database(service_url(tmp_path_factory.mktemp("epochs")))
    yield database
    database.close()


@pytest.fixture
def database(shared: Database):
    _clear(shared)
    return shared


def _clear(database: Database) -> None:
    with database.write() as session:
        for table in TABLES:
            session.execute(delete(table))


def _neuron(uid: int, hotkey: str, *, registered_at: int = 0, last_update: int = 0) -> Neuron:
    return Neuron(uid, hotkey, "cold", 0, True, None, last_update, registered_at, 0.0, 0.0, 0.0, 0.0, 0, True)


def _graph(
    *miners: str, registered: dict[str, int] | None = None, last_update: int = 0, owner: int = OWNER
) -> Metagraph:
    names = ["owner", VALIDATOR, *miners]
    neurons = [
        _neuron(uid, name, registered_at=(registered or {}).get(name, 0), last_update=last_update)
        for uid, name in enumerate(names)
    ]
    return Metagraph(1, 100, owner, tuple(neurons))


def _challenge(session, miner, number, state="verified", *, modality="image", requested=0, delivered=0, at=NOW - 60,
               reasons=(), block=None, settled=None):  # fmt: skip
    sha = f"{miner}/{modality}/{number}".encode().hex().zfill(64)[-64:]
    session.add(
        ChallengeRow(
            validator=VALIDATOR, miner=miner, task_id=f"{modality}{number}", modality=modality, prompt="p",
            parameters={}, state=state, created_at=at, deadline=at + 100, reasons=list(reasons), tier=requested,
            media_sha256=sha if state == "verified" else None, settled_at=settled if settled is not None else at + 1,
            delivered_at=at + 1, block=block,
        )
    )  # fmt: skip
    if state == "verified":
        width, height = SIZES[modality][delivered] if modality in SIZES else (0, 0)
        session.add(
            MediumRow(
                sha256=sha, validator=VALIDATOR, generator=miner, task_id=f"{modality}{number}", modality=modality,
                media_type="synthetic", width=width, height=height, mime="x/y", verified_at=at + 1,
            )
        )  # fmt: skip
    return sha


def _judge(session, shas, fooled, *, finished_at=NOW - 1000.0, name="run") -> None:
    if session.get(SubmissionRow, "s") is None:
        session.add(
            SubmissionRow(id="s", hotkey="d", key="k", sha256="0" * 64, size=1, modality="image", vertical="general",
                          state="scored", state_since=0.0, created_at=0.0)
        )  # fmt: skip
    session.add(_round(f"r-{name}", "open", None))
    session.flush()
    session.add(
        RunRow(id=name, submission_id="s", round_id=f"r-{name}", kind="full", state="done", started_at=0.0,
               finished_at=finished_at)
    )  # fmt: skip
    session.flush()
    for number, sha in enumerate(shas):
        session.add(JudgementRow(media_sha256=sha, run_id=name, fooled=number < fooled))


def _round(name, state, outcome, *, modality="image", vertical="general", closed_at=None) -> RoundRow:
    return RoundRow(id=name, modality=modality, vertical=vertical, seed="1", state=state, plan_blob="", data_hash="",
                    code_version="", opened_at=0.0, closed_at=closed_at, outcome=outcome)  # fmt: skip


def _reckon(database, graph, *, profile="gas", rules=None, keep=False, since=None, now=NOW, block=100):
    chosen = profile if isinstance(profile, EmissionProfile) else EMISSION_PROFILES[profile]
    with (database.write if keep else database.read)() as session:
        return reckon(
            session, graph, validator=VALIDATOR, profile=chosen, rules=rules or PayRules(), block=block, now=now,
            since=since, keep=keep,
        )  # fmt: skip


def _multiplies_out(reckoning) -> None:
    """Every weight again from the factors that are shown for it."""
    total = 0.0
    for uid in reckoning.hotkeys:
        told = explain(reckoning, uid)
        weight = 0.0
        for part in told["parts"]:
            if part["class"] == "generator":
                base = sum(m["share"] * m["pass_rate"] * m["volume"] * m["price"] for m in part["modalities"].values())
                bonus = 0.0
                if part["fool_rate"] is not None and not part["silent"]:
                    bonus = min(2.0, max(0.0, part["fool_rate"] * part["sample_factor"]))
                reward = base * (1 + bonus)
                assert reward == pytest.approx(part["reward"], abs=1e-9)
                score = part["previous"]
                if part["challenged"]:
                    score = part["alpha"] * reward + (1 - part["alpha"]) * part["previous"]
                assert score == pytest.approx(part["score"], abs=1e-9)
                weight += part["class_share"] * score / part["class_total"] if part["class_total"] else 0.0
            elif part["class"] == "burn":
                weight += sum(piece["share"] for piece in part["pieces"])
            else:
                weight += part["class_share"] * part["part"] if part["won"] else 0.0
        assert weight == pytest.approx(told["weight"], abs=1e-9)
        assert list(lines_of(told))
        total += told["weight"]
    assert total == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("count", "expected"), [(5, 5), (10, 10), (25, 14), (73, 16)])
def test_the_volume_is_that_of_the_table(database: Database, count: int, expected: float) -> None:
    with database.write() as session:
        for number in range(count):
            _challenge(session, "a", number)
    (part,) = explain(_reckon(database, _graph("a")), 2)["parts"]
    assert part["modalities"]["image"]["volume"] == pytest.approx(expected, abs=1e-9)
    assert part["modalities"]["image"]["verified"] == count


@pytest.mark.parametrize(
    ("fooled", "judged", "factor", "bonus"),
    [(0, 5, 0.5, 0.0), (0, 10, 0.5, 0.0), (10, 20, 1.0, 0.5), (20, 40, 1.6931, 0.8466), (100, 100, 2.0, 2.0),
     (1, 5, 0.5, 0.1)],
)  # fmt: skip
def test_the_bonus_is_that_of_the_table(
    database: Database, fooled: int, judged: int, factor: float, bonus: float
) -> None:
    with database.write() as session:
        shas = [_challenge(session, "a", number) for number in range(judged)]
        session.flush()
        _judge(session, shas, fooled)
    (part,) = explain(_reckon(database, _graph("a")), 2)["parts"]
    assert (part["judged"], part["fooled"]) == (judged, fooled)
    assert part["sample_factor"] == pytest.approx(factor, abs=5e-5)
    assert part["bonus"] == pytest.approx(bonus, abs=5e-5)


def test_judgements_count_by_the_end_of_their_run_and_not_by_the_age_of_the_medium(database: Database) -> None:
    with database.write() as session:
        old = [_challenge(session, "a", n, at=NOW - 30 * 86_400) for n in range(20)]
        new = [_challenge(session, "a", 100 + n) for n in range(20)]
        session.flush()
        _judge(session, old, 20, finished_at=NOW - 3600, name="fresh")
        _judge(session, new, 0, finished_at=NOW - 8 * 86_400, name="stale")
    (part,) = explain(_reckon(database, _graph("a")), 2)["parts"]
    assert (part["judged"], part["fool_rate"], part["bonus"]) == (20, 1.0, 1.0)


def test_a_medium_below_the_tier_that_was_asked_for_is_paid_less_and_one_above_it_no_more(database: Database) -> None:
    with database.write() as session:
        for miner, requested, delivered in (("low", 2, 0), ("right", 2, 2), ("more", 0, 2)):
            _challenge(session, miner, 1, requested=requested, delivered=delivered)
    found = _reckon(database, _graph("low", "right", "more"))
    prices = {g.hotkey: g.modalities["image"].price for g in found.generators}
    assert prices == pytest.approx({"low": 0.36, "right": 2.0, "more": 1.0})


_DAY = st.fixed_dictionaries(
    {
        "media": st.lists(
            st.tuples(st.sampled_from(["image", "video"]), st.integers(0, 2), st.integers(0, 2)), max_size=14
        ),
        "refused": st.integers(0, 5),
        "fooled": st.integers(0, 6),
        "judged": st.integers(0, 6),
        "previous": st.floats(0, 5),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_DAY, min_size=1, max_size=3))
def test_weights_are_what_the_formulas_say(shared: Database, days: list[dict]) -> None:
    _clear(shared)
    names = [f"m{number}" for number in range(len(days))]
    prices = default_prices()
    relative = {m: [p / prices.baseline[m] for p in prices.prices[m]] for m in Modality}
    expected = {}
    with shared.write() as session:
        for name, day in zip(names, days, strict=True):
            session.add(ScoreRow(hotkey=name, miner_class="generator", value=day["previous"], updated_at=1.0))
            shas = [
                _challenge(session, name, n, modality=kind, requested=asked, delivered=came)
                for n, (kind, asked, came) in enumerate(day["media"])
            ]
            for number in range(day["refused"]):
                _challenge(session, name, 100 + number, "refused")
            judged = min(day["judged"], len(shas))
            fooled = min(day["fooled"], judged)
            session.flush()
            if judged:
                _judge(session, shas[:judged], fooled, name=name)
            total = 0.0
            for kind in ("image", "video"):
                media = [(asked, came) for k, asked, came in day["media"] if k == kind]
                n, refused = len(media), day["refused"] if kind == "image" else 0
                if not n:
                    continue
                p = n / (n + refused)
                v = min(n, 10) + max(0.0, math.log2(max(1, n - 9)))
                m = (
                    sum(
                        math.sqrt(relative[Modality(kind)][min(asked, came)]) * 0.6 ** max(0, asked - came)
                        for asked, came in media
                    )
                    / n
                )
                total += 0.40 / 0.84 * p * v * m
            bonus = 0.0
            if judged and shas:
                s = max(0.5, judged / 20) if judged < 20 else min(2, 1 + math.log(judged / 20))
                bonus = min(2.0, max(0.0, fooled / judged * s))
            # A day without any challenge counts as one with nothing to show.
            expected[name] = 0.02 * total * (1 + bonus) + 0.98 * day["previous"]
    graph = _graph(*names)
    found = _reckon(shared, graph, keep=True)
    for name in names:
        assert next(g for g in found.generators if g.hotkey == name).score == pytest.approx(expected[name], abs=1e-9)
    sum_ = sum(expected.values())
    for uid, name in enumerate(names, 2):
        weight = 0.16 * expected[name] / sum_ if sum_ else 0.0
        assert found.weights.get(uid, 0.0) == pytest.approx(weight, abs=1e-9)
    _multiplies_out(found)
    # What is kept as JSON is the same.
    assert type(found).from_dict(found.as_dict()) == found


def test_winners_of_verticals_share_their_modality_and_what_nobody_won_is_burnt(database: Database) -> None:
    rules = PayRules(
        competitions=Competitions(
            (
                Competition("all", Modality.IMAGE, share=3.0),
                Competition("faces", Modality.IMAGE, Vertical.HUMAN, share=1.0),
                Competition("clips", Modality.VIDEO),
            )
        )
    )
    won = {"hotkey": "good", "submission_id": "x", "run_id": "y", "name": "lens", "score": 0.8, "committed_block": 3}
    with database.write() as session:
        session.add(_round("r1", "closed", {"winner": {**won, "score": 0.75}, "margin": 0.01}, closed_at=1.0))
        session.add(_round("r2", "closed", {"winner": won, "margin": 0.01}, closed_at=2.0))
        session.add(ScoreRow(hotkey="good", miner_class="image", value=0.8, updated_at=2.0))
        session.add(ScoreRow(hotkey="gone", miner_class="image/human", value=0.9, updated_at=2.0))
        _challenge(session, "maker", 1)
    found = _reckon(database, _graph("good", "maker"), rules=rules)
    assert found.weights == pytest.approx({2: 0.30, 3: 0.16, OWNER: 0.54})
    (part,) = explain(found, 2)["parts"]
    assert (part["round"], part["score"], part["margin"], part["share"]) == ("r2", 0.8, 0.01, pytest.approx(0.3))
    assert (part["champion"]["score"], part["stayed"], part["part"]) == (0.75, True, 0.75)
    (burnt,) = explain(found, OWNER)["parts"]
    assert {piece["what"] for piece in burnt["pieces"]} == {"image (human)", "video (general)", "audio"}
    assert "burnt" in sentences(found)[OWNER][0]
    _multiplies_out(found)


def test_a_share_is_never_given_to_others_when_the_owner_holds_no_slot(database: Database) -> None:
    with pytest.raises(ConfigurationError) as error:
        _reckon(database, _graph("a", owner=-1))
    assert error.value.error_code == "no_burn_slot"


def test_further_classes_share_by_their_scores(database: Database) -> None:
    with database.write() as session:
        session.add(ScoreRow(hotkey="a", miner_class="segmenter", value=3.0, updated_at=1.0))
        session.add(ScoreRow(hotkey="b", miner_class="segmenter", value=1.0, updated_at=1.0))
    found = _reckon(database, _graph("a", "b"), profile="live")
    assert found.weights == pytest.approx({OWNER: 0.9, 2: 0.075, 3: 0.025})


def test_a_hotkey_that_has_taken_its_slot_anew_starts_at_zero(database: Database) -> None:
    with database.write() as session:
        for name in ("old", "back", "quiet"):
            session.add(ScoreRow(hotkey=name, miner_class="generator", value=5.0, updated_at=1.0))
        for name in ("old", "back"):
            _challenge(session, name, 1, block=80)
        _challenge(session, "quiet", 1, block=80, settled=NOW - 500)
    graph = _graph("old", "back", "quiet", registered={"back": 90, "quiet": 90})
    found = {g.hotkey: g for g in _reckon(database, graph, keep=True, since=Since(NOW - 100, 50)).generators}
    assert found["old"].previous == 5.0
    assert (found["back"].previous, found["back"].score, found["quiet"].score) == (0.0, 0.0, 0.0)
    with database.read() as session:
        kept = {row.hotkey: row.value for row in session.scalars(select(ScoreRow))}
    assert kept["quiet"] == 0.0


def test_who_stops_answering_stops_being_paid(database: Database) -> None:
    with database.write() as session:
        for name in ("busy", "hidden", "idle"):
            session.add(ScoreRow(hotkey=name, miner_class="generator", value=5.0, updated_at=1.0))
        _challenge(session, "busy", 1, "untaken", reasons=[{"code": "busy"}])
        # Nothing of it has ended since the last epoch, and nothing is its fault.
        _challenge(session, "idle", 1, settled=NOW - 500)
    found = {
        g.hotkey: g for g in _reckon(database, _graph("busy", "hidden", "idle"), since=Since(NOW - 100, 50)).generators
    }
    assert found["busy"].score == found["hidden"].score == pytest.approx(4.9)
    assert found["idle"].score == 5.0


def test_a_fault_of_ours_costs_nobody_anything(database: Database) -> None:
    with database.write() as session:
        _challenge(session, "a", 1)
        _challenge(session, "a", 2, "untaken", reasons=[{"code": "our_fault"}])
        _challenge(session, "a", 3, "accepted")
    (part,) = explain(_reckon(database, _graph("a")), 2)["parts"]
    assert part["modalities"]["image"]["pass_rate"] == 1.0


class _Chain:
    """Takes weights; refuses, loses answers or dies as told."""

    def __init__(self, *miners: str, limit: int = 10) -> None:
        self.miners, self.limit = miners, limit
        self.last_update = 0
        self.now = 100
        self.calls: list[dict[int, int]] = []
        self.errors: list[BaseException] = []
        self.lose = False

    async def hyperparameters(self, netuid: int) -> Hyperparameters:
        return Hyperparameters(weights_rate_limit=self.limit)

    async def metagraph(self, netuid: int) -> Metagraph:
        return _graph(*self.miners, last_update=self.last_update)

    async def publish_weights(self, netuid, uids, weights, version_key=0, *, salt):
        if self.errors:
            raise self.errors.pop(0)
        if self.last_update and self.now - self.last_update < self.limit:
            raise RateLimited("Too soon.", blocks=self.limit - (self.now - self.last_update))
        self.calls.append(dict(zip(uids, weights, strict=True)))
        self.last_update = self.now
        if self.lose:
            self.lose = False
            raise ChainUnreachable("The answer is lost.")
        return WeightsReceipt("plain", netuid, tuple(uids), tuple(weights), version_key, self.now)


def _runner(database, chain, home, clock=None) -> EpochRunner:
    return EpochRunner(
        database, chain, VALIDATOR, EMISSION_PROFILES["gas"], clock or ManualClock(NOW), netuid=1, home=home,
        endpoint="local",
    )  # fmt: skip


def _tick(runner: EpochRunner, chain: _Chain, block: int):
    chain.now = block
    return asyncio.run(runner.tick(block))


def _state(database: Database) -> tuple:
    with database.read() as session:
        scores = {row.hotkey: row.value for row in session.scalars(select(ScoreRow))}
        logs = [row.weights for row in session.scalars(select(WeightsLogRow))]
    return scores, logs


def _two_generators(database: Database) -> None:
    with database.write() as session:
        for number in range(4):
            _challenge(session, "a", number)
            _challenge(session, "b", number, "verified" if number % 2 else "refused")


def test_an_epoch_is_reckoned_once_and_set_once(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    runner = _runner(database, chain, tmp_path)
    first = _tick(runner, chain, 100)
    assert (first.new, first.published, len(chain.calls)) == (True, True, 1)
    before = _state(database)
    for block in range(101, 110):
        again = _tick(_runner(database, chain, tmp_path), chain, block)
        assert (again.new, again.published, again.receipt) == (False, True, None)
    assert (_state(database), len(chain.calls)) == (before, 1)
    later = _tick(runner, chain, 110)
    assert (later.epoch, later.new, later.published, len(chain.calls)) == (110, True, True, 2)
    assert len(_state(database)[1]) == 2
    logged = last_reckoning(database, 1)
    assert logged is not None
    assert logged.epoch == 110
    _multiplies_out(logged)


@pytest.mark.parametrize("after", [False, True], ids=["before_commit", "after_commit"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_kill_between_any_two_writes_neither_doubles_nor_loses_an_epoch(
    database: Database, tmp_path: Path, at: int, after: bool
) -> None:
    _two_generators(database)
    untouched = _Chain("a", "b")
    _tick(_runner(database, untouched, tmp_path), untouched, 100)
    expected = _state(database)
    _clear(database)
    _two_generators(database)
    chain = _Chain("a", "b")
    with pytest.raises(Killed):
        _tick(_runner(Deadly(database, at, after), chain, tmp_path), chain, 100)
    for block in (101, 102):
        outcome = _tick(_runner(database, chain, tmp_path), chain, block)
    assert outcome.published
    scores, logs = _state(database)
    assert scores == pytest.approx(expected[0])
    assert len(logs) == len(chain.calls) == 1
    assert chain.calls == untouched.calls


def test_a_kill_during_the_extrinsic_sets_the_same_weights_again(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    chain.errors = [Killed()]
    with pytest.raises(Killed):
        _tick(_runner(database, chain, tmp_path), chain, 100)
    before = _state(database)
    assert _tick(_runner(database, chain, tmp_path), chain, 101).published
    assert _state(database) == before


def test_a_failed_extrinsic_is_tried_again_at_the_next_block_and_the_scores_stay(
    database: Database, tmp_path: Path
) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    chain.errors = [ChainUnreachable("No answer."), NoPermit("No."), RateLimited("Too soon.", blocks=3)]
    runner = _runner(database, chain, tmp_path)
    codes = [_tick(runner, chain, block).error for block in (100, 101, 102)]
    assert codes == ["chain_unreachable", "no_permit", "rate_limited"]
    before = _state(database)
    assert not _tick(runner, chain, 104).published
    assert _tick(runner, chain, 105).published
    assert (_state(database), len(chain.calls)) == (before, 1)


def test_weights_whose_answer_was_lost_are_not_set_twice(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    chain.lose = True
    runner = _runner(database, chain, tmp_path)
    assert _tick(runner, chain, 100).error == "chain_unreachable"
    outcome = _tick(runner, chain, 101)
    assert (outcome.published, outcome.error, len(chain.calls)) == (True, None, 1)


def test_weights_of_another_profile_in_the_same_epoch_fold_nothing_again(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    _tick(_runner(database, chain, tmp_path), chain, 100)
    scores = _state(database)[0]
    other = EpochRunner(
        database, chain, VALIDATOR, EMISSION_PROFILES["full"], ManualClock(NOW), netuid=1, home=tmp_path,
        endpoint="local",
    )  # fmt: skip
    chain.limit = 10
    chain.now = 105
    with pytest.raises(RateLimited):
        asyncio.run(other.set_now(105))
    assert _state(database)[0] == scores
    found = last_reckoning(database, 1)
    assert found is not None
    assert (found.profile, found.epoch) == ("full", 100)
    _multiplies_out(found)


def test_a_preview_keeps_nothing(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")
    found = asyncio.run(_runner(database, chain, tmp_path).preview(100))
    assert found.weights[2] > found.weights[3] > 0
    assert _state(database) == ({}, [])


def test_two_runners_at_once_reckon_one_epoch(database: Database, tmp_path: Path) -> None:
    _two_generators(database)
    chain = _Chain("a", "b")

    async def both() -> None:
        chain.now = 100
        await asyncio.gather(*(_runner(database, chain, tmp_path).tick(100) for _ in range(3)))

    asyncio.run(both())
    scores, logs = _state(database)
    assert len(logs) == len(chain.calls) == 1
    assert scores["a"] == pytest.approx(last_reckoning(database, 1).generators[0].reward * 0.02)
