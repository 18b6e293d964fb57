"""Near copies by their weights: sketches of what each submission holds, compared with those of other hotkeys.

At its scan a submission is compared with all others of its modality, and again when its exam begins: then the
commitments are known, and only older ones count, so that the earlier commitment keeps the credit. What is nearer than
the competition's ``weights_flag`` is kept for the owner of the arena to see; what is nearer than its ``weights_limit``
is blocked. A model inside of which another one is found is kept to be seen as well, however much it was padded, and is
not blocked for it: whoever hands in a part that many share would otherwise block them all.

Near weights are a hint, and no proof: two honest authors who trained on from the same public model are as near as a
thief who trained a little on. How many tensors have no near partner is told with the distance: a thief who only adds
noise leaves none apart. What is covered and what is not says :mod:`gas.submissions.sketch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from gas.errors import Reason
from gas.storage.tables import SketchRow, SubmissionRow
from gas.submissions.sketch import (
    SKETCH_ROW,
    SMALLEST_SHARE,
    TensorSketch,
    load_sketches,
    measure_distance,
    store_sketches,
    unit_rows,
)
from gas.types import SubmissionState

__all__ = ["NearWeights", "keep_sketches", "near_copy", "near_weights", "nearest_weights", "note_nearest", "search"]

_EXACT: Final = 32
"""Of how many of the nearest the distance itself is measured."""
_ROWS: Final = 8192
"""Sketches of others that are looked at together: more of them take memory, fewer take time."""
_Candidate = tuple[float, int, str, bytes]


@dataclass(frozen=True, slots=True)
class NearWeights:
    """Another hotkey's submission whose weights are near.

    Attributes:
        submission_id: Whose weights.
        distance: From 0 (the same but for scale) to 1 (unrelated), measured by the larger model.
        apart: Tensors that have no near partner in the other model.
        tensors: Tensors that were compared.
        inside: The same, measured by the smaller model: how much of it is inside the larger one.
    """

    submission_id: str
    distance: float
    apart: int
    tensors: int
    inside: float = 1.0

    def as_dict(self) -> dict[str, object]:
        """JSON form for the arena's owner and the author; names only the beginning of the other submission's id."""
        return {
            "submission": self.submission_id[:8],
            "distance": round(self.distance, 6),
            "inside": round(self.inside, 6),
            "tensors_apart": self.apart,
            "tensors": self.tensors,
        }


def keep_sketches(session: Session, submission_id: str, sketches: Sequence[TensorSketch]) -> None:
    """Keep a submission's sketches; those of an earlier scan of it are replaced."""
    session.merge(SketchRow(submission_id=submission_id, sketches=store_sketches(sketches), nearest=None))


def nearest_weights(
    session: Session, submission: SubmissionRow, *, within: float, committed: bool = False
) -> NearWeights | None:
    """The submission of another hotkey in the same modality whose weights are nearest.

    Args:
        session: For reading.
        submission: Whose sketches are kept.
        within: Distance below which it is told.
        committed: Compare only with older commitments; equal blocks are decided by the time of the upload.
    """
    mine = session.get(SketchRow, submission.id)
    if mine is None or not mine.sketches:
        return None
    query = (
        select(SubmissionRow.id, SketchRow.sketches)
        .join(SketchRow, SketchRow.submission_id == SubmissionRow.id)
        .where(
            SubmissionRow.modality == submission.modality,
            SubmissionRow.hotkey != submission.hotkey,
            SubmissionRow.state != SubmissionState.REJECTED.value,
        )
        .order_by(SubmissionRow.created_at, SubmissionRow.id)
    )
    if committed:
        block, created = submission.committed_block, submission.created_at
        query = query.where(
            or_(
                SubmissionRow.committed_block < block,
                (SubmissionRow.committed_block == block) & (SubmissionRow.created_at < created),
            )
        )
    others = session.execute(query.execution_options(yield_per=100)).tuples()
    return search(load_sketches(mine.sketches), others, within)


