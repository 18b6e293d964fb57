"""The documents say what is true: their commands exist, their examples run, their links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gas.cli.gasbench import COMMANDS as GASBENCH
from gas.cli.main import COMMANDS, Lazy, find, load, main
from gas.cli.score import ROWS
from gas.scoring.sn34 import sn34_score

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
OTHERS_OPTIONS = {
    *("--help", "--no-system-deps", "--torch-index", "--check", "--strict", "--evaluate"),
    *("--no-deps", "--require-hashes", "--unshare-user", "--uid"),
    *("--challenges", "--quick", "--second", "--seconds", "--cast", "--no-kills"),
    *("--rows", "--memory", "--no-extra"),
    *("--fast", "--jobs", "--resume", "--without-groups", "--spares", "--rung", "--only"),
}
"""Options in the documents that are not gascli's."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(document: Path, language: str = "sh") -> list[list[str]]:
    """The lines of each fenced block, comments and empty lines left out."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [
        [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
        for name, block in found
        if name == language
    ]


def commands() -> Iterator[Any]:
    """Every call of gascli: in blocks with all its arguments, in running text often without; each once a document."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for line in (line for block in blocks(document) for line in block if "gascli " in line):
            words = shlex.split(line[line.index("gascli ") :], comments=True)
            yield pytest.param(words[1:], True, id=f"{named(document)}: {' '.join(words)}")
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for span in sorted(set(re.findall(r"`([^`\n]+)`", prose))):
            words = span.split()
            if words[0].endswith("gascli") and len(words) > 1:
                yield pytest.param(words[1:], False, id=f"{named(document)}: {span}")


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The click command that the words name, and the words that are left for it."""
    import typer.main

    table: dict[str, Lazy] = COMMANDS
    for at, word in enumerate(words):
        found = find(table, word)
        assert found, f"gascli has no command {' '.join(words[: at + 1])}"
        name, lazy = found
        if lazy.commands is not None:
            table = lazy.commands
            continue
        command: Any = typer.main.get_command(load(name, lazy))
        rest = words[at + 1 :]
        while hasattr(command, "commands"):
            if not rest or rest[0].startswith("-"):
                return command, rest
            assert rest[0] in command.commands, f"gascli {' '.join(words)}: there is no command {rest[0]}"
            command, rest = command.commands[rest[0]], rest[1:]
        return command, rest
    return None, []


@pytest.mark.parametrize(("words", "whole"), commands())
def test_a_documented_command_exists_with_its_options(words: list[str], whole: bool) -> None:
    if words[0] in ("--help", "--version"):
        return
    command, rest = command_of(words)
    if command is None:
        return
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert given <= known | {"--help"}, f"unknown: {given - known}"
    if whole:
        # Parses all of it: types, required arguments, surplus words; runs nothing.
        command.make_context(" ".join(words), list(rest))


def test_an_option_that_is_mentioned_belongs_to_some_command() -> None:
    def walk(table: dict[str, Lazy]) -> Iterator[str]:
        for name, lazy in table.items():
            if lazy.commands is not None:
                yield from walk(lazy.commands)
            else:
                yield from options(typer_command(name, lazy))

    def typer_command(name: str, lazy: Lazy) -> Any:
        import typer.main

        return typer.main.get_command(load(name, lazy))

    def options(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        for inner in getattr(command, "commands", {}).values():
            yield from options(inner)

    known = set(walk(COMMANDS)) | set(walk(GASBENCH)) | OTHERS_OPTIONS
    for document in DOCUMENTS:
        spans = re.findall(r"`([^`\n]+)`", document.read_text(encoding="utf-8"))
        mentioned = {word for span in spans for word in re.findall(r"(?<!\S)--[a-z][a-z-]+", span)}
        assert mentioned <= known, f"{named(document)}: {mentioned - known}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_link_inside_the_repository_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_paths_in_the_documents_exist() -> None:
    for document in DOCUMENTS:
        for path in re.findall(
            r"`((?:src|tests|docs|examples|benchmarks|training|gas)/[\w./-]+)`", document.read_text(encoding="utf-8")
        ):
            assert any((root / path).exists() for root in (ROOT, ROOT / "src")), f"{named(document)}: {path}"


def test_contributing_names_every_module_and_no_other() -> None:
    listed: dict[str, set[str]] = {}
    package = ""
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Every module")[2].splitlines():
        if match := re.fullmatch(r"`gas\.?(\w*)`", line):
            package = match[1]
        elif match := re.match(r"- `([\w/]+\.py)`: \S", line):
            listed.setdefault(package, set()).add(match[1])
    found: dict[str, set[str]] = {}
    for path in (ROOT / "src" / "gas").rglob("*.py"):
        parts = path.relative_to(ROOT / "src" / "gas").parts
        # Packages of detectors are the demo's data.
        if path.name != "__init__.py" and "packages" not in parts[:-1]:
            package, rest = ("", parts) if len(parts) == 1 else (parts[0], parts[1:])
            found.setdefault(package, set()).add("/".join(rest))
    assert listed == found


def test_the_readme_shows_every_package() -> None:
    tree = blocks(ROOT / "README.md", "")[0]
    shown = {line.split()[0].rstrip("/") for line in tree if line.startswith("  ") and line.split()[0].endswith("/")}
    packages = {path.parent.name for path in (ROOT / "src" / "gas").glob("*/__init__.py")}
    assert shown == packages


def test_decisions_are_numbered_one_by_one() -> None:
    names = [path.name for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert [int(name[:3]) for name in names] == list(range(1, len(names) + 1))


def test_the_picture_of_the_round_is_self_contained() -> None:
    text = (ROOT / "docs" / "round.svg").read_text(encoding="utf-8")
    picture = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{space}title") is not None
    assert picture.find(f"{space}desc") is not None
    assert not re.search(r"<script|<image|href=|@import|url\((?!#)", text)


# ---- scoring.md


def test_scoring_explains_every_metric_under_its_json_key() -> None:
    text = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    for key in [key for key, *_ in ROWS] + ["sn34_ci95", "unscored"]:
        assert f"`{key}`" in text, key


def test_worked_examples_of_the_score_come_out_as_printed() -> None:
    text = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([01], [01, ]+) \| ([.\d, ]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 3
    for labels, p_fake, *expected in rows:
        score = sn34_score([int(v) for v in labels.split(",")], [float(v) for v in p_fake.split(",")])
        assert [score.mcc, score.brier, score.value] == pytest.approx([float(v) for v in expected], abs=5e-5)


def test_the_example_predictions_can_be_scored(capsys: pytest.CaptureFixture[str]) -> None:
    run(["score", str(EXAMPLES / "predictions.csv"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 60
    assert 0 < found["sn34_ci95"][0] < found["sn34_score"] < found["sn34_ci95"][1] < 1


# ---- chain.md


def test_the_example_epochs_end_as_the_guide_says(capsys: pytest.CaptureFixture[str]) -> None:
    run(["chain", "epoch", "--input", str(EXAMPLES / "epoch.json"), "--json"])
    minority, majority = (case["outputs"] for case in json.loads(capsys.readouterr().out)["cases"])
    assert minority["incentive"][5] == minority["dividends"][2] == 0
    assert minority["incentive"][3] > minority["incentive"][4] > 0
    assert majority["incentive"][5] == majority["dividends"][2] == 65535


def test_the_ledger_of_the_guide_can_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guide = next(block for block in blocks(ROOT / "docs" / "chain.md") if "chain found" in " ".join(block))
    play(guide, tmp_path / "home", capsys)
    capsys.readouterr()
    run(["chain", "status", "--json", "--home", str(tmp_path / "home")])
    found = json.loads(capsys.readouterr().out)
    assert found["epochs"] == 1
    assert [neuron["permit"] for neuron in found["neurons"]][1]


# ---- detector-author.md, arena-owner.md


def test_the_scaffold_of_the_guide_passes_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    guide = next(block for block in blocks(ROOT / "docs" / "detector-author.md") if "d init" in block[0])
    play(guide, tmp_path / "home", capsys)
    assert "my-detector is clean" in capsys.readouterr().out


def test_the_arena_of_the_guide_opens_and_closes_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    from gas.datasets.plan import read_round

    monkeypatch.chdir(tmp_path)
    pictures(tmp_path)
    home = tmp_path / "home"
    guide = ROOT / "docs" / "arena-owner.md"
    home.mkdir()
    rules = re.search(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert rules
    (home / "competitions.yaml").write_text(rules[1])
    # What serves runs for ever, what draws needs data sets that are fetched, and nobody has a receipt yet.
    elsewhere = ("arena serve", "arena worker", "arena round open", "receipt")
    for block in blocks(guide):
        play([line for line in block if not any(words in line for words in elsewhere)], home, capsys)
    printed = capsys.readouterr().out
    assert "is closed. Winner: nobody." in printed
    assert "split_leak" not in printed
    round_ = read_round(tmp_path / "round-1")
    assert {str(sample.provenance) for sample in round_.samples} == {"public", "holdout"}
    photo_of = {s.origin: s.provenance for s in round_.samples if s.media_type == "real"}
    assert all(photo_of.get(s.origin, s.provenance) == s.provenance for s in round_.samples)


def test_an_example_says_in_one_sentence_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        "freeze_round": ["--real", str(tmp_path), "--fake", str(tmp_path), "--out", str(tmp_path / "out")],
    }
    for name, arguments in asked.items():
        assert example(name, arguments) == 1
        errors = capsys.readouterr().err
        assert errors.startswith(f"{name}: ")
        assert errors.count("\n") == 1


def pictures(folder: Path) -> None:
    """Small real and fake pictures, by the guide's folder names."""
    from gas.media.image import encode_jpeg, encode_png

    rng = np.random.default_rng(1)
    for kind in ("photos", "generated/blur"):
        (folder / kind).mkdir(parents=True)
    for number in range(60):
        noise = rng.integers(0, 255, (160, 200, 3), dtype=np.uint8)
        (folder / "photos" / f"{number:02}.jpg").write_bytes(encode_jpeg(noise, 90))
        (folder / "generated/blur" / f"{number:02}.png").write_bytes(encode_png(noise // 2 + 60))


def play(lines: list[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the lines of a block in this process; HOME becomes ``home``."""
    for line in lines:
        words = [str(home) if word == "HOME" else word for word in shlex.split(line, comments=True)]
        if words[0] == "gascli":
            run(words[1:])
        else:
            assert words[0] == "python"
            assert example(Path(words[1]).stem, words[2:]) == 0, capsys.readouterr().err


def run(arguments: list[str]) -> None:
    """Call gascli; its exit status must be 0."""
    try:
        main(arguments)
    except SystemExit as ended:
        assert not ended.code, f"gascli {' '.join(arguments)} ended with {ended.code}"


def example(name: str, arguments: list[str]) -> int:
    """Run a script of ``examples/``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [f"{name}.py", *arguments])
        return int(module_of(name).main())


def module_of(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
