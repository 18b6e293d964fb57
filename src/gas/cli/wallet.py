"""``gascli wallet``: keys for people without btcli, in the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gas.chain.keys import WalletView, create_hotkey, create_wallet, list_wallets, load_hotkey, verify, view_wallet
from gas.cli.coldkeys import PasswordEnv, PasswordFile, library_talks_to_stderr, open_coldkey, password_from
from gas.config import HomeSettings
from gas.errors import ConfigurationError

__all__ = ["app"]

app = typer.Typer(help="Wallets: new, list, show, sign, verify.", no_args_is_help=True, add_completion=False)

_Home = Annotated[Path | None, typer.Option(help="Home with the wallets; GAS_HOME or ./.gas by default.")]
_Wallets = Annotated[Path | None, typer.Option("--wallets", help="Folder of wallets; in the home by default.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Name = Annotated[str, typer.Argument(help="The wallet's name.")]
_Hotkey = Annotated[str, typer.Option(help="Name of the hotkey.")]


@app.command()
def new(
    name: _Name,
    hotkey: _Hotkey = "default",
    no_password: Annotated[
        bool, typer.Option(help="Leave the coldkey readable: for tests and demonstrations.")
    ] = False,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: _Home = None,
    wallets: _Wallets = None,
    json_output: _Json = False,
) -> None:
    """Make a wallet with one hotkey, or add a hotkey to a wallet that is there.

    The coldkey is encrypted with a password that is asked for, or read from a variable or a file. Services only ever
    need the hotkey.
    """
    folder = _folder(home, wallets)
    if (folder / name).is_dir():
        address = create_hotkey(folder, name, hotkey)
        _print({"name": name, "hotkey": hotkey, "address": address}, f"{name}/{hotkey}  {address}", json_output)
        return
    if no_password and (password_env or password_file):
        raise ConfigurationError("A coldkey has a password or none.")
    password = None if no_password else password_from(password_env, password_file, confirm=True)
    with library_talks_to_stderr():
        made = create_wallet(folder, name, hotkey, password=password)
    _print(_as_dict(made.view), _as_text(made.view), json_output)
    if not json_output:
        typer.echo("\nWrite these words down and show them to nobody; they restore the keys:", err=True)
        typer.echo(f"  coldkey: {made.coldkey_phrase}\n  hotkey:  {made.hotkey_phrase}", err=True)


@app.command("list")
def list_command(home: _Home = None, wallets: _Wallets = None, json_output: _Json = False) -> None:
    """List the wallets and their addresses."""
    views = list_wallets(_folder(home, wallets))
    text = (
        "\n".join(_as_text(view) for view in views) or "There are no wallets here. `gascli wallet new NAME` makes one."
    )
    _print({"wallets": [_as_dict(view) for view in views]}, text, json_output)


@app.command()
def show(name: _Name, home: _Home = None, wallets: _Wallets = None, json_output: _Json = False) -> None:
    """Show the public side of one wallet."""
    view = view_wallet(_folder(home, wallets), name)
    _print(_as_dict(view), _as_text(view), json_output)


@app.command()
def sign(
    name: _Name,
    message: Annotated[str | None, typer.Argument(help="Text to sign; or give --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="Sign a file's bytes.")] = None,
    hotkey: _Hotkey = "default",
    coldkey: Annotated[bool, typer.Option("--coldkey", help="Sign with the coldkey instead.")] = False,
    password_env: PasswordEnv = None,
    password_file: PasswordFile = None,
    home: _Home = None,
    wallets: _Wallets = None,
    json_output: _Json = False,
) -> None:
    """Sign a text or a file with a hotkey, or with the coldkey (sr25519)."""
    folder = _folder(home, wallets)
    signer = open_coldkey(folder, name, password_env, password_file) if coldkey else load_hotkey(folder, name, hotkey)
    signature = "0x" + signer.sign(_message(message, file)).hex()
    _print({"address": signer.ss58_address, "signature": signature}, signature, json_output)


@app.command("verify")
def verify_command(
    address: Annotated[str, typer.Argument(help="Who is said to have signed (SS58).")],
    signature: Annotated[str, typer.Argument(help="The signature, 0x and 128 hex digits.")],
    message: Annotated[str | None, typer.Argument(help="The text; or give --file.")] = None,
    file: Annotated[Path | None, typer.Option(help="The file that was signed.")] = None,
    json_output: _Json = False,
) -> None:
    """Check a signature; exit status 0 when it is good, 1 when it is not."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        raw = b""
    good = verify(address, _message(message, file), raw)
    _print({"valid": good}, "The signature is good." if good else "The signature is NOT good.", json_output)
    if not good:
        raise typer.Exit(1)


def _folder(home: Path | None, wallets: Path | None) -> Path:
    return wallets or (HomeSettings() if home is None else HomeSettings(home=home)).wallets_path


def _message(message: str | None, file: Path | None) -> bytes:
    if (message is None) == (file is None):
        raise ConfigurationError("Give either a text or --file.")
    try:
        return file.read_bytes() if file is not None else (message or "").encode()
    except OSError as error:
        raise ConfigurationError(f"The file can't be read: {error.strerror}.") from error


def _as_dict(view: WalletView) -> dict[str, object]:
    return {
        "name": view.name,
        "coldkey": view.coldkey,
        "coldkey_encrypted": view.coldkey_encrypted,
        "hotkeys": view.hotkeys,
    }


def _as_text(view: WalletView) -> str:
    state = {None: "not here", True: "encrypted", False: "NOT encrypted"}[view.coldkey_encrypted]
    lines = [f"{view.name}", f"  coldkey  {view.coldkey or '-'}  (private key {state})"]
    lines += [f"  {name:20} {address}" for name, address in view.hotkeys.items()]
    return "\n".join(lines)


def _print(data: dict[str, object], text: str, json_output: bool) -> None:
    typer.echo(json.dumps(data) if json_output else text)
