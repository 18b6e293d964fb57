"""How models fail: each way has its code, is the author's, and the next model works."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from gas.errors import ModelFailed
from gas.sandbox import Limits, PlainSandbox

LIMITS = Limits(memory_bytes=3 * 2**30, load_seconds=30.0, batch_seconds=1.0)

MODEL = """
import ctypes, mmap, os, resource, sys, time
import numpy
import torch

def runner():
    frame = sys._getframe()
    while frame.f_code.co_name != "_serve":
        frame = frame.f_back
    return frame.f_locals

class Bad(torch.nn.Module):
    def forward(self, batch):
        FORWARD
        return torch.zeros(len(batch), 2)

def load_model(weights_path, num_classes):
    LOAD
    return Bad()
"""

LOADS = {
    "raises": ("raise ValueError('no such layer')", "load_failed", "ValueError.*no such layer"),
    "exits": ("sys.exit(0)", "load_failed", "SystemExit"),
    "ends quietly": ("os._exit(0)", "load_failed", "ended with code 0"),
    "returns no module": ("return 7", "load_failed", "must return a torch.nn.Module"),
    "crashes": ("ctypes.string_at(0)", "load_failed", "SIGSEGV"),
    "announces an answer without end": (
        "runner()['send'](b'FAIL', runner()['config']['nonce'], b'x' * 60_000); time.sleep(1000)",
        "protocol",
        "wrong kind or size",
    ),
    "blames the sandbox": (
        "runner()['send'](b'FAIL', runner()['config']['nonce'], b'sandbox_unavailable\\n\\x1b[2Jnot me'); os._exit(0)",
        "protocol",
        "\ufffd\\[2Jnot me",
    ),
    "answers with a guessed number": ("runner()['send'](b'REDY', 12345); time.sleep(1000)", "protocol", "before"),
    "closes every channel": ("os.closerange(3, 256); time.sleep(1000)", "protocol", "closed its channel"),
}

BATCHES = {
    "raises": ("raise ValueError('odd size')", "crashed", "ValueError.*odd size"),
    "crashes": ("ctypes.string_at(0)", "crashed", "SIGSEGV"),
    "aborts": ("os.abort()", "crashed", "SIGABRT"),
    "loops for ever": ("while True: pass", "timeout", "more than 1 s"),
    "answers too wide": ("return torch.zeros(len(batch), 3)", "bad_output", r"\(3, 2\).*\(3, 3\)"),
    "answers too few": ("return torch.zeros(1, 2)", "bad_output", r"\(3, 2\).*\(1, 2\)"),
    "answers no tensor": ("return 'real'", "bad_output", "returned a str"),
    "takes too much memory": ("bytearray(2**34)", "out_of_memory", "Out of memory"),
    "uses up its processor time": (
        "resource.setrlimit(resource.RLIMIT_CPU, (1, 20))\n        while True: pass",
        "timeout",
        "",
    ),
    "answers twice": (
        "runner()['send'](b'LOGI', runner()['nonce'], bytes(24))",
        "protocol",
        "nobody had asked|before it was asked",
    ),
    "writes to the input": ("ctypes.memset(runner()['batches'].ctypes.data, 1, 1)", "crashed", "SIGSEGV"),
}

ESCAPES = {
    "calls the kernel as another architecture": (
        "code = mmap.mmap(-1, 4096, prot=7); code.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "        address = numpy.frombuffer(code, dtype=numpy.uint8).ctypes.data\n"
        "        ctypes.CFUNCTYPE(ctypes.c_int)(address)()",
        "crashed",
        "SIGSYS",
    ),
    "makes processes without end": ("while True: os.fork()", "crashed", "PermissionError"),
}


def failure(sandbox, spec, limits=LIMITS):
    """Start a model and ask it twice; returns how it failed."""
    with pytest.raises(ModelFailed) as caught, sandbox.start(spec, batch_size=3, limits=limits) as session:
        batch = np.zeros((3, *spec.input_shape), dtype=np.uint8)
        session.infer(batch)
        session.infer(batch)
    return caught.value


def assert_fails(sandbox, spec, code, words):
    error = failure(sandbox, spec)
    assert error.error_code == code, str(error)
    assert re.search(words, error.message), error.message
    assert str(error).replace("\n", "").isprintable()
    assert len(str(error)) < 6000


@pytest.mark.parametrize("name", LOADS)
def test_a_model_fails_to_load_when_it(name, light, torch_package, next_model_works):
    code_line, code, words = LOADS[name]
    spec = torch_package(MODEL.replace("LOAD", code_line).replace("FORWARD", "pass"))
    assert_fails(light, spec, code, words)
    next_model_works(light)


@pytest.mark.parametrize("name", [*BATCHES, *ESCAPES])
def test_a_model_fails_on_a_batch_when_it(name, light, torch_package, next_model_works):
    code_line, code, words = {**BATCHES, **ESCAPES}[name]
    spec = torch_package(MODEL.replace("FORWARD", code_line).replace("LOAD", "pass"))
    assert_fails(light, spec, code, words)
    next_model_works(light)


@pytest.mark.parametrize("name", ["crashes", "loops for ever", "takes too much memory"])
def test_a_model_fails_alike_without_isolation_when_it(name, light, torch_package, next_model_works):
    code_line, code, words = BATCHES[name]
    spec = torch_package(MODEL.replace("FORWARD", code_line).replace("LOAD", "pass"))
    assert_fails(PlainSandbox(), spec, code, words)
    next_model_works(PlainSandbox())


@pytest.mark.parametrize("isolated", [False, True])
def test_a_model_that_sleeps_for_ever_while_loading_is_stopped(isolated, light, torch_package, next_model_works):
    sandbox = light if isolated else PlainSandbox()
    spec = torch_package(MODEL.replace("LOAD", "time.sleep(1000)"))
    begun = time.monotonic()
    error = failure(sandbox, spec, replace(LIMITS, load_seconds=0.5))
    assert error.error_code == "timeout"
    assert time.monotonic() - begun < 60
    next_model_works(sandbox)


@pytest.mark.parametrize(
    ("line", "code"), [("torch.zeros(2**33)", "out_of_memory"), ("return torch.zeros(1, 2)", "bad_output")]
)
def test_tensors_too_large_or_of_a_wrong_shape_are_the_authors_fault(line, code, isolating, torch_package):
    spec = torch_package(MODEL.replace("FORWARD", line).replace("LOAD", "pass"))
    assert failure(isolating, spec).error_code == code


def test_a_graph_that_answers_too_narrow_is_the_authors_fault(rung, onnx_package):
    error = failure(rung, onnx_package(num_classes=5))
    assert (error.error_code, "(3, 5)" in error.message) == ("bad_output", True)


def test_a_graph_that_is_no_graph_is_the_authors_fault(rung, onnx_package):
    spec = onnx_package()
    (spec.folder / spec.entry).write_bytes(b"not a graph")
    assert failure(rung, spec).error_code == "load_failed"


def test_a_model_does_not_see_this_project_even_where_it_is_installed_among_the_packages(light, torch_package):
    lines = "site = sys.path[0]; print(site, os.listdir(site), os.listdir(site + '/gas')); os._exit(0)"
    error = failure(light, torch_package(MODEL.replace("LOAD", lines)))
    assert re.search(r"/site0 \[.*'gas'.*\] \[\]$", error.hint), error.hint


def test_the_author_sees_the_end_of_what_the_model_printed(light, torch_package):
    lines = "print('first'); print('x' * 10_000); print('the layer is missing', file=sys.stderr); os._exit(3)"
    error = failure(light, torch_package(MODEL.replace("LOAD", lines)))
    assert error.hint.endswith("the layer is missing")
    assert "first" not in error.hint
    assert "code 3" in error.message
