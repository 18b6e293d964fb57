"""Code that hides from the static check what it does; behind the check's back it meets the sandbox.

Each reaches ``os`` by a detour, and then tries to read a file of the host and to fork.
"""

from __future__ import annotations

import textwrap

from models.table import Table, text_code

TABLE = Table("evasions")

_TRY = """

def attack(facts):
    reached = reach()
    try:
        if reached.fork() == 0:
            reached._exit(0)
    except OSError:
        pass
    else:
        return True
    return reached.listdir("/root") or reached.open(facts["secret"], 0)
"""

_REACH: dict[str, tuple[str, str, str]] = {
    "hides_behind_an_alias": (
        "Rename a module, and one that it hands on",
        "name_not_allowed",
        'import dataclasses as d\n\ndef reach():\n    return d.sys.modules["os"]',
    ),
    "imports_everything": (
        "Import by a star",
        "star_import",
        "from os import *\nimport os as o\n\ndef reach(): return o",
    ),
    "imports_in_nested_functions": (
        "Import in a function within functions",
        "import_not_allowed",
        "def reach():\n    def a():\n        def b():\n            import os\n            return os\n        return b\n"
        "    return a()()",
    ),
    "builds_a_name_by_sums": (
        "Put the attribute's name together by a sum",
        "name_refused",
        'import dataclasses\n\ndef reach():\n    return getattr(dataclasses, "s" + "ys").modules["o" + "s"]',
    ),
    "builds_a_name_of_numbers": (
        "Put the attribute's name together of character codes",
        "name_refused",
        "import dataclasses\n\ndef reach():\n    name = ''.join(map(chr, (115, 121, 115)))\n"
        "    return getattr(dataclasses, name).modules['os']",
    ),
    "builds_a_name_by_turning_it": (
        "Turn the attribute's name around",
        "name_refused",
        'import dataclasses\n\ndef reach():\n    return getattr(dataclasses, "sys"[::-1][::-1]).modules["os"]',
    ),
    "reduces_over_getattr": (
        "Walk along names by functools.reduce",
        "name_refused",
        "import dataclasses\nimport functools\n\n"
        'def reach():\n    return functools.reduce(getattr, ["sys", "modules"], dataclasses)["os"]',
    ),
    "decorates_with_an_importer": (
        "Let a decorator do the work",
        "dunder",
        '@(lambda f: __import__("os"))\ndef found(): ...\n\ndef reach():\n    return found',
    ),
    "walks_the_classes": (
        "Walk from a tuple to all classes and their globals",
        "dunder",
        "def reach():\n    for c in ().__class__.__base__.__subclasses__():\n"
        '        if c.__name__ == "_wrap_close":\n            return __import__("types").SimpleNamespace('
        "**{k: v for k, v in c.__init__.__globals__.items() if k[:1] != '_'})",
    ),
    "walks_the_globals_of_a_function": (
        "Take the globals of a library's function",
        "dunder",
        'import functools\n\ndef reach():\n    return functools.wraps.__globals__["__builtins__"]["__import__"]("os")',
    ),
    "writes_in_wide_letters": (
        "Write a name in letters that Python folds into plain ones",
        "name_not_allowed",
        'import dataclasses\n\ndef reach():\n    return dataclasses.\uff53\uff59\uff53.modules["os"]',
    ),
    "writes_eval_in_mathematical_letters": (
        "Write eval in mathematical letters",
        "name_refused",
        "def reach():\n    return \U0001d41e\U0001d42f\U0001d41a\U0001d425(\"__import__('os')\")",
    ),
    "writes_a_look_alike": (
        "Bind a name that looks like a harmless one (Cyrillic letters)",
        "dunder",
        't\u043erch = __import__("os")\n\ndef reach():\n    return t\u043erch',
    ),
    "climbs_a_generators_frame": (
        "Climb from a generator's frame to its caller's built-ins",
        "attribute_refused",
        "def reach():\n    def g():\n        yield it.gi_frame.f_back.f_builtins\n    it = g()\n"
        '    return next(it)["__import__"]("os")',
    ),
    "climbs_an_errors_traceback": (
        "Climb from an error's traceback",
        "dunder",
        "def reach():\n    try:\n        1 / 0\n    except ZeroDivisionError as e:\n"
        '        return e.__traceback__.tb_frame.f_builtins["__import__"]("os")',
    ),
    "matches_a_pattern": (
        "Read an attribute by a class pattern",
        "attribute_refused",
        "import dataclasses\n\ndef reach():\n    match dataclasses:\n        case object(sys=s):\n"
        '            return s.modules["os"]',
    ),
    "evaluates_in_an_fstring": (
        "Evaluate within an f-string",
        "name_refused",
        "def reach():\n    f\"{(found := eval('__import__(chr(111) + chr(115))'))}\"\n    return found",
    ),
    "evaluates_an_annotation": (
        "Have an annotation evaluated",
        "import_not_allowed",
        "import typing\n\ndef f(x: \"__import__('os')\"): ...\n\n"
        'def reach():\n    return typing.ForwardRef("1") and eval(f.__annotations__["x"])\n\n'
        "from typing import get_type_hints",
    ),
    "asks_the_modules_loader": (
        "Ask the loader of its own module",
        "dunder",
        'def reach():\n    return __spec__.loader.__init__.__globals__["_os"] and __import__("os")',
    ),
    "opens_the_table_of_built_ins": (
        "Take a function out of the table of built-ins",
        "dunder",
        "def reach():\n    table = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)\n"
        '    return table["__imp" + "ort__"]("os")',
    ),
    "makes_a_class_by_type": (
        "Make a class whose creation runs its code",
        "dunder",
        'class M(type):\n    def __new__(m, n, b, d):\n        return __import__("os")\n\n'
        'def reach():\n    return M("X", (), {})',
    ),
    "hides_in_a_class_body": (
        "Work in the body of a class",
        "dunder",
        'class Settings:\n    layers = __import__("os")\n\ndef reach():\n    return Settings.layers',
    ),
    "hides_in_a_default": (
        "Work in the default of a parameter of a lambda",
        "dunder",
        'def reach(f=(lambda m=__import__("os"): m)):\n    return f()',
    ),
    "compiles_text": (
        "Compile a text and run it",
        "name_refused",
        'def reach():\n    names = {}\n    exec(compile("import os", "x", "exec"), names)\n    return names["os"]',
    ),
    "defines_the_modules_getattr": (
        "Define __getattr__ of the module",
        "dunder",
        'def __getattr__(name):\n    return __import__("os")\n\ndef reach():\n    return __getattr__("x")',
    ),
    "unpacks_into_getattr": (
        "Hand getattr its arguments by a star",
        "name_refused",
        'import dataclasses\n\ndef reach():\n    return getattr(*[dataclasses, "sys"]).modules["os"]',
    ),
}
for _name, (_tries, _code, _body) in _REACH.items():
    TABLE.add(
        _name,
        _tries,
        static=_code,
        expected=("denied",),
        code=text_code(textwrap.dedent(_body) + _TRY),
    )

