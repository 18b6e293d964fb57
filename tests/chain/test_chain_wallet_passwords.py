"""Encrypted coldkeys: made, opened and refused; a hotkey alone is enough for every service."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from gas.chain.keys import load_coldkey, load_hotkey, view_wallet
from gas.cli.coldkeys import password_from
from gas.cli.main import main
from gas.errors import ConfigurationError

PASSWORD = "correct horse battery"

Run = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, dict[str, object]]:
        capfd.readouterr()
        status = 0
        try:
            main([*words, "--home", str(home), "--json"])
        except SystemExit as end:
            status = int(end.code or 0)
        out = capfd.readouterr().out
        return status, json.loads(out)

    return call


@pytest.mark.slow
def test_an_encrypted_coldkey_opens_with_its_password_alone_and_services_never_need_it(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One test, because the ecosystem's key derivation takes a gigabyte and seconds each time."""
    monkeypatch.setenv("A_PASSWORD", PASSWORD)
    monkeypatch.setenv("WRONG", "wrong horse")
    status, made = run("wallet", "new", "owner", "--password-env", "A_PASSWORD")
    assert (status, made["coldkey_encrypted"]) == (0, True)
    assert PASSWORD.encode() not in (home / "wallets" / "owner" / "coldkey").read_bytes()
    with pytest.raises(ConfigurationError) as error:
        load_coldkey(home / "wallets", "owner")
    assert error.value.error_code == "key_encrypted"
    status, refused = run("wallet", "sign", "owner", "hello", "--coldkey", "--password-env", "WRONG")
    assert (status, refused["error"]["code"]) == (2, "wrong_password")
    assert "wrong horse" not in json.dumps(refused)
    password = home / "password"
    password.write_text(f"{PASSWORD}\nsecond line\n")
    status, made = run("chain", "found", "--root", "owner", "--manual", "--password-file", str(password))
    assert (status, made["root"]) == (0, view_wallet(home / "wallets", "owner").coldkey)
    # What a service does: the hotkey signs, and nobody asks for anything.
    assert run("chain", "commit", "hello", "--wallet", "owner")[0] == 0
    assert run("chain", "advance", "100")[0] == 0
    assert run("chain", "weights", "0=1", "--wallet", "owner")[0] == 0
    assert run("chain", "status")[0] == 0
    status, refused = run("chain", "stake", "1", "--wallet", "owner")
    assert (status, refused["error"]["code"]) == (2, "no_password")


def test_a_machine_with_the_hotkey_alone_can_serve(run: Run, home: Path) -> None:
    run("wallet", "new", "owner", "--no-password")
    (home / "wallets" / "owner" / "coldkey").unlink()
    (home / "wallets" / "owner" / "coldkeypub.txt").unlink()
    status, signed = run("wallet", "sign", "owner", "hello")
    assert (status, signed["address"]) == (0, load_hotkey(home / "wallets", "owner").ss58_address)
    view = run("wallet", "show", "owner")[1]
    assert (view["coldkey"], view["coldkey_encrypted"]) == (None, None)
    status, missing = run("wallet", "sign", "owner", "hello", "--coldkey")
    assert (status, missing["error"]["code"]) == (2, "wallet_missing")


def test_a_password_comes_from_a_variable_a_file_or_a_terminal_and_is_never_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "password"
    file.write_text("from the file\r\n")
    monkeypatch.setenv("SOME", "from the variable")
    monkeypatch.setenv("EMPTY", "")
    assert password_from("SOME", None) == "from the variable"
    assert password_from(None, file) == "from the file"
    file.write_bytes(b"\xff\xfe\n")
    for env, path in (("SOME", file), ("EMPTY", None), ("UNSET_EVERYWHERE", None), (None, file), (None, tmp_path)):
        with pytest.raises(ConfigurationError):
            password_from(env, path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(ConfigurationError) as error:
        password_from(None, None)
    assert error.value.error_code == "no_password"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked: list[dict[str, object]] = []

    def answer(text: str, **how: object) -> str:
        asked.append(how)
        return "from the terminal"

    monkeypatch.setattr(typer, "prompt", answer)
    assert password_from(None, None, confirm=True) == "from the terminal"
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]


def test_a_new_wallet_needs_a_password_or_the_word_that_it_has_none(run: Run) -> None:
    status, refused = run("wallet", "new", "second")
    assert (status, refused["error"]["code"]) == (2, "no_password")
    status, refused = run("wallet", "new", "second", "--no-password", "--password-env", "X")
    assert status == 2
    assert run("wallet", "new", "second", "--no-password")[1]["coldkey_encrypted"] is False


def test_files_are_signed_and_verified_with_either_key(run: Run, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("wallet", "new", "second", "--no-password")
    file = home / "report.bin"
    file.write_bytes(bytes(range(256)))
    for extra in ([], ["--coldkey"]):
        _, signed = run("wallet", "sign", "second", "--file", str(file), *extra)
        words = ["wallet", "verify", str(signed["address"]), str(signed["signature"]), "--file", str(file), "--json"]
        with suppress(SystemExit):
            main(words)
        assert json.loads(capfd.readouterr().out) == {"valid": True}
        file.write_bytes(file.read_bytes() + b"!")
        with pytest.raises(SystemExit) as end:
            main(words)
        assert end.value.code == 1
        assert json.loads(capfd.readouterr().out) == {"valid": False}
    for wrong in ([], ["hello", "--file", str(file)], ["--file", str(home / "none")]):
        assert run("wallet", "sign", "second", *wrong)[0] == 2
