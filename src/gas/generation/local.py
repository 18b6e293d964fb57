"""The local pipelines by name; each is imported only when it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.errors import ConfigurationError
from gas.generation.base import Pipeline

if TYPE_CHECKING:
    from gas.generation.diffusers_pipeline import Defaults

__all__ = ["DIFFUSERS", "PIPELINES", "load_pipeline"]

PIPELINES: Final = ("resynthesis", "diffusion", "inpainting", "image-to-image", "video", "speech")
"""Names that :func:`load_pipeline` knows, beside ``diffusers:MODEL``."""

DIFFUSERS: Final = "diffusers:"
"""What the name of a diffusers model begins with; a folder or a hub name follows."""


def load_pipeline(
    name: str,
    *,
    library: Path | None = None,
    model: str | None = None,
    threads: int = 1,
    device: str = "auto",
    dtype: str = "auto",
    downloads: bool = False,
    class_name: str | None = None,
    defaults: Defaults | None = None,
) -> Pipeline:
    """Load a pipeline.

    Args:
        name: One of :data:`PIPELINES`, which run on a CPU; or ``diffusers:FOLDER`` or ``diffusers:OWNER/NAME``, any
            diffusers pipeline whose weights are safetensors.
        library: Folder of the operator's photos; the diffusion model, the video and speech don't look at it.
        model: Network of the resynthesis (see :data:`gas.generation.resynthesis.MODELS`); its default when left out.
            For speech ``piper`` or ``espeak``; the best that is installed when left out.
        threads: Number of threads that networks compute with. For torch's models it applies to the whole process,
            which is torch's own limit.
        device: Of diffusers models: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Of diffusers models: ``auto``, ``float32``, ``float16`` or ``bfloat16``.
        downloads: Whether a diffusers model may be fetched from the hub.
        class_name: Another pipeline of diffusers than the model's folder names.
        defaults: Of diffusers models: what holds where a task leaves the choice.

    Raises:
        ConfigurationError: Unknown name, model or device, no usable library, missing weights, or a diffusers model that
            is refused (see :mod:`gas.generation.diffusers_folder`).
        SourceUnreachable: The hub doesn't answer.
    """
    if name == "resynthesis":
        from gas.generation.resynthesis import ResynthesisPipeline

        return ResynthesisPipeline(library, model=model or "x4plus", threads=threads)
    if name == "speech":
        return _speech(model)
    if name not in PIPELINES and not name.startswith(DIFFUSERS):
        raise ConfigurationError(
            f"There is no pipeline {name[:100]!r}.",
            hint=f"Known: {', '.join(PIPELINES)}, {DIFFUSERS}FOLDER_OR_HUB_NAME.",
        )
    import torch

    torch.set_num_threads(threads)
    if name.startswith(DIFFUSERS):
        from gas.generation.diffusers_folder import find_model
        from gas.generation.diffusers_load import load_model
        from gas.generation.diffusers_pipeline import DiffusersPipeline

        folder = find_model(name.removeprefix(DIFFUSERS), downloads=downloads)
        return DiffusersPipeline(load_model(folder, device=device, dtype=dtype, class_name=class_name), defaults)
    if name == "diffusion":
        from gas.generation.diffusion import DiffusionPipeline

        return DiffusionPipeline()
    if name == "video":
        from gas.generation.video import WalkPipeline

        return WalkPipeline()
    from gas.generation.inpainting import RepaintPipeline

    return RepaintPipeline(library, masked=name == "inpainting")


def _speech(voice: str | None) -> Pipeline:
    from gas.generation.speech import EspeakVoice, PiperVoice, SpeechPipeline, find_voice

    if voice not in (None, "piper", "espeak"):
        raise ConfigurationError(f"There is no voice {voice!r}.", hint="Known: piper, espeak.")
    return SpeechPipeline(find_voice() if voice is None else PiperVoice() if voice == "piper" else EspeakVoice())
