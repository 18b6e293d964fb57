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
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Final

from gas.errors import Reason
from gas.submissions import allowed
from gas.submissions.built_text import built_text
from gas.submissions.limits import Limits
from gas.submissions.own_paths import FILE, FOLDER, OwnPaths
from gas.submissions.source_text import Finding, check_text
from gas.submissions.syntax import (
    DUNDER,
    LITERAL_ONLY,
    asks_type,
    bound_names,
    keywords_of,
    literal_attribute,
    local_of,
    names_yaml,
    parameter_names,
    too_large,
)
from gas.submissions.text import printable

__all__ = ["check_code"]

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
    "tokenizer_file": "a model reads the given weights only",
    "vocab_file": "a model reads the given weights only",
    "merges_file": "a model reads the given weights only",
}
_TRUE_DOWNLOADS: Final = frozenset({"pretrained", "use_pretrained_backbone", "pretrained_backbone"})
_HUBS: Final = ("hf-hub:", "hf_hub:", "local-dir:", "local_dir:")
_ONLY_CALLED: Final = frozenset(
    {*_LOADS_OWN_FILE, "functools.wraps", "timm.create_model", "ultralytics.YOLO", "ultralytics.RTDETR"}
)
_MAX_REASONS: Final = 200
# Some parsers take quadratic time over the fields of one f-string.
_MAX_BRACES: Final = 20_000


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
    early = check_text(source)
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
    if large := too_large(tree):
        return (Reason("code_too_large", large, file),)
    return _reasons([*early, *_Checker(tree).findings()], file)


