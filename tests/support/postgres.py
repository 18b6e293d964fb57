"""A throw-away PostgreSQL server on the loopback address that checks passwords: Debian's package ``postgresql``.

Started by hand it runs a command with ``GAS_TEST_DATABASE_URL`` set, so that tests which take their database from
:func:`service_url` run on PostgreSQL: ``python tests/support/postgres.py python -m pytest tests/arena``.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

USER, PASSWORD = "gas", "s3cret-pässword/@:"
VARIABLE = "GAS_TEST_DATABASE_URL"
_START_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "max_wal_size": "256MB",
}


@dataclass
class PostgresPeer:
    """A running server; ``url`` is its ``postgres`` database."""

    url: str
    _start: object = None
    _process: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def database(self, name: str, template: str | None = None) -> str:
        """Create an empty database, or a copy of another one; returns its URL."""
        make_database(self.url, name, template)
        return url_of(self.url, name)

    def stop(self) -> None:
        """End at once, as by a crash of the machine: connections break."""
        for process in self._process:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        self._process.clear()

    def start(self) -> None:
        """Serve again, on the same port with the same data."""
        self._process.append(self._start())  # type: ignore[operator]
        wait_until_it_answers(self.url, self._process[0])


def programs() -> Path | None:
    """Folder of the server's programs, where it is installed."""
    beside = shutil.which("initdb")
    found = [Path(beside).parent] if beside else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found and (os.geteuid() != 0 or unprivileged() is not None) else None


def unprivileged() -> pwd.struct_passwd | None:
    """Whom the server runs as: it refuses root."""
    try:
        return pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    except KeyError:
        return None


def url_of(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A plain connection in autocommit mode."""
    parsed = make_url(url)
    return psycopg.connect(
        host=parsed.host,
        port=parsed.port,
        user=parsed.username,
        password=parsed.password,
        dbname=parsed.database,
        autocommit=True,
    )


def make_database(server: str, name: str, template: str | None = None) -> None:
    command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        command += sql.SQL(" TEMPLATE {} STRATEGY FILE_COPY").format(sql.Identifier(template))
    with connect(server) as connection:
        connection.execute(command)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            connect(url).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


@contextmanager
def serve_postgres() -> Iterator[PostgresPeer]:
    """A server with an empty cluster while the block runs."""
    found, user = programs(), unprivileged()
    if found is None or user is None:
        raise RuntimeError("postgresql is not installed")
    # Not below pytest's folder: the server's user may not enter that, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="gas-pg-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        who: dict[str, object] = {}
        if os.geteuid() == 0:
            for path in (folder, secret):
                os.chown(path, user.pw_uid, user.pw_gid)
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data, log = folder / "data", folder / "log"
        subprocess.run(
            [
                *(found / "initdb", "-D", data, "-U", USER, "--pwfile", secret, "-A", "scram-sha-256"),
                *("-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=_START_SECONDS,
            **who,  # type: ignore[call-overload]
        )
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
        command = [str(found / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
        command += [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as file:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=folder,
                    preexec_fn=_die_with_parent,
                    **who,  # type: ignore[call-overload]
                )

        url = make_url("postgresql+psycopg://").set(
            username=USER, password=PASSWORD, host="127.0.0.1", port=port, database="postgres"
        )
        peer = PostgresPeer(url.render_as_string(hide_password=False), start)
        try:
            peer.start()
            yield peer
        finally:
            peer.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def own_database(server: str, folder: Path) -> str:
    """The migrated database that belongs to a folder, made at the first call; returns its URL."""
    name = "t_" + hashlib.sha256(str(folder).encode()).hexdigest()[:24]
    with suppress(psycopg.errors.DuplicateDatabase):
        make_database(server, name, _template(server))
    return url_of(server, name)


def service_url(folder: Path, name: str = "gas") -> str:
    """The database of a test's folder: SQLite in it, or where the variable is set, one of its own on that server.

    The same folder has the same database, as it has the same file.
    """
    server = os.environ.get(VARIABLE)
    return own_database(server, folder) if server else f"sqlite:///{folder / name}.db"


def _template(server: str) -> str:
    """A migrated database to copy: migrating is most of a test's start."""
    name = "t_template"
    with connect(server) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return name
    from dbos import DBOS

    from gas.clock import RandomIds, SystemClock
    from gas.storage.database import open_database
    from gas.storage.jobs import DurableJobs, JobsConfig

    make_database(server, name)
    database = open_database(url_of(server, name))
    jobs = DurableJobs(database, JobsConfig(url_of(server, name), {}), SystemClock(), RandomIds())
    jobs.start()
    jobs.stop()
    DBOS.destroy()
    database.close()
    return name


def main() -> int:
    with serve_postgres() as peer:
        return subprocess.run(sys.argv[1:], env={**os.environ, VARIABLE: peer.url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
