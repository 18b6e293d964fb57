"""What a generator's task is, and how it ends.

::

    queued ──> generating ─────────────> delivering ──> delivered
       ^  └──> asking ──┬──> running ──>     │     └──> failed
       └────────────────┘                    └────────> expired

``generating`` is work of our own, which a restart does again. ``asking`` is marked before a provider that costs money
is asked: a restart that finds it can't know what has been paid, and never asks again. ``running`` has the provider's
name for the job, by which a restart asks for it further. ``delivering`` has a medium on the disk, or a failure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gas.generation.base import Job

__all__ = ["OPEN_STATES", "Recovery", "Task", "TaskState", "Verdict"]


class TaskState(StrEnum):
    """Life of a task; the last three are its ends."""

    QUEUED = "queued"
    GENERATING = "generating"
    ASKING = "asking"
    RUNNING = "running"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"


OPEN_STATES: Final = (
    TaskState.QUEUED,
    TaskState.GENERATING,
    TaskState.ASKING,
    TaskState.RUNNING,
    TaskState.DELIVERING,
)
"""States of a task that has not ended."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task as of now; times are seconds since the epoch.

    Attributes:
        id: Ours, random.
        validator: Hotkey of whoever asked.
        modality: What was asked for.
        prompt: What it should show; untrusted.
        parameters: Further wishes.
        webhook_url: Where the medium goes.
        state: Where it stands.
        created_at: When it was taken.
        finished_at: When it ended.
        media_blob: The medium that waits for delivery.
        mime: Its type.
        error: Why it failed, as the validator is told.
        updated_at: When its state last changed.
        service: Who makes it.
        job_id: The provider's name for the work.
        poll_seconds: Pause between questions about that.
        source_blob: The picture to change.
        mask_blob: Where to change it.
        error_code: Stable name of the failure.
        model: What made the medium.
        media_type: ``synthetic`` or ``semisynthetic``.
        width: Of a picture, pixels.
        height: Of a picture, pixels.
        media_bytes: Size of the signed medium.
        made_at: When it was made.
        attempts: How often its delivery was tried.
        verdict: What the validator made of it: ``verified`` or ``refused``.
        reasons: Codes of the validator's reasons for a refusal.
    """

    id: str
    validator: str
    modality: str
    prompt: str
    parameters: dict[str, Any]
    webhook_url: str
    state: TaskState
    created_at: float
    finished_at: float | None = None
    media_blob: str | None = None
    mime: str | None = None
    error: str | None = None
    updated_at: float | None = None
    service: str | None = None
    job_id: str | None = None
    poll_seconds: float | None = None
    source_blob: str | None = None
    mask_blob: str | None = None
    error_code: str | None = None
    model: str | None = None
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    media_bytes: int | None = None
    made_at: float | None = None
    attempts: int | None = None
    verdict: str | None = None
    reasons: list[str] | None = None

    @property
    def job(self) -> Job | None:
        """The provider's work, when there is one."""
        return Job(self.job_id, self.poll_seconds or 2.0) if self.job_id is not None else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a validator answered to a delivery.

    Attributes:
        status: ``verified``, ``refused``, or "" when the answer doesn't say.
        reasons: Codes of its reasons.
    """

    status: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a restart finds.

    Attributes:
        open: Tasks to go on with, oldest first.
        uncertain: Those among them whose paid call was cut off; they end as failed.
    """

    open: tuple[Task, ...]
    uncertain: tuple[Task, ...] = field(default=())
