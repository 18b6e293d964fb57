"""Read the code of a submission without running it, and say all that speaks against it, with file and line.

Covered: imports that are not on the list; names and attributes that reach files, processes, the network, the
interpreter or code from text, by whichever of the usual detours (aliases, ``from`` imports, ``getattr`` with a
literal, decorators, annotations, class bodies, f-strings, pattern matching, star imports, text encodings); weights
loaded from another path than the one given; remote code.

Not covered: whatever is computed at run time out of harmless parts. Python can't be caged by reading it. This check
is a filter, and a help for honest authors; **the sandbox is the boundary**.

Nothing here imports, compiles or runs the file: it is parsed into a tree, and the tree is walked.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Final

from gas.errors import Reason
from gas.submissions import allowed
from gas.submissions.limits import Limits
from gas.submissions.own_paths import FILE, FOLDER, OwnPaths
from gas.submissions.text import printable

__all__ = ["check_code"]

_LITERAL_ONLY: Final = frozenset({"getattr", "setattr", "delattr", "hasattr"})
_DUNDER: Final = re.compile(r"__\w+__")
_FORMAT_ESCAPE: Final = re.compile(r"\{[^{}]*(?:\._|\[_)")
_LOADS_OWN_FILE: Final = {
    "safetensors.torch.load_file": 0,
    "safetensors.torch.load_model": 1,
    "safetensors.safe_open": 0,
}
_REFUSED_KEYWORDS: Final = {
    "trust_remote_code": "code from elsewhere is never run",
    "checkpoint_path": "weights come from the given file only",
    "pretrained_cfg": "weights come from the given file only",
    "pretrained_cfg_overlay": "weights come from the given file only",
    "auto_map": "code from elsewhere is never run",
}
_SHADY: Final = frozenset({"Cf", "Co", "Cs"})
_MAX_REASONS: Final = 200
_MAX_NODES: Final = 100_000
# Some parsers take quadratic time over the fields of one f-string.
_MAX_BRACES: Final = 20_000

Finding = tuple[int, str, str]
"""Line, code, message."""


def check_code(source: bytes, file: str = "model.py", limits: Limits | None = None) -> tuple[Reason, ...]:
    """Findings against a Python file, sorted by line.

    Args:
        source: The file's bytes.
        file: Its name, for the findings.
        limits: ``source_bytes`` is asked.
    """
    most = (limits or Limits()).source_bytes
    if len(source) > most:
        return (Reason("code_too_large", f"The file has {len(source)} bytes; allowed are {most}.", file),)
    if source.count(b"{") > _MAX_BRACES:
        return (Reason("code_too_large", "The file has too many braces.", file),)
    early = _check_text(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, file)
    except SyntaxError as error:
        early.append((error.lineno or 1, "syntax_error", f"This is no valid Python: {error.msg}."))
        return _reasons(early, file)
    except (ValueError, RecursionError, MemoryError):
        early.append((1, "syntax_error", "This is no valid Python, or it is nested too deeply."))
        return _reasons(early, file)
    if sum(1 for _ in itertools.islice(ast.walk(tree), _MAX_NODES + 1)) > _MAX_NODES:
        return (Reason("code_too_large", "The file has too many expressions.", file),)
    return _reasons([*early, *_Checker(tree).findings()], file)


def _reasons(findings: list[Finding], file: str) -> tuple[Reason, ...]:
    unique = sorted(set(findings))
    reasons = [Reason(code, printable(message), file, line) for line, code, message in unique[:_MAX_REASONS]]
    if len(unique) > _MAX_REASONS:
        reasons.append(Reason("more_reasons", f"{len(unique) - _MAX_REASONS} more findings are not shown.", file))
    return tuple(reasons)


def _check_text(source: bytes) -> list[Finding]:
    """What can be said of the text before it is parsed: its encoding, and characters that nobody sees."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode("utf-8-sig")
    except (SyntaxError, UnicodeDecodeError):
        return [(1, "encoding", "The file must be UTF-8.")]
    if encoding not in ("utf-8", "utf-8-sig"):
        return [(1, "encoding", f"The file declares the encoding {encoding}; it must be UTF-8.")]
    return [
        (number, "invisible_character", f"The line holds the invisible character U+{ord(char):04X}.")
        for number, line in enumerate(text.splitlines(), start=1)
        if not line.isascii()
        for char in line
        if unicodedata.category(char) in _SHADY
    ]


