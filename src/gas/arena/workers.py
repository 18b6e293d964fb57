"""The work on one submission, from its exam to its score, as one durable job.

Each step may die at any moment and is then begun again by a living worker. What a step writes, it writes in one
transaction at its end, and only while it is still the newest attempt, so that a worker that was thought dead changes
nothing any more. Faults of ours are retried, an author's never.
"""

from __future__ import annotations

import hashlib
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.arena.commitments import earlier_owner
from gas.arena.competitions import Competition
from gas.arena.exam import judge_exam
from gas.arena.likeness import NearWeights, near_copy, nearest_weights, note_nearest
from gas.arena.ports import ArenaConfig, Evaluator, RunKind, RunOutcome, RunTask
from gas.arena.pushes import push_waits, settle_push
from gas.arena.receipts import sign_receipt
from gas.arena.states import LIVE_ROUNDS, ROUND_OPEN, IllegalTransition, transition
from gas.chain.keys import Signer
from gas.clock import Clock
from gas.errors import GasError, InfrastructureError, ModelFailed, Reason, StorageError
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.jobs import DurableJobs, JobInterrupted
from gas.storage.tables import JudgementRow, MediumRow, RoundRow, RunRow, SubmissionRow
from gas.types import TERMINAL_STATES, Modality, SubmissionState

__all__ = ["JOB_KIND", "QUEUE", "EvaluationJob", "job_id", "run_id"]

QUEUE = "evaluation"
JOB_KIND = "evaluate-submission"

_S = SubmissionState
_LOG = structlog.get_logger(__name__)


def job_id(submission_id: str, number: int = 0) -> str:
    """A job of a submission: its first, or a further one after those before it ended while it waited for others.

    Args:
        submission_id: Whose.
        number: How many jobs it has had before.
    """
    return f"submission-{submission_id}" + ("", "-resumed")[number > 0] + (f"-{number}" if number > 1 else "")


