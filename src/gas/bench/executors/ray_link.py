"""The way to a Ray cluster: found, checked before anything is asked of it, and quiet.

Ray itself waits for minutes for a cluster that isn't there, and then ends the process; so somebody else asks first.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gas.bench.executors.base import is_address
from gas.errors import ConfigurationError, InfrastructureError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Link", "connect", "lost_errors"]

_QUIET: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RAY_USAGE_STATS_ENABLED": "0",
        # What the cluster has to say about other machines would land on standard output, amid our own.
        "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
)
_STORE_BYTES: Final = 100 * 2**20
_KEEP: Final = "What was answered so far is kept; start the same command again when it is up."


@dataclass(frozen=True, slots=True)
class Link:
    """A connection to a cluster.

    Attributes:
        ray: The library.
        client: Whether it goes through Ray's client, which can't bring results piece by piece.
    """

    ray: ModuleType
    client: bool

    def close(self) -> None:
        """Let go; a cluster that was started for this link ends."""
        self.ray.shutdown()


def connect(address: str | None, patience: float) -> Link:
    """Connect this process to a cluster.

    Args:
        address: As for :class:`gas.bench.executors.ray.RayExecutor`.
        patience: Seconds.

    Raises:
        InfrastructureError: ``cluster_unreachable``.
        ConfigurationError: ``cluster_address``, ``ray_missing``, ``cluster_version``, or ``cluster_elsewhere``: this
            machine is not part of the cluster.
    """
    ray = _library()
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "auto", "local"):
        return Link(ray, client=False) if address != "local" and _join(ray, "auto") else _start(ray)
    if not is_address(address):
        raise ConfigurationError(
            f"{address[:80]!r} is no address of a cluster.",
            code="cluster_address",
            hint="Write host:port, or ray://host:port.",
        )
    client = address.startswith("ray://")
    _knock(address.removeprefix("ray://"), patience)
    if client:
        _need_client()
    else:
        _ask_health(address, patience)
    if not _join(ray, address):
        raise _nobody(address)
    return Link(ray, client)


def lost_errors() -> tuple[type[BaseException], ...]:
    """What Ray raises when the machine or the process that computed something has gone."""
    from ray import exceptions

    return (
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.ObjectLostError,
        exceptions.OutOfMemoryError,
        exceptions.LocalRayletDiedError,
    )


def _library() -> ModuleType:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigurationError(
            "Ray is not installed.", code="ray_missing", hint="pip install 'gas[ray]', or --executor local."
        ) from error


def _start(ray: ModuleType) -> Link:
    ray.init(
        num_cpus=len(os.sched_getaffinity(0)),
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    return Link(ray, client=False)


def _join(ray: ModuleType, address: str) -> bool:
    """Connect; false when nobody is there."""
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError:
        return False
    except RuntimeError as error:
        text = str(error)
        if "ersion" in text:
            raise ConfigurationError(
                f"The cluster at {address} runs another version of Python or Ray.",
                code="cluster_version",
                hint="Install the same versions on every machine.",
            ) from error
        raise InfrastructureError(
            f"The cluster at {address} can't be joined ({text.splitlines()[0][:200]}).", code="cluster_unreachable"
        ) from error
    except ValueError as error:
        raise ConfigurationError(
            f"This machine is no part of the cluster at {address}.",
            code="cluster_elsewhere",
            hint=f"Join it with `ray start --address={address} --num-cpus=0`, or use its ray:// address.",
        ) from error
    return True


def _knock(address: str, patience: float) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
    except OSError as error:
        raise _nobody(address) from error


def _ask_health(address: str, patience: float) -> None:
    """Have another process ask whether it is a Ray cluster that listens there."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired as error:
        raise _nobody(address, "What listens there is no Ray cluster.") from error
    if done.returncode == 0:
        return
    if b"ersion" in done.stdout + done.stderr:
        raise ConfigurationError(
            f"The cluster at {address} runs another version of Python or Ray.",
            code="cluster_version",
            hint="Install the same versions on every machine.",
        )
    raise _nobody(address, "What listens there is no healthy Ray cluster.")


def _need_client() -> None:
    if importlib.util.find_spec("grpc") is None:
        raise ConfigurationError(
            "ray:// needs Ray's client, which is not installed.",
            code="ray_missing",
            hint="pip install 'ray[client]', or join the cluster with `ray start` and give its host:port.",
        )


def _nobody(address: str, why: str = "") -> InfrastructureError:
    said = f"No cluster answers at {address}."
    return InfrastructureError(
        f"{said} {why}".strip(),
        code="cluster_unreachable",
        hint=f"Start one with `ray start --head`, or leave out the address. {_KEEP}",
    )
