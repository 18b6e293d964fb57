"""A receipt's run done again: the same package, round, order and company, and what comes out beside what was signed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gas.arena.evaluation import BenchEvaluator
from gas.arena.ports import RunTask
from gas.arena.receipts import BadReceipt, Receipt
from gas.arena.submissions import file_sha256
from gas.sandbox.base import DEFAULT_LIMITS, Limits
from gas.types import Modality

__all__ = ["Difference", "Replayed", "compare_metrics", "replay", "run_limits"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric that came out otherwise.

    Attributes:
        metric: Path through the metrics, e.g. ``base.accuracy``.
        signed: What the receipt says.
        found: What the replay says.
    """

    metric: str
    signed: object
    found: object

    @property
    def size(self) -> float:
        """Absolute difference of two numbers; infinite for anything else."""
        if isinstance(self.signed, int | float) and isinstance(self.found, int | float):
            return abs(self.signed - self.found)
        return math.inf


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay ended.

    Attributes:
        differences: Metrics that differ; empty when every one is the same to the last bit.
        same_records: Whether the answers, sample by sample, are the same bytes.
        body: The receipt's body with what was found: metrics, records, tier, environment.
        records: Canonical Parquet of the replay's records.
    """

    differences: tuple[Difference, ...]
    same_records: bool
    body: dict[str, Any]
    records: bytes


def replay(receipt: Receipt, package: Path, evaluator: BenchEvaluator, *, seconds: float = 5 * 3600) -> Replayed:
    """Run what a receipt attests once more.

    Args:
        receipt: Verified.
        package: The zip that was run.
        evaluator: Its blobs hold the round's plan and media; its nonce, batch size and limits of a model process are
            the receipt's own, its weakest isolation is whoever's who replays.
        seconds: Wall clock that the replay may take, for a receipt that does not say what the run might.

    Raises:
        BadReceipt: ``package`` (another zip), or ``format`` (the receipt lacks what a replay needs).
        gas.errors.StorageError: The round or its media are not in the blobs.
        gas.errors.ModelFailed: The model did not load or took too long.
        gas.errors.InfrastructureError: Our own machinery failed.
    """
    body = receipt.body
    try:
        plan, modality = str(body["round"]["plan_sha256"]), Modality(body["round"]["modality"])
        package_sha256, signed = str(body["model"]["sha256"]), dict(body["metrics"])
        nonce, batch_size = str(body["engine"]["nonce"]), int(body["engine"]["batch_size"])
        limits, most_seconds = run_limits(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadReceipt("The receipt does not say what a replay needs.", code="format") from error
    found = file_sha256(package)
    if found != package_sha256:
        raise BadReceipt(
            f"The package is not the one of the receipt: its SHA-256 begins with {found[:16]}, not "
            f"{package_sha256[:16]}.",
            code="package",
        )
    again = replace(evaluator, nonce=nonce, config=replace(evaluator.config, batch_size=batch_size))
    name = f"replay-{str(body.get('run_id'))[:48]}"
    task = RunTask(name, package, modality, "full", plan, most_seconds or seconds, limits)
    outcome = again(task)
    digest = hashlib.sha256(outcome.records).hexdigest()
    new_body = {
        **body,
        "metrics": dict(outcome.metrics),
        "records_sha256": digest,
        "sandbox_tier": outcome.tier,
        "environment": dict(outcome.environment),
    }
    return Replayed(
        compare_metrics(signed, outcome.metrics), digest == body.get("records_sha256"), new_body, outcome.records
    )


def run_limits(body: Mapping[str, Any]) -> tuple[Limits | None, float | None]:
    """What a model process might use, and how long the run might take, as a receipt says; None where it does not.

    Raises:
        ValueError: It says nonsense.
    """
    engine = body["engine"]
    given, seconds = engine.get("limits"), engine.get("seconds")
    if seconds is not None and not _plausible(seconds):
        raise ValueError("seconds")
    if given is None:
        return None, seconds
    known = {name: type(value) for name, value in asdict(DEFAULT_LIMITS).items()}
    if not set(given) <= set(known) or not all(_plausible(value) for value in given.values()):
        raise ValueError("limits")
    return Limits(**{name: known[name](value) for name, value in given.items()}), seconds


def compare_metrics(signed: Mapping[str, object], found: Mapping[str, object]) -> tuple[Difference, ...]:
    """Every value that differs between two nested tables of metrics, in the order of their paths."""
    left, right = dict(_leaves(signed)), dict(_leaves(found))
    missing = object()
    return tuple(
        Difference(path, left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path, missing) != right.get(path, missing)
    )


def _plausible(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**53


def _leaves(value: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list | tuple):
        return [leaf for number, inner in enumerate(value) for leaf in _leaves(inner, f"{path}[{number}]")]
    return [(path, value)]
