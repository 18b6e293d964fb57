"""What the database must do, on SQLite and on a PostgreSQL server; and how it behaves towards that server."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import PASSWORD, PostgresPeer, url_of
from sqlalchemy import delete, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import gas.storage.migrations
from gas.errors import GasError, StorageError
from gas.storage.database import Database, open_database
from gas.storage.postgres import ServerLimits
from gas.storage.tables import Base, MediumRow, RoundRow, RunRow, ScoreRow, SubmissionRow

REVISIONS = [
    script.revision for script in reversed([*ScriptDirectory(gas.storage.migrations.__path__[0]).walk_revisions()])
]


@pytest.fixture
def url(new_url: Callable[[str], str]) -> str:
    return new_url("gas")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = open_database(url)
    yield database
    database.close()


def score(hotkey: str, value: float = 0.0) -> ScoreRow:
    return ScoreRow(hotkey=hotkey, miner_class="image", value=value, updated_at=0.0)


def submission(identity: str, content: str = "0") -> SubmissionRow:
    return SubmissionRow(
        id=identity, hotkey="h", key=identity, sha256=content * 64, size=2**40, modality="image", vertical="general",
        name="", state="uploaded", state_since=0.0, reasons=[], created_at=0.0, attempts=0,
    )  # fmt: skip


def round_(identity: str) -> RoundRow:
    return RoundRow(
        id=identity, modality="image", seed=str(2**64 - 1), state="open", plan_blob="0" * 64, data_hash="0" * 64,
        parameters={"a": [1, None, {"ä": 0.1}]}, code_version="1", opened_at=1.5, outcome=None,
    )  # fmt: skip


def run(identity: str, submission_id: str, round_id: str) -> RunRow:
    return RunRow(
        id=identity, submission_id=submission_id, round_id=round_id, kind="full", state="running", started_at=0.0
    )


def in_thread(work: Callable[[], None]) -> None:
    """Run something on connections of its own, and wait for it."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# ---- the schema


def test_the_migrations_build_exactly_the_models_schema(database: Database) -> None:
    from alembic.autogenerate import compare_metadata

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        assert {*inspect(connection).get_table_names()} == {*Base.metadata.tables, "alembic_version"}


@pytest.mark.parametrize("revision", REVISIONS)
def test_what_is_there_survives_the_way_up_from_every_version(url: str, revision: str) -> None:
    database = open_database(url, migrate=False)
    database.migrate(revision)
    with database.write() as session:
        session.execute(
            text("INSERT INTO scores (hotkey, miner_class, value, updated_at) VALUES ('a', 'image', 0.25, 1)")
        )
    database.migrate()
    database.migrate()
    with database.read() as session:
        assert session.get_one(ScoreRow, ("a", "image")).value == 0.25
        assert session.scalars(text("SELECT version_num FROM alembic_version")).all() == [REVISIONS[-1]]
    database.close()


def test_services_that_start_together_migrate_once(url: str) -> None:
    databases = [open_database(url, migrate=False) for _ in range(3)]
    threads = [threading.Thread(target=database.migrate) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with databases[0].read() as session:
        assert session.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    for database in databases:
        database.close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str, database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))
    with pytest.raises(StorageError) as refused:
        open_database(url)
    assert refused.value.error_code == "schema_unknown"
    with database.read() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == "v9999"


# ---- transactions


def test_a_write_block_that_raises_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as session:
        session.add(score("a"))
        session.flush()
        raise ZeroDivisionError
    with database.read() as session:
        assert session.scalars(select(ScoreRow)).all() == []


def test_what_a_read_block_changes_is_thrown_away(database: Database) -> None:
    with database.write() as session:
        session.add(score("a", 1))
    with database.read() as session:
        session.get_one(ScoreRow, ("a", "image")).value = 2
        session.flush()
    with database.read() as session:
        assert session.get_one(ScoreRow, ("a", "image")).value == 1


def test_concurrent_writers_lose_no_update_and_none_fails(database: Database) -> None:
    with database.write() as session:
        session.add(score("a"))

    def add() -> None:
        for number in range(10):
            if number % 2:
                with database.write() as session:
                    session.get_one(ScoreRow, ("a", "image")).value += 1
            else:
                database.transact(lambda session: bump(session, "a"))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(ScoreRow, ("a", "image")).value == 40


def bump(session: Session, hotkey: str) -> float:
    row = session.get_one(ScoreRow, (hotkey, "image"))
    row.value += 1
    return row.value


