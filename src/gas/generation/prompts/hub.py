"""Parquet files of a data set hub, or behind any web address, read in pieces by range requests: nothing is fetched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final
from urllib.parse import quote

from gas.datasets.sources.client import HttpClient, is_web_address, public_url
from gas.datasets.sources.huggingface import HuggingFaceSource
from gas.datasets.sources.transfer import Interrupted, Patience
from gas.errors import ConfigurationError, IntegrityError
from gas.generation.prompts.index import IndexedFile

__all__ = ["HubFiles", "WebPieces", "hub_files"]

_ENDPOINT: Final = "https://huggingface.co"
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_MAX_PIECE: Final = 128 * 1024**2
_BUFFER: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Parquet files of a data set at one commit.

    Attributes:
        revision: The commit.
        addresses: Of the files, in the order of their paths.
    """

    revision: str
    addresses: tuple[str, ...]


def hub_files(name: str, patience: Patience, env: Mapping[str, str], revision: str = "", folder: str = "") -> HubFiles:
    """The Parquet files of a data set of a Hugging Face hub.

    Args:
        name: ``owner/name``.
        patience: Limits, clock and tries.
        env: ``HF_TOKEN`` and ``HF_ENDPOINT`` are read, and the proxies.
        revision: Branch, tag or commit.
        folder: Only files whose path begins with this, e.g. ``data/train``.

    Raises:
        ConfigurationError: There is no such data set, or it has no Parquet file there.
        gas.errors.SourceUnreachable: The hub does not answer.
    """
    source = HuggingFaceSource(name, patience, env, revision)
    try:
        paths = [f.path for f in source.files() if f.path.endswith(".parquet") and f.path.startswith(folder)]
        commit = source.revision
    finally:
        source.close()
    if not paths:
        raise ConfigurationError(
            f"The data set {name} has no Parquet file there.",
            code="no_prompts",
            hint="Many sets have a branch with such files: --revision refs/convert/parquet.",
        )
    endpoint = (env.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
    return HubFiles(commit, tuple(f"{endpoint}/datasets/{name}/resolve/{commit}/{quote(path)}" for path in paths))


class WebPieces(HttpClient):
    """Pieces of files behind web addresses; see :class:`gas.generation.prompts.index.Pieces`.

    Args:
        patience: Limits, clock and tries.
        env: ``HF_TOKEN`` is sent to the hub of ``HF_ENDPOINT`` only, and the proxies are read.
    """

    def __init__(self, patience: Patience, env: Mapping[str, str]) -> None:
        token = env.get("HF_TOKEN", "")
        super().__init__(patience, env, {"authorization": f"Bearer {token}"} if token else None)
        self._hub = f"{(env.get('HF_ENDPOINT') or _ENDPOINT).rstrip('/')}/"
        self._plain = HttpClient(patience, env) if token else self

    def close(self) -> None:
        """Close all connections."""
        super().close()
        if self._plain is not self:
            self._plain.close()

    def describe(self, path: str) -> tuple[int, str]:
        """Size and ETag; see :meth:`gas.generation.prompts.index.Pieces.describe`."""
        _, size, version = self._range(path, 0, 1)
        return size, version

    def open(self, path: str) -> IO[bytes]:
        """A file that asks for what is read of it."""
        size, _ = self.describe(path)
        return io.BufferedReader(_RangeFile(self, path, size), _BUFFER)

    def read(self, file: IndexedFile, offset: int, size: int) -> bytes:
        """See :meth:`gas.generation.prompts.index.Pieces.read`."""
        data, whole, version = self._range(file.path, offset, size)
        if whole != file.size or (file.version and version and version != file.version):
            raise ConfigurationError(
                f"{public_url(file.path)} has changed since it was indexed.",
                code="index_stale",
                hint="Make the index anew.",
            )
        return data

    def piece(self, path: str, offset: int, size: int) -> bytes:
        """Some bytes of a file, whatever its version."""
        return self._range(path, offset, size)[0]

    def _range(self, url: str, offset: int, size: int) -> tuple[bytes, int, str]:
        """Bytes, the whole file's size, and its version (an ETag, or empty).

        Raises:
            ConfigurationError: ``no_ranges``: the server sends files as a whole only; or there is nothing.
            gas.errors.SourceUnreachable: No answer after three tries.
        """
        if not is_web_address(url):
            raise ConfigurationError(f"{public_url(url)!a} is no web address.", code="bad_address")
        if not 0 < size <= _MAX_PIECE:
            raise IntegrityError("A piece of a file is larger than allowed.", code="bad_listing")
        client = self if url.startswith(self._hub) else self._plain
        wanted = {"range": f"bytes={offset}-{offset + size - 1}"}

        def once() -> tuple[bytes, int, str]:
            with client._open("GET", url, wanted) as response:
                if response.status_code != 206:
                    raise _refused(response.status_code, url)
                found = _RANGE.fullmatch(response.headers.get("content-range", ""))
                if found is None or int(found[1]) != offset:
                    raise Interrupted("the source sent another piece than asked for")
                body = bytearray()
                for part in client._pieces(response):
                    body += part
                    if len(body) > size:
                        raise Interrupted("the source sent more than asked for")
                if len(body) != min(size, int(found[3]) - offset):
                    raise Interrupted("the piece broke off")
                return bytes(body), int(found[3]), response.headers.get("etag", "")

        return self.patience.repeat(public_url(url), once)


class _RangeFile(io.RawIOBase):
    """A file of the web that can seek."""

    def __init__(self, pieces: WebPieces, url: str, size: int) -> None:
        super().__init__()
        self._pieces, self._url, self._size, self._at = pieces, url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        buffer[:count] = self._pieces.piece(self._url, self._at, count)
        self._at += count
        return count


def _refused(status: int, url: str) -> ConfigurationError | Interrupted:
    where = public_url(url)
    if status == 200:
        return ConfigurationError(
            f"{where} can't be read in pieces.",
            code="no_ranges",
            hint="Fetch the file, and index it on this machine.",
        )
    if status in (401, 403):
        return ConfigurationError(f"{where} refuses access.", code="source_forbidden", hint="Set HF_TOKEN.")
    if status in (404, 410):
        return ConfigurationError(f"There is nothing at {where}.", code="source_missing", hint="Is the name right?")
    return Interrupted(f"it answered with status {status}")
