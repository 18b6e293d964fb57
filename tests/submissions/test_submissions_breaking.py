"""Whatever a package holds, the check says so: it never breaks, because whoever it breaks serves everybody else."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import good_packages
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.submissions.check import check

_LEAN = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_FILES: dict[str, bytes | str] = {
    "model_config.yaml": good_packages.GOOD_CONFIG,
    "model.py": good_packages.GOOD_CODE,
    "model.safetensors": good_packages.safetensors_bytes(),
}
_CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("package") / "package.zip"


def judged(path: Path, data: bytes) -> bool:
    """Whether a package is clean; that this returns at all is what is tested."""
    path.write_bytes(data)
    report = check(path)
    assert all(str(reason).isprintable() for reason in report.reasons)
    return report.ok


def stored(files: dict[str, bytes | str]) -> bytes:
    return good_packages.zip_of(files, zipfile.ZIP_STORED)


def changed(data: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    """Bytes put in, and others taken away, here and there."""
    for place, new, gone in changes:
        at = int(place * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


@_LEAN
@given(changes=_CHANGES, squeezed=st.booleans())
def test_an_archive_that_was_tampered_with(path: Path, changes: Any, squeezed: bool) -> None:
    whole = good_packages.package() if squeezed else stored(_FILES)
    assert judged(path, changed(whole, changes)) in (True, False)


@pytest.mark.parametrize("field", ["float_data", "int32_data", "int64_data", "double_data", "uint64_data"])
def test_numbers_of_every_dtype_in_every_field(path: Path, field: str) -> None:
    from onnx import TensorProto

    for dtype in range(26):
        for value in (1, 70_000, 2**31 - 1):
            tensor = TensorProto(name="t", data_type=dtype, dims=[4], **{field: [value] * (8 if dtype > 13 else 4)})
            model = good_packages.onnx_model(change=lambda model, t=tensor: model.graph.initializer.append(t))  # type: ignore[misc]
            judged(path, stored({"model.onnx": model}))


def test_a_tensor_of_nothing_with_huge_sides_is_no_trouble(path: Path) -> None:
    from onnx import TensorProto

    tensor = TensorProto(name="t", data_type=1, dims=[0, 2**62, 2**62])
    model = good_packages.onnx_model(change=lambda model: model.graph.initializer.append(tensor))
    assert judged(path, stored({"model.onnx": model}))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F8_E5M2", "C64", 3]),
        "shape": st.lists(st.integers(-1, 2**63), max_size=3) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 40), min_size=2, max_size=2) | _JSON,
    }
)


_HEADER = st.dictionaries(st.text(max_size=4) | st.just("__metadata__"), _ENTRY | _JSON, max_size=3)


@_LEAN
@given(header=_HEADER, size=st.integers(0, 40))
def test_a_header_of_weights_that_lies(path: Path, header: Any, size: int) -> None:
    raw = json.dumps(header).encode()
    judged(path, stored(_FILES | {"model.safetensors": struct.pack("<Q", len(raw)) + raw + bytes(size)}))


# fmt: off
_SCRAPS = [
    "a", "1", ":", "[", "]", "{", "}", "?", "&a", "*a", "!!x", "!<%FF>", '"\\U', "FFFFFFFF", '"', "'", "|", ">-", "---",
    "...", "0x_", "0b", "1:60:1", "2001-99-99", ".inf", "=", "<<", "#", "~", "\\ud800", "resize", "model:", "classes:",
]
# fmt: on
_SOUP = st.lists(st.sampled_from([*_SCRAPS, " ", ": ", "\n", "\n  ", "\n%YAML 9", "- ", "\t", "\u2028"]), max_size=12)


@_LEAN
@given(words=_SOUP, at=st.floats(0, 1))
def test_a_configuration_of_scraps(path: Path, words: list[str], at: float) -> None:
    text = good_packages.GOOD_CONFIG
    place = int(at * len(text))
    judged(path, stored(_FILES | {"model_config.yaml": text[:place] + "".join(words) + text[place:]}))


_NESTING = {
    "attributes": ("torch", ".parent", ""),
    "calls": ("", "str(", ")"),
    "wrapped folders": ("", "str((", ").parent)"),
    "sums": ("1", " + 'a'", ""),
    "signs": ("", "-", ""),
    "lists": ("", "[", "]"),
    "lambdas": ("", "lambda: ", ""),
    "conditions": ("", "1 if 1 else ", ""),
    "f-strings": ("", "f'{", "}'"),
    "getattr": ("", "getattr(", ", 'x')"),
    "joins": ("", "''.join([", "])"),
    "slices": ("'a'", "[::-1]", ""),
}


@pytest.mark.parametrize("times", [150, 1900])
@pytest.mark.parametrize("kind", _NESTING)
def test_code_that_nests(path: Path, kind: str, times: int) -> None:
    start, inner, behind = _NESTING[kind]
    lead = inner * times if behind or not start else ""
    value = f"{lead}{start or 'weights_path'}{'' if lead else inner * times}{behind * times}"
    code = f"{good_packages.GOOD_CODE}\n\ndef other(weights_path):\n    found = {value}\n    return load_file(found)\n"
    assert not judged(path, stored(_FILES | {"model.py": code}))


def test_the_sound_packages_of_these_tests_are_sound(path: Path) -> None:
    assert judged(path, stored(_FILES))
    assert judged(path, stored({"model.onnx": good_packages.onnx_model()}))
    with zipfile.ZipFile(io.BytesIO(stored(_FILES))) as archive:
        assert archive.testzip() is None
