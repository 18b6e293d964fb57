"""Loads a checked diffusers model: its class, its device, its precision, and what else it can do with a picture."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from gas.errors import ConfigurationError
from gas.generation.diffusers_folder import ModelFolder, weight_bytes
from gas.generation.memory import choose_device, free_bytes, out_of_memory

if TYPE_CHECKING:
    import torch

__all__ = ["LoadedModel", "Role", "load_model", "quietly"]

_DTYPES: Final = ("auto", "float32", "float16", "bfloat16")
_ROOM: Final = 1.2
"""Memory for a model over that of its weights: what a step needs besides."""

_TIGHT: Final = 2.0
"""Below this many times the weights, attention and decoding are cut into slices."""

_SISTERS: Final = {"LTXPipeline": "LTXImageToVideoPipeline"}
"""Video models whose weights serve both; others come as a model of their own for each."""

_FAILURES: Final = (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, ImportError)


class Role(StrEnum):
    """What a pipeline does."""

    TEXT_TO_IMAGE = "t2i"
    IMAGE_TO_IMAGE = "i2i"
    INPAINTING = "inpaint"
    TEXT_TO_VIDEO = "t2v"
    IMAGE_TO_VIDEO = "i2v"

    @property
    def is_video(self) -> bool:
        """Whether it makes frames."""
        return self in (Role.TEXT_TO_VIDEO, Role.IMAGE_TO_VIDEO)

    @property
    def needs_source(self) -> bool:
        """Whether it starts from a picture."""
        return self in (Role.IMAGE_TO_IMAGE, Role.INPAINTING, Role.IMAGE_TO_VIDEO)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        title: Its short name.
        device: What it computes on.
        roles: The diffusers pipelines by what they do; they share the weights.
        weights: Bytes that its weights take.
    """

    title: str
    device: torch.device
    roles: dict[Role, Any] = field(repr=False)
    weights: int = 0

    def native_size(self, role: Role) -> tuple[int, int]:
        """Width and height that the model was trained for, as far as its configuration says; else a fair guess."""
        pipe = self.roles[role]
        width, height = self.number(role, "width"), self.number(role, "height")
        if width and height:
            return int(width), int(height)
        net = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
        side = getattr(getattr(net, "config", None), "sample_size", None)
        factor = getattr(pipe, "vae_scale_factor", None)
        if isinstance(side, int) and isinstance(factor, int) and 64 <= side * factor <= 4096:
            return side * factor, side * factor
        return (832, 480) if role.is_video else (1024, 1024)

    def native_frames(self, role: Role) -> int:
        """Frames that the model makes when nobody says how many, 1..129."""
        unet = getattr(self.roles[role], "unet", None)
        frames = self.number(role, "num_frames") or getattr(getattr(unet, "config", None), "num_frames", None) or 25
        return max(1, min(129, int(frames)))

    def native_fps(self, role: Role) -> float:
        """Frames a second that the model was trained for where its call says so, else 16."""
        return self.number(role, "frame_rate") or self.number(role, "fps") or 16.0

    def number(self, role: Role, name: str) -> float | None:
        """The default of a number that the model's call takes; None where it takes or says none."""
        names = inspect.signature(self.roles[role].__call__).parameters
        value = names[name].default if name in names else None
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None

    def frame_ratio(self, role: Role) -> int:
        """Frames that its autoencoder packs into one: a clip has a multiple of that, and one more."""
        pipe = self.roles[role]
        for name in ("vae_temporal_compression_ratio", "vae_scale_factor_temporal"):
            ratio = getattr(pipe, name, None)
            if isinstance(ratio, int) and ratio > 0:
                return ratio
        return 1


