"""A generator's tasks in a database of its own, so that a restart loses none and does none twice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, String, Text, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from gas.clock import Clock, IdSource
from gas.storage.blobs import FolderBlobs
from gas.storage.database import open_database

__all__ = ["Task", "TaskState", "TaskStore"]


class TaskState(StrEnum):
    """Life of a task: queued, generating, delivering, and one of three ends."""

    QUEUED = "queued"
    GENERATING = "generating"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    FAILED = "failed"
    EXPIRED = "expired"


_OPEN = (TaskState.QUEUED, TaskState.GENERATING, TaskState.DELIVERING)


class _Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012  (SQLAlchemy reads it from the class)


class _TaskRow(_Base):
    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    validator: Mapped[str] = mapped_column(String(64), index=True)
    modality: Mapped[str] = mapped_column(String(16))
    prompt: Mapped[str] = mapped_column(Text)
    parameters: Mapped[dict[str, Any]]
    webhook_url: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[float]
    finished_at: Mapped[float | None]
    media_blob: Mapped[str | None] = mapped_column(String(64))
    mime: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)


@dataclass(frozen=True, slots=True)
class Task:
    """One task as of now; times are seconds since the epoch."""

    id: str
    validator: str
    modality: str
    prompt: str
    parameters: dict[str, Any]
    webhook_url: str
    state: TaskState
    created_at: float
    finished_at: float | None
    media_blob: str | None
    mime: str | None
    error: str | None


class TaskStore:
    """Tasks and the media that wait for their delivery.

    Args:
        folder: Where the database and the media lie.
        clock: Gives the times of creation and of the end.
        ids: Gives the tasks' ids.
    """

    def __init__(self, folder: Path, clock: Clock, ids: IdSource) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._database = open_database(f"sqlite:///{folder / 'tasks.db'}", migrate=False)
        _Base.metadata.create_all(self._database.engine)
        self._blobs = FolderBlobs(folder / "outgoing")
        self._clock = clock
        self._ids = ids

    def add(
        self, validator: str, modality: str, prompt: str, parameters: dict[str, Any], webhook_url: str, *, limit: int
    ) -> Task | None:
        """Queue a task, or return None when ``limit`` tasks are open already."""
        with self._database.write() as session:
            waiting = session.scalar(select(func.count()).where(_TaskRow.state.in_(_OPEN))) or 0
            if waiting >= limit:
                return None
            row = _TaskRow(
                id=self._ids.new(),
                validator=validator,
                modality=modality,
                prompt=prompt,
                parameters=parameters,
                webhook_url=webhook_url,
                state=TaskState.QUEUED,
                created_at=self._clock.time(),
            )
            session.add(row)
            session.flush()
            return _task(row)

    def get(self, task_id: str) -> Task | None:
        """A task by its id."""
        with self._database.read() as session:
            row = session.get(_TaskRow, task_id)
            return _task(row) if row else None

    def unfinished(self) -> list[Task]:
        """Tasks that a restart goes on with, oldest first; what was being generated is generated anew."""
        with self._database.write() as session:
            session.execute(
                update(_TaskRow).where(_TaskRow.state == TaskState.GENERATING).values(state=TaskState.QUEUED)
            )
            rows = session.scalars(select(_TaskRow).where(_TaskRow.state.in_(_OPEN)).order_by(_TaskRow.created_at))
            return [_task(row) for row in rows]

    def start(self, task_id: str) -> None:
        """The pipeline begins."""
        self._set(task_id, state=TaskState.GENERATING)

    def generated(self, task_id: str, data: bytes, mime: str) -> None:
        """Keep the signed medium until it is delivered."""
        self._set(task_id, state=TaskState.DELIVERING, media_blob=self._blobs.put(data), mime=mime)

    def medium(self, task: Task) -> bytes:
        """The medium that waits for delivery."""
        return self._blobs.get(task.media_blob or "")

    def finish(self, task: Task, state: TaskState, error: str | None = None) -> None:
        """End a task and forget its medium."""
        self._set(task.id, state=state, error=error, finished_at=self._clock.time(), media_blob=None)
        if task.media_blob:
            self._blobs.delete(task.media_blob)

    def fail_to_make(self, task_id: str, error: str) -> None:
        """The pipeline could not make it; the failure is still to be delivered."""
        self._set(task_id, state=TaskState.DELIVERING, error=error)

    def counts(self) -> dict[str, int]:
        """Number of tasks by state."""
        with self._database.read() as session:
            rows = session.execute(select(_TaskRow.state, func.count()).group_by(_TaskRow.state))
            return dict(rows.tuples().all())

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _set(self, task_id: str, **values: Any) -> None:
        with self._database.write() as session:
            session.execute(update(_TaskRow).where(_TaskRow.id == task_id).values(**values))


def _task(row: _TaskRow) -> Task:
    return Task(
        id=row.id,
        validator=row.validator,
        modality=row.modality,
        prompt=row.prompt,
        parameters=row.parameters,
        webhook_url=row.webhook_url,
        state=TaskState(row.state),
        created_at=row.created_at,
        finished_at=row.finished_at,
        media_blob=row.media_blob,
        mime=row.mime,
        error=row.error,
    )
