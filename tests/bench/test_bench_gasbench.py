"""``gasbench run`` with real models in the real sandbox, on folders of small media."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gasbench_ground import SHAPES, Command, arena_set, mean_onnx, media, models, registry

from gas.bench.records import from_parquet
from gas.cli.gasbench import main
from gas.datasets.plan_file import read_plan
from gas.sandbox import Tier, probe
from gas.types import SampleStatus

needs_sandbox = pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")
pytestmark = needs_sandbox


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Folders of media, a registry, and a good model for each modality."""
    root = tmp_path_factory.mktemp("gasbench")
    for modality, count in (("image", 20), ("video", 10), ("audio", 10)):
        media(root, modality, count)
    (root / "image-real" / "broken.png").write_bytes(b"no picture")
    registry(root / "sets.yaml")
    models(root)
    return root


@pytest.fixture
def gasbench(ground, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    return Command(main, tmp_path, capsys)


def image(ground, *more):
    return ["--image-model", ground / "mean-image.onnx", "--dataset-config", ground / "sets.yaml", *more]


def test_a_run_says_everything_about_itself_in_its_folder(ground, gasbench):
    (results,) = gasbench.run(*image(ground, "--batch-size", 8))["runs"]
    assert list(results) == [
        *("metadata", "overall_score", "validation", "errors", "results", "accuracy_by_media_type"),
        *("per_dataset_results", "generator_stats", "dataset_info", "sandbox"),
    ]
    about, figures = results["metadata"], results["results"]
    assert list(about) == [*("run_id", "timestamp", "model_path", "modality", "mode", "duration_seconds", "versions")]
    assert (about["modality"], about["mode"]) == ("image", "small")
    assert (figures["total_samples"], figures["correct_predictions"]) == (40, 36)
    assert set(figures) >= {
        *("total_samples", "correct_predictions", "accuracy", "binary_mcc", "binary_brier", "binary_cross_entropy"),
        *("sn34_score", "sn34_ci95", "model_errors", "media_errors", "avg_inference_time_ms", "p95_inference_time_ms"),
    }
    found = results["dataset_info"]["datasets"]
    assert {name: (row["items"], row["set_aside"]) for name, row in found.items()} == {
        "sets-image-real": (20, 1),
        "sets-image-fake": (20, 0),
    }
    assert figures["accuracy"] == pytest.approx(0.9)
    assert figures["decisions"]["f1"] == pytest.approx(0.9)
    assert figures["sn34_ci95"][0] < figures["sn34_score"] < figures["sn34_ci95"][1]
    curves = figures["robustness_curves"]
    assert (curves["samples"], len(curves["levels"]), len(curves["groups"])) == (40, 4, 6)
    assert curves["levels"][0]["correct"] == 36
    assert figures["binary_mcc"] == pytest.approx(0.8)
    assert results["overall_score"] == pytest.approx(
        0.8 * figures["sn34_score"] + 0.2 * figures["robust"]["sn34_score"]
    )
    assert 0 < figures["avg_inference_time_ms"] <= figures["p95_inference_time_ms"] * 20
    assert results["accuracy_by_media_type"]["synthetic"]["accuracy"] == 0.9
    assert results["per_dataset_results"]["sets-image-fake"]["tpr"] == 0.9
    assert results["generator_stats"]["diffusion"]["fooled"] == 2
    assert results["dataset_info"]["datasets"]["sets-image-real"]["drawn"] == {"real": 20}
    assert results["sandbox"]["tier"].startswith("bubblewrap")
    folder = gasbench.folder / "results" / about["run_id"]
    assert json.loads((folder / "results.json").read_text()) == results
    assert len(read_plan(folder / "plan.parquet")) == 40
    assert len(from_parquet((folder / "records.parquet").read_bytes())) == 80
    page = (folder / "report.html").read_text()
    assert all(
        word in page for word in ("ROC", "DET", "Calibration", "Robustness", "Fakes taken for real", "data:image/jpeg")
    )
    assert "<script" not in page
    assert sorted(path.name for path in folder.iterdir()) == [
        "plan.parquet",
        "records.parquet",
        "report.html",
        "results.json",
        "times.parquet",
    ]


def test_three_modalities_run_one_after_another(ground, gasbench):
    words = [word for modality in SHAPES for word in (f"--{modality}-model", ground / f"mean-{modality}.onnx")]
    runs = gasbench.run(*words, "--dataset-config", ground / "sets.yaml", "--debug", "--robustness", "2")["runs"]
    assert [run["metadata"]["modality"] for run in runs] == ["image", "video", "audio"]
    assert [run["results"]["total_samples"] for run in runs] == [6, 6, 6]
    for run in runs:
        assert run["results"]["model_errors"] == run["results"]["media_errors"] == 0
        assert run["results"]["robust"]["n"] == 4
        assert (gasbench.folder / "results" / run["metadata"]["run_id"] / "report.html").exists()


def test_a_run_that_is_done_is_shown_and_asked_anew_only_on_demand(ground, gasbench):
    words = image(ground, "--debug", "--robustness", "0")
    first = gasbench.run(*words)
    assert gasbench.run(*words) == first
    anew = gasbench.run(*words, "--again", "--processes", "2")
    assert anew["runs"][0]["metadata"]["run_id"] == first["runs"][0]["metadata"]["run_id"]
    assert anew["runs"][0]["results"]["records_sha256"] == first["runs"][0]["results"]["records_sha256"]
    other = gasbench.run(*words, "--batch-size", "3")
    assert other["runs"][0]["metadata"]["run_id"] != first["runs"][0]["metadata"]["run_id"]


def test_people_get_a_table_and_the_way_to_the_report(ground, gasbench):
    words = ["run", *image(ground, "--debug"), "--cache-dir", gasbench.folder / "c"]
    out = gasbench(*words, "--results-dir", gasbench.folder / "results")
    assert "Final score" in out
    assert "report.html" in out
    assert "by level of distortion" in out
    assert "Set aside when sets-image-real was fetched, as it can't be used: 1\n" in out
    assert "Run folder" in gasbench.err


def interrupt(words, results):
    """Runs the command until its journal has some lines, and sends what Ctrl-C sends: exit code, stderr, journal."""
    command = [sys.executable, "-m", "gas.cli.gasbench", "run", *map(str, words)]
    # Where these tests run in the background, the signal is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(os.environ))
    finally:
        signal.signal(signal.SIGINT, before)
    found = None
    try:
        until = time.monotonic() + 60
        while found is None or (found.exists() and found.read_bytes().count(b"\n") < 6):
            found = found or next(results.glob("*/answers-*.journal"), None)
            assert time.monotonic() < until
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1].decode()
    return process.returncode, err, found


