"""A generator's tasks in a database of its own, so that a restart loses none and pays for none twice.

:mod:`gas.miners.states` says what the states mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from gas.clock import Clock, IdSource
from gas.generation.base import GeneratedMedium, Job
from gas.miners.states import OPEN_STATES, Recovery, Task, TaskState, Verdict
from gas.miners.tables import TaskRow, prepare_schema
from gas.storage.blobs import FolderBlobs
from gas.storage.database import Database, open_database

__all__ = ["TaskStore"]

_RESERVED_PART: Final = 8


class TaskStore:
    """Tasks, the pictures that they start from, and the media that wait for their delivery.

    Args:
        folder: Where the database and the media lie.
        clock: Gives the times.
        ids: Gives the tasks' ids.

    Raises:
        gas.errors.StorageError: The folder can't be used, or a newer version of this program wrote it.
    """

    def __init__(self, folder: Path, clock: Clock, ids: IdSource) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._database = open_database(f"sqlite:///{folder / 'tasks.db'}", migrate=False)
        prepare_schema(self._database)
        self._media = FolderBlobs(folder / "outgoing")
        self._sources = FolderBlobs(folder / "sources")
        self._clock = clock
        self._ids = ids

    @property
    def database(self) -> Database:
        """For reports; write through this class."""
        return self._database

    def add(
        self,
        validator: str,
        modality: str,
        prompt: str,
        parameters: dict[str, Any],
        webhook_url: str,
        *,
        limit: int,
        service: str | None = None,
        source: bytes | None = None,
        mask: bytes | None = None,
    ) -> Task | None:
        """Queue a task, or return None when the queue is full.

        It is full at ``limit`` open tasks. A validator who has less than an eighth of them may use an eighth more, so
        that one who floods the queue does not lock the others out.

        Raises:
            gas.errors.StorageError: The disk or the database failed; nothing was taken.
        """
        with self._database.read() as session:
            if not self._room(session, validator, limit):
                return None
        with self._database.write() as session:
            if not self._room(session, validator, limit):
                return None
            # Inside the transaction: the end of a task with the same picture must not remove it in between.
            kept = [None if data is None else self._sources.put(data) for data in (source, mask)]
            now = self._clock.time()
            row = TaskRow(
                id=self._ids.new(),
                validator=validator,
                modality=modality,
                prompt=prompt,
                parameters=parameters,
                webhook_url=webhook_url,
                state=TaskState.QUEUED,
                created_at=now,
                updated_at=now,
                service=service,
                source_blob=kept[0],
                mask_blob=kept[1],
            )
            session.add(row)
            session.flush()
            return _task(row)

    @staticmethod
    def _room(session: Session, validator: str, limit: int) -> bool:
        open_ = select(func.count()).where(TaskRow.state.in_(OPEN_STATES))
        waiting = session.scalar(open_) or 0
        if waiting < limit:
            return True
        own = session.scalar(open_.where(TaskRow.validator == validator)) or 0
        reserve = max(1, limit // _RESERVED_PART)
        return own < reserve and waiting < limit + reserve

    def get(self, task_id: str) -> Task | None:
        """A task by its id."""
        with self._database.read() as session:
            row = session.get(TaskRow, task_id)
            return _task(row) if row else None

    def unfinished(self) -> list[Task]:
        """Tasks that are open, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(select(TaskRow).where(TaskRow.state.in_(OPEN_STATES)).order_by(TaskRow.created_at))
            return [_task(row) for row in rows]

    def recover(self) -> Recovery:
        """Begin after an earlier process: settle what it left half done, and remove files that no task names.

        Call it before anything else, and in one process only.
        """
        with self._database.write() as session:
            session.execute(update(TaskRow).where(TaskRow.state == TaskState.GENERATING).values(state=TaskState.QUEUED))
            cut_off = list(session.scalars(select(TaskRow.id).where(TaskRow.state == TaskState.ASKING)))
            session.execute(
                update(TaskRow)
                .where(TaskRow.state == TaskState.ASKING)
                .values(
                    state=TaskState.DELIVERING,
                    error_code="provider_uncertain",
                    error="The miner stopped while its provider worked.",
                )
            )
            named = select(TaskRow.media_blob, TaskRow.source_blob, TaskRow.mask_blob)
            kept = {name for row in session.execute(named.where(TaskRow.state.in_(OPEN_STATES))) for name in row}
        for blobs in (self._media, self._sources):
            for name in [name for name in blobs.names() if name not in kept]:
                blobs.delete(name)
        tasks = self.unfinished()
        return Recovery(tuple(tasks), tuple(task for task in tasks if task.id in cut_off))

    def start(self, task_id: str, service: str | None = None, *, paid: bool = False) -> None:
        """The mark before the work begins.

        Args:
            task_id: Which.
            service: Who is asked.
            paid: Whether asking twice would be paid twice.
        """
        values = {} if service is None else {"service": service}
        self._set(task_id, state=TaskState.ASKING if paid else TaskState.GENERATING, **values)

    def requeue(self, task_id: str) -> None:
        """The work did not begin after all, and nothing was paid."""
        self._set(task_id, state=TaskState.QUEUED)

    def running(self, task_id: str, job: Job) -> None:
        """A provider works, under a name of its own."""
        self._set(task_id, state=TaskState.RUNNING, job_id=job.id, poll_seconds=job.poll_seconds)

    def generated(
        self,
        task_id: str,
        data: bytes,
        mime: str,
        *,
        medium: GeneratedMedium | None = None,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Keep the signed medium until it is delivered.

        Args:
            task_id: Whose.
            data: Its bytes, signed.
            mime: Their type.
            medium: What made it.
            size: Width and height of a picture, pixels.
        """
        now = self._clock.time()
        values = {
            "state": TaskState.DELIVERING,
            "mime": mime,
            "media_bytes": len(data),
            "made_at": now,
            "updated_at": now,
            "model": medium.model if medium else None,
            "media_type": medium.media_type.value if medium else None,
            "width": size[0] if size else None,
            "height": size[1] if size else None,
        }
        with self._database.write() as session:
            values["media_blob"] = self._media.put(data)
            session.execute(
                update(TaskRow).where(TaskRow.id == task_id, TaskRow.state.in_(OPEN_STATES)).values(**values)
            )

    def medium(self, task: Task) -> bytes:
        """The medium that waits for delivery."""
        return self._media.get(task.media_blob or "")

    def source(self, name: str) -> bytes:
        """A picture that a task starts from."""
        return self._sources.get(name)

    def attempted(self, task_id: str) -> None:
        """A delivery is about to be tried."""
        with self._database.write() as session:
            session.execute(
                update(TaskRow).where(TaskRow.id == task_id).values(attempts=func.coalesce(TaskRow.attempts, 0) + 1)
            )

    def finish(
        self,
        task: Task,
        state: TaskState,
        error: str | None = None,
        *,
        code: str | None = None,
        verdict: Verdict | None = None,
    ) -> bool:
        """End a task and forget its media; returns whether this call ended it.

        Args:
            task: Which.
            state: One of the three ends.
            error: Why it failed.
            code: Stable name of the failure.
            verdict: What the validator answered.
        """
        now = self._clock.time()
        values: dict[str, Any] = {"state": state, "finished_at": now, "updated_at": now, "media_blob": None}
        values |= {"source_blob": None, "mask_blob": None}
        if error is not None or code is not None:
            values |= {"error": error, "error_code": code}
        if verdict is not None:
            values |= {"verdict": verdict.status or None, "reasons": list(verdict.reasons)}
        with self._database.write() as session:
            row = session.get(TaskRow, task.id)
            if row is None or row.state not in OPEN_STATES:
                return False
            named = {name for name in (row.media_blob, row.source_blob, row.mask_blob) if name}
            for name, value in values.items():
                setattr(row, name, value)
            session.flush()
            for name in named - self._named(session, named):
                self._media.delete(name)
                self._sources.delete(name)
        return True

    @staticmethod
    def _named(session: Session, names: Iterable[str]) -> set[str]:
        """Those of the blobs that some task still names: equal bytes lie on the disk once."""
        wanted = list(names)
        columns = (TaskRow.media_blob, TaskRow.source_blob, TaskRow.mask_blob)
        rows = session.execute(select(*columns).where(or_(*(column.in_(wanted) for column in columns))))
        return {name for row in rows for name in row if name}

    def fail_to_make(self, task_id: str, error: str, *, code: str = "generation_failed") -> None:
        """It could not be made; the failure is still to be delivered."""
        self._set(task_id, state=TaskState.DELIVERING, error=error, error_code=code)

    def forget(self, *, before: float) -> int:
        """Remove tasks that ended before a time; returns how many."""
        with self._database.write() as session:
            old = session.scalars(select(TaskRow).where(TaskRow.finished_at < before).limit(10_000)).all()
            for row in old:
                session.delete(row)
            return len(old)

    def counts(self) -> dict[str, int]:
        """Number of tasks by state."""
        with self._database.read() as session:
            rows = session.execute(select(TaskRow.state, func.count()).group_by(TaskRow.state))
            return dict(rows.tuples().all())

    def open_count(self) -> int:
        """How many tasks have not ended."""
        with self._database.read() as session:
            return session.scalar(select(func.count()).where(TaskRow.state.in_(OPEN_STATES))) or 0

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _set(self, task_id: str, **values: Any) -> None:
        with self._database.write() as session:
            session.execute(
                update(TaskRow)
                .where(TaskRow.id == task_id, TaskRow.state.in_(OPEN_STATES))
                .values(updated_at=self._clock.time(), **values)
            )


def _task(row: TaskRow) -> Task:
    values = {spec.name: getattr(row, spec.name) for spec in fields(Task)}
    return Task(**{**values, "state": TaskState(row.state)})
