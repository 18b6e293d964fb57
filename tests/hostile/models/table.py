"""What an attempt is: its name, what it tries, how it is made, and how it must end on each rung."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["OUTCOMES", "Attempt", "Table", "answer_code", "attempt_code", "tables", "text_code"]

OUTCOMES: Final = {
    "refused": "the static check refuses it",
    "denied": "what it tried was refused; the model could only go on and answer",
    "harmless": "it happened inside, reached nothing outside, and was gone with the session",
    "not_finite": "it answered with values that are no numbers; the engine counts those samples as wrong",
    "flagged": "the same sample got two answers; the run's report names it",
    "load_failed": "the model failed to load: its author's fault",
    "crashed": "the model failed on a batch: its author's fault",
    "timeout": "the model was stopped at its deadline",
    "out_of_memory": "the model was stopped at its limit of memory",
    "bad_output": "the answer had another form than agreed",
    "protocol": "the model's process forged or broke the exchange with the parent",
    "not_here": "this machine can't make the attempt; the reason is given",
}
"""How an attempt may end and still count as contained. Anything else is a hole."""

_PRELUDE = Path(__file__).with_name("inside.py")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hostile model or package.

    Attributes:
        name: Says what it tries, as one word.
        group: Subject.
        tries: One sentence.
        static: Code with which the static check refuses it; None: the check has nothing against it.
        expected: How it must end on the isolating rungs; several where the kernel has the choice. Empty: there is
            nothing to run behind the check's back.
        plain: How it must end without isolation; empty: not for that rung, which is for one's own models.
        code: Text of ``model.py``.
        graph: Builds the ONNX file.
        package: Builds the whole zip; for attempts against the check alone, and by itself ``code`` or ``graph``.
        weights: Builds the weights' file.
        files: Further files in its folder, behind the check's back; a path is copied, a text is a link's target.
        torch: Runs with the real torch, not the stand-in.
        asks: ``once``; ``twice`` the same sample again in the same session; ``next`` a second session of the same
            model after the first has ended.
        limits: Limits that differ from the suite's.
        needs: Says why this machine can't make the attempt; None when it can.
    """

    name: str
    group: str
    tries: str
    static: str | None = None
    expected: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    code: str | bytes | None = None
    graph: Callable[[], bytes] | None = None
    package: Callable[[], bytes] | None = None
    weights: Callable[[], bytes] | None = None
    files: dict[str, bytes | str | Path] = field(default_factory=dict)
    torch: bool = False
    asks: str = "once"
    limits: dict[str, Any] = field(default_factory=dict)
    needs: Callable[[], str | None] = lambda: None


_RUN = """

import torch

def _outcome(facts):
    try:
        return 1.0 if NAME(facts) else 0.0
    except OSError:
        return 0.0
    except Exception as error:
        if any(words in repr(error) for words in ("MemoryError", "can't start new thread")):
            return 0.0
        raise


class Model(torch.nn.Module):
    def __init__(self, facts):
        super().__init__()
        self.facts = facts
        self.outcome = _outcome(facts) if "AT" == "load" else None

    def forward(self, batch):
        outcome = _outcome(self.facts) if self.outcome is None else self.outcome
        return torch.tensor([[outcome, 0.0]] * len(batch))


def load_model(weights_path, num_classes=2, **facts):
    facts["weights"] = weights_path
    return Model(facts)
"""

_ANSWER = """

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        return NAME(self, batch)


def load_model(weights_path, num_classes=2, **facts):
    return Model()
"""


@functools.cache
def _module(name: str) -> tuple[list[ast.stmt], dict[str, ast.FunctionDef]]:
    """A module's own statements, and its functions without decorators."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for definition in functions.values():
        definition.decorator_list = []
    return tree.body, functions


def _source(function: Callable[..., object]) -> tuple[str, str]:
    """A function's text without decorators, and the imports of its module that it needs."""
    statements, functions = _module(function.__module__)
    definition = functions[function.__name__]
    used = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    imports, shared = [], False
    for node in statements:
        if isinstance(node, ast.ImportFrom) and node.module == "models.inside":
            shared = shared or any(alias.name in used for alias in node.names)
        elif isinstance(node, ast.Import) and any((a.asname or a.name).partition(".")[0] in used for a in node.names):
            imports.append(ast.unparse(node))
    text = _PRELUDE.read_text(encoding="utf-8") if shared else ""
    return "\n".join([*imports, text]), ast.unparse(definition)


def attempt_code(function: Callable[..., object], at: str = "load") -> str:
    """``model.py`` that runs a function of the facts, and answers with whether it got through."""
    imports, body = _source(function)
    return f"{imports}\n{body}\n" + _RUN.replace("NAME", function.__name__).replace("AT", at)


def answer_code(function: Callable[..., object]) -> str:
    """``model.py`` whose answer is what a function of (model, batch) returns."""
    imports, body = _source(function)
    return f"{imports}\nimport torch\n\n{body}\n" + _ANSWER.replace("NAME", function.__name__)


def text_code(body: str, at: str = "load") -> str:
    """``model.py`` around a text that defines ``attack(facts)``."""
    return body + _RUN.replace("NAME", "attack").replace("AT", at)


class Table:
    """Collects the attempts of one subject."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.attempts: list[Attempt] = []

    def add(self, name: str, tries: str, **more: Any) -> None:
        """Add an attempt that is no function."""
        self.attempts.append(Attempt(name, self.group, tries, **more))

    def model(
        self, *expected: str, at: str = "load", static: str | None = "import_not_allowed", **more: Any
    ) -> Callable[[Callable[..., object]], Callable[..., object]]:
        """A function of the facts that tries something; its docstring says what."""

        def take(function: Callable[..., object]) -> Callable[..., object]:
            self.add(
                function.__name__,
                _sentence(function),
                expected=expected or ("denied",),
                static=static,
                code=attempt_code(function, at),
                **more,
            )
            return function

        return take

    def answer(
        self, *expected: str, static: str | None = None, **more: Any
    ) -> Callable[[Callable[..., object]], Callable[..., object]]:
        """A function of (model, batch) that returns the answer; its docstring says what is wrong with it."""

        def take(function: Callable[..., object]) -> Callable[..., object]:
            more.setdefault("plain", expected)
            self.add(
                function.__name__,
                _sentence(function),
                expected=expected,
                static=static,
                code=answer_code(function),
                **more,
            )
            return function

        return take


def _sentence(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().rstrip(".")


def tables(modules: list[ModuleType]) -> Iterator[Attempt]:
    """Every attempt of the modules' tables, in order."""
    for module in modules:
        yield from module.TABLE.attempts
