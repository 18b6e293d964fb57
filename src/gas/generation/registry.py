"""The registry of local models: a YAML file of what a validator can make media with, checked when it is read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gas.errors import ConfigurationError
from gas.generation.local import DIFFUSERS, PIPELINES
from gas.types import MediaType, Modality

__all__ = ["LocalModel", "ModelTask", "builtin_models", "load_models"]

_BUILTIN: Final = Path(__file__).with_name("local_models.yaml")
_MOST_BYTES: Final = 256 * 1024
_ARGUMENTS: Final[dict[str, frozenset[str]]] = {
    "resynthesis": frozenset({"model"}),
    "speech": frozenset({"model"}),
    DIFFUSERS: frozenset(
        (
            *("dtype", "class_name", "size", "most_pixels", "steps", "guidance", "negative_prompt"),
            *("frames", "fps", "strength"),
        )
    ),
}


class ModelTask(StrEnum):
    """What a model turns into what."""

    T2I = "t2i"
    I2I = "i2i"
    INPAINT = "inpaint"
    T2V = "t2v"
    I2V = "i2v"
    TTS = "tts"

    @property
    def modality(self) -> Modality:
        """What comes out."""
        if self is ModelTask.TTS:
            return Modality.AUDIO
        return Modality.VIDEO if self in (ModelTask.T2V, ModelTask.I2V) else Modality.IMAGE

    @property
    def needs_source(self) -> bool:
        """Whether it starts from a real picture."""
        return self in (ModelTask.I2I, ModelTask.INPAINT, ModelTask.I2V)


_TASKS: Final[dict[str, frozenset[ModelTask]]] = {
    "diffusion": frozenset({ModelTask.T2I}),
    "resynthesis": frozenset({ModelTask.I2I, ModelTask.INPAINT}),
    "image-to-image": frozenset({ModelTask.I2I}),
    "inpainting": frozenset({ModelTask.INPAINT}),
    "video": frozenset({ModelTask.T2V, ModelTask.I2V}),
    "speech": frozenset({ModelTask.TTS}),
}


class LocalModel(BaseModel):
    """One entry.

    Attributes:
        name: Its own, unique in the file.
        task: What it does.
        pipeline: A name of :func:`gas.generation.local.load_pipeline`.
        arguments: For loading: of ``resynthesis`` and ``speech`` the ``model``; of diffusers models ``dtype``,
            ``class_name`` and what :class:`gas.generation.diffusers_pipeline.Defaults` holds.
        parameters: Of every task it is given, e.g. ``resolution``.
        media_type: What its media are: synthetic where nothing is given; without a source always synthetic, and
            inpainting always semisynthetic.
        tags: For choosing models and for the media's manifest.
        max_batch: Media that are made at a time at most.
        enabled: Whether it is run when nobody names it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    task: ModelTask
    pipeline: Annotated[str, Field(min_length=1, max_length=300)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Any] = Field(default_factory=dict)
    media_type: MediaType = MediaType.SYNTHETIC
    tags: tuple[Annotated[str, Field(min_length=1, max_length=40)], ...] = Field(default=(), max_length=20)
    max_batch: Annotated[int, Field(ge=1, le=256)] = 8
    enabled: bool = True

    @field_validator("pipeline")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PIPELINES and not (value.startswith(DIFFUSERS) and value != DIFFUSERS):
            raise ValueError(f"there is no pipeline {value!r}; there are {', '.join(PIPELINES)}, {DIFFUSERS}MODEL")
        return value

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("task") == "inpaint" and "media_type" not in given:
            return given | {"media_type": "semisynthetic"}
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        tasks = _TASKS.get(self.pipeline)
        if tasks is not None and self.task not in tasks:
            raise ValueError(f"{self.pipeline} does {' and '.join(sorted(tasks))}, not {self.task}")
        if self.media_type is MediaType.REAL:
            raise ValueError("a model makes nothing real")
        if not self.task.needs_source and self.media_type is not MediaType.SYNTHETIC:
            raise ValueError(f"media of {self.task} are synthetic")
        if self.task is ModelTask.INPAINT and self.media_type is not MediaType.SEMISYNTHETIC:
            raise ValueError("inpainted media are semisynthetic")
        allowed = _ARGUMENTS.get(DIFFUSERS if self.pipeline.startswith(DIFFUSERS) else self.pipeline, frozenset())
        unknown = sorted(set(self.arguments) - allowed)
        if unknown:
            raise ValueError(f"{self.pipeline} takes no argument {unknown[0]!r}")
        return self


def builtin_models() -> tuple[LocalModel, ...]:
    """The models that ship with the project; all of them run on a CPU."""
    return load_models(_BUILTIN)


def load_models(path: Path) -> tuple[LocalModel, ...]:
    """Read a registry.

    Args:
        path: YAML: ``models``, a list of :class:`LocalModel`.

    Raises:
        ConfigurationError: ``models_invalid``: the file can't be read; every fault of every entry is listed.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigurationError(f"{path.name} is larger than {_MOST_BYTES // 1024} KiB.", code="models_invalid")
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read ({error.strerror}).", code="models_invalid") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path.name} is no YAML.", code="models_invalid") from error
    entries = document.get("models") if isinstance(document, dict) and set(document) == {"models"} else None
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"{path.name} has no list 'models', or more than that.", code="models_invalid")
    models: list[LocalModel] = []
    faults: list[str] = []
    for index, entry in enumerate(entries):
        label = str(entry.get("name", index) if isinstance(entry, dict) else index)[:64]
        try:
            model = LocalModel.model_validate(entry)
        except ValidationError as error:
            faults += [f"{label}: {_place(found)}{found['msg']}" for found in error.errors(include_url=False)]
            continue
        if any(model.name == other.name for other in models):
            faults.append(f"{label}: the name stands twice")
        models.append(model)
    if faults:
        raise ConfigurationError(f"{path.name} is wrong: {'; '.join(faults)[:2000]}.", code="models_invalid")
    return tuple(models)


def _place(found: Any) -> str:
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: " if where else ""
