import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from gas.errors import ConfigurationError, ModelFailed
from gas.scoring.detection import (
    answers_from_logits,
    bootstrap_sn34,
    brier,
    evaluate_detection,
    final_score,
    mcc,
    sample_weights,
    sn34_score,
    with_failures,
)

JSON_KEYS = [
    "n",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "brier",
    "log_loss",
    "roc_auc",
    "average_precision",
    "eer",
    "ece",
    "tpr_at_fpr_01",
    "tpr_at_fpr_05",
    "sn34_score",
    "sn34_ci95",
]


@st.composite
def runs(draw, min_size=2):
    """Labels with both classes, probabilities with ties, integer weights."""
    n = draw(st.integers(min_size, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = rng.integers(0, 2, n)
    y[:2] = [0, 1]
    p = np.clip(rng.random(n) * 0.7 + 0.3 * y, 0.01, 0.99)
    if draw(st.booleans()):
        p = np.round(p, 1)
    return y, p, rng.integers(1, 6, n)


# --- Section 1: from logits to probabilities ---


def test_one_logit_is_the_sigmoid_of_fake():
    answers = answers_from_logits([[0.0], [2.0], [-2.0], [1000.0], [-1000.0]])
    assert answers.p_fake == pytest.approx([0.5, 0.880797, 0.119203, 1.0, 0.0], abs=1e-6)
    assert answers.fake.tolist() == [False, True, False, True, False]
    assert answers.predicted is None


def test_two_logits_are_real_and_synthetic():
    answers = answers_from_logits([[1.0, 3.0], [3.0, 1.0], [1.0, 1.0]])
    assert answers.p_fake == pytest.approx([0.880797, 0.119203, 0.5], abs=1e-6)
    assert answers.fake.tolist() == [True, False, False]
    assert answers.predicted is None


def test_three_logits_are_fake_unless_real_is_the_largest():
    # The second row is real with 0.4 against 0.3 and 0.3: p_fake is 0.6 and the decision is real all the same.
    logits = np.log([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.1, 0.3, 0.6]])
    answers = answers_from_logits(logits)
    assert answers.p_fake == pytest.approx([0.8, 0.6, 0.9])
    assert answers.fake.tolist() == [True, False, True]
    assert answers.predicted.tolist() == [1, 0, 2]


def test_older_class_order_is_followed_when_the_submission_says_so():
    logits = np.log([[0.2, 0.5, 0.3]])
    answers = answers_from_logits(logits, ("real", "semisynthetic", "synthetic"))
    assert answers.p_fake == pytest.approx([0.8])
    assert answers.predicted.tolist() == [2]


def test_another_width_needs_every_class_named():
    with pytest.raises(ModelFailed) as refusal:
        answers_from_logits(np.zeros((2, 4)))
    assert refusal.value.error_code == "bad_output"
    answers = answers_from_logits(np.log([[0.1, 0.2, 0.4, 0.3]]), ("gan", "real", "diffusion", "semisynthetic"))
    assert answers.p_fake == pytest.approx([0.8])
    assert answers.predicted.tolist() == [1]


@pytest.mark.parametrize("classes", [("real",), ("real", "real"), ("a", "b"), ("real", "a", "b")])
def test_class_names_that_do_not_fit_are_refused(classes):
    with pytest.raises(ModelFailed):
        answers_from_logits(np.zeros((1, 2)), classes)


def test_logits_of_another_rank_are_refused():
    with pytest.raises(ModelFailed):
        answers_from_logits(np.zeros(3))


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_failed_sample_is_a_wrong_one_for_sure(width, bad):
    logits = np.zeros((4, width))
    logits[:2, 0] = bad
    answers = with_failures(answers_from_logits(logits), [0, 2, 0, 1], [False, False, True, True])
    assert answers.p_fake.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert answers.fake.tolist() == [True, False, True, False]
    if width == 3:
        assert answers.predicted.tolist() == [1, 0, 1, 0]


def test_a_model_can_not_gain_by_failing():
    y = np.array([1, 1, 1, 0, 0, 0])
    logits = np.array([[0, 2.0], [0, 1.0], [0, -0.5], [2.0, 0], [1.0, 0], [0.2, 0]])
    honest = answers_from_logits(logits)
    for sample in range(6):
        failed = np.arange(6) == sample
        cheating = with_failures(honest, y, failed)
        assert sn34_score(y, cheating.p_fake, cheating.fake).value < sn34_score(y, honest.p_fake, honest.fake).value


# --- Section 2: the score ---


@pytest.mark.parametrize(
    ("labels", "p_fake", "expected_mcc", "expected_brier", "expected"),
    [
        ([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1], 1.0, 0.025, 0.9095),
        ([1, 0, 1, 0], [0.6, 0.4, 0.4, 0.6], 0.0, 0.26, 0.0),
        ([1, 1, 1, 0, 0, 0], [0.9, 0.7, 0.4, 0.3, 0.2, 0.1], 0.7071, 0.1, 0.5742),
        # By hand: always one half is uninformed, whatever the decisions; certain and right is 1 up to the clipping.
        ([1, 0], [0.5, 0.5], 0.0, 0.25, 0.0),
        ([1, 0], [1.0, 0.0], 1.0, 0.0, 1.0),
        ([1, 0], [0.0, 1.0], -1.0, 1.0, 0.0),
    ],
)
def test_scores_of_the_table(labels, p_fake, expected_mcc, expected_brier, expected):
    score = sn34_score(labels, p_fake)
    assert score.mcc == pytest.approx(expected_mcc, abs=5e-5)
    assert score.brier == pytest.approx(expected_brier, abs=1e-6)
    assert score.value == pytest.approx(expected, abs=5e-5)
    assert score.unscored is None


@given(runs())
@settings(max_examples=40, deadline=None)
def test_mcc_and_brier_equal_scikit_learns(run):
    y, p, w = run
    decisions = p > 0.5
    assert mcc(y, decisions, w) == pytest.approx(sk.matthews_corrcoef(y, decisions, sample_weight=w), abs=1e-9)
    assert brier(y, p, w) == pytest.approx(sk.brier_score_loss(y, p, sample_weight=w), abs=1e-9)


def test_mcc_is_zero_when_a_margin_is_empty():
    assert mcc([0, 1], [1, 1]) == 0.0
    assert mcc([1, 1], [0, 1]) == 0.0
    assert mcc([], []) == 0.0


def test_brier_of_no_sample_is_a_quarter_and_certainty_is_clipped():
    assert brier([], []) == 0.25
    assert brier([1], [1.0]) == pytest.approx(1e-14)


@given(runs(), st.sampled_from([1e-300, 1e-9, 3.7, 1e9, 1e290]))
@settings(max_examples=40, deadline=None)
def test_scaling_all_weights_changes_nothing(run, factor):
    y, p, w = run
    one, other = sn34_score(y, p, weights=w), sn34_score(y, p, weights=w * factor)
    assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-12)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_a_weight_counts_exactly_as_so_many_copies_in_every_metric(run):
    y, p, w = run
    weighted = evaluate_detection(y, p, weights=w, resamples=2).as_dict()
    copied = evaluate_detection(np.repeat(y, w), np.repeat(p, w), resamples=2).as_dict()
    for key in JSON_KEYS:
        if key not in ("n", "sn34_ci95"):
            assert weighted[key] == pytest.approx(copied[key], rel=1e-9, abs=1e-12), key


