"""What every reader of a format has in common: what is asked of it, what it may cost, what it hands out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from gas.errors import ConfigurationError, MediaRejected, Reason
from gas.media.limits import DEFAULT_LIMITS
from gas.types import Modality

__all__ = [
    "DEFAULT_FORMAT_LIMITS",
    "FormatLimits",
    "RawItem",
    "Wanted",
    "broken",
    "clean_label",
    "is_mask",
    "is_side_file",
    "mask_path",
    "masks_among",
    "set_aside",
]

# fmt: off
_SIDE_ENDINGS: Final = frozenset({
    ".json", ".jsonl", ".ndjson", ".txt", ".csv", ".tsv", ".md", ".rst", ".html", ".htm", ".xml", ".yaml", ".yml",
    ".toml", ".cfg", ".ini", ".log", ".py", ".ipynb", ".sh", ".pdf", ".npy", ".npz", ".pt", ".cls", ".idx", ".db",
    ".sha256", ".md5", ".crc", ".license", ".mat", ".bib", ".tex", ".bat", ".js", ".css",
})
_SIDE_NAMES: Final = frozenset({
    "readme", "license", "licence", "copying", "notice", "changelog", "sha256sums", "authors", "thumbs.db",
    "desktop.ini",
})
# fmt: on
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_MAX_LABEL: Final = 512
_PLACEHOLDERS: Final = re.compile(r"\{(folder|name|stem)\}")


@dataclass(frozen=True, slots=True)
class FormatLimits:
    """Bounds that hold while a file is read.

    Attributes:
        max_item_bytes: Of one medium or mask.
        max_members: Of an archive, folders and links included.
        max_ratio: Unpacked to packed bytes, beyond the first 64 MiB of a whole archive and the first of a member.
        max_total_bytes: Unpacked from one archive.
        max_directory_bytes: Of a zip's directory, and of a tar's extended headers.
        max_footer_bytes: Of a Parquet file's metadata.
        max_page_bytes: Of one page of a Parquet file, unpacked. Writers put up to a thousand pictures into one.
        max_values: In one column of one group of rows, where a row may hold many.
        batch_bytes: What one batch of rows should take.
        max_pending_bytes: Media and masks of a tar that wait for each other.
    """

    max_item_bytes: int = DEFAULT_LIMITS.max_bytes
    max_members: int = 1_000_000
    max_ratio: int = 200
    max_total_bytes: int = 2 * 1024**4
    max_directory_bytes: int = 256 * 1024**2
    max_footer_bytes: int = 16 * 1024**2
    max_page_bytes: int = 512 * 1024**2
    max_values: int = 4_000_000
    batch_bytes: int = 32 * 1024**2
    max_pending_bytes: int = 256 * 1024**2


DEFAULT_FORMAT_LIMITS: Final = FormatLimits()
"""Limits in force where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read out of a file.

    Attributes:
        format: ``parquet``, ``zip``, ``tar`` or ``files`` when only that is acceptable; ``auto`` for whatever the
            content is.
        data_columns: Columns of a table that hold media; found by their type when there are none here.
        mask_column: Column of a table that holds masks; for archives and folders a pattern for the path of a
            medium's mask, e.g. ``masks/{stem}.png`` (see :func:`mask_path`). Empty for no masks.
        filter_column: Only rows whose value in this column is wanted are read; empty for all.
        filter_values: The wanted values, as text.
        text_columns: Columns that come along with each medium, as text.
        modality: Helps to tell columns apart.
        member: Whether a member of an archive, by its path, is wanted; everything but hidden and side files when
            it is None.
    """

    format: str = "auto"
    data_columns: tuple[str, ...] = ()
    mask_column: str = ""
    filter_column: str = ""
    filter_values: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    modality: Modality | None = None
    member: Callable[[str], bool] | None = None

    def takes(self, path: str) -> bool:
        """Whether a member of an archive is wanted."""
        return self.member(path) if self.member is not None else not is_side_file(path)


@dataclass(frozen=True, slots=True)
class RawItem:
    """One medium as it was published, or why it can't be had.

    Attributes:
        path: Where it was found: ``file``, ``file!member``, or ``file#row:column``, in a list ``file#row:column[3]``.
        data: Its bytes; empty when ``error`` is set.
        columns: Values of the wanted text columns that are not null.
        mask: Bytes of its mask.
        error: Why this one item is to be set aside; reading goes on.
    """

    path: str
    data: bytes = b""
    columns: Mapping[str, str] = field(default_factory=dict)
    mask: bytes | None = None
    error: Reason | None = None


def set_aside(path: str, code: str, message: str) -> RawItem:
    """An item that can't be had."""
    return RawItem(path, error=Reason(code, message, path))


