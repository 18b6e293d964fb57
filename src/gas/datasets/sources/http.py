"""Data sets behind plain web addresses: one file, or an index that lists files beside it.

An index is JSON, when its address ends with ``.json``::

    {"version": 1, "files": [{"path": "a/one.png", "size": 1234, "sha256": "…64 hex digits…"}]}

or text, when it ends with ``.txt``, ``SHA256SUMS`` or ``.sha256``: one file a line, either as ``sha256sum`` writes
it (hash, two spaces, path) or hash, size and path with tabs between. Paths are relative to the index, and never
lead out of its folder. ``size`` may be missing; ``sha256`` may be missing in JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.client import Answer, HttpClient, is_web_address, public_url
from gas.datasets.sources.listing import check_pin, checked_listing, listing_hash, safe_path
from gas.datasets.sources.transfer import PartFile, Patience
from gas.errors import ConfigurationError, IntegrityError

__all__ = ["HttpSource"]

_SUM: Final = re.compile(r"([0-9a-fA-F]{64})(?: [ *](?P<path>.+)|\t(?P<size>\d{1,18})\t(?P<sized>.+))")
_INDEX_ENDINGS: Final = (".json", ".txt", ".sha256", "sha256sums")


class _IndexFile(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    path: str
    size: int | None = Field(default=None, ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class _Index(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    version: int = Field(ge=1, le=1)
    files: tuple[_IndexFile, ...]


class HttpSource:
    """One file, or the files of an index.

    Args:
        url: ``https://`` or ``http://``; user and password in it are sent, and shown nowhere.
        patience: Limits, clock and tries.
        env: Environment, for proxies.
        revision: The pinned revision, or empty.

    Raises:
        ConfigurationError: The address is none.
    """

    def __init__(self, url: str, patience: Patience, env: Mapping[str, str], revision: str = "") -> None:
        if not is_web_address(url):
            raise ConfigurationError(
                f"The path {public_url(url)!a} of an http source is no web address.",
                code="bad_address",
                hint="It begins with https://.",
            )
        self._url = url
        self._pinned = revision
        self._client = HttpClient(patience, env)
        self._limits = patience.limits
        self._listing: tuple[RemoteFile, ...] | None = None

    @property
    def revision(self) -> str:
        """Hash over the listing; equal as long as the source's sizes and hashes (or ETags) are."""
        return listing_hash(self.files())

    def files(self) -> tuple[RemoteFile, ...]:
        """Every file on offer, by path.

        Raises:
            SourceUnreachable: No answer after three tries.
            ConfigurationError: There is nothing at the address.
            IntegrityError: The index is broken, or is another than the pinned one.
        """
        if self._listing is None:
            listing = checked_listing(self._index() if self._is_index else (self._single(),), self._limits.max_files)
            check_pin(self._pinned, listing_hash(listing))
            self._listing = listing
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one file to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        with PartFile(part, file, self._limits, on_bytes) as target:
            self._client.download(self._address(file.path), target)

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    @property
    def _is_index(self) -> bool:
        path = urlsplit(self._url).path.lower()
        return path.endswith(_INDEX_ENDINGS)

    def _address(self, path: str) -> str:
        if not self._is_index:
            return self._url
        parts = urlsplit(self._url)
        # The query may be the key to the whole folder (a signature), so files get it too.
        address = urljoin(self._url, quote(safe_path(path)))
        return f"{address}?{parts.query}" if parts.query else address

    def _single(self) -> RemoteFile:
        name = unquote(urlsplit(self._url).path.rpartition("/")[2])
        if not name:
            raise ConfigurationError(
                "The address of an http source names a folder, not a file.",
                code="bad_address",
                hint="Give a file, or an index that ends with .json, .txt or SHA256SUMS.",
            )
        # Not every server answers to HEAD; then size and version stay unknown.
        answer = self._client.ask(self._url, method="HEAD", accept=(200, 204, 400, 405, 501))
        known = answer.status == 200
        return RemoteFile(safe_path(name), _length(answer) if known else None, None, _version(answer) if known else "")

    def _index(self) -> tuple[RemoteFile, ...]:
        answer = self._client.ask(self._url)
        if urlsplit(self._url).path.lower().endswith(".json"):
            return _from_json(answer.json())
        return _from_text(answer.body)


def _length(answer: Answer) -> int | None:
    value = answer.headers.get("content-length", "")
    encoded = answer.headers.get("content-encoding", "identity") != "identity"
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 and not encoded else None


def _version(answer: Answer) -> str:
    etag = answer.headers.get("etag", "")
    return "" if etag.startswith("W/") else etag


def _from_json(value: Any) -> tuple[RemoteFile, ...]:
    try:
        index = _Index.model_validate(value, strict=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its top"
        raise IntegrityError(f"The index is wrong at {where}: {first['msg']}.", code="bad_listing") from error
    return tuple(RemoteFile(file.path, file.size, file.sha256) for file in index.files)


def _from_text(body: bytes) -> tuple[RemoteFile, ...]:
    try:
        lines = body.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise IntegrityError("The index is not UTF-8.", code="bad_listing") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _SUM.fullmatch(line)
        if match is None:
            raise IntegrityError(
                f"Line {number} of the index is neither `hash  path` nor hash, size and path with tabs between.",
                code="bad_listing",
            )
        size = match["size"]
        found.append(RemoteFile(match["path"] or match["sized"], int(size) if size else None, match[1].lower()))
    return tuple(found)
