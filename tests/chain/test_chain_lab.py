from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gas.chain.lab.play import History, play
from gas.chain.lab.scenario import Rules, load_scenario, shipped_scenarios
from gas.errors import ConfigurationError


@pytest.fixture(scope="module")
def played() -> dict[str, History]:
    return {name: play(load_scenario(name)) for name in shipped_scenarios()}


def test_at_least_six_scenarios_ship_and_each_says_what_it_teaches(played: dict[str, History]) -> None:
    assert len(played) >= 6
    assert all(len(history.scenario.teaches) > 100 for history in played.values())


def test_all_pay_is_paid_and_shares_sum_to_one(played: dict[str, History]) -> None:
    for history in played.values():
        assert history.pay.sum(axis=1) == pytest.approx(history.scenario.emission, abs=1e-6)
        assert history.incentive.sum(axis=1) == pytest.approx(1, abs=1e-3)
        assert history.dividends.sum(axis=1) == pytest.approx(1, abs=1e-3)


def test_the_same_scenario_gives_the_same_history_and_another_seed_another() -> None:
    scenario = load_scenario("honest")
    again, other = play(scenario), play(scenario.model_copy(update={"seed": 99}))
    assert np.array_equal(play(scenario).pay, again.pay)
    assert not np.array_equal(other.pay, again.pay)


def test_honest_validators_earn_alike_and_miners_by_quality(played: dict[str, History]) -> None:
    history = played["honest"]
    assert all(abs(y.mean() - 1) < 0.02 for y in history.yields().values())
    incentive = history.by_group(history.incentive)
    assert incentive["good"][:28].mean() / 4 > incentive["fair"][:28].mean() / 6 > incentive["poor"][:28].mean() / 6
    assert incentive["good"][32:].mean() < 0.7 * incentive["good"][:28].mean()


def test_a_lazy_validator_loses_only_while_it_repeats_the_past(played: dict[str, History]) -> None:
    lazy = played["lazy"].yields()["lazy"]
    assert lazy[5:11].min() > 0.97
    assert lazy[13:30].max() < 0.7
    assert lazy[34:41].min() > 0.97


def test_a_copier_lives_well_in_the_open_and_badly_behind_commit_and_reveal(played: dict[str, History]) -> None:
    open_, hidden = (played[name].yields()["copier"][2:].mean() for name in ("copier", "copier-commit-reveal"))
    assert open_ > 0.97
    assert hidden < 0.8


def test_a_self_vote_pays_neither_the_miner_nor_the_validator(played: dict[str, History]) -> None:
    history = played["self-vote"]
    assert history.by_group(history.incentive)["own"].max() < 0.02
    assert history.yields()["selfish"].max() < 0.05


def test_a_cartel_needs_the_majority(played: dict[str, History]) -> None:
    history = played["cartel"]
    friends, yields = history.by_group(history.incentive)["friends"], history.yields()
    assert friends[:39].max() < 0.05
    assert friends[41:].min() > 0.5
    assert yields["cartel"][:39].max() < 0.5 < 1.2 < yields["cartel"][-1]


def test_names_pay_until_validators_compare_answers(played: dict[str, History]) -> None:
    def together(history: History) -> float:
        incentive = history.by_group(history.incentive)
        return float((incentive["original"] + incentive["sybils"]).mean())

    one = together(played["sybils"]) / 11
    assert together(played["sybils"]) > 8 * one
    assert together(played["sybils-found"]) < 0.15


def test_a_cartel_above_kappa_is_clipped_when_kappa_is_raised() -> None:
    scenario = load_scenario("cartel").model_copy(update={"rules": Rules(kappa=45_000)})
    history = play(scenario)
    assert history.by_group(history.incentive)["friends"][41:].max() < 0.1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("epochs: 60\n", "epochs: 0\n"),
        ("strategy: copy}", "strategy: steal}"),
        ("name: copier, ", "name: honest, "),
        ("group: first, quality: 0.3}", "group: copier, quality: 0.3}"),
        ("title: ", "titel: "),
        ("strategy: copy}", "strategy: self-vote}"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_place(tmp_path: Path, change: str, named: str) -> None:
    from importlib import resources

    text = resources.files("gas.chain.lab").joinpath("scenarios", "copier.yaml").read_text(encoding="utf-8")
    text = text.replace("epochs: 80\n", "epochs: 60\n")
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    load_scenario(str(file))
    assert change in text
    file.write_text(text.replace(change, named, 1), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"mine\.yaml"):
        load_scenario(str(file))


def test_a_missing_scenario_names_the_way_to_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        load_scenario(str(tmp_path / "none.yaml"))
    assert "--list" in (error.value.hint or "")


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "title: 2026-13-45", "!!python/object/apply:os.getcwd []", "title: [", "{[1]: 2}"]
)
def test_what_is_no_yaml_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"mine\.yaml is not valid YAML"):
        load_scenario(str(tmp_path / "mine.yaml"))
