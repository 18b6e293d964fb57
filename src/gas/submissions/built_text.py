"""Text that code puts together from plain pieces: sums, f-strings, joins, repetitions, turned round.

Covered: what is written out in one expression. Not covered: text that is computed; attributes asked for by such text
are refused for that, whatever it says.
"""

from __future__ import annotations

import ast
from typing import Final

__all__ = ["built_text"]

_LONGEST: Final = 1000
_DEEPEST: Final = 32


def built_text(node: ast.expr) -> str | None:
    """The text that an expression makes of plain pieces; None when it is plain itself, or can't be told."""
    return None if isinstance(node, ast.Constant) else _text(node, 0)


def _text(node: ast.expr, depth: int) -> str | None:
    if depth > _DEEPEST:
        return None
    found: str | None = None
    if isinstance(node, ast.Constant):
        found = node.value if isinstance(node.value, str) else None
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found = _joined("", [node.left, node.right], depth)
    elif isinstance(node, ast.JoinedStr):
        values = [value.value if isinstance(value, ast.FormattedValue) else value for value in node.values]
        found = _joined("", values, depth)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        text = _text(node.value, depth + 1)
        found = text[::-1] if text is not None and _turns(node.slice) else None
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and len(node.args) == 1:
        between, given = _text(node.func.value, depth + 1), node.args[0]
        if node.func.attr == "join" and between is not None and isinstance(given, (ast.List, ast.Tuple)):
            found = _joined(between, given.elts, depth)
    return found if found is not None and len(found) <= _LONGEST else None


def _joined(between: str, nodes: list[ast.expr], depth: int) -> str | None:
    pieces = [_text(node, depth + 1) for node in nodes]
    return between.join(piece for piece in pieces if piece is not None) if None not in pieces else None


def _turns(part: ast.Slice) -> bool:
    if not isinstance(part.step, ast.UnaryOp) or not isinstance(part.step.op, ast.USub):
        return False
    return isinstance(part.step.operand, ast.Constant) and part.lower is None and part.upper is None