def test_a_command_that_is_interrupted_says_so_and_goes_on_later_with_the_same_bytes(ground, gasbench, tmp_path):
    model = mean_onnx(tmp_path / "slow.onnx", SHAPES["image"], 0.05, 127.0, "slow")
    words = ["--image-model", model, "--dataset-config", ground / "sets.yaml", "--batch-size", "1", "--robustness", "0"]
    undisturbed = gasbench.run(*words)["runs"][0]["metadata"]["run_id"]
    for attempt in range(5):
        killed = tmp_path / f"killed-{attempt}"
        places = ["--cache-dir", tmp_path / "cache", "--results-dir", killed, "--processes", "1"]
        code, err, journal = interrupt([*words, *places], killed)
        if code:
            break
        # On a busy machine it may be done before the signal comes.
    assert code == 130
    assert "the same command goes on" in err
    assert 6 <= journal.read_bytes().count(b"\n") < 50
    assert not (journal.parent / "results.json").exists()
    out = gasbench("run", *words, *places)
    assert "Final score" in out
    assert "going on after" in gasbench.err
    folders = [tmp_path / "results" / undisturbed, killed / undisturbed]
    assert len({(folder / "records.parquet").read_bytes() for folder in folders}) == 1
    assert not list(killed.glob("*/*.journal"))


def test_without_a_registry_the_home_s_own_is_drawn_from(gasbench, ground):
    home = gasbench.folder / "home"
    media(gasbench.folder, "image", 4)
    (home / "data").mkdir(parents=True)
    text = registry(gasbench.folder / "mine.yaml", ["image"]).read_text()
    (home / "data" / "registry.yaml").write_text(text.replace("path: ", f"path: {gasbench.folder}/"))
    out = gasbench("run", "--image-model", ground / "mean-image.onnx", "--debug", "--robustness", "0", "--json")
    (run,) = json.loads(out)["runs"]
    assert run["dataset_info"]["sizes"] == {"public/real": 3, "public/synthetic": 3}
    assert (home / "results" / run["metadata"]["run_id"] / "results.json").exists()


def test_held_out_sets_count_as_held_out(ground, gasbench):
    media(gasbench.folder, "image", 4)
    held = registry(gasbench.folder / "held.yaml", ["image"])
    (run,) = gasbench.run(*image(ground, "--debug", "--holdout-config", held))["runs"]
    sizes = run["dataset_info"]["sizes"]
    assert sizes["public/real"] == 3
    assert run["per_dataset_results"]["held-image-real"]["provenance"] == "holdout"


