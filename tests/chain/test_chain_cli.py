"""``gascli wallet`` and ``gascli chain`` on a home of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gas.cli.main import main

Run = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str, home: bool = True) -> tuple[int, dict[str, object]]:
        status = 0
        try:
            main([*words, *(["--home", str(tmp_path)] if home else []), "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
        out = capsys.readouterr().out
        return status, json.loads(out) if out.strip() else {}

    return call


def test_a_network_can_be_played_from_the_command_line(run: Run) -> None:
    assert run("wallet", "new", "root", "--no-password")[0] == 0
    _, ann = run("wallet", "new", "ann", "--no-password")
    assert run("chain", "found", "--root", "root", "--manual")[0] == 0
    status, again = run("chain", "found", "--root", "root", "--manual")
    assert (status, again["error"]["code"]) == (2, "ledger_exists")
    assert run("chain", "faucet", "100", "--to", "ann", "--root", "root") == (0, {"balance": 100 * 10**9})
    status, refused = run("chain", "faucet", "100", "--to", "ann", "--root", "ann")
    assert (status, refused["error"]["code"]) == (1, "not_root")
    assert run("chain", "register", "--wallet", "ann") == (0, {"uid": 1})
    assert run("chain", "stake", "12.5", "--wallet", "ann") == (0, {"stake": 12_500_000_000})
    assert run("chain", "stake", "2.5", "--remove", "--wallet", "ann") == (0, {"stake": 10_000_000_000})
    assert run("chain", "advance", "360") == (0, {"block": 360})
    status, weights = run("chain", "weights", "0=1", "1=3", "--wallet", "ann")
    assert weights == {"weights": {"1": {"0": 21845, "1": 65535}}}
    hotkey = ann["hotkeys"]["default"]
    status, committed = run("chain", "commit", "hello", "--wallet", "ann")
    assert committed["commitment"] == {"hotkey": hotkey, "data": "hello", "block": 360}
    assert run("chain", "commit", "--address", hotkey)[1] == committed
    status, state = run("chain", "status")
    assert (state["block"], state["epochs"], state["next_epoch"]) == (360, 1, 720)
    totals = state["totals"]
    assert totals["balances"] + totals["staked"] + totals["burned"] == totals["issued"]
    assert state["neurons"][1]["permit"] is True


@pytest.mark.parametrize("amount", ["0", "-1", "x", "1e-10", "nan", "inf", ""])
def test_an_amount_that_is_none_is_wrong_usage(
    run: Run, amount: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("wallet", "new", "ann", "--no-password")
    with pytest.raises(SystemExit) as end:
        main(["chain", "stake", "--wallet", "ann", "--home", str(tmp_path), "--json", "--", amount])
    assert end.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "configuration"


def test_a_text_is_signed_and_verified(run: Run) -> None:
    run("wallet", "new", "ann", "--no-password")
    _, signed = run("wallet", "sign", "ann", "hello")
    address, signature = str(signed["address"]), str(signed["signature"])
    assert run("wallet", "verify", address, signature, "hello", home=False) == (0, {"valid": True})
    assert run("wallet", "verify", address, signature, "other", home=False) == (1, {"valid": False})
    assert run("wallet", "verify", address, "0xzz", "hello", home=False) == (1, {"valid": False})


def test_a_second_hotkey_is_added_and_the_list_shows_both(run: Run) -> None:
    run("wallet", "new", "ann", "--no-password")
    _, added = run("wallet", "new", "ann", "--hotkey", "second")
    _, listed = run("wallet", "list")
    assert [w["name"] for w in listed["wallets"]] == ["ann"]
    assert listed["wallets"][0]["hotkeys"]["second"] == added["address"]
    assert run("wallet", "show", "ann")[1] == listed["wallets"][0]
    status, missing = run("wallet", "show", "nobody")
    assert (status, missing["error"]["code"]) == (2, "wallet_missing")


def test_without_a_ledger_every_command_says_how_to_get_one(run: Run) -> None:
    run("wallet", "new", "ann", "--no-password")
    for words in (["status"], ["register", "--wallet", "ann"], ["weights"], ["advance", "1"]):
        status, answer = run("chain", *words)
        assert (status, answer["error"]["code"]) == (2, "ledger_missing")
