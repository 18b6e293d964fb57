"""Which parts of a graphics card a sandbox lets through: decided over listings, because few machines have one."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from gas.errors import ConfigurationError, SandboxUnavailable
from gas.sandbox import BubblewrapSandbox, ModelSpec, Tier, gpu, probe
from gas.sandbox.gpu import GpuAccess, choose_device, find_gpu, gpu_access, gpu_words
from gas.sandbox.inside import filters, models

DEV = ["null", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset", "dri", "sda"]
LDCONFIG = """\
5 libs found in cache `/etc/ld.so.cache'
\tlibcuda.so.1 (libc6) => /usr/lib/i386-linux-gnu/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /opt/driver/libcuda.so.1
\tlibcuda.so.1 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libcuda.so.1
\tlibnvidia-ptxjitcompiler.so.1 (libc6,x86-64) => /opt/driver/libnvidia-ptxjitcompiler.so.1
\tlibnvidia-glcore.so.550.1 (libc6,x86-64) => /opt/driver/libnvidia-glcore.so.550.1
\tlibm.so.6 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/x86_64-linux-gnu/libm.so.6
"""
ACCESS = GpuAccess(
    ("/dev/nvidia2", "/dev/nvidia10", "/dev/nvidiactl", "/dev/nvidia-uvm"),
    (
        ("libcuda.so.1", "/opt/driver/libcuda.so.1"),
        ("libnvidia-ptxjitcompiler.so.1", "/opt/driver/libnvidia-ptxjitcompiler.so.1"),
    ),
)


def test_the_cards_and_the_driver_s_libraries_are_let_through_and_nothing_for_screens_or_debugging():
    assert gpu_access(DEV, LDCONFIG) == ACCESS


@pytest.mark.parametrize("missing", ["nvidiactl", "nvidia-uvm"])
def test_without_its_control_devices_a_card_is_no_card(missing):
    assert gpu_access([name for name in DEV if name != missing], LDCONFIG) is None


def test_without_a_card_or_its_driver_there_is_nothing():
    assert gpu_access(["nvidiactl", "nvidia-uvm"], LDCONFIG) is None
    assert gpu_access(DEV, "") is None
    assert gpu_access(DEV, LDCONFIG.replace("x86-64", "AArch64")) is None


def test_a_machine_is_looked_at_through_its_folder_of_devices(tmp_path, monkeypatch):
    assert find_gpu(tmp_path) is None
    (tmp_path / "dev").mkdir()
    for name in DEV:
        (tmp_path / "dev" / name).touch()
    done = types.SimpleNamespace(stdout=LDCONFIG)
    monkeypatch.setattr(gpu.subprocess, "run", lambda *args, **kwargs: done)
    assert find_gpu(tmp_path) == ACCESS


def test_bubblewrap_is_told_of_each_device_and_each_library_alone():
    words = gpu_words(ACCESS)
    bound = [words[k + 1] for k, word in enumerate(words) if word in {"--dev-bind", "--ro-bind"}]
    assert bound == [*ACCESS.devices, "/opt/driver/libcuda.so.1", "/opt/driver/libnvidia-ptxjitcompiler.so.1"]
    assert words[words.index("/opt/driver/libcuda.so.1") + 1] == "/gpu/libcuda.so.1"
    assert not any(word.startswith("--bind") for word in words)


@pytest.mark.parametrize(
    ("wanted", "form", "access", "versions", "device"),
    [
        ("auto", "onnx", None, {}, "cpu"),
        ("cpu", "onnx", ACCESS, {"onnxruntime-gpu": "1.20"}, "cpu"),
        ("auto", "onnx", ACCESS, {"torch": "2.13.0+cu126"}, "cpu"),
        ("auto", "onnx", ACCESS, {"onnxruntime-gpu": "1.20"}, "cuda"),
        ("auto", "safetensors", ACCESS, {"torch": "2.13.0+cpu"}, "cpu"),
        ("auto", "safetensors", ACCESS, {"torch": "2.13.0"}, "cuda"),
        ("cuda", "safetensors", ACCESS, {"torch": "2.13.0+cu126"}, "cuda"),
    ],
)
def test_a_card_is_used_where_the_model_s_library_can(wanted, form, access, versions, device):
    assert choose_device(wanted, form, access, versions) == device


@pytest.mark.parametrize(
    ("form", "access", "versions", "what"),
    [
        ("onnx", None, {"onnxruntime-gpu": "1.20"}, "driver"),
        ("onnx", ACCESS, {}, "onnxruntime-gpu"),
        ("safetensors", ACCESS, {"torch": "2.13.0+cpu"}, "torch"),
    ],
)
def test_who_asks_for_a_card_hears_what_is_missing(form, access, versions, what):
    with pytest.raises(ConfigurationError, match=what) as refused:
        choose_device("cuda", form, access, versions)
    assert refused.value.error_code == "no_gpu"


def test_an_unknown_device_is_answered_with_those_there_are():
    with pytest.raises(ConfigurationError) as refused:
        choose_device("tpu", "onnx", None, {})
    assert refused.value.error_code == "unknown_device"
    assert "cuda" in refused.value.hint


def test_the_filters_for_a_card_are_larger_and_those_without_unchanged():
    assert filters.first_filter() == filters.first_filter(gpu=False)
    assert len(filters.first_filter(gpu=True)) > len(filters.first_filter())
    assert len(filters.second_filter(7, gpu=True)) > len(filters.second_filter(7))


def test_onnx_runtime_computes_on_the_card_only_where_its_build_can():
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert models.onnx_providers("cuda", both) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert models.onnx_providers("cuda", ["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert models.onnx_providers("cpu", both) == ["CPUExecutionProvider"]


class Recorder:
    """A stand-in for torch that says in which order a batch goes to the card."""

    def __init__(self):
        self.calls = []
        self.float32, self.float16, self.bfloat16, self.uint8 = "f4", "f2", "bf", "u1"
        self.nn = types.SimpleNamespace(Module=Recorder.Module, Conv2d=None)
        self.channels_last = "last"
        self.Tensor = Recorder.Tensor

    class Module:
        def eval(self):
            return self

        def to(self, device):
            self.log.append(("model to", device))
            return self

        def modules(self):
            return [self]

        def __call__(self, batch):
            self.log.append(("forward on", batch.device))
            return Recorder.Tensor(self.log, np.zeros((len(batch.array), 2), np.float32), batch.device)

    class Tensor:
        def __init__(self, log, array, device="cpu", pinned=False):
            self.log, self.array, self.device, self.pinned = log, array, device, pinned

        def pin_memory(self):
            self.log.append(("pinned",))
            return Recorder.Tensor(self.log, self.array, pinned=True)

        def to(self, device, *, non_blocking=False):
            assert not non_blocking or self.pinned, "only a page-locked buffer is copied by itself"
            self.log.append(("copy", device, non_blocking))
            return Recorder.Tensor(self.log, self.array, device)

        def __getitem__(self, item):
            return Recorder.Tensor(self.log, self.array[item], self.device, self.pinned)

        def numpy(self):
            return self.array

        def detach(self):
            return self

        float = cpu = detach

    def empty(self, shape, dtype):
        return Recorder.Tensor(self.calls, np.empty(shape, np.uint8))

    def inference_mode(self):
        return self

    def autocast(self, device, dtype):
        self.calls.append(("autocast", device, dtype))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "float32", [("forward on", "cpu")]),
        ("cpu", "bfloat16", [("autocast", "cpu", "bf"), ("forward on", "cpu")]),
        ("cuda", "float32", [("model to", "cuda"), ("pinned",), ("copy", "cuda", True), ("forward on", "cuda")]),
        (
            "cuda",
            "float16",
            [
                ("model to", "cuda"),
                ("pinned",),
                ("copy", "cuda", True),
                ("autocast", "cuda", "f2"),
                ("forward on", "cuda"),
            ],
        ),
    ],
)
def test_batches_go_to_the_card_through_page_locked_memory_and_the_package_s_dtype(
    tmp_path, monkeypatch, device, dtype, expected
):
    stand_in = Recorder()
    Recorder.Module.log = stand_in.calls
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    (tmp_path / "model.py").write_text("import torch\n\n\ndef load_model(path, n):\n    return torch.nn.Module()\n")
    model = models.load(
        {"model_folder": str(tmp_path), "format": "safetensors", "entry": "model.py", "weights_file": "w"}
        | {"num_classes": 2, "dtype": dtype, "device": device, "params": {}, "batch_size": 4}
        | {"input_shape": [3, 4, 4], "input_dtype": "uint8"}
    )
    assert model(np.zeros((3, 3, 4, 4), np.uint8)).shape == (3, 2)
    assert stand_in.calls == expected


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a card")
@pytest.mark.skipif(probe().tier < Tier.BUBBLEWRAP, reason="nothing on this machine isolates a model")
def test_a_run_that_asks_for_a_card_where_there_is_none_is_our_fault_and_not_the_model_s(tmp_path):
    spec = ModelSpec(tmp_path, "onnx", "model.onnx", None, (3, 4, 4), "uint8", 2, device="cuda")
    with pytest.raises(SandboxUnavailable, match="graphics card"):
        BubblewrapSandbox().start(spec, batch_size=1)


@pytest.mark.parametrize("name", ["isolating", "own"])
def test_the_sandbox_that_lets_a_card_through_starts_and_computes(
    name, request, onnx_package, batch, expected, tmp_path, monkeypatch
):
    library = tmp_path / "libcuda.so.1"
    library.write_bytes(b"")
    access = GpuAccess(("/dev/null",), (("libcuda.so.1", str(library)),))
    monkeypatch.setattr("gas.sandbox.isolating.find_gpu", lambda: access)
    spec = replace(onnx_package(), device="cuda")
    with request.getfixturevalue(name).start(spec, batch_size=3) as session:
        assert session.infer(batch) == pytest.approx(expected(batch), rel=1e-4)
