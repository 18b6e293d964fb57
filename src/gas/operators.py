"""What the settings of every operator share: words that are checked, and a file in which no name may be misspelt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings

from gas.errors import ConfigurationError

__all__ = ["EnvFile", "IpText", "WalletWord", "read_env_file"]

S = TypeVar("S", bound=BaseSettings)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _wallet_word(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name consists of letters, digits, '.', '-' and '_'")
    return value


def _ip_text(value: str) -> str:
    try:
        return str(ip_address(value)) if value else value
    except ValueError:
        raise ValueError("this is no IP address") from None


WalletWord = Annotated[str, AfterValidator(_wallet_word)]
"""Name of a wallet or of one of its hotkeys."""

IpText = Annotated[str, AfterValidator(_ip_text)]
"""An IP address, or nothing."""


@dataclass(frozen=True, slots=True)
class EnvFile:
    """How an operator's file is called, and which names in it are ours.

    Attributes:
        whose: For messages, e.g. ``generator``.
        name: Its usual name, e.g. ``.env.gen_miner``; a template lies beside it in the repository.
        ours: Names that somebody must read: a misspelt one is refused, because a limit that is silently ignored
            would cost money.
        elsewhere: Names of that form that other parts read.
        shown: How a field is named in messages where it has more than one name.
    """

    whose: str
    name: str
    ours: re.Pattern[str]
    elsewhere: frozenset[str] = frozenset()
    shown: Mapping[str, str] | None = None


def read_env_file(kind: type[S], path: Path | None, options: Mapping[str, Any], file: EnvFile) -> S:
    """The settings in force: options before the environment, the environment before the file.

    Args:
        kind: Their model; each field is a variable of the same name in capitals.
        path: The operator's file; None reads only the environment.
        options: Fields that the command line sets; None leaves one to the others.
        file: How the file is called.

    Raises:
        ConfigurationError: ``bad_setting``, naming every variable that is wrong and never its value; ``env_file``
            when the file can't be read.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if path is not None:
        _check_names(kind, path, file)
    try:
        # What pydantic-settings takes beside the fields is not in its type.
        return kind(**{"_env_file": path, **given})
    except ValidationError as error:
        wrong = [
            f"{_shown('.'.join(str(part) for part in item['loc'][:1]), file)}: {item['msg']}".removeprefix(": ")
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise ConfigurationError(
            f"The {file.whose}'s settings are wrong: {'; '.join(wrong)}.",
            code="bad_setting",
            hint=f"Correct {path or 'the environment'}; {file.name}.template explains each name.",
        ) from None


def _shown(field: str, file: EnvFile) -> str:
    return (file.shown or {}).get(field, field.upper())


def _check_names(kind: type[BaseSettings], path: Path, file: EnvFile) -> None:
    from dotenv import dotenv_values

    try:
        names = {name.upper() for name in dotenv_values(path, interpolate=False)} if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The file {path} can't be read ({type(error).__name__}).", code="env_file") from None
    if names is None:
        raise ConfigurationError(
            f"There is no file {path}.",
            code="env_file",
            hint=f"Copy {file.name}.template to {file.name} and fill it in, or name one with --env-file.",
        )
    known = {name.upper() for name in kind.model_fields} | file.elsewhere
    unknown = sorted(name for name in names - known if file.ours.fullmatch(name))
    if unknown:
        raise ConfigurationError(
            f"{path} sets what nobody reads: {', '.join(unknown[:10])}.",
            code="bad_setting",
            hint=f"Is it misspelt? {file.name}.template explains each name.",
        )
