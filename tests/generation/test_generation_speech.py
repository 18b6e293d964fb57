from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gas.errors import ConfigurationError, InfrastructureError, RequestRefused
from gas.generation.base import GenerationTask
from gas.generation.speech import MAX_TEXT, EspeakVoice, PiperVoice, SpeechPipeline
from gas.types import MediaType, Modality


def read(data: bytes) -> tuple[np.ndarray, int]:
    samples, rate = soundfile.read(io.BytesIO(data))
    return samples, rate


def test_espeak_says_more_for_a_longer_text_and_the_same_for_the_same_seed() -> None:
    voice = EspeakVoice("en")
    short, long = voice.speak(["Yes.", "Yes, and the train to the coast leaves from platform four."], seed=4)
    assert len(read(long)[0]) > 3 * len(read(short)[0])
    assert voice.speak(["Yes."], seed=4) == [short]
    assert voice.speak(["Yes."], seed=5) != [short]
    assert np.abs(read(short)[0]).max() > 0.05


@pytest.mark.slow
def test_piper_reads_every_text_in_order() -> None:
    short, long = PiperVoice().speak(["No.", "The office is closed now; leave your name and number."], seed=1)
    (a, rate), (b, _) = read(short), read(long)
    assert rate == 22_050
    assert len(b) > 2 * len(a)
    assert np.abs(b).max() > 0.05


def test_the_pipeline_speaks_sound_tasks_only() -> None:
    pipeline = SpeechPipeline(EspeakVoice())
    medium = pipeline.generate(GenerationTask(Modality.AUDIO, "Good morning.", 7))
    assert (medium.mime, medium.media_type, medium.model) == ("audio/wav", MediaType.SYNTHETIC, "espeak-ng-en")
    with pytest.raises(RequestRefused) as error:
        pipeline.generate(GenerationTask(Modality.IMAGE, "Good morning.", 7))
    assert error.value.error_code == "wrong_modality"


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00\x1b[2J", "x" * (MAX_TEXT + 1)])
def test_texts_that_nobody_can_read_are_refused(text: str) -> None:
    if "[" in text:
        # What is left of an escape sequence is text like any other.
        assert EspeakVoice().speak([text])
        return
    with pytest.raises(RequestRefused) as error:
        EspeakVoice().speak([text])
    assert error.value.error_code == "bad_prompt"


def test_a_text_is_never_an_option_or_a_file(tmp_path: Path) -> None:
    target = tmp_path / "written.wav"
    assert EspeakVoice().speak([f"-w {target}"])
    assert not target.exists()


def test_a_missing_or_failing_program_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "espeak-ng"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(InfrastructureError, match="eSpeak NG failed"):
        EspeakVoice().speak(["hello"])
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ConfigurationError, match="not installed"):
        EspeakVoice()


def test_a_file_that_is_no_voice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no voice"):
        PiperVoice(tmp_path / "nothing.onnx")


def test_a_voices_program_is_not_told_our_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = tmp_path / "espeak-ng"
    script.write_text(f"#!/bin/sh\nenv > {seen}\nwhile [ $# -gt 0 ]; do [ $1 = -w ] && : > $2; shift; done\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    EspeakVoice().speak(["hello"])
    assert "OMP_NUM_THREADS=1" in seen.read_text()
    assert "sk-secret" not in seen.read_text()