def search(mine: Sequence[TensorSketch], others: Iterable[tuple[str, bytes]], within: float) -> NearWeights | None:
    """The nearest of many models; if none is near, the one that is nearest to being inside of it, or it inside of one.

    First a bound of all distances is taken, from each tensor's best partner of its size whoever else wants it; then the
    distance itself of the nearest. Memory does not grow with the number of models.

    Args:
        mine: A model's sketches.
        others: Others' submissions and their stored sketches, oldest first.
        within: Distance below which one is told.
    """
    if not mine:
        return None
    # By either measure: bound, place among the others (the older first), submission, sketches.
    nearest: tuple[list[_Candidate], list[_Candidate]] = ([], [])
    seen = 0
    for block in _blocks(others):
        bounds = _bounds(mine, [np.frombuffer(stored, SKETCH_ROW) for _, stored in block])
        for best, values in zip(nearest, bounds, strict=True):
            chosen = np.flatnonzero(values < within)
            best += [(float(values[k]), seen + int(k), *block[k]) for k in chosen]
            best.sort(key=lambda one: one[:2])
            del best[_EXACT:]
        seen += len(block)
    by_distance, by_inside = nearest
    found: NearWeights | None = None
    for bound, _, name, stored in by_distance:
        if bound >= (within if found is None else found.distance):
            break
        one = _measured(mine, name, stored)
        if one.distance < (within if found is None else found.distance):
            found = one
    if found is not None:
        return found
    for bound, _, name, stored in by_inside:
        if bound >= (within if found is None else found.inside):
            break
        one = _measured(mine, name, stored)
        if one.inside < (within if found is None else found.inside):
            found = one
    return found


def note_nearest(session: Session, submission_id: str, near: NearWeights | None) -> None:
    """Keep what was found for the owner of the arena to see; None takes an earlier finding back."""
    row = session.get(SketchRow, submission_id)
    if row is not None:
        row.nearest = None if near is None else _stored(near)


def near_weights(session: Session, submissions: Iterable[str]) -> dict[str, NearWeights]:
    """What was found of some submissions, by their ids."""
    rows = session.scalars(
        select(SketchRow).where(SketchRow.submission_id.in_(list(submissions)), SketchRow.nearest.is_not(None))
    )
    return {row.submission_id: NearWeights(**row.nearest) for row in rows if row.nearest is not None}


def near_copy(near: NearWeights, limit: float) -> Reason:
    """What the author of a blocked submission is told."""
    return Reason(
        "near_copy",
        f"The model's weights are at a distance of {near.distance:.5f} from those of an earlier model of another "
        f"hotkey ({near.submission_id[:8]}): {near.tensors - near.apart} of {near.tensors} tensors are nearly the "
        f"same. The limit of this competition is {limit:g}; the credit stays with the earlier commitment.",
    )


def _stored(near: NearWeights) -> dict[str, Any]:
    return {
        "submission_id": near.submission_id,
        "distance": near.distance,
        "apart": near.apart,
        "tensors": near.tensors,
        "inside": near.inside,
    }


def _measured(mine: Sequence[TensorSketch], name: str, stored: bytes) -> NearWeights:
    exact = measure_distance(mine, load_sketches(stored))
    return NearWeights(name, exact.distance, exact.apart, exact.tensors, exact.inside)


def _blocks(others: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Models together, as long as their sketches are not too many at a time; those without any are left out."""
    block: list[tuple[str, bytes]] = []
    rows = 0
    for name, stored in others:
        if stored:
            block.append((name, stored))
            rows += len(stored) // SKETCH_ROW.itemsize
        if rows >= _ROWS:
            yield block
            block, rows = [], 0
    if block:
        yield block


def _bounds(
    mine: Sequence[TensorSketch], others: Sequence[NDArray[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each other model two numbers: its distance is not below the one, what is inside not below the other."""
    lengths = [len(table) for table in others]
    rows = np.concatenate(others)
    owners = np.repeat(np.arange(len(others)), lengths)
    order = np.argsort(rows["elements"], kind="stable")
    sizes = rows["elements"][order]
    totals = np.bincount(owners, weights=rows["elements"].astype(np.float64), minlength=len(others))
    alike = np.zeros(len(others))
    for elements in {one.elements for one in mine}:
        low, high = np.searchsorted(sizes, elements, "left"), np.searchsorted(sizes, elements, "right")
        if low == high:
            continue
        picked = order[low:high]
        ours = unit_rows([one.values for one in mine if one.elements == elements]).astype(np.float32)
        theirs = unit_rows(rows["values"][picked]).astype(np.float32)
        cosines = np.clip(theirs @ ours.T, 0.0, 1.0)
        # A stable order by size keeps the rows of one model together.
        starts = np.flatnonzero(np.diff(owners[picked], prepend=-1))
        alike[owners[picked][starts]] += elements * np.maximum.reduceat(cosines, starts, axis=0).sum(axis=1)
    own = float(sum(one.elements for one in mine))
    most, least = np.maximum(totals, own), np.minimum(totals, own)
    # A hair less, so that rounding never hides a model from the exact measure.
    distances = 1.0 - alike / np.maximum(most, 1.0) - 1e-5
    inside = 1.0 - alike / np.maximum(least, 1.0) - 1e-5
    return distances, np.where(least >= most * SMALLEST_SHARE, inside, 1.0)
