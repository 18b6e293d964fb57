"""Strangers' text, made fit for a terminal, a log and JSON."""

from __future__ import annotations

from typing import Final

__all__ = ["printable"]

_MOST: Final = 400


def printable(text: str) -> str:
    """Text with everything escaped that is not plainly visible (control characters, lone surrogates), and cut."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_MOST])
    return shown if len(text) <= _MOST else f"{shown}..."
