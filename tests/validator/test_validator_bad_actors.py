"""Every way to cheat earns less than honest play: the same tasks for all, real verification, pay by the formula."""

from __future__ import annotations

import hashlib
import math
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from bad_actors import BEHAVIOURS, FLOOD, HONEST, Offer, Wish, World, draw
from rounds_ground import neuron

from gas.chain.base import Metagraph
from gas.clock import ManualClock
from gas.errors import RequestRefused
from gas.media.image import decode_image, encode_jpeg
from gas.scoring.generators import default_prices
from gas.storage.database import open_database
from gas.storage.tables import MediumRow
from gas.types import MediaType, Modality
from gas.validator.factors import GeneratorFactors
from gas.validator.offences import ALLOWED_OFFENCES, FREE_COPIES, KINDS, Offences
from gas.validator.reckoning import Since, reckon_generators
from gas.validator.tallies import DAY
from gas.validator.tasks import Challenge, Challenges
from gas.verification.base import Asked, Verdict
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.pipeline import Verifier
from gas.verification.prints import print_picture

ROUNDS = 3
TIERS = ("1K", "2K", "1K")
VALIDATORS = ("validator-one", "validator-two")
SEVERAL = ("thief", "forger", "vandal", "cutpurse")
PLAYED = {name: behaviour for name, behaviour in BEHAVIOURS.items() if name not in SEVERAL}
CHEATS = sorted(set(PLAYED) - HONEST)


@dataclass
class League:
    """Everybody is asked the same by two validators, who share a store; what came of it.

    Attributes:
        rewards: By validator and name.
        codes: Codes of refusals by name.
        ends: States of challenges by validator and name.
        refused: Codes with which the callback server turned deliveries away, by name.
    """

    rewards: dict[tuple[str, str], GeneratorFactors] = field(default_factory=dict)
    codes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ends: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    refused: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def reward(self, name: str) -> float:
        """Of both validators together."""
        return math.fsum(self.rewards[validator, name].reward for validator in VALIDATORS)


class Referee:
    """What a validator does with a delivery: takes it for a task of its own, judges it, keeps the verdict."""

    def __init__(self, folder: Path, world: World, photos: list[bytes]) -> None:
        self.clock, self.world, self.league = ManualClock(world.clock.time()), world, League()
        self.database = open_database(f"sqlite:///{folder / 'gas.db'}")
        self.books = {v: Challenges(self.database, v, self.clock) for v in VALIDATORS}
        index = MediaIndex()
        for at, photo in enumerate(photos):
            # What the service of real data does for the photos of its sets.
            shown = print_picture(decode_image(photo))
            phash = int.from_bytes(shown.upright.tobytes(), "big")
            index.add(Seen(f"{at:064x}", phash, frames=(shown,), modality=Modality.IMAGE, owner="data"))
        self.verifier = Verifier(index, world.anchors_pem)
        self.offences = {v: Offences(self.database, v, self.clock) for v in VALIDATORS}

    def take(self, validator: str, miner: str, offer: Offer) -> None:
        """One delivery."""
        if offer.endless:
            # The callback server counts bytes while they come in, and never gets to the end of these.
            self.league.refused[miner]["body_too_large"] += 1
            return
        try:
            challenge = self.books[validator].claim(miner, offer.task_id)
        except RequestRefused as refusal:
            self.league.refused[miner][refusal.error_code] += 1
            if refusal.error_code in KINDS:
                # As the callback server does with what a signature proves.
                digest = hashlib.sha256(offer.data).hexdigest()
                self.offences[validator].note(miner, offer.task_id, digest, refusal.error_code)
            return
        verdict = self.judge(validator, challenge, offer.data)
        self.league.codes[miner].update(reason.code for reason in verdict.reasons)
        if verdict.verified:
            self.world.shown.append((miner, offer.data))

    def judge(self, validator: str, challenge: Challenge, data: bytes) -> Verdict:
        """Verify, and keep it as the verification worker does."""
        asked = Asked(
            challenge.modality,
            challenge.created_at,
            challenge.deadline,
            challenge.delivered_at or 0.0,
            challenge.prompt,
            challenge.parameters,
            f"{validator}/{challenge.miner}/{challenge.task_id}",
        )
        verdict = self.verifier.judge(data, asked)
        medium = None
        if verdict.verified:
            medium = MediumRow(
                sha256=verdict.sha256, validator=validator, generator=challenge.miner, task_id=challenge.task_id,
                modality="image", media_type=MediaType.SYNTHETIC.value, width=verdict.width, height=verdict.height,
                mime="image/jpeg", issuer=verdict.issuer, verified_at=self.clock.time(),
            )  # fmt: skip
        self.books[validator].judge(challenge, verdict, medium)
        return verdict

    def play(self) -> League:
        """All rounds; those who copy come last in each."""
        late: list[tuple[str, str, Offer]] = []
        for number in range(ROUNDS):
            resolution = TIERS[number % len(TIERS)]
            parameters = {"resolution": resolution, "tier": ("1K", "2K").index(resolution)}
            for validator in VALIDATORS:
                for name, behaviour in PLAYED.items():
                    if not behaviour.listens or behaviour.min_stake:
                        # There is no task: the validator notes one of its own that failed.
                        self._record(validator, name, f"none-{number}", number, parameters)
                        continue
                    task = f"{name[:20]}-{validator}-{number}"
                    self._record(validator, name, task, number, parameters)
                    self.world.tasks.append((name, task))
                    wish = Wish(task, validator, f"prompt {number}", resolution, self.clock.time())
                    for offer in behaviour.offers(self.world, name, wish):
                        if offer.wait:
                            late.append((validator, name, offer))
                        else:
                            self.take(validator, name, offer)
        self.clock.advance(200)
        for validator, name, offer in late:
            self.take(validator, name, offer)
        self.clock.advance(60)
        names = [neuron(uid, name) for uid, name in enumerate(PLAYED)]
        graph = Metagraph(1, 1, -1, tuple(names))
        now = self.clock.time()
        for validator, book in self.books.items():
            book.expire()
            self.offences[validator].flush()
            with self.database.read() as session:
                found = reckon_generators(
                    session, graph, validator=validator, shares={Modality.IMAGE: 1.0}, prices=default_prices(),
                    now=now, since=Since(now - DAY, None), keep=False,
                )  # fmt: skip
            self.league.rewards |= {(validator, one.hotkey): one for one in found}
            self.league.ends |= {(validator, name): book.counts(name).states for name in PLAYED}
        return self.league

    def _record(self, validator: str, miner: str, task: str, number: int, parameters: dict[str, object]) -> None:
        self.books[validator].record(miner, task, Modality.IMAGE, f"prompt {number}", parameters, 120.0)


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> League:
    cv2.setNumThreads(1)
    folder = tmp_path_factory.mktemp("league")
    photos = [encode_jpeg(draw(f"a photo {at}"), 95) for at in range(ROUNDS * len(VALIDATORS))]
    referee = Referee(folder, World(folder, photos), photos)
    try:
        return referee.play()
    finally:
        referee.verifier.close()
        referee.database.close()