def load_model(
    folder: ModelFolder, *, device: str = "auto", dtype: str = "auto", class_name: str | None = None
) -> LoadedModel:
    """Load a model.

    Args:
        folder: A checked one.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``float32``, ``float16`` or ``bfloat16``; ``auto`` is bfloat16 on a GPU and float32 on a CPU.
        class_name: Another pipeline of diffusers than the folder names, for weights that serve several.

    Raises:
        ConfigurationError: ``model_refused`` (no pipeline of diffusers, or its parts don't fit), ``model_too_large``
            for this machine, or there is no such device or dtype.
    """
    import torch

    if dtype not in _DTYPES:
        raise ConfigurationError(f"{dtype[:40]!r} is no dtype.", hint=f"Known: {', '.join(_DTYPES)}.")
    where = choose_device(device)
    precision = getattr(torch, ("float32" if where.type == "cpu" else "bfloat16") if dtype == "auto" else dtype)
    cls = _pipeline_class(class_name or folder.class_name)
    weights = weight_bytes(folder.path, precision.itemsize)
    has_accelerate = find_spec("accelerate") is not None
    free = free_bytes(str(where))
    offloads = where.type != "cpu" and free is not None and weights * _ROOM > free
    if free is not None and weights * _ROOM > free and not (offloads and has_accelerate):
        raise ConfigurationError(
            f"The model {folder.title} takes {weights * _ROOM / 1e9:.1f} GB and {free / 1e9:.1f} GB are free.",
            code="model_too_large",
            hint="Install accelerate to offload it to the CPU." if offloads else "Take a smaller one, or more memory.",
        )
    try:
        with quietly():
            pipe = cls.from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=True,
                torch_dtype=precision,
                # Only accelerate can load without a second copy in memory.
                low_cpu_mem_usage=has_accelerate,
            )
            _place(pipe, where, offloads, tight=free is not None and weights * _TIGHT > free)
            roles = _roles(pipe)
    except _FAILURES as error:
        if out_of_memory(error):
            raise ConfigurationError(
                f"There is not enough memory for the model {folder.title}.", code="model_too_large"
            ) from error
        # Models that keep some weights in full precision (Wan and others) are loaded by accelerate only.
        lacks = not has_accelerate and ("low_cpu_mem_usage" in str(error) or "accelerate" in str(error))
        raise ConfigurationError(
            f"The model {folder.title} can't be loaded ({type(error).__name__}: {str(error)[:200]}).",
            code="model_refused",
            hint="Install accelerate: pip install accelerate." if lacks else None,
        ) from error
    return LoadedModel(folder.title, where, roles, weights)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the libraries' warnings and progress bars, which are no operator's business."""
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    levels = diffusers_log.get_verbosity(), transformers_log.get_verbosity()
    diffusers_log.set_verbosity_error()
    transformers_log.set_verbosity_error()
    diffusers_log.disable_progress_bar()
    transformers_log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_log.set_verbosity(levels[0])
        transformers_log.set_verbosity(levels[1])


def _pipeline_class(name: str) -> Any:
    import diffusers

    try:
        with quietly():
            cls = getattr(diffusers, name, None) if name.isidentifier() else None
    except (ImportError, RuntimeError) as error:
        raise ConfigurationError(f"The pipeline {name} can't be imported.", code="model_refused") from error
    if not inspect.isclass(cls) or not issubclass(cls, diffusers.DiffusionPipeline):
        raise ConfigurationError(f"{name[:80]!r} is no pipeline of diffusers.", code="model_refused")
    return cls


def _place(pipe: Any, where: torch.device, offloads: bool, *, tight: bool) -> None:
    pipe.set_progress_bar_config(disable=True)
    if offloads:
        pipe.enable_model_cpu_offload(device=where)
    else:
        pipe.to(where)
    if tight:
        vae = getattr(pipe, "vae", None)
        for part, method in ((pipe, "enable_attention_slicing"), (vae, "enable_slicing"), (vae, "enable_tiling")):
            if hasattr(part, method):
                getattr(part, method)()


def _roles(pipe: Any) -> dict[Role, Any]:
    """What a pipeline does by the names of its call, and what its sisters do with the same weights."""
    import diffusers

    names = inspect.signature(pipe.__call__).parameters
    optional = "image" in names and names["image"].default is None and "prompt" in names
    roles: dict[Role, Any] = {}
    if "num_frames" in names:
        if "image" in names:
            roles[Role.IMAGE_TO_VIDEO] = pipe
        if "image" not in names or (optional and "Condition" in type(pipe).__name__):
            roles[Role.TEXT_TO_VIDEO] = pipe
        sister = _SISTERS.get(type(pipe).__name__)
        if sister:
            roles[Role.IMAGE_TO_VIDEO] = getattr(diffusers, sister)(**pipe.components)
    elif "mask_image" in names:
        roles[Role.INPAINTING] = pipe
    elif "image" in names:
        roles[Role.IMAGE_TO_IMAGE] = pipe
        if optional and "strength" not in names:
            roles[Role.TEXT_TO_IMAGE] = pipe
    else:
        roles[Role.TEXT_TO_IMAGE] = pipe
        for role, auto in (
            (Role.IMAGE_TO_IMAGE, diffusers.AutoPipelineForImage2Image),
            (Role.INPAINTING, diffusers.AutoPipelineForInpainting),
        ):
            try:
                roles[role] = auto.from_pipe(pipe)
            except (ValueError, TypeError, AttributeError):
                # This architecture has no such sister.
                continue
    for each in roles.values():
        each.set_progress_bar_config(disable=True)
    return roles
