"""The registry: which data sets there are, where they come from, and under which licence.

A registry is a YAML file, checked whole before anything is fetched. It names packages, never addresses: the
package managers know where to look, and the pinned hash decides whether what came is what was meant.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gas.errors import ConfigurationError
from gas.types import MediaType, Modality

__all__ = ["CategoryRule", "DatasetEntry", "Registry", "builtin_registry", "load_registry"]

_MAX_BYTES: Final = 1024 * 1024
_STRICT: Final = ConfigDict(extra="forbid", frozen=True)

NpmName = r"^(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*$"


class CategoryRule(BaseModel):
    """Files whose path matches ``glob`` show something of ``category``."""

    model_config = _STRICT

    glob: str
    category: Annotated[str, Field(pattern=r"^[a-z]+$")]


class DatasetEntry(BaseModel):
    """One data set.

    Attributes:
        name: Unique in the registry.
        modality: Kind of its media.
        media_type: How its media came about.
        source: ``npm`` (a pinned package), ``python`` (an importable package, when it is installed) or
            ``folder`` (files that the operator has).
        package: Name for the package manager, or of the importable package.
        version: Exact version (npm).
        integrity: ``sha512-<base64>`` of the packed file (npm).
        path: The folder (folder).
        include: Globs of paths inside the source that belong to the data set; ``*`` also crosses folders.
        exclude: Globs of paths that don't.
        categories: Coarse words for what a file shows; the first matching rule wins, none means ``other``.
        series: Globs of files that show one scene when their names differ by a trailing number only.
        licence: SPDX expression.
        notes: For people.
    """

    model_config = _STRICT

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    modality: Modality
    media_type: MediaType
    source: Literal["npm", "python", "folder"]
    package: str = ""
    version: str = ""
    integrity: str = ""
    path: str = ""
    include: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    categories: tuple[CategoryRule, ...] = ()
    series: tuple[str, ...] = ()
    licence: str
    notes: str = ""

    @model_validator(mode="after")
    def _complete(self) -> DatasetEntry:
        if self.source == "npm":
            if not re.fullmatch(NpmName, self.package):
                raise ValueError("an npm source needs the package's name")
            if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
                raise ValueError("an npm source needs an exact version")
            if not re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", self.integrity):
                raise ValueError("an npm source needs its integrity (sha512-...)")
        if self.source == "python" and not re.fullmatch(r"[A-Za-z_]\w*", self.package):
            raise ValueError("a python source needs the name of a top-level package")
        if self.source == "folder" and not self.path:
            raise ValueError("a folder source needs a path")
        return self

    def wants(self, path: str) -> bool:
        """Whether a file of the source, by its relative path with ``/``, belongs to the data set."""
        return any(fnmatchcase(path, glob) for glob in self.include) and not any(
            fnmatchcase(path, glob) for glob in self.exclude
        )

    def category(self, path: str) -> str:
        """Coarse word for what the file shows."""
        return next((rule.category for rule in self.categories if fnmatchcase(path, rule.glob)), "other")

    def series_of(self, path: str) -> str:
        """What the file shares with the other shots of its scene; its own path where there are none."""
        if any(fnmatchcase(path, glob) for glob in self.series):
            return re.sub(r"-?\d+(?=\.\w+$)", "", path)
        return path


class Registry(BaseModel):
    """All data sets that an operator draws from."""

    model_config = _STRICT

    version: Literal[1]
    datasets: tuple[DatasetEntry, ...]

    @model_validator(mode="after")
    def _unique(self) -> Registry:
        names = [entry.name for entry in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError("two data sets have the same name")
        return self


def load_registry(path: Path) -> Registry:
    """Read and check a registry file.

    Raises:
        ConfigurationError: It is missing, too large, not YAML, or says something that can't be.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"The registry {path.name} is larger than {_MAX_BYTES:,} bytes.")
        return _parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The registry {path} can't be read.") from error


def builtin_registry() -> Registry:
    """The registry of real photos that the project ships."""
    file = resources.files("gas.datasets").joinpath("registries", "photos.yaml")
    return _parse(file.read_text(encoding="utf-8"), "photos.yaml")


def _parse(text: str, name: str) -> Registry:
    try:
        return Registry.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"The registry {name} is not valid YAML.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"The registry {name} is wrong at {where or 'its top'}: {first['msg']}.") from error
