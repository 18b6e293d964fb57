"""Blobs in a bucket that speaks S3, through obstore.

Large blobs go up in parts and come down in ranges, so that memory stays the same whatever their size and no request
lasts longer than its time-out. A request is tried three times. What the server says is never passed on as it is: it
holds addresses and the name of a key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from gas.errors import ConfigurationError, StorageError
from gas.storage.blob_base import checked_name, sha256_hex

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["S3Blobs", "bucket_error", "open_bucket"]

_PART: Final = 8 << 20
_PARTS_AT_A_TIME: Final = 3
_MOST_PARTS: Final = 9_000
_EMPTY: Final = sha256_hex(b"")
_TRIES: Final = 3
_REQUEST_SECONDS: Final = 300
_CONNECT_SECONDS: Final = 10
_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_SETTINGS: Final = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_DEFAULT_REGION": "region",
    "AWS_REGION": "region",
    "AWS_ENDPOINT_URL": "endpoint",
    "AWS_ENDPOINT_URL_S3": "endpoint",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "virtual_hosted_style_request",
}
"""Later names win over earlier ones."""


class _Changed(Exception):
    """The file is another one than it was when its hash was taken."""


class S3Blobs:
    """Blobs as objects ``<prefix>/<first two digits>/<sha256>``: the layout of the folder store.

    A blob that is there with the right length is not sent again. S3 shows an object when it is whole, so that a
    reader never sees half of one; parts of a killed upload are invisible (let the bucket's lifecycle rule remove them).

    Args:
        bucket: Name of the bucket, which must exist.
        prefix: Folder inside the bucket; empty for none.
        endpoint: Address of the server; empty means the environment's, and without one Amazon's.
        region: Region of the bucket; empty means the environment's, or ``us-east-1``.
        env: The ``AWS_*`` variables: keys, session token, region, endpoint. Without keys the machine's own role counts.

    Raises:
        gas.errors.ConfigurationError: The values don't make a connection.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, endpoint: str = "", region: str = "", env: Mapping[str, str]
    ) -> None:
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._store = open_bucket(bucket, endpoint=endpoint, region=region, env=env)

    def put(self, data: bytes, *, name: str | None = None) -> str:
        """Store bytes durably; a name that is given is believed.

        Raises:
            gas.errors.StorageError: ``bucket_missing``, ``blobs_refused``, ``blobs_unreachable``, or ``storage``.
        """
        name = sha256_hex(data) if name is None else checked_name(name)
        if not self._holds(name, len(data)):
            self._send(name, data)
        return name

    def put_file(self, path: Path) -> str:
        """Store a file's bytes durably, in parts; the file must not change meanwhile.

        Raises:
            gas.errors.StorageError: As :meth:`put`; ``blob_changed`` when the file changed while it was sent.
        """
        try:
            with path.open("rb") as source:
                name = hashlib.file_digest(source, "sha256").hexdigest()
                size = source.tell()
                if self._holds(name, size):
                    return name
                source.seek(0)
                if size <= _PART:
                    data = source.read(_PART + 1)
                    if sha256_hex(data) != name:
                        raise _Changed
                    self._send(name, data)
                else:
                    self._send(name, _unchanged(source, name), size)
        except _Changed:
            raise StorageError("The file changed while it was stored.", code="blob_changed") from None
        except OSError as error:
            raise StorageError(f"The file could not be read ({error.strerror}).") from error
        return name

    def get(self, name: str) -> bytes:
        """Fetch bytes and check them against their name.

        Raises:
            gas.errors.StorageError: ``blob_missing``, ``blob_damaged``, or as :meth:`put`.
        """
        data = b"".join(self._ranges(name))
        if sha256_hex(data) != name:
            raise _damaged(name)
        return data

    def get_file(self, name: str, target: Path) -> None:
        """Fetch bytes into a file, range by range, and check them against their name; raises like :meth:`get`."""
        digest, ranges = hashlib.sha256(), self._ranges(name)
        # Asked for first, so that an unknown name leaves the target as it is.
        chunk = next(ranges, b"")
        try:
            with target.open("wb") as sink:
                while chunk:
                    digest.update(chunk)
                    sink.write(chunk)
                    chunk = next(ranges, b"")
            if digest.hexdigest() != name:
                raise _damaged(name)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise StorageError(f"The blob could not be copied ({error.strerror}).") from error
        except StorageError:
            target.unlink(missing_ok=True)
            raise

    def exists(self, name: str) -> bool:
        """Whether the blob is there.

        Raises:
            gas.errors.StorageError: As :meth:`put`; without the right to list, S3 refuses instead of saying no.
        """
        return self._look(name) is not None

    def delete(self, name: str) -> None:
        """Remove the blob."""
        try:
            obstore.delete(self._store, self._key(name))
        except FileNotFoundError:
            return
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, name) from None

    def names(self) -> Iterator[str]:
        """All names; other objects below the prefix are passed over."""
        pattern = re.compile(re.escape(self._prefix) + r"([0-9a-f]{2})/(\1[0-9a-f]{62})")
        try:
            for page in obstore.list(self._store, prefix=self._prefix or None):
                for meta in page:
                    if found := pattern.fullmatch(meta["path"]):
                        yield found[2]
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, "") from None

    def _key(self, name: str) -> str:
        return f"{self._prefix}{checked_name(name)[:2]}/{name}"

    def _look(self, name: str) -> ObjectMeta | None:
        try:
            return obstore.head(self._store, self._key(name))
        except FileNotFoundError:
            return None
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, name) from None

    def _holds(self, name: str, size: int) -> bool:
        found = self._look(name)
        return found is not None and found["size"] == size

    def _send(self, name: str, data: bytes | Iterator[bytes], size: int = 0) -> None:
        try:
            if isinstance(data, bytes):
                obstore.put(self._store, self._key(name), data, use_multipart=False)
            else:
                # What the iterator raises ends the upload before it is completed.
                part = max(_PART, size // _MOST_PARTS)
                obstore.put(self._store, self._key(name), data, chunk_size=part, max_concurrency=_PARTS_AT_A_TIME)
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, name) from None

    def _ranges(self, name: str) -> Iterator[bytes]:
        key = self._key(name)
        if name == _EMPTY:
            # No range of an object without bytes can be asked for.
            if self._look(name) is None:
                raise _missing(name)
            return
        try:
            first = obstore.get(self._store, key, options={"range": (0, _PART)})
            size = first.meta["size"]
            yield bytes(first.bytes())
            for start in range(_PART, size, _PART):
                yield bytes(obstore.get_range(self._store, key, start=start, end=min(start + _PART, size)))
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, name) from None


