"""The command behind ``make security``: what it prints, its exit codes, and how it goes on after an interruption."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from models.crew import Crew, Order, units
from models.suite import CHECK, PLAIN, USER

TOOL = Path(__file__).parents[2] / "tools" / "security.py"


@dataclass
class Done:
    """How a call of the command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def security() -> ModuleType:
    spec = importlib.util.spec_from_file_location("security_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(security: ModuleType, capsys: Any, monkeypatch: Any) -> Callable[..., Done]:
    """Calls the command in this process, which has imported everything already."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr("sys.argv", [str(TOOL), "--jobs", "1", *arguments])
        try:
            code = security.main()
        except SystemExit as ended:
            code = ended.code
        return Done(code, *capsys.readouterr())

    return call


def test_the_table_has_a_line_for_each_rung_and_a_verdict(run: Callable[..., Done]) -> None:
    done = run("--only", "never_ends", "--rung", "check", "--rung", "plain")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["never_ends", "passes", "check"],
        ["never_ends", "passes", "PLAIN"],
    ]
    assert "timeout" in lines[2]
    assert lines[-2].split()[:4] == ["PLAIN", "1", "of", "1"]
    assert "1 attempts, 2 runs, all contained" in lines[-1]
    assert "2 of 2 runs, 100%, 0 s left, PLAIN" in done.err


def test_the_json_names_what_each_attempt_tries() -> None:
    command = [sys.executable, TOOL, "--only", "zip_overlapping_entries", "--rung", "check", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(r["name"], r["outcome"], r["code"], r["group"]) for r in report["results"]] == [
        ("zip_overlapping_entries", "refused", "overlapping_entries", "packages")
    ]
    assert report["summary"]["not_contained"] == 0
    assert report["summary"]["rungs"][CHECK]["contained"] == 1


def test_an_attempt_that_is_not_in_the_table_is_an_error(run: Callable[..., Done]) -> None:
    done = run("--only", "nothing_of_the_kind")
    assert done.code == 2
    assert "nothing_of_the_kind" in done.err


@pytest.fixture
def leaky(security: ModuleType, monkeypatch: Any) -> None:
    """Everything gets through."""

    def every(crew: Crew, order: Order, work: Any, tell: Callable[..., None]) -> None:
        for (name,) in work:
            tell([name], [{"name": name, "rung": order.rung, "outcome": "GOT THROUGH", "contained": False}], "")

    monkeypatch.setattr(security.Crew, "run", every)


@pytest.mark.usefixtures("leaky")
def test_the_exit_code_tells_of_a_hole(run: Callable[..., Done]) -> None:
    done = run("--only", "forks", "--rung", "check")
    assert done.code == 1
    assert "NOT CONTAINED: forks on check: GOT THROUGH" in done.out
    assert "1 NOT CONTAINED" in done.out.splitlines()[-1]


@pytest.mark.usefixtures("leaky")
def test_the_exit_code_tells_of_a_rung_that_is_not_here(
    run: Callable[..., Done], security: ModuleType, monkeypatch: Any
) -> None:
    monkeypatch.setattr(security, "find", lambda rung: None)
    monkeypatch.setattr(security, "here", lambda *found: {PLAIN: "", USER: "there is no bubblewrap"})
    done = run("--only", "forks", "--rung", "user")
    assert done.code == 3
    assert "not here: there is no bubblewrap" in done.out


def test_what_was_contained_is_not_run_again_and_what_was_not_is(run: Callable[..., Done], tmp_path: Path) -> None:
    record = tmp_path / "record"
    arguments = ("--rung", "check", "--only", "forks", "--only", "listens", "--json", "--resume", str(record))
    assert run(*arguments).code == 0
    first, *kept = record.read_text(encoding="utf-8").splitlines()
    told = {one["name"]: one for one in map(json.loads, kept)}
    told["forks"]["seconds"] = 1234.5
    told["listens"] |= {"seconds": 1234.5, "contained": False}
    broken = json.dumps(told["forks"])[:-20]
    record.write_text("\n".join([first, *map(json.dumps, told.values()), broken]), encoding="utf-8")
    again = run(*arguments)
    assert again.code == 0, again.err
    seconds = {one["name"]: one["seconds"] for one in json.loads(again.out)["results"]}
    assert seconds["forks"] == 1234.5
    assert seconds["listens"] < 1234
    assert run(*arguments, "--spares").code == 2, "another way to run them"


def test_an_attempt_that_ends_the_suite_s_own_process_is_told_and_the_next_one_runs() -> None:
    seen: list[tuple[str, bool, str]] = []
    with Crew() as crew:

        def tell(names: list[str], results: list[dict[str, Any]], trouble: str) -> None:
            seen.append((names[0], bool(results), trouble))
            if len(seen) == 1:
                crew._idle[False][0]._process.kill()

        crew.run(Order(CHECK), units(["forks", "listens", "sniffs_packets"], []), tell)
    assert [(name, answered) for name, answered, _ in seen] == [
        ("forks", True),
        ("listens", False),
        ("sniffs_packets", True),
    ]
    assert "ended with code -9" in seen[1][2]


def test_only_those_that_may_share_a_process_are_put_together() -> None:
    assert units(["a", "b", "c"], ["a", "c"]) == [["a", "c"], ["b"]]
    assert units(["a", "b"], ["a"]) == [["a"], ["b"]]
