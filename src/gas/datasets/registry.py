"""The registry: which data sets there are, where they come from, and under which licence.

A registry is a YAML file, checked whole before anything is fetched: every finding at once, each with its line and
with what was probably meant. For packages it names no address: the package managers know where to look, and the
pinned hash decides whether what came is what was meant.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import ValidationError

from gas.datasets.entries import CategoryRule, DatasetEntry, Format, Registry, SourceKind
from gas.errors import ConfigurationError, Reason, StorageError
from gas.submissions.yaml_tree import Node, YamlRefused, parse_yaml
from gas.types import MediaType, Modality

__all__ = [
    "CategoryRule",
    "DatasetEntry",
    "Registry",
    "RegistryInvalid",
    "add_entry",
    "builtin_registries",
    "builtin_registry",
    "check_entry",
    "load_registry",
    "remove_entry",
]

_MAX_BYTES: Final = 1024 * 1024
_FLAGS: Final = frozenset({"holdout", "releasable"})
_NUMBERS: Final = frozenset({"max_items", "max_bytes"})
_KEYS: Final = tuple(field.alias or name for name, field in DatasetEntry.model_fields.items())
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "modality": tuple(Modality),
    "media_type": tuple(MediaType),
    "source": get_args(SourceKind),
    "format": get_args(Format),
}
_HEADER: Final = "# Your own data sets; written by `gascli data add`, and made to be edited by hand.\n"


class RegistryInvalid(ConfigurationError):
    """A registry's file says something that can't be.

    Args:
        name: Of the file.
        reasons: Every finding, in the order of lines; at least one.
    """

    code = "registry_invalid"

    def __init__(self, name: str, reasons: tuple[Reason, ...]) -> None:
        count = "one mistake" if len(reasons) == 1 else f"{len(reasons)} mistakes"
        super().__init__("\n".join([f"The registry {name} has {count}:", *(str(reason) for reason in reasons)]))
        self.reasons = reasons


def load_registry(path: Path) -> Registry:
    """Read and check a registry file.

    Raises:
        RegistryInvalid: It is not YAML, or says something that can't be; with every line that does.
        ConfigurationError: It is missing or too large.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigurationError(f"The registry {path.name} is larger than {_MAX_BYTES:,} bytes.")
        return _parse(path.read_bytes(), path.name, path.parent)
    except OSError as error:
        raise ConfigurationError(f"The registry {path} can't be read ({error.strerror}).") from error


def builtin_registry(name: str = "photos") -> Registry:
    """A registry that the project ships.

    Args:
        name: ``photos`` (photos inside packages, the demo's), or another of :func:`builtin_registries`.

    Raises:
        ConfigurationError: There is no such registry.
    """
    known = builtin_registries()
    if name not in known:
        raise ConfigurationError(f"There is no built-in registry {name!r}{_meant(name, known)}.")
    file = resources.files("gas.datasets").joinpath("registries", f"{name}.yaml")
    return _parse(file.read_bytes(), f"{name}.yaml", Path())


def builtin_registries() -> tuple[str, ...]:
    """Names of the registries that the project ships."""
    folder = resources.files("gas.datasets").joinpath("registries")
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def check_entry(fields: Mapping[str, object]) -> DatasetEntry:
    """An entry from single values, as a command has them; None counts as not given.

    Raises:
        ConfigurationError: ``entry_invalid``: something in it can't be; with all that is wrong.
    """
    block = yaml.safe_dump(
        {"version": 1, "datasets": [{key: value for key, value in fields.items() if value is not None}]}
    )
    try:
        return _parse(block.encode(), "entry", Path()).datasets[0]
    except RegistryInvalid as error:
        raise ConfigurationError(" ".join(reason.message for reason in error.reasons), code="entry_invalid") from error


def add_entry(path: Path, entry: DatasetEntry) -> None:
    """Write a data set into a registry's file, which is made when missing; what stands in it stays as it is.

    Raises:
        ConfigurationError: The name is taken, or the file is wrong already.
        StorageError: The file can't be written.
    """
    block = yaml.safe_dump([entry.as_dict()], sort_keys=False, allow_unicode=True, width=110)
    if not path.exists():
        _replace(path, f"{_HEADER}version: 1\ndatasets:\n{_indented(block)}")
        return
    registry = load_registry(path)
    if registry.get(entry.name) is not None:
        raise ConfigurationError(
            f"There is a data set {entry.name} already.", code="name_taken", hint="Take another name, or remove it."
        )
    old = path.read_text(encoding="utf-8-sig").rstrip("\n")
    wanted = (*registry.datasets, entry)
    # Comments survive where the list stands last in block style; any other form is written anew.
    for text in (f"{old}\n{_indented(block)}", f"{old}\n{block}"):
        try:
            if _parse(text.encode(), path.name, path.parent).datasets == wanted:
                _replace(path, text)
                return
        except RegistryInvalid:
            continue
    _replace(path, _dump(wanted))


def remove_entry(path: Path, name: str) -> bool:
    """Take a data set out of a registry's file; the file is written anew.

    Returns:
        Whether it was there.

    Raises:
        ConfigurationError: The file is missing or wrong.
        StorageError: The file can't be written.
    """
    registry = load_registry(path)
    left = tuple(entry for entry in registry.datasets if entry.name != name)
    if len(left) == len(registry.datasets):
        return False
    _replace(path, _dump(left))
    return True


