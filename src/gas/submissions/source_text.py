"""What can be said of a file of code before it is parsed: its encoding, and characters that deceive who reads it."""

from __future__ import annotations

import io
import re
import tokenize
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["Finding", "check_text"]

Finding = tuple[int, str, str]
"""Line, code, message."""

_SHADY: Final = frozenset({"Cf", "Co", "Cs"})
_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are drawn as nothing."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_FOREIGN: Final = re.compile(r"[\u0400-\u058f\u13a0-\u13fd\uab70-\uabbf\ua4d0-\ua4ff]")
"""Cyrillic, Armenian, Cherokee, Lisu: scripts with letters that look like Latin ones."""


def check_text(source: bytes) -> list[Finding]:
    """What can be said of the text before it is parsed: its encoding, and characters that nobody sees."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode("utf-8-sig")
    except (SyntaxError, UnicodeDecodeError):
        return [(1, "encoding", "The file must be UTF-8.")]
    if encoding not in ("utf-8", "utf-8-sig"):
        return [(1, "encoding", f"The file declares the encoding {encoding}; it must be UTF-8.")]
    found = [
        (number, "invisible_character", f"The line holds the invisible character U+{ord(char):04X}.")
        for number, line in enumerate(_LINE_END.split(text), start=1)
        if not line.isascii() or _CONTROL.search(line)
        for char in line
        if unicodedata.category(char) in _SHADY or char in _BLANK or _CONTROL.match(char)
    ]
    return found if text.isascii() else [*found, *_lookalikes(text)]


def _lookalikes(text: str) -> Iterator[Finding]:
    """Names that read as others: letters that Python takes for their plain forms, and scripts mixed in one name."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            name = token.string
            if token.type != tokenize.NAME or name.isascii():
                continue
            mixed = _FOREIGN.search(name) and re.search(r"[A-Za-z]", name)
            if mixed or unicodedata.normalize("NFKC", name) != name:
                yield (
                    token.start[0],
                    "lookalike_name",
                    f"The name {name!r} looks like another: write it in plain letters.",
                )
    except (tokenize.TokenError, SyntaxError):
        # The parser tells what is wrong with it.
        return
