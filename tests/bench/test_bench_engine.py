"""One model on one round: what each way to fail costs, and whom."""

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gas.bench.batches import Pass
from gas.bench.engine import evaluate
from gas.bench.records import records_sha256
from gas.errors import ConfigurationError, ModelFailed, SandboxUnavailable, StorageError
from gas.sandbox.base import Tier
from gas.types import SampleStatus


def test_every_sample_gets_exactly_one_row_for_each_pass(bench):
    samples = bench.samples(50)
    result = evaluate(
        bench.spec, bench.round(50), bench.Media(), bench.Sandbox(), bench.config(robustness_per_dataset=3)
    )
    rows = Counter((r.sample_id, r.variant) for r in result.records)
    assert set(rows.values()) == {1}
    assert {name for name, variant in rows if variant is Pass.BASE} == {s.sample_id for s in samples}
    robust = [r for r in result.records if r.variant is Pass.ROBUST]
    assert len(robust) == 12
    assert all(r.status is SampleStatus.OK and r.fake == (int(r.sample_id, 16) % 2 == 1) for r in result.records)
    assert result.records[0].p_fake == pytest.approx(1 / (1 + np.exp(4)))
    assert result.records[0].logits == (2.0, -2.0)
    assert result.tier is Tier.BUBBLEWRAP
    assert (result.restarts, result.gave_up, result.inconsistent) == (0, False, ())


def test_the_same_run_twice_gives_the_same_record_bytes(bench):
    def run(**changes):
        result = evaluate(bench.spec, bench.round(40), bench.Media(), bench.Sandbox(), bench.config(**changes))
        return records_sha256(result.records)

    assert run() == run() == run(processes=1) == run(nonce="another secret nonce")


def test_only_the_guilty_sample_counts_as_an_error_when_a_model_dies(bench):
    sandbox = bench.Sandbox(bench.dies_on(13, 21))
    result = evaluate(bench.spec, bench.round(40), bench.Media(), sandbox, bench.config(reask_least=0))
    bad = {int(r.sample_id, 16): r for r in result.records if r.status is not SampleStatus.OK}
    assert set(bad) == {13, 21}
    for record in bad.values():
        assert record.status is SampleStatus.MODEL_ERROR
        assert (record.p_fake, record.fake, record.error) == (0.0, False, "crashed")
    assert result.error_counts == {"crashed": 2}
    assert 0 < result.restarts <= 4
    assert all(session.closed for session in sandbox.sessions)


def test_a_model_that_dies_on_everything_is_given_up_and_everything_counts_as_wrong(bench):
    sandbox = bench.Sandbox(bench.dies_on(*range(200)))
    result = evaluate(bench.spec, bench.round(200), bench.Media(), sandbox, bench.config(max_restarts=5))
    assert result.gave_up
    assert result.restarts == 5
    assert len(sandbox.sessions) <= 2 + 5
    assert len(result.records) == 200
    for record in result.records:
        assert record.status is SampleStatus.MODEL_ERROR
        assert record.p_fake == 1.0 - int(record.sample_id, 16) % 2


def test_answers_that_are_not_finite_are_wrong_answers_and_cost_no_restart(bench):
    def model(batch):
        logits = bench.honest(batch)
        logits[bench.numbers_of(batch) == 4] = np.nan
        logits[bench.numbers_of(batch) == 5, 1] = np.inf
        return logits

    result = evaluate(bench.spec, bench.round(30), bench.Media(), bench.Sandbox(model), bench.config())
    bad = {int(r.sample_id, 16): (r.p_fake, r.fake) for r in result.records if r.status is SampleStatus.MODEL_ERROR}
    assert bad == {4: (1.0, True), 5: (0.0, False)}
    assert result.restarts == 0
    assert result.error_counts == {"not_finite": 2}


def test_answers_of_another_width_are_wrong_answers(bench):
    sandbox = bench.Sandbox(lambda batch: np.zeros((len(batch), 5), dtype=np.float32))
    result = evaluate(bench.spec, bench.round(20), bench.Media(), sandbox, bench.config(max_restarts=3))
    assert {r.status for r in result.records} == {SampleStatus.MODEL_ERROR}


def test_media_that_cannot_be_decoded_are_left_out_and_reported(bench):
    media = bench.Media(broken=frozenset({3, 8}))
    sandbox = bench.Sandbox()
    result = evaluate(bench.spec, bench.round(30), media, sandbox, bench.config())
    bad = {int(r.sample_id, 16): r for r in result.records if r.status is SampleStatus.MEDIA_ERROR}
    assert set(bad) == {3, 8}
    assert all(r.p_fake is None and r.fake is None for r in bad.values())
    assert not {3, 8} & {number for batch in sandbox.batches for number in batch}
    assert result.error_counts["undecodable"] == 2


