"""Packages whose archive, weights or configuration lie; where it makes sense, also run behind the check's back."""

from __future__ import annotations

import hostile_code
import hostile_onnx
import hostile_weights
import hostile_yaml
import hostile_zips
from good_packages import GOOD_CODE, GOOD_CONFIG, cases, package, safetensors_bytes, zip_of

from models.table import Table, text_code

TABLE = Table("packages")


def _readable(name: str) -> str:
    return name.replace("_", " ").capitalize()


_FILES = {"model_config.yaml": GOOD_CONFIG, "model.py": GOOD_CODE, "model.safetensors": safetensors_bytes()}
for _prefix, _module, _wrap in (
    ("zip", hostile_zips, lambda data: data),
    ("weights", hostile_weights, lambda data: zip_of(_FILES | {"model.safetensors": data}, method=0)),
    ("yaml", hostile_yaml, lambda data: package(config=data)),
    ("onnx", hostile_onnx, lambda data: zip_of({"model.onnx": data}, method=0)),
    ("code", hostile_code, lambda data: zip_of(_FILES | {"model.py": data}, method=0)),
):
    for _case in cases(_module):
        TABLE.add(
            f"{_prefix}_{_case.__name__}",
            _readable(_case.__name__),
            static=_case.expected,  # type: ignore[attr-defined]
            package=lambda case=_case, wrap=_wrap: wrap(case()),
        )

_LOADS_WEIGHTS = """
from safetensors.torch import load_file

def attack(facts):
    return load_file(facts["weights"])
"""
for _name, _build in {
    "offsets_that_overlap": hostile_weights.offsets_that_overlap,
    "offsets_beyond_the_file": hostile_weights.offsets_beyond_the_file,
    "shape_that_overflows": hostile_weights.shape_that_overflows,
}.items():
    TABLE.add(
        f"loads_weights_with_{_name}",
        f"Load weights that lie behind the check's back: {_name.replace('_', ' ')}",
        static="foreign_weights",
        expected=("load_failed",),
        code=text_code(_LOADS_WEIGHTS),
        weights=_build,
        torch=True,
    )
