"""The demo's services in processes of their own: started, awaited, stopped, and gone with the demo whatever ends it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from gas.cli.processes import spawn, stop
from gas.errors import InfrastructureError

__all__ = ["Processes", "Service"]

_START_SECONDS = 60.0


@dataclass(slots=True)
class Service:
    """One running service.

    Attributes:
        name: For messages.
        process: The child.
        log: What it prints.
        offset: Where this start's output begins in the log.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    offset: int

    async def url(self, health: str, http: httpx.AsyncClient) -> str:
        """Its address, as soon as it answers.

        Args:
            health: Path that answers 2xx when the service takes work.
            http: Client to ask with.

        Raises:
            InfrastructureError: It ended, or did not answer in time.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                while True:
                    if self.process.poll() is not None:
                        raise InfrastructureError(
                            f"{self.name} ended with status {self.process.returncode} at its start.",
                            code="service_start",
                            hint=f"Look into {self.log}.",
                        )
                    port = self._port()
                    if port is not None:
                        try:
                            if (await http.get(f"http://127.0.0.1:{port}{health}")).is_success:
                                return f"http://127.0.0.1:{port}"
                        except httpx.TransportError:
                            pass
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise InfrastructureError(
                f"{self.name} did not answer within {_START_SECONDS:.0f} s.",
                code="service_start",
                hint=f"Look into {self.log}.",
            ) from error

    def stop(self) -> None:
        """End it."""
        stop(self.process)

    def _port(self) -> int | None:
        with self.log.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if line.startswith(b'{"event": "serving"') and line.endswith(b"\n"):
                    return int(json.loads(line)["port"])
        return None


@dataclass(slots=True)
class Processes:
    """All services of one demo.

    Attributes:
        logs: Folder of their logs.
    """

    logs: Path
    _services: list[Service] = field(default_factory=list, init=False)

    def start(self, name: str, arguments: list[str]) -> Service:
        """Start ``gascli`` with arguments; it announces its port in a line of JSON."""
        log = self.logs / f"{name}.log"
        offset = log.stat().st_size if log.exists() else 0
        service = Service(name, spawn(arguments, {"GAS_CHAIN_ENDPOINT": "local"}, log), log, offset)
        self._services.append(service)
        return service

    def stop(self) -> None:
        """End all, the newest first."""
        for service in reversed(self._services):
            service.stop()
