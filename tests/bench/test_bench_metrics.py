"""Scores, rates and judgements from the records of a run."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gas.bench.batches import Pass
from gas.bench.engine import evaluate
from gas.bench.metrics import compute_metrics, judgements
from gas.bench.summary import detector_scores, worst_pictures
from gas.errors import ConfigurationError
from gas.types import Provenance, SampleStatus


@pytest.fixture
def play(bench):
    """Run a model double on a round; returns the run and its round."""

    def run(model=bench.honest, count=80, media=None, robustness=5, **parameters):
        round_ = bench.round(count, **parameters)
        config = bench.config(robustness_per_dataset=robustness)
        return evaluate(bench.spec, round_, media or bench.Media(), bench.Sandbox(model), config), round_

    return run


def wrong_on(bench, *numbers):
    def model(batch):
        logits = bench.honest(batch)
        turned = np.isin(bench.numbers_of(batch), numbers)
        logits[turned] = -logits[turned]
        return logits

    return model


def test_the_final_score_is_four_parts_base_and_one_part_robust(bench, play):
    def model(batch):
        logits = bench.honest(batch)
        weak = batch[:, 2, 0, 0] == 1
        logits[weak] *= 0.2
        return logits

    run, round_ = play(model)
    metrics = compute_metrics(run.records, round_)
    assert metrics.robust is not None
    assert metrics.robust.sn34_score < metrics.base.sn34_score
    assert metrics.final == pytest.approx(0.8 * metrics.base.sn34_score + 0.2 * metrics.robust.sn34_score)
    assert metrics.robust.n == 20


def test_without_a_robust_pass_the_base_decides(play):
    run, round_ = play(robustness=0)
    metrics = compute_metrics(run.records, round_)
    assert metrics.robust is None
    assert metrics.final == metrics.base.sn34_score


def test_the_rounds_parameters_decide_about_weights(bench, play):
    run, round_ = play(wrong_on(bench, 3, 7, 11), robust_weight=0.5)
    metrics = compute_metrics(run.records, round_)
    assert metrics.final == pytest.approx((metrics.base.sn34_score + metrics.robust.sn34_score) / 2)
    heavy, arena_round = play(wrong_on(bench, 3, 7, 11), shares={"public": 0.1, "holdout": 0.0, "arena": 0.9})
    assert compute_metrics(heavy.records, arena_round).base.accuracy < metrics.base.accuracy


def test_crashing_on_hard_samples_costs_more_than_answering_them_unsurely(bench, play):
    crashed, round_ = play(bench.dies_on(2, 9))

    def unsure(batch):
        logits = bench.honest(batch)
        logits[np.isin(bench.numbers_of(batch), (2, 9))] *= 0.01
        return logits

    answered, _ = play(unsure)
    assert compute_metrics(crashed.records, round_).final < compute_metrics(answered.records, round_).final
    assert compute_metrics(crashed.records, round_).model_errors["crashed"] >= 2


def test_media_errors_are_left_out_for_the_score_and_reported(bench, play):
    run, round_ = play(media=bench.Media(broken=frozenset({0, 1, 2})))
    metrics = compute_metrics(run.records, round_)
    assert metrics.media_errors == 3
    assert metrics.base.n == 77
    assert metrics.base.accuracy == 1.0


def test_a_round_of_one_class_has_no_score_but_a_reason(bench, play):
    run, round_ = play(media=bench.Media(broken=frozenset(range(1, 80, 2))))
    metrics = compute_metrics(run.records, round_)
    assert metrics.final is None
    assert "fake" in metrics.unscored


def test_rates_by_source_add_up(bench, play):
    run, round_ = play(wrong_on(bench, 4))
    metrics = compute_metrics(run.records, round_)
    assert sum(source.count for source in metrics.sources) == 80
    assert sum(source.count - source.correct for source in metrics.sources) == 1
    # Sample 4 is a photo of the set photos-4: the only group with a mistake.
    assert (metrics.base.worst_group.name, metrics.base.worst_group.rate) == ("photos-4", "tnr")


def test_the_metrics_are_json(play):
    run, round_ = play()
    shown = json.loads(json.dumps(compute_metrics(run.records, round_).as_dict(), allow_nan=False))
    assert shown["sn34_score"] > 0.8
    assert shown["base"]["n"] == 80
    assert shown["groups"]
    assert shown["unscored"] is None


def test_records_of_another_round_are_refused(bench, play):
    run, round_ = play()
    with pytest.raises(ConfigurationError):
        compute_metrics(run.records, bench.round(79))
    with pytest.raises(ConfigurationError):
        compute_metrics(run.records, bench.round(81))
    with pytest.raises(ConfigurationError):
        compute_metrics((*run.records, run.records[0]), round_)


def test_a_senseless_parameter_of_the_round_is_refused(play):
    run, round_ = play()
    with pytest.raises(ConfigurationError):
        compute_metrics(run.records, replace(round_, parameters={**round_.parameters, "alpha": "high"}))


def test_only_a_detector_that_answered_real_is_fooled_and_only_by_arena_media(bench, play):
    def model(batch):
        crash = bench.dies_on(7)(batch)
        turned = np.isin(bench.numbers_of(batch), (3, 1))
        crash[turned] = -crash[turned]
        return crash

    run, round_ = play(model, media=bench.Media(broken=frozenset({11})))
    judged = dict(judgements(run.records, round_))
    arena = {s.sample_id for s in round_.samples if s.provenance is Provenance.ARENA}
    assert set(judged) == arena - {f"{11:064x}"}
    assert judged[f"{3:064x}"] is True
    assert judged[f"{7:064x}"] is False, "a crash must not pay the generator"
    assert sum(judged.values()) == 1


def test_the_report_gets_curves_and_the_pictures_that_misled(bench, play):
    run, round_ = play(wrong_on(bench, 5, 6))
    metrics = compute_metrics(run.records, round_)
    scores = detector_scores(metrics, run.records, round_, inconsistent=1)
    assert scores.roc[0] == (0.0, 0.0)
    assert scores.roc[-1] == (1.0, 1.0)
    assert sum(b.count for b in scores.calibration) == 80
    assert (scores.sn34, scores.inconsistent, scores.model_errors) == (metrics.final, 1, 0)

    asked = []

    def pixels(sample_id):
        asked.append(int(sample_id, 16))
        return np.zeros((8, 8, 3), dtype=np.uint8)

    fooled = worst_pictures({"weak": run.records}, round_, pixels, fake=True)
    accused = worst_pictures({"weak": run.records}, round_, pixels, fake=False)
    assert asked == [5, 6]
    assert [p.kind for p in (*fooled, *accused)] == ["synthetic", "real"]
    assert fooled[0].p_fake[0][0] == "weak"
    assert fooled[0].p_fake[0][1] < 0.5 < accused[0].p_fake[0][1]


def test_pictures_on_which_a_model_crashed_are_not_shown_as_misleading(bench, play):
    run, round_ = play(bench.dies_on(5))
    assert any(r.status is SampleStatus.MODEL_ERROR and r.variant is Pass.BASE for r in run.records)
    assert worst_pictures({"a": run.records}, round_, lambda _: np.zeros((4, 4, 3), np.uint8), fake=True) == ()
