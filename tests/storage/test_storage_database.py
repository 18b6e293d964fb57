"""The embedded database: what is SQLite's own, and what a wrong URL means. The rest is a contract of every database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gas.errors import ConfigurationError, StorageError
from gas.storage.database import Database, open_database
from gas.storage.tables import ScoreRow


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    yield database
    database.close()


def test_sqlite_runs_in_wal_mode_with_foreign_keys_and_patience(database: Database) -> None:
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 30_000


def test_a_writer_holds_the_lock_from_its_first_statement(database: Database, tmp_path: Path) -> None:
    other = open_database(f"sqlite:///{tmp_path / 'gas.db'}", migrate=False)
    codes: list[str] = []

    def write() -> None:
        try:
            with other.write() as session:
                session.execute(text("PRAGMA busy_timeout=1"))
        except StorageError as error:
            codes.append(error.error_code)

    with other.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=50")
    with database.write() as session:
        session.scalars(select(ScoreRow)).all()
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    other.close()
    assert codes == ["database_busy"]


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "gas.db").write_bytes(b"no database " * 100)
    with pytest.raises(StorageError) as failed:
        open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    assert "not a database" in failed.value.message


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "sqlite://",
        "sqlite:///:memory:",
        "cobol://x/y",
        "postgresql+nonsense://h/d",
        "postgresql://h:port/d",
    ],
)
def test_a_url_that_names_no_usable_database_is_the_operators_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_database(url)
