"""Every hostile model of the table, on the rungs that this process's user has: contained, and the next model works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from models.suite import ATTEMPTS, CHECK, PLAIN, ROOT, USER, Worker, chosen, here, static_check
from models.table import OUTCOMES

HERE = here()
ISOLATING = ROOT if not HERE[ROOT] else USER if not HERE[USER] else None
"""Rungs that are not here give no tests; ``make security`` lists them with the reason."""
REAL = [
    "reads_the_hosts_passwd",
    "reads_a_file_of_the_host",
    "connects_by_tcp_to_the_host",
    "connects_to_a_unix_socket",
    "connects_to_an_abstract_socket",
    "sends_a_datagram",
    "forks",
    "starts_a_shell",
    "makes_a_program_without_a_file",
    "signals_the_worker",
    "leaves_a_file_in_its_own_package",
    "locks_a_file_that_the_host_shares",
    "walks_the_classes",
    "hides_behind_an_alias",
    "runs_machine_code_of_its_own",
    "leaves_a_dump_when_it_crashes",
    "drops_pages_that_others_read",
    "sees_which_pages_others_read",
    "asks_the_kernel_about_the_host",
]
"""Attempts that do no harm where nothing stops them."""


@pytest.fixture(scope="module")
def isolated() -> Iterator[Worker]:
    with Worker(ISOLATING or USER) as worker:
        yield worker


@pytest.fixture(scope="module")
def denied(isolated: Worker) -> set[str]:
    """Those that may share one process, and were denied there."""
    return isolated.denied_together(chosen(isolated.rung))


@pytest.fixture(scope="module")
def plain() -> Iterator[Worker]:
    with Worker(PLAIN) as worker:
        yield worker


@pytest.mark.parametrize("name", [attempt.name for attempt in chosen(ISOLATING)] if ISOLATING else [])
def test_a_hostile_model_is_contained_when_it(name: str, isolated: Worker, denied: set[str]) -> None:
    if name not in denied:
        result = isolated.run(ATTEMPTS[name])
        assert result.contained, f"{result.outcome}: {result.detail}"


@pytest.mark.parametrize("name", [attempt.name for attempt in chosen(PLAIN)])
def test_the_plain_rung_outlives_a_model_that(name: str, plain: Worker) -> None:
    result = plain.run(ATTEMPTS[name])
    assert result.contained, f"{result.outcome}: {result.detail}"


@pytest.mark.parametrize("name", REAL)
def test_an_attempt_is_real_because_without_isolation_it(name: str, plain: Worker) -> None:
    result = plain.run(ATTEMPTS[name])
    assert (result.outcome, result.contained) == ("GOT THROUGH", False)


@pytest.mark.parametrize("name", [a.name for a in chosen(CHECK) if a.group != "packages" or a.code is not None])
def test_the_static_check_says_what_the_table_says_of_a_model_that(name: str) -> None:
    result = static_check(ATTEMPTS[name])
    assert result.contained, f"{result.outcome} ({result.code}): {result.detail}"


def test_the_table_is_large_and_every_end_in_it_has_a_meaning() -> None:
    models = [attempt for attempt in ATTEMPTS.values() if attempt.expected]
    assert len(models) >= 200
    assert all({*attempt.expected, *attempt.plain} <= set(OUTCOMES) for attempt in models)
    assert all(attempt.tries for attempt in ATTEMPTS.values())
