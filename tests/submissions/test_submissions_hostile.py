"""One hostile submission, one assertion: refused with its code, by the same door as an honest one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import good_packages
import hostile_code
import hostile_onnx
import hostile_weights
import hostile_yaml
import hostile_zips
import pytest

from gas.errors import PackageRejected
from gas.submissions.archive import unpack
from gas.submissions.check import CheckReport, check
from gas.submissions.code import check_code

Case = Callable[[], Any]


def named(module: Any) -> Any:
    return pytest.mark.parametrize("case", good_packages.cases(module), ids=lambda c: c.__name__)


def checked(tmp_path: Path, data: bytes) -> CheckReport:
    path = tmp_path / "package.zip"
    path.write_bytes(data)
    work = tmp_path / "work"
    work.mkdir()
    report = check(path, workdir=work)
    assert list(work.iterdir()) == [], "the check left files behind"
    assert not (Path.cwd() / hostile_code.CANARY).exists(), "hostile code ran"
    return report


def codes(report: CheckReport) -> set[str]:
    return {reason.code for reason in report.reasons}


@named(hostile_zips)
def test_a_hostile_zip_is_refused(case: Case, tmp_path: Path) -> None:
    assert case.expected in codes(checked(tmp_path, case()))  # type: ignore[attr-defined]


@named(hostile_zips)
def test_a_hostile_zip_unpacks_to_nothing(case: Case, tmp_path: Path) -> None:
    try:
        unpack(case(), tmp_path / "dest")
    except PackageRejected:
        assert list(tmp_path.iterdir()) == []
    else:
        assert list(tmp_path.iterdir()) == [tmp_path / "dest"]


@named(hostile_weights)
def test_hostile_weights_are_refused(case: Case, tmp_path: Path) -> None:
    report = checked(tmp_path, good_packages.zip_of(_files() | {"model.safetensors": case()}, method=0))
    assert codes(report) == {case.expected}  # type: ignore[attr-defined]


@named(hostile_yaml)
def test_a_hostile_configuration_is_refused(case: Case, tmp_path: Path) -> None:
    report = checked(tmp_path, good_packages.package(config=case()))
    assert case.expected in codes(report)  # type: ignore[attr-defined]


@named(hostile_onnx)
def test_a_hostile_onnx_file_is_refused(case: Case, tmp_path: Path) -> None:
    report = checked(tmp_path, good_packages.zip_of({"model.onnx": case()}, method=0))
    assert case.expected in codes(report)  # type: ignore[attr-defined]


@named(hostile_code)
def test_hostile_code_is_refused_with_file_and_line(case: Case) -> None:
    code = case()
    reasons = check_code(code if isinstance(code, bytes) else code.encode())
    hit = [r for r in reasons if r.code == case.expected]  # type: ignore[attr-defined]
    assert hit and hit[0].file == "model.py" and (hit[0].line or hit[0].code == "code_too_large"), reasons
    assert not Path(hostile_code.CANARY).exists(), "hostile code ran"


def _files(code: str | bytes = good_packages.GOOD_CODE) -> dict[str, bytes | str]:
    return {
        "model_config.yaml": good_packages.GOOD_CONFIG,
        "model.py": code,
        "model.safetensors": good_packages.safetensors_bytes(),
    }


def test_the_thief_is_told_every_line(tmp_path: Path) -> None:
    code = hostile_code.reads_passwd_and_opens_a_socket()
    report = checked(tmp_path, good_packages.package(code=code))
    lines = {(r.file, r.line) for r in report.reasons}
    assert {("model.py", line) for line in (1, 2, 6, 7, 8, 11)} <= lines
    assert any("socket" in r.message for r in report.reasons)


@named(hostile_zips)
def test_reasons_are_fit_for_a_terminal(case: Case, tmp_path: Path) -> None:
    assert all(str(reason).isprintable() for reason in checked(tmp_path, case()).reasons)


def test_a_name_in_the_zip_can_not_command_the_terminal(tmp_path: Path) -> None:
    report = checked(tmp_path, good_packages.zip_of({"model\x1b[2J.py": "x"}))
    assert all(str(reason).isprintable() for reason in report.reasons)
    assert codes(report) == {"unsafe_name"}
