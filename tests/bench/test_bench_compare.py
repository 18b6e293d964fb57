"""Two runs on one round: the same samples, the same draws."""

from dataclasses import replace

import numpy as np
import pytest

from gas.bench.batches import Pass
from gas.bench.comparison import compare
from gas.bench.engine import evaluate
from gas.bench.metrics import clusters_of
from gas.bench.records import SampleRecord
from gas.datasets.plan import freeze_round
from gas.errors import ConfigurationError
from gas.scoring.bootstrap import bootstrap_sn34, paired_difference
from gas.scoring.sn34 import sn34_score
from gas.types import SampleStatus


def records(bench, count, model=None):
    return evaluate(
        bench.spec, bench.round(count), bench.Media(), bench.Sandbox(model or bench.honest), bench.config()
    ).records


def wrong_on(bench, share, seed=0):
    wrong = np.random.default_rng(seed).random(400) < share

    def model(batch):
        logits = bench.honest(batch)
        flip = wrong[bench.numbers_of(batch)]
        logits[flip] = logits[flip][:, ::-1]
        return logits

    return model


def test_the_better_run_is_named_and_the_figures_are_the_scores(bench):
    good, bad = records(bench, 200, wrong_on(bench, 0.05)), records(bench, 200, wrong_on(bench, 0.4, seed=1))
    found = compare(good, bad, bench.round(200))
    assert found.verdict == "first"
    assert found.base.first == pytest.approx(found.first_final)
    assert found.base.second == pytest.approx(found.second_final)
    assert 0 < found.base.low < found.base.difference < found.base.high
    assert found.base.better == 1.0
    other = compare(bad, good, bench.round(200))
    assert other.verdict == "second"
    assert other.base.difference == pytest.approx(-found.base.difference)
    assert (other.only_first, other.only_second) == (found.only_second, found.only_first)


def test_a_run_against_itself_is_undecided(bench):
    run = records(bench, 60, wrong_on(bench, 0.2))
    found = compare(run, run, bench.round(60))
    assert found.verdict == "undecided"
    assert (found.base.difference, found.base.low, found.base.high, found.base.better) == (0, 0, 0, 0.5)
    assert (found.only_first, found.only_second) == (0, 0)


def test_pairing_is_sharper_than_two_intervals():
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 600)
    sources = [f"s{k % 30}" for k in range(600)]
    hard = rng.random(30)[np.arange(600) % 30] < 0.4
    p_one = np.where(hard, 0.5 + 0.2 * rng.standard_normal(600), np.where(y, 0.9, 0.1)).clip(0.01, 0.99)
    p_two = (p_one + np.where(y, -0.03, 0.03)).clip(0.01, 0.99)
    found = paired_difference(y, (p_one, p_one > 0.5), (p_two, p_two > 0.5), sources=sources)
    alone = [bootstrap_sn34(y, p, sources=sources).bounds for p in (p_one, p_two)]
    assert found.sure
    assert alone[0][0] < alone[1][1]
    assert found.first == pytest.approx(sn34_score(y, p_one).value)


def test_one_class_or_one_source_gives_no_verdict():
    assert paired_difference([1, 1], ([0.9, 0.9], [1, 1]), ([0.1, 0.2], [0, 0])) is None
    one = paired_difference([1, 0], ([0.9, 0.1], [1, 0]), ([0.6, 0.4], [1, 0]), sources=["a", "a"])
    assert one.difference > 0
    assert not one.sure
    assert one.better is None


def test_runs_of_another_round_are_refused(bench):
    with pytest.raises(ConfigurationError):
        compare(records(bench, 30), records(bench, 40), bench.round(30))


def test_with_too_few_sources_originals_are_drawn_so_that_luck_is_not_taken_for_certainty(bench):
    samples = bench.samples(40)
    assert clusters_of(samples, 5) == ([s.source for s in samples], "source")
    two = [replace(s, source="real" if k % 2 == 0 else "fake") for k, s in enumerate(samples)]
    names, what = clusters_of(two)
    assert what == "original"
    assert names == [s.origin for s in two]
    assert clusters_of([replace(s, source=f"{k % 4}") for k, s in enumerate(samples)])[1] == "source"
    round_ = freeze_round(two, 7, {}, code_version="test")

    def run(*wrong):
        rows = []
        for k, s in enumerate(round_.samples):
            fake = s.media_type.is_fake != (k in wrong)
            rows.append(
                SampleRecord(s.sample_id, Pass.BASE, SampleStatus.OK, 0.8 if fake else 0.2, 0, fake, (0.0, 0.0))
            )
        return rows

    close = compare(run(1, 2, 3), run(4, 5, 6, 7), round_)
    assert close.clustered_by == "original"
    assert close.verdict == "undecided"
    assert 0.0 < close.base.better < 1.0
    assert compare(run(), run(*range(16)), round_).verdict == "first"
