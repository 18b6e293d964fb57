"""Near copies by weights: found in every disguise, shown to the owner, blocked where the competition says so."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from arena_fakes import Arena, check, outcome
from postgres import service_url
from test_arena_workers import ended, play
from typer.testing import CliRunner

from gas.arena.competitions import Competition, default_competitions
from gas.arena.likeness import NearWeights, near_weights, search
from gas.arena.ports import ArenaConfig, CheckedPackage
from gas.cli.arena_round import app
from gas.submissions.sketch import SKETCH_ROW, TensorSketch, largest, load_sketches, sketch, store_sketches
from gas.types import Modality, SubmissionState
from gas.web.views import submission_view

_S = SubmissionState
Weights = dict[str, np.ndarray]
LAYERS = (60_000, 60_000, 9_216, 4_096, 512)


def independent(seed: int) -> Weights:
    """A model of this architecture that somebody trained from a start of their own."""
    rng = np.random.default_rng(seed)
    return {f"layer{i}": rng.standard_normal(n).astype(np.float32) for i, n in enumerate(LAYERS)}


def moved(weights: Weights, share: float, seed: int, *, head: bool = False) -> Weights:
    """Trained on, or noise added: every weight moves by this part of its layer's spread; perhaps with a new head."""
    rng = np.random.default_rng(seed)
    out = {n: (w + rng.standard_normal(w.shape) * w.std() * share).astype(np.float32) for n, w in weights.items()}
    if head:
        out["layer4"] = rng.standard_normal(LAYERS[4]).astype(np.float32)
    return out


def bfloat16(weights: Weights) -> tuple[TensorSketch, ...]:
    raw = [(w.view(np.uint32) >> 16).astype(np.uint16) for w in weights.values()]
    return largest(sketch([memoryview(r.tobytes())], "BF16", len(r)) for r in raw)


def sketches(weights: Weights) -> tuple[TensorSketch, ...]:
    return largest(sketch([memoryview(w.tobytes())], "F32", w.size) for w in weights.values())


def crowd(count: int) -> dict[str, bytes]:
    return {f"other-{seed}": store_sketches(sketches(independent(1000 + seed))) for seed in range(count)}


def nearest(mine: tuple[TensorSketch, ...], others: dict[str, bytes], within: float = 0.1) -> NearWeights | None:
    return search(mine, others.items(), within)


DISGUISES: dict[str, Callable[[Weights], Weights]] = {
    "a little noise": lambda w: moved(w, 0.01, 5),
    "much noise": lambda w: moved(w, 0.2, 5),
    "trained on, with another head": lambda w: moved(w, 0.05, 5, head=True),
    "renamed and reordered": lambda w: {f"x.{n[::-1]}": a for n, a in reversed(w.items())},
    "scaled layer by layer": lambda w: {n: (a * np.float32(i + 0.5)) for i, (n, a) in enumerate(w.items())},
    "one layer more": lambda w: {**w, "more": np.random.default_rng(3).standard_normal(2_000).astype(np.float32)},
}


@pytest.fixture(scope="module")
def others() -> dict[str, bytes]:
    return {**crowd(40), "original": store_sketches(sketches(independent(1)))}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_copy_is_found_among_many(disguise: str, others: dict[str, bytes]) -> None:
    found = nearest(sketches(DISGUISES[disguise](independent(1))), others)
    assert found is not None and found.submission_id == "original", found


def test_another_precision_is_no_disguise(others: dict[str, bytes]) -> None:
    found = nearest(bfloat16(independent(1)), others)
    assert found is not None
    assert (found.submission_id, found.apart) == ("original", 0)
    assert found.distance < 1e-3


def test_models_trained_on_their_own_are_never_near(others: dict[str, bytes]) -> None:
    assert all(nearest(sketches(independent(seed)), others) is None for seed in range(5000, 5010))


def test_what_shares_a_public_base_is_near_and_the_heads_of_its_own_are_counted(others: dict[str, bytes]) -> None:
    base = independent(77)
    one, two = moved(base, 0.05, 1, head=True), moved(base, 0.05, 2, head=True)
    found = nearest(sketches(two), {**others, "one": store_sketches(sketches(one))})
    assert found is not None
    assert (found.submission_id, found.apart, found.tensors) == ("one", 1, 5)


def test_models_without_sketches_are_near_nobody(others: dict[str, bytes]) -> None:
    assert nearest((), others) is None
    assert nearest(sketches(independent(1)), {"empty": b""}) is None


@pytest.mark.parametrize("size", [100_000, 134_336, 1_000_000])
def test_a_copy_that_was_padded_is_found_by_what_is_inside(size: int, others: dict[str, bytes]) -> None:
    junk = np.random.default_rng(8).standard_normal(size).astype(np.float32)
    found = nearest(sketches({**independent(1), "unused": junk}), others)
    assert found is not None
    assert found.submission_id == "original"
    assert found.inside < 1e-3
    assert found.distance > 0.4
    # And the other way round: what was cut out of a larger model.
    padded = {"large": store_sketches(sketches({**independent(1), "unused": junk}))}
    cut = nearest(sketches(independent(1)), padded)
    assert cut is not None
    assert cut.inside < 1e-3


