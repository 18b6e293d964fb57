import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gas.cli.chain_epoch import epoch
from gas.errors import ConfigurationError

VECTORS = Path(__file__).parents[1] / "scoring" / "data" / "yuma_vectors.json"

app = typer.Typer()
app.command()(epoch)


def run(tmp_path, text, *options):
    file = tmp_path / "epoch.json"
    file.write_text(text)
    return CliRunner().invoke(app, ["--input", str(file), *options])


def test_golden_vectors_come_out_of_the_command():
    result = CliRunner().invoke(app, ["--input", str(VECTORS), "--json"])
    assert result.exit_code == 0
    found, expected = json.loads(result.stdout)["cases"], json.loads(VECTORS.read_text())["cases"]
    assert len(found) == len(expected) == 24
    for one, other in zip(found, expected, strict=True):
        assert one == {"outputs": other["outputs"]}


def test_people_get_a_table_a_case(tmp_path):
    case = json.loads(VECTORS.read_text())["cases"][0]
    result = run(tmp_path, json.dumps({"cases": [case, case]}))
    assert result.exit_code == 0
    assert "case 1" in result.stdout and "case 2" in result.stdout and "23125" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "cases"),
        ('{"cases": {}}', "cases"),
        ('{"cases": [{}]}', "case 1"),
        ('{"cases": [{"inputs": 3}]}', "case 1"),
        ('{"cases": [{"inputs": {}}]}', "case 1: Epoch input 'n' is missing"),
    ],
)
def test_wrong_file_says_what_is_wrong(tmp_path, text, message):
    result = run(tmp_path, text, "--json")
    assert isinstance(result.exception, ConfigurationError)
    assert message in str(result.exception)


def test_wrong_field_is_named_with_its_case(tmp_path):
    cases = json.loads(VECTORS.read_text())["cases"][:2]
    cases[1]["inputs"]["kappa"] = "half"
    result = run(tmp_path, json.dumps({"cases": cases}))
    assert "case 2: Epoch input 'kappa' must be an integer" in str(result.exception)
    assert isinstance(CliRunner().invoke(app, ["--input", str(tmp_path / "none.json")]).exception, ConfigurationError)
