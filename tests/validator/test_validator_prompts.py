"""The bank of prompts, on SQLite and on a PostgreSQL server."""

import multiprocessing
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import update

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import programs, serve_postgres

from gas.clock import ManualClock, derive_rng
from gas.errors import ConfigurationError
from gas.generation.prompts.compose import Composer
from gas.generation.prompts.embedding import HashedEmbedder
from gas.generation.prompts.terms import LengthBand, Register
from gas.storage.database import open_database
from gas.storage.tables import PromptRow
from gas.types import Modality
from gas.validator.prompts import Offer, PromptBank, PromptFilter

IMAGE = PromptFilter(Modality.IMAGE)
TEXTS = [
    "a brown dog running on the beach at sunset",
    "CCTV footage of an empty parking garage at night",
    "two people arguing beside a broken-down van",
    "a plate of lentil curry on a wooden table",
    "an aerial view of a flooded village",
    "a rusty bicycle leaning on a kitchen wall",
]


@pytest.fixture(scope="module")
def postgres():
    if programs() is None:
        pytest.skip("postgresql is not installed")
    with serve_postgres() as peer:
        yield peer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'bank.db'}"
    return request.getfixturevalue("postgres").database(f"bank_{sum(map(ord, request.node.nodeid))}")


@pytest.fixture
def database(url):
    database = open_database(url)
    yield database
    database.close()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def bank(database, clock):
    return PromptBank(database, HashedEmbedder(), clock)


def fill(bank, texts=TEXTS, modality=Modality.IMAGE):
    counts = bank.add([Offer(text) for text in texts], modality)
    assert counts.taken == len(texts), counts
    return counts


def test_a_prompt_is_kept_with_all_that_is_known_of_it(bank, clock):
    bank.add([Offer("  CCTV footage of a  red door\nat night ", source="file:" + "x" * 500)], Modality.VIDEO)
    (prompt,) = bank.page()
    assert prompt.text == "CCTV footage of a red door at night"
    assert (prompt.modality, prompt.register, prompt.length) == (Modality.VIDEO, Register.CCTV, LengthBand.SHORT)
    assert prompt.source == ("file:" + "x" * 500)[:200]
    assert (prompt.created_at, prompt.times_used, prompt.last_used_at) == (clock.now, 0, None)
    assert prompt.as_dict()["register"] == "cctv"


def test_the_least_used_come_first_and_a_use_is_marked(bank, clock):
    fill(bank)
    rng = derive_rng(1)
    for turn in (1, 2):
        clock.advance(10)
        drawn = [bank.draw(rng, IMAGE) for _ in TEXTS]
        assert {prompt.text for prompt in drawn} == set(TEXTS)
        assert {prompt.times_used for prompt in drawn} == {turn}
        assert {prompt.last_used_at for prompt in drawn} == {clock.now}
    fill(bank, ["a lighthouse in thick fog seen from a ferry"])
    assert bank.draw(rng, IMAGE).text.startswith("a lighthouse")
    assert [prompt.times_used for prompt in bank.page(limit=100)] == [2] * 6 + [1]


def test_draws_among_equals_repeat_with_the_generator(bank, database):
    fill(bank)
    orders = []
    for seed in (1, 1, 2, 3):
        rng = derive_rng(seed)
        orders.append([bank.draw(rng, IMAGE).text for _ in TEXTS])
        with database.write() as session:
            session.execute(update(PromptRow).values(times_used=0))
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) >= 2


def test_only_what_is_wanted_is_drawn(bank):
    fill(bank)
    fill(bank, TEXTS[:2], Modality.VIDEO)
    rng = derive_rng(4)
    assert bank.draw(rng, PromptFilter(Modality.IMAGE, Register.CCTV)).text == TEXTS[1]
    assert bank.draw(rng, PromptFilter(Modality.VIDEO, length=LengthBand.SHORT)).modality is Modality.VIDEO
    assert bank.count(IMAGE) == 6
    assert bank.count(IMAGE, unused=True) == 5
    for wanted in (PromptFilter(Modality.AUDIO), PromptFilter(source="100%"), PromptFilter(register=Register.PODCAST)):
        with pytest.raises(ConfigurationError) as none:
            bank.draw(rng, wanted)
        assert none.value.error_code == "no_prompts"