def test_only_arena_fakes_are_drawn_when_asked_for_and_counted_by_their_makers(ground, gasbench):
    alice, bob = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
    config = arena_set(gasbench.folder, "arena-week", [alice] * 4 + [bob] * 2)
    media(gasbench.folder, "image", 6)
    both = gasbench.folder / "both.yaml"
    folders = registry(gasbench.folder / "folders.yaml", ["image"]).read_text()
    both.write_text(folders + config.read_text().partition("datasets:\n")[2])
    words = ["--image-model", ground / "mean-image.onnx", "--dataset-config", both, "--gasstation-only"]
    (run,) = gasbench.run(*words, "--robustness", "0")["runs"]
    assert run["dataset_info"]["sizes"] == {"arena/synthetic": 6, "public/real": 6}
    stats = run["generator_stats"]
    assert {name: (row["kind"], row["total"], row["caught"]) for name, row in stats.items()} == {
        alice: ("hotkey", 4, 4),
        bob: ("hotkey", 2, 2),
    }


def test_a_model_that_answers_nan_loses_those_samples(ground, gasbench):
    model = mean_onnx(gasbench.folder / "nan.onnx", SHAPES["image"], 0.05, 127.0, "nan")
    (run,) = gasbench.run("--image-model", model, "--dataset-config", ground / "sets.yaml", "--debug")["runs"]
    assert run["errors"]["model"] == {"not_finite": 12}
    assert run["results"]["model_errors"] == 6
    assert run["results"]["correct_predictions"] == 0
    assert run["overall_score"] == 0


def test_a_model_that_crashes_on_two_pictures_loses_those_and_no_others(ground, gasbench):
    model = mean_onnx(gasbench.folder / "crash.onnx", SHAPES["image"], 0.05, 127.0, "crash")
    words = ["--image-model", model, "--dataset-config", ground / "sets.yaml", "--robustness", "0"]
    (run,) = gasbench.run(*words, "--batch-size", "8")["runs"]
    records = from_parquet((gasbench.folder / "results" / run["metadata"]["run_id"] / "records.parquet").read_bytes())
    failed = [record for record in records if record.status is SampleStatus.MODEL_ERROR]
    assert len(failed) == 2
    assert run["errors"]["model"] == {"crashed": 2}
    page = (gasbench.folder / "results" / run["metadata"]["run_id"] / "report.html").read_text(encoding="utf-8")
    assert "<dt>Failures</dt><dd>2 crashed</dd>" in page
    assert "<dt>Set aside</dt><dd>1 of sets-image-real</dd>" in page
    assert run["sandbox"]["restarts"] > 0
    assert not run["sandbox"]["gave_up"]
    assert run["results"]["correct_predictions"] == 34


def test_a_medium_that_changed_since_it_was_fetched_is_named_with_its_set(ground, gasbench):
    gasbench.run(*image(ground, "--debug", "--robustness", "0"))
    folder = next((gasbench.folder / "results").iterdir())
    plan = read_plan(folder / "plan.parquet")
    sample = plan.samples()[0]
    (blob,) = (gasbench.folder / "cache" / "data" / "blobs").glob(f"**/{sample.sample_id}")
    blob.write_bytes(b"something else")
    for shelf in (gasbench.folder / "cache" / "pixels").iterdir():
        shelf.unlink()
    error = gasbench.run(*image(ground, "--debug", "--robustness", "0", "--again"), code=1)["error"]
    assert error["code"] == "media_changed"
    assert sample.dataset in error["message"]
    blob.unlink()
    error = gasbench.run(*image(ground, "--debug", "--robustness", "0", "--again"), code=1)["error"]
    assert error["code"] == "media_missing"


def test_the_library_runs_and_compares(ground, gasbench):
    from gas.bench import BenchSettings, compare, run

    settings = BenchSettings(
        mode="debug",
        dataset_config=ground / "sets.yaml",
        cache_dir=gasbench.folder / "cache",
        results_dir=gasbench.folder / "results",
        robustness=0,
        processes=1,
    )
    seen = []
    from gas.bench.public import Watch

    first = run(ground / "mean-image.onnx", settings=settings, watch=Watch(on_progress=seen.append))
    assert first.score == first.metrics.final == first.results["overall_score"]
    assert (seen[-1].done, seen[-1].sn34) == (seen[-1].total, pytest.approx(first.metrics.base.sn34_score))
    assert seen[-1].accuracy == pytest.approx(first.metrics.base.accuracy)
    second = run(mean_onnx(gasbench.folder / "mute.onnx", SHAPES["image"], -0.05, 127.0), settings=settings)
    found = compare(first, second.folder)
    assert (found.samples, found.only_second) == (6, 0)
    assert found.first_final == first.score


