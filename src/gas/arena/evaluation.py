"""The benchmark as the arena's evaluator."""

from __future__ import annotations

from gas.bench.batches import Pass
from gas.bench.records import from_parquet
from gas.types import SampleStatus

__all__ = ["answers_of"]


def answers_of(records: bytes) -> dict[str, float]:
    """p_fake by sample of what a model answered in the base pass of a run.

    Raises:
        gas.errors.StorageError: The bytes are no records.
    """
    return {
        record.sample_id: record.p_fake
        for record in from_parquet(records)
        if record.status is SampleStatus.OK and record.variant is Pass.BASE and record.p_fake is not None
    }
