import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from gas.errors import ConfigurationError
from gas.scoring.generators import (
    ModalityTally,
    PaidMedium,
    PriceTable,
    base_reward,
    default_prices,
    draw_tier,
    fool_bonus,
    fool_rate,
    generator_reward,
    image_tier,
    price_multiplier,
    sample_size_factor,
    video_tier,
    volume,
)
from gas.scoring.multiclass import (
    NO_ANSWER,
    LiveAnswer,
    LivePolicy,
    live_answer,
    live_reward,
    live_skill,
    multiclass_mcc,
)
from gas.scoring.segmentation import evaluate_masks, score_mask, segmenter_reward
from gas.scoring.serving import (
    StressPass,
    StressResult,
    check_count,
    concurrency_factor,
    frame_similarity,
    next_concurrency,
    serving_weight,
    similarity_factor,
    step_indices,
    success_factor,
    summarise_passes,
)
from gas.scoring.weights import (
    EMISSION_PROFILES,
    EmissionProfile,
    MinerClass,
    RoundEntry,
    network_weights,
    round_winner,
    update_scores,
)
from gas.types import Modality

IMAGE, VIDEO, AUDIO = Modality.IMAGE, Modality.VIDEO, Modality.AUDIO

# --- Section 4: live detectors ---


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=50))
def test_multiclass_mcc_equals_scikit_learns(pairs):
    # scikit-learn warns when there is one class in all; R_K is 0 there.
    pairs = [(0, 1), *pairs]
    truth, predicted = zip(*pairs, strict=True)
    assert multiclass_mcc(truth, predicted) == pytest.approx(sk.matthews_corrcoef(truth, predicted), abs=1e-9)


def answers(predicted):
    return [LiveAnswer(fake=p != 0, predicted=p) for p in predicted]


def test_perfect_live_detector_earns_everything():
    truth = [0, 1, 2] * 5
    skill = live_skill(truth, answers(truth))
    assert skill == pytest.approx(1.0)
    assert live_reward({IMAGE: skill, VIDEO: skill}) == pytest.approx(1.0)
    assert live_reward({IMAGE: skill}) == pytest.approx(0.6)


def test_binary_answers_earn_the_binary_part_only():
    truth = [0, 1, 2] * 5
    assert live_skill(truth, [LiveAnswer(fake=t != 0) for t in truth]) == pytest.approx(0.5)


def test_mixing_up_the_fakes_costs_the_three_class_part_only():
    truth = [0, 0, 1, 1, 2, 2]
    mixed = [0, 0, 2, 2, 1, 1]
    expected = 0.5 + 0.5 * max(0.0, sk.matthews_corrcoef(truth, mixed))
    assert live_skill(truth, answers(mixed)) == pytest.approx(expected)


def test_silence_is_a_wrong_answer():
    truth = [0, 1, 2] * 10
    full = live_skill(truth, answers(truth))
    silent = live_skill(truth, [*answers(truth)[:-6], *[NO_ANSWER] * 6])
    wrong = live_skill(truth, [*answers(truth)[:-6], *answers([1, 0, 0, 1, 0, 0])])
    assert silent == pytest.approx(wrong) and silent < full


def test_below_five_answers_there_is_no_skill():
    assert live_skill([0, 1, 2, 0], answers([0, 1, 2, 0])) == 0.0
    assert live_skill([0, 1, 2, 0, 1], [*answers([0, 1, 2, 0]), NO_ANSWER]) == 0.0
    assert live_skill([0, 1, 2, 0, 1], answers([0, 1, 2, 0, 1])) == pytest.approx(1.0)


def test_only_the_last_two_hundred_count():
    truth = [0, 1, 2, 0] * 100
    late = live_skill(truth, [*answers([1, 0, 0, 1] * 50), *answers(truth[200:])])
    assert late == pytest.approx(1.0)


