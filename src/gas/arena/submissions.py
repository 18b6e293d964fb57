"""Taking packages in: identity of content, slots, limits, static checks, withdrawal.

A zip is kept in the blob store only while its submission may still be run; a refused one leaves its reasons behind,
but no file.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from gas.arena.allowances import (
    carry_over,
    may_be_replaced,
    refuse_over_limits,
    refuse_second_of_push,
    slots_taken,
)
from gas.arena.competitions import Competition
from gas.arena.likeness import keep_sketches, nearest_weights, note_nearest
from gas.arena.ports import ArenaConfig, CheckedPackage, PackageChecker
from gas.arena.pushes import PushLabel
from gas.arena.states import LIVE_ROUNDS, IllegalTransition, transition
from gas.clock import Clock, IdSource
from gas.errors import InfrastructureError, PackageRejected, Reason, RequestRefused
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import RoundRow, RunRow, SubmissionRow
from gas.types import TERMINAL_STATES, Modality, SubmissionState, Vertical

__all__ = ["Received", "Submissions", "file_sha256", "stored_reasons", "submission_key"]

_S = SubmissionState
_LOG = structlog.get_logger(__name__)
_MOST_RELEASED: Final = 50


@dataclass(frozen=True, slots=True)
class Received:
    """Answer to an upload.

    Attributes:
        created: False when this hotkey has this content already: then the earlier submission is meant.
        model_id: The submission's id.
        key: What the commitment on the chain must name.
        sha256: Hex digest of the zip.
        state: Where the submission is.
        slot: 1-based number of the slot that it takes.
        slots: How many slots there are.
        reasons: Findings, for an earlier submission that was refused.
    """

    created: bool
    model_id: str
    key: str
    sha256: str
    state: SubmissionState
    slot: int
    slots: int
    reasons: tuple[Reason, ...] = ()


def submission_key(hotkey: str, sha256: str) -> str:
    """The key of one content of one hotkey: 32 hex digits, the same at every push."""
    return hashlib.sha256(f"{hotkey}/{sha256}".encode()).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_reasons(row: SubmissionRow) -> tuple[Reason, ...]:
    """The findings that a row keeps."""
    return tuple(Reason(**reason) for reason in row.reasons)


@dataclass(frozen=True, slots=True)
class Submissions:
    """The desk at which packages are handed in.

    Attributes:
        database: Where submissions live.
        blobs: Where zips live.
        check: The static checks.
        config: The arena's rules.
        clock: For dates.
        ids: For ids.
        scratch: Folder for files under way; swept by :meth:`sweep`.
    """

    database: Database
    blobs: BlobStore
    check: PackageChecker
    config: ArenaConfig
    clock: Clock
    ids: IdSource
    scratch: Path = field(default=Path("incoming"))

    def receive(
        self, hotkey: str, package: Path, modality: Modality, vertical: Vertical, push: PushLabel | None = None
    ) -> Received:
        """Take one zip.

        Args:
            hotkey: Who signed the request.
            package: The zip; the caller deletes it afterwards.
            modality: What it claims to detect.
            vertical: In which specialisation it competes.
            push: With which others it is pushed; None for a push of its own.

        Raises:
            gas.errors.RequestRefused: 413 ``too_large``, 422 ``vertical``, ``no_competition`` or ``bad_push``, 429
                ``no_slot`` or ``push_limit``.
            gas.errors.PackageRejected: The static checks found reasons; they are kept with the submission.
            gas.errors.StorageError: The disk or the database failed; nothing was taken.
        """
        if vertical is Vertical.HUMAN and modality is Modality.AUDIO:
            raise RequestRefused(
                "There is no vertical human for audio.", status=422, code="vertical", hint="Push to general."
            )
        rules = self.config.rules(modality, vertical)
        size = package.stat().st_size
        if size > rules.max_upload_bytes:
            raise RequestRefused(
                f"The package has {size} bytes; the limit is {rules.max_upload_bytes}.", status=413, code="too_large"
            )
        sha256 = file_sha256(package)
        known = self._known(hotkey, sha256)
        if known is not None:
            return known
        with self.database.read() as session:
            refuse_over_limits(session, hotkey, rules)
        blob = self.blobs.put_file(package)
        row = SubmissionRow(
            id=self.ids.new(),
            hotkey=hotkey,
            key=submission_key(hotkey, sha256),
            sha256=sha256,
            zip_blob=blob,
            size=size,
            modality=modality.value,
            vertical=vertical.value,
            name="",
            state=_S.UPLOADED.value,
            state_since=self.clock.time(),
            reasons=[],
            created_at=self.clock.time(),
            attempts=0,
            push_id=push.push_id if push is not None else None,
            push_modalities=push.stored if push is not None else None,
        )
        try:
            slot = self._insert(row, hotkey, rules)
        except IntegrityError:
            known = self._known(hotkey, sha256)
            self.release_blob(blob)
            if known is None:
                raise
            return known
        except RequestRefused:
            self.release_blob(blob)
            raise
        if not self.blobs.exists(blob):
            # The last other submission with this content has ended between the two; from now on the row holds it.
            self.blobs.put_file(package)
        self.scan(row.id, package)
        return Received(True, row.id, row.key, sha256, _S.SCANNING, slot, rules.slots)

    def scan(self, submission_id: str, package: Path) -> None:
        """Run the static checks and keep what they find; repeatable after a crash.

        A submission that was withdrawn meanwhile stays as it is. One on which the checks break is ended as a fault of
        ours, so that no package can stop who scans it twice.

        Raises:
            gas.errors.PackageRejected: The submission is now rejected.
            gas.errors.InfrastructureError: We could not check it; ``internal`` when the checks broke.
        """
        try:
            self._scan(submission_id, package)
        except (PackageRejected, InfrastructureError):
            raise
        except Exception as error:
            # Formatted here: a renderer that prints local variables might print a secret.
            trace = "".join(traceback.format_exception(error, limit=-20))
            _LOG.error("scan_broke", submission=submission_id, trace=trace)
            broken = InfrastructureError("The checks broke; this is a fault of ours.", code="internal")
            self._end(submission_id, _S.FAILED, error=broken.as_dict())
            raise broken from error

    def _scan(self, submission_id: str, package: Path) -> None:
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or row.state not in (_S.UPLOADED, _S.SCANNING):
                return
            modality = Modality(row.modality)
            row.scans += 1
            if row.state == _S.UPLOADED:
                transition(session, row, _S.SCANNING, now=self.clock.time())
        try:
            checked: CheckedPackage = self.check(package, modality)
        except PackageRejected as rejected:
            self._end(submission_id, _S.REJECTED, reasons=rejected.reasons)
            raise
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None:
                return
            row.name = checked.name[:128]
            row.weights_sha256 = checked.weights_sha256
            row.code_sha256 = checked.code_sha256
            keep_sketches(session, submission_id, checked.sketches)
        with self.database.read() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None:
                return
            near = nearest_weights(session, row, within=self.config.rules_of(row).weights_within)
        if near is not None:
            with self.database.write() as session:
                note_nearest(session, submission_id, near)

    def _end(
        self,
        submission_id: str,
        to: SubmissionState,
        *,
        reasons: Sequence[Reason] = (),
        error: Mapping[str, str] | None = None,
    ) -> None:
        """End a submission and let its zip go, unless it has ended or was replaced meanwhile."""
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or SubmissionState(row.state) in TERMINAL_STATES:
                return
            blob = row.zip_blob
            transition(session, row, to, now=self.clock.time(), reasons=reasons, error=error)
            row.zip_blob = None
        self.release_blob(blob)

    def withdraw(self, hotkey: str, submission_id: str) -> None:
        """Take a submission back; its slot is free at once.

        A model that was scored leaves the standings of its round while that is open; in those of a closed one it
        stays. Its runs and their receipts are kept.

        Raises:
            gas.errors.RequestRefused: 404 when the hotkey has no such submission.
            gas.arena.states.IllegalTransition: It has ended already.
        """
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or row.hotkey != hotkey:
                raise RequestRefused("There is no such submission.", status=404, code="unknown_submission")
            if SubmissionState(row.state) in TERMINAL_STATES - {_S.SCORED}:
                raise IllegalTransition(f"There is nothing to take back: the submission is {row.state}.")
            blob = row.zip_blob
            transition(session, row, _S.WITHDRAWN, now=self.clock.time())
            row.zip_blob = None
            for run in session.scalars(
                select(RunRow)
                .join(RoundRow, RoundRow.id == RunRow.round_id)
                .where(RunRow.submission_id == submission_id, RunRow.kind == "full", RunRow.state == "done")
                .where(RoundRow.state.in_(LIVE_ROUNDS))
            ):
                run.state = "withdrawn"
            # What is under way is broken off by its evaluator, and nobody else would say that it has ended.
            under_way = select(RunRow).where(RunRow.submission_id == submission_id, RunRow.state == "running")
            for run in session.scalars(under_way):
                run.state, run.finished_at = "withdrawn", self.clock.time()
        self.release_blob(blob)

    def release_ended(self) -> None:
        """Let the zips go of submissions that have ended without a score, whoever ended them."""
        without_score = [state.value for state in TERMINAL_STATES - {_S.SCORED}]
        with self.database.read() as session:
            ended = session.scalars(
                select(SubmissionRow.id)
                .where(SubmissionRow.state.in_(without_score), SubmissionRow.zip_blob.is_not(None))
                .limit(_MOST_RELEASED)
            ).all()
        for submission_id in ended:
            with self.database.write() as session:
                row = session.get(SubmissionRow, submission_id)
                if row is None:
                    continue
                blob, row.zip_blob = row.zip_blob, None
            self.release_blob(blob)

    def release_blob(self, blob: str | None) -> None:
        """Delete a zip that no submission refers to any more."""
        if blob is None:
            return
        # Inside the write lock, so that nobody takes the same content in between.
        with self.database.write() as session:
            if not session.scalar(select(func.count()).where(SubmissionRow.zip_blob == blob)):
                self.blobs.delete(blob)

    def resume_scans(self, *, older_than_seconds: float, most: int | None = None) -> Sequence[str]:
        """Scan again what a dead service left unscanned; returns the ids.

        Each is claimed first, so that of several workers one scans it. One package's end is nobody else's.

        Args:
            older_than_seconds: How long ago its scan must have begun.
            most: How many at most.

        Raises:
            gas.errors.StorageError: The database does not answer.
        """
        limit = self.clock.time() - older_than_seconds
        with self.database.read() as session:
            rows = session.scalars(
                select(SubmissionRow)
                .where(
                    SubmissionRow.state.in_((_S.UPLOADED.value, _S.SCANNING.value)),
                    SubmissionRow.weights_sha256.is_(None),
                    SubmissionRow.state_since < limit,
                )
                .order_by(SubmissionRow.created_at)
            ).all()
        done: list[str] = []
        for row in rows:
            if most is not None and len(done) >= most:
                break
            if self._claim(row):
                done.append(row.id)
                self._scan_again(row)
        return done

    def _claim(self, seen: SubmissionRow) -> bool:
        """Take a row for scanning: who comes later sees a scan that has just begun."""
        with self.database.write() as session:
            claimed = session.execute(
                update(SubmissionRow)
                .where(SubmissionRow.id == seen.id, SubmissionRow.state == seen.state)
                .where(SubmissionRow.state_since == seen.state_since, SubmissionRow.weights_sha256.is_(None))
                .values(state_since=self.clock.time())
                .returning(SubmissionRow.id)
            ).scalar_one_or_none()
        return claimed is not None

    def _scan_again(self, row: SubmissionRow) -> None:
        if row.scans >= self.config.max_attempts:
            # Whoever scans it dies: a package must not take one worker after the other along.
            self._end(row.id, _S.FAILED, error={"code": "worker_lost", "message": "The checks were interrupted."})
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        package = self.scratch / f"{row.id}.zip"
        try:
            self.blobs.get_file(row.zip_blob or "", package)
            self.scan(row.id, package)
        except PackageRejected:
            return
        except InfrastructureError as error:
            self._end(row.id, _S.FAILED, error=error.as_dict())
        finally:
            package.unlink(missing_ok=True)

    def sweep(self) -> None:
        """At start: delete the files that a killed service left under way."""
        if self.scratch.is_dir():
            for path in self.scratch.iterdir():
                path.unlink()

    def _known(self, hotkey: str, sha256: str) -> Received | None:
        with self.database.read() as session:
            row = session.scalar(
                select(SubmissionRow).where(SubmissionRow.hotkey == hotkey, SubmissionRow.sha256 == sha256)
            )
            if row is None or may_be_replaced(session, row):
                return None
            slots = self._slots_of(row)
            slot = slots_taken(session, hotkey, Modality(row.modality), Vertical(row.vertical))
            return Received(
                False,
                row.id,
                row.key,
                sha256,
                SubmissionState(row.state),
                slot,
                slots,
                stored_reasons(row),
            )

    def _insert(self, row: SubmissionRow, hotkey: str, rules: Competition) -> int:
        with self.database.write() as session:
            self.database.lock(session, f"submissions/{hotkey}")
            refuse_over_limits(session, hotkey, rules)
            earlier = session.scalar(
                select(SubmissionRow).where(SubmissionRow.hotkey == hotkey, SubmissionRow.sha256 == row.sha256)
            )
            if earlier is not None and may_be_replaced(session, earlier):
                carry_over(session, earlier, row, rules)
                session.execute(delete(SubmissionRow).where(SubmissionRow.id == earlier.id))
                session.expunge(earlier)
            refuse_second_of_push(session, row)
            session.add(row)
            session.flush()
            return slots_taken(session, hotkey, rules.modality, rules.vertical)

    def _slots_of(self, row: SubmissionRow) -> int:
        try:
            return self.config.rules(Modality(row.modality), Vertical(row.vertical)).slots
        except RequestRefused:
            # The owner has ended the competition since; what was handed in then stays what it was.
            return self.config.slots
