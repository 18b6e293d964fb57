"""Honest code passes, and findings help its author."""

from __future__ import annotations

import textwrap

import pytest
from good_packages import GOOD_CODE
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.submissions.code import check_code

HEAD = """\
from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Any, Optional

import cv2
import einops
import numpy as np
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from einops.layers.torch import Rearrange
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import ndimage
from timm.layers import DropPath, trunc_normal_
from torch import Tensor
from torch.cuda.amp import autocast
from torchvision import models, transforms
from torchvision.models.feature_extraction import create_feature_extractor
from transformers import AutoConfig, AutoModel
"""


def load(body: str) -> str:
    return "def load_model(weights_path: str, num_classes: int = 2, **model_params):\n" + textwrap.indent(
        textwrap.dedent(body), "    "
    )


HONEST = {
    "the template": GOOD_CODE,
    "a parameter called input": HEAD
    + "class A(nn.Module):\n    def forward(self, input: Tensor) -> Tensor:\n        return F.relu(input)\n"
    + load("return A().eval()"),
    "a helper that reads the weights": HEAD
    + "def _read(model, path):\n    state = load_file(str(path), device='cpu')\n    model.load_state_dict(state)\n\n\n"
    + load("net = nn.Identity()\n_read(net, weights_path)\nreturn net"),
    "safe_open of the weights": HEAD
    + load("with safe_open(weights_path, framework='pt') as f:\n    return {k: f.get_tensor(k) for k in f.keys()}"),
    "the package's own folder": HEAD
    + load(
        "folder = PurePath(weights_path).parent\nreturn AutoModel.from_config(AutoConfig.from_pretrained(str(folder)))"
    ),
    "timm without a download": HEAD
    + load("return timm.create_model('resnet18', pretrained=False, num_classes=num_classes)"),
    "torchvision models": HEAD + load("return models.resnet18(weights=None, num_classes=num_classes)"),
    "torchvision with a dot": HEAD + load("return torchvision.models.resnet18(weights=None)"),
    "literal getattr": HEAD + load("return getattr(nn, 'Linear')(2, getattr(model_params, 'x', 2))"),
    "a class's name": HEAD
    + "class A:\n    def __repr__(self):\n        return self.__class__.__name__\n"
    + load("return A()"),
    "numpy, cv2, scipy": HEAD
    + "K = cv2.getGaussianKernel(5, 1)\nD = ndimage.gaussian_filter(np.zeros((3, 3), dtype=np.float32), 1)\n"
    + "B = Image.fromarray(np.zeros((2, 2, 3), np.uint8)).resize((4, 4), Image.BILINEAR)\n"
    + "C = cv2.cvtColor(np.zeros((2, 2, 3), np.uint8), cv2.COLOR_RGB2GRAY)\n"
    + load("return None"),
    "decorators, partials, dataclasses": HEAD
    + "@dataclass\nclass C:\n    a: list[int] = field(default_factory=list)\n    b: Optional[Any] = None\n\n\n"
    + "norm = partial(nn.LayerNorm, eps=1e-6)\n\n\n@torch.no_grad()\ndef f(x: torch.Tensor) -> 'torch.Tensor':\n"
    + "    with autocast(enabled=torch.cuda.is_available()):\n        return torch.fft.fft2(x).abs()\n\n\n"
    + load("return nn.Sequential(OrderedDict([('a', norm(3)), ('b', Rearrange('b c -> c b'))]))"),
    "backends and messages": HEAD
    + "torch.backends.cudnn.benchmark = True\nif __name__ == '__main__':\n"
    + "    print('{:.2f} {}'.format(1, 2), f'{math.pi:.3f}')\n"
    + load(
        "try:\n    assert num_classes > 1\nexcept AssertionError as e:\n    raise ValueError(str(e)) from e\nreturn 1"
    ),
    "weights by initialisation": HEAD
    + "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    + "        self.p = nn.Parameter(torch.zeros(1))\n"
    + "        nn.init.kaiming_uniform_(self.p[None], a=math.sqrt(5))\n        trunc_normal_(self.p, std=0.02)\n"
    + "        self.register_buffer('mean', torch.tensor([0.5]).view(1, -1, 1, 1))\n        self.d = DropPath(0.1)\n"
    + "    def forward(self, x):\n        return einops.rearrange(x, 'b c h w -> b (c h w)')\n"
    + load("return A()"),
}


