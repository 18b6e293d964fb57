"""Coldkeys on the command line: where a password comes from, and the wallet library's chatter.

A password is never a word of the command line, where every user of the machine could read it: it is asked for in a
terminal, or taken from an environment variable or a file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.chain.keys import KeySigner

__all__ = ["PasswordEnv", "PasswordFile", "library_talks_to_stderr", "open_coldkey", "password_from"]

PasswordEnv = Annotated[
    str | None, typer.Option("--password-env", help="Environment variable that holds the coldkey's password.")
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File whose first line is the coldkey's password.")
]

_MAX_PASSWORD = 4096


def password_from(env: str | None, file: Path | None, *, confirm: bool = False) -> str:
    """The coldkey's password, from the variable, the file, or a terminal.

    Raises:
        ConfigurationError: Both are named, the one that is named holds none, or there is no terminal to ask in
            (``no_password``).
    """
    if env is not None and file is not None:
        raise ConfigurationError("Give --password-env or --password-file, not both.")
    if env is not None:
        password = os.environ.get(env, "")
        where = f"the environment variable {env}"
    elif file is not None:
        try:
            with file.open(encoding="utf-8") as stream:
                password = stream.readline(_MAX_PASSWORD).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError("The password's file can't be read.", code="no_password") from error
        where = "the password's file"
    elif sys.stdin.isatty():
        return str(typer.prompt("Password of the coldkey", hide_input=True, confirmation_prompt=confirm, err=True))
    else:
        raise ConfigurationError(
            "There is no terminal to ask for the coldkey's password.",
            code="no_password",
            hint="Name a variable with --password-env or a file with --password-file.",
        )
    if not password:
        raise ConfigurationError(f"There is no password in {where}.", code="no_password")
    return password


def open_coldkey(wallets: Path, name: str, env: str | None = None, file: Path | None = None) -> KeySigner:
    """A wallet's coldkey; the password is asked for only when the key is encrypted.

    Raises:
        ConfigurationError: As :func:`gas.chain.keys.load_coldkey` and :func:`password_from`.
    """
    from gas.chain.keys import load_coldkey

    try:
        return load_coldkey(wallets, name)
    except ConfigurationError as error:
        if error.error_code != "key_encrypted":
            raise
    password = password_from(env, file)
    with library_talks_to_stderr():
        return load_coldkey(wallets, name, password=password)


@contextmanager
def library_talks_to_stderr() -> Iterator[None]:
    """Keep the wallet library's own remarks out of what programs read."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        # Some of them are Python's prints, and some are not.
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
