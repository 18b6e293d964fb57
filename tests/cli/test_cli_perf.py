"""What an author reads of a pushed model: where it is weak, per source, per generator and per distortion."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gas.cli.perf_page import perf_page
from gas.cli.perf_text import model_lines, weak_points


def point(name: str, correct: int, count: int = 20, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "level": None, "count": count, "correct": correct,
        "tpr": 0.9, "tnr": 0.8, "sn34": 0.7, "low": 0.5, "high": 0.9, **more,
    }  # fmt: skip


CURVES = {
    "samples": 20,
    "levels": [point(f"level {level}", 18 - level, level=level, sn34=0.9 - level / 10) for level in range(4)],
    "groups": [point("blur", 19), point("codec", 8), point("noise", 15)],
    "model_errors": 0,
    "version": "1",
}
METRICS = {
    "accuracy": 0.85,
    "sn34_score": 0.7,
    "sources": [
        {"source": "photos-a", "media_type": "real", "correct": 9, "count": 10, "model_errors": 0},
        {"source": "photos-b", "media_type": "real", "correct": 5, "count": 10, "model_errors": 0},
        {"source": "diffusion", "media_type": "synthetic", "correct": 3, "count": 10, "model_errors": 0},
        {"source": "inpainting", "media_type": "semisynthetic", "correct": 7, "count": 10, "model_errors": 0},
    ],
    "base": {"accuracy": 0.85, "n": 40},
    "robust": {"accuracy": 0.75, "n": 20},
    "robustness_curves": CURVES,
}


def model(metrics: dict[str, Any], modality: str = "image") -> dict[str, Any]:
    return {
        "model_id": "m1", "name": "mine", "modality": modality, "state": "scored", "errors": [],
        "runs": [{"kind": "exam", "state": "done", "metrics": metrics}],
    }  # fmt: skip


def test_the_weakest_source_generator_and_distortion_come_first() -> None:
    weak = weak_points(METRICS, "image")
    assert [(one.name, one.right) for one in weak.sources] == [("photos-b", 5), ("photos-a", 9)]
    assert [one.name for one in weak.generators] == ["diffusion", "inpainting"]
    assert [(one.name, one.right) for one in weak.distortions] == [
        ("as it is", 18), ("compression", 8), ("noise", 15), ("blur, out of focus or moved", 19),
    ]  # fmt: skip
    assert weak.strengths == pytest.approx((0.9, 0.8, 0.7, 0.6))


def test_the_text_has_a_heading_for_each_of_the_three() -> None:
    lines = [line for _, line in model_lines(model(METRICS))]
    places = [next(k for k, line in enumerate(lines) if line.startswith(f"per {what}")) for what in
              ("source of real media", "generator", "distortion")]  # fmt: skip
    assert places == sorted(places)
    assert " 50% right of  10  photos-b" in lines
    assert " 70% right of  10  inpainting (semisynthetic)" in lines
    assert " 40% right of  20  compression" in lines
    assert "sn34 by strength, from none to all at once: 0.900, 0.800, 0.700, 0.600" in lines
    assert " 75% right of  20  media after sharing: smaller, compressed twice" in lines


def test_a_full_run_names_its_receipt() -> None:
    found = model(METRICS)
    assert not any("receipt" in line for _, line in model_lines(found))
    found["runs"].append({"kind": "full", "state": "done", "run_id": "r7", "metrics": METRICS})
    assert (1, "its receipt, once the round is closed: gascli receipt get r7") in model_lines(found)


def test_kinds_of_sound_have_words_of_their_own() -> None:
    heard = {"robustness_curves": {**CURVES, "groups": [point("room", 4)]}}
    assert weak_points(heard, "audio").distortions[1].name == "noise, reverberation"


def test_the_page_shows_bars_curves_and_the_worst_errors_and_asks_nobody() -> None:
    error = {
        "media_type": "real", "source": "photos-b", "p_fake": 0.98, "jpeg": base64.b64encode(b"jpeg").decode(),
    }  # fmt: skip
    html = perf_page([{**model(METRICS), "errors": [error]}])
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
    assert html.count('<svg class="chart"') == 3
    assert "compression" in html
    assert "real, of photos-b: called fake, 98.0% sure" in html


@pytest.mark.parametrize(
    "curves",
    [
        7,
        {},
        {**CURVES, "levels": "many"},
        {**CURVES, "levels": [{**CURVES["levels"][0], "level": "<b>"}]},  # type: ignore[index]
        {**CURVES, "levels": [point("level 0", 30, level=0)]},
        {**CURVES, "groups": [point("<script>alert(1)</script>", 3), point("blur", True)]},
    ],
)
def test_what_an_arena_makes_up_is_left_out_or_escaped(curves: object) -> None:
    found = model({**METRICS, "robustness_curves": curves, "sources": [{"source": "<img src=x>", "correct": 1}]})
    html = perf_page([found])
    assert "<b>" not in html
    assert "<script" not in html
    assert "<img" not in html
    model_lines(found)


def test_a_model_without_runs_has_a_page_too() -> None:
    assert "rejected" in perf_page([{**model({}), "runs": [], "state": "rejected"}])
    assert "nothing" in perf_page([])