def _dump(entries: Iterable[DatasetEntry]) -> str:
    tree = {"version": 1, "datasets": [entry.as_dict() for entry in entries]}
    return _HEADER + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)


def _indented(block: str) -> str:
    return "".join(f"  {line}\n" for line in block.splitlines())


def _replace(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(aside).chmod(0o644)
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"The registry {path} could not be written ({error.strerror}).") from error


def _parse(data: bytes, name: str, base: Path) -> Registry:
    try:
        root = parse_yaml(data, name, max_bytes=_MAX_BYTES)
    except YamlRefused as error:
        raise RegistryInvalid(name, (error.reason,)) from error
    reader = _Reader(name)
    entries = tuple(reader.registry(root))
    if reader.reasons:
        raise RegistryInvalid(name, tuple(sorted(reader.reasons, key=lambda reason: reason.line or 0)))
    return Registry(version=1, datasets=entries, base=base)


class _Reader:
    """From nodes with lines to entries, collecting every finding."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.reasons: list[Reason] = []

    def wrong(self, code: str, message: str, line: int) -> None:
        self.reasons.append(Reason(code, message, self.file, line))

    def registry(self, root: Node) -> Iterator[DatasetEntry]:
        top = self.mapping(root, ("version", "datasets"), "The registry")
        version = top.get("version")
        if "version" not in top:
            self.wrong("missing_key", "The key `version` is missing: write `version: 1`.", root.line)
        elif version is not None and version.value != 1:
            self.wrong("wrong_value", f"This version reads registries of version 1, not {version.text}.", version.line)
        sets = top.get("datasets")
        if sets is None or not isinstance(sets.value, list):
            self.wrong("missing_key", "The key `datasets` must hold a list of data sets.", (sets or root).line)
            return
        seen: dict[str, int] = {}
        for node in sets.value:
            table = self.mapping(node, _KEYS, "A data set")
            if not table:
                continue
            name = table.get("name")
            if name is not None and name.text in seen:
                self.wrong(
                    "duplicate_name",
                    f"The name {name.text} is taken by the data set of line {seen[name.text]}.",
                    name.line,
                )
            elif name is not None:
                seen[name.text] = name.line
            entry = self.entry(node, table)
            if entry is not None:
                yield entry

    def mapping(self, node: Node, keys: Iterable[str], what: str) -> dict[str, Node]:
        """The known keys of a mapping; the others are findings."""
        if not isinstance(node.value, dict):
            self.wrong("wrong_value", f"{what} must be a mapping of `key: value` lines.", node.line)
            return {}
        known = tuple(keys)
        for key, value in node.value.items():
            if key not in known:
                meant = _meant(key, known)
                self.wrong("unknown_key", f"{what} has no key {key[:80]!r}{meant}.", value.line)
        return {key: value for key, value in node.value.items() if key in known}

    def entry(self, node: Node, table: Mapping[str, Node]) -> DatasetEntry | None:
        before = len(self.reasons)
        if isinstance((rules := table.get("categories", node)).value, list):
            for rule in rules.value if isinstance(rules.value, list) else []:
                self.mapping(rule, ("glob", "category"), "A rule of categories")
        plain = {key: _plain(key, value) for key, value in table.items()}
        try:
            entry = DatasetEntry.model_validate(plain)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_context=False):
                if found["type"] != "extra_forbidden":
                    self.finding(node, table, found)
            return None
        return entry if len(self.reasons) == before else None

    def finding(self, node: Node, table: Mapping[str, Node], found: Mapping[str, Any]) -> None:
        where = [str(part) for part in found["loc"]]
        at = _at(node, found["loc"])
        name = table["name"].text if "name" in table else "?"
        key = where[0] if where else ""
        if found["type"] == "missing":
            self.wrong("missing_key", f"The data set {name[:80]} lacks the key `{'.'.join(where)}`.", at.line)
        elif key in _CHOICES:
            choices = _CHOICES[key]
            self.wrong(
                "wrong_value",
                f"`{key}` can't be {at.text[:80]!r}{_meant(at.text, choices)}: it is one of {', '.join(choices)}.",
                at.line,
            )
        elif not where:
            text = found["msg"].removeprefix("Value error, ")
            self.wrong("wrong_value", f"The data set {name[:80]}: {text}.", at.line)
        else:
            self.wrong("wrong_value", f"`{'.'.join(where)}` is wrong: {_sentence(found)}.", at.line)


def _at(node: Node, loc: Iterable[str | int]) -> Node:
    """The node that a finding is about, or the innermost one on the way to it."""
    for part in loc:
        inner = node.value
        if isinstance(inner, dict):
            node = inner.get(part, node)
        elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
            node = inner[part]
    return node


def _plain(key: str, node: Node) -> object:
    """A node's value; a scalar is the text as it was written unless the key is a number or a flag."""
    if isinstance(node.value, dict):
        return {inner: _plain(inner, value) for inner, value in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(key, value) for value in node.value]
    if node.value is None or key in _FLAGS or key in _NUMBERS:
        return node.value
    return node.text


def _sentence(found: Mapping[str, Any]) -> str:
    kind = found["type"]
    if kind == "string_pattern_mismatch":
        return f"{str(found['input'])[:80]!r} is not of the form it must have"
    if kind in ("tuple_type", "list_type"):
        return 'it must be a list, like ["*.jpg"]'
    return str(found["msg"][:1].lower() + found["msg"][1:])


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word.lower(), [str(one) for one in known], n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
