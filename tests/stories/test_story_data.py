"""Somebody with an empty folder: real speech out of a package, fakes of one's own, a plan, an audit, a frozen round."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gas.cli.main import main
from gas.generation.speech import EspeakVoice

pytestmark = pytest.mark.slow

SENTENCES = [
    f"{greeting}, {what}."
    for greeting in ("Good morning", "Please hold the line", "Thank you for waiting", "One moment")
    for what in (
        "the office is closed until Monday at eight",
        "your message has been saved and will be delivered",
        "the train to the coast leaves from platform four",
        "press one to hear the menu again or hang up now",
        "the weather will be fine until the evening, then rain",
        "this call may be recorded for training and quality",
    )
]


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, where there is one."""
    base = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="gas-story-", dir=base if base.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


def test_speech_from_package_to_audited_round(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gascli(*words: object, code: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in (*words, "--json")])
        out, err = capsys.readouterr()
        assert end.value.code == code, err
        found: dict[str, Any] = json.loads(out)
        return found

    monkeypatch.setenv("GAS_MATERIAL", str(tmp_path / "material"))
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    for number, data in enumerate(EspeakVoice("en").speak(SENTENCES, seed=3)):
        (fakes / f"{number:02}.wav").write_bytes(data)

    homes = (tmp_path / "home", elsewhere / "home")
    for home in homes:
        gascli(
            *("data", "add", "fakes", "--home", home, "--source", "folder", "--path", fakes, "--modality", "audio"),
            *("--media-type", "synthetic", "--generator", "formant", "--licence", "MIT"),
        )
    gascli("data", "fetch", "asterisk-en", "--registry", "packages", "--home", homes[0])
    gascli("data", "fetch", "fakes", "--home", homes[0])
    gascli("data", "fetch", "fakes", "--home", homes[1])
    gascli("data", "fetch", "asterisk-en", "--registry", "packages", "--home", homes[1])
    gascli("data", "verify", "--home", homes[0])

    plans = [
        gascli(
            *("data", "plan", "--home", home, "--modality", "audio", "--mode", "small", "--seed", 5),
            *("-o", home / "plan.parquet", "--round", home / "round", "--seconds", 1.5),
        )
        for home in homes
    ]
    assert plans[0]["plan"] == plans[1]["plan"]
    assert gascli("data", "diff", homes[0] / "plan.parquet", homes[1] / "plan.parquet")["equal"]
    rounds = [json.loads((home / "round" / "manifest.json").read_text()) for home in homes]
    assert rounds[0]["round_id"] == rounds[1]["round_id"]

    pair = ("--pair", "asterisk-en:fakes", "--home", homes[0], "--most", 60, "--seconds", 1.5)
    audits = gascli("data", "audit", *pair)["pairs"]
    raw = next(figures for name, figures in audits.items() if "as" in name and "normal" not in name)
    normal = next(figures for name, figures in audits.items() if "normal" in name)
    assert raw["balanced_accuracy"] > 0.8
    assert normal["balanced_accuracy"] <= 0.55
    assert gascli("data", "audit", "--round", homes[0] / "round")["passes"]
