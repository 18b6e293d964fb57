import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from gas.scoring.curves import (
    average_precision,
    expected_calibration_error,
    reliability_curve,
    roc_auc,
    roc_curve,
)


@st.composite
def runs(draw):
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, 2, n)
    y[:2] = [0, 1]
    return y, np.round(rng.random(n), draw(st.sampled_from([1, 2, 16]))), rng.integers(0, 4, n) + (np.arange(n) < 2)


@given(runs())
@settings(max_examples=50, deadline=None)
def test_roc_equals_scikit_learns(run):
    y, s, w = run
    curve = roc_curve(y, s, w)
    fpr, tpr, thresholds = sk.roc_curve(y[w > 0], s[w > 0], sample_weight=w[w > 0], drop_intermediate=False)
    assert curve.fpr == pytest.approx(fpr) and curve.tpr == pytest.approx(tpr)
    assert curve.thresholds[1:] == pytest.approx(thresholds[1:])
    assert curve.area == pytest.approx(sk.roc_auc_score(y, s, sample_weight=w))


@given(runs())
@settings(max_examples=50, deadline=None)
def test_average_precision_equals_scikit_learns(run):
    y, s, w = run
    assert average_precision(y, s, w) == pytest.approx(sk.average_precision_score(y, s, sample_weight=w))


@given(runs())
@settings(max_examples=50, deadline=None)
def test_equal_error_rate_lies_on_the_interpolated_roc(run):
    y, s, w = run
    curve = roc_curve(y, s, w)
    eer = curve.equal_error_rate
    assert 0.0 <= eer <= 1.0
    # The point (eer, 1 - eer) lies on the polyline of the ROC, on a vertical piece too.
    on_piece = [
        min(x0, x1) - 1e-9 <= eer <= max(x0, x1) + 1e-9
        and abs((x1 - x0) * ((1 - eer) - y0) - (y1 - y0) * (eer - x0)) < 1e-9
        for x0, x1, y0, y1 in zip(curve.fpr, curve.fpr[1:], curve.tpr, curve.tpr[1:], strict=False)
    ]
    assert any(on_piece)


@pytest.mark.parametrize(
    ("labels", "scores", "eer"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], 0.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.8, 0.9], 1.0),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], 0.5),
        # FPR 1/2 at TPR 1/2: the curve passes through the crossing itself.
        ([0, 1, 0, 1], [0.9, 0.8, 0.1, 0.2], 0.5),
        # By hand: from (0, 1/3) straight to (1/2, 1); 1/3 + 4/3 x = 1 - x at x = 2/7.
        ([1, 1, 1, 0, 0], [0.9, 0.5, 0.5, 0.5, 0.1], 2 / 7),
    ],
)
def test_equal_error_rate_by_hand(labels, scores, eer):
    assert roc_curve(labels, scores).equal_error_rate == pytest.approx(eer)


def test_tpr_at_fpr_is_a_point_that_a_threshold_reaches():
    y = [1, 1, 1, 1] + [0] * 100
    s = [0.99, 0.9, 0.5, 0.1] + [0.95] + [0.6] * 3 + [0.3] * 96
    curve = roc_curve(y, s)
    assert curve.tpr_at_fpr(0.0) == 0.25
    assert curve.tpr_at_fpr(0.01) == 0.5
    assert curve.tpr_at_fpr(0.05) == 0.75


def test_one_class_has_no_roc_and_no_fakes_have_no_precision():
    assert roc_curve([1, 1], [0.1, 0.2]) is None
    assert roc_auc([0, 0], [0.1, 0.2]) is None
    assert roc_curve([], []) is None
    assert roc_auc([0, 1], [0.1, 0.2], [1, 0]) is None
    assert average_precision([0, 0], [0.1, 0.2]) is None
    assert average_precision([1, 1], [0.1, 0.2]) == 1.0


@given(runs())
@settings(max_examples=50, deadline=None)
def test_reliability_equals_scikit_learns_and_ece_is_its_weighted_distance(run):
    y, p, w = run
    p = np.clip(p, 0.001, 0.999) + 1e-7
    curve = reliability_curve(y, p)
    observed, predicted = calibration_curve(y, p, n_bins=15)
    assert curve.observed == pytest.approx(observed) and curve.predicted == pytest.approx(predicted)
    assert curve.share.sum() == pytest.approx(1.0)
    ece = expected_calibration_error(y, p, w)
    assert ece == pytest.approx(expected_calibration_error(np.repeat(y, w), np.repeat(p, w)))


def test_calibration_by_hand():
    # Two bins: 0.1 promised, 0 seen; 0.9 promised, 1/2 seen.
    assert expected_calibration_error([0, 0, 1, 0], [0.1, 0.1, 0.9, 0.9]) == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)
    assert expected_calibration_error([0, 1], [0.0, 1.0]) == 0.0
    assert expected_calibration_error([], []) is None


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one length"):
        roc_curve([0, 1], [0.5])
