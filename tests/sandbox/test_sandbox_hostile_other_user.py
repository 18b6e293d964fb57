"""The same hostile models under a parent that is not root; where this process is root, in a process of another user.

What answers a model gives is the same for every parent, so that those attempts are left to ``make security``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from models.suite import USER, Result, chosen, here, run_on

GROUPS = {"files and secrets", "network", "processes", "kernel", "resources", "endings", "evasions"}
NAMES = [a.name for a in chosen(USER) if a.group in GROUPS] if os.geteuid() == 0 and not here()[USER] else []


class Results:
    """Results as they come from the other user's process."""

    def __init__(self) -> None:
        self._found: dict[str, Result] = {}
        self._news = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            run_on(USER, chosen(USER, NAMES), self._tell, together=True)
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()

    def _tell(self, result: Result) -> None:
        with self._news:
            self._found[result.name] = result
            self._news.notify_all()

    def wait_for(self, name: str) -> Result:
        with self._news:
            self._news.wait_for(lambda: self._ended or name in self._found)
            return self._found[name]

    def join(self) -> None:
        self._thread.join()


@pytest.fixture(scope="module")
def results() -> Iterator[Results]:
    found = Results()
    yield found
    found.join()


@pytest.mark.parametrize("name", NAMES)
def test_an_ordinary_users_sandbox_contains_a_model_that(name: str, results: Results) -> None:
    result = results.wait_for(name)
    assert result.contained, f"{result.outcome}: {result.detail}"
