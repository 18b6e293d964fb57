"""Servers that the contract suites share; each starts when the first test asks for it, and ends with the session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from postgres import PostgresPeer, programs, serve_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresPeer]:
    if programs() is None:
        pytest.skip("postgresql is not installed")
    with serve_postgres() as peer:
        yield peer


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes the URL of an empty database of a name, on each kind of database."""
    if request.param == "sqlite":
        return lambda name: f"sqlite:///{tmp_path / name}.db"
    peer: PostgresPeer = request.getfixturevalue("postgres")
    number = sum(map(ord, request.node.nodeid))
    return lambda name: peer.database(f"{name}_{number}_{tmp_path.name}"[:63])