def test_a_writer_that_counts_first_is_never_overtaken(database: Database) -> None:
    def take_a_slot(name: str) -> None:
        with database.write() as session:
            if len(session.scalars(select(ScoreRow)).all()) < 3:
                session.add(score(name))

    threads = [threading.Thread(target=take_a_slot, args=(f"key-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert len(session.scalars(select(ScoreRow)).all()) == 3


def test_a_reader_sees_one_snapshot_and_stops_no_writer(database: Database) -> None:
    def write() -> None:
        with database.write() as session:
            session.add(score("a"))

    with database.read() as session:
        assert session.scalars(select(ScoreRow)).all() == []
        in_thread(write)
        assert session.scalars(select(ScoreRow)).all() == []
    with database.read() as session:
        assert len(session.scalars(select(ScoreRow)).all()) == 1


def test_work_is_done_once_and_its_result_comes_back(database: Database) -> None:
    with database.write() as session:
        session.add(score("a"))
    assert database.transact(lambda session: bump(session, "a")) == 1


# ---- constraints and values


def test_broken_constraints_are_the_callers_to_understand(database: Database) -> None:
    with database.write() as session:
        session.add(submission("a"))
    for row in (submission("b"), run("r", "none", "none"), score("x", None)):  # type: ignore[arg-type]
        with pytest.raises(IntegrityError), database.write() as session:
            session.add(row)
    with database.write() as session:
        session.add(submission("b", "1"))


def test_the_runs_of_a_submission_go_with_it(database: Database) -> None:
    with database.write() as session:
        session.add_all([submission("a"), round_("r")])
        session.flush()
        session.add(run("x", "a", "r"))
    with database.write() as session:
        session.execute(delete(SubmissionRow).where(SubmissionRow.id == "a"))
    with database.read() as session:
        assert session.scalars(select(RunRow)).all() == []


def test_values_come_back_as_they_went_in(database: Database) -> None:
    with database.write() as session:
        session.add_all([round_("r"), submission("ä"), score("a", 0.1 + 0.2)])
    with database.read() as session:
        found = session.scalars(select(RoundRow).where(RoundRow.outcome.is_(None))).one()
        assert (found.seed, found.parameters, found.opened_at) == (str(2**64 - 1), {"a": [1, None, {"ä": 0.1}]}, 1.5)
        assert session.get_one(SubmissionRow, "ä").size == 2**40
        assert session.get_one(ScoreRow, ("a", "image")).value == 0.1 + 0.2


# ---- a server


@pytest.fixture(scope="module")
def served(postgres: PostgresPeer) -> str:
    """A migrated database on the server."""
    url = postgres.database("served")
    open_database(url).close()
    return url


@pytest.fixture
def open_served(served: str) -> Iterator[Callable[..., Database]]:
    opened: list[Database] = []

    def open_it(**limits: float) -> Database:
        opened.append(open_database(served, migrate=False, limits=ServerLimits(**limits)))  # type: ignore[arg-type]
        return opened[-1]

    yield open_it
    for database in opened:
        with database.write() as session:
            session.execute(delete(ScoreRow))
        database.close()


def refused(use: Callable[[], object]) -> str:
    """The code of the error; nothing that it shows may hold the password."""
    with pytest.raises(GasError) as caught:
        use()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.as_dict())
    assert PASSWORD not in shown
    assert quote(PASSWORD, safe="") not in shown
    assert "s3cret" not in shown
    return caught.value.error_code


def test_a_server_that_restarted_is_not_noticed(postgres: PostgresPeer, open_served: Callable[..., Database]) -> None:
    database = open_served()
    with database.write() as session:
        session.add(score("a"))
    postgres.stop()
    postgres.start()
    with database.read() as session:
        assert len(session.scalars(select(ScoreRow)).all()) == 1


def test_work_that_a_restart_interrupts_is_done_again(
    postgres: PostgresPeer, open_served: Callable[..., Database]
) -> None:
    database = open_served()
    attempts: list[str] = []

    def work(session: Session) -> str:
        session.add(score("a"))
        session.flush()
        attempts.append("once")
        if len(attempts) == 1:
            postgres.stop()
            postgres.start()
        session.add(score("b"))
        session.flush()
        return "done"

    assert database.transact(work) == "done"
    assert len(attempts) == 2
    with database.read() as session:
        assert len(session.scalars(select(ScoreRow)).all()) == 2


@pytest.mark.parametrize("state", ["serialization_failure", "deadlock_detected"])
def test_work_that_loses_against_another_transaction_is_done_again_but_not_for_ever(
    open_served: Callable[..., Database], state: str
) -> None:
    database = open_served()
    undo = text(f"DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '{state}'; END $$")
    attempts: list[str] = []

    def work(session: Session, *, losses: int) -> None:
        session.add(score("a"))
        session.flush()
        attempts.append("once")
        if len(attempts) <= losses:
            session.execute(undo)

    database.transact(lambda session: work(session, losses=2))
    assert len(attempts) == 3
    with database.write() as session:
        assert len(session.scalars(delete(ScoreRow).returning(ScoreRow.hotkey)).all()) == 1
    attempts.clear()
    assert refused(lambda: database.transact(lambda session: work(session, losses=99))) == "database_conflict"
    assert len(attempts) == 4


def test_limits_end_what_takes_too_long(open_served: Callable[..., Database]) -> None:
    slow = open_served(statement_seconds=0.1)

    def sleep() -> None:
        with slow.read() as session:
            session.execute(text("SELECT pg_sleep(30)"))

    assert refused(sleep) == "database_timeout"
    with slow.read() as session:
        assert session.scalar(text("SELECT 1")) == 1


def test_a_writer_does_not_wait_for_ever_for_another_one(open_served: Callable[..., Database]) -> None:
    holder, waiter = open_served(), open_served(lock_seconds=0.1)

    def write() -> None:
        with waiter.write() as session:
            session.add(score("b"))

    with holder.write() as session:
        session.add(score("a"))
        session.flush()
        assert refused(write) == "database_busy"
    write()


def test_a_writer_that_hangs_is_put_out(open_served: Callable[..., Database]) -> None:
    hanging, other = open_served(idle_seconds=0.1), open_served()

    def hang() -> None:
        with hanging.write() as session:
            session.add(score("a"))
            session.flush()
            with other.write() as second:
                second.add(score("b"))

    assert refused(hang) == "database_lost"
    with other.read() as session:
        assert [row.hotkey for row in session.scalars(select(ScoreRow))] == ["b"]


def test_a_process_holds_no_more_connections_than_it_may(open_served: Callable[..., Database]) -> None:
    database = open_served(connections=1, pool_seconds=0.1)

    def read_twice() -> None:
        with database.read() as session:
            session.execute(text("SELECT 1"))
            with database.read() as second:
                second.execute(text("SELECT 1"))

    assert refused(read_twice) == "database_busy"


def test_text_that_the_server_cannot_hold_is_said_so(open_served: Callable[..., Database]) -> None:
    database = open_served()
    for name in ("a\0b", "x" * 65):

        def write(hotkey: str = name) -> None:
            with database.write() as session:
                session.add(score(hotkey))

        assert refused(write) == "value_refused"


def test_a_server_that_does_not_take_us_in_says_why_without_the_password(postgres: PostgresPeer) -> None:
    parsed = make_url(postgres.url)
    cases = {
        parsed.set(password=PASSWORD + "x"): "database_refused",
        parsed.set(username="nobody"): "database_refused",
        parsed.set(database="nowhere"): "database_unknown",
        parsed.set(port=1): "database_unreachable",
        parsed.set(query={"nonsense": "1"}): "configuration",
        parsed.set(drivername="postgresql+nonsense"): "configuration",
    }
    for url, code in cases.items():
        assert refused(lambda url=url: open_database(url.render_as_string(hide_password=False))) == code  # type: ignore[misc]
    # Nobody escaped the password: a piece of it stands where the port should.
    assert refused(lambda: open_database(f"postgresql://gas:{PASSWORD}localhost:5432/gas")) == "configuration"
    database = open_database(postgres.url, migrate=False)
    assert PASSWORD not in repr(database.engine) + str(database.engine.url)
    database.close()


def test_a_user_without_rights_is_refused(postgres: PostgresPeer) -> None:
    owner = open_database(postgres.database("private"))
    with owner.write() as session:
        session.execute(text("CREATE ROLE guest LOGIN PASSWORD 's3cret-guest'"))
    owner.close()
    guest = make_url(url_of(postgres.url, "private")).set(username="guest", password="s3cret-guest")

    def write() -> None:
        database = open_database(guest.render_as_string(hide_password=False), migrate=False)
        try:
            with database.write() as session:
                session.add(score("a"))
        finally:
            database.close()

    assert refused(write) == "database_refused"


def test_every_url_form_of_the_server_is_taken(postgres: PostgresPeer) -> None:
    for driver in ("postgresql", "postgresql+psycopg"):
        database = open_database(
            make_url(postgres.url).set(drivername=driver).render_as_string(hide_password=False), migrate=False
        )
        with database.read() as session:
            assert session.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        with database.write() as session:
            assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
        database.close()


def test_media_keep_their_columns_on_a_server(open_served: Callable[..., Database]) -> None:
    database = open_served()
    with database.write() as session:
        session.add(
            MediumRow(
                sha256="0" * 64, validator="v", generator="g", task_id="t", modality="image", media_type="synthetic",
                width=1, height=2, mime="image/png", phash=None, issuer="ä" * 256, verified_at=1.25,
            )
        )  # fmt: skip
    with database.write() as session:
        row = session.get_one(MediumRow, "0" * 64)
        assert (row.issuer, row.phash, row.verified_at) == ("ä" * 256, None, 1.25)
        session.delete(row)
