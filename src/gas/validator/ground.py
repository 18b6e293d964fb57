"""What each of a validator's services stands on: its settings, stores and keys, and what it finds after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.chain.base import Chain
from gas.chain.keys import Signer
from gas.clock import Clock, IdSource
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.storage.tables import ServiceStateRow
from gas.validator.settings import ValidatorSettings

__all__ = ["HEARTBEAT", "SERVICES", "Ground", "ServiceState"]

SERVICES: Final = ("sn34-validator", "sn34-generator", "sn34-data")
"""The three services, in the order in which they are started."""

HEARTBEAT: Final = "heartbeat"
"""Key under which a service says that it lives."""


class ServiceState:
    """What one service must find again after a restart: small JSON objects by name.

    Args:
        database: Where they are kept.
        service: Whose they are.
        clock: For the time of writing.
    """

    def __init__(self, database: Database, service: str, clock: Clock) -> None:
        self._database = database
        self._service = service
        self._clock = clock

    def get(self, key: str) -> dict[str, Any]:
        """The object; empty when there is none."""
        with self._database.read() as session:
            row = session.get(ServiceStateRow, (self._service, key))
            return dict(row.value) if row is not None else {}

    def put(self, key: str, value: dict[str, Any], session: Session | None = None) -> None:
        """Keep an object.

        Args:
            key: At most 128 characters.
            value: Plain JSON.
            session: A write transaction of which this is to be a part.
        """
        row = ServiceStateRow(service=self._service, key=key, value=value, updated_at=self._clock.time())
        if session is not None:
            session.merge(row)
            return
        with self._database.write() as own:
            own.merge(row)

    @staticmethod
    def heartbeats(database: Database) -> dict[str, tuple[float, dict[str, Any]]]:
        """When each service last said that it lives (seconds since the epoch), and what it said."""
        with database.read() as session:
            rows = session.scalars(select(ServiceStateRow).where(ServiceStateRow.key == HEARTBEAT))
            return {row.service: (row.updated_at, dict(row.value)) for row in rows}


@dataclass(frozen=True, slots=True)
class Ground:
    """What a service is given.

    Attributes:
        service: Its name, one of :data:`SERVICES`.
        settings: The operator's.
        database: Shared by the three services.
        blobs: As above.
        chain: Connected as the validator's hotkey.
        signer: The hotkey.
        clock: The time.
        ids: Fresh names.
        stop: Set when the service is to end; it has some seconds then.
    """

    service: str
    settings: ValidatorSettings
    database: Database
    blobs: BlobStore
    chain: Chain
    signer: Signer
    clock: Clock
    ids: IdSource
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def hotkey(self) -> str:
        """The validator's address."""
        return self.signer.ss58_address

    @property
    def state(self) -> ServiceState:
        """What this service finds again after a restart."""
        return ServiceState(self.database, self.service, self.clock)

    def beat(self, **facts: Any) -> None:
        """Say that the service lives, and how it goes; call it about every 15 seconds, in a worker thread.

        Args:
            facts: Plain JSON for ``gascli v status`` and the metrics.
        """
        self.state.put(HEARTBEAT, facts)

    async def pause(self, seconds: float) -> bool:
        """Wait, but not beyond the order to stop; whether that has come."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return False
        return True