@given(runs())
@settings(max_examples=40, deadline=None)
def test_score_lies_in_the_unit_interval_and_is_blind_to_order(run):
    y, p, w = run
    value = sn34_score(y, p, weights=w).value
    assert 0.0 <= value <= 1.0
    assert sn34_score(y[::-1], p[::-1], weights=w[::-1]).value == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "weights", "word"),
    [([], [], "no sample"), ([1, 1], [1, 1], "no real"), ([0], [1], "no fake"), ([0, 1], [0, 0], "weight"),
     ([0, 1], [1, 0], "no fake")],
)  # fmt: skip
def test_a_run_that_can_not_be_scored_says_why_and_has_no_number(labels, weights, word):
    score = sn34_score(labels, [0.5] * len(labels), weights=weights)
    assert score.value is None
    assert word in score.unscored


def test_alpha_and_beta_are_parameters():
    y, p = [1, 1, 1, 0, 0, 0], [0.9, 0.7, 0.4, 0.3, 0.2, 0.1]
    assert sn34_score(y, p, alpha=2.0, beta=0.0).value == pytest.approx((1 + 0.70711) / 2, abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "p_fake", "weights"),
    [([0, 2], [0.1, 0.2], None), ([0, 1], [0.1], None), ([0, 1], [np.nan, 0.5], None), ([0, 1], [0.1, 0.2], [-1, 1])],
)
def test_nonsense_is_refused(labels, p_fake, weights):
    with pytest.raises(ValueError, match="must"):
        sn34_score(labels, p_fake, weights=weights)


