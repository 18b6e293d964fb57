"""Which of its errors an author may look at: those on public media, with the picture.

The exam's are shown at once: it is drawn from public data alone. Those of a round wait for its end, because which
media a round has drawn is nobody's business while it runs. Held-out and arena media are never shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.arena.rounds import load_round
from gas.bench.batches import Pass
from gas.bench.records import from_parquet
from gas.bench.report.single import view_of
from gas.bench.report.thumbnails import thumbnail
from gas.datasets.plan import Round
from gas.errors import MediaRejected, StorageError
from gas.storage.blobs import BlobStore
from gas.storage.tables import RoundRow, RunRow, SubmissionRow
from gas.types import Modality, Provenance, SampleStatus

__all__ = ["ShownError", "error_picture", "shown_errors"]

_SIDES = {Modality.IMAGE: 256, Modality.VIDEO: 1020, Modality.AUDIO: 480}


@dataclass(frozen=True, slots=True)
class ShownError:
    """A public medium on which a model was wrong.

    Attributes:
        run_id: In which run.
        kind: ``exam`` or ``full``.
        sample_id: The normalised medium.
        media_type: What it is.
        dataset: Of which public set.
        source: Package of photos, or generator.
        p_fake: What the model said, in [0, 1].
    """

    run_id: str
    kind: str
    sample_id: str
    media_type: str
    dataset: str
    source: str
    p_fake: float

    @property
    def error(self) -> float:
        """How far from the truth, in (0, 1]."""
        return self.p_fake if self.media_type == "real" else 1.0 - self.p_fake

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "run_id": self.run_id,
            "kind": self.kind,
            "sample_id": self.sample_id,
            "media_type": self.media_type,
            "dataset": self.dataset,
            "source": self.source,
            "p_fake": self.p_fake,
        }


def shown_errors(
    session: Session, blobs: BlobStore, submission: SubmissionRow, *, count: int = 24
) -> tuple[ShownError, ...]:
    """The worst errors of a submission on public media, the worst first, each medium once.

    Args:
        session: For reading.
        blobs: Plans and records.
        submission: Whose.
        count: How many at most.

    Raises:
        gas.errors.StorageError: A plan or records can't be read.
    """
    found: dict[str, ShownError] = {}
    for run, round_ in _runs(session, blobs, submission):
        public = {s.sample_id: s for s in round_.samples if s.provenance is Provenance.PUBLIC}
        for record in from_parquet(blobs.get(run.records_blob or "")):
            sample = public.get(record.sample_id)
            if (
                sample is None
                or record.variant is not Pass.BASE
                or record.status is not SampleStatus.OK
                or record.p_fake is None
                or record.fake is sample.media_type.is_fake
            ):
                continue
            found[sample.sample_id] = ShownError(
                run.id,
                run.kind,
                sample.sample_id,
                sample.media_type.value,
                sample.dataset,
                sample.source,
                float(record.p_fake),
            )
    return tuple(sorted(found.values(), key=lambda one: (-one.error, one.sample_id))[:count])


def error_picture(session: Session, blobs: BlobStore, submission: SubmissionRow, sample_id: str) -> bytes | None:
    """A small JPEG of one of the errors that are shown: picture, film strip or spectrogram; None for any other medium.

    Raises:
        gas.errors.StorageError: As :func:`shown_errors`, or the medium can't be read.
    """
    if not any(one.sample_id == sample_id for one in shown_errors(session, blobs, submission)):
        return None
    modality = Modality(submission.modality)
    try:
        return thumbnail(view_of(blobs.get(sample_id), modality), side=_SIDES[modality])
    except MediaRejected as error:
        raise StorageError("The medium can't be decoded any more.", code="medium_damaged") from error


def _runs(session: Session, blobs: BlobStore, submission: SubmissionRow) -> Iterator[tuple[RunRow, Round]]:
    rows = session.execute(
        select(RunRow, RoundRow)
        .join(RoundRow, RoundRow.id == RunRow.round_id)
        .where(RunRow.submission_id == submission.id, RunRow.state == "done", RunRow.records_blob.is_not(None))
    ).tuples()
    for run, row in rows:
        if run.kind == "exam":
            yield run, load_round(blobs, row.exam_blob or row.plan_blob)
        elif row.state == "closed":
            yield run, load_round(blobs, row.plan_blob)
