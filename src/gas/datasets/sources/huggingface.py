"""Data sets of a Hugging Face hub, by the hub's own HTTP interface.

Used are ``/api/datasets/NAME/revision/REVISION`` (a branch or tag becomes a commit), ``/api/datasets/NAME/tree/COMMIT``
(pages linked by ``Link: <…>; rel="next"``) and ``/datasets/NAME/resolve/COMMIT/PATH``. Large files carry their
SHA-256 in the listing (``lfs.oid``), small ones git's name of their content (``oid``): both are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.client import Answer, HttpClient, is_web_address
from gas.datasets.sources.listing import checked_listing, safe_path
from gas.datasets.sources.transfer import PartFile, Patience
from gas.errors import ConfigurationError, IntegrityError

__all__ = ["HuggingFaceSource", "check_repository"]

_DEFAULT_ENDPOINT: Final = "https://huggingface.co"
_REPOSITORY: Final = re.compile(r"(?:[A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_REVISION: Final = re.compile(r"[\w./-]{1,200}", re.ASCII)
_NEXT: Final = re.compile(r'<([^<>]{1,4096})>\s*;\s*rel="next"')
_PAGE: Final = 1000
_MAX_PAGES: Final = 10_000


class _Commit(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    sha: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")


class _Lfs(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    oid: str = Field(pattern=r"^(sha256:)?[0-9a-f]{64}$")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    type: str
    path: str
    size: int = Field(default=0, ge=0)
    oid: str = ""
    lfs: _Lfs | None = None


def check_repository(name: str, revision: str) -> None:
    """Refuse what can be no repository or revision, before it becomes part of an address.

    Raises:
        ConfigurationError: It is none.
    """
    if not _REPOSITORY.fullmatch(name) or ".." in name:
        raise ConfigurationError(
            f"{name[:80]!a} is no name of a repository.", code="bad_address", hint="It has the form owner/name."
        )
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ConfigurationError(f"{revision[:80]!a} is no revision.", code="bad_address")


class HuggingFaceSource:
    """One data set repository at one commit.

    Args:
        name: ``owner/name``.
        patience: Limits, clock and tries.
        env: ``HF_TOKEN`` and ``HF_ENDPOINT`` are read, and the proxies.
        revision: Branch, tag or commit; empty for ``main``.

    Raises:
        ConfigurationError: The name, the revision or the endpoint is none.
    """

    def __init__(self, name: str, patience: Patience, env: Mapping[str, str], revision: str = "") -> None:
        check_repository(name, revision)
        token = env.get("HF_TOKEN", "")
        self._endpoint = (env.get("HF_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
        if not is_web_address(self._endpoint):
            raise ConfigurationError("HF_ENDPOINT is no web address.", code="bad_address")
        self._name = name
        self._asked = revision or "main"
        self._limits = patience.limits
        self._client = HttpClient(patience, env, {"authorization": f"Bearer {token}"} if token else None)
        self._commit = ""
        self._listing: tuple[RemoteFile, ...] | None = None

    @property
    def revision(self) -> str:
        """The commit."""
        if not self._commit:
            url = f"{self._endpoint}/api/datasets/{self._name}/revision/{quote(self._asked, safe='')}"
            try:
                self._commit = _Commit.model_validate(self._client.ask(url).json()).sha
            except ValidationError as error:
                raise IntegrityError("The hub's answer names no commit.", code="bad_listing") from error
        return self._commit

    def files(self) -> tuple[RemoteFile, ...]:
        """Every file of the commit, by path.

        Raises:
            SourceUnreachable: No answer after three tries.
            ConfigurationError: There is no such repository or revision, or it needs a token.
            IntegrityError: The listing is broken.
        """
        if self._listing is None:
            self._listing = checked_listing(self._entries(), self._limits.max_files)
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one file to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        address = f"{self._endpoint}/datasets/{self._name}/resolve/{self.revision}/{quote(safe_path(file.path))}"
        git_oid = file.version if file.sha256 is None and len(file.version) == 40 else None
        with PartFile(part, file, self._limits, on_bytes, git_oid) as target:
            self._client.download(address, target)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _entries(self) -> Iterator[RemoteFile]:
        url = f"{self._endpoint}/api/datasets/{self._name}/tree/{self.revision}?recursive=true&limit={_PAGE}"
        for _ in range(_MAX_PAGES):
            answer = self._client.ask(url)
            yield from _files(answer.json())
            after = _next_page(answer, url)
            if after is None:
                return
            url = after
        raise IntegrityError("The hub's listing has no end.", code="bad_listing")


def _files(page: Any) -> Iterator[RemoteFile]:
    if not isinstance(page, list):
        raise IntegrityError("The hub's listing is no list.", code="bad_listing")
    for value in page:
        try:
            entry = _Entry.model_validate(value)
        except ValidationError as error:
            raise IntegrityError("The hub's listing has an entry that can't be read.", code="bad_listing") from error
        if entry.type == "file":
            sha256 = entry.lfs.oid.removeprefix("sha256:") if entry.lfs else None
            yield RemoteFile(entry.path, entry.size, sha256, entry.oid)


def _next_page(answer: Answer, url: str) -> str | None:
    match = _NEXT.search(answer.headers.get("link", ""))
    if match is None:
        return None
    # Pages differ in their query only. The host stays: a mirror may name the original's, and the token goes with it.
    try:
        query = urlsplit(match[1]).query
    except ValueError as error:
        raise IntegrityError(
            "The hub's listing goes on at something that is no address.", code="bad_listing"
        ) from error
    return f"{url.partition('?')[0]}?{query}"