# --- Section 3: composition ---


def test_provenance_weights_follow_the_shares_with_mean_one():
    provenances = ["public"] * 6 + ["holdout"] * 3 + ["arena"]
    weights = sample_weights(provenances, {"public": 0.5, "holdout": 0.3, "arena": 0.2})
    assert weights.mean() == pytest.approx(1.0)
    assert [weights[:6].sum(), weights[6:9].sum(), weights[9]] == pytest.approx([5.0, 3.0, 2.0])


def test_shares_are_renormalised_over_the_classes_present():
    weights = sample_weights(["public", "public", "arena"], {"public": 0.6, "holdout": 0.2, "arena": 0.2})
    assert weights == pytest.approx([1.125, 1.125, 0.75])


def test_without_shares_every_sample_weighs_one():
    assert sample_weights(["public", "arena"]).tolist() == [1.0, 1.0]
    assert sample_weights([], {"public": 1.0}).size == 0


@pytest.mark.parametrize(
    "shares", [{"public": 0.5}, {"public": 1.5, "arena": -0.5}, {"arena": 1.0}, {"public": 0.0, "arena": 1.0}]
)
def test_shares_that_can_not_be_are_refused(shares):
    with pytest.raises(ConfigurationError):
        sample_weights(["public"], shares)


def test_final_score_mixes_base_and_robust():
    assert final_score(0.9, 0.5) == pytest.approx(0.82)
    assert final_score(0.9, 0.5, weight=0.0) == 0.9
    assert final_score(None, 0.5) is None and final_score(0.5, None) is None
    with pytest.raises(ConfigurationError):
        final_score(0.9, 0.5, weight=1.1)


@given(runs())
@settings(max_examples=40, deadline=None)
def test_metrics_equal_scikit_learns(run):
    y, p, w = run
    found = evaluate_detection(y, p, weights=w, resamples=2)
    d = p > 0.5
    assert found.accuracy == pytest.approx(sk.accuracy_score(y, d, sample_weight=w))
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(y, d, sample_weight=w))
    assert found.log_loss == pytest.approx(sk.log_loss(y, np.clip(p, 1e-7, 1 - 1e-7), sample_weight=w))
    assert found.roc_auc == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w))
    assert found.average_precision == pytest.approx(sk.average_precision_score(y, p, sample_weight=w))


def test_json_has_exactly_the_promised_keys():
    scored = evaluate_detection([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.4]).as_dict()
    assert list(scored) == JSON_KEYS
    assert len(scored["sn34_ci95"]) == 2


def test_what_one_class_does_not_define_is_null_with_the_reason():
    found = evaluate_detection([1, 1], [0.9, 0.2]).as_dict()
    assert list(found) == [*JSON_KEYS, "unscored"]
    undefined = {key for key in JSON_KEYS if found[key] is None}
    assert undefined == {
        "balanced_accuracy", "roc_auc", "eer", "tpr_at_fpr_01", "tpr_at_fpr_05", "sn34_score", "sn34_ci95",
    }  # fmt: skip
    assert "real" in found["unscored"] and found["accuracy"] == 0.5


