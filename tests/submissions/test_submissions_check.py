"""Sound packages pass, say what they are, and come out the same from every door."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import good_packages
import numpy as np
import pytest
import typer
from good_packages import GOOD_CODE, GOOD_CONFIG, onnx_model, onnx_package, package, safetensors_bytes, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.cli.check import check as check_command
from gas.errors import InfrastructureError, PackageRejected
from gas.submissions.archive import Limits, inspect_archive, unpack
from gas.submissions.check import check
from gas.submissions.pack import pack
from gas.submissions.package import read_config
from gas.submissions.weights import check_weights
from gas.types import Modality

ANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "model_config.yaml").write_text(GOOD_CONFIG)
    (out / "model.py").write_text(GOOD_CODE)
    (out / "model.safetensors").write_bytes(safetensors_bytes())
    return out


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "package.zip"
    path.write_bytes(data)
    return path


def test_a_sound_safetensors_package_says_what_it_is(tmp_path: Path) -> None:
    report = check(written(tmp_path, package()))
    assert report.reasons == ()
    spec = report.require().to_spec(tmp_path)
    assert (spec.format, spec.entry, spec.weights_file) == ("safetensors", "model.py", "model.safetensors")
    assert (spec.input_shape, spec.input_dtype, spec.num_classes) == ((3, 32, 32), "uint8", 2)
    assert report.require().version == "1.0"


@pytest.mark.parametrize(
    ("shape", "dtype", "modality", "input_shape"),
    [
        (("N", 3, 32, 48), 2, "image", (3, 32, 48)),
        (("N", 3, "H", "W"), 2, "image", (3, 224, 224)),
        (("N", 8, 3, 32, 32), 2, "video", (8, 3, 32, 32)),
        (("N", "T", 3, 32, 32), 2, "video", (16, 3, 32, 32)),
        (("N", 48_000), 1, "audio", (48_000,)),
        (("N", "samples"), 1, "audio", (96_000,)),
    ],
)
def test_an_onnx_package_says_by_its_input_what_it_is(
    tmp_path: Path, shape: tuple[object, ...], dtype: int, modality: str, input_shape: tuple[int, ...]
) -> None:
    package = check(written(tmp_path, onnx_package(onnx_model(shape=shape, dtype=dtype)))).require()
    assert (package.modality, package.input_shape, package.format) == (modality, input_shape, "onnx")
    assert package.input_dtype == ("float32" if modality == "audio" else "uint8")


def test_an_onnx_model_with_a_function_of_its_own_passes(tmp_path: Path) -> None:
    from onnx import helper

    def change(model) -> None:  # type: ignore[no-untyped-def]
        nodes = [helper.make_node("Relu", ["a"], ["b"])]
        model.functions.append(helper.make_function("local", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)]))
        model.opset_import.append(helper.make_opsetid("local", 1))
        model.graph.node.append(helper.make_node("F", ["logits"], ["other"], domain="local"))

    assert check(written(tmp_path, onnx_package(onnx_model(change=change)))).reasons == ()


def test_a_package_for_another_modality_is_refused(tmp_path: Path) -> None:
    for data in (package(), onnx_package()):
        (reason,) = check(written(tmp_path, data), modality=Modality.AUDIO).reasons
        assert reason.code == "wrong_modality"


def test_video_and_audio_have_the_defaults_of_the_specification() -> None:
    video, _ = read_config(GOOD_CONFIG.replace("image", "video").encode(), "model.safetensors")
    audio, _ = read_config(b"name: a\nversion: 2\nmodality: audio\ndtype: bf16\n", "model.safetensors")
    assert video and video.input_shape == (16, 3, 32, 32) and video.preprocessing.frame_rate is None
    assert audio and audio.input_shape == (96_000,) and audio.dtype == "bfloat16" and audio.num_classes == 2


def test_other_keys_are_handed_to_load_model() -> None:
    text = GOOD_CONFIG.replace("resize:", "normalize: {mean: [0.5], std: 1}\n  resize:") + "  depth: 3\n  arch: x\n"
    package, _ = read_config(text.encode(), "model.safetensors")
    assert package and package.params == {"normalize": {"mean": [0.5], "std": 1}, "depth": 3, "arch": "x"}


def test_findings_of_all_parts_come_together_and_sorted(tmp_path: Path) -> None:
    data = package(config="modality: smell\n", code="import os\n", weights=b"x")
    report = check(written(tmp_path, data))
    assert {r.file for r in report.reasons} == {"model_config.yaml", "model.py", "model.safetensors"}
    assert report.reasons == check(written(tmp_path, data)).reasons
    with pytest.raises(PackageRejected) as caught:
        report.require()
    assert caught.value.reasons == report.reasons


def test_a_top_folder_is_left_out_when_unpacking(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path, package())) as archive:
        data = zip_of({f"top/{n}": archive.read(n) for n in archive.namelist()})
    names = unpack(data, tmp_path / "dest")
    assert sorted(names) == sorted(p.name for p in (tmp_path / "dest").iterdir())
    assert (tmp_path / "dest" / "model.py").read_text() == GOOD_CODE


def test_limits_hold_while_unpacking(tmp_path: Path) -> None:
    data = zip_of({"model.onnx": bytes(100_000)})
    # The directory lies about the size, so that only counting real bytes can notice.
    small = data.replace((100_000).to_bytes(4, "little"), (50).to_bytes(4, "little"))
    with pytest.raises(PackageRejected):
        unpack(small, tmp_path / "dest", Limits(unpacked_bytes=1000))
    assert list(tmp_path.iterdir()) == []


def test_unpacking_never_replaces_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError):
        unpack(onnx_package(), tmp_path)


def test_the_packed_size_is_limited() -> None:
    (reason,) = inspect_archive(onnx_package(), Limits(packed_bytes=100)).reasons
    assert reason.code == "packed_too_large"


def test_a_file_that_is_not_there_is_our_fault_and_not_the_authors(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError):
        check(tmp_path / "nothing.zip")


def test_a_folder_is_checked_like_its_zip(folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").mkdir()
    (folder / ".notes").write_text("mine")
    pack(folder, tmp_path / "out.zip")
    first, second = check(folder), check(tmp_path / "out.zip")
    assert first.ok and second.ok and first.package == second.package
    assert first.fingerprint.weights_sha256 == second.fingerprint.weights_sha256


def test_a_link_in_a_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")
    assert "link" in {r.code for r in check(folder).reasons}


def test_packing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "a.zip")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    pack(folder, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_an_incomplete_folder_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "model.py").unlink()
    with pytest.raises(PackageRejected):
        pack(folder, tmp_path / "a.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]


@pytest.mark.parametrize(
    ("data", "status"), [(onnx_package(), 0), (zip_of({"model.onnx": b"some text"}), 1), (None, 2)]
)
def test_the_command_tells_clean_refused_and_unchecked_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes | None, status: int
) -> None:
    path = tmp_path / "package.zip"
    if data is not None:
        path.write_bytes(data)
    for json_output in (False, True):
        with pytest.raises(typer.Exit) as caught:
            check_command(path, json_output)
        assert caught.value.exit_code == status
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["state"] == ("clean", "refused", "could_not_check")[status]


def test_the_command_prints_file_line_message_and_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        check_command(written(tmp_path, package(code=GOOD_CODE + "\nimport os\n")), False)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("model.py:24: The import of os") and line.endswith("[import_not_allowed]")


@ANY
@given(st.binary(max_size=400))
def test_random_bytes_called_zip_are_refused(tmp_path: Path, data: bytes) -> None:
    assert check(written(tmp_path, data)).reasons


@ANY
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_a_damaged_zip_never_crashes_the_check(tmp_path: Path, at: int, junk: bytes) -> None:
    data = bytearray(package())
    at %= len(data)
    data[at : at + len(junk)] = junk
    check(written(tmp_path, bytes(data)), workdir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["package.zip"]


@ANY
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damaged_weights_never_crash_the_check(tmp_path: Path, at: int, junk: bytes) -> None:
    data = bytearray(safetensors_bytes())
    at %= len(data)
    data[at : at + len(junk)] = junk
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(data))
    check_weights(path)


@ANY
@given(st.binary(max_size=200))
def test_random_bytes_called_weights_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    assert check_weights(path)


@ANY
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_a_damaged_onnx_file_never_crashes_the_check(tmp_path: Path, at: int, junk: bytes) -> None:
    data = bytearray(onnx_model())
    at %= len(data)
    data[at : at + len(junk)] = junk
    (tmp_path / "model.onnx").write_bytes(bytes(data))
    check(tmp_path)


@ANY
@given(st.binary(max_size=200) | st.text(alphabet="abc:-[]{}&*!|> \n\t'\"0.#%@`?,", max_size=200).map(str.encode))
def test_random_configurations_are_refused(data: bytes) -> None:
    package, reasons = read_config(data, "model.safetensors")
    assert package is None and reasons


def test_empty_and_whole_number_tensors_are_sound(tmp_path: Path) -> None:
    weights = safetensors_bytes({"a": np.zeros((0, 3), np.float32), "b": np.float16([[1]]), "c": np.int64([5])})
    assert check(written(tmp_path, good_packages.package(weights=weights))).reasons == ()
