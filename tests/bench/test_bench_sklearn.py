"""Every figure that a run reports equals scikit-learn's on random data, with and without weights, to 1e-12."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from gas.bench.batches import Pass
from gas.bench.metrics import compute_metrics
from gas.bench.records import SampleRecord
from gas.datasets.plan import freeze_round
from gas.scoring.curves import reliability_curve, roc_curve
from gas.scoring.detection import evaluate_detection, sample_weights
from gas.scoring.multiclass import multiclass_mcc
from gas.types import MediaType, Modality, Provenance, Sample, SampleStatus

EXACT = {"abs": 1e-12, "rel": 1e-12}


def near(value):
    return pytest.approx(value, **EXACT)


@st.composite
def runs(draw):
    """Labels of both classes, probabilities with and without ties, decisions that needn't follow them, weights."""
    n = draw(st.integers(4, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, 2, n)
    y[:2] = [0, 1]
    p = np.clip(rng.random(n) * 0.8 + 0.2 * y * rng.random(n), 1e-5, 1 - 1e-5)
    if draw(st.booleans()):
        p = np.clip(np.round(p, 2), 0.01, 0.99)
    d = (p > 0.5).astype(int)
    if draw(st.booleans()):
        d = np.where(rng.random(n) < 0.2, 1 - d, d)
    w = {"none": None, "real": rng.gamma(1.0, size=n) + 0.01, "whole": rng.integers(1, 9, n).astype(float)}
    return y, p, d, w[draw(st.sampled_from(["none", "real", "whole"]))]


def crossing(fpr, tpr):
    """Where FPR and FNR cross on scikit-learn's curve, by linear interpolation."""
    gap = fpr + tpr - 1
    after = int(np.argmax(gap >= 0))
    low, high = gap[after - 1], gap[after]
    return fpr[after - 1] + (fpr[after] - fpr[after - 1]) * -low / (high - low)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_every_metric_of_a_pass_equals_scikit_learn_s(run):
    y, p, d, w = run
    found = evaluate_detection(y, p, d, w, resamples=2)
    fpr, tpr, _ = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    assert found.accuracy == near(sk.accuracy_score(y, d, sample_weight=w))
    assert found.balanced_accuracy == near(sk.balanced_accuracy_score(y, d, sample_weight=w))
    assert found.mcc == near(sk.matthews_corrcoef(y, d, sample_weight=w))
    assert found.brier == near(sk.brier_score_loss(y, p, sample_weight=w))
    assert found.log_loss == near(sk.log_loss(y, p, sample_weight=w))
    assert found.roc_auc == near(sk.roc_auc_score(y, p, sample_weight=w))
    assert found.average_precision == near(sk.average_precision_score(y, p, sample_weight=w))
    assert found.eer == near(crossing(fpr, tpr))
    assert found.tpr_at_fpr_01 == near(tpr[fpr <= 0.01 + 1e-12].max())
    assert found.tpr_at_fpr_05 == near(tpr[fpr <= 0.05 + 1e-12].max())
    normal = np.clip((found.mcc + 1) / 2, 0, 1) ** 1.2 * (max(0.0, 0.25 - found.brier) / 0.25) ** 1.8
    assert found.sn34_score == near(normal**0.5)


@given(runs())
@settings(max_examples=15, deadline=None)
def test_the_curves_of_the_report_equal_scikit_learn_s(run):
    y, p, _, w = run
    curve = roc_curve(y, p, w)
    fpr, tpr, thresholds = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    assert (curve.fpr, curve.tpr, curve.thresholds[1:]) == (near(fpr), near(tpr), near(thresholds[1:]))
    det_fpr, det_fnr, det_thresholds = sk.det_curve(y, p, sample_weight=w)
    ours = {float(t): (f, 1 - r) for f, r, t in zip(curve.fpr, curve.tpr, curve.thresholds, strict=True)}
    for t, f, m in zip(det_thresholds, det_fpr, det_fnr, strict=True):
        if np.isfinite(t):
            assert ours[float(t)] == (near(f), near(m))
    # Values on the edge of a bin belong to different bins for the two; moved off it they must agree.
    inside = p + 1e-7
    bins = reliability_curve(y, inside)
    observed, predicted = calibration_curve(y, inside, n_bins=15)
    assert (bins.observed, bins.predicted) == (near(observed), near(predicted))


@given(runs())
@settings(max_examples=15, deadline=None)
def test_rates_of_a_group_are_scikit_learn_s_recalls_of_that_group(run):
    y, p, d, w = run
    names = [f"set-{k % 3}" for k in range(len(y))]
    found = evaluate_detection(y, p, d, w, groups={"dataset": names}, resamples=2)
    for group in found.groups:
        mine = np.array([name == group.name for name in names])
        weights = None if w is None else w[mine]
        for label, rate in ((1, group.tpr), (0, group.tnr)):
            if rate is None:
                assert not (y[mine] == label).any()
            else:
                assert rate == near(sk.recall_score(y[mine], d[mine], pos_label=label, sample_weight=weights))


@given(st.integers(0, 2**32), st.integers(3, 200))
@settings(max_examples=15, deadline=None)
def test_the_correlation_of_three_classes_equals_scikit_learn_s(seed, count):
    rng = np.random.default_rng(seed)
    truth, said = rng.integers(0, 3, (2, count))
    assert multiclass_mcc(truth, said) == near(sk.matthews_corrcoef(truth, said))


@given(st.integers(0, 2**32), st.integers(8, 120))
@settings(max_examples=12, deadline=None)
def test_a_run_s_records_come_to_the_same_figures_with_the_shares_as_weights(seed, count):
    rng = np.random.default_rng(seed)
    samples, records = [], []
    for k in range(count):
        name, fake = f"{k:064x}", k % 2 == 1
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        provenance = [Provenance.PUBLIC, Provenance.HOLDOUT, Provenance.ARENA][int(rng.integers(3))]
        samples.append(Sample(name, Modality.IMAGE, kind, provenance, f"set-{k % 4}", f"source-{k % 5}", name))
        p, called = float(np.clip(rng.random(), 1e-5, 1 - 1e-5)), bool(rng.random() < 0.6)
        records.append(SampleRecord(name, Pass.BASE, SampleStatus.OK, p, int(called), called, (0.0, 0.0)))
    shares = {"public": 0.5, "holdout": 0.3, "arena": 0.2}
    metrics = compute_metrics(records, freeze_round(samples, 3, {"shares": shares}, code_version="test"))
    y = [int(s.media_type.is_fake) for s in samples]
    d, p = [int(r.fake) for r in records], [r.p_fake for r in records]
    w = sample_weights([s.provenance for s in samples], shares)
    base, decisions = metrics.base, metrics.decisions
    assert base.accuracy == near(sk.accuracy_score(y, d, sample_weight=w))
    assert base.mcc == near(sk.matthews_corrcoef(y, d, sample_weight=w))
    assert base.brier == near(sk.brier_score_loss(y, p, sample_weight=w))
    assert base.log_loss == near(sk.log_loss(y, p, sample_weight=w))
    assert base.roc_auc == near(sk.roc_auc_score(y, p, sample_weight=w))
    tn, fp, fn, tp = sk.confusion_matrix(y, d, sample_weight=w).ravel()
    assert (decisions.tp, decisions.fp, decisions.fn, decisions.tn) == (near(tp), near(fp), near(fn), near(tn))
    for rate, value in (
        (decisions.precision, sk.precision_score(y, d, sample_weight=w, zero_division=np.nan)),
        (decisions.recall, sk.recall_score(y, d, sample_weight=w)),
        (decisions.specificity, sk.recall_score(y, d, pos_label=0, sample_weight=w)),
        (decisions.f1, sk.f1_score(y, d, sample_weight=w)),
    ):
        assert rate is None if np.isnan(value) else rate == near(value)
