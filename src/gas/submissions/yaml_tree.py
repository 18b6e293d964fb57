"""Read YAML of a stranger into a small tree with line numbers.

Covered: files that are too large, aliases and anchors (by which a small file becomes a huge object), tags (by
which a loader may be made to build any object), merge keys, duplicate keys, deep nesting, several documents, huge
numbers. The result is made of dict, list, str, int, float, bool and None only.

Not covered: what the values mean; see :mod:`gas.submissions.package`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from gas.errors import Reason
from gas.submissions.text import printable

__all__ = ["Node", "YamlRefused", "parse_yaml"]

_MAX_DEPTH: Final = 12
_MAX_NODES: Final = 20_000
_MAX_NUMBER: Final = 64
_TEXT_TAGS: Final = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value"})


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        line: 1-based line of its first character.
        value: None, bool, int, float or str; a dict of Nodes with str keys; or a list of Nodes.
        text: A scalar as it was written, e.g. ``1.0``; empty for others.
    """

    line: int
    value: object
    text: str = ""

    def plain(self) -> object:
        """The value without line numbers."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


class YamlRefused(Exception):
    """The file can't or mustn't be read; carries the finding."""

    def __init__(self, code: str, message: str, line: int | None, file: str) -> None:
        super().__init__(message)
        self.reason = Reason(code, printable(message), file, line)


def parse_yaml(data: bytes, file: str, *, max_bytes: int) -> Node:
    """Parse one document.

    Args:
        data: The file's bytes; UTF-8.
        file: Its name, for the findings.
        max_bytes: The most it may have.

    Raises:
        YamlRefused: With code ``yaml_too_large``, ``yaml_broken``, ``yaml_alias``, ``yaml_tag``, ``yaml_too_deep``,
            ``yaml_duplicate_key`` or ``yaml_value``.
    """
    return _Reader(file).read(data, max_bytes)


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.nodes = 0
        self.resolver: Any = yaml.SafeLoader("")

    def fail(self, code: str, message: str, line: int | None = None) -> YamlRefused:
        return YamlRefused(code, message, line, self.file)

    def read(self, data: bytes, max_bytes: int) -> Node:
        if len(data) > max_bytes:
            raise self.fail("yaml_too_large", f"The file has {len(data)} bytes; allowed are {max_bytes}.")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise self.fail("yaml_broken", "The file is not UTF-8 text.", line) from None
        try:
            return self.document(iter(yaml.parse(text, Loader=yaml.SafeLoader)))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.fail(
                "yaml_broken", f"This is no valid YAML: {error.problem}.", mark.line + 1 if mark else None
            ) from None
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
            # PyYAML lets others than its own through on some broken escapes and directives.
            raise self.fail("yaml_broken", "This is no valid YAML.") from None

    def document(self, events: Iterator[yaml.Event]) -> Node:
        event = next(events)
        while not isinstance(event, (yaml.DocumentStartEvent, yaml.StreamEndEvent)):
            event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            raise self.fail("yaml_broken", "The file is empty.", 1)
        root = self.node(events, next(events), 0)
        next(events)
        event = next(events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.fail("yaml_broken", "The file must hold one document.", _line(event))
        return root

    def node(self, events: Iterator[yaml.Event], event: yaml.Event, depth: int) -> Node:
        line = _line(event) or 1
        self.nodes += 1
        if depth > _MAX_DEPTH or self.nodes > _MAX_NODES:
            raise self.fail("yaml_too_deep", "The file nests too deeply or has too many values.", line)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self.fail("yaml_alias", "Anchors and aliases (& and *) are not taken: write the value out.", line)
        if getattr(event, "tag", None) is not None:
            raise self.fail("yaml_tag", "Tags (!) are not taken: plain values only.", line)
        if isinstance(event, yaml.ScalarEvent):
            return Node(line, self.scalar(event, line), event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self.node(events, event, depth + 1))
            return Node(line, items)
        return Node(line, self.mapping(events, depth))

    def mapping(self, events: Iterator[yaml.Event], depth: int) -> dict[str, Node]:
        table: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self.node(events, event, depth + 1)
            if not isinstance(event, yaml.ScalarEvent) or key.value == "<<":
                raise self.fail("yaml_value", "Keys must be plain words.", key.line)
            if key.text in table:
                raise self.fail("yaml_duplicate_key", f"The key {key.text[:80]!r} stands twice.", key.line)
            table[key.text] = self.node(events, next(events), depth + 1)
        return table

    def scalar(self, event: yaml.ScalarEvent, line: int) -> object:
        text: str = event.value
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise self.fail("yaml_value", "This text holds half a character.", line)
        tag = self.resolver.resolve(yaml.ScalarNode, text, event.implicit)
        if tag in _TEXT_TAGS:
            return text
        if tag == "tag:yaml.org,2002:merge":
            return "<<"
        if len(text) > _MAX_NUMBER:
            raise self.fail("yaml_value", "This number is too long.", line)
        value: object = self.resolver.construct_object(yaml.ScalarNode(tag, text))
        if isinstance(value, float) and not math.isfinite(value):
            raise self.fail("yaml_value", "Numbers must be finite.", line)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise self.fail("yaml_value", "This number is too large.", line)
        return value


def _line(event: yaml.Event) -> int | None:
    return event.start_mark.line + 1 if event.start_mark else None
