"""The score while a run goes on ends as the score of its records."""

import numpy as np
import pytest

from gas.bench.engine import evaluate
from gas.bench.metrics import compute_metrics


def test_the_running_score_ends_as_the_score(bench):
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 2, (400, 2)).astype(np.float32)

    def unsure(batch):
        return bench.honest(batch) + noise[bench.numbers_of(batch)]

    shares = {"public": 0.5, "holdout": 0.3, "arena": 0.2}
    round_ = bench.round(120, shares=shares)
    seen = []
    run = evaluate(
        bench.spec,
        round_,
        bench.Media(broken=frozenset({4, 9})),
        bench.Sandbox(unsure),
        bench.config(robustness_per_dataset=5),
        seen.append,
    )
    base = compute_metrics(run.records, round_).base
    assert seen[-1].accuracy == pytest.approx(base.accuracy, abs=0.01)
    assert seen[-1].sn34 == pytest.approx(base.sn34_score, abs=0.01)
    assert 120 <= sum(samples for samples, _ in run.batch_seconds) <= seen[-1].total - 2
    assert all(seconds >= 0 for _, seconds in run.batch_seconds)
    assert any(progress.accuracy is not None for progress in seen[:-1])


def test_nobody_who_watches_costs_nothing_and_changes_nothing(bench):
    quiet = evaluate(bench.spec, bench.round(40), bench.Media(), bench.Sandbox(), bench.config())
    watched = evaluate(bench.spec, bench.round(40), bench.Media(), bench.Sandbox(), bench.config(), lambda _: None)
    assert quiet.records == watched.records