def test_a_model_that_answers_its_batchs_mean_is_flagged(bench):
    def model(batch):
        mean = bench.numbers_of(batch).mean() / 100
        return np.tile(np.array([[0.0, mean]], dtype=np.float32), (len(batch), 1))

    result = evaluate(bench.spec, bench.round(100), bench.Media(), bench.Sandbox(model), bench.config())
    assert result.reasked == 4
    assert len(result.inconsistent) >= 3


def test_a_model_that_does_not_load_fails_the_run(bench):
    def load(count):
        raise ModelFailed("load_model raised an exception.", code="load_failed")

    with pytest.raises(ModelFailed) as caught:
        evaluate(bench.spec, bench.round(10), bench.Media(), bench.Sandbox(load=load), bench.config())
    assert caught.value.error_code == "load_failed"


def test_a_broken_sandbox_is_never_the_models_fault(bench):
    def model(batch):
        raise SandboxUnavailable("The sandbox broke.")

    sandbox = bench.Sandbox(model)
    with pytest.raises(SandboxUnavailable):
        evaluate(bench.spec, bench.round(100), bench.Media(), sandbox, bench.config())
    assert all(session.closed for session in sandbox.sessions)


def test_unreadable_media_fail_the_run_and_not_the_model(bench):
    class Gone:
        def fetch(self, sample_ids, target, *, robust):
            raise StorageError("The cache is gone.")

    with pytest.raises(StorageError):
        evaluate(bench.spec, bench.round(10), Gone(), bench.Sandbox(), bench.config())


def test_too_weak_an_isolation_is_refused_before_the_model_starts(bench):
    sandbox = bench.Sandbox(tier=Tier.PLAIN)
    with pytest.raises(SandboxUnavailable) as caught:
        evaluate(bench.spec, bench.round(10), bench.Media(), sandbox, bench.config())
    assert caught.value.error_code == "tier_too_low"
    assert sandbox.sessions == []
    assert evaluate(bench.spec, bench.round(10), bench.Media(), sandbox, bench.config(min_tier=Tier.PLAIN)).records


def test_a_model_for_another_modality_is_refused(bench):
    with pytest.raises(ConfigurationError) as caught:
        evaluate(
            replace(bench.spec, input_shape=(16000,), input_dtype="float32"),
            bench.round(4),
            bench.Media(),
            bench.Sandbox(),
            bench.config(),
        )
    assert caught.value.error_code == "wrong_modality"


def test_an_empty_round_is_refused(bench):
    with pytest.raises(ConfigurationError):
        evaluate(bench.spec, replace(bench.round(2), samples=()), bench.Media(), bench.Sandbox(), bench.config())


def test_progress_ends_at_the_total_and_errors_of_the_callback_reach_the_caller(bench):
    seen = []
    result = evaluate(bench.spec, bench.round(30), bench.Media(), bench.Sandbox(), bench.config(), seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 34
    assert result.timings.showings == 34
    assert result.timings.limit_samples_per_second > 0

    def stop(progress):
        raise KeyboardInterrupt

    sandbox = bench.Sandbox()
    with pytest.raises(KeyboardInterrupt):
        evaluate(bench.spec, bench.round(30), bench.Media(), sandbox, bench.config(), stop)
    assert all(session.closed for session in sandbox.sessions)


def test_no_thread_outlives_a_run(bench):
    before = threading.active_count()
    evaluate(bench.spec, bench.round(30), bench.Media(), bench.Sandbox(), bench.config())
    assert threading.active_count() == before


def test_the_model_sees_shuffled_batches_that_say_nothing(bench):
    sandbox = bench.Sandbox()
    evaluate(bench.spec, bench.round(80), bench.Media(), sandbox, bench.config(processes=1))
    flat = [number for batch in sandbox.batches for number in batch]
    assert flat != sorted(flat)
    assert len({len(batch) for batch in sandbox.batches}) <= 2


@pytest.mark.parametrize("changes", [{"batch_size": 0}, {"processes": 0}, {"nonce": "short"}, {"reask_share": 2.0}])
def test_a_senseless_configuration_is_refused(bench, changes):
    with pytest.raises(ConfigurationError):
        bench.config(**changes)


def test_logits_that_nobody_has_named_are_refused_before_the_model_starts(bench):
    wide = replace(bench.spec, num_classes=4)
    sandbox = bench.Sandbox()
    with pytest.raises(ModelFailed) as caught:
        evaluate(wide, bench.round(10), bench.Media(), sandbox, bench.config())
    assert caught.value.error_code == "bad_output"
    assert sandbox.sessions == []


def test_the_packages_own_order_of_classes_is_followed(bench):
    turned = bench.Sandbox(lambda batch: bench.honest(batch)[:, ::-1])
    config = bench.config()
    result = evaluate(bench.spec, bench.round(20), bench.Media(), turned, config, classes=("synthetic", "real"))
    assert all(r.fake == (int(r.sample_id, 16) % 2 == 1) for r in result.records)