@pytest.mark.parametrize("validator", VALIDATORS)
def test_honest_play_is_paid_by_the_formula(league: League, validator: str) -> None:
    # Three verified of three: volume 3, pass rate 1; one of them was asked for in 2K.
    always_small = 3 * (2 * 1.0 + 1.0 * 0.6) / 3
    to_size = 3 * (2 * 1.0 + math.sqrt(2.0)) / 3
    assert league.rewards[validator, "honest"].reward == pytest.approx(always_small, rel=1e-9)
    assert league.rewards[validator, "honest-to-size"].reward == pytest.approx(to_size, rel=1e-9)
    assert league.codes["honest"] == league.codes["honest-to-size"] == Counter()


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_earns_less_than_honest_play(league: League, name: str) -> None:
    if name == "floods":
        # All of its own media are in order; what it sends besides counts as failed.
        assert league.ends[VALIDATORS[0], name] == {"verified": ROUNDS}
        vain = FLOOD * ROUNDS
        assert league.refused[name]["unknown_task"] == vain * len(VALIDATORS)
        # They carry the bytes of its deliveries, some of which might be somebody's replay.
        counted = vain - FREE_COPIES * ROUNDS
        assert league.rewards[VALIDATORS[0], name].offences == {"unknown_task": counted}
        passed = ROUNDS / (ROUNDS + counted - ALLOWED_OFFENCES)
        assert league.reward(name) == pytest.approx(passed * league.reward("honest"))
        assert league.reward(name) < 0.05 * league.reward("honest")
        return
    assert league.reward(name) < 0.85 * league.reward("honest")
    codes = BEHAVIOURS[name].codes
    refused = league.codes[name]
    if name in ("dead", "only-rich", "silent", "slow", "steals-tasks", "endless"):
        assert not refused
        assert league.reward(name) == 0.0
        assert set(league.ends[VALIDATORS[0], name]) == {"expired"}
    else:
        assert sum(refused[code] for code in codes) >= ROUNDS / 3


@pytest.mark.parametrize("name", sorted(set(CHEATS) - {"floods", "replays", "sells-twice", "upscales"}))
def test_most_cheats_earn_nothing_at_all(league: League, name: str) -> None:
    assert league.reward(name) == 0.0


def test_one_medium_for_two_validators_is_paid_once_and_costs_the_pass_rate(league: League) -> None:
    assert league.rewards[VALIDATORS[0], "sells-twice"].reward == pytest.approx(2.6)
    assert league.rewards[VALIDATORS[1], "sells-twice"].reward == 0.0
    assert league.codes["sells-twice"] == {"duplicate": ROUNDS}


def test_an_old_medium_is_paid_once(league: League) -> None:
    assert league.ends[VALIDATORS[0], "replays"] == {"verified": 1, "refused": ROUNDS - 1}
    assert league.rewards[VALIDATORS[0], "replays"].reward == pytest.approx(1 / ROUNDS)


def test_nobody_is_paid_for_a_task_of_another(league: League) -> None:
    assert set(league.refused["steals-tasks"]) <= {"unknown_task"}
    assert sum(league.refused["steals-tasks"].values()) > 0
    assert league.ends[VALIDATORS[0], "honest"] == {"verified": ROUNDS}


def test_an_enlarged_picture_is_refused_only_where_the_size_would_be_paid(league: League) -> None:
    assert league.codes["upscales"] == {"upscaled": len(VALIDATORS)}
