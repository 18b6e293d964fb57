"""What a replay compares."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from gas.arena.receipts import BadReceipt, Receipt
from gas.arena.replay import compare_metrics, replay


def test_equal_metrics_have_no_difference_and_each_other_one_is_named() -> None:
    signed = {"accuracy": 0.5, "base": {"mcc": 0.1, "sn34_ci95": [0.1, 0.2]}, "groups": [{"name": "a", "n": 3}]}
    assert compare_metrics(signed, signed) == ()
    found = {"accuracy": 0.5, "base": {"mcc": 0.25, "sn34_ci95": [0.1, 0.3]}, "groups": [{"name": "b", "n": 3}]}
    differences = {one.metric: one.size for one in compare_metrics(signed, found)}
    assert differences == {
        "base.mcc": pytest.approx(0.15),
        "base.sn34_ci95[1]": pytest.approx(0.1),
        "groups[0].name": math.inf,
    }


def test_a_metric_that_is_missing_on_one_side_is_a_difference() -> None:
    assert [one.metric for one in compare_metrics({"a": None}, {"b": None})] == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"round": 1},
        {"round": {"plan_sha256": "x", "modality": "smell"}, "model": {"sha256": "y"}, "metrics": {}, "engine": {}},
    ],
)
def test_a_receipt_that_does_not_say_enough_is_refused(tmp_path: Path, body: dict[str, object]) -> None:
    with pytest.raises(BadReceipt) as bad:
        replay(Receipt(body, "5Someone"), tmp_path / "none.zip", None)  # type: ignore[arg-type]
    assert bad.value.error_code == "format"


def test_another_package_than_the_receipts_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "other.zip"
    package.write_bytes(b"other")
    body = {
        "round": {"plan_sha256": "0" * 64, "modality": "image"},
        "model": {"sha256": "1" * 64},
        "metrics": {},
        "engine": {"nonce": "n", "batch_size": 4},
    }
    with pytest.raises(BadReceipt) as bad:
        replay(Receipt(body, "5Someone"), package, None)  # type: ignore[arg-type]
    assert bad.value.error_code == "package"
