"""Small questions about the nodes of a parsed file, for :mod:`gas.submissions.code`: what they name, bind and give."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Set
from typing import Final

__all__ = [
    "DUNDER",
    "LITERAL_ONLY",
    "asks_type",
    "bound_names",
    "keywords_of",
    "literal_attribute",
    "local_of",
    "names_yaml",
    "parameter_names",
    "too_large",
]

DUNDER: Final = re.compile(r"__\w+__")
LITERAL_ONLY: Final = frozenset({"getattr", "setattr", "delattr", "hasattr"})
"""Built-ins that may be called with an attribute's name as plain text only."""
_PLAIN_YAML: Final = re.compile(r"[A-Za-z0-9_.-]+\.ya?ml")
_MAX_NODES: Final = 100_000
_MAX_DEPTH: Final = 200


def too_large(tree: ast.Module) -> str | None:
    """Why a tree is not walked: every later look at it may recurse, and take its depth times its size."""
    level: list[ast.AST] = [tree]
    count = 0
    for _ in range(_MAX_DEPTH):
        count += len(level)
        if count > _MAX_NODES:
            return "The file has too many expressions."
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return None
    return f"The file is nested over {_MAX_DEPTH} levels deep."


def asks_type(node: ast.expr) -> bool:
    """Whether an expression asks for the type of something."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "type"


def parameter_names(args: ast.arguments) -> frozenset[str]:
    """Names of all parameters."""
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    return frozenset(arg.arg for arg in named if arg is not None)


def names_yaml(node: ast.expr | None) -> bool:
    """Whether an expression is the plain name of a YAML file."""
    # The number of a constant may have more digits than Python writes out.
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return False
    return _PLAIN_YAML.fullmatch(node.value) is not None


def keywords_of(node: ast.Call) -> Iterator[ast.keyword]:
    """Keywords of a call, with those of a table that is written out behind ``**``."""
    for keyword in node.keywords:
        yield keyword
        if keyword.arg is None and isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield ast.keyword(key.value, value, lineno=keyword.lineno)


def literal_attribute(node: ast.Call) -> str | None:
    """The attribute that ``getattr`` and its kin are asked for, when it is plain text; else None."""
    if not isinstance(node.func, ast.Name) or node.func.id not in LITERAL_ONLY or node.keywords:
        return None
    if not 2 <= len(node.args) <= 3 or any(isinstance(a, ast.Starred) for a in node.args):
        return None
    name = node.args[1]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def bound_names(node: ast.AST) -> list[tuple[str, int]]:
    """Names that a node binds, other than by an import of an allowed thing, with their lines."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [(node.id, node.lineno)]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [(node.name, node.lineno)]
    if isinstance(node, ast.arg):
        return [(node.arg, node.lineno)]
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return [(name, node.lineno) for name in node.names]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [(node.name, node.lineno)] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [(node.rest, node.lineno)] if node.rest else []
    if isinstance(node, ast.keyword):
        return [(node.arg, node.lineno)] if node.arg and DUNDER.fullmatch(node.arg) else []
    return []


def local_of(node: ast.Name, parents: Mapping[ast.AST, ast.AST], bodies: Set[ast.AST]) -> ast.AST | None:
    """The function whose local an assigned name is, wherever in it it is used; None when it is not surely one's.

    Args:
        node: The name where it is assigned.
        parents: Of every node.
        bodies: Statements of which the functions consist.
    """
    child: ast.AST = node
    walrus = isinstance(parents.get(node), ast.NamedExpr)
    while (parent := parents.get(child)) is not None:
        if isinstance(parent, ast.ClassDef) or (isinstance(parent, ast.comprehension) and not walrus):
            # Those of a comprehension are gone after it.
            return None
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)) and child in bodies:
            return parent
        if isinstance(parent, ast.Lambda):
            return None
        child = parent
    return None