_DEEP: dict[str, tuple[str, str, str]] = {
    "nests_brackets": ("Nest a hundred thousand brackets", "syntax_error", "x = " + "(" * 100_000 + ")" * 100_000),
    "nests_signs": ("Put a hundred thousand signs before a number", "syntax_error", "x = " + "-" * 100_000 + "1"),
    "adds_without_end": ("Add a hundred thousand numbers", "syntax_error", "x = " + "1+" * 99_999 + "1"),
    "nests_blocks": (
        "Nest a hundred blocks",
        "syntax_error",
        "".join(" " * i + "if 1:\n" for i in range(100)) + " " * 100 + "pass",
    ),
    "chains_attributes": ("Chain sixty thousand attributes", "syntax_error", "x = (1)" + ".real" * 40_000),
    "chains_calls": ("Chain a hundred thousand calls", "syntax_error", "x = print" + "()" * 100_000),
    "nests_lambdas": ("Nest ten thousand functions", "syntax_error", "x = " + "lambda: " * 10_000 + "1"),
    "lists_without_end": ("List two hundred thousand names", "code_too_large", "x = [" + "a," * 120_000 + "]"),
}
for _name, (_tries, _code, _body) in _DEEP.items():
    TABLE.add(
        _name,
        _tries,
        static=_code,
        # Behind the check's back the sandbox's Python refuses it too, or it is only a large number.
        expected=("load_failed", "denied", "timeout", "out_of_memory"),
        code=text_code(_body + "\n\ndef attack(facts):\n    return False\n"),
    )