def run_id(submission_id: str, round_id: str, kind: RunKind) -> str:
    """The one run of a submission in a round: 32 hex digits."""
    return hashlib.sha256(f"{submission_id}/{round_id}/{kind}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Started:
    task: RunTask
    attempt: int
    package_blob: str
    exam_blob: str | None


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """Takes one submission through exam and full run.

    Attributes:
        database: State of everything.
        blobs: Zips, plans, records.
        evaluate: Runs a model in a sandbox.
        config: The arena's rules.
        clock: For dates.
        signer: The validator's hotkey, for receipts.
        jobs: Where the job runs.
        scratch: Folder for files under way.
        stopping: Set while the process leaves: then an interrupted job is left to the next worker.
        retry_seconds: Pause after a fault of ours; doubled at each further one.
    """

    database: Database
    blobs: BlobStore
    evaluate: Evaluator
    config: ArenaConfig
    clock: Clock
    signer: Signer
    jobs: DurableJobs
    scratch: Path
    stopping: threading.Event = field(default_factory=threading.Event)
    retry_seconds: float = 1.0

    def register(self) -> None:
        """Make this the job of its kind; before the jobs start."""
        self.jobs.register(JOB_KIND, self.run)

    def run(self, submission_id: str) -> str:
        """The job; returns the submission's last state.

        A model that was pushed with others may wait for them after its exam. Then the job ends, so that it takes no
        worker, and what is left is a second job's, which the foreman begins.
        """
        try:
            state = self.jobs.step("exam", lambda: self._attempts(submission_id, "exam"))
            if state == _S.CONFIRMED:
                state = self.jobs.step("queue", lambda: self._queue(submission_id))
            if state == _S.QUEUED:
                state = self.jobs.step("full", lambda: self._attempts(submission_id, "full"))
        except Exception as error:
            if self.stopping.is_set():
                raise JobInterrupted from error
            # Formatted here: a renderer that prints local variables might print a secret.
            trace = "".join(traceback.format_exception(error))
            _LOG.error("evaluation_broke", submission=submission_id, trace=trace)
            code = error.error_code if isinstance(error, GasError) else "internal"
            return self.fail(submission_id, {"code": code, "message": "The evaluation broke; this is a fault of ours."})
        return state

    def time_limit(self, row: SubmissionRow, kind: RunKind) -> float:
        """Seconds that an evaluation of a submission may take."""
        rules = self._rules(row)
        return rules.exam_seconds if kind == "exam" else rules.run_seconds

    def fail(self, submission_id: str, error: Mapping[str, str]) -> str:
        """End a submission by a fault of ours, unless it has ended; returns its state."""
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None:
                return _S.WITHDRAWN
            if SubmissionState(row.state) not in TERMINAL_STATES:
                now = self.clock.time()
                transition(session, row, _S.FAILED, now=now, error=error)
                for run in session.scalars(
                    select(RunRow).where(RunRow.submission_id == submission_id, RunRow.state == "running")
                ):
                    run.state, run.error, run.finished_at = "failed", dict(error), now
            return row.state

    def _queue(self, submission_id: str) -> str:
        with self.database.write() as session:
            row = session.get_one(SubmissionRow, submission_id)
            if row.state == _S.CONFIRMED:
                transition(session, row, _S.QUEUED, now=self.clock.time())
            return row.state

    def _attempts(self, submission_id: str, kind: RunKind) -> str:
        while True:
            if self.stopping.is_set():
                raise JobInterrupted
            started = self._begin(submission_id, kind)
            if isinstance(started, str):
                return started
            package = started.task.package
            try:
                self.scratch.mkdir(parents=True, exist_ok=True)
                self.blobs.get_file(started.package_blob, package)
                outcome = self.evaluate(started.task)
                rivals = self._rivals(submission_id, started) if kind == "exam" else {}
                return self._finish(submission_id, kind, started, outcome, rivals)
            except ModelFailed as error:
                return self._model_failed(submission_id, kind, started, error)
            except InfrastructureError as error:
                if self.stopping.is_set():
                    self._give_back(started)
                    raise JobInterrupted from error
                if started.task.given_up():
                    continue
                _LOG.warning(
                    "attempt_failed",
                    submission=submission_id,
                    kind=kind,
                    attempt=started.attempt,
                    code=error.error_code,
                    message=error.message,
                )
                self._note(started, error)
                self.stopping.wait(self.retry_seconds * 2 ** (started.attempt - 1))
            finally:
                package.unlink(missing_ok=True)

    def _begin(self, submission_id: str, kind: RunKind) -> _Started | str:
        """Count and begin an attempt; or say in which state the submission is when there is nothing to begin."""
        now = self.clock.time()
        near = self._near(submission_id) if kind == "exam" else None
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None:
                return _S.WITHDRAWN
            if kind == "exam" and row.state == _S.SCANNING:
                if self._round(session, row, kind) is None:
                    # The round was closed, or is about to be: the submission waits for the next one.
                    return row.state
                note_nearest(session, submission_id, near)
                limit = self._rules(row).weights_limit
                transition(session, row, _S.EXAMINING, now=now)
                owner = earlier_owner(session, row)
                if owner is not None:
                    transition(session, row, _S.BLOCKED, now=now, reasons=(_duplicate(owner),))
                elif near is not None and near.distance < limit:
                    transition(session, row, _S.BLOCKED, now=now, reasons=(near_copy(near, limit),))
            if kind == "full" and row.state == _S.QUEUED:
                transition(session, row, _S.RUNNING, now=now)
            if row.state != (_S.EXAMINING if kind == "exam" else _S.RUNNING) or push_waits(session, row) is not None:
                return row.state
            arena_round = self._round(session, row, kind)
            if arena_round is None:
                transition(session, row, _S.FAILED, now=now, error=_error("no_round", "No round is open."))
                return row.state
            identity = run_id(submission_id, arena_round.id, kind)
            run = session.get(RunRow, identity)
            if run is None:
                run = RunRow(
                    id=identity,
                    submission_id=submission_id,
                    round_id=arena_round.id,
                    kind=kind,
                    state="running",
                    attempts=0,
                    started_at=now,
                )
                session.add(run)
            if run.attempts >= self.config.max_attempts:
                error = run.error or _error("worker_lost", "The evaluation was interrupted too often.")
                run.state, run.error, run.finished_at = "failed", error, now
                transition(session, row, _S.FAILED, now=now, error=error)
                return row.state
            run.attempts += 1
            run.started_at = now
            run.state = "running"
            row.attempts += 1
            rules = self._rules(row)
            plan = arena_round.exam_blob or arena_round.plan_blob if kind == "exam" else arena_round.plan_blob
            task = RunTask(
                run_id=identity,
                package=self.scratch / f"{identity}-{run.attempts}.zip",
                modality=Modality(row.modality),
                kind=kind,
                round_blob=plan,
                seconds=self.time_limit(row, kind),
                limits=rules.limits if self.config.competitions is not None else None,
                min_tier=rules.min_tier if self.config.competitions is not None else None,
                distorted=rules.exam_distorted if kind == "exam" else 0,
                given_up=lambda: self._given_up(submission_id),
            )
            return _Started(task, run.attempts, row.zip_blob or "", arena_round.exam_blob)

    def _given_up(self, submission_id: str) -> bool:
        """Whether nobody waits for the outcome of a run any more: its submission has ended, by its author or by us."""
        try:
            with self.database.read() as session:
                row = session.get(SubmissionRow, submission_id)
        except StorageError:
            # A database that is away for a moment must not cost a run.
            return False
        return row is None or SubmissionState(row.state) in TERMINAL_STATES

    def _near(self, submission_id: str) -> NearWeights | None:
        """The older commitment of another hotkey with the nearest weights, before the exam begins."""
        with self.database.read() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or row.state != _S.SCANNING:
                return None
            return nearest_weights(session, row, within=self._rules(row).weights_within, committed=True)

    def _round(self, session: Session, row: SubmissionRow, kind: RunKind) -> RoundRow | None:
        running = session.scalar(
            select(RoundRow)
            .join(RunRow, RunRow.round_id == RoundRow.id)
            .where(RunRow.submission_id == row.id, RunRow.kind == kind, RunRow.state == "running")
        )
        if running is not None:
            return running
        return session.scalar(
            select(RoundRow)
            .where(RoundRow.modality == row.modality, RoundRow.vertical == row.vertical)
            .where(RoundRow.state.in_((ROUND_OPEN,) if kind == "exam" else LIVE_ROUNDS))
            .order_by(RoundRow.opened_at.desc())
            .limit(1)
        )

    def _finish(
        self,
        submission_id: str,
        kind: RunKind,
        started: _Started,
        outcome: RunOutcome,
        rivals: Mapping[str, Mapping[str, float]],
    ) -> str:
        records_blob = self.blobs.put(outcome.records)
        now = self.clock.time()
        with self.database.write() as session:
            row, run = self._newest(session, submission_id, started)
            if run is None:
                return row.state
            run.state, run.finished_at, run.error = "done", now, None
            run.tier, run.metrics, run.records_blob = outcome.tier, dict(outcome.metrics), records_blob
            if kind == "exam":
                verdict = judge_exam(outcome, self._rules(row), rivals, alone=row.push_id is None)
                if verdict.resembles is not None:
                    run.metrics = {**run.metrics, "resembles": verdict.resembles.as_dict()}
                if row.push_id is None or verdict.state is not _S.CONFIRMED:
                    transition(session, row, verdict.state, now=now, reasons=verdict.reasons)
                self._settle(session, row, now)
                return row.state
            arena_round = session.get_one(RoundRow, run.round_id)
            body = _receipt_body(row, run, arena_round, outcome, self._rules(row))
            run.receipt = sign_receipt(body, self.signer)
            known = set(
                session.scalars(
                    select(MediumRow.sha256).where(MediumRow.sha256.in_([j.media_sha256 for j in outcome.judgements]))
                )
            )
            for judgement in outcome.judgements:
                if judgement.media_sha256 in known:
                    session.merge(
                        JudgementRow(media_sha256=judgement.media_sha256, run_id=run.id, fooled=judgement.fooled)
                    )
            transition(session, row, _S.SCORED, now=now)
            return row.state

    def _model_failed(self, submission_id: str, kind: RunKind, started: _Started, error: ModelFailed) -> str:
        now = self.clock.time()
        reason = Reason(error.error_code, str(error))
        with self.database.write() as session:
            row, run = self._newest(session, submission_id, started)
            if run is None:
                return row.state
            run.state, run.error, run.finished_at = "failed", error.as_dict(), now
            transition(session, row, _S.EXAM_FAILED if kind == "exam" else _S.FAILED, now=now, reasons=(reason,))
            if kind == "exam":
                self._settle(session, row, now)
            return row.state

    def settle(self, hotkey: str, push_id: str) -> None:
        """Decide over a push if it is time."""
        with self.database.write() as session:
            settle_push(self.database, session, hotkey, push_id, self._rules, self.clock.time())

    def _settle(self, session: Session, row: SubmissionRow, now: float) -> None:
        if row.push_id is not None:
            session.flush()
            settle_push(self.database, session, row.hotkey, row.push_id, self._rules, now)

    def _rules(self, row: SubmissionRow) -> Competition:
        return self.config.rules_of(row)

    def _note(self, started: _Started, error: InfrastructureError) -> None:
        with self.database.write() as session:
            run = session.get(RunRow, started.task.run_id)
            if run is not None and run.attempts == started.attempt:
                run.error = error.as_dict()

    def _give_back(self, started: _Started) -> None:
        """Forget an attempt that only ended because this process leaves."""
        with self.database.write() as session:
            run = session.get(RunRow, started.task.run_id)
            if run is not None and run.attempts == started.attempt:
                run.attempts -= 1

    def _newest(self, session: Session, submission_id: str, started: _Started) -> tuple[SubmissionRow, RunRow | None]:
        """The rows of an attempt; no run when another attempt has begun or the submission has ended meanwhile."""
        row = session.get(SubmissionRow, submission_id)
        if row is None:
            raise IllegalTransition("The submission was replaced.")
        run = session.get_one(RunRow, started.task.run_id)
        newest = run.attempts == started.attempt and run.state == "running"
        return row, run if newest and SubmissionState(row.state) not in TERMINAL_STATES else None

    def _rivals(self, submission_id: str, started: _Started) -> dict[str, dict[str, float]]:
        """Answers of other hotkeys' older models in the same exam."""
        from gas.arena.evaluation import answers_of

        with self.database.read() as session:
            row = session.get_one(SubmissionRow, submission_id)
            run = session.get_one(RunRow, started.task.run_id)
            found = session.execute(
                select(RunRow.submission_id, RunRow.records_blob)
                .join(SubmissionRow, SubmissionRow.id == RunRow.submission_id)
                .where(
                    RunRow.round_id == run.round_id,
                    RunRow.kind == "exam",
                    RunRow.state == "done",
                    RunRow.records_blob.is_not(None),
                    SubmissionRow.hotkey != row.hotkey,
                    SubmissionRow.committed_block <= row.committed_block,
                )
            ).all()
        out: dict[str, dict[str, float]] = {}
        for rival, blob in found:
            try:
                out[rival] = answers_of(self.blobs.get(blob or ""))
            except StorageError as error:
                # A lost file of somebody else's must not cost this author the exam.
                _LOG.warning("rival_unreadable", submission=rival, code=error.error_code)
        return out


def _error(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


def _duplicate(owner: SubmissionRow) -> Reason:
    return Reason(
        "duplicate",
        f"Another hotkey committed the same weights earlier, in block {owner.committed_block}; the credit stays there.",
    )


def _receipt_body(
    row: SubmissionRow, run: RunRow, arena_round: RoundRow, outcome: RunOutcome, rules: Competition
) -> dict[str, object]:
    return {
        "run_id": run.id,
        "kind": run.kind,
        "round": {
            "id": arena_round.id,
            "modality": arena_round.modality,
            "vertical": arena_round.vertical,
            "max_upload_bytes": rules.max_upload_bytes,
            "data_hash": arena_round.data_hash,
            "plan_sha256": arena_round.plan_blob,
            "parameters": arena_round.parameters,
            "code_version": arena_round.code_version,
        },
        "model": {
            "hotkey": row.hotkey,
            "key": row.key,
            "name": row.name,
            "sha256": row.sha256,
            "weights_sha256": row.weights_sha256,
            "committed_block": row.committed_block,
        },
        "metrics": run.metrics,
        "records_sha256": run.records_blob,
        "sandbox_tier": run.tier,
        "environment": dict(outcome.environment),
        "engine": dict(outcome.engine),
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }
