"""``gascli d bench`` with a real model in the real sandbox."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gas.bench.engine import RunConfig, evaluate
from gas.bench.records import from_parquet
from gas.cli.main import main
from gas.datasets.plan import freeze_round, write_round
from gas.datasets.shelves import RoundShelves
from gas.media.image import encode_png
from gas.sandbox import ModelSpec, Tier, probe
from gas.storage.blobs import FolderBlobs
from gas.types import MediaType, Modality, Provenance, Sample, SampleStatus

TIER = probe().tier
needs_sandbox = pytest.mark.skipif(TIER < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")


def brightness_onnx(path):
    """Says fake where the picture is bright: logits (x, -x) with x = 12.75 - mean / 10."""
    weights = {
        "scale": np.array([[-0.1, 0.1]], dtype=np.float32),
        "shift": np.array([12.75, -12.75], dtype=np.float32),
        "flat": np.array([-1, 1], dtype=np.int64),
        "axes": np.array([1, 2, 3], dtype=np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
            helper.make_node("Reshape", ["mean", "flat"], ["column"]),
            helper.make_node("Gemm", ["column", "scale", "shift"], ["logits"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder with a round of 40 pictures (fakes are bright, one blob is broken) and a package."""
    root = tmp_path_factory.mktemp("bench")
    blobs = FolderBlobs(root / "round" / "blobs")
    rng = np.random.default_rng(5)
    samples = []
    for i in range(40):
        fake = i % 2 == 1
        pixels = np.clip(rng.normal(190 if fake else 60, 20, (40, 48, 3)), 0, 255).astype(np.uint8)
        data = b"no picture" if i == 6 else encode_png(pixels)
        name = blobs.put(data)
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        source = f"{'made' if fake else 'photos'}-{i % 3}"
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, source[:-2], source, name))
    write_round(freeze_round(samples, 11, {}, code_version="test"), root / "round")
    (root / "package").mkdir()
    brightness_onnx(root / "package" / "brightness.onnx")
    return root


@needs_sandbox
def test_bench_prints_one_json_object_and_writes_the_records(ground, capsys, tmp_path):
    words = ["d", "bench", str(ground / "package"), "--round", str(ground / "round"), "--json", "--robustness", "4"]
    with pytest.raises(SystemExit) as done:
        main([*words, "--out", str(tmp_path / "out"), "--batch-size", "8"])
    assert not done.value.code
    shown = json.loads(capsys.readouterr().out)
    assert shown["sn34_score"] > 0.9
    assert shown["base"]["n"] == 39
    assert shown["robust"]["n"] == 8
    assert shown["media_errors"] == 1
    assert shown["model_errors"] == {}
    assert shown["inconsistent"] == []
    assert shown["sandbox"].startswith("bubblewrap")
    assert shown["timings"]["cpu_seconds"] > 0
    assert 0 < shown["timings"]["start_seconds"] < shown["timings"]["wall_seconds"]
    records = from_parquet((tmp_path / "out" / "records.parquet").read_bytes())
    assert len(records) == 48
    assert sum(r.status is SampleStatus.MEDIA_ERROR for r in records) == 1
    assert json.loads((tmp_path / "out" / "results.json").read_text())["records_sha256"] == shown["records_sha256"]


@needs_sandbox
def test_bench_shows_a_table_for_people(ground, capsys):
    with pytest.raises(SystemExit) as done:
        main(["d", "bench", str(ground / "package"), "--round", str(ground / "round"), "--robustness", "0"])
    assert not done.value.code
    out = capsys.readouterr().out
    assert "Final score" in out
    assert "brightness" in out


def test_a_refused_package_never_reaches_the_sandbox(ground, capsys, tmp_path):
    (tmp_path / "bad.onnx").write_text("this is no model")
    with pytest.raises(SystemExit) as done:
        main(["d", "bench", str(tmp_path), "--round", str(ground / "round"), "--json"])
    assert done.value.code == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "package_rejected"


def test_a_folder_that_is_no_round_is_refused(ground, capsys, tmp_path):
    with pytest.raises(SystemExit) as done:
        main(["d", "bench", str(ground / "package"), "--round", str(tmp_path)])
    assert done.value.code == 1
    assert "no complete round" in capsys.readouterr().err


MODEL = """
import torch


class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        mean = x.float().mean(dim=(1, 2, 3))
        if bool((mean.round() == 201).any()):
            raise RuntimeError("this one is too hard")
        return torch.stack([100 - mean, mean - 100], dim=1) * 0.05 + self.scale


def load_model(weights_path, num_classes=2, **params):
    return Net(num_classes)
"""


@needs_sandbox
@pytest.mark.slow
def test_a_torch_model_that_raises_on_one_sample_loses_that_sample_alone(tmp_path):
    from safetensors.numpy import save_file

    blobs = FolderBlobs(tmp_path / "blobs")
    samples = []
    for i in range(24):
        fake = i % 2 == 1
        level = 201 if i == 5 else (150 if fake else 40) + i
        name = blobs.put(encode_png(np.full((32, 32, 3), level, dtype=np.uint8)))
        kind = MediaType.SYNTHETIC if fake else MediaType.REAL
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.PUBLIC, "all", f"s{i % 4}", name))
    round_ = freeze_round(samples, 3, {}, code_version="test")
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.py").write_text(MODEL)
    save_file({"scale": np.zeros(2, dtype=np.float32)}, package / "model.safetensors")
    spec = ModelSpec(package, "safetensors", "model.py", "model.safetensors", (3, 32, 32), "uint8", 2)
    from gas.sandbox import Spares, best_sandbox

    media = RoundShelves(round_.samples, blobs, tmp_path / "pixels")
    config = RunConfig(nonce="0123456789abcdef", batch_size=8, reask_share=0.0, reask_least=0, processes=1)
    with Spares(best_sandbox(Tier.BUBBLEWRAP), folder=tmp_path, least_free=0) as spares:
        result = evaluate(spec, round_, media, spares, config)
        assert spares.taken == 2, "a process that waits takes over after each crash"
    bad = [r for r in result.records if r.status is not SampleStatus.OK]
    assert [r.sample_id for r in bad] == [samples[5].sample_id]
    assert (bad[0].p_fake, bad[0].fake, bad[0].error) == (0.0, False, "crashed")
    assert result.restarts == 2
    assert result.timings.start_cpu_seconds > 0.1, "importing torch costs more than that"
    assert result.tier >= Tier.BUBBLEWRAP
