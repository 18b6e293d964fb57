"""What a database's failure means: one table from the driver's states to the codes of our errors.

============================  =====================================================================================
code                          meaning
============================  =====================================================================================
``database_unreachable``      no answer from the server, or it takes no more connections
``database_refused``          wrong user or password, or a right is missing
``database_unknown``          the server has no such database
``database_lost``             the connection broke, or the server ended the transaction
``database_busy``             another writer held the lock for too long, or no connection of the pool became free
``database_timeout``          a statement ran for too long
``database_conflict``         the server undid the transaction in favour of another one
``value_refused``             a value that the column does not hold
``storage``                   anything else
============================  =====================================================================================

No message repeats the URL; a driver's own text is passed on for SQLite only, which knows no passwords.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gas.errors import StorageError

__all__ = ["CONFLICT", "LOST", "storage_failures"]

LOST: Final = "database_lost"
CONFLICT: Final = "database_conflict"

_UNREACHABLE: Final = (
    "database_unreachable",
    "The database server does not answer.",
    "Is its address right, and is it up?",
)
_REFUSED: Final = (
    "database_refused",
    "The database refuses this user.",
    "Check user, password and rights: it must own its database.",
)
_UNKNOWN: Final = ("database_unknown", "The server has no such database.", "Create it, or correct the URL.")
_LOST: Final = (LOST, "The connection to the database was lost.", None)
_BUSY: Final = ("database_busy", "The database was locked by others for too long.", None)
_TIMEOUT: Final = ("database_timeout", "A statement of the database ran for too long and was ended.", None)
_CONFLICT: Final = (CONFLICT, "The database undid the transaction in favour of another one.", "Try again.")
_FULL: Final = (
    "database_unreachable",
    "The database server takes no more connections.",
    "Raise its max_connections, or run fewer processes.",
)
_VALUE: Final = ("value_refused", "The database does not hold such a value.", None)

_STATES: Final = {
    "28000": _REFUSED,
    "28P01": _REFUSED,
    "42501": _REFUSED,
    "3D000": _UNKNOWN,
    "25P03": _LOST,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _UNREACHABLE,
    "57014": _TIMEOUT,
    "55P03": _BUSY,
    "40001": _CONFLICT,
    "40P01": _CONFLICT,
    "53300": _FULL,
}
"""PostgreSQL's SQLSTATE, appendix A of its manual."""

_WORDS: Final = {
    "password authentication failed": _REFUSED,
    "no password supplied": _REFUSED,
    "no pg_hba.conf entry": _REFUSED,
    'role "': _REFUSED,
    'database "': _UNKNOWN,
    "too many clients": _FULL,
    "remaining connection slots": _FULL,
    "starting up": _UNREACHABLE,
}
"""A refused connection carries no state, only the server's words."""

_Meaning = tuple[str, str, str | None]


@contextmanager
def storage_failures() -> Iterator[None]:
    """Turn a driver's failure into an error of ours; broken constraints stay what they are.

    Raises:
        gas.errors.StorageError: With one of the codes above.
        sqlalchemy.exc.IntegrityError: A constraint is broken.
    """
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeout as error:
        raise StorageError(
            "All connections to the database are in use.", code="database_busy", hint="Raise the pool's limit."
        ) from error
    except DBAPIError as error:
        meaning = _meaning(error)
        if meaning is None:
            raise
        code, message, hint = meaning
        raise StorageError(message, code=code, hint=hint) from error


def _meaning(error: DBAPIError) -> _Meaning | None:
    state = getattr(error.orig, "sqlstate", None)
    if state in _STATES:
        return _STATES[state]
    if error.connection_invalidated or (state or "").startswith("08"):
        return _LOST
    if isinstance(error, DataError):
        return _VALUE
    # SQLite says plainly DatabaseError of a file that is none of its own, or is damaged.
    if not isinstance(error, OperationalError) and type(error) is not DatabaseError:
        return None
    words = str(error.orig)
    if type(error.orig).__module__.startswith("sqlite3"):
        if "locked" in words:
            return _BUSY
        return ("storage", f"The database failed ({type(error.orig).__name__}: {words}).", None)
    if state is None:
        return next((meaning for said, meaning in _WORDS.items() if said in words), _UNREACHABLE)
    return ("storage", f"The database failed ({type(error.orig).__name__}, state {state}).", None)
