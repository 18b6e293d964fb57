"""What a registry says about one data set, and what of it can't be.

Import these names from :mod:`gas.datasets.registry`, which reads them from files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gas.types import MediaType, Modality

__all__ = ["CategoryRule", "DatasetEntry", "Format", "Registry", "SourceKind"]

SourceKind = Literal["folder", "huggingface", "modelscope", "s3", "http", "arena", "npm", "python", "pypi", "debian"]
"""Where a data set comes from; the last four are packages of package managers."""

Format = Literal["auto", "parquet", "zip", "tar", "files"]
"""How the files hold their media; ``auto`` goes by each file's content."""

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
_WORD: Final = r"^[a-z][a-z0-9_-]*$"
_SPDX: Final = r"^\(*[A-Za-z0-9.+:-]+\)*( (AND|OR|WITH) \(*[A-Za-z0-9.+:-]+\)*)*$"
_INTEGRITY: Final = re.compile(r"sha512-[A-Za-z0-9+/]{86}==|sha256-[A-Za-z0-9+/]{43}=")
_PACKAGES: Final[dict[str, tuple[str, str]]] = {
    "npm": (r"(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*", r"\d+\.\d+\.\d+"),
    "pypi": (r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", r"\d[A-Za-z0-9.!+_-]*"),
    "debian": (r"[a-z0-9][a-z0-9+.-]+", r"(\d+:)?[0-9][A-Za-z0-9.+~-]*"),
}
"""Forms of a package's name and of its exact version."""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
_Glob = Annotated[str, Field(min_length=1, max_length=500)]


class CategoryRule(BaseModel):
    """Files whose path matches ``glob`` show something of ``category``."""

    model_config = _STRICT

    glob: _Glob
    category: Annotated[str, Field(pattern=r"^[a-z]+$")]


class DatasetEntry(BaseModel):
    """One data set.

    Attributes:
        name: Unique in the registry; also the name of its folder in the store.
        modality: Kind of its media.
        media_type: How its media came about.
        source: Where it comes from: ``folder`` (files that the operator has), ``huggingface`` and ``modelscope``
            (repositories), ``s3``, ``http``, ``arena`` (shards of an arena's media), ``npm``, ``pypi`` and ``debian``
            (a pinned package), ``python`` (an importable package, when it is installed).
        path: Of the source: a folder, relative to the registry's file; ``owner/name``; ``s3://bucket/prefix``;
            an ``https://`` address.
        package: Name for the package manager, or of the importable package.
        version: Exact version of a package.
        integrity: ``sha512-<base64>`` or ``sha256-<base64>`` of the packed file (npm, pypi, debian).
        revision: Commit, tag or branch of a repository; what it resolves to is written down with the fetched set.
        format: How the files hold their media, by content.
        include: Globs of paths inside the source that belong to the data set; ``*`` also crosses folders. A glob
            with ``!`` chooses members of an archive: ``train.zip!faces/*``. Empty: all but side files.
        exclude: Globs of paths that don't belong to it, members likewise.
        data_columns: Columns of a table that hold media; empty: those that do by their content.
        mask_column: Column with the mask of a semisynthetic medium; for files the mask's path, made from the
            medium's by ``{folder}``, ``{name}`` and ``{stem}``: ``masks/{stem}.png``.
        filter_column: Only rows of a table whose value in this column is one of ``filter_values``.
        filter_values: As text; booleans are ``true`` and ``false``.
        generator: Family of the generator (``diffusion``, ``gan`` ...); empty for real media.
        default_category: Coarse word for what the media show where no rule matches; ``category`` in the file.
        categories: Coarse words for what a file shows; the first matching rule wins.
        series: Globs of files that show one scene when their names differ by a trailing number only.
        licence: SPDX expression; ``LicenseRef-unknown`` where the publisher names none.
        notes: For people.
        holdout: Kept from the public until it is released.
        releasable: A holdout that joins the next round's public data when a round has ended.
        max_items: The most media that are taken, in the order of the files' paths; None: all.
        max_bytes: The most bytes of media that are taken, likewise.
    """

    model_config = _STRICT

    name: _Name
    modality: Modality
    media_type: MediaType
    source: SourceKind
    path: Annotated[str, Field(max_length=1000)] = ""
    package: str = ""
    version: str = ""
    integrity: str = ""
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]*$", max_length=200)] = ""
    format: Format = "auto"
    include: tuple[_Glob, ...] = ()
    exclude: tuple[_Glob, ...] = ()
    data_columns: tuple[str, ...] = ()
    mask_column: str = ""
    filter_column: str = ""
    filter_values: tuple[str, ...] = ()
    generator: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_-]*)?$")] = ""
    default_category: Annotated[str, Field(pattern=r"^[a-z]+$", alias="category")] = "other"
    categories: tuple[CategoryRule, ...] = ()
    series: tuple[_Glob, ...] = ()
    licence: Annotated[str, Field(pattern=_SPDX, max_length=200)]
    notes: str = ""
    holdout: bool = False
    releasable: bool = False
    max_items: Annotated[int, Field(ge=1)] | None = None
    max_bytes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> DatasetEntry:
        wrong = [*self._wrong_source(), *self._wrong_label()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _wrong_source(self) -> list[str]:
        wrong = []
        if self.source in _PACKAGES:
            name, version = _PACKAGES[self.source]
            kind = f"{'an' if self.source == 'npm' else 'a'} {self.source} source needs"
            if not re.fullmatch(name, self.package):
                wrong.append(f"{kind} the package's name")
            if not re.fullmatch(version, self.version):
                wrong.append(f"{kind} an exact version")
            if not _INTEGRITY.fullmatch(self.integrity):
                wrong.append(f"{kind} its integrity (sha512-... or sha256-...)")
        elif self.source == "python":
            if not re.fullmatch(r"[A-Za-z_]\w*", self.package):
                wrong.append("a python source needs the name of a top-level package")
        elif not self.path:
            wrong.append(f"a source of kind {self.source} needs a path")
        elif self.source in ("huggingface", "modelscope"):
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.path):
                wrong.append(f"the path of a {self.source} source is owner/name")
        elif self.source == "s3" and not re.match(r"s3://[a-z0-9][a-z0-9.-]+(/|$)", self.path):
            wrong.append("the path of an s3 source is s3://bucket/prefix")
        elif self.source == "http" and not re.match(r"https?://[^/\s]+/", self.path):
            wrong.append("the path of an http source is https://host/...")
        if re.match(r"[a-z0-9+]+://[^/]*@", self.path):
            wrong.append("the path holds a user name or password, which don't belong in a registry")
        return wrong

    def _wrong_label(self) -> list[str]:
        wrong = []
        if self.media_type is MediaType.REAL and self.generator:
            wrong.append("real media have no generator")
        if self.mask_column and self.media_type is not MediaType.SEMISYNTHETIC:
            wrong.append("only semisynthetic media have masks")
        if bool(self.filter_column) != bool(self.filter_values):
            wrong.append("filter_column and filter_values go together")
        if self.releasable and not self.holdout:
            wrong.append("only a holdout can be releasable")
        return wrong

    def wants(self, path: str) -> bool:
        """Whether a file of the source, by its relative path with ``/``, belongs to the data set."""
        return (
            not self.include or any(fnmatchcase(path, glob.partition("!")[0]) for glob in self.include)
        ) and not any("!" not in glob and fnmatchcase(path, glob) for glob in self.exclude)

    def wants_member(self, path: str, member: str) -> bool:
        """Whether a member of an archive at ``path`` belongs to the data set; all do where no glob says otherwise."""
        chosen = [glob.partition("!")[2] or "*" for glob in self.include if fnmatchcase(path, glob.partition("!")[0])]
        return (not self.include or any(fnmatchcase(member, glob) for glob in chosen)) and not any(
            "!" in glob and fnmatchcase(path, glob.partition("!")[0]) and fnmatchcase(member, glob.partition("!")[2])
            for glob in self.exclude
        )

    def member_filter(self, path: str) -> Callable[[str], bool] | None:
        """:meth:`wants_member` for one archive; None where the entry says nothing of members."""
        if not any("!" in glob for glob in (*self.include, *self.exclude)):
            return None
        return lambda member: self.wants_member(path, member)

    def category(self, path: str) -> str:
        """Coarse word for what the file shows."""
        return next((rule.category for rule in self.categories if fnmatchcase(path, rule.glob)), self.default_category)

    def series_of(self, path: str) -> str:
        """What the file shares with the other shots of its scene; its own path where there are none."""
        if any(fnmatchcase(path, glob) for glob in self.series):
            return re.sub(r"-?\d+(?=\.\w+$)", "", path)
        return path

    def as_dict(self) -> dict[str, object]:
        """What differs from the defaults, in the form and under the names of a registry's file."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that the fetched set depends on: all fields but the notes."""
        fields = {key: value for key, value in self.as_dict().items() if key != "notes"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


class Registry(BaseModel):
    """All data sets that an operator draws from.

    Attributes:
        version: Of the file's form.
        datasets: In the order of the file.
        base: Folder that the paths of ``folder`` sources are relative to; the file's own.
    """

    model_config = _STRICT

    version: Literal[1]
    datasets: tuple[DatasetEntry, ...]
    base: Annotated[Path, Field(exclude=True)] = Path()

    @model_validator(mode="after")
    def _unique(self) -> Registry:
        names = [entry.name for entry in self.datasets]
        if len(set(names)) != len(names):
            raise ValueError("two data sets have the same name")
        return self

    def get(self, name: str) -> DatasetEntry | None:
        """The data set of that name."""
        return next((entry for entry in self.datasets if entry.name == name), None)

    def located(self) -> Registry:
        """The same with the paths of ``folder`` sources made absolute."""
        return self.model_copy(
            update={
                "datasets": tuple(
                    entry.model_copy(update={"path": str((self.base / entry.path).absolute())})
                    if entry.source == "folder"
                    else entry
                    for entry in self.datasets
                )
            }
        )