class _Checker:
    """Walks a tree once, node by node and without recursion."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.nodes = list(ast.walk(tree))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.imports: dict[str, set[str]] = {}
        self.imported_modules: set[str] = set()
        self.rebound: set[str] = set()
        self.import_findings: list[Finding] = []
        outer = [node.names for node in self.nodes if isinstance(node, (ast.Global, ast.Nonlocal))]
        self.declared = {name for names in outer for name in names}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            else:
                self.rebound.update(name for name, _ in _bound(node))
        self.own = OwnPaths(tree, self.imports, self.rebound)

    def findings(self) -> list[Finding]:
        found = list(self.import_findings)
        found += self._entry_point()
        for node in self.nodes:
            found += self._bindings(node)
            if isinstance(node, ast.Name):
                found += self._name(node)
            elif isinstance(node, ast.Attribute):
                found += self._attribute(node, node.attr)
            elif isinstance(node, ast.Call):
                found += self._call(node)
            elif isinstance(node, ast.MatchClass):
                found += [f for attr in node.kwd_attrs for f in self._attribute_name(node.lineno, attr)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += self._text(node, node.value)
        return found

    def _entry_point(self) -> list[Finding]:
        defs = [n for n in self.tree.body if isinstance(n, ast.FunctionDef) and n.name == "load_model"]
        hint = "load_model(weights_path: str, num_classes: int = 2, **model_params)"
        if not defs:
            return [(1, "load_model_missing", f"The file must define {hint}.")]
        args = defs[-1].args
        names = [a.arg for a in (*args.posonlyargs, *args.args)]
        takes_classes = args.kwarg is not None or "num_classes" in names[1:] + [a.arg for a in args.kwonlyargs]
        if not names or not takes_classes:
            return [(defs[-1].lineno, "load_model_signature", f"load_model must be callable as {hint}.")]
        return []

    # Imports

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            if self._importable(node.lineno, alias.name):
                self.imported_modules.add(alias.name)
                local, path = (alias.asname, alias.name) if alias.asname else [alias.name.partition(".")[0]] * 2
                self.imports.setdefault(local, set()).add(path)
            else:
                self.rebound.add(alias.asname or alias.name.partition(".")[0])

    def _import_from(self, node: ast.ImportFrom) -> None:
        good = self._importable(node.lineno, node.module or "") if not node.level else False
        if node.level:
            self.import_findings.append((node.lineno, "import_not_allowed", "Relative imports are not taken."))
        for alias in node.names:
            path = f"{node.module}.{alias.name}"
            if alias.name == "*":
                self.import_findings.append((node.lineno, "star_import", "Import names one by one, not '*'."))
            elif good and allowed.may_use(path):
                self.imports.setdefault(alias.asname or alias.name, set()).add(path)
            else:
                self.rebound.add(alias.asname or alias.name)
                if good:
                    self.import_findings.append((node.lineno, "import_not_allowed", _not_allowed(path)))

    def _importable(self, line: int, path: str) -> bool:
        open_below = any(path.startswith(f"{module}.") for module in allowed.OPEN)
        if allowed.is_module(path) or (open_below and allowed.may_use(path)):
            return True
        root = path.partition(".")[0]
        if root in allowed.ROOTS:
            message = _not_allowed(path)
        else:
            message = f"The import of {path} is not allowed; allowed are {', '.join(allowed.ROOTS)}."
        self.import_findings.append((line, "import_not_allowed", message))
        return False

    # Names

    def _bindings(self, node: ast.AST) -> Iterator[Finding]:
        for name, line in _bound(node):
            methods = isinstance(node, ast.FunctionDef) and name in allowed.DUNDERS
            if _DUNDER.fullmatch(name) and name not in allowed.DUNDER_NAMES and not methods:
                yield line, "dunder", f"{name} may not be defined."

    def _name(self, node: ast.Name) -> Iterator[Finding]:
        name, line = node.id, node.lineno
        parent = self.parents.get(node)
        if name in allowed.REFUSED_BUILTINS:
            if not self._is_parameter(node):
                yield line, "name_refused", f"{name} may not be used."
        elif name in _LITERAL_ONLY:
            if not isinstance(parent, ast.Call) or parent.func is not node or _literal_attribute(parent) is None:
                yield line, "name_refused", f"{name} may be called only with the attribute's name as plain text."
        elif _DUNDER.fullmatch(name):
            if name not in allowed.DUNDER_NAMES:
                yield line, "dunder", f"{name} may not be used."
        elif name in self.imports:
            if not isinstance(node.ctx, ast.Load):
                yield line, "rebinds_import", f"{name} is imported in this file; give the variable another name."
            yield from self._module_as_value(node, parent)
            yield from self._loader_as_value(node, parent)
        elif isinstance(node.ctx, ast.Load) and name not in allowed.BUILTINS and name not in self.rebound:
            yield line, "name_refused", f"{name} is neither defined here nor among the built-ins that may be used."

    def _is_parameter(self, node: ast.Name) -> bool:
        """Whether a name surely means a parameter of a function around it, and so never the built-in."""
        child: ast.AST = node
        while (parent := self.parents.get(child)) is not None:
            if isinstance(parent, ast.ClassDef):
                # A class body looks a name up past the functions around it.
                return False
            inside = isinstance(parent, ast.Lambda) and child is parent.body
            inside |= isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)) and child in parent.body
            if inside and isinstance(parent, (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef)):
                args = parent.args
                named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
                if any(arg is not None and arg.arg == node.id for arg in named):
                    return node.id not in self.declared
            child = parent
        return False

    def _module_as_value(self, node: ast.expr, parent: ast.AST | None) -> Iterator[Finding]:
        dotted = isinstance(parent, ast.Attribute) or (
            isinstance(parent, ast.Call) and node in parent.args[:1] and _literal_attribute(parent) is not None
        )
        if not dotted:
            for path in self._paths(node):
                if allowed.is_module(path) or path in self.imported_modules:
                    yield node.lineno, "module_as_value", f"{path} may be used with a dot only, not handed around."

    def _loader_as_value(self, node: ast.expr, parent: ast.AST | None) -> Iterator[Finding]:
        called = isinstance(parent, ast.Call) and parent.func is node
        for path in self._paths(node):
            if not called and (path in _LOADS_OWN_FILE or path in ("functools.wraps", "timm.create_model")):
                yield node.lineno, "name_refused", f"{path} may only be called, not handed around."

    def _paths(self, node: ast.expr) -> set[str]:
        """Dotted paths that an expression may stand for, when it starts at an import; else empty."""
        attributes: list[str] = []
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                attributes.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call) and (literal := _literal_attribute(node)) is not None:
                attributes.append(literal)
                node = node.args[0]
            else:
                return set()
        return {".".join([path, *reversed(attributes)]) for path in self.imports.get(node.id, ())}

    # Attributes

    def _attribute(self, node: ast.Attribute | ast.Call, attr: str) -> Iterator[Finding]:
        line = node.end_lineno or node.lineno
        parent = self.parents.get(node)
        paths = self._paths(node)
        refused = sorted(path for path in paths if not allowed.may_use(path))
        if refused:
            # The shortest refused part of a chain tells most; longer ones would only repeat it.
            inner = node.value if isinstance(node, ast.Attribute) else node.args[0]
            if all(allowed.may_use(path) for path in self._paths(inner)):
                yield line, "name_not_allowed", _not_allowed(refused[0])
        elif paths:
            yield from self._module_as_value(node, parent)
            yield from self._loader_as_value(node, parent)
        names_class = attr == "__class__" and isinstance(parent, ast.Attribute) and parent.attr == "__name__"
        if not refused and not names_class:
            yield from self._attribute_name(line, attr)
        stored = isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
        if stored and not all(path.startswith("torch.backends.") for path in paths):
            yield line, "monkeypatch", f"{min(paths)} may not be changed: it belongs to a library."
        called = isinstance(parent, ast.Call) and parent.func is node
        if attr == "from_pretrained" and not called:
            yield line, "name_refused", "from_pretrained may only be called, not handed around."
        text = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant)
        if attr == "format" and not (text and called) and not paths:
            yield line, "name_refused", "format may be called on plain text only: it can read attributes."

    def _attribute_name(self, line: int, attr: str) -> Iterator[Finding]:
        if attr in allowed.REFUSED_ATTRIBUTES:
            yield line, "attribute_refused", f"The attribute {attr} may not be used."
        elif _DUNDER.fullmatch(attr) and attr not in allowed.DUNDERS:
            yield line, "dunder", f"The attribute {attr} may not be used."

    # Calls

    def _call(self, node: ast.Call) -> Iterator[Finding]:
        literal = _literal_attribute(node)
        if literal is not None:
            yield from self._attribute(node, literal)
            if isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr") and self._paths(node):
                yield node.lineno, "monkeypatch", f"{literal} may not be changed: it belongs to a library."
        if isinstance(node.func, ast.Name) and node.func.id == "type" and (len(node.args) != 1 or node.keywords):
            yield node.lineno, "name_refused", "type may be called with one argument only."
        if isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            yield from self._from_pretrained(node)
        for path in self._paths(node.func):
            yield from self._library_call(node, path)
        for keyword in node.keywords:
            if keyword.arg in _REFUSED_KEYWORDS:
                yield (
                    keyword.lineno,
                    "remote_code",
                    f"{keyword.arg} may not be given: {_REFUSED_KEYWORDS[keyword.arg]}.",
                )
            if keyword.arg == "pretrained" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
                yield keyword.lineno, "downloads_weights", "pretrained must be False: there is no network."

    def _downloads(self, keyword: ast.keyword) -> bool:
        """Whether a keyword of torchvision asks for weights that come from the network."""
        if keyword.arg not in ("weights", "weights_backbone"):
            return False
        text = isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
        return text or any("_Weights" in path for path in self._paths(keyword.value))

    def _from_pretrained(self, node: ast.Call) -> Iterator[Finding]:
        named = [k.value for k in node.keywords if k.arg == "pretrained_model_name_or_path"]
        where = next(iter([*node.args, *named]), None)
        unpacked = any(k.arg is None for k in node.keywords)
        if where is None or unpacked or len(node.args) + len(named) > 1 or self.own.kind(where) != FOLDER:
            yield (
                node.lineno,
                "foreign_weights",
                "from_pretrained may read the submission's own folder only: in load_model, give it "
                "str(PurePath(weights_path).parent).",
            )

    def _library_call(self, node: ast.Call, path: str) -> Iterator[Finding]:
        if path in _LOADS_OWN_FILE:
            index = _LOADS_OWN_FILE[path]
            named = [k.value for k in node.keywords if k.arg == "filename"]
            plain = not any(isinstance(a, ast.Starred) for a in node.args) and all(k.arg for k in node.keywords)
            where = node.args[index] if len(node.args) > index else next(iter(named), None)
            if not plain or where is None or self.own.kind(where) != FILE:
                yield node.lineno, "foreign_weights", f"{path} may read the given weights_path only."
        elif path.startswith("torchvision.models.") and any(self._downloads(k) for k in node.keywords):
            yield node.lineno, "downloads_weights", "weights must be None: there is no network."
        elif path == "functools.wraps" and (len(node.args) != 1 or node.keywords):
            yield node.lineno, "name_refused", "functools.wraps takes the function only."
        elif path in ("ultralytics.YOLO", "ultralytics.RTDETR"):
            first = node.args[0] if node.args else None
            if not (isinstance(first, ast.Constant) and str(first.value).endswith((".yaml", ".yml"))):
                yield node.lineno, "foreign_weights", f"{path} may be built from a .yaml name only: others unpickle."

    def _text(self, node: ast.Constant, text: str) -> Iterator[Finding]:
        if text in _REFUSED_KEYWORDS:
            yield node.lineno, "remote_code", f"{text} may not be given: {_REFUSED_KEYWORDS[text]}."
        if _DUNDER.fullmatch(text) and text not in allowed.DUNDERS | allowed.DUNDER_NAMES and text != "__main__":
            yield node.lineno, "dunder", f"{text} may not be named, not even as text."
        if text.startswith(("hf-hub:", "hf_hub:")):
            yield node.lineno, "downloads_weights", "Models from a hub are not taken: there is no network."
        parent = self.parents.get(node)
        if isinstance(parent, ast.Attribute) and parent.attr == "format" and _FORMAT_ESCAPE.search(text):
            yield node.lineno, "dunder", "format may not read attributes that start with an underscore."


def _not_allowed(path: str) -> str:
    why = allowed.explain(path)
    return f"{path} is not among the names that may be used{f': {why}' if why else ''}."


def _literal_attribute(node: ast.Call) -> str | None:
    """The attribute that ``getattr`` and its kin are asked for, when it is plain text; else None."""
    if not isinstance(node.func, ast.Name) or node.func.id not in _LITERAL_ONLY or node.keywords:
        return None
    if not 2 <= len(node.args) <= 3 or any(isinstance(a, ast.Starred) for a in node.args):
        return None
    name = node.args[1]
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _bound(node: ast.AST) -> list[tuple[str, int]]:
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
        return [(node.arg, node.lineno)] if node.arg and _DUNDER.fullmatch(node.arg) else []
    return []