def test_refusals_duplicates_and_near_repeats_are_counted(bank):
    fill(bank)
    offers = [
        "<b>a cat</b> on a mat",
        "A brown dog running on the beach at SUNSET",
        "A brown dog, running on the beach at sunset.",
        "a violinist tuning up backstage before a concert",
        "a violinist tuning up, backstage, before a concert!",
        "",
    ]
    counts = bank.add([Offer(text) for text in offers], Modality.IMAGE)
    assert counts.as_dict() == {
        "seen": 6,
        "taken": 1,
        "refused": {"duplicate": 1, "empty": 1, "markup": 1, "near_repeat": 2},
    }
    assert fill(bank, TEXTS[:1], Modality.AUDIO).taken == 1


def test_two_banks_on_one_database_see_each_others_prompts(bank, database, clock):
    other = PromptBank(database, HashedEmbedder(), clock)
    fill(bank, TEXTS[:3])
    assert other.add([Offer(TEXTS[0] + "!")], Modality.IMAGE).refused == Counter({"near_repeat": 1})
    fill(other, TEXTS[3:])
    assert bank.add([Offer(TEXTS[4] + "!")], Modality.IMAGE).refused == Counter({"near_repeat": 1})
    assert bank.remove([prompt.id for prompt in bank.page()][:1]) == 1
    fill(bank, TEXTS[:1])


def test_a_better_embedder_takes_over_and_a_threshold_can_be_set(bank, database, clock):
    class Other(HashedEmbedder):
        name = "other"

    fill(bank, TEXTS[:2])
    strict = PromptBank(database, Other(), clock, threshold=0.05)
    assert strict.add([Offer("a dog on the beach and a red ball")], Modality.IMAGE).refused["near_repeat"] == 1
    with database.read() as session:
        assert {row.embedder for row in session.query(PromptRow)} == {"other"}
    prompts, vectors = bank.vectors(IMAGE)
    assert [prompt.text for prompt in prompts] == TEXTS[:2]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(2), abs=1e-5)
    with pytest.raises(ConfigurationError):
        PromptBank(database, Other(), clock, threshold=0.0)


def test_the_bank_fills_itself_with_new_composed_prompts(bank):
    rng = derive_rng(7)
    counts = bank.fill(Composer(Modality.AUDIO), Modality.AUDIO, rng, 150)
    assert counts.taken == bank.count(PromptFilter(Modality.AUDIO, source="composed:lexicon")) == 150
    assert len({prompt.register for prompt in bank.page(limit=200)}) == 10
    draw = bank.drawer(Modality.AUDIO)
    assert isinstance(draw(rng), str)


def test_threads_never_get_the_same_prompt_while_another_is_less_used(bank, database, clock):
    fill(bank)
    drawn, lock = [], threading.Lock()

    def work(seed):
        rng, mine = derive_rng(seed), PromptBank(database, HashedEmbedder(), clock)
        for _ in range(3):
            text = mine.draw(rng, IMAGE).text
            with lock:
                drawn.append(text)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Counter(drawn).values()) == {2}


def _draws(url, seed, count, out):
    database = open_database(url, migrate=False)
    bank = PromptBank(database, HashedEmbedder(), ManualClock())
    rng = derive_rng(seed)
    out.put([bank.draw(rng, IMAGE).text for _ in range(count)])
    database.close()


def test_two_processes_share_a_bank_fairly(bank, url):
    bank.fill(Composer(Modality.IMAGE), Modality.IMAGE, derive_rng(8), 40)
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    workers = [context.Process(target=_draws, args=(url, 5, 20, out)) for _ in range(2)]
    for worker in workers:
        worker.start()
    drawn = out.get(timeout=120) + out.get(timeout=120)
    for worker in workers:
        worker.join()
    assert len(set(drawn)) == len(drawn) == 40
