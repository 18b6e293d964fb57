"""What a provider's answers mean: problems read from any of their forms, and the errors that follow from them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from gas.errors import GasError, RequestRefused, ServiceUnavailable

__all__ = [
    "LONGEST_WAIT",
    "Account",
    "Answer",
    "Problem",
    "Verdict",
    "account_error",
    "moderation_refused",
    "prompt_too_long",
    "read_problem",
    "retry_after",
]

LONGEST_WAIT: Final = 3600.0
"""Seconds; a provider that asks for more patience is asked again after an hour."""

_BUSY_WAIT: Final = 20.0
_DOWN_WAIT: Final = 15.0
_UNKNOWN_OUTCOME: Final = frozenset({504, 520, 524})
_NAME: Final = re.compile(r"[a-z0-9_.:-]{1,64}")
_SECRETS: Final = re.compile(r"\S*(?:sk-|key_|Bearer)\S*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Account:
    """Who is asked, for messages to the operator.

    Attributes:
        label: The provider as people call it.
        key_variable: Variable of its key.
        url_variable: Variable of its address.
    """

    label: str
    key_variable: str
    url_variable: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a status below 400.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        body: At most the limit's number of bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def is_page(self) -> bool:
        """Whether it is a web page, as a proxy's log-in or a wrong address gives."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return kind in ("text/html", "application/xhtml+xml") or self.body[:64].lstrip()[:1] == b"<"

    def fields(self, account: Account) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            ServiceUnavailable: ``provider_failed``: it is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        raise self.nonsense(account, "something that is not JSON")

    def nonsense(self, account: Account, what: str) -> ServiceUnavailable:
        """The error for an answer that can't be used; asking again is the operator's decision."""
        if self.is_page():
            return ServiceUnavailable(
                f"{account.label} answered with a web page instead of its interface.",
                hint=f"Check {account.url_variable}; does a proxy on the way want a log-in?",
            )
        return ServiceUnavailable(f"{account.label} answered with {what}.", hint="It may have been charged for.")


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that says no.

    Attributes:
        status: HTTP status, or the one named in the body.
        names: What the provider calls it: its codes and types, in lower case.
        message: Its sentence, shortened and without anything that looks like a key; for the operator's log.
        retry_after: Seconds it asks us to wait; None when it doesn't say.
        flagged: Whether it tells what was flagged in the prompt, as moderation does.
    """

    status: int
    names: frozenset[str] = frozenset()
    message: str = ""
    retry_after: float | None = None
    flagged: bool = False

    def error(self, account: Account, *, paid: bool, uncertain: frozenset[int] = _UNKNOWN_OUTCOME) -> GasError:
        """The error that follows from the status alone.

        Args:
            account: Who was asked.
            paid: Whether the call would have been charged for had it succeeded.
            uncertain: Statuses of a gateway that gave up waiting while the work may have gone on.
        """
        label, status = account.label, self.status
        if status == 401:
            return account_error(f"{label} doesn't accept the key.", f"Check {account.key_variable}.")
        if status == 402:
            return account_error(f"The account at {label} has no credit left.", "Top it up; tasks fail until then.")
        if status == 403:
            return account_error(f"{label} doesn't allow this call to the account.", f"Check {account.key_variable}.")
        if status == 429:
            wait = self.retry_after or _BUSY_WAIT
            return ServiceUnavailable(
                f"{label} takes no more calls just now.",
                code="provider_busy",
                hint="The task is tried again later; lower MINER_MAX_CONCURRENT_TASKS if this goes on.",
                retry_after=wait,
            )
        if paid and status in uncertain:
            return ServiceUnavailable(
                f"A gateway of {label} gave up waiting (status {status}); the work may have been done and charged.",
                code="provider_uncertain",
                hint="The task isn't repeated. The provider's list of calls shows whether it was charged.",
            )
        if status in (408, 409, 425) or status >= 500:
            return ServiceUnavailable(
                f"{label} failed with status {status}.",
                hint="The task is tried again later; if this goes on, look at the provider's status page.",
                retry_after=self.retry_after or _DOWN_WAIT,
            )
        if not paid and 400 <= status < 500:
            return ServiceUnavailable(f"{label} knows nothing more of the job (status {status}).")
        if status in (404, 405) or 300 <= status < 400:
            return account_error(
                f"{label} has no such model or call (status {status}).",
                f"Check the model's name and {account.url_variable}.",
            )
        return RequestRefused(
            f"{label} can't serve this prompt with these parameters.", status=422, code="unsupported_parameters"
        )


Verdict = Callable[[Problem], GasError | None]
"""A provider's own reading of a problem; None leaves it to the status."""


def account_error(message: str, hint: str) -> ServiceUnavailable:
    """The error of a key, credit or right: nothing but the operator can mend it."""
    return ServiceUnavailable(message, code="provider_account", hint=hint)


def moderation_refused(label: str) -> RequestRefused:
    """The refusal of a prompt, or of what came of it, by a provider's moderation."""
    return RequestRefused(f"The moderation of {label} refuses this task.", status=422, code="moderation_refused")


def prompt_too_long(label: str, limit: int | None = None) -> RequestRefused:
    """The refusal of a prompt that would have to be cut."""
    most = f"; it takes {limit:,} characters" if limit else ""
    return RequestRefused(f"The prompt is too long for {label}{most}.", status=422, code="prompt_too_long")


def read_problem(status: int, headers: Mapping[str, str], body: bytes, *, now: float, key: str = "") -> Problem:
    """Read an error in any of the forms that providers use.

    Args:
        status: HTTP status.
        headers: Names in lower case.
        body: Its beginning will do; anything at all is taken.
        now: Seconds since the epoch, for a ``Retry-After`` that is a date.
        key: The secret that must not be repeated.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = {}
    wait = retry_after(headers, now)
    if not isinstance(value, dict):
        return Problem(status, retry_after=wait)
    inner = value.get("error")
    where = inner if isinstance(inner, dict) else value
    metadata = where.get("metadata")
    details = metadata if isinstance(metadata, dict) else {}
    found = [where.get("code"), where.get("type"), where.get("name"), details.get("error_type")]
    names = frozenset(_clean(name, key).lower() for name in found if isinstance(name, str))
    errors = where.get("errors")
    said = inner if isinstance(inner, str) else where.get("message")
    if said is None and isinstance(errors, list):
        said = " ".join(str(one) for one in errors[:3])
    flagged = "flagged_input" in details or "reasons" in details
    names = frozenset(name for name in names if _NAME.fullmatch(name))
    return Problem(status, names, _clean(str(said or ""), key), wait, flagged)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by ``retry-after-ms`` or ``Retry-After`` (seconds or a date), 1 to an hour; None without either.

    A date is taken relative to the server's own clock where it tells the time.

    Args:
        headers: Names in lower case.
        now: Seconds since the epoch.
    """
    milliseconds, value = headers.get("retry-after-ms", "").strip(), headers.get("retry-after", "").strip()
    if _is_number(milliseconds):
        seconds = float(milliseconds) / 1000
    elif _is_number(value):
        seconds = float(value)
    else:
        until = _time(value)
        if until is None:
            return None
        there = _time(headers.get("date", ""))
        seconds = until - (now if there is None else there)
    return min(LONGEST_WAIT, max(1.0, seconds))


def _is_number(text: str) -> bool:
    return len(text) <= 12 and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None


def _time(text: str) -> float | None:
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _clean(text: str, key: str) -> str:
    if key:
        text = text.replace(key, "***")
    text = _SECRETS.sub("***", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:300]
