"""Hosted services: providers of media that are asked over HTTP, one module each.

Every module of this folder but the :mod:`~gas.generation.services.kit` is a service; it is named after itself and has a
function ``open_service(settings, *, clock)``. Another one is another file.
"""

from __future__ import annotations

import importlib
import pkgutil

from gas.clock import Clock
from gas.errors import ConfigurationError
from gas.generation.base import Service
from gas.generation.services.kit.settings import ServiceSettings

__all__ = ["ServiceSettings", "open_service", "service_names"]


def service_names() -> tuple[str, ...]:
    """Names that :func:`open_service` knows."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.ispkg))


def open_service(name: str, settings: ServiceSettings, *, clock: Clock) -> Service:
    """Open a service; nothing is asked of the provider yet.

    Args:
        name: One of :func:`service_names`.
        settings: Keys, addresses and models; each service reads its own.
        clock: For waiting times that a provider gives as a date.

    Raises:
        ConfigurationError: No such service, ``missing_key``, or a setting that is not acceptable.
    """
    if name not in service_names():
        raise ConfigurationError(f"There is no service {name!r}.", hint=f"Known: {', '.join(service_names())}.")
    service: Service = importlib.import_module(f"{__name__}.{name}").open_service(settings, clock=clock)
    return service
