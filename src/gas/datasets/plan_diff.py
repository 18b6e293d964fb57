"""What differs between two plans: samples, their values, and what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gas.datasets.plan_file import PLAN_SCHEMA, Plan

__all__ = ["Change", "PlanDiff", "diff_plans"]

_COMPARED: Final = tuple(name for name in PLAN_SCHEMA.names if name not in ("sample_id", "seed"))


@dataclass(frozen=True, slots=True)
class Change:
    """One value of one sample that the plans have differently.

    Attributes:
        sample_id: Which sample.
        dataset: Its data set in the first plan.
        name: Column of :data:`~gas.datasets.plan_file.PLAN_SCHEMA`.
        first: Value in the first plan.
        second: Value in the second plan.
    """

    sample_id: str
    dataset: str
    name: str
    first: object
    second: object


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """How two plans differ.

    Attributes:
        only_first: Ids of samples of the first plan alone, in their order.
        only_second: Ids of samples of the second plan alone, in their order.
        changes: Values of samples of both plans that differ. The samples' own seeds are left aside: they differ
            all at once, with the plans' seeds.
        parameters: Whatever was asked for differently, by name: the value of each plan.
        datasets: Numbers by data set: ``only_first``, ``only_second`` and ``changed`` (samples).
    """

    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changes: tuple[Change, ...]
    parameters: Mapping[str, tuple[Any, Any]]
    datasets: Mapping[str, Mapping[str, int]]

    @property
    def equal(self) -> bool:
        """Whether the plans say the same, whoever signed them."""
        return not (self.only_first or self.only_second or self.changes or self.parameters)

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "equal": self.equal,
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "changed": [
                {"sample_id": c.sample_id, "dataset": c.dataset, "name": c.name, "first": c.first, "second": c.second}
                for c in self.changes
            ],
            "parameters": {name: list(values) for name, values in self.parameters.items()},
            "datasets": {name: dict(counts) for name, counts in self.datasets.items()},
        }


def diff_plans(first: Plan, second: Plan) -> PlanDiff:
    """Compare two plans."""
    rows = [dict(zip(plan.table["sample_id"].to_pylist(), _values(plan), strict=True)) for plan in (first, second)]
    at = _COMPARED.index("dataset")
    counts: dict[str, Counter[str]] = {}
    alone: list[tuple[str, ...]] = []
    for mine, other, name in ((rows[0], rows[1], "only_first"), (rows[1], rows[0], "only_second")):
        alone.append(tuple(sample_id for sample_id in mine if sample_id not in other))
        for sample_id in alone[-1]:
            counts.setdefault(mine[sample_id][at], Counter())[name] += 1
    changes: list[Change] = []
    for sample_id, values in rows[0].items():
        others = rows[1].get(sample_id)
        if others is None or others == values:
            continue
        counts.setdefault(values[at], Counter())["changed"] += 1
        changes.extend(
            Change(sample_id, values[at], name, a, b)
            for name, a, b in zip(_COMPARED, values, others, strict=True)
            if a != b
        )
    asked = [_asked(plan) for plan in (first, second)]
    parameters = {
        name: (asked[0].get(name), asked[1].get(name))
        for name in sorted({*asked[0], *asked[1]})
        if asked[0].get(name) != asked[1].get(name)
    }
    names = ("only_first", "only_second", "changed")
    datasets = {name: {key: counts[name][key] for key in names} for name in sorted(counts)}
    return PlanDiff(alone[0], alone[1], tuple(changes), parameters, datasets)


def _values(plan: Plan) -> list[tuple[Any, ...]]:
    return list(zip(*(plan.table[name].to_pylist() for name in _COMPARED), strict=True))


def _asked(plan: Plan) -> dict[str, Any]:
    return {
        "modality": str(plan.modality),
        "mode": str(plan.mode),
        "seed": plan.seed,
        "code_version": plan.code_version,
        **{f"spec.{name}": value for name, value in plan.spec.items()},
    }
