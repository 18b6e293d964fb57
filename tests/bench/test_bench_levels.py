"""Robustness curves: what is shown again, how it is distorted, what comes of it, and how the page draws it."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gas.bench import levels
from gas.bench.engine import evaluate
from gas.bench.levels import choose_for_levels, distortions_of, measure_levels
from gas.bench.report.robustness import level_chart, robustness_section
from gas.datasets.plan import freeze_round
from gas.errors import MediaRejected, ModelFailed, SandboxUnavailable, StorageError
from gas.media.encode import encode_mp4, encode_wav
from gas.media.image import encode_png
from gas.media.target import Target
from gas.types import Modality


def bright(batch):
    """Says fake where a picture is bright; sure about it."""
    z = (batch.reshape(len(batch), -1).mean(axis=1) - 127) / 20
    return np.stack([-z, z], axis=1).astype(np.float32)


class Ground:
    """A finished run on pictures that are bright when fake, and what the curves need of it."""

    def __init__(self, bench, tmp_path, count=40, robustness=4, model=bright):
        self.samples = bench.samples(count)
        pictures = {
            s.sample_id: np.full((40, 48, 3), 190 if s.media_type.is_fake else 60, np.uint8) for s in self.samples
        }
        self.encoded = {name: encode_png(picture) for name, picture in pictures.items()}
        self.round = freeze_round(self.samples, 7, {}, code_version="test")
        self.config = bench.config(robustness_per_dataset=robustness)
        self.spec = replace(bench.spec, input_shape=(3, 24, 24))
        self.folder, self.bench = tmp_path / "run", bench
        self.asked = []

        class Media:
            def fetch(_, sample_ids, target, *, robust):
                pixels = [np.moveaxis(pictures[name][:24, :24], 2, 0) for name in sample_ids]
                return np.stack(pixels), np.ones(len(sample_ids), dtype=bool)

        self.run = evaluate(self.spec, self.round, Media(), bench.Sandbox(model), self.config)

    def media(self, name):
        self.asked.append(name)
        return self.encoded[name]

    def measure(self, sandbox=None, **changes):
        return measure_levels(
            self.spec,
            self.round,
            changes.pop("records", self.run.records),
            changes.pop("media", self.media),
            sandbox or self.bench.Sandbox(bright),
            replace(self.config, **changes),
            package_sha256="p",
            folder=self.folder,
        )


@pytest.fixture
def ground(bench, tmp_path):
    return Ground(bench, tmp_path)


def test_the_curves_take_as_many_of_each_class_and_the_data_sets_in_turn(bench):
    samples = bench.samples(40)
    chosen = choose_for_levels(samples, 6, seed=3)
    assert sum(s.media_type.is_fake for s in chosen) == 6
    assert len(chosen) == 12
    assert {s.dataset for s in chosen} == {"photos", "made", "wild", "arena-one"}
    assert choose_for_levels(samples[::-1], 6, seed=3) == chosen
    assert choose_for_levels(samples, 6, seed=4) != chosen


@pytest.mark.parametrize("modality", list(Modality))
def test_a_level_begins_with_the_steps_of_the_one_below_and_a_group_is_one_step(modality):
    for number in range(20):
        found = distortions_of(f"{number:064x}", modality, 5)
        steps = [found[f"level {level}"].steps for level in (1, 2, 3)]
        assert all(high[: len(low)] == low for low, high in pairwise(steps))
        groups = {name: d.steps for name, d in found.items() if not name.startswith("level ")}
        assert all(len(one) == 1 for one in groups.values())
        if modality is Modality.VIDEO:
            assert groups["codec"][0].name == "h264"
    assert set(groups) == (
        {"level", "room", "codec"}
        if modality is Modality.AUDIO
        else {"geometry", "colour", "noise", "blur", "blocks", "codec"}
    )


def test_level_zero_is_what_the_run_has_answered_and_no_picture_is_shown_undistorted(ground):
    curves = ground.measure()
    assert curves.samples == 8
    assert [point.level for point in curves.levels] == [0, 1, 2, 3]
    assert curves.levels[0].correct == curves.levels[0].count == 8
    assert curves.levels[0].sn34 > 0.99
    assert len(curves.groups) == 6
    assert len(ground.asked) == 8 * 9
    assert all(point.tpr is not None and point.tnr is not None for point in (*curves.levels, *curves.groups))
    assert not list(ground.folder.glob("answers*"))
    again = ground.measure()
    assert again == curves


def test_the_cost_has_a_limit_whatever_is_asked_for(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(levels._MOST, Modality.IMAGE, 3)
    ground = Ground(bench, tmp_path, robustness=1000)
    assert ground.measure().samples == 6
    assert len(ground.asked) == 6 * 9


def test_without_a_robust_pass_there_are_no_curves(ground):
    assert ground.measure(robustness_per_dataset=0) is None
    assert ground.asked == []


def test_a_model_that_dies_on_distorted_media_gets_wrong_answers_there(ground, bench):
    def picky(batch):
        # The pictures are flat: whatever has an edge was distorted.
        if any(picture[0].std() > 1.5 for picture in batch):
            raise ModelFailed("The model died.", code="crashed")
        return bright(batch)

    curves = ground.measure(bench.Sandbox(picky), max_restarts=500)
    assert curves.model_errors > 0
    assert curves.levels[3].correct < curves.levels[0].correct


def test_a_model_that_does_not_load_a_second_time_leaves_the_run_without_curves(ground, bench):
    def refuses(_):
        raise ModelFailed("No.", code="load_failed")

    assert ground.measure(bench.Sandbox(bright, load=refuses)) is None


def test_a_broken_sandbox_is_our_fault_and_what_was_shown_is_kept(ground, bench):
    calls = []

    def breaks(batch):
        calls.append(len(batch))
        if len(calls) == 4:
            raise SandboxUnavailable("It broke.")
        return bright(batch)

    with pytest.raises(SandboxUnavailable):
        ground.measure(bench.Sandbox(breaks), processes=1)
    whole = ground.measure()
    asked = len(ground.asked)
    ground.asked.clear()
    assert ground.measure() == whole
    assert asked < 2 * len(ground.asked), "the second go asked only for the rest"


def test_media_that_cannot_be_decoded_are_left_out_of_their_point(ground):
    broken = ground.round.samples[0].sample_id
    curves = ground.measure(media=lambda name: b"nothing" if name == broken else ground.media(name))
    assert {point.count for point in curves.levels[1:]} <= {7, 8}

    def gone(name):
        raise StorageError("Gone.", code="blob_missing")

    with pytest.raises(StorageError):
        ground.measure(media=gone)


@pytest.mark.parametrize("modality", list(Modality))
def test_every_kind_of_medium_is_distorted_and_brought_to_the_model_s_shape(modality):
    frames = [np.full((60, 80, 3), 40 * k + 30, np.uint8) for k in range(5)]
    data, target = {
        Modality.IMAGE: lambda: (encode_png(frames[2]), Target(modality, (3, 24, 24), "uint8")),
        Modality.VIDEO: lambda: (encode_mp4(frames, 10.0), Target(modality, (4, 3, 24, 24), "uint8")),
        Modality.AUDIO: lambda: (
            encode_wav(np.sin(np.arange(8000) / 9).astype(np.float32), 16_000),
            Target(modality, (4000,), "float32", 16_000),
        ),
    }[modality]()
    for distortion in distortions_of("a" * 64, modality, 1).values():
        out = levels._distorted(data, target, distortion, levels.DEFAULT_LIMITS)
        assert (out.shape, str(out.dtype)) == (target.shape, target.dtype)
        assert out.any()
    with pytest.raises(MediaRejected):
        levels._distorted(b"nothing", target, distortion, levels.DEFAULT_LIMITS)


def test_the_page_shows_both_charts_and_escapes_what_is_not_ours(ground):
    curves = ground.measure().as_dict()
    page = robustness_section(curves, "image")
    assert "By strength" in page
    assert "compression" in page
    hostile = "<script>alert(1)</script>"
    chart = level_chart(curves["levels"], [hostile] * 4)
    ElementTree.fromstring(chart)
    assert "<script" not in chart
    assert robustness_section(None, "image") == ""


def test_a_point_without_a_score_has_no_place_in_the_chart():
    empty = {"level": 0, "count": 0, "sn34": None, "low": None, "high": None, "tpr": None, "tnr": None}
    chart = level_chart([empty, {**empty, "level": 1, "tpr": 0.5, "count": 2}], ["a", "b"])
    ElementTree.fromstring(chart)
    assert chart.count("<circle") == 1
