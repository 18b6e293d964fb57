"""The guide's commands, block by block, as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gas.chain.lab.scenario import shipped_scenarios
from gas.cli.main import main

ROOT = Path(__file__).parents[2]


def blocks() -> list[list[str]]:
    text = (ROOT / "docs" / "chain.md").read_text(encoding="utf-8")
    return [found.splitlines() for found in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


def play(lines: list[str], names: dict[str, str]) -> None:
    for line in lines:
        words = [names.get(word, word) for word in shlex.split(line)]
        assert words[0] == "gascli"
        try:
            main(words[1:])
        except SystemExit as end:
            assert not end.code, line


def test_the_guides_blocks_can_be_played_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    names = {"HOME": str(tmp_path / "home"), "THERE": str(tmp_path / "there")}
    minute, by_hand, start, elsewhere, afar, live, wallets, rules, reveal, *_ = blocks()
    play(minute, names)
    play(by_hand, names)
    assert start == ["gascli chain start --root owner --home HOME"]
    words = [names.get(word, word) for word in shlex.split(start[0])][1:]
    process = subprocess.Popen(
        [sys.executable, "-m", "gas.cli.main", *words, "--listen", "127.0.0.1:0", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        names["ws://127.0.0.1:9944"] = json.loads(process.stdout.readline())["endpoint"]
        play(elsewhere[:1], names)
        capsys.readouterr()
        play(["gascli wallet show miner --home THERE --json"], names)
        coldkey = json.loads(capsys.readouterr().out)["coldkey"]
        play([f"gascli chain faucet 10 --to {coldkey} --root owner --home HOME"], names)
        play(elsewhere[1:], names)
        play(["gascli chain pause --home HOME"], names)
        play(afar, names)
    finally:
        process.terminate()
        assert process.wait(30) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert "finney" in live[0]
    play(wallets, names)
    play(rules, names)
    for line in ("advance 100", "weights 0=1 --wallet-name validator", "advance 360"):
        play([f"gascli chain {line} --home HOME"], names)
    capsys.readouterr()
    play(reveal, names)
    assert capsys.readouterr().out == "1 weights are revealed.\n"


def test_the_guides_laboratory_can_be_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    first, own = blocks()[-2:]
    play([line if "--list" in line else f"{line} --epochs 3" for line in first], {})
    assert "<svg" in (tmp_path / "copier.html").read_text()
    capsys.readouterr()
    play(own[:1], {})
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    play([f"{own[1]} --epochs 3"], {})
    listed = set(shipped_scenarios())
    table = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "chain.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed <= set(table)
