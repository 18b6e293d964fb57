"""Follow the path that ``load_model`` is given, to see that code reads this file and no other.

``load_model(weights_path, ...)`` gets the one file that it may read; its folder is the submission's own. This
module tells which expressions surely mean that file (``FILE``) or that folder (``FOLDER``). It follows plain
assignments, ``str``, ``PurePath``, ``.parent``, and calls of functions of the same file; whatever it can't follow,
or only by more steps than an honest author writes, counts as another path.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

__all__ = ["FILE", "FOLDER", "OwnPaths"]

FILE: Final = "file"
FOLDER: Final = "folder"
_WRAPPERS: Final = frozenset({"str", "pathlib.PurePath", "pathlib.PurePosixPath"})
_ROUNDS: Final = 6
_MOST_STEPS: Final = 32
_MOST_PARAMETERS: Final = 32
_MOST_CALLS: Final = 256
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Bindings = dict[str, list[ast.expr | None]]


class OwnPaths:
    """What each function of a module knows about the submission's own paths.

    Args:
        tree: The module.
        imports: Local names of imported things, with their dotted paths.
        rebound: Names that the file binds in any other way than by an import.
    """

    def __init__(self, tree: ast.Module, imports: dict[str, set[str]], rebound: set[str]) -> None:
        self._imports = imports
        self._rebound = rebound
        self._functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self._known: dict[str, dict[str, str]] = {name: {} for name in self._functions}
        self._owner: dict[ast.AST, str] = {}
        for name, function in self._functions.items():
            # Defaults and decorators are evaluated outside: only the body knows the parameters.
            for statement in function.body:
                for node in ast.walk(statement):
                    self._owner[node] = name
        self._bindings = {name: _bindings(function) for name, function in self._functions.items()}
        calls = self._direct_calls(tree)
        self._given = {name: _given(function, calls[name]) for name, function in self._functions.items()}
        for _ in range(_ROUNDS):
            self._settle()

    def kind(self, node: ast.expr) -> str | None:
        """``FILE``, ``FOLDER``, or None for every other value."""
        parents = 0
        for _ in range(_MOST_STEPS):
            if isinstance(node, ast.Name):
                known = self._known.get(self._owner.get(node, ""), {}).get(node.id)
                if parents:
                    return FOLDER if known == FILE and parents == 1 else None
                return known
            if isinstance(node, ast.Attribute) and node.attr == "parent":
                parents += 1
                node = node.value
            elif isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
                if not self._is_wrapper(node.func):
                    return None
                node = node.args[0]
            else:
                return None
        return None

    def _is_wrapper(self, func: ast.expr) -> bool:
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            paths = {f"{path}.{func.attr}" for path in self._imports.get(func.value.id, ())}
        elif isinstance(func, ast.Name) and func.id not in self._rebound:
            paths = self._imports.get(func.id) or {func.id}
        else:
            return False
        return bool(paths) and paths <= _WRAPPERS

    def _direct_calls(self, tree: ast.Module) -> dict[str, list[ast.Call] | None]:
        """Calls of each function; None when it is used in any other way, so that not every call is seen."""
        calls: dict[str, list[ast.Call] | None] = {name: [] for name in self._functions}
        called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in calls:
                known = calls[node.id]
                if known is not None and id(node) in called and isinstance(node.ctx, ast.Load):
                    known.append(called[id(node)])
                else:
                    calls[node.id] = None
        return calls

    def _settle(self) -> None:
        for name in self._functions:
            known: dict[str, str] = {}
            for variable, values in self._bindings[name].items():
                kinds = {None if value is None else self.kind(value) for value in values}
                kinds |= self._argument_kinds(name, variable)
                if len(kinds) == 1 and (kind := kinds.pop()) is not None:
                    known[variable] = kind
            self._known[name] = known

    def _argument_kinds(self, name: str, variable: str) -> set[str | None]:
        given = self._given[name].get(variable, ())
        return {value if value is None or isinstance(value, str) else self.kind(value) for value in given}


def _given(function: _Function, calls: list[ast.Call] | None) -> dict[str, list[ast.expr | str | None]]:
    """What each parameter of a function is given: expressions, ``FILE``, or None for what can't be followed."""
    parameters = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    others = [*function.args.kwonlyargs, function.args.vararg, function.args.kwarg]
    unknown = {a.arg for a in others if a is not None}
    if calls is None or function.decorator_list or len(parameters) > _MOST_PARAMETERS or len(calls) > _MOST_CALLS:
        unknown |= set(parameters)
    found: dict[str, list[ast.expr | str | None]] = {}
    for index, variable in enumerate(parameters):
        values: list[ast.expr | str | None] = []
        if variable not in unknown:
            values += [_argument(call, index, variable) for call in calls or ()]
        if function.name == "load_model":
            # Called by the runner, with the file first.
            values.append(FILE if index == 0 else None)
        found[variable] = values or [None]
    return found | {variable: [None] for variable in unknown}


def _argument(call: ast.Call, index: int, variable: str) -> ast.expr | None:
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return None
    if index < len(call.args):
        return call.args[index]
    return next((k.value for k in call.keywords if k.arg == variable), None)


def _bindings(function: _Function) -> _Bindings:
    """Every value that a name of the function may get; None stands for one that can't be followed."""
    found: _Bindings = defaultdict(list)
    followed: set[int] = set()
    own = {*function.args.posonlyargs, *function.args.args}
    for arg in own:
        found[arg.arg] += []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id].append(node.value)
            followed.add(id(node.targets[0]))
        elif isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
            found[node.target.id].append(node.value)
            followed.add(id(node.target))
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)) and id(node) not in followed:
            found[node.id].append(None)
        for name in [] if node in own else _hidden_names(node, function):
            found[name].append(None)
    return found


def _hidden_names(node: ast.AST, function: _Function) -> list[str]:
    """Names that a node binds without an ``ast.Name``."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node is not function:
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, (ast.Global, ast.Nonlocal)):
        return list(node.names)
    if isinstance(node, ast.alias):
        return [node.asname or node.name.partition(".")[0]]
    if isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return []