def test_worse_than_chance_is_worth_nothing():
    assert live_skill([0, 1] * 5, answers([1, 0] * 5)) == 0.0


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.7], LiveAnswer(True)),
        ([0.5], LiveAnswer(False)),
        ([0.2, 0.8], LiveAnswer(True)),
        ([0.33, 0.33, 0.33], LiveAnswer(False, 0)),
        ([0.1, 0.3, 0.5], LiveAnswer(True, 2)),
        ([], NO_ANSWER),
        ([0.1] * 4, NO_ANSWER),
        ([float("nan"), 0.1, 0.1], NO_ANSWER),
        ([1.1], NO_ANSWER),
        ([-0.1, 0.5, 0.6], NO_ANSWER),
        ([0.0, 0.0, 0.0], NO_ANSWER),
    ],
)
def test_probabilities_become_answers(probabilities, expected):
    assert live_answer(probabilities) == expected


@pytest.mark.parametrize(
    "change",
    [{"binary_weight": 0.6}, {"modality_shares": {IMAGE: 0.5}}, {"modality_shares": {}}, {"window": 0},
     {"binary_weight": 1.5, "multiclass_weight": -0.5}],
)  # fmt: skip
def test_policy_that_does_not_add_up_is_refused(change):
    with pytest.raises(ConfigurationError):
        LivePolicy(**change)


# --- Section 5: segmenters ---


def test_iou_by_hand():
    truth = np.array([[1, 1], [0, 0]])
    assert score_mask([[0.9, 0.2], [0.8, 0.0]], truth).iou == pytest.approx(1 / 3)
    assert score_mask([[0.9, 0.2], [0.8, 0.0]], truth).pixel_f1 == pytest.approx(0.5)
    assert score_mask(truth, truth).iou == 1.0


def test_two_empty_masks_agree_and_an_authentic_image_has_no_f1():
    score = score_mask(np.full((2, 2), 0.4), np.zeros((2, 2)))
    assert (score.iou, score.pixel_f1, score.pixel_auc) == (1.0, None, None)
    accused = score_mask(np.ones((2, 2)), np.zeros((2, 2)))
    assert (accused.iou, accused.pixel_f1) == (0.0, None)


@pytest.mark.parametrize(
    "mask",
    [np.zeros((2, 3)), np.full((2, 2), np.nan), np.full((2, 2), 1.1), np.full((2, 2), -0.1), [[1], [1, 2]], 3, "x"],
)
def test_bad_mask_scores_zero_with_a_reason(mask):
    score = score_mask(mask, np.eye(2))
    assert score.iou == 0.0 and score.pixel_f1 == 0.0 and score.refused


def test_pixel_auc_uses_the_unthresholded_mask():
    truth = np.array([[1, 1, 0, 0]])
    score = score_mask([[0.4, 0.3, 0.2, 0.1]], truth)
    assert (score.iou, score.pixel_auc) == (0.0, 1.0)


def test_means_leave_out_what_is_not_defined():
    scores = [
        score_mask(np.eye(2), np.eye(2)),
        score_mask(np.zeros((2, 2)), np.zeros((2, 2))),
        score_mask(5, np.eye(2)),
    ]
    found = evaluate_masks(scores)
    assert (found.n, found.refused) == (3, 1)
    assert found.iou == pytest.approx(2 / 3) and found.pixel_f1 == pytest.approx(0.5) and found.pixel_auc == 1.0
    assert evaluate_masks([]).iou is None


def test_segmenter_is_paid_the_mean_of_the_last_two_hundred():
    assert segmenter_reward([0.0] * 100 + [0.5] * 200) == pytest.approx(0.5)
    assert segmenter_reward([]) == 0.0


# --- Section 6: history and weights ---