def broken(name: str, what: str) -> MediaRejected:
    """The error for a container that can't be read on."""
    return MediaRejected(f"{clean_label(name)} {what}.", code="archive")


def clean_label(name: str, fallback: str = "unnamed") -> str:
    """A path of an archive as a label: relative, without ``..``, control characters and excessive length.

    Nothing is ever opened under such a name; it only tells people where a medium came from.
    """
    if len(name) <= _MAX_LABEL and _PLAIN.fullmatch(name):
        return name
    text = _CONTROL.sub("_", name.encode("utf-8", "backslashreplace").decode().replace("\\", "/"))
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    if parts and _DRIVE.fullmatch(parts[0]):
        parts = parts[1:]
    label = "/".join(parts)
    return label[-_MAX_LABEL:] if label else fallback


def is_side_file(path: str) -> bool:
    """Whether a path is hidden, or by its name a well-known companion of media and none itself."""
    parts = path.split("/")
    if not parts[-1] or any(part.startswith((".", "__MACOSX")) for part in parts):
        return True
    name = parts[-1].lower()
    dot = name.rfind(".")
    return name in _SIDE_NAMES or (dot > 0 and name[dot:] in _SIDE_ENDINGS)


def mask_path(path: str, pattern: str) -> str:
    """Where the mask of a medium lies.

    Args:
        path: The medium's path, e.g. ``set/images/7.jpg``.
        pattern: With ``{folder}`` (``set/images``), ``{name}`` (``7.jpg``) and ``{stem}`` (``7``); ``..`` goes up,
            as in ``{folder}/../masks/{stem}.png``. Without ``{folder}`` it counts from the top.

    Raises:
        ConfigurationError: The pattern names every medium's mask alike.
    """
    if "{name}" not in pattern and "{stem}" not in pattern:
        raise ConfigurationError(
            f"The pattern {pattern[:80]!a} gives all media the same mask.",
            code="mask_pattern",
            hint="It needs {stem} or {name}, as in masks/{stem}.png.",
        )
    pure = PurePosixPath(path)
    values = {"folder": pure.parent.as_posix(), "name": pure.name, "stem": pure.stem}
    parts: list[str] = []
    for part in _PLACEHOLDERS.sub(lambda match: values[match[1]], pattern).split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def is_mask(path: str, pattern: str) -> bool:
    """Whether a path has the form of a mask's; such a file is never a medium itself.

    Args:
        path: A member's or a file's path.
        pattern: As in :func:`mask_path`.
    """
    signs = []
    for part in (part for part in pattern.split("/") if part not in ("", ".", "..", "{folder}")):
        literal = _PLACEHOLDERS.split(part)[::2]
        signs.append("[^/]*".join(re.escape(text) for text in literal))
    anywhere = "(?:.*/)?" if "{folder}" in pattern else ""
    return re.fullmatch(anywhere + "/".join(signs), path) is not None


def masks_among(paths: Iterable[str], pattern: str) -> dict[str, str]:
    """Pair the files of a folder with their masks.

    Args:
        paths: All files.
        pattern: As in :func:`mask_path`; empty for no masks.

    Returns:
        Medium to mask, for media that have one. Files that are masks (:func:`is_mask`) are no media.

    Raises:
        ConfigurationError: The pattern is none.
    """
    there = set(paths) if pattern else set()
    media = sorted(path for path in there if not is_mask(path, pattern))
    return {path: mask for path in media if (mask := mask_path(path, pattern)) in there}