def test_runs_on_one_plan_are_compared_and_others_refused(ground, gasbench):
    flipped = mean_onnx(gasbench.folder / "flipped.onnx", SHAPES["image"], -0.05, 127.0)
    config = ["--dataset-config", ground / "sets.yaml", "--robustness", "0"]
    good = gasbench.run("--image-model", ground / "mean-image.onnx", *config)["runs"][0]
    bad = gasbench.run("--image-model", flipped, *config)["runs"][0]
    other = gasbench.run("--image-model", flipped, *config, "--seed", "1", "--debug")["runs"][0]
    places = [gasbench.folder / "results" / run["metadata"]["run_id"] for run in (good, bad, other)]
    assert json.loads(gasbench("compare", *places[:2], "--json"))["comparisons"][0]["only_first"] == 36
    assert "mean-image" in gasbench("compare", *places[:2])
    small = mean_onnx(gasbench.folder / "unsure.onnx", SHAPES["image"], 0.01, 127.0)
    places.insert(
        0, gasbench.folder / "results" / gasbench.run("--image-model", small, *config)["runs"][0]["metadata"]["run_id"]
    )
    three = json.loads(gasbench("compare", *places[:3], "--json"))
    assert [row["run_id"] for row in three["ranking"]] == [places[1].name, places[0].name, places[2].name]
    assert len(three["comparisons"]) == 3
    assert three["undecided_with_best"] == [places[0].name]
    out = gasbench("compare", *places[:3])
    assert out.startswith(f"1. {places[1].name}")
    assert f"not surely better than {places[0].name}" in out
    assert "originals" in out, "two folders are two sources: too few to draw from"
    error = json.loads(gasbench("compare", places[0], places[0], "--json", code=2))["error"]
    assert "twice" in error["message"]
    del places[0]
    error = json.loads(gasbench("compare", *places[1:], "--json", code=2))["error"]
    assert error["code"] == "other_plan"
    assert "mode (small and debug)" in error["message"]
    assert "seed (0 and 1)" in error["message"]
    error = json.loads(gasbench("compare", places[0], Path("nowhere"), "--json", code=2))["error"]
    assert error["code"] == "no_run"


STUBBORN = """
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        return x.float().mean(dim=(1, 2, 3))[:, None] * self.scale


def load_model(weights_path, num_classes=2, **params):
    {load}
    return Net(num_classes)
"""


def stubborn(folder, load):
    """A package of torch whose loading does what ``load`` says."""
    from safetensors.numpy import save_file

    package = folder / "stubborn"
    package.mkdir()
    (package / "model.py").write_text(STUBBORN.format(load=load))
    (package / "model_config.yaml").write_text(
        "name: stubborn\nversion: 1\nmodality: image\npreprocessing:\n  resize: [32, 32]\nmodel:\n  num_classes: 2\n"
    )
    save_file({"scale": np.zeros(2, dtype=np.float32)}, package / "model.safetensors")
    return package


def test_of_several_models_one_that_fails_costs_the_others_nothing(ground, gasbench):
    package = stubborn(gasbench.folder, "raise ValueError('no such weights')")
    words = image(ground, "--debug", "--robustness", "0")
    found = gasbench.run("--image-model", package, *words, code=1)
    assert [Path(run["metadata"]["model_path"]).name for run in found["runs"]] == ["mean-image.onnx"]
    (failed,) = found["failed"]
    assert (failed["model_path"], failed["code"]) == (str(package), "load_failed")
    assert "no such weights" in gasbench.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "code"),
    [("while True: pass", "timeout"), ("torch.ones(1 << 33)", "out_of_memory|load_failed|crashed")],
)
def test_a_model_that_never_loads_is_a_failed_model_and_no_broken_sandbox(ground, gasbench, load, code):
    from gas.bench import BenchSettings, run
    from gas.errors import ModelFailed
    from gas.sandbox import Limits

    package = stubborn(gasbench.folder, load)
    settings = BenchSettings(
        mode="debug",
        dataset_config=ground / "sets.yaml",
        cache_dir=gasbench.folder / "cache",
        results_dir=gasbench.folder / "results",
        processes=1,
    )
    with pytest.raises(ModelFailed) as failed:
        run(package, settings=settings, limits=Limits(load_seconds=2.0, memory_bytes=3 * 2**30))
    assert re.fullmatch(code, failed.value.error_code)