def test_no_sample_at_all_is_all_null():
    found = evaluate_detection([], []).as_dict()
    assert found["n"] == 0 and all(found[key] is None for key in JSON_KEYS[1:])
    assert found["unscored"]


def test_interval_is_deterministic_by_seed_and_holds_the_score():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 300)
    p = np.clip(0.5 + (y - 0.5) * 0.5 + rng.normal(0, 0.2, 300), 0, 1)
    one, again, other = (bootstrap_sn34(y, p, seed=s) for s in (1, 1, 2))
    assert one == again and one != other
    assert one.low < sn34_score(y, p).value < one.high
    assert one.used == 1000 and one.skipped == 0 and one.clusters == 300


def test_clustered_samples_widen_the_interval():
    rng = np.random.default_rng(2)
    source = np.repeat(np.arange(20), 30)
    y = source % 2
    # All samples of a source are about equally hard.
    p = np.clip(0.5 + (y - 0.5) * 0.6 + rng.normal(0, 0.3, 20)[source], 0, 1)
    alone = bootstrap_sn34(y, p)
    clustered = bootstrap_sn34(y, p, sources=[f"s{s}" for s in source])
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_interval_equals_a_plain_loop_over_copies_of_the_samples():
    rng = np.random.default_rng(3)
    y, p, source = rng.integers(0, 2, 60), rng.random(60), np.arange(60) // 6
    found = bootstrap_sn34(y, p, sources=[f"{s}" for s in source], seed=5, resamples=400)
    scores = []
    for _ in range(1500):
        index = np.concatenate([np.flatnonzero(source == s) for s in rng.integers(0, 10, 10)])
        scores.append(sn34_score(y[index], p[index]).value)
    low, high = np.percentile([s for s in scores if s is not None], [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_resamples_without_both_classes_are_left_out_and_counted():
    found = bootstrap_sn34([0, 1, 1], [0.1, 0.9, 0.8], sources=["a", "b", "b"], resamples=500)
    # Two sources of one class each: half of the draws take one of them twice.
    assert 200 < found.skipped < 300
    assert found.used + found.skipped == 500
    assert found.bounds is not None


def test_one_source_gives_no_interval_instead_of_a_false_one():
    assert bootstrap_sn34([0, 1], [0.1, 0.9], sources=["a", "a"]).bounds is None
    assert bootstrap_sn34([1, 1], [0.1, 0.9]).bounds is None


def test_groups_have_their_rates_and_the_worst_is_named():
    found = evaluate_detection(
        [0, 0, 1, 1, 1],
        [0.1, 0.7, 0.9, 0.2, 0.3],
        weights=[1, 3, 1, 1, 2],
        groups={"dataset": ["photos", "photos", "a", "a", "b"], "generator": [None, None, "x", "x", "x"]},
    )
    rates = {(g.kind, g.name): (g.tpr, g.tnr, g.n) for g in found.groups}
    assert rates == {
        ("dataset", "a"): (0.5, None, 2),
        ("dataset", "b"): (0.0, None, 1),
        ("dataset", "photos"): (None, 0.25, 2),
        ("generator", "x"): (0.25, None, 3),
    }
    assert (found.worst_group.name, found.worst_group.rate, found.worst_group.value) == ("b", "tpr", 0.0)


def test_groups_and_sources_of_another_length_are_refused():
    with pytest.raises(ValueError, match="sources"):
        evaluate_detection([0, 1], [0.1, 0.9], sources=["a"])
    with pytest.raises(ValueError, match="groups"):
        evaluate_detection([0, 1], [0.1, 0.9], groups={"dataset": ["a"]})
    with pytest.raises(ValueError, match="Probabilities"):
        evaluate_detection([0, 1], [0.1, 1.9])


@given(runs(min_size=4))
def test_improving_a_sample_never_lowers_the_score(run):
    y, p, w = run
    decisions = p > 0.5
    wrong = np.flatnonzero(decisions != y)
    assume(wrong.size)
    better = p.copy()
    better[wrong[0]] = y[wrong[0]]
    assert sn34_score(y, better, weights=w).value >= sn34_score(y, p, weights=w).value
