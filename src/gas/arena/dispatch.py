"""The foreman: looks at everything that waits or has stopped moving, and sees that it goes on or ends.

What is to be done is read from the database each time, so that a crash between two writes costs one turn and no
submission. Waiting for a commitment takes no worker.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from gas.arena.allowances import COMMITMENT_MISSING
from gas.arena.commitments import commitments_of, committed_block
from gas.arena.ports import ArenaConfig
from gas.arena.pushes import push_waits, waiting_pushes
from gas.arena.states import ACTIVE_STATES, LIVE_ROUNDS, ROUND_OPEN, IllegalTransition, transition
from gas.arena.submissions import Submissions
from gas.arena.workers import JOB_KIND, QUEUE, EvaluationJob, job_id
from gas.chain.base import Chain
from gas.clock import Clock
from gas.errors import Reason
from gas.storage.database import Database
from gas.storage.jobs import DurableJobs, JobState
from gas.storage.tables import ExecutorRow, RoundRow, RunRow, SubmissionRow
from gas.types import TERMINAL_STATES, SubmissionState

__all__ = ["Foreman", "Load", "fair_order"]

_S = SubmissionState
_LOG = structlog.get_logger(__name__)
_GRACE_SECONDS = 120.0
_ALIVE_SECONDS = 60.0
_MOST_JOBS = 16
"""Further jobs of a submission that has passed its exam; each before has met a round that was closing."""


@dataclass(frozen=True, slots=True)
class Foreman:
    """Call :meth:`tick` every second or so, always from the same thread, one without a running event loop.

    Attributes:
        database: State of everything.
        chain: Where commitments are.
        loop: Runs the chain's coroutines.
        submissions: For scans that a dead service left undone.
        job: The work on one submission.
        jobs: Where jobs run.
        config: The arena's rules.
        clock: For limits.
        rescan_seconds: How old an unfinished scan must be to count as left behind.
    """

    database: Database
    chain: Chain
    loop: asyncio.Runner
    submissions: Submissions
    job: EvaluationJob
    jobs: DurableJobs
    config: ArenaConfig
    clock: Clock
    rescan_seconds: float = 900.0
    _enqueued: set[str] = field(default_factory=set)
    _numbers: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        """One look around.

        Raises:
            gas.errors.StorageError: The database does not answer.
        """
        self.jobs.beat()
        # One at each look: a scan takes up to a minute, and other workers take the others.
        self.submissions.resume_scans(older_than_seconds=self.rescan_seconds, most=1)
        self._read_commitments()
        self._enqueue()
        self._settle_pushes()
        self._end_overdue()
        self._end_orphans()
        self.submissions.release_ended()

    def _read_commitments(self) -> None:
        with self.database.read() as session:
            waiting = session.scalars(
                select(SubmissionRow).where(
                    SubmissionRow.state == _S.SCANNING.value,
                    SubmissionRow.weights_sha256.is_not(None),
                    SubmissionRow.committed_block.is_(None),
                )
            ).all()
        if not waiting:
            return
        found = self.loop.run(commitments_of(self.chain, self.config.netuid, {seen.hotkey for seen in waiting}))
        for seen in waiting:
            if seen.hotkey not in found:
                continue
            block = committed_block(found[seen.hotkey], seen)
            late = self.clock.time() - seen.created_at > self.config.commitment_seconds
            if block is None and not late:
                continue
            blob = None
            with self.database.write() as session:
                row = session.get(SubmissionRow, seen.id)
                if row is None or row.state != _S.SCANNING:
                    continue
                if block is not None:
                    row.committed_block = block
                else:
                    transition(session, row, _S.REJECTED, now=self.clock.time(), reasons=(_uncommitted(),))
                    blob, row.zip_blob = row.zip_blob, None
            self.submissions.release_blob(blob)

    def _enqueue(self) -> None:
        """Hand on what is ready, no more than the workers need soon: who comes next is decided as late as possible."""
        with self.database.read() as session:
            ready = session.scalars(
                select(SubmissionRow)
                .join(
                    RoundRow,
                    (RoundRow.modality == SubmissionRow.modality) & (RoundRow.vertical == SubmissionRow.vertical),
                )
                .where(
                    SubmissionRow.state == _S.SCANNING.value,
                    SubmissionRow.committed_block.is_not(None),
                    RoundRow.state == ROUND_OPEN,
                )
                .order_by(SubmissionRow.committed_block, SubmissionRow.created_at)
            ).all()
            waiting = [row for row in ready if row.id not in self._enqueued]
            if not waiting:
                return
            since = self.clock.time() - _ALIVE_SECONDS
            workers = session.scalar(select(func.count()).where(ExecutorRow.heartbeat_at > since)) or 1
            room = workers + 1 - sum(row.id in self._enqueued for row in ready)
            load = _load(session)
        for row in ready:
            if row.id in self._enqueued:
                load.count(row.hotkey, row.modality, row.vertical)
        for row in fair_order(waiting, load)[: max(0, room)]:
            # A job that found its round closing has ended, and left the submission as it was.
            number, state = self._last_job(row.id)
            self.jobs.enqueue(QUEUE, JOB_KIND, job_id(row.id, number + (state is JobState.DONE)), row.id)
            self._enqueued.add(row.id)

    def _settle_pushes(self) -> None:
        """Decide over pushes whose last exam has ended elsewhere, or that have waited long enough."""
        with self.database.read() as session:
            waiting = waiting_pushes(session)
        for hotkey, push_id in waiting:
            self.job.settle(hotkey, push_id)

    def _end_overdue(self) -> None:
        """End what an evaluator should have ended itself: nothing may run past its limit."""
        now, ended = self.clock.time(), [state.value for state in TERMINAL_STATES]
        with self.database.read() as session:
            running = session.scalars(
                select(RunRow)
                .join(SubmissionRow, SubmissionRow.id == RunRow.submission_id)
                .where(RunRow.state == "running", SubmissionRow.state.not_in(ended))
            ).all()
        for run in running:
            limit = self._limit(run)
            if now - run.started_at > limit + _GRACE_SECONDS:
                _LOG.error("run_overdue", run=run.id, submission=run.submission_id)
                self.job.fail(run.submission_id, {"code": "overdue", "message": "The evaluation did not end in time."})
                number, state = self._last_job(run.submission_id)
                if state is not None:
                    self.jobs.cancel(job_id(run.submission_id, number))

    def _limit(self, run: RunRow) -> float:
        with self.database.read() as session:
            row = session.get(SubmissionRow, run.submission_id)
        # One that was replaced meanwhile has no run any more that could be overdue.
        return math.inf if row is None else self.job.time_limit(row, run.kind)

    def _end_orphans(self) -> None:
        """See that whatever should have a job has one that can still end it."""
        expected = [state.value for state in ACTIVE_STATES]
        with self.database.read() as session:
            active = session.scalars(select(SubmissionRow.id).where(SubmissionRow.state.in_(expected))).all()
        # A job that ended before this look, of a submission that is still active after it, will never end it.
        for submission_id in [*active, *self._enqueued]:
            number, state = self._last_job(submission_id)
            if state is None:
                self.jobs.enqueue(QUEUE, JOB_KIND, job_id(submission_id, number), submission_id)
            elif state in (JobState.DONE, JobState.FAILED):
                self._enqueued.discard(submission_id)
                if self._goes_on(submission_id, number, state):
                    continue
                try:
                    self.job.fail(submission_id, {"code": "worker_lost", "message": "The evaluation was lost."})
                except IllegalTransition:
                    continue

    def _goes_on(self, submission_id: str, number: int, last: JobState) -> bool:
        """Whether a submission whose last job has ended waits for a round or for its push, or has a further job."""
        with self.database.read() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or last is not JobState.DONE:
                return False
            if row.state == _S.SCANNING or push_waits(session, row) is not None:
                return True
            state = row.state
        # Read after the submission: one that is beyond its exam has got there by a further job that exists already.
        further = self.jobs.state(job_id(submission_id, number + 1))
        if further is None and state == _S.CONFIRMED and row.push_id is not None and number < _MOST_JOBS:
            self.jobs.enqueue(QUEUE, JOB_KIND, job_id(submission_id, number + 1), submission_id)
            return True
        return further is not None and further not in (JobState.DONE, JobState.FAILED)

    def _last_job(self, submission_id: str) -> tuple[int, JobState | None]:
        """Number and state of the last job of a submission; 0 and None before the first."""
        number = self._numbers.get(submission_id, 0)
        state = self.jobs.state(job_id(submission_id, number))
        while state is JobState.DONE and (further := self.jobs.state(job_id(submission_id, number + 1))) is not None:
            number, state = number + 1, further
        if number:
            self._numbers[submission_id] = number
        return number, state


@dataclass(slots=True)
class Load:
    """What each competition and each hotkey has had of the workers lately.

    Attributes:
        hotkeys: Evaluations by hotkey.
        competitions: Evaluations by (modality, vertical).
    """

    hotkeys: Counter[str] = field(default_factory=Counter)
    competitions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count(self, hotkey: str, modality: str, vertical: str, times: int = 1) -> None:
        """Add one evaluation, or several."""
        self.hotkeys[hotkey] += times
        self.competitions[modality, vertical] += times


def fair_order(waiting: Sequence[SubmissionRow], load: Load) -> list[SubmissionRow]:
    """In which order submissions are taken up.

    The competition that has had least comes first, within it the hotkey that has had least, and among its
    submissions the one with the oldest commitment: nobody waits behind another's pile.

    Args:
        waiting: In the order of their commitments.
        load: What has been done so far; it is not changed.
    """
    had = Load(Counter(load.hotkeys), Counter(load.competitions))
    left, order = list(waiting), []
    while left:
        best = min(left, key=lambda r: (had.competitions[r.modality, r.vertical], had.hotkeys[r.hotkey]))
        left.remove(best)
        order.append(best)
        had.count(best.hotkey, best.modality, best.vertical)
    return order


def _load(session: Session) -> Load:
    """Evaluations of the live rounds, with those of content that was withdrawn and pushed again."""
    load = Load()
    rows = session.execute(
        select(SubmissionRow.hotkey, SubmissionRow.modality, SubmissionRow.vertical)
        .join(RunRow, RunRow.submission_id == SubmissionRow.id)
        .join(RoundRow, RoundRow.id == RunRow.round_id)
        .where(RoundRow.state.in_(LIVE_ROUNDS), RunRow.kind == "exam")
    ).tuples()
    for hotkey, modality, vertical in rows:
        load.count(hotkey, modality, vertical)
    replaced = session.execute(
        select(SubmissionRow.hotkey, SubmissionRow.modality, SubmissionRow.vertical, SubmissionRow.earlier_exams)
        .join(
            RoundRow,
            (RoundRow.modality == SubmissionRow.modality) & (RoundRow.vertical == SubmissionRow.vertical),
        )
        .where(RoundRow.state.in_(LIVE_ROUNDS), SubmissionRow.created_at >= RoundRow.opened_at)
        .where(SubmissionRow.earlier_exams > 0)
    ).tuples()
    for hotkey, modality, vertical, times in replaced:
        load.count(hotkey, modality, vertical, times)
    return load


def _uncommitted() -> Reason:
    return Reason(
        COMMITMENT_MISSING,
        "No commitment with this key and hash was found on the chain in time; push again and commit at once.",
    )
