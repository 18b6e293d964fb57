"""Settings of the services: environment variables and ``.env`` files, checked at start.

Every value can be given as ``GAS_<NAME>``; the embedded defaults need none of them.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["HomeSettings"]


class HomeSettings(BaseSettings):
    """Where a home keeps its things, and what stands behind the seams.

    Attributes:
        home: Folder of everything embedded.
        database_url: SQLAlchemy URL; empty means SQLite in the home.
        blobs_url: ``s3://bucket/prefix?endpoint=https://host:port``, or a folder; empty means a folder of the home.
        netuid: The subnet.
        chain_endpoint: ``local`` or a ``ws://`` / ``wss://`` address.
    """

    model_config = SettingsConfigDict(env_prefix="GAS_", env_file=".env", extra="ignore")

    home: Path = Path(".gas")
    database_url: str = Field(default="", repr=False)
    blobs_url: str = ""
    netuid: int = Field(default=1, ge=0, le=65535)
    chain_endpoint: str = "local"

    @property
    def resolved_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'gas.db'}"

    @property
    def ledger_path(self) -> Path:
        """File of the embedded chain."""
        return self.home / "chain.db"

    @property
    def resolved_blobs_url(self) -> str:
        """The address of the blobs in force, for :func:`gas.storage.blobs.open_blobs`."""
        return self.blobs_url or str(self.blobs_path)

    @property
    def blobs_path(self) -> Path:
        """Folder of the embedded blob store."""
        return self.home / "blobs"

    @property
    def wallets_path(self) -> Path:
        """Folder of the wallets, in the ecosystem's own layout."""
        return self.home / "wallets"