def test_a_near_model_is_told_before_one_that_is_only_inside() -> None:
    mine = independent(1)
    part = {name: mine[name] for name in ("layer0", "layer2")}
    older = {"part": store_sketches(sketches(part)), "whole": store_sketches(sketches(moved(mine, 0.1, 5)))}
    found = nearest(sketches(mine), older)
    assert found is not None
    assert found.submission_id == "whole"


def test_a_standard_tensor_that_somebody_hands_in_is_inside_nobody() -> None:
    mine = independent(1)
    older = {"window": store_sketches(sketches({"layer4": mine["layer4"]}))}
    assert nearest(sketches(mine), older) is None


def test_the_search_takes_no_more_memory_for_more_models() -> None:
    rng = np.random.default_rng(2)

    def history(count: int) -> Iterator[tuple[str, bytes]]:
        for number in range(count):
            rows = np.zeros(150, SKETCH_ROW)
            rows["elements"], rows["values"] = 60_000, rng.integers(-127, 128, (150, 64))
            yield f"other-{number}", rows.tobytes()

    (_, stored), *_ = history(1)
    mine, peaks = load_sketches(stored), []
    for count in (100, 600):
        tracemalloc.start()
        found = search(mine, itertools.chain(history(count), [("same", stored)]), 0.1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found is not None
        assert found.submission_id == "same"
    assert peaks[1] < 1.2 * peaks[0] < 40 * 2**20


def handed_in(model: str) -> Weights:
    kind, seed = model.split("-")
    return independent(int(seed)) if kind == "own" else moved(independent(int(seed)), 0.01, 9)


def check_with_weights(path: Path, modality: Modality) -> CheckedPackage:
    """The fake check, with sketches for a text such as ``own-3`` or ``noisy-3``."""
    return dataclasses.replace(check(path, modality), sketches=sketches(handed_in(path.read_text().split()[0])))


@pytest.fixture
def make(make_arena: Callable[..., Arena]) -> Iterator[Callable[[float], Arena]]:
    def with_limit(limit: float) -> Arena:
        rules = default_competitions(Competition("default", Modality.IMAGE, weights_limit=limit))
        arena = make_arena(config=ArenaConfig(competitions=rules))
        arena.submissions = dataclasses.replace(arena.submissions, check=check_with_weights)
        arena.evaluator.script = [outcome(0.9)] * 6
        return arena

    yield with_limit


def found(arena: Arena, *received: Any) -> dict[str, NearWeights]:
    with arena.database.read() as session:
        return near_weights(session, [one.model_id for one in received])


def test_a_near_copy_is_shown_at_its_scan_and_not_blocked_by_default(make: Callable[[float], Arena]) -> None:
    arena = make(0.0)
    arena.open_round()
    original, other = arena.push("alice", "own-1", block=10), arena.push("carol", "own-2", block=11)
    copy = arena.push("bob", "noisy-1", block=12)
    assert {k: v.submission_id for k, v in found(arena, original, other, copy).items()} == {
        copy.model_id: original.model_id
    }
    with arena.database.read() as session:
        seen_by_author = submission_view(session, "bob", copy.model_id, arena.config.rules_of)
    assert seen_by_author is not None
    assert seen_by_author["near_weights"]["submission"] == original.model_id[:8]
    told = CliRunner().invoke(
        app,
        ["status", "image", "--home", str(arena.home)],
        env={"DATABASE_URL": service_url(arena.home)},
    )
    assert told.exit_code == 0, told.output
    assert f"from {original.model_id}; 0 of 5 tensors are its own" in told.output
    arena.jobs.start()
    play(arena, ended(arena, original.model_id, other.model_id, copy.model_id))
    assert [arena.state(one.model_id) for one in (original, other, copy)] == [_S.SCORED] * 3
    shown = found(arena, copy)[copy.model_id].as_dict()
    assert shown["submission"] == original.model_id[:8]
    assert 0 < float(str(shown["distance"])) < 0.01


def test_above_the_threshold_the_later_commitment_is_blocked_whoever_uploaded_first(
    make: Callable[[float], Arena],
) -> None:
    arena = make(0.01)
    arena.open_round()
    copy, original = arena.push("bob", "noisy-1", block=11), arena.push("alice", "own-1", block=10)
    other = arena.push("carol", "own-2", block=12)
    arena.jobs.start()
    play(arena, ended(arena, copy.model_id, original.model_id, other.model_id))
    assert [arena.state(one.model_id) for one in (original, copy, other)] == [_S.SCORED, _S.BLOCKED, _S.SCORED]
    reason = arena.row(copy.model_id).reasons[0]
    assert reason["code"] == "near_copy"
    assert original.model_id[:8] in reason["message"] and "5 of 5 tensors" in reason["message"]
    assert set(found(arena, original, copy, other)) == {copy.model_id}


def test_an_authors_own_next_version_is_no_copy(make: Callable[[float], Arena]) -> None:
    arena = make(0.01)
    arena.open_round()
    first, second = arena.push("alice", "own-1", block=10), arena.push("alice", "noisy-1", block=10)
    assert found(arena, first, second) == {}
