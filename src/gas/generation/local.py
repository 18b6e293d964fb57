"""The embedded pipelines by name; each is imported only when it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gas.errors import ConfigurationError
from gas.generation.base import Pipeline

__all__ = ["PIPELINES", "load_pipeline"]

PIPELINES: Final = ("resynthesis", "diffusion")
"""Names that :func:`load_pipeline` knows."""


def load_pipeline(name: str, *, library: Path, model: str | None = None, threads: int = 1) -> Pipeline:
    """Load a pipeline that runs on a CPU.

    Args:
        name: One of :data:`PIPELINES`.
        library: Folder of the operator's photos; the diffusion model doesn't look at it.
        model: Network of the resynthesis (see :data:`gas.generation.resynthesis.MODELS`); its default when left out.
        threads: Number of threads that networks compute with. For the diffusion model it applies to the whole
            process, which is torch's own limit.

    Raises:
        ConfigurationError: Unknown name or model, no usable library, or missing weights.
    """
    if name == "resynthesis":
        from gas.generation.resynthesis import ResynthesisPipeline

        return ResynthesisPipeline(library, model=model or "x4plus", threads=threads)
    if name == "diffusion":
        import torch

        from gas.generation.diffusion import DiffusionPipeline

        torch.set_num_threads(threads)
        return DiffusionPipeline()
    raise ConfigurationError(f"There is no pipeline {name!r}.", hint=f"Known: {', '.join(PIPELINES)}.")
