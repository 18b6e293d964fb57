"""The ledger's file: tables, and how a connection is opened."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from gas.errors import ChainUnreachable, ConfigurationError

__all__ = ["SCHEMA_VERSION", "connect", "create_file", "unusable"]

SCHEMA_VERSION: Final = 1
_BUSY_SECONDS: Final = 30.0

# Amounts carry CHECKs as a second lock behind the explicit checks of each call.
_TABLES: Final = """
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    chain_id TEXT NOT NULL,
    root TEXT NOT NULL,
    manual INTEGER NOT NULL,
    block_ms INTEGER NOT NULL CHECK (block_ms > 0),
    anchor_ms INTEGER NOT NULL,
    anchor_block INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    block INTEGER NOT NULL CHECK (block >= 0),
    issued INTEGER NOT NULL CHECK (issued >= 0),
    burned INTEGER NOT NULL CHECK (burned >= 0)
) STRICT;
CREATE TABLE accounts (
    address TEXT PRIMARY KEY,
    balance INTEGER NOT NULL DEFAULT 0 CHECK (balance >= 0),
    nonce INTEGER NOT NULL DEFAULT 0 CHECK (nonce >= 0)
) STRICT;
CREATE TABLE hotkeys (
    hotkey TEXT PRIMARY KEY,
    coldkey TEXT NOT NULL
) STRICT;
CREATE TABLE subnets (
    netuid INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    owner_hotkey TEXT NOT NULL,
    tempo INTEGER NOT NULL CHECK (tempo > 0),
    hyperparameters TEXT NOT NULL,
    economics TEXT NOT NULL,
    last_epoch INTEGER NOT NULL,
    epochs INTEGER NOT NULL DEFAULT 0,
    price INTEGER NOT NULL,
    price_block INTEGER NOT NULL
) STRICT;
CREATE TABLE neurons (
    netuid INTEGER NOT NULL REFERENCES subnets (netuid),
    uid INTEGER NOT NULL,
    hotkey TEXT NOT NULL REFERENCES hotkeys (hotkey),
    registered_at INTEGER NOT NULL,
    last_update INTEGER NOT NULL,
    permit INTEGER NOT NULL DEFAULT 0,
    ip TEXT,
    port INTEGER,
    protocol INTEGER,
    incentive INTEGER NOT NULL DEFAULT 0,
    dividends INTEGER NOT NULL DEFAULT 0,
    validator_trust INTEGER NOT NULL DEFAULT 0,
    consensus INTEGER NOT NULL DEFAULT 0,
    emission INTEGER NOT NULL DEFAULT 0,
    weights TEXT NOT NULL DEFAULT '[]',
    bonds TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (netuid, uid),
    UNIQUE (netuid, hotkey)
) STRICT;
CREATE TABLE stakes (
    netuid INTEGER NOT NULL REFERENCES subnets (netuid),
    hotkey TEXT NOT NULL REFERENCES hotkeys (hotkey),
    amount INTEGER NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (netuid, hotkey)
) STRICT;
CREATE TABLE commitments (
    netuid INTEGER NOT NULL,
    hotkey TEXT NOT NULL,
    data TEXT NOT NULL,
    block INTEGER NOT NULL,
    PRIMARY KEY (netuid, hotkey)
) STRICT;
CREATE TABLE weight_commits (
    netuid INTEGER NOT NULL,
    hotkey TEXT NOT NULL,
    hash BLOB NOT NULL,
    block INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    PRIMARY KEY (netuid, hotkey, hash)
) STRICT;
CREATE TABLE calls (
    signer TEXT NOT NULL,
    nonce INTEGER NOT NULL,
    block INTEGER NOT NULL,
    kind TEXT NOT NULL,
    params TEXT NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (signer, nonce)
) STRICT;
CREATE TABLE payouts (
    netuid INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    block INTEGER NOT NULL,
    hotkey TEXT NOT NULL,
    incentive INTEGER NOT NULL CHECK (incentive >= 0),
    dividends INTEGER NOT NULL CHECK (dividends >= 0),
    owner_share INTEGER NOT NULL CHECK (owner_share >= 0),
    PRIMARY KEY (netuid, epoch, hotkey)
) STRICT;
"""


def unusable(error: sqlite3.Error, message: str) -> ChainUnreachable:
    """What a failure of the file means to whoever called: ``disk_full``, ``disk_error`` or ``chain_unreachable``."""
    # The low byte is the kind of failure, the rest says which system call it was.
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if kind == sqlite3.SQLITE_FULL:
        return ChainUnreachable(
            f"{message} The disk is full.", code="disk_full", hint="Free some space; nothing that was included is lost."
        )
    if kind == sqlite3.SQLITE_IOERR:
        return ChainUnreachable(
            f"{message} The disk refuses to read or write.", code="disk_error", hint="Check the disk and its quota."
        )
    return ChainUnreachable(message)


def create_file(path: Path) -> sqlite3.Connection:
    """Open a new ledger's file, readable by its owner only, inside an open exclusive transaction.

    The tables are made in that transaction, so a ledger is there whole or not at all. A file that an interrupted
    creation left behind, without tables, is taken over.

    Raises:
        ConfigurationError: There is a ledger already (``ledger_exists``).
        ChainUnreachable: The file can't be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ChainUnreachable("The ledger's file can't be made.") from error
    connection = _open(path)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
            raise ConfigurationError("There is a ledger already.", code="ledger_exists")
        # executescript() would commit the open transaction first.
        for statement in _TABLES.split(";"):
            if statement.strip():
                connection.execute(statement)
    except sqlite3.Error as error:
        connection.close()
        raise unusable(error, "The ledger's file can't be written.") from error
    except ConfigurationError:
        connection.close()
        raise
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing ledger.

    Raises:
        ConfigurationError: There is none (``ledger_missing``), or another version's (``ledger_version``).
        ChainUnreachable: The file is no readable database.
    """
    missing = ConfigurationError(
        "There is no local ledger here.",
        code="ledger_missing",
        hint="Make one with `gascli chain found`, or play `gascli demo`.",
    )
    if not path.is_file():
        raise missing
    connection = _open(path)
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
            raise missing
        (version,) = connection.execute("SELECT version FROM ledger").fetchone()
        if version != SCHEMA_VERSION:
            raise ConfigurationError(
                f"The ledger is of version {version}, not {SCHEMA_VERSION}.", code="ledger_version"
            )
    except sqlite3.Error as error:
        connection.close()
        raise unusable(error, "The ledger's file can't be read.") from error
    except ConfigurationError:
        connection.close()
        raise
    return connection


def _open(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are begun by hand) with a write-ahead log, synced at commit."""
    try:
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise ChainUnreachable("The ledger's file can't be opened.") from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        connection.close()
        raise unusable(error, "The ledger's file is no readable database.") from error
    return connection
