"""An exam tells its author by which distortions the model is misled, and nothing else changes by it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena_fakes import Arena, one_layer

from gas.arena.evaluation import BenchEvaluator
from gas.arena.packages import PackageDesk
from gas.arena.ports import RunOutcome, RunTask
from gas.arena.rounds import store_round
from gas.bench.runs import Progress, RunConfig
from gas.clock import SystemClock, derive_rng
from gas.datasets.plan import freeze_round
from gas.errors import InfrastructureError
from gas.media.image import encode_png
from gas.sandbox import PlainSandbox, Tier
from gas.storage.blobs import FolderBlobs
from gas.submissions.limits import Limits
from gas.submissions.pack import pack
from gas.types import MediaType, Modality, Provenance, Sample

PLAN = 20
"""Pictures of the exam: sixteen public ones, as many of each class, and four held out."""


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchEvaluator, RunTask]:
    from onnx import helper

    folder = tmp_path_factory.mktemp("exam")
    blobs, samples = FolderBlobs(folder / "blobs"), []
    for index in range(PLAN):
        fake, held = bool(index % 2), index >= 16
        rng = derive_rng(index, "exam")
        # Half of the fakes are so little darker that a change of brightness hides it.
        pixels = rng.integers(0, 20, (48, 48, 3)) + (118 if fake and index % 4 == 1 else 60 if fake else 180)
        name = blobs.put(encode_png(pixels.astype(np.uint8)))
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        place = Provenance.HOLDOUT if held else Provenance.PUBLIC
        samples.append(Sample(name, Modality.IMAGE, kind, place, "held" if held else "open", "somewhere", name))
    plan = store_round(blobs, freeze_round(samples, 5, {}, code_version="0"))
    model = folder / "model"
    model.mkdir()
    steps = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["middle", "m"], ["d"]),
        helper.make_node("Mul", ["d", "gain"], ["score"]),
    ]
    values = {"middle": np.array(135.0, np.float32), "gain": np.array(0.02, np.float32)}
    one_layer(steps, values, model / "model.onnx")
    pack(model, folder / "model.zip")
    evaluator = BenchEvaluator(
        blobs=blobs,
        sandbox=PlainSandbox(),
        prepare=PackageDesk(Limits()).prepare,
        config=RunConfig(nonce="0" * 16, batch_size=8, processes=1, min_tier=Tier.PLAIN),
        work=folder / "work",
        cache=folder / "cache",
        clock=SystemClock(),
        journals=folder / "journals",
        nonce="n" * 32,
    )
    return evaluator, RunTask("exam-1", folder / "model.zip", Modality.IMAGE, "exam", plan, 600.0, distorted=3)


@pytest.fixture(scope="module")
def told(exam: tuple[BenchEvaluator, RunTask]) -> RunOutcome:
    evaluator, task = exam
    return evaluator(task)


def test_an_exam_tells_by_which_distortions_a_model_is_misled_and_its_figures_are_the_same(
    exam: tuple[BenchEvaluator, RunTask], told: RunOutcome
) -> None:
    evaluator, task = exam
    plain = evaluator(replace(task, distorted=0))
    curves: Any = told.metrics["robustness_curves"]
    assert {name: value for name, value in told.metrics.items() if name != "robustness_curves"} == plain.metrics
    assert (told.records, told.answers, told.judgements) == (plain.records, plain.answers, plain.judgements)
    # Six media, each class three times: of the sixteen that are public.
    assert curves["samples"] == 6
    assert [point["count"] for point in curves["levels"]] == [6] * 4
    assert {point["name"] for point in curves["groups"]} == {"blocks", "blur", "codec", "colour", "geometry", "noise"}
    rates = {point["name"]: point["correct"] for point in curves["groups"]}
    assert rates["colour"] < rates["geometry"] == curves["levels"][0]["correct"] == 6
    json.dumps(told.metrics, allow_nan=False)
    assert not list((evaluator.journals or Path()).iterdir())


def test_held_out_media_are_never_shown_distorted(
    exam: tuple[BenchEvaluator, RunTask], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gas.arena import shown_again

    evaluator, task = exam
    seen: list[set[str]] = []

    def noting(spec: object, round_: object, records: list[Any], *rest: object, **more: object) -> None:
        seen.append({record.sample_id for record in records})

    monkeypatch.setattr(shown_again, "measure_levels", noting)
    assert "robustness_curves" not in evaluator(task).metrics
    assert [len(names) for names in seen] == [16]


def test_an_exam_that_is_broken_off_among_the_distorted_media_goes_on_there_and_ends_alike(
    exam: tuple[BenchEvaluator, RunTask], told: RunOutcome
) -> None:
    evaluator, task = exam
    stopping, totals = threading.Event(), []

    def leave(run_id: str, now: Progress) -> None:
        totals.append((now.total, now.resumed))
        if now.total == 6 * 9 and now.done >= 30:
            stopping.set()

    with pytest.raises(InfrastructureError) as left:
        replace(evaluator, stopping=stopping, on_progress=leave)(task)
    assert left.value.error_code == "stopping"
    totals.clear()
    again = replace(evaluator, on_progress=leave)(task)
    assert again.metrics["robustness_curves"] == told.metrics["robustness_curves"]
    assert any(total == 6 * 9 and resumed >= 24 for total, resumed in totals)


def test_a_submission_that_is_taken_back_among_the_distorted_media_leaves_nothing_behind(
    exam: tuple[BenchEvaluator, RunTask],
) -> None:
    evaluator, task = exam
    reached = threading.Event()

    def watch(run_id: str, now: Progress) -> None:
        if now.total == 6 * 9:
            reached.set()

    class Clock(SystemClock):
        def monotonic(self) -> float:
            # Every look at the clock is late enough for a look at the submission.
            self.now = getattr(self, "now", 0.0) + 60.0
            return self.now

    late = replace(task, seconds=1e9, given_up=reached.is_set)
    with pytest.raises(InfrastructureError):
        replace(evaluator, clock=Clock(), on_progress=watch)(late)
    assert reached.is_set()
    assert not list((evaluator.journals or Path()).iterdir())


def test_the_rules_of_a_competition_say_how_many_are_distorted_and_a_full_run_distorts_none(
    make_arena: Callable[..., Arena],
) -> None:
    arena = make_arena()
    arena.open_round()
    received = arena.push("5Author", "weights", block=3)
    arena.jobs.start()
    arena.foreman.tick()
    while arena.state(received.model_id) != "scored":
        arena.foreman.tick()
        threading.Event().wait(0.02)
    assert [(task.kind, task.distorted) for task in arena.evaluator.tasks] == [("exam", 12), ("full", 0)]


def test_a_run_for_which_nobody_waits_any_more_is_stopped_and_keeps_nothing(
    exam: tuple[BenchEvaluator, RunTask],
) -> None:
    evaluator, task = exam
    with pytest.raises(InfrastructureError) as stopped:
        evaluator(replace(task, given_up=lambda: True))
    assert stopped.value.error_code == "given_up"
    assert not list((evaluator.journals or Path()).iterdir())
