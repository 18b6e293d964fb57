"""Renew the list of modules at the end of CONTRIBUTING.md from the modules' first sentences.

Run it after adding, removing or renaming a module: ``python tools/module_list.py``. With ``--check`` it changes
nothing and ends with 1 when the list is out of date.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "CONTRIBUTING.md"
HEADING = "## Every module\n"
FLOORS = (
    "media scoring",
    "storage chain",
    "protocol submissions sandbox datasets",
    "generation verification bench",
    "arena validator miners serving",
    "web cli",
)
PACKAGES = " ".join(FLOORS).split()


def first_sentence(path: Path) -> str:
    """What a module says of itself, in one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    line = " ".join(text.partition("\n\n")[0].split())
    line = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", line).replace("``", "`")
    return re.split(r"(?<=[.?])\s(?=[A-Z])", line)[0]


def section() -> str:
    """The whole list as Markdown."""
    source = ROOT / "src" / "gas"
    parts = [("gas", sorted(source.glob("*.py")), source)]
    parts += [(f"gas.{name}", sorted((source / name).rglob("*.py")), source / name) for name in PACKAGES]
    out = []
    for name, files, base in parts:
        rows = [
            f"- `{file.relative_to(base).as_posix()}`: {first_sentence(file)}"
            for file in files
            if file.name != "__init__.py"
        ]
        out.append(f"`{name}`\n\n" + "\n".join(rows) + "\n")
    return "\n".join(out)


def main() -> int:
    """Write or check; returns the exit code."""
    text = GUIDE.read_text(encoding="utf-8")
    head, _, _ = text.partition(HEADING)
    renewed = f"{head}{HEADING}\n{section()}"
    if "--check" in sys.argv[1:]:
        return int(renewed != text)
    GUIDE.write_text(renewed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