ORDINARY: dict[str, str] = {
    "types in annotations and questions": "def f(x: type, y: dict[str, type], z: type[int] | None = None) -> type:\n"
    "    return None if isinstance(x, type) or type(x) is Tensor else None",
    "a parameter called type": 'def f(x, type="a"):\n    return type if type == "b" else x',
    "the name of a class": "class A(nn.Module):\n"
    "    def f(self):\n        return self.__class__.__name__, type(self).__name__",
    "greek letters": "Δx = 1.0\nλ_max = 3",
    "another language": '# это комментарий\nимя = "модель"',
    "a layer under another name": "Act = nn.GELU\nd = torch.bfloat16\nsize = d.itemsize",
    "a model without weights by timm": 'm = timm.create_model("vit_tiny_patch16_224", False, **{"num_classes": 2})',
    "a model without weights by torchvision": "m = models.resnet18(weights=None)\n"
    "r = partial(models.resnet18, weights=None)",
    "an optional library": "try:\n    from flash_attn import flash_attn_func\n"
    "except ImportError:\n    flash_attn_func = None",
    "text put together": 'x = "-".join(["a", "b"]) + "c" + f"{1}"\ny = "abc"[::-1]',
    "a local called input": "def f(x):\n    for input in x:\n        input = input + 1\n"
    "    return [input for _ in x] + [lambda: input]",
    "a class of one's own, matched": "class P:\n    x = 1\n\n\ndef f(p):\n    match p:\n        case P(x=y):\n"
    "            return y",
    "a yolo of a known form": 'from ultralytics import YOLO\nm = YOLO("yolov8n-cls.yaml")',
}


@pytest.mark.parametrize("lines", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_lines_are_no_evasion(lines: str) -> None:
    source = HEAD + load("return nn.Identity()") + "\n\n" + lines + "\n"
    assert [str(r) for r in check_code(source.encode())] == []


EVASIONS: dict[str, str] = {
    "from_pretrained by a pattern": 'match [AutoModel]:\n    case [object(from_pretrained=f)]:\n        f("x/hub")',
    "format by a pattern": 'match "{0.__class__.x}":\n    case str(format=f):\n        f(3)',
    "anything of a library by a pattern": "match np.ndarray:\n    case object(x=f):\n        f()",
    "a checkpoint by its place": 'timm.create_model("resnet18", False, None, None, "/etc/x.pth")',
    "weights behind a star": 'timm.create_model(*("resnet18", True))',
    "the built-in beside a local": "def f():\n    input = 1\n    return input\n\n\ninput()",
    "the built-in after a comprehension": "def f(x):\n    [0 for input in x]\n    return input()",
    "the built-in in a class of a function": "def f():\n    class A:\n        input = 1\n\n    return input()",
    "the built-in by global": "def f():\n    global input\n    input = 1\n    return input()",
    "the built-in in a default": "def f(x=input()):\n    input = 1\n    return input",
}


@pytest.mark.parametrize("lines", EVASIONS.values(), ids=EVASIONS.keys())
def test_evasions_are_refused(lines: str) -> None:
    source = HEAD + load("return nn.Identity()") + "\n\n" + lines + "\n"
    assert check_code(source.encode()) != ()


@pytest.mark.parametrize("source", HONEST.values(), ids=HONEST.keys())
def test_honest_code_passes(source: str) -> None:
    assert [str(r) for r in check_code(source.encode())] == []


def test_all_reasons_come_at_once_and_in_order_of_lines() -> None:
    found = check_code(b"import os\nx = open('a')\n\neval('1')\n")
    assert [r.line for r in found] == sorted(r.line or 0 for r in found)
    assert {r.line for r in found} == {1, 2, 4}


def test_the_same_code_gives_the_same_findings() -> None:
    source = b"import os, sys\nfrom torch import hub, load\nx = {open, eval, exec}\n"
    assert check_code(source) == check_code(source)


def test_a_refusal_says_what_would_be_right() -> None:
    (reason,) = check_code((GOOD_CODE + "\nx = torch.load('a')\n").encode())
    assert "load_file" in reason.message and reason.file == "model.py"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_crash_the_check(source: bytes) -> None:
    assert check_code(source)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="()[]{}:=.,'\"\n \\#@*fxlambdaimport0_", max_size=200))
def test_random_text_never_crashes_the_check(source: str) -> None:
    assert check_code(source.encode())


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(GOOD_CODE) - 1), st.text(max_size=5), st.integers(0, 30))
def test_mutated_code_never_crashes_the_check(at: int, insert: str, cut: int) -> None:
    check_code((GOOD_CODE[:at] + insert + GOOD_CODE[at + cut :]).encode("utf-8", "surrogatepass"))
