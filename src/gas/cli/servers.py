"""HTTP servers inside a running event loop: start, know the port, stop."""

from __future__ import annotations

import asyncio
import socket as socket_module
from typing import TYPE_CHECKING, Any

from gas.errors import ConfigurationError, InfrastructureError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Server", "listen"]


def listen(host: str, port: int) -> socket_module.socket:
    """Bind a TCP socket; port 0 takes a free one.

    Raises:
        ConfigurationError: The port is taken or the address isn't ours.
    """
    try:
        return socket_module.create_server((host, port))
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen on {host}:{port} ({error.strerror}).", hint="Name another --port; 0 takes a free one."
        ) from error


class Server:
    """One ASGI application on one bound socket, inside this process's event loop.

    Args:
        app: The application.
        socket: From :func:`listen`.
    """

    def __init__(self, app: FastAPI, socket: socket_module.socket) -> None:
        import uvicorn

        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="on", ws="none"
        )
        self._server: Any = uvicorn.Server(config)
        # Signals are the program's own: several servers may run in one process.
        self._server.capture_signals = _no_signals
        self._socket = socket
        self._running: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Begin to serve; returns when requests are answered.

        Raises:
            InfrastructureError: The application's start failed.
        """
        self._running = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._running.done():
                raise InfrastructureError("The service did not start.", code="service_start")
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end."""
        self._server.should_exit = True

    async def wait(self) -> None:
        """Wait for its end."""
        if self._running is not None:
            await self._running


class _no_signals:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
