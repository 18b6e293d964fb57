"""What became of a generator's tasks: counts, pass rate, refusals by reason, failures by code, price multiplier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gas.miners.states import OPEN_STATES, TaskState
from gas.miners.tables import TaskRow, prepare_schema
from gas.scoring.generators import (
    TIERS,
    PaidMedium,
    PriceTable,
    image_tier,
    price_multiplier,
    video_tier,
)
from gas.storage.database import Database, open_database
from gas.types import Modality

__all__ = ["Record", "read_records", "task_counts"]


@dataclass(frozen=True, slots=True)
class Record:
    """A generator's record in a span of time, with one validator or with all.

    Attributes:
        taken: Tasks that were taken.
        open: Of those, not ended yet.
        delivered: Media that the validator has.
        verified: Media that passed its verification.
        refused: Media that did not.
        failed: Tasks that could not be made or delivered.
        expired: Tasks that were too old to be delivered.
        attempts: Deliveries that were tried.
        seconds: Median from the task's arrival to its delivery; None without any.
        reasons: Refusals by the validators' reasons; a medium may have several.
        failures: Failed and expired tasks by code.
        multipliers: Price multiplier of each modality, from what was verified; None where nothing was.
    """

    taken: int
    open: int
    delivered: int
    verified: int
    refused: int
    failed: int
    expired: int
    attempts: int
    seconds: float | None
    reasons: dict[str, int]
    failures: dict[str, int]
    multipliers: dict[str, float | None]

    @property
    def pass_rate(self) -> float | None:
        """Verified over judged; None when no validator has told."""
        judged = self.verified + self.refused
        return self.verified / judged if judged else None


def task_counts(folder: Path) -> dict[str, int]:
    """Number of tasks by state; empty when no generator has worked in the folder."""
    database = _open(folder)
    if database is None:
        return {}
    try:
        with database.read() as session:
            rows = session.execute(select(TaskRow.state, func.count()).group_by(TaskRow.state))
            return dict(rows.tuples().all())
    finally:
        database.close()


def read_records(folder: Path, *, since: float, prices: PriceTable) -> dict[str, Record]:
    """The records of a generator; may be read while it runs.

    Args:
        folder: Its state folder.
        since: Tasks taken from here on, seconds since the epoch.
        prices: The round's table.

    Returns:
        By validator's hotkey, and under ``""`` all together; empty when no generator has worked in the folder.
    """
    database = _open(folder)
    if database is None:
        return {}
    try:
        with database.read() as session:
            validators = session.scalars(select(TaskRow.validator).where(TaskRow.created_at >= since).distinct())
            found = {name: _record(session, since, name, prices) for name in sorted(validators)}
            return {"": _record(session, since, None, prices), **found}
    finally:
        database.close()


def _open(folder: Path) -> Database | None:
    path = folder / "tasks.db"
    if not path.exists():
        return None
    database = open_database(f"sqlite:///{path}", migrate=False)
    prepare_schema(database)
    return database


def _record(session: Session, since: float, validator: str | None, prices: PriceTable) -> Record:
    columns: Any = (
        TaskRow.state, TaskRow.verdict, TaskRow.reasons, TaskRow.error_code, TaskRow.attempts, TaskRow.created_at,
        TaskRow.finished_at, TaskRow.modality, TaskRow.parameters, TaskRow.width, TaskRow.height,
    )  # fmt: skip
    query = select(*columns).where(TaskRow.created_at >= since)
    if validator is not None:
        query = query.where(TaskRow.validator == validator)
    states: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    paid: dict[Modality, list[PaidMedium]] = {modality: [] for modality in Modality}
    attempts, waits = 0, []
    for row in session.execute(query.execution_options(yield_per=1000)):
        states[row.state] += 1
        attempts += row.attempts or 0
        if row.state == TaskState.DELIVERED:
            waits.append(row.finished_at - row.created_at)
            verdicts[row.verdict or ""] += 1
            if row.verdict == "refused":
                reasons.update(row.reasons or ["unknown"])
            elif row.verdict == "verified":
                modality = Modality(row.modality)
                paid[modality].append(_paid(modality, row.parameters, row.width, row.height))
        elif row.state in (TaskState.FAILED, TaskState.EXPIRED):
            failures[row.error_code or "unknown"] += 1
    return Record(
        taken=sum(states.values()),
        open=_sum(states, OPEN_STATES),
        delivered=states[TaskState.DELIVERED],
        verified=verdicts["verified"],
        refused=verdicts["refused"],
        failed=states[TaskState.FAILED],
        expired=states[TaskState.EXPIRED],
        attempts=attempts,
        seconds=sorted(waits)[len(waits) // 2] if waits else None,
        reasons=dict(reasons.most_common()),
        failures=dict(failures.most_common()),
        multipliers={m.value: price_multiplier(media, m, prices) if media else None for m, media in paid.items()},
    )


def _sum(states: Counter[str], wanted: Iterable[TaskState]) -> int:
    return sum(states[state] for state in wanted)


def _paid(modality: Modality, parameters: dict[str, Any], width: int | None, height: int | None) -> PaidMedium:
    requested = _tier_of(modality, parameters)
    if modality is Modality.AUDIO or width is None or height is None:
        # The size of a clip isn't looked at here; the validator may see it otherwise.
        return PaidMedium(requested, requested)
    return PaidMedium(requested, (image_tier if modality is Modality.IMAGE else video_tier)(width, height))


def _tier_of(modality: Modality, parameters: dict[str, Any]) -> int:
    tiers = TIERS[modality]
    for value in (parameters.get("tier"), parameters.get("resolution")):
        if isinstance(value, int) and 0 <= value < len(tiers):
            return value
        if isinstance(value, str) and value in tiers:
            return tiers.index(value)
    return 0
