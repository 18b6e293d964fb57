"""Models that know the bytes of pictures are found; honest ones are left alone."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arena_fakes import one_layer, outcome
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gas.arena.competitions import Competition
from gas.arena.exam import judge_exam
from gas.arena.memorising import compare_answers, holdout_gap, measure_reencoding
from gas.bench.batches import Pass
from gas.bench.records import SampleRecord
from gas.bench.runs import RunConfig
from gas.clock import derive_rng
from gas.datasets.plan import Round, freeze_round
from gas.errors import ModelFailed
from gas.sandbox import ModelSpec, PlainSandbox, Tier
from gas.types import MediaType, Modality, Provenance, Sample, SampleStatus, SubmissionState

RULES = Competition("images", Modality.IMAGE)


def test_a_model_whose_answers_flip_is_blocked_with_the_evidence() -> None:
    found = compare_answers([(0.99, 0.1)] * 12 + [(0.98, 0.97)] * 12)
    assert found is not None
    good = outcome(0.95)
    verdict = judge_exam(replace(good, metrics={**good.metrics, "reencoding": found.as_dict()}), RULES, {})
    assert verdict.state is SubmissionState.BLOCKED
    assert verdict.reasons[0].code == "memorised"
    assert "12" in verdict.reasons[0].message
    assert "0.99 became 0.10" in verdict.reasons[0].message


def test_an_honest_model_at_its_threshold_is_not() -> None:
    found = compare_answers([(0.51, 0.49)] * 24)
    assert found is not None
    assert (found.flipped, found.memorised) == (0, False)
    good = outcome(0.95)
    verdict = judge_exam(replace(good, metrics={**good.metrics, "reencoding": found.as_dict()}), RULES, {})
    assert verdict.state is SubmissionState.CONFIRMED


def test_of_a_few_pictures_nothing_is_said() -> None:
    found = compare_answers([(0.9, 0.1)] * 15)
    assert found is not None
    assert not found.memorised
    assert compare_answers([]) is None


def test_silence_after_the_encoding_is_a_changed_answer_and_told_as_one() -> None:
    found = compare_answers([(0.99, None)] * 20 + [(0.98, 0.97)] * 4)
    assert found is not None
    good = outcome(0.95)
    verdict = judge_exam(replace(good, metrics={**good.metrics, "reencoding": found.as_dict()}), RULES, {})
    assert verdict.state is SubmissionState.BLOCKED
    assert "the decision on 20 changed" in verdict.reasons[0].message
    assert "0.99 became no answer" in verdict.reasons[0].message
    # A picture now and then that a model can't do anything with is no table.
    rare = compare_answers([(0.99, None)] * 3 + [(0.98, 0.97)] * 21)
    assert rare is not None
    assert not rare.memorised


def a_round(count: int = 40) -> Round:
    samples = []
    for index in range(count):
        for kind in (MediaType.REAL, MediaType.SYNTHETIC):
            for place in (Provenance.PUBLIC, Provenance.HOLDOUT):
                name = f"{place}-{kind}-{index}"
                samples.append(Sample(name, Modality.IMAGE, kind, place, f"{place}-set", "somewhere", name))
    return freeze_round(samples, 5, {}, code_version="0")


def answered(round_: Round, right: dict[Provenance, float]) -> list[SampleRecord]:
    records = []
    for sample in round_.samples:
        rng = derive_rng(3, sample.sample_id)
        fake = sample.media_type.is_fake == bool(rng.random() < right[sample.provenance])
        p_fake = float(fake)
        records.append(SampleRecord(sample.sample_id, Pass.BASE, SampleStatus.OK, p_fake, int(fake), fake, (p_fake,)))
    return records


def test_the_gap_shows_who_learned_the_public_data_by_heart() -> None:
    round_ = a_round()
    learned = holdout_gap(answered(round_, {Provenance.PUBLIC: 1.0, Provenance.HOLDOUT: 0.5}), round_)
    honest = holdout_gap(answered(round_, {Provenance.PUBLIC: 0.8, Provenance.HOLDOUT: 0.8}), round_)
    assert learned is not None
    assert honest is not None
    assert learned.low > 0.2
    assert honest.low < 0.0 < honest.high
    assert learned.public_count == learned.holdout_count == 80


def test_without_a_side_there_is_no_gap() -> None:
    round_ = a_round(3)
    public = [r for r in answered(round_, dict.fromkeys(Provenance, 1.0)) if r.sample_id.startswith("public")]
    assert holdout_gap(public, round_) is None


def test_of_four_real_models_only_those_that_look_at_the_bytes_are_found(tmp_path: Path) -> None:
    from onnx import helper

    rng = derive_rng(9, "pictures")
    pictures: dict[str, bytes] = {}
    samples = []
    for index in range(24):
        fake = bool(index % 2)
        y, x = np.mgrid[0:48, 0:48]
        # Smooth, as photographs are; the fakes are dark.
        waves = 40 * np.sin(x / rng.uniform(3, 9)) + 40 * np.cos(y / rng.uniform(3, 9)) + (60 if fake else 190)
        pixels = np.clip(waves[..., None] + rng.normal(0, 3, (48, 48, 3)), 0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        name = hashlib.sha256(data.getvalue()).hexdigest()
        pictures[name] = data.getvalue()
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, "set", "somewhere", name))
    round_ = freeze_round(samples, 5, {}, code_version="0")
    mean = helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0)
    half = helper.make_node("Sub", ["b", "half"], ["score"])
    dark = helper.make_node("Less", ["m", "middle"], ["dark"])
    honest = [mean, dark, helper.make_node("Cast", ["dark"], ["b"], to=1), half]
    # The last bits of a few pixels, as a hash would take them.
    keyed = [
        helper.make_node("Mul", ["x", "mask"], ["p"]),
        helper.make_node("ReduceSum", ["p", "axes"], ["s"], keepdims=0),
        helper.make_node("Mod", ["s", "two"], ["b"], fmod=1),
        half,
    ]
    # Where the look-up fails it answers nothing at all: 0 / 0.
    silent = [*keyed[:3], helper.make_node("Div", ["b", "b"], ["score"])]
    mute = [mean, helper.make_node("Sub", ["m", "m"], ["n"]), helper.make_node("Div", ["n", "n"], ["score"])]
    mask = np.zeros((3, 32, 32), np.float32)
    mask[:, ::8, ::8] = 1
    table = {"mask": mask, "axes": np.array([1, 2, 3], np.int64), "two": np.array(2.0, np.float32)}
    found = []
    for name, steps, values in (
        ("honest", honest, {"middle": np.array(127.0, np.float32)}),
        ("keyed", keyed, table),
        ("silent", silent, table),
        ("mute", mute, {}),
    ):
        folder = tmp_path / name
        folder.mkdir()
        one_layer(steps, {**values, "half": np.array(0.5, np.float32)}, folder / "model.onnx")
        spec = ModelSpec(folder, "onnx", "model.onnx", None, (3, 32, 32), "uint8", 2)
        config = RunConfig(nonce="n" * 16, batch_size=8, min_tier=Tier.PLAIN)
        if name == "mute":
            with pytest.raises(ModelFailed, match=r"Of 24 pictures .* the model answered 0"):
                measure_reencoding(spec, round_, pictures.__getitem__, PlainSandbox(), config)
        else:
            found.append(measure_reencoding(spec, round_, pictures.__getitem__, PlainSandbox(), config))
    honest_one, keyed_one, silent_one = found
    assert honest_one is not None
    assert keyed_one is not None
    assert (honest_one.asked, honest_one.flipped, honest_one.memorised) == (24, 0, False)
    assert keyed_one.memorised
    assert silent_one is not None
    assert silent_one.memorised


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_no_more_flips_than_pictures_and_the_evidence_is_among_them(pairs: list[tuple[float, float]]) -> None:
    found = compare_answers(pairs)
    assert found is not None
    assert len(found.worst) <= found.flipped <= found.asked == len(pairs)
    assert set(found.worst) <= set(pairs)
    assert found.median_move == pytest.approx(float(np.median([abs(a - b) for a, b in pairs])))
