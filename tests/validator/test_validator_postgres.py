"""The validator's modules on PostgreSQL: the same tests as on SQLite, those that show most for their time.

All of them run there with ``python tests/support/postgres.py python -m pytest tests/validator``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

import test_validator_epochs
from postgres import VARIABLE, PostgresPeer, programs, serve_postgres, service_url

# Tests of the other files, with the fixtures that they take: they are collected here once more.
from test_validator_edits import (  # noqa: F401
    ground,
    test_a_photo_and_a_mask_go_to_those_who_say_that_they_change_pictures_and_to_nobody_else,
    test_what_was_sent_along_is_kept_while_a_challenge_needs_it_and_then_goes,
)
from test_validator_publishing import (  # noqa: F401
    filled,
    store,
    test_after_weeks_of_rest_each_week_is_published_for_itself_and_what_is_late_leaves_with_the_last,
    test_publishing_again_sends_nothing_and_changes_nothing,
)
from test_validator_receiving import (  # noqa: F401
    test_many_deliveries_at_once_are_each_kept_once,
    test_only_the_first_delivery_counts_also_after_a_restart,
)
from test_validator_store import (  # noqa: F401
    test_statistics_say_what_is_here,
    test_the_validators_own_medium_is_kept_with_mask_model_seed_and_parameters,
)
from test_validator_verifying import (  # noqa: F401
    blobs,
    database,
    shared,
    test_a_kill_between_any_two_writes_neither_loses_nor_doubles_a_delivery,
    test_two_workers_with_indexes_of_their_own_accept_one_of_two_copies,
)
from webhook_ground import Webhook

from gas.storage.database import open_database


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresPeer]:
    if programs() is None:
        pytest.skip("postgresql is not installed")
    with serve_postgres() as peer:
        yield peer


@pytest.fixture(autouse=True, scope="module")
def on_postgres(server: PostgresPeer) -> Iterator[None]:
    """Every database of these tests is one of the server's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, server.url)
        yield


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Webhook]:
    """Closed after the test, for open connections are warned of."""
    opened = Webhook(tmp_path)
    yield opened
    opened.ground.database.close()


def test_two_runners_at_once_reckon_one_epoch(tmp_path: Path) -> None:
    """Its fixtures have the names of the deliveries' own."""
    own = open_database(service_url(tmp_path))
    try:
        test_validator_epochs.test_two_runners_at_once_reckon_one_epoch(own, tmp_path)
    finally:
        own.close()