def open_bucket(bucket: str, *, endpoint: str = "", region: str = "", env: Mapping[str, str]) -> S3Store:
    """A bucket that every request to is tried three times; the arguments are those of :class:`S3Blobs`.

    Raises:
        gas.errors.ConfigurationError: The values don't make a connection.
    """
    config: dict[str, Any] = {setting: env[name] for name, setting in _SETTINGS.items() if env.get(name)}
    config |= {"endpoint": endpoint} if endpoint else {}
    config |= {"region": region} if region else {}
    config.setdefault("region", "us-east-1")
    try:
        return S3Store(
            bucket,
            config=config,  # type: ignore[arg-type]
            client_options={
                "allow_http": config.get("endpoint", "").startswith("http://"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "timeout": timedelta(seconds=_REQUEST_SECONDS),
            },
            retry_config={
                "max_retries": _TRIES - 1,
                "retry_timeout": timedelta(seconds=_REQUEST_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=200),
                    "max_backoff": timedelta(seconds=5),
                    "base": 4,
                },
            },
        )
    except (BaseError, ValueError, OSError):
        # Its text may repeat a value of the environment.
        raise ConfigurationError(
            "The S3 settings don't make a connection to a bucket.",
            code="blobs_address",
            hint="Look at the endpoint, the region and the AWS_* variables.",
        ) from None


def _unchanged(source: IO[bytes], name: str) -> Iterator[bytes]:
    """The file in pieces; raises at its end when it is another one than ``name``."""
    digest = hashlib.sha256()
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != name:
        raise _Changed


def _missing(name: str) -> StorageError:
    return StorageError(f"Blob {name} is not in the store.", code="blob_missing")


def _damaged(name: str) -> StorageError:
    return StorageError(f"Blob {name} is damaged.", code="blob_damaged")


def bucket_error(error: Exception, name: str) -> StorageError:
    """What an error of obstore means, in our own words; ``name`` is the blob's."""
    text = str(error)[:4096]
    found, said = _STATUS.search(text), _CODE.search(text)
    status, code = found[1] if found else "", said[1] if said else ""
    if code == "NoSuchBucket":
        return StorageError(
            "The blob store has no such bucket.", code="bucket_missing", hint="Create it, or correct the blobs URL."
        )
    if isinstance(error, FileNotFoundError):
        return _missing(name)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in ("401", "403"):
        return StorageError(
            f"The blob store refuses access{f' ({code})' if code else ''}.",
            code="blobs_refused",
            hint="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do in this bucket.",
        )
    if status == "416":
        # An object without bytes under a name that is not that of no bytes.
        return _damaged(name)
    if not status or status in ("408", "429") or status.startswith("5"):
        return StorageError(
            f"The blob store does not answer after {_TRIES} tries{f' (status {status})' if status else ''}.",
            code="blobs_unreachable",
            hint="Is the endpoint right, and is its server up?",
        )
    return StorageError(f"The blob store refuses the request ({code or f'status {status}'}).")
