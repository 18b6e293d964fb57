"""Taking packages in: identity of content, slots, limits, static checks, withdrawal.

A zip is kept in the blob store only while its submission may still be run; a refused one leaves its reasons behind,
but no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gas.arena.competitions import Competition
from gas.arena.likeness import keep_sketches, nearest_weights, note_nearest
from gas.arena.ports import ArenaConfig, CheckedPackage, PackageChecker
from gas.arena.pushes import PushLabel
from gas.arena.states import SLOT_STATES, transition
from gas.clock import Clock, IdSource
from gas.errors import InfrastructureError, PackageRejected, Reason, RequestRefused
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import RoundRow, SubmissionRow
from gas.types import TERMINAL_STATES, Modality, SubmissionState, Vertical

__all__ = ["Received", "Submissions", "file_sha256", "stored_reasons", "submission_key"]

_S = SubmissionState


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
            self._refuse_over_limits(session, hotkey, rules)
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
            if known is None:
                raise
            return known
        except RequestRefused:
            self.release_blob(blob)
            raise
        self.scan(row.id, package)
        return Received(True, row.id, row.key, sha256, _S.SCANNING, slot, rules.slots)

    def scan(self, submission_id: str, package: Path) -> None:
        """Run the static checks and keep what they find; repeatable after a crash.

        Raises:
            gas.errors.PackageRejected: The submission is now rejected.
        """
        with self.database.write() as session:
            row = session.get_one(SubmissionRow, submission_id)
            modality = Modality(row.modality)
            if row.state == _S.UPLOADED:
                transition(session, row, _S.SCANNING, now=self.clock.time())
        try:
            checked: CheckedPackage = self.check(package, modality)
        except PackageRejected as rejected:
            with self.database.write() as session:
                row = session.get_one(SubmissionRow, submission_id)
                blob = row.zip_blob
                transition(session, row, _S.REJECTED, now=self.clock.time(), reasons=rejected.reasons)
                row.zip_blob = None
            self.release_blob(blob)
            raise
        with self.database.write() as session:
            row = session.get_one(SubmissionRow, submission_id)
            row.name = checked.name[:128]
            row.weights_sha256 = checked.weights_sha256
            row.code_sha256 = checked.code_sha256
            keep_sketches(session, submission_id, checked.sketches)
        with self.database.read() as session:
            row = session.get_one(SubmissionRow, submission_id)
            near = nearest_weights(session, row, within=self.config.rules_of(row).weights_within)
        if near is not None:
            with self.database.write() as session:
                note_nearest(session, submission_id, near)

    def withdraw(self, hotkey: str, submission_id: str) -> None:
        """Take a submission back; its slot is free at once.

        Raises:
            gas.errors.RequestRefused: 404 when the hotkey has no such submission.
            gas.arena.states.IllegalTransition: It has ended already.
        """
        with self.database.write() as session:
            row = session.get(SubmissionRow, submission_id)
            if row is None or row.hotkey != hotkey:
                raise RequestRefused("There is no such submission.", status=404, code="unknown_submission")
            blob = row.zip_blob
            transition(session, row, _S.WITHDRAWN, now=self.clock.time())
            row.zip_blob = None
        self.release_blob(blob)

    def release_blob(self, blob: str | None) -> None:
        """Delete a zip that no submission refers to any more."""
        if blob is None:
            return
        # Inside the write lock, so that nobody takes the same content in between.
        with self.database.write() as session:
            if not session.scalar(select(func.count()).where(SubmissionRow.zip_blob == blob)):
                self.blobs.delete(blob)

    def resume_scans(self, *, older_than_seconds: float) -> Sequence[str]:
        """Scan again what a dead service left unscanned; returns the ids."""
        limit = self.clock.time() - older_than_seconds
        with self.database.read() as session:
            rows = session.scalars(
                select(SubmissionRow).where(
                    SubmissionRow.state.in_((_S.UPLOADED.value, _S.SCANNING.value)),
                    SubmissionRow.weights_sha256.is_(None),
                    SubmissionRow.state_since < limit,
                )
            ).all()
        for row in rows:
            self.scratch.mkdir(parents=True, exist_ok=True)
            package = self.scratch / f"{row.id}.zip"
            try:
                self.blobs.get_file(row.zip_blob or "", package)
                self.scan(row.id, package)
            except PackageRejected:
                continue
            except InfrastructureError as error:
                with self.database.write() as session:
                    fresh = session.get_one(SubmissionRow, row.id)
                    transition(session, fresh, _S.FAILED, now=self.clock.time(), error=error.as_dict())
            finally:
                package.unlink(missing_ok=True)
        return [row.id for row in rows]

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
            if row is None or _may_be_replaced(row):
                return None
            slots = self._slots_of(row)
            slot = self._slots_taken(session, hotkey, Modality(row.modality), Vertical(row.vertical))
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
            self._refuse_over_limits(session, hotkey, rules)
            earlier = session.scalar(
                select(SubmissionRow).where(SubmissionRow.hotkey == hotkey, SubmissionRow.sha256 == row.sha256)
            )
            if earlier is not None and _may_be_replaced(earlier):
                session.execute(delete(SubmissionRow).where(SubmissionRow.id == earlier.id))
                session.expunge(earlier)
            _refuse_second_of_push(session, row)
            session.add(row)
            session.flush()
            return self._slots_taken(session, hotkey, rules.modality, rules.vertical)

    def _slots_of(self, row: SubmissionRow) -> int:
        try:
            return self.config.rules(Modality(row.modality), Vertical(row.vertical)).slots
        except RequestRefused:
            # The owner has ended the competition since; what was handed in then stays what it was.
            return self.config.slots

    def _slots_taken(self, session: Session, hotkey: str, modality: Modality, vertical: Vertical) -> int:
        return (
            session.scalar(
                select(func.count()).where(
                    SubmissionRow.hotkey == hotkey,
                    SubmissionRow.modality == modality.value,
                    SubmissionRow.vertical == vertical.value,
                    SubmissionRow.state.in_([state.value for state in SLOT_STATES]),
                )
            )
            or 0
        )

    def _refuse_over_limits(self, session: Session, hotkey: str, rules: Competition) -> None:
        if self._slots_taken(session, hotkey, rules.modality, rules.vertical) >= rules.slots:
            raise RequestRefused(
                f"All {rules.slots} slots of this hotkey for {rules.name} are taken.",
                status=429,
                code="no_slot",
                hint="Withdraw a model, or wait for the end of its run.",
            )
        opened = session.scalar(
            select(func.max(RoundRow.opened_at)).where(
                RoundRow.modality == rules.modality.value,
                RoundRow.vertical == rules.vertical.value,
                RoundRow.state == "open",
            )
        )
        rows = session.scalars(
            select(SubmissionRow).where(
                SubmissionRow.hotkey == hotkey,
                SubmissionRow.modality == rules.modality.value,
                SubmissionRow.vertical == rules.vertical.value,
                SubmissionRow.created_at >= (opened or 0.0),
                SubmissionRow.state != _S.REJECTED.value,
            )
        )
        if sum(1 for row in rows if not _ours(row) and not _unseen(row)) >= rules.pushes_per_round:
            raise RequestRefused(
                f"A hotkey may have {rules.pushes_per_round} packages examined in a round of {rules.name}.",
                status=429,
                code="push_limit",
                hint="Wait for the next round.",
            )


def _ours(row: SubmissionRow) -> bool:
    """Whether the submission ended by a fault of ours, which costs its author nothing."""
    return row.state == _S.FAILED and row.error is not None


def _unseen(row: SubmissionRow) -> bool:
    """Whether the author took it back before its exam began: later he may know the result, and the push counts."""
    return row.state == _S.WITHDRAWN and row.attempts == 0


def _refuse_second_of_push(session: Session, row: SubmissionRow) -> None:
    """A push has the modalities that its first package named, and one examined model of each."""
    if row.push_id is None:
        return
    others = session.scalars(
        select(SubmissionRow).where(SubmissionRow.hotkey == row.hotkey, SubmissionRow.push_id == row.push_id)
    ).all()
    if any(one.push_modalities != row.push_modalities for one in others):
        raise RequestRefused("This push was begun with other modalities.", status=422, code="bad_push")
    if any(one.modality == row.modality and one.state != _S.REJECTED and not _may_be_replaced(one) for one in others):
        raise RequestRefused(f"This push has its {row.modality} model already.", status=422, code="bad_push")


def _may_be_replaced(row: SubmissionRow) -> bool:
    """Whether the same content may be handed in anew."""
    return SubmissionState(row.state) in TERMINAL_STATES and (row.state == _S.WITHDRAWN or _ours(row))