def _reasons(findings: list[Finding], file: str) -> tuple[Reason, ...]:
    unique = sorted(set(findings))
    reasons = [Reason(code, printable(message), file, line) for line, code, message in unique[:_MAX_REASONS]]
    if len(unique) > _MAX_REASONS:
        reasons.append(Reason("more_reasons", f"{len(unique) - _MAX_REASONS} more findings are not shown.", file))
    return tuple(reasons)


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
                self.rebound.update(name for name, _ in bound_names(node))
        functions = [n for n in self.nodes if isinstance(n, (ast.Lambda, ast.FunctionDef, ast.AsyncFunctionDef))]
        self.parameters: dict[ast.AST, frozenset[str]] = {node: parameter_names(node.args) for node in functions}
        self.bodies: set[ast.AST] = {
            child for node in functions for child in ([node.body] if isinstance(node, ast.Lambda) else node.body)
        }
        self.locals: set[tuple[ast.AST, str]] = set()
        for node in self.nodes:
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            if stored and isinstance(node, ast.Name) and node.id in allowed.REFUSED_BUILTINS:
                function = local_of(node, self.parents, self.bodies)
                self.locals.update([(function, node.id)] if function is not None else ())
        self.aliases = self._aliases()
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
                found += [f for attr in node.kwd_attrs for f in self._matched_attribute(node, attr)]
            elif isinstance(node, ast.Match) and self._paths(node.subject):
                found.append((node.subject.lineno, "name_refused", "A thing of a library may not be matched."))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += self._text(node, node.value)
            if isinstance(node, (ast.BinOp, ast.JoinedStr, ast.Call)) and (text := built_text(node)):
                found += self._text(node, text)
        return found

    def _entry_point(self) -> list[Finding]:
        defs = [n for n in self.tree.body if isinstance(n, ast.FunctionDef) and n.name == "load_model"]
        hint = "load_model(weights_path: str, num_classes: int = 2, **model_params)"
        if not defs:
            return [(1, "load_model_missing", f"The file must define {hint}.")]
        others = [n for n in self.nodes if n not in defs and any(name == "load_model" for name, _ in bound_names(n))]
        if len(defs) > 1 or "load_model" in self.imports or others:
            line = getattr(others[0] if others else defs[-1], "lineno", 1)
            return [(line, "load_model_signature", "load_model must be defined once, as a plain function.")]
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

    def _aliases(self) -> dict[str, set[str]]:
        """Names that stand for a thing of a library because they are assigned it, and nothing else, once."""
        bound = Counter(name for node in self.nodes for name, _ in bound_names(node))
        self.aliases = {}
        for node in self.nodes:
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                target, value = node.targets[0], node.value
            elif isinstance(node, ast.NamedExpr):
                target, value = node.target, node.value
            else:
                continue
            if isinstance(target, ast.Name) and bound[target.id] == 1 and target.id not in self.imports:
                paths = self._paths(value)
                if paths:
                    self.aliases[target.id] = paths
        return self.aliases

    # Names

    def _bindings(self, node: ast.AST) -> Iterator[Finding]:
        for name, line in bound_names(node):
            methods = isinstance(node, ast.FunctionDef) and name in allowed.DUNDERS
            if DUNDER.fullmatch(name) and name not in allowed.DUNDER_NAMES and not methods:
                yield line, "dunder", f"{name} may not be defined."

    def _name(self, node: ast.Name) -> Iterator[Finding]:
        name, line = node.id, node.lineno
        parent = self.parents.get(node)
        if name in allowed.REFUSED_BUILTINS:
            if not self._is_local(node):
                yield line, "name_refused", f"{name} may not be used."
        elif name in LITERAL_ONLY:
            if not isinstance(parent, ast.Call) or parent.func is not node or literal_attribute(parent) is None:
                yield line, "name_refused", f"{name} may be called only with the attribute's name as plain text."
        elif name == "type":
            if isinstance(node.ctx, ast.Load) and not (self._names_a_type(node) or self._is_local(node)):
                yield line, "name_refused", "type may be called with one argument or stand in an annotation only."
        elif DUNDER.fullmatch(name):
            if name not in allowed.DUNDER_NAMES:
                yield line, "dunder", f"{name} may not be used."
        elif name in self.imports:
            nothing = isinstance(parent, ast.Assign) and isinstance(parent.value, ast.Constant)
            if not isinstance(node.ctx, ast.Load) and not nothing:
                yield line, "rebinds_import", f"{name} is imported in this file; give the variable another name."
            yield from self._module_as_value(node, parent)
            yield from self._loader_as_value(node, parent)
        elif isinstance(node.ctx, ast.Load) and name not in allowed.BUILTINS and name not in self.rebound:
            yield line, "name_refused", f"{name} is neither defined here nor among the built-ins that may be used."

    def _names_a_type(self, node: ast.Name) -> bool:
        """Whether ``type`` is called, asked for, or part of an annotation, and not handed around or derived from."""
        child: ast.AST = node
        parent = self.parents.get(child)
        while isinstance(parent, (ast.Tuple, ast.BinOp)):
            child, parent = parent, self.parents.get(parent)
        if isinstance(parent, ast.Call):
            asked = isinstance(parent.func, ast.Name) and parent.func.id in ("isinstance", "issubclass")
            return parent.func is node or (asked and child is not parent.func and child is not parent.args[0])
        if isinstance(parent, (ast.arg, ast.AnnAssign)):
            return parent.annotation is child
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return parent.returns is child
        return isinstance(parent, (ast.Subscript, ast.Compare))

    def _is_local(self, node: ast.Name) -> bool:
        """Whether a name surely means a parameter or local of a function around it, and so never the built-in."""
        child: ast.AST = node
        while (parent := self.parents.get(child)) is not None:
            if isinstance(parent, ast.ClassDef):
                # A class body looks a name up past the functions around it.
                return False
            mine = node.id in self.parameters.get(parent, ()) or (parent, node.id) in self.locals
            if mine and child in self.bodies:
                return node.id not in self.declared
            child = parent
        return False

    def _module_as_value(self, node: ast.expr, parent: ast.AST | None) -> Iterator[Finding]:
        dotted = isinstance(parent, ast.Attribute) or (
            isinstance(parent, ast.Call) and node in parent.args[:1] and literal_attribute(parent) is not None
        )
        if not dotted:
            for path in self._paths(node):
                if allowed.is_module(path) or path in self.imported_modules:
                    yield node.lineno, "module_as_value", f"{path} may be used with a dot only, not handed around."

    def _loader_as_value(self, node: ast.expr, parent: ast.AST | None) -> Iterator[Finding]:
        called = isinstance(parent, ast.Call) and parent.func is node
        for path in self._paths(node):
            if not called and path in _ONLY_CALLED:
                yield node.lineno, "name_refused", f"{path} may only be called, not handed around."

    def _paths(self, node: ast.expr) -> set[str]:
        """Dotted paths that an expression may stand for, when it starts at an import; else empty."""
        attributes: list[str] = []
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Attribute):
                attributes.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call) and (literal := literal_attribute(node)) is not None:
                attributes.append(literal)
                node = node.args[0]
            else:
                return set()
        known = self.imports.get(node.id) or self.aliases.get(node.id) or set()
        return {".".join([path, *reversed(attributes)]) for path in known}

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
        elif stored and isinstance(node, ast.Attribute) and asks_type(node.value):
            yield line, "monkeypatch", "The class of an object may not be changed."
        called = isinstance(parent, ast.Call) and parent.func is node
        if attr == "from_pretrained" and not called:
            yield line, "name_refused", "from_pretrained may only be called, not handed around."
        text = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Constant)
        if attr == "format" and not (text and called) and not paths:
            yield line, "name_refused", "format may be called on plain text only: it can read attributes."

    def _attribute_name(self, line: int, attr: str) -> Iterator[Finding]:
        if attr in allowed.REFUSED_ATTRIBUTES:
            yield line, "attribute_refused", f"The attribute {attr} may not be used."
        elif DUNDER.fullmatch(attr) and attr not in allowed.DUNDERS:
            yield line, "dunder", f"The attribute {attr} may not be used."

    def _matched_attribute(self, node: ast.MatchClass, attr: str) -> Iterator[Finding]:
        yield from self._attribute_name(node.lineno, attr)
        if attr in ("from_pretrained", "format"):
            yield node.lineno, "name_refused", f"{attr} may only be called, not handed around."

    # Calls

    def _call(self, node: ast.Call) -> Iterator[Finding]:
        literal = literal_attribute(node)
        if literal is not None:
            yield from self._attribute(node, literal)
            changes = isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr")
            if changes and (self._paths(node) or asks_type(node.args[0])):
                yield node.lineno, "monkeypatch", f"{literal} may not be changed: it belongs to a library."
        plain = len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Starred)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and not plain:
            yield node.lineno, "name_refused", "type may be called with one argument only."
        of = node.func.attr if isinstance(node.func, ast.Attribute) else None
        of = literal_attribute(node.func) if isinstance(node.func, ast.Call) else of
        if of == "from_pretrained":
            yield from self._from_pretrained(node)
        for path in self._paths(node.func):
            yield from self._library_call(node, path)
        for keyword in keywords_of(node):
            if keyword.arg in _REFUSED_KEYWORDS:
                yield (
                    keyword.lineno,
                    "remote_code",
                    f"{keyword.arg} may not be given: {_REFUSED_KEYWORDS[keyword.arg]}.",
                )
            true = isinstance(keyword.value, ast.Constant) and keyword.value.value
            if keyword.arg in _TRUE_DOWNLOADS and true:
                yield keyword.lineno, "downloads_weights", f"{keyword.arg} must be False: there is no network."

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
        elif path.startswith("torchvision.models.") and any(self._downloads(k) for k in keywords_of(node)):
            yield node.lineno, "downloads_weights", "weights must be None: there is no network."
        elif path == "functools.partial" and node.args and self._paths(node.args[0]):
            bound = ast.Call(node.args[0], node.args[1:], node.keywords, lineno=node.lineno)
            for inner in self._paths(node.args[0]):
                yield from self._library_call(bound, inner)
        elif path == "timm.create_model" and (len(node.args) > 2 or _starred(node.args)):
            message = "timm.create_model takes the name, and False, by their place; give the rest by name."
            yield node.lineno, "foreign_weights", message
        elif _asks_for_weights(path, node.args):
            yield node.lineno, "downloads_weights", "pretrained must be False: there is no network."
        elif path == "functools.wraps" and (len(node.args) != 1 or node.keywords):
            yield node.lineno, "name_refused", "functools.wraps takes the function only."
        elif path in ("ultralytics.YOLO", "ultralytics.RTDETR"):
            first = node.args[0] if node.args else None
            if not names_yaml(first):
                yield node.lineno, "foreign_weights", f"{path} may be built from a .yaml name only: others unpickle."
        elif path.startswith("ultralytics.nn.tasks.") and path.endswith("Model"):
            named = [k.value for k in keywords_of(node) if k.arg == "cfg"]
            first = next(iter([*node.args, *named]), None)
            if not names_yaml(first):
                yield (
                    node.lineno,
                    "foreign_weights",
                    f"{path} may be built from a .yaml name only: tables are evaluated.",
                )

    def _text(self, node: ast.expr, text: str) -> Iterator[Finding]:
        # Attributes that are asked for by text are not brought to their plain form, as names are; readers do it.
        text = unicodedata.normalize("NFKC", text)
        if text in _REFUSED_KEYWORDS:
            yield node.lineno, "remote_code", f"{text} may not be given: {_REFUSED_KEYWORDS[text]}."
        if DUNDER.fullmatch(text) and text not in allowed.DUNDERS | allowed.DUNDER_NAMES and text != "__main__":
            yield node.lineno, "dunder", f"{text} may not be named, not even as text."
        if text.startswith(_HUBS):
            yield node.lineno, "downloads_weights", "Models from a hub are not taken: there is no network."
        parent = self.parents.get(node)
        if isinstance(parent, ast.Attribute) and parent.attr == "format" and _FORMAT_ESCAPE.search(text):
            yield node.lineno, "dunder", "format may not read attributes that start with an underscore."


def _not_allowed(path: str) -> str:
    why = allowed.explain(path)
    return f"{path} is not among the names that may be used{f': {why}' if why else ''}."


def _starred(args: list[ast.expr]) -> bool:
    return any(isinstance(arg, ast.Starred) for arg in args)


def _asks_for_weights(path: str, args: list[ast.expr]) -> bool:
    """Whether a call asks for trained weights by the place of an argument."""
    if path == "timm.create_model":
        return len(args) > 1 and not (isinstance(args[1], ast.Constant) and not args[1].value)
    first = args[0] if args and path.startswith(("torchvision.models.", "timm.models.")) else None
    return isinstance(first, ast.Constant) and first.value is True
