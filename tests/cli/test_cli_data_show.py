"""``gascli data show`` draws what it is asked for, and says plainly what it can't draw."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from gas.cli.data_show import register
from gas.errors import ConfigurationError, GasError, MediaRejected
from gas.media.distortions.table import Distortion, draw_distortion, steps_of
from gas.media.distortions.video import encode_h264
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.media.masks import encode_mask, encode_masks
from gas.storage.blobs import sha256_hex
from gas.types import Modality

app = typer.Typer()
app.callback()(lambda: None)
register(app)

RED = (200, 110, 120)


def show(*options: str | Path) -> dict[str, object]:
    result = CliRunner().invoke(app, ["show", *map(str, options), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    ramp = np.linspace(40, 200, width)[None, :] + np.linspace(-30, 30, height)[:, None]
    return np.repeat(ramp.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def circle(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (np.hypot(y - height / 2, x - width / 2) < height / 4).astype(np.uint8)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode_jpeg(scene(), 92))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_h264([np.roll(scene(), 4 * shift, axis=1) for shift in range(5)], 20))
    return path


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    import soundfile

    path = tmp_path / "voice.wav"
    time = np.arange(16000) / 16000
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 440 * time) * np.sin(2 * np.pi * 3 * time), 16000)
    return path


def redness(rgb: np.ndarray) -> int:
    wide = rgb.astype(int)
    return int(((wide[..., 0] - wide[..., 1] > 40) & (wide[..., 0] - wide[..., 2] > 30)).sum())


def test_a_picture_is_drawn_as_it_is(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    found = show(picture, "-o", out)
    sheet = decode_image(out.read_bytes())
    assert sheet.shape[:2] == (found["height"], found["width"])
    pixels = decode_image(picture.read_bytes())
    places = [(y, x) for y in range(60) for x in range(30) if np.array_equal(sheet[y : y + 96, x : x + 128], pixels)]
    assert len(places) == 1
    assert found["modality"] == "image" and found["masked"] is False
    assert found["sha256"] == sha256_hex(picture.read_bytes())
    assert [panel["caption"] for panel in found["panels"]] == [f"as it is: 128 x 96, {picture.stat().st_size:,} bytes"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("modality", Modality)
def test_every_distortion_of_a_medium_stands_beside_it(
    modality: Modality, picture: Path, clip: Path, sound: Path, tmp_path: Path
) -> None:
    item = {Modality.IMAGE: picture, Modality.VIDEO: clip, Modality.AUDIO: sound}[modality]
    out = tmp_path / "out.png"
    found = show(item, "-o", out, "--distortions", "--level", "3", "--seed", "9")
    panels: list[dict[str, object]] = found["panels"]  # type: ignore[assignment]
    assert len(panels) == 1 + len(steps_of(modality)) + 1 + 1
    shown = [Distortion.from_dict(panel["distortion"]) for panel in panels[1:-2]]  # type: ignore[arg-type]
    assert [item.steps[0].name for item in shown] == [kind.name for kind in steps_of(modality)]
    assert str(panels[-2]["caption"]).startswith("sharing chain: ")
    drawn = draw_distortion(3, 9, sha256_hex(item.read_bytes()), modality)
    assert Distortion.from_dict(panels[-1]["distortion"]) == drawn  # type: ignore[arg-type]
    assert decode_image(out.read_bytes()).shape == (found["height"], found["width"], 3)


def test_the_seed_chooses_the_draw_and_repeats_it(picture: Path, tmp_path: Path) -> None:
    sheets = []
    for number, seed in enumerate(("1", "1", "2")):
        out = tmp_path / f"{number}.png"
        show(picture, "-o", out, "--level", "2", "--seed", seed)
        sheets.append(out.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_mask_is_tinted_on_the_picture_and_moves_with_it(picture: Path, tmp_path: Path) -> None:
    mask, out = tmp_path / "mask.png", tmp_path / "out.png"
    mask.write_bytes(encode_mask(circle()))
    found = show(picture, "-o", out, "--mask", mask, "--distortions")
    assert found["masked"] is True
    marked = redness(decode_image(out.read_bytes()))
    show(picture, "-o", out, "--distortions")
    plain = redness(decode_image(out.read_bytes()))
    assert marked > plain + 10 * int(circle().sum())


def test_a_clip_shows_three_frames_and_their_masks(clip: Path, tmp_path: Path) -> None:
    masks, out = tmp_path / "masks.zip", tmp_path / "out.png"
    masks.write_bytes(encode_masks([circle()] * 5))
    found = show(clip, "-o", out, "--mask", masks)
    assert found["modality"] == "video"
    assert redness(decode_image(out.read_bytes())) > 2.5 * circle().sum()


def test_a_sound_is_a_spectrogram_with_its_length(sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    found = show(sound, "-o", out)
    assert found["panels"][0]["caption"] == "as it is: 1.00 s at 16000 Hz"  # type: ignore[index]
    sheet = decode_image(out.read_bytes()).astype(int)
    assert sheet.shape[1] > 900
    assert ((sheet[..., 0] > 200) & (sheet[..., 2] < 100)).any()


def test_people_get_a_sentence(picture: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["show", str(picture), "-o", str(tmp_path / "out.png"), "--level", "0"])
    assert result.exit_code == 0
    assert "2 panels" in result.stdout and str(tmp_path / "out.png") in result.stdout


def failure(*options: str | Path) -> GasError:
    with pytest.raises(GasError) as caught:
        show(*options)
    return caught.value


def test_what_cannot_be_shown_is_said(picture: Path, clip: Path, sound: Path, tmp_path: Path) -> None:
    out, text, mask = tmp_path / "out.png", tmp_path / "notes.txt", tmp_path / "mask.png"
    text.write_text("no picture")
    mask.write_bytes(encode_mask(circle()[:50]))
    broken = tmp_path / "half.jpg"
    broken.write_bytes(picture.read_bytes()[:300])
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    cases = [
        (MediaRejected, "unsupported", (text, "-o", out)),
        (MediaRejected, "undecodable", (broken, "-o", out)),
        (MediaRejected, "undecodable", (empty, "-o", out)),
        (MediaRejected, "mask_mismatch", (picture, "-o", out, "--mask", mask)),
        (MediaRejected, "mask_mismatch", (clip, "-o", out, "--mask", mask)),
        (MediaRejected, "unsupported", (picture, "-o", out, "--mask", text)),
        (MediaRejected, "undecodable", (clip, "-o", out, "--modality", "audio")),
        (ConfigurationError, "configuration", (sound, "-o", out, "--mask", mask)),
        (ConfigurationError, "configuration", ("no-such-file.png", "-o", out)),
        (ConfigurationError, "configuration", (picture, "-o", tmp_path / "no" / "folder.png")),
        (ConfigurationError, "configuration", (picture, "-o", out, "--mask", tmp_path / "none.png")),
        (ConfigurationError, "configuration", ("photos:1", "-o", out, "--mask", mask)),
        (ConfigurationError, "not_fetched", ("photos:1", "-o", out, "--home", tmp_path / "home")),
        (ConfigurationError, "item_unknown", ("abcdef12", "-o", out, "--home", tmp_path / "home")),
    ]
    for kind, code, options in cases:
        error = failure(*options)
        assert isinstance(error, kind), options
        assert error.error_code == code, options
        assert not out.exists()


def test_an_item_of_the_store_is_found_by_its_place_or_its_hash_and_brings_its_mask(tmp_path: Path) -> None:
    from gas.datasets.entries import DatasetEntry
    from gas.datasets.sources.folder import FolderSource
    from gas.datasets.store import open_store

    photos = tmp_path / "photos"
    (photos / "images").mkdir(parents=True)
    (photos / "masks").mkdir()
    for number in range(2):
        (photos / "images" / f"{number}.png").write_bytes(encode_png(np.roll(scene(), number, axis=1)))
        (photos / "masks" / f"{number}.png").write_bytes(encode_mask(circle()))
    entry = DatasetEntry.model_validate(
        {
            "name": "edited",
            "modality": "image",
            "media_type": "semisynthetic",
            "source": "folder",
            "path": str(photos),
            "licence": "CC0-1.0",
            "mask_column": "masks/{stem}.png",
        }
    )
    home = tmp_path / "home"
    open_store(home).fetch(entry, FolderSource(photos))
    out = tmp_path / "out.png"
    by_place = show("edited:1", "-o", out, "--home", home)
    first = out.read_bytes()
    assert by_place["masked"] is True and str(by_place["item"]).startswith("edited: ")
    assert redness(decode_image(first)) > circle().sum()
    by_hash = show(str(by_place["sha256"])[:12], "-o", out, "--home", home)
    assert by_hash == by_place
    assert out.read_bytes() == first
    assert failure("edited:7", "-o", out, "--home", home).error_code == "item_unknown"
