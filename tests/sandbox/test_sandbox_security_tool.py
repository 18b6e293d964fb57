"""The command behind ``make security``: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "security.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOL, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_the_table_has_a_line_for_each_rung_and_a_verdict() -> None:
    done = run("--only", "never_ends", "--rung", "check", "--rung", "plain")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["never_ends", "passes", "check"],
        ["never_ends", "passes", "PLAIN"],
    ]
    assert "timeout" in lines[2]
    assert "1 attempts, 2 runs, all contained" in lines[-1]


def test_the_json_names_what_each_attempt_tries() -> None:
    done = run("--only", "zip_overlapping_entries", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(r["name"], r["outcome"], r["code"]) for r in report["results"]] == [
        ("zip_overlapping_entries", "refused", "overlapping_entries")
    ]
    assert report["summary"]["not_contained"] == 0


def test_an_attempt_that_is_not_in_the_table_is_an_error() -> None:
    done = run("--only", "nothing_of_the_kind")
    assert done.returncode == 2
    assert "nothing_of_the_kind" in done.stderr


@pytest.mark.parametrize("contained", [True, False])
def test_the_exit_code_tells_of_a_hole(contained: bool) -> None:
    program = (
        "import sys; sys.argv = ['security', '--only', 'forks', '--rung', 'check']\n"
        f"sys.path.insert(0, {str(TOOL.parent)!r})\n"
        "import dataclasses, security\n"
        "real = security.static_check\n"
        f"security.static_check = lambda attempt: dataclasses.replace(real(attempt), contained={contained})\n"
        "sys.exit(security.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (0 if contained else 1), done.stderr
    assert ("NOT CONTAINED" in done.stdout) is not contained
