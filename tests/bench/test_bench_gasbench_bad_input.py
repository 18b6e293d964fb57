"""What goes wrong in the middle of a `gasbench run`: said clearly, with the right status, and nothing is lost."""

import json
import os
import resource
import subprocess
import sys

import pytest
from gasbench_ground import SHAPES, Command, mean_onnx, media, registry

from gas.bench.records import from_parquet
from gas.cli.gasbench import main
from gas.sandbox import Tier, probe
from gas.types import SampleStatus

pytestmark = pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    media(root, "image", 20)
    registry(root / "sets.yaml", ["image"])
    return root


@pytest.fixture
def gasbench(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    return Command(main, tmp_path, capsys)


def test_no_room_left_half_way_ends_with_a_sentence_and_the_same_command_finishes(ground, gasbench):
    model = mean_onnx(gasbench.folder / "mean.onnx", SHAPES["image"], 0.05, 127.0)
    words = ["--image-model", model, "--dataset-config", ground / "sets.yaml", "--robustness", "0", "--batch-size", "2"]
    whole = gasbench.run(*words)["runs"][0]
    places = ["--cache-dir", gasbench.folder / "cache", "--results-dir", gasbench.folder / "full", "--processes", "1"]
    # No file may grow beyond this: the report with its pictures would, as it would on a disk that is full.
    most = 24 * 1024
    done = subprocess.run(
        [sys.executable, "-m", "gas.cli.gasbench", "run", *map(str, [*words, *places]), "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"GAS_HOME": str(gasbench.folder / "home")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        check=False,
    )
    assert done.returncode == 1, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] in {"report_unwritable", "journal_unwritable", "results_unwritable", "records_unwritable"}
    assert "File too large" in error["message"]
    (folder,) = (gasbench.folder / "full").iterdir()
    assert not (folder / "results.json").exists()
    out = gasbench("run", *words, *places)
    assert "going on after 4" in gasbench.err, "what was answered is not asked again"
    assert "Final score" in out
    other = gasbench.folder / "results" / whole["metadata"]["run_id"]
    assert (folder / "records.parquet").read_bytes() == (other / "records.parquet").read_bytes()


def test_a_model_that_needs_more_memory_than_there_is_loses_those_samples_and_no_others(ground, gasbench):
    model = mean_onnx(gasbench.folder / "hungry.onnx", SHAPES["image"], 0.05, 127.0, "hungry")
    words = ["--image-model", model, "--dataset-config", ground / "sets.yaml", "--robustness", "0", "--batch-size", "8"]
    (run,) = gasbench.run(*words)["runs"]
    assert run["errors"]["model"] == {"out_of_memory": 2}
    assert run["results"]["correct_predictions"] == 34
    assert run["sandbox"]["restarts"] > 0
    folder = gasbench.folder / "results" / run["metadata"]["run_id"]
    records = from_parquet((folder / "records.parquet").read_bytes())
    assert sum(record.status is SampleStatus.MODEL_ERROR for record in records) == 2
    out = gasbench(
        "run", *words, "--cache-dir", gasbench.folder / "cache", "--results-dir", gasbench.folder / "results"
    )
    assert "2 answers with out_of_memory" in out


def test_an_empty_data_folder_is_named_before_the_model_is_asked(gasbench):
    (gasbench.folder / "image-real").mkdir()
    (gasbench.folder / "image-fake").mkdir()
    config = registry(gasbench.folder / "sets.yaml", ["image"])
    model = mean_onnx(gasbench.folder / "mean.onnx", SHAPES["image"], 0.05, 127.0)
    error = gasbench.run("--image-model", model, "--dataset-config", config, code=2)["error"]
    assert "empty" in error["message"]
    assert "sets-image-" in error["message"]


def test_a_folder_with_nothing_that_can_be_decoded_has_no_score_but_a_reason(ground, gasbench):
    (gasbench.folder / "image-real").mkdir()
    (gasbench.folder / "image-fake").mkdir()
    for number in range(3):
        (gasbench.folder / "image-real" / f"{number}.png").write_bytes(b"no picture" * (number + 1))
        (gasbench.folder / "image-fake" / f"{number}.png").write_bytes(b"none either" * (number + 1))
    config = registry(gasbench.folder / "sets.yaml", ["image"])
    model = mean_onnx(gasbench.folder / "mean.onnx", SHAPES["image"], 0.05, 127.0)
    error = gasbench.run("--image-model", model, "--dataset-config", config, code=2)["error"]
    assert "sets-image-" in error["message"]


def test_a_card_that_is_not_there_is_said_before_any_work(ground, gasbench, monkeypatch):
    monkeypatch.setattr("gas.bench.public.find_gpu", lambda: None)
    model = mean_onnx(gasbench.folder / "mean.onnx", SHAPES["image"], 0.05, 127.0)
    words = ["--image-model", model, "--dataset-config", ground / "sets.yaml", "--device"]
    assert gasbench.run(*words, "cuda", code=2)["error"]["code"] == "no_gpu"
    assert gasbench.run(*words, "tpu", code=2)["error"]["code"] == "unknown_device"
    (run,) = gasbench.run(*words, "auto", "--debug", "--robustness", "0")["runs"]
    assert run["sandbox"]["device"] == "cpu"
