"""The database: schema, transactions, settings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import inspect, select, text
from sqlalchemy.exc import IntegrityError

from gas.errors import ConfigurationError
from gas.storage.database import Database, open_database
from gas.storage.migrate import migrate
from gas.storage.tables import Base, RoundRow, RunRow, ScoreRow, SubmissionRow


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'gas.db'}")
    yield database
    database.close()


def _schema(database: Database) -> dict[str, object]:
    found = inspect(database.engine)
    return {
        table: (
            {c["name"]: (str(c["type"]), c["nullable"]) for c in found.get_columns(table)},
            found.get_pk_constraint(table),
            sorted(map(str, found.get_foreign_keys(table))),
            sorted(map(str, found.get_indexes(table))),
            sorted(map(str, found.get_unique_constraints(table))),
        )
        for table in sorted(found.get_table_names())
        if table != "alembic_version"
    }


def test_the_migrations_build_exactly_the_models_schema(database: Database, tmp_path: Path) -> None:
    modelled = open_database(f"sqlite:///{tmp_path / 'models.db'}", migrate=False)
    Base.metadata.create_all(modelled.engine)
    assert _schema(database) == _schema(modelled)
    assert len(_schema(database)) == len(Base.metadata.tables)
    modelled.close()


def test_migrating_twice_and_from_several_threads_is_migrating_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gas.db'}"
    databases = [open_database(url, migrate=False) for _ in range(3)]
    threads = [threading.Thread(target=migrate, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    migrate(databases[0])
    with databases[0].read() as session:
        assert session.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    for database in databases:
        database.close()


def test_a_write_block_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.add(ScoreRow(hotkey="a", miner_class="image", value=1.0, updated_at=0.0))
        session.flush()
        raise ZeroDivisionError
    with database.read() as session:
        assert session.scalars(select(ScoreRow)).all() == []


def test_sqlite_runs_in_wal_mode_with_foreign_keys_and_patience(database: Database) -> None:
    with database.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(RunRow(id="r", submission_id="none", round_id="none", kind="full", state="running", started_at=0.0))


def test_concurrent_writers_lose_no_update(database: Database) -> None:
    with database.write() as session:
        session.add(ScoreRow(hotkey="a", miner_class="image", value=0.0, updated_at=0.0))

    def add() -> None:
        for _ in range(20):
            with database.write() as session:
                session.get_one(ScoreRow, ("a", "image")).value += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(ScoreRow, ("a", "image")).value == 80


def test_a_seed_of_64_bits_and_an_absent_json_survive(database: Database) -> None:
    with database.write() as session:
        session.add(
            RoundRow(
                id="r1", modality="image", seed=str(2**64 - 1), state="open", plan_blob="0" * 64, data_hash="0" * 64,
                parameters={"a": [1]}, code_version="1", opened_at=1.0, outcome=None,
            )
        )  # fmt: skip
    with database.read() as session:
        assert session.get_one(RoundRow, "r1").seed == "18446744073709551615"
        assert session.scalars(select(RoundRow).where(RoundRow.outcome.is_(None))).one().parameters == {"a": [1]}


def test_one_hotkey_has_one_content_once(database: Database) -> None:
    def row(identity: str) -> SubmissionRow:
        return SubmissionRow(
            id=identity, hotkey="h", key=identity, sha256="0" * 64, size=1, modality="image", vertical="general",
            name="", state="uploaded", state_since=0.0, reasons=[], created_at=0.0, attempts=0,
        )  # fmt: skip

    with database.write() as session:
        session.add(row("a"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(row("b"))


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "cobol://x/y"])
def test_a_url_that_names_no_usable_database_is_the_operators_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_database(url)
