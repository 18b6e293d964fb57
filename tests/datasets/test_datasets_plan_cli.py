from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from gas.chain.keys import create_wallet
from gas.cli.data import app
from gas.cli.main import main
from gas.datasets.plan import read_round
from gas.datasets.plan_file import read_plan, verify_plan
from gas.datasets.store import open_store
from gas.media.image import encode_jpeg, encode_png
from gas.storage.blobs import FolderBlobs


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def photo(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (120, 100), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two sets of pictures, fetched from folders."""
    root = tmp_path_factory.mktemp("plans")
    for name, kind in (("photos", "real"), ("made", "synthetic")):
        folder = root / name
        folder.mkdir()
        for i in range(15):
            data = encode_jpeg(photo(i), 80) if kind == "real" else encode_png(photo(100 + i))
            (folder / f"{i}.{'jpg' if kind == 'real' else 'png'}").write_bytes(data)
        entry = ("--source", "folder", "--path", folder, "--modality", "image", "--media-type", kind)
        extra = ("--generator", "gan") if kind == "synthetic" else ()
        assert run("add", name, *entry, *extra, "--licence", "CC0-1.0", "--home", root / "home")[0] == 0
    assert run("fetch", "photos", "made", "--home", root / "home", "--json")[0] == 0
    return root / "home"


def plan(home: Path, out: Path, *arguments: object) -> dict[str, object]:
    code, text = run("plan", "--modality", "image", "--home", home, "-o", out, "--json", *arguments)
    assert code == 0
    found: dict[str, object] = json.loads(text)
    return found


def test_a_plan_is_drawn_written_and_described(home: Path, tmp_path: Path) -> None:
    found = plan(home, tmp_path / "p.parquet", "--mode", "small", "--seed", 4)
    assert found["datasets"] == {"made/synthetic": 15, "photos/real": 15}
    back = read_plan(tmp_path / "p.parquet")
    assert (back.plan_id, back.data_hash, back.seed) == (found["plan"], found["data_hash"], 4)
    assert found["signer"] is None
    assert found["note"] is None
    code, text = run("plan", "--modality", "image", "--mode", "debug", "--home", home, "-o", tmp_path / "d.parquet")
    assert code == 0
    assert "6 samples" in text
    assert "made/synthetic" in text


def test_filters_reach_the_plan(home: Path, tmp_path: Path) -> None:
    found = plan(home, tmp_path / "p.parquet", "--mode", "full", "--total", 8, "--family", "gan")
    assert found["datasets"] == {"made/synthetic": 4, "photos/real": 4}
    for arguments, word in (
        (("--exclude", "made"), "real"),
        (("--holdout-only",), "Nothing"),
        (("--family", "diffusion"), "real"),
    ):
        with pytest.raises(Exception, match=word):
            run("plan", "--modality", "image", "--home", home, "-o", tmp_path / "q.parquet", *arguments)
    assert not (tmp_path / "q.parquet").exists()


def test_too_few_of_one_class_are_pointed_out(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(encode_jpeg(photo(300 + i)))
    entry = ("--source", "folder", "--path", folder, "--modality", "image", "--media-type", "real")
    assert run("add", "few", *entry, "--licence", "CC0-1.0", "--home", home)[0] == 0
    assert run("fetch", "few", "--home", home, "--json")[0] == 0
    found = plan(home, tmp_path / "p.parquet", "--exclude", "photos")
    assert found["note"] == "3 real to 15 fake media: there are too few real ones."
    assert run("remove", "few", "--home", home)[0] == 0
    code, text = run("plan", "--modality", "image", "--home", home, "-o", tmp_path / "p.parquet")
    assert code == 0
    assert "Note:" not in text


def test_wrong_words_and_an_empty_home_say_so(home: Path, tmp_path: Path) -> None:
    assert run("plan", "--modality", "smell", "--home", home, "-o", tmp_path / "p")[0] == 2
    assert run("plan", "--modality", "image", "--mode", "huge", "--home", home, "-o", tmp_path / "p")[0] == 2
    with pytest.raises(Exception, match="no data set here"):
        run("plan", "--modality", "image", "--home", tmp_path / "nothing", "-o", tmp_path / "p")


def test_a_plan_is_signed_with_a_wallet(home: Path, tmp_path: Path) -> None:
    made = create_wallet(tmp_path / "wallets", "owner")
    found = plan(home, tmp_path / "p.parquet", "--sign-with", "owner", "--wallets", tmp_path / "wallets")
    assert found["signer"] == made.view.hotkeys["default"] == verify_plan(read_plan(tmp_path / "p.parquet"))


def test_a_plan_is_frozen_to_a_round_that_passes_its_audit(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "round"
    found = plan(home, tmp_path / "p.parquet", "--round", folder)
    frozen = read_round(folder)
    assert found["round"] == {"id": frozen.round_id, "samples": 30, "sizes": frozen.sizes, "rejected": {}}
    code, text = run("audit", "--round", folder, "--json")
    assert code == 0
    assert json.loads(text)["pairs"]["made"]["passes"] is True


def test_a_round_of_sounds_is_cut_to_the_band_of_its_poorest_source(tmp_path: Path) -> None:
    for name, kind, rate in (("voices", "real", 12_000), ("tts", "synthetic", 22_050)):
        (tmp_path / name).mkdir()
        for i in range(3):
            noise = np.random.default_rng(i + rate).normal(0, 0.1, rate)
            soundfile.write(tmp_path / name / f"{i}.wav", noise, rate)
        entry = ("--source", "folder", "--path", tmp_path / name, "--modality", "audio", "--media-type", kind)
        extra = ("--generator", "gan") if kind == "synthetic" else ()
        assert run("add", name, *entry, *extra, "--licence", "CC0-1.0", "--home", tmp_path / "h")[0] == 0
    assert run("fetch", "voices", "tts", "--home", tmp_path / "h", "--json")[0] == 0
    freeze = ("--round", tmp_path / "round", "--seconds", 0.5)
    assert run("plan", "--modality", "audio", "--home", tmp_path / "h", "-o", tmp_path / "p", *freeze)[0] == 0
    for sample in read_round(tmp_path / "round").samples:
        data = FolderBlobs(tmp_path / "round" / "blobs").get(sample.sample_id)
        sound, rate = soundfile.read(io.BytesIO(data))
        assert (len(sound), rate) == (8000, 16_000)
        power, frequencies = np.abs(np.fft.rfft(sound)) ** 2, np.fft.rfftfreq(8000, 1 / 16_000)
        assert power[frequencies > 4200].sum() > 0.05 * power.sum()
        assert power[frequencies > 6000].sum() < 1e-3 * power.sum()


def test_plans_are_compared_with_exit_status(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (tmp_path / f"{name}.parquet" for name in "abc")
    plan(home, first, "--total", 10)
    plan(home, second, "--total", 10)
    plan(home, third, "--total", 6)
    code, text = run("diff", first, second)
    assert code == 0
    assert text.endswith("The plans say the same.\n")
    assert text.count("not signed") == 2
    code, text = run("diff", first, third)
    assert code == 1
    assert "spec.total: 10 -> 6" in text
    code, text = run("diff", first, third, "--json")
    assert code == 1
    found = json.loads(text)
    assert len(found["only_first"]) == 4
    assert found["signers"] == [None, None]
    table = pq.read_table(first)
    pq.write_table(table[1:], second)
    for damaged in (second, tmp_path / "none.parquet"):
        with pytest.raises(SystemExit) as caught:
            main(["data", "diff", str(first), str(damaged)])
        assert caught.value.code == 2
    assert "no plan at" in capsys.readouterr().err


def test_two_fetched_sets_are_audited_before_and_after(home: Path) -> None:
    code, text = run("audit", "--pair", "photos:made", "--home", home, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["pairs"]["photos:made as it is"]["balanced_accuracy"] > 0.95
    assert found["pairs"]["photos:made normalised"]["passes"] is True
    assert run("audit", "--pair", "photos", "--home", home)[0] == 2
    for wrong, word in (("photos:photos", "no fake"), ("photos:unknown", "unknown")):
        with pytest.raises(Exception, match=word):
            run("audit", "--pair", wrong, "--home", home)


def test_folders_of_sounds_are_audited_and_short_ones_named(tmp_path: Path) -> None:
    for name, rate in (("real", 8000), ("fake", 22050)):
        (tmp_path / name).mkdir()
        for i in range(12):
            sink = io.BytesIO()
            seconds = 0.2 if i == 11 else 0.6
            soundfile.write(
                sink, np.random.default_rng(i + rate).normal(0, 0.1, round(rate * seconds)), rate, format="WAV"
            )
            (tmp_path / name / f"{i}.wav").write_bytes(sink.getvalue())
    sides = ("--real", tmp_path / "real", "--fake", tmp_path / "fake")
    code, text = run("audit", *sides, "--seconds", 0.5, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["pairs"]["as it is"]["telling"]["rate"] == 1
    assert found["pairs"]["normalised"]["balanced_accuracy"] == 0.5
    assert found["rejected"] == {"real": {"too_short": 1}, "fake": {"too_short": 1}}
    code, text = run("audit", *sides, "--seconds", 0.5)
    assert "telling: rate 100%" in text
    assert "real: left out 1 too_short" in text
    with pytest.raises(Exception, match="at least 10"):
        run("audit", *sides, "--modality", "image")
    assert run("audit", *sides, "--round", tmp_path)[0] == 2
    assert run("audit", "--real", tmp_path)[0] == 2


def test_a_plan_is_a_use_of_the_sets_that_it_takes_from_and_of_no_other(home: Path, tmp_path: Path) -> None:
    store = open_store(home)
    store.touch(store.names())
    before = {name: store.manifest(name).last_used for name in store.names()}
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.jpg").write_bytes(encode_jpeg(photo(500), 80))
    entry = ("--source", "folder", "--path", other, "--modality", "image", "--media-type", "real", "--home", home)
    assert run("add", "other", *entry)[0] == 0
    assert run("fetch", "other", "--home", home, "--json")[0] == 0
    idle = store.manifest("other").last_used
    plan(home, tmp_path / "p.parquet", "--include", "photos", "--include", "made")
    assert all(store.manifest(name).last_used > before[name] for name in ("photos", "made"))
    assert store.manifest("other").last_used == idle
    store.remove("other")
    store.forget("other")
