"""What an exam asks of a model beyond its own plan: some of its public media once more, encoded again and distorted.

Neither is a part of the score. Encoding again tells who knows the bytes by heart (:mod:`gas.arena.memorising`); the
distortions tell an author by which kind and strength of them the model is misled (:mod:`gas.bench.levels`). Both are
bounded in their number of media. For the distortions there may be no time left in the exam: then they are left out.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gas.arena.memorising import measure_reencoding
from gas.bench.levels import measure_levels
from gas.bench.records import SampleRecord
from gas.bench.runs import Progress, RunConfig
from gas.clock import Clock
from gas.datasets.plan import Round
from gas.sandbox.base import ModelSpec, Sandbox
from gas.types import Provenance

__all__ = ["Examined", "show_again"]


@dataclass(frozen=True, slots=True)
class Examined:
    """An exam whose own plan is answered.

    Attributes:
        spec: The checked, unpacked package.
        classes: Names of the model's classes, when its package gives them.
        package_sha256: Of its zip.
        round: The exam.
        records: Of its run.
        config: Of its run, with its secret.
        gave_up: Whether the model died so often that the run was given up: then it is not distorted for.
    """

    spec: ModelSpec
    classes: tuple[str, ...] | None
    package_sha256: str
    round: Round
    records: Iterable[SampleRecord]
    config: RunConfig
    gave_up: bool


def show_again(
    exam: Examined,
    media: Callable[[str], bytes],
    sandbox: Sandbox,
    on_progress: Callable[[Progress], None],
    *,
    distorted: int,
    folder: Path,
    clock: Clock,
    until: float = math.inf,
) -> dict[str, object]:
    """Ask, and say what came of it.

    Args:
        exam: What was run.
        media: Encoded bytes of a sample.
        sandbox: Where the model runs.
        on_progress: As for :func:`gas.bench.engine.evaluate`; what it raises ends the asking.
        distorted: Public media of each class that are shown with each distortion at most; none when 0.
        until: When the exam's time is over, by the clock's monotonic seconds.
        folder: For the answers of this exam so far: a killed worker's successor goes on from there. Gone at the end.
        clock: For times.

    Returns:
        JSON values: ``reencoding`` and ``robustness_curves``, each only where it was measured.

    Raises:
        gas.errors.ModelFailed: Encoded again, as :func:`gas.arena.memorising.measure_reencoding`.
        gas.errors.InfrastructureError: Our own machinery failed.
    """
    found: dict[str, object] = {}
    again = measure_reencoding(
        exam.spec, exam.round, media, sandbox, exam.config, on_progress, classes=exam.classes, clock=clock
    )
    if again is not None:
        found["reencoding"] = again.as_dict()
    # A model that isn't done loading when the exam's time is over would cost the verdict.
    slow = exam.config.limits.load_seconds + exam.config.limits.batch_seconds
    if distorted and not exam.gave_up and clock.monotonic() + slow < until:
        public = {sample.sample_id for sample in exam.round.samples if sample.provenance is Provenance.PUBLIC}
        curves = measure_levels(
            exam.spec,
            exam.round,
            [record for record in exam.records if record.sample_id in public],
            media,
            sandbox,
            replace(exam.config, robustness_per_dataset=distorted),
            package_sha256=exam.package_sha256,
            folder=folder,
            classes=exam.classes,
            on_progress=on_progress,
            clock=clock,
        )
        if curves is not None:
            found["robustness_curves"] = curves.as_dict()
    shutil.rmtree(folder, ignore_errors=True)
    return found
