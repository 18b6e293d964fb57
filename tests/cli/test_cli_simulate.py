from __future__ import annotations

import csv
import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from gas.cli.chain_simulate import simulate

app = typer.Typer()
app.command()(simulate)


def test_the_shipped_scenarios_are_listed() -> None:
    result = CliRunner().invoke(app, ["--list", "--json"])
    assert result.exit_code == 0
    assert {"honest", "lazy", "copier", "cartel", "sybils", "self-vote"} <= set(json.loads(result.stdout)["scenarios"])


def test_a_shipped_scenario_can_be_printed_changed_and_played(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["honest", "--show"])
    mine = tmp_path / "mine.yaml"
    mine.write_text(shown.stdout.replace("count: 4", "count: 2"), encoding="utf-8")
    result = CliRunner().invoke(app, [str(mine), "--epochs", "5", "--json"])
    assert result.exit_code == 0, result.output
    groups = json.loads(result.stdout)["groups"]
    assert groups["good"]["neurons"] == 2
    assert len(groups["large"]["yield"]) == 5


def test_a_run_writes_a_page_without_scripts_and_a_table(tmp_path: Path) -> None:
    page, table = tmp_path / "lab.html", tmp_path / "lab.csv"
    result = CliRunner().invoke(app, ["self-vote", "--epochs", "8", "--html", str(page), "--csv", str(table)])
    assert result.exit_code == 0, result.output
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") >= 4
    assert "<script" not in text
    assert "http" not in text.split("</style>")[1].replace("http-equiv", "")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 8 * 4
    assert {row["group"] for row in rows} == {"honest", "selfish", "working", "own"}
