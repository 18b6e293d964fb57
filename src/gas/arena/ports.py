"""What the arena asks of its collaborators, and the words it shares with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gas.arena.competitions import Competition, Competitions, default_competitions
from gas.errors import RequestRefused
from gas.sandbox.base import Limits, Tier
from gas.storage.tables import SubmissionRow
from gas.submissions.sketch import TensorSketch
from gas.types import Modality, Vertical

__all__ = [
    "ArenaConfig",
    "CheckedPackage",
    "Evaluator",
    "Judgement",
    "PackageChecker",
    "RunKind",
    "RunOutcome",
    "RunTask",
]

RunKind = str
"""``"exam"`` (the small plan) or ``"full"`` (the whole round)."""


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """Rules of one arena.

    Attributes:
        netuid: Subnet whose commitments and metagraph count.
        slots: Models that a hotkey may have in a modality at a time.
        pushes_per_round: Packages that a hotkey may have examined in one round of a modality: a limit to hill-climbing.
        max_upload_bytes: Largest zip.
        exam_accuracy: Least accuracy of the entrance exam, in [0, 1].
        exam_seconds: Longest exam.
        exam_wait_seconds: How long a model that was pushed with others waits for their exams after its own.
        run_seconds: Longest full run.
        commitment_seconds: How long an upload waits for its commitment.
        max_attempts: Starts of one job before a fault of ours becomes final: the first and two more.
        similarity_limit: Correlation with another hotkey's answers in the exam above which a model counts as a copy.
        competitions: What is offered, with rules of their own; when left out, every modality and vertical under the
            rules above.
    """

    netuid: int = 1
    slots: int = 3
    pushes_per_round: int = 10
    max_upload_bytes: int = 2 * 2**30
    exam_accuracy: float = 0.8
    exam_seconds: float = 85 * 60
    exam_wait_seconds: float = 85 * 60
    run_seconds: float = 5 * 3600
    commitment_seconds: float = 3600
    max_attempts: int = 3
    similarity_limit: float = 0.999
    competitions: Competitions | None = None

    @property
    def offered(self) -> Competitions:
        """The competitions in force."""
        if self.competitions is not None:
            return self.competitions
        return default_competitions(
            Competition(
                "default",
                Modality.IMAGE,
                slots=self.slots,
                pushes_per_round=self.pushes_per_round,
                exam_accuracy=self.exam_accuracy,
                exam_seconds=self.exam_seconds,
                exam_wait_seconds=self.exam_wait_seconds,
                run_seconds=self.run_seconds,
                similarity_limit=self.similarity_limit,
                max_upload_bytes=self.max_upload_bytes,
            )
        )

    @property
    def largest_upload(self) -> int:
        """Bytes of the largest zip that any competition takes."""
        return max(one.max_upload_bytes for one in self.offered.all)

    def rules(self, modality: Modality, vertical: Vertical = Vertical.GENERAL) -> Competition:
        """The rules of one competition.

        Raises:
            gas.errors.RequestRefused: 422 ``no_competition``.
        """
        return self.offered.of(modality, vertical)

    def rules_of(self, row: SubmissionRow) -> Competition:
        """The rules that a submission is under; the defaults when the owner has ended its competition since."""
        modality, vertical = Modality(row.modality), Vertical(row.vertical)
        try:
            return self.rules(modality, vertical)
        except RequestRefused:
            return default_competitions().of(modality, vertical)


@dataclass(frozen=True, slots=True)
class CheckedPackage:
    """What the static checks tell about an acceptable package.

    Attributes:
        name: The model's name, as its author gave it.
        weights_sha256: Hash of the canonical weights.
        code_sha256: Hash of model.py without comments; None for ONNX.
        sketches: Of its tensors; what near copies are found by.
    """

    name: str
    weights_sha256: str
    code_sha256: str | None
    sketches: tuple[TensorSketch, ...] = ()


class PackageChecker(Protocol):
    """Runs the static checks on a zip."""

    def __call__(self, path: Path, modality: Modality) -> CheckedPackage:
        """Check one zip.

        Raises:
            gas.errors.PackageRejected: With every reason.
        """
        ...


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model said about one arena medium: ``fooled`` when it took it for real."""

    media_sha256: str
    fooled: bool


def _wanted() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RunTask:
    """One evaluation to be done.

    Attributes:
        run_id: Stable over restarts of the same evaluation.
        package: The zip, as uploaded.
        kind: Exam or full run.
        round_blob: Blob with the round (or, for an exam, with the small plan).
        seconds: Wall clock that the evaluation may take.
        limits: What one model process may use; the evaluator's own when None.
        min_tier: Weakest isolation that will do; the evaluator's own when None.
        distorted: Public media of each class that an exam shows again with each kind of distortion; none when 0.
        given_up: Whether nobody waits for the outcome any more; the evaluator asks now and then and stops the run.
    """

    run_id: str
    package: Path
    modality: Modality
    kind: RunKind
    round_blob: str
    seconds: float
    limits: Limits | None = None
    min_tier: Tier | None = None
    distorted: int = 0
    given_up: Callable[[], bool] = _wanted


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What an evaluation yields.

    Attributes:
        metrics: JSON values; at least ``accuracy`` and ``sn34_score`` (None where there is no score).
        records: Canonical Parquet of the records, sample by sample.
        tier: Name of the sandbox's tier.
        answers: p_fake of each sample that the model answered, by sample id; used to find copies.
        judgements: On the media of the network's own generators.
        environment: Software and hardware, for the receipt.
        engine: What the run can be replayed exactly with: ``nonce`` and ``batch_size`` decide company and order of the
            samples, ``limits`` (of one model process), ``min_tier`` and ``seconds`` what it could use. It is told only
            when the run is over.
    """

    metrics: Mapping[str, object]
    records: bytes
    tier: str
    answers: Mapping[str, float]
    judgements: tuple[Judgement, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, object] = field(default_factory=dict)


class Evaluator(Protocol):
    """Runs one model on one plan in a sandbox."""

    def __call__(self, task: RunTask) -> RunOutcome:
        """Evaluate.

        Raises:
            gas.errors.ModelFailed: The model did not load, or took longer than ``task.seconds`` (``timeout``).
            gas.errors.InfrastructureError: Our own machinery failed.
        """
        ...
