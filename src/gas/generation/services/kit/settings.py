"""Settings of the hosted services: each names its own variables, all are read from one environment and file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from gas.errors import ConfigurationError

__all__ = ["OFF", "ProviderSettings", "ServiceSettings"]

OFF: Final = "none"
"""A model's name that stands for: this service doesn't make that kind of medium."""

_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:~-]{0,127}")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,512}")

S = TypeVar("S", bound="ProviderSettings")


class ProviderSettings(BaseSettings):
    """What all hosted services have in common; a service's own settings come in a subclass beside it.

    Fields whose names end in ``_key`` or ``_secret``, ``_url`` and ``_model`` are checked for their form. An empty
    variable counts as not set; a model named ``none`` is one that isn't used.

    Attributes:
        service_timeout: Seconds that one paid call may take in all, from the first byte sent to the last received.
        service_connect_timeout: Seconds to reach the provider.
        service_download_timeout: Seconds that fetching a finished medium may take, for each try.
        service_retry_pause: Seconds before a broken download is tried again, doubled at each try.
        service_poll_seconds: Pause between two questions after a job; the provider's recommendation when left out.
    """

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, hide_input_in_errors=True, populate_by_name=True
    )

    service_timeout: float = Field(default=300.0, gt=0, le=3600)
    service_connect_timeout: float = Field(default=15.0, gt=0, le=300)
    service_download_timeout: float = Field(default=300.0, gt=0, le=3600)
    service_retry_pause: float = Field(default=1.0, ge=0, le=60)
    service_poll_seconds: float | None = Field(default=None, gt=0, le=600)

    @field_validator("*")
    @classmethod
    def _well_formed(cls, value: object, info: object) -> object:
        name = str(getattr(info, "field_name", ""))
        if isinstance(value, SecretStr):
            key = value.get_secret_value()
            if key and not _KEY.fullmatch(key):
                raise ValueError("a key has no spaces and no characters beyond ASCII")
        elif name.endswith("_url"):
            return _checked_url(str(value))
        elif name.endswith("_model") and not _MODEL.fullmatch(str(value)):
            raise ValueError("this is no model's name")
        return value


class ServiceSettings:
    """Where the services' settings come from: the environment, then a file.

    Args:
        _env_file: A file of ``NAME=value`` lines, e.g. ``.env.gen_miner``; None for the environment alone.
        **values: Fields of any service's settings by name, going before both; for tests and embedding.
    """

    def __init__(self, _env_file: str | Path | None = None, **values: object) -> None:
        self._env_file = _env_file
        self._values: Mapping[str, object] = values

    def read(self, model: type[S]) -> S:
        """The settings of one service.

        Args:
            model: Its class of settings.

        Raises:
            ConfigurationError: A value is not acceptable; the message names the variable and no secret.
        """
        known: dict[str, Any] = {name: value for name, value in self._values.items() if name in model.model_fields}
        try:
            return model(_env_file=self._env_file, **known)  # type: ignore[call-arg]
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            variable = "_".join(str(part) for part in first["loc"]).upper()
            raise ConfigurationError(
                f"{variable} is not acceptable: {first['msg'].removeprefix('Value error, ')}.",
                hint="Correct it in the environment or in the miner's .env file.",
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{self._env_file} can't be read: {type(error).__name__}.") from None


def _checked_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("this is no address") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("an address begins with https:// (or http:// for a gateway of your own)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("an address has no user, no password and no query here")
    return value.rstrip("/")
