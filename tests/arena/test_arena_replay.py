"""What a replay compares."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import ClassVar

import pytest
from arena_fakes import SIGNER, outcome

from gas.arena.evaluation import BenchEvaluator, _engine
from gas.arena.ports import RunOutcome, RunTask
from gas.arena.receipts import BadReceipt, Receipt, sign_receipt, verify_receipt
from gas.arena.replay import compare_metrics, replay
from gas.bench.runs import RunConfig
from gas.clock import ManualClock
from gas.sandbox.base import Limits
from gas.types import Modality


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


class Noting(BenchEvaluator):
    """Notes what it is asked, and how it is set up."""

    asked: ClassVar[list[tuple[RunTask, RunConfig]]] = []

    def __call__(self, task: RunTask) -> RunOutcome:
        self.asked.append((task, self.config))
        return outcome(0.9)


@pytest.mark.parametrize("told", [True, False])
def test_a_replay_gives_the_model_what_the_run_gave_it(tmp_path: Path, told: bool) -> None:
    package = tmp_path / "model.zip"
    package.write_bytes(b"zip")
    limits = Limits(memory_bytes=12 * 2**30, batch_seconds=300.0)
    config = RunConfig(nonce="n" * 16, batch_size=4, limits=limits)
    engine = _engine("n" * 16, config, RunTask("r", package, Modality.IMAGE, "full", "0" * 64, 36_000.0))
    if not told:
        # As older receipts are.
        engine = {"nonce": engine["nonce"], "batch_size": engine["batch_size"]}
    body = {
        "run_id": "r",
        "round": {"plan_sha256": "0" * 64, "modality": "image"},
        "model": {"sha256": hashlib.sha256(b"zip").hexdigest()},
        "metrics": dict(outcome(0.9).metrics),
        "engine": engine,
    }
    receipt = verify_receipt(json.loads(json.dumps(sign_receipt(body, SIGNER))))
    own = RunConfig(nonce="0" * 16)
    evaluator = Noting(None, None, None, own, tmp_path, tmp_path, ManualClock())  # type: ignore[arg-type]
    assert replay(receipt, package, evaluator).differences == ()
    task, used = Noting.asked.pop()
    assert (task.limits, task.seconds) == ((limits, 36_000.0) if told else (None, 5 * 3600))
    assert used.batch_size == 4


@pytest.mark.parametrize("limits", [{"memory_bytes": -1}, {"memory_bytes": "all"}, {"cheese": 1}, [1], 7])
def test_limits_that_make_no_sense_are_refused(limits: object) -> None:
    body = {
        "round": {"plan_sha256": "0" * 64, "modality": "image"},
        "model": {"sha256": "1" * 64},
        "metrics": {},
        "engine": {"nonce": "n", "batch_size": 4, "limits": limits},
    }
    with pytest.raises(BadReceipt) as bad:
        replay(Receipt(body, "5Someone"), Path("none.zip"), None)  # type: ignore[arg-type]
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
