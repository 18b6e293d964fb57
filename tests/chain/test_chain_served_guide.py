"""The guide's commands, block by block, as they are printed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
    minute, by_hand, start, elsewhere, afar, live, wallets, *_ = blocks()
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
