"""Every module says what it offers, and offers it; importing does nothing else."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import threading

import pytest

import gas

# What runs inside the sandbox, and the database's migrations, are programs and not modules to import.
_PROGRAMS = ("gas.sandbox.inside", "gas.storage.migrations", "gas.cli.demo.packages")
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(gas.__path__, "gas.")
    if not info.name.startswith(_PROGRAMS) and not info.ispkg
)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_declares_names_that_it_has(name: str) -> None:
    before = threading.active_count()
    module = importlib.import_module(name)
    declared = module.__all__
    assert sorted(set(declared)) == sorted(declared), "a name stands twice"
    assert all(hasattr(module, wanted) for wanted in declared)
    assert threading.active_count() == before


def test_the_command_line_starts_without_heavy_packages() -> None:
    code = (
        "import sys; from gas.cli.main import main; main(['--help']); main(['d', '--help']); "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'cv2', 'numpy', 'typer', 'rich', 'sqlalchemy', 'pydantic', 'onnx', 'fastapi', 'dbos'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_names_itself_and_exits_with_2() -> None:
    done = subprocess.run([sys.executable, "-m", "gas.cli.main", "fly"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'fly'" in done.stderr


@pytest.mark.parametrize("alias", ["d", "discriminator", "g", "gen", "generator", "v", "vali", "validator"])
def test_groups_answer_to_their_aliases(alias: str, capsys: pytest.CaptureFixture[str]) -> None:
    from gas.cli.main import main

    main([alias, "--help"])
    assert f"gascli {alias} COMMAND" in capsys.readouterr().out
