"""The order in which a model sees the samples."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.bench.batches import Ask, Pass, choose_reasked, choose_robust, plan_batches
from gas.types import MediaType, Modality, Provenance, Sample


def sample(number: int, dataset: str = "photos", media_type: MediaType = MediaType.REAL) -> Sample:
    name = f"{number:064x}"
    return Sample(name, Modality.IMAGE, media_type, Provenance.PUBLIC, dataset, dataset, name)


@given(
    count=st.integers(0, 120),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
    share=st.floats(0, 0.3),
    robust=st.sets(st.integers(0, 119)),
)
def test_every_showing_is_planned_exactly_once_and_no_twins_meet(count, batch_size, seed, share, robust):
    robust = sorted(i for i in robust if i < count)
    reasked = choose_reasked(count, share=share, least=min(2, count), seed=seed, nonce="n")
    batches = plan_batches(count, robust=robust, reasked=reasked, batch_size=batch_size, seed=seed, nonce="n")
    flat = [ask for batch in batches for ask in batch]
    expected = (
        [Ask(i, Pass.BASE) for i in range(count)]
        + [Ask(i, Pass.ROBUST) for i in robust]
        + [Ask(i, Pass.BASE, again=True) for i in reasked]
    )
    assert Counter(flat) == Counter(expected)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert not batches or max(map(len, batches)) - min(map(len, batches)) <= 1
    for batch in batches:
        base = [ask.index for ask in batch if ask.variant is Pass.BASE]
        assert len(base) == len(set(base))


def test_same_seed_and_nonce_give_the_same_order_and_another_nonce_another():
    def plan(seed: int, nonce: str):
        return plan_batches(100, batch_size=8, seed=seed, nonce=nonce)

    assert plan(1, "a") == plan(1, "a")
    assert plan(1, "a") != plan(1, "b")
    assert plan(1, "a") != plan(2, "a")


def test_batches_mix_classes_and_data_sets():
    # The first half of the round is real photos of one set, the second fakes of another.
    batches = plan_batches(200, batch_size=20, seed=5, nonce="x")
    for batch in batches:
        fakes = sum(ask.index >= 100 for ask in batch)
        assert 2 <= fakes <= 18
    assert len({sum(ask.index >= 100 for ask in batch) for batch in batches}) > 1, (
        "the share of fakes must not be fixed"
    )


def test_robust_samples_are_drawn_per_data_set_and_do_not_depend_on_the_order_of_the_round():
    samples = [sample(i, "a") for i in range(30)] + [sample(100 + i, "b") for i in range(3)]
    chosen = choose_robust(samples, per_dataset=5, seed=9)
    assert Counter(samples[i].dataset for i in chosen) == {"a": 5, "b": 3}
    turned = samples[::-1]
    again = choose_robust(turned, per_dataset=5, seed=9)
    assert {samples[i].sample_id for i in chosen} == {turned[i].sample_id for i in again}
    assert choose_robust(samples, per_dataset=0, seed=9) == ()


def test_a_few_samples_are_always_asked_twice():
    assert len(choose_reasked(1000, share=0.01, least=4, seed=1, nonce="n")) == 10
    assert len(choose_reasked(50, share=0.01, least=4, seed=1, nonce="n")) == 4
    assert choose_reasked(2, share=0.01, least=4, seed=1, nonce="n") == (0, 1)


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        plan_batches(3, batch_size=0, seed=1, nonce="n")
