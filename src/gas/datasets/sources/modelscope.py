"""Data sets of a ModelScope hub, by the HTTP interface that the hub's own client uses.

Used are ``/api/v1/datasets/NAME/repo/tree`` (pages by ``PageNumber`` and ``PageSize``; the last one isn't full) and
``/api/v1/datasets/NAME/repo?Revision=…&FilePath=…``. The listing carries the SHA-256 of every file. The interface
names no commit for a branch, so that the pinned revision is the hash over the listing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.client import HttpClient, is_web_address
from gas.datasets.sources.huggingface import check_repository
from gas.datasets.sources.listing import check_pin, checked_listing, listing_hash, safe_path
from gas.datasets.sources.transfer import PartFile, Patience
from gas.errors import ConfigurationError, IntegrityError

__all__ = ["ModelScopeSource"]

_DEFAULT_ENDPOINT: Final = "https://www.modelscope.cn"
_BRANCH: Final = "master"
_PAGE: Final = 200
_MAX_PAGES: Final = 10_000
_HASH_DIGITS: Final = 64


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str = Field(default="blob", alias="Type")
    path: str = Field(alias="Path")
    size: int | None = Field(default=None, alias="Size", ge=0)
    sha256: str | None = Field(default=None, alias="Sha256")
    revision: str | None = Field(default=None, alias="Revision")


class ModelScopeSource:
    """One data set repository at one revision.

    Args:
        name: ``owner/name``.
        patience: Limits, clock and tries.
        env: ``MODELSCOPE_API_TOKEN`` and ``MODELSCOPE_ENDPOINT`` are read, and the proxies.
        revision: Branch, tag or commit; or the 64 digits of a pinned listing of ``master``; empty for ``master``.

    Raises:
        ConfigurationError: The name, the revision or the endpoint is none.
    """

    def __init__(self, name: str, patience: Patience, env: Mapping[str, str], revision: str = "") -> None:
        check_repository(name, revision)
        self._endpoint = (env.get("MODELSCOPE_ENDPOINT") or _DEFAULT_ENDPOINT).rstrip("/")
        if not is_web_address(self._endpoint):
            raise ConfigurationError("MODELSCOPE_ENDPOINT is no web address.", code="bad_address")
        token = env.get("MODELSCOPE_API_TOKEN", "")
        # Older parts of the interface take the token as a cookie, newer ones as a header.
        secrets = {"authorization": f"Bearer {token}", "cookie": f"m_session_id={quote(token)}"} if token else None
        self._name = name
        self._pinned = revision if len(revision) == _HASH_DIGITS else ""
        self._branch = _BRANCH if self._pinned else (revision or _BRANCH)
        self._limits = patience.limits
        self._client = HttpClient(patience, env, secrets)
        self._listing: tuple[RemoteFile, ...] | None = None

    @property
    def revision(self) -> str:
        """Hash over the listing."""
        return listing_hash(self.files())

    def files(self) -> tuple[RemoteFile, ...]:
        """Every file of the revision, by path.

        Raises:
            SourceUnreachable: No answer after three tries.
            ConfigurationError: There is no such repository or revision, or it needs a token.
            IntegrityError: The listing is broken, or another than the pinned one.
        """
        if self._listing is None:
            listing = checked_listing(self._entries(), self._limits.max_files)
            check_pin(self._pinned, listing_hash(listing))
            self._listing = listing
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one file to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        query = urlencode({"Revision": self._branch, "FilePath": safe_path(file.path)}, quote_via=quote)
        with PartFile(part, file, self._limits, on_bytes) as target:
            self._client.download(f"{self._endpoint}/api/v1/datasets/{self._name}/repo?{query}", target)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _entries(self) -> Iterator[RemoteFile]:
        for number in range(1, _MAX_PAGES):
            query = urlencode({"Revision": self._branch, "Recursive": "True", "PageNumber": number, "PageSize": _PAGE})
            answer = self._client.ask(f"{self._endpoint}/api/v1/datasets/{self._name}/repo/tree?{query}")
            page = _page(answer.json())
            yield from (file for value in page if (file := _file(value)) is not None)
            if len(page) < _PAGE:
                return
        raise IntegrityError("The hub's listing has no end.", code="bad_listing")


def _page(value: Any) -> list[Any]:
    if isinstance(value, dict) and value.get("Success") is False:
        raise ConfigurationError(
            f"The hub refuses the listing: {str(value.get('Message'))[:200]!a}.",
            code="source_missing",
            hint="Are the names of the repository and of the revision right?",
        )
    data = value.get("Data") if isinstance(value, dict) else value
    files = data.get("Files") if isinstance(data, dict) else data
    if not isinstance(files, list):
        raise IntegrityError("The hub's listing is no list.", code="bad_listing")
    return files


def _file(value: Any) -> RemoteFile | None:
    try:
        entry = _Entry.model_validate(value)
    except ValidationError as error:
        raise IntegrityError("The hub's listing has an entry that can't be read.", code="bad_listing") from error
    if entry.kind == "tree":
        return None
    return RemoteFile(entry.path, entry.size, entry.sha256 or None, entry.revision or "")
