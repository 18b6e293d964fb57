"""What `gasbench` refuses, before it asks a model anything."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from gasbench_ground import SHAPES, Command, mean_onnx, media, registry

from gas.bench.results import inference_milliseconds
from gas.bench.settings import EXECUTORS
from gas.cli.gasbench import COMMANDS, main
from gas.cli.main import load
from gas.sandbox import Tier, probe

needs_sandbox = pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")


@pytest.fixture
def gasbench(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GAS_HOME", str(tmp_path / "home"))
    media(tmp_path, "image", 3)
    registry(tmp_path / "sets.yaml", ["image"])
    mean_onnx(tmp_path / "mean.onnx", SHAPES["image"], 0.05, 127.0)
    return Command(main, tmp_path, capsys)


def refused(gasbench, *words, code=2, model="mean.onnx", config="sets.yaml"):
    folder = gasbench.folder
    return gasbench.run("--image-model", folder / model, "--dataset-config", folder / config, *words, code=code)[
        "error"
    ]


def test_an_executor_that_is_not_there_is_answered_with_those_that_are(gasbench):
    error = refused(gasbench, "--executor", "slurm")
    assert error["code"] == "unknown_executor"
    assert all(name in error["hint"] for name in EXECUTORS)


def test_without_a_model_there_is_nothing_to_run(gasbench):
    assert gasbench.run("--debug", code=2)["error"]["code"] == "no_model"
    assert refused(gasbench, model="nowhere.onnx")["code"] == "no_model"


def test_two_modes_at_once_are_refused(gasbench):
    assert refused(gasbench, "--debug", "--full")["code"] == "unknown_mode"


def test_a_package_that_fails_its_checks_never_reaches_the_data(gasbench):
    (gasbench.folder / "bad.onnx").write_text("no model")
    assert refused(gasbench, model="bad.onnx", code=1)["code"] == "package_rejected"
    assert not (gasbench.folder / "cache").exists()


def test_a_model_of_another_modality_is_refused(gasbench):
    words = ["--audio-model", gasbench.folder / "mean.onnx", "--dataset-config", gasbench.folder / "sets.yaml"]
    assert gasbench.run(*words, code=1)["error"]["code"] == "package_rejected"


def test_a_bad_second_model_is_noticed_before_the_first_is_asked(gasbench):
    words = ["--audio-model", gasbench.folder / "nowhere.onnx"]
    assert refused(gasbench, *words)["code"] == "no_model"
    mean_onnx(gasbench.folder / "sound.onnx", SHAPES["audio"], 8.0, 0.25)
    error = refused(gasbench, "--audio-model", gasbench.folder / "sound.onnx")
    assert error["code"] == "empty_round"
    assert not (gasbench.folder / "results").exists()


@needs_sandbox
def test_a_registry_without_fakes_says_what_to_add(gasbench):
    registry(gasbench.folder / "real.yaml", ["image"], ["real"])
    error = refused(gasbench, config="real.yaml")
    assert error["code"] == "one_class"
    assert "media_type: synthetic" in error["hint"]


@needs_sandbox
def test_a_key_that_no_registry_has_is_named_with_its_line(gasbench):
    path = gasbench.folder / "odd.yaml"
    registry(path, ["image"], extra="    licens: MIT\n")
    error = refused(gasbench, config="odd.yaml")
    assert error["code"] == "registry_invalid"
    assert "odd.yaml:9" in error["message"]
    assert "licens" in error["message"]


@needs_sandbox
def test_a_registry_without_the_modality_is_refused(gasbench):
    registry(gasbench.folder / "sounds.yaml", ["audio"])
    assert refused(gasbench, config="sounds.yaml")["code"] == "empty_round"


@needs_sandbox
def test_arena_sets_only_needs_an_arena_set(gasbench):
    error = refused(gasbench, "--gasstation-only")
    assert error["code"] == "empty_round"
    assert "arena" in error["message"]


@needs_sandbox
def test_one_set_in_both_registries_is_refused(gasbench):
    error = refused(gasbench, "--holdout-config", gasbench.folder / "sets.yaml")
    assert error["code"] == "name_taken"


def test_results_that_cannot_be_written_are_noticed_before_the_run(gasbench):
    (gasbench.folder / "file").write_text("in the way")
    error = refused(gasbench, "--results-dir", gasbench.folder / "file" / "results", code=1)
    assert error["code"] == "results_unwritable"
    assert "--results-dir" in error["hint"]


def test_an_empty_home_says_how_to_get_data(gasbench, monkeypatch, tmp_path):
    found = gasbench.run("--image-model", gasbench.folder / "mean.onnx", code=2)["error"]
    assert found["code"] == "empty_round"
    assert "--dataset-config" in found["hint"]


def test_inference_time_is_a_sample_s_share_of_its_batch():
    assert inference_milliseconds([]) == (None, None)
    mean, tail = inference_milliseconds([(9, 0.9), (1, 0.2)])
    assert mean == pytest.approx(110)
    assert 100 < tail < 200


def test_the_help_comes_without_heavy_packages():
    code = (
        "import sys; from gas.cli.gasbench import main; import gas.bench; main(['--help']); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & {'torch', 'numpy', 'pyarrow', 'typer', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_commands_of_the_guide_exist_with_their_options():
    import typer.main

    guide = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("gasbench ")]
    assert len(lines) > 4
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        command = typer.main.get_command(load(name, COMMANDS[name]))
        command.make_context(name, list(words))


def test_results_survive_a_round_trip_and_other_files_are_no_results(tmp_path):
    from gas.bench.results import read_results, write_results

    write_results(tmp_path / "results.json", {"overall_score": None})
    assert read_results(tmp_path / "results.json") == {"overall_score": None}
    (tmp_path / "results.json").write_text(json.dumps([1]))
    assert read_results(tmp_path / "results.json") is None