def test_history_moves_by_two_percent_and_only_for_the_challenged():
    values = update_scores([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], [True, False, True], [False, False, True])
    assert values == pytest.approx([0.51, 0.5, 0.02])
    assert update_scores([0.5], [1.0], [False], [True]) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("profile", "shares"),
    [
        ("gas", {"image": 0.40, "video": 0.40, "audio": 0.04, "generator": 0.16, "burn": 0}),
        ("live", {"segmenter": 0.10, "detector": 0.90}),
        ("serving", {"serving": 1}),
        ("full", {"image": 0.28, "video": 0.24, "audio": 0.08, "generator": 0.16, "segmenter": 0.06, "detector": 0.08,
                  "serving": 0.10, "burn": 0}),
    ],
)  # fmt: skip
def test_profiles_of_the_table(profile, shares):
    found = {str(key): value for key, value in EMISSION_PROFILES[profile].shares.items()}
    assert found == shares
    assert math.fsum(found.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("table", [{"image": 0.9}, {"image": 1.2, "video": -0.2}, {"pictures": 1.0}, {}])
def test_profile_that_does_not_add_up_is_refused(table):
    with pytest.raises(ConfigurationError):
        EmissionProfile.from_table("mine", table)


def test_weights_are_normalised_within_a_class_and_scaled_by_its_share():
    weights = network_weights(
        {
            MinerClass.IMAGE: {1: 0.93},
            MinerClass.VIDEO: {1: 0.5},
            MinerClass.AUDIO: {2: 0.1},
            MinerClass.GENERATOR: {3: 30.0, 4: 10.0, 5: 0.0},
        },
        EMISSION_PROFILES["gas"],
        owner_uid=0,
    )
    assert weights == pytest.approx({1: 0.8, 2: 0.04, 3: 0.12, 4: 0.04})


def test_share_with_nobody_to_pay_is_burned():
    weights = network_weights({MinerClass.IMAGE: {1: 0.9}}, EMISSION_PROFILES["gas"], owner_uid=7)
    assert weights == pytest.approx({1: 0.4, 7: 0.6})
    assert network_weights({}, EMISSION_PROFILES["full"], owner_uid=7) == pytest.approx({7: 1.0})
    nobody = {MinerClass.SERVING: {3: 0.0}}
    assert network_weights(nobody, EMISSION_PROFILES["serving"], owner_uid=7) == {7: 1.0}


@given(
    st.dictionaries(
        st.sampled_from(list(MinerClass)),
        st.dictionaries(st.integers(0, 255), st.floats(0, 1e308), max_size=6),
        max_size=8,
    ),
    st.sampled_from(sorted(EMISSION_PROFILES)),
)
def test_weights_always_sum_to_one(rewards, profile):
    weights = network_weights(rewards, EMISSION_PROFILES[profile], owner_uid=0)
    assert math.fsum(weights.values()) == pytest.approx(1.0, abs=1e-9)
    assert all(weight > 0 for weight in weights.values())


@pytest.mark.parametrize("reward", [-1.0, float("nan"), float("inf")])
def test_impossible_reward_stops_the_weights(reward):
    with pytest.raises(ValueError, match="generator"):
        network_weights({MinerClass.GENERATOR: {1: reward}}, EMISSION_PROFILES["gas"], owner_uid=0)


def entry(uid, score, block=0):
    return RoundEntry(uid=uid, score=score, committed_at=block)


def test_best_score_takes_all_and_the_earlier_commitment_wins_a_tie():
    assert round_winner([entry(1, 0.8, 5), entry(2, 0.9, 9), entry(3, 0.9, 7), entry(4, None, 1)]).uid == 3
    assert round_winner([entry(4, None)]) is None
    assert round_winner([]) is None


def test_champion_is_displaced_only_beyond_the_margin():
    champion = entry(1, 0.9, 50)
    assert round_winner([entry(2, 0.901, 1)], champion).uid == 1
    assert round_winner([entry(2, 0.9011, 1)], champion).uid == 2
    assert round_winner([entry(2, 0.5)], champion).uid == 1
    assert round_winner([], champion) == champion
    assert round_winner([entry(2, 0.905)], champion, margin=0.01).uid == 1


def test_unscored_champion_defends_nothing():
    assert round_winner([entry(2, 0.1)], entry(1, None)).uid == 2


# --- Section 7: generators ---


@pytest.mark.parametrize(("n", "v"), [(0, 0), (1, 1), (5, 5), (10, 10), (25, 14), (73, 16)])
def test_volume_of_the_table(n, v):
    assert volume(n) == pytest.approx(v)


@pytest.mark.parametrize(("c", "s"), [(0, 0.5), (5, 0.5), (10, 0.5), (15, 0.75), (20, 1), (40, 1.6931), (1000, 2)])
def test_sample_size_factor_of_the_table(c, s):
    assert sample_size_factor(c) == pytest.approx(s, abs=5e-5)


@pytest.mark.parametrize(
    ("rate", "judged", "bonus"), [(0.5, 20, 0.5), (0.5, 40, 0.8466), (1, 100, 2), (0.2, 5, 0.1), (0, 50, 0)]
)
def test_bonus_of_the_table(rate, judged, bonus):
    fooled = round(rate * judged)
    assert fool_bonus(fooled, judged - fooled) == pytest.approx(bonus, abs=5e-5)


def test_no_bonus_without_evidence_or_for_a_silent_generator():
    assert fool_bonus(0, 0) == 0.0 and fool_rate(0, 0) is None
    assert fool_bonus(20, 0, silent=True) == 0.0


@pytest.mark.parametrize(
    ("width", "height", "tier"), [(1899, 4000, 0), (1900, 1900, 1), (3499, 9000, 1), (3500, 3500, 2), (64, 64, 0)]
)
def test_image_tiers_go_by_the_smaller_side(width, height, tier):
    assert image_tier(width, height) == image_tier(height, width) == tier


@pytest.mark.parametrize(
    ("width", "height", "tier"), [(854, 480, 0), (1280, 720, 1), (1000, 780, 1), (1920, 1080, 2), (1760, 1000, 2),
                                  (779_999, 1, 0), (1_759_999, 1, 1)]
)  # fmt: skip
def test_video_tiers_go_by_pixels(width, height, tier):
    assert video_tier(width, height) == tier


PRICES = PriceTable(
    version="test",
    baseline={IMAGE: 1.0, VIDEO: 1.0, AUDIO: 1.0},
    prices={IMAGE: (1.0, 4.0, 9.0), VIDEO: (1.0, 4.0, 16.0), AUDIO: (1.0,)},
)


@pytest.mark.parametrize(
    ("requested", "delivered", "multiplier"),
    [(0, 0, 1.0), (1, 1, 2.0), (2, 2, 3.0), (2, 1, 2 * 0.6), (2, 0, 0.36), (1, 0, 0.6), (0, 2, 1.0), (1, 2, 2.0)],
)
def test_the_smaller_tier_is_paid_and_a_shortfall_costs(requested, delivered, multiplier):
    assert price_multiplier([PaidMedium(requested, delivered)], IMAGE, PRICES) == pytest.approx(multiplier)


def test_multiplier_is_a_mean_over_media():
    assert price_multiplier([PaidMedium(0, 0), PaidMedium(1, 1)], IMAGE, PRICES) == pytest.approx(1.5)
    assert price_multiplier([], IMAGE, PRICES) == 1.0


def test_delivering_less_than_asked_never_pays_more():
    for table in (PRICES, default_prices()):
        for modality in (IMAGE, VIDEO):
            for requested in range(3):
                paid = [price_multiplier([PaidMedium(requested, d)], modality, table) for d in range(3)]
                assert paid == sorted(paid)


def test_reward_by_hand():
    tally = ModalityTally(verified=(PaidMedium(0, 0),) * 25, refused=25)
    assert base_reward(tally, IMAGE, PRICES) == pytest.approx(0.5 * 14)
    found = generator_reward(
        {IMAGE: tally, VIDEO: ModalityTally(verified=(PaidMedium(1, 1),) * 5)},
        {IMAGE: 0.5, VIDEO: 0.5},
        PRICES,
        fooled=20,
        not_fooled=20,
    )
    assert found.base == pytest.approx({IMAGE: 7.0, VIDEO: 10.0})
    assert found.reward == pytest.approx(8.5 * 1.8466, abs=1e-3)
    assert found.fool_rate == 0.5


def test_generator_with_nothing_verified_earns_nothing():
    found = generator_reward({IMAGE: ModalityTally(refused=9)}, {IMAGE: 1.0}, PRICES, fooled=100, not_fooled=0)
    assert found.reward == 0.0
    with pytest.raises(ConfigurationError):
        generator_reward({}, {IMAGE: 0.9}, PRICES, fooled=0, not_fooled=0)


def test_shipped_prices_are_complete_and_versioned():
    table = default_prices()
    assert table.version and table.relative(IMAGE, 0) == 1.0
    with pytest.raises(ConfigurationError):
        PriceTable(version="x", baseline=table.baseline, prices={**table.prices, IMAGE: (1.0, 0.0, 1.0)})
    with pytest.raises(ConfigurationError):
        PriceTable(version="x", baseline={IMAGE: 1.0}, prices=table.prices)


def test_requested_tiers_are_drawn_four_four_two():
    rng = np.random.default_rng(0)
    counts = np.bincount([draw_tier(rng, IMAGE) for _ in range(5000)]) / 5000
    assert counts == pytest.approx([0.4, 0.4, 0.2], abs=0.03)
    assert draw_tier(rng, AUDIO) == 0


# --- Section 8: serving ---


def test_serving_factors_by_hand():
    # 128 generations a minute with a patience of a minute are the reference.
    assert concurrency_factor(128, 60.0) == pytest.approx(1.0)
    assert concurrency_factor(256, 60.0) == pytest.approx(2**1.125)
    assert concurrency_factor(0, 60.0) == 0.0
    assert similarity_factor(0.5) == pytest.approx(0.5**8)
    assert success_factor(0.1) == pytest.approx(0.81)


def test_serving_weight_by_hand():
    result = StressResult(completed=128, seconds=60.0, error_rate=0.1, passes=2)
    assert serving_weight(result, 1.0, served=100, unserved=10) == pytest.approx(0.81 + 0.01 - 0.008)
    assert serving_weight(result, 0.0, unserved=1000) == 0.0
    assert serving_weight(result, 1.0, cheated=True) == 0.0
    assert serving_weight(StressResult(0, 60.0, 1.0, 1), 1.0, served=1000) == 0.0


def stress(concurrency, completed, slowest=1.0, seconds=10.0):
    return StressPass(concurrency, completed, concurrency - completed, seconds, slowest)


def test_ramp_doubles_until_errors_or_slowness():
    assert next_concurrency([]) == 4
    assert next_concurrency([stress(4, 4)]) == 8
    assert next_concurrency([stress(4, 4), stress(8, 6)]) is None
    assert next_concurrency([stress(8, 7)]) == 16
    assert next_concurrency([stress(4, 4, slowest=30.1)]) is None
    assert next_concurrency([stress(4, 4, slowest=30.0)]) == 8


def test_a_slow_pass_does_not_count_unless_it_is_the_first():
    passes = [stress(4, 4), stress(8, 8), stress(16, 12, slowest=31.0)]
    assert summarise_passes(passes) == StressResult(12, 20.0, 0.0, 2)
    assert summarise_passes([stress(4, 2, slowest=31.0)]) == StressResult(2, 10.0, 0.5, 1)
    assert summarise_passes([]) == StressResult(0, 0, 1.0, 0)


def test_checks_are_one_in_sixteen_and_at_least_one():
    assert [check_count(n) for n in (0, 1, 16, 31, 32, 160)] == [0, 1, 1, 1, 2, 10]


def test_three_distinct_steps_are_checked():
    drawn = step_indices(np.random.default_rng(0), 20)
    assert len(set(drawn)) == 3 and drawn == sorted(drawn) and drawn[0] >= 0 and drawn[-1] < 20
    assert step_indices(np.random.default_rng(0), 2) == [0, 1]
    assert step_indices(np.random.default_rng(0), 0) == []


def test_similarity_is_the_worst_frames():
    a = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert frame_similarity(a, a) == pytest.approx(1.0)
    assert frame_similarity(a * 1e300, a) == pytest.approx(1.0)
    assert frame_similarity(a, [[1.0, 0.0], [1.0, 0.0]]) == pytest.approx(0.5)
    assert frame_similarity(a, -a) == 0.0


@pytest.mark.parametrize(
    "returned", [np.zeros((1, 2)), np.zeros((2, 3)), [[np.nan, 0.0], [0.0, 1.0]], np.zeros((0, 2)), np.float64(1.0)]
)
def test_wrong_frames_have_no_similarity(returned):
    assert frame_similarity(returned, np.eye(2)) == 0.0


def test_frames_of_zeros_resemble_only_zeros():
    assert frame_similarity(np.zeros((1, 2)), np.ones((1, 2))) == 0.5
    assert frame_similarity(np.zeros((1, 2)), np.zeros((1, 2))) == 1.0
