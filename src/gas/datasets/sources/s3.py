"""Data sets in buckets that speak S3, through obstore.

Files come in ranges of a few megabytes, each with ``If-Match`` on the ETag of the listing: a transfer goes on where it
stopped, an object that is replaced meanwhile is noticed, and no request lasts longer than its time-out.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gas.datasets.sources.base import OnBytes, RemoteFile
from gas.datasets.sources.listing import check_pin, checked_listing, listing_hash, safe_path
from gas.datasets.sources.transfer import Interrupted, PartFile, Patience
from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import S3Store

__all__ = ["S3Source"]

_RANGE: Final = 8 << 20
_RANGE_SECONDS: Final = 300
_STATUS: Final = re.compile(r"status code: (\d{3})\b")
_OWN_IDENTITY: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_SETTINGS: Final = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
    "AWS_DEFAULT_REGION": "region",
    "AWS_REGION": "region",
    "AWS_ENDPOINT_URL": "endpoint",
    "AWS_ENDPOINT_URL_S3": "endpoint",
    "AWS_REQUEST_PAYER": "request_payer",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "virtual_hosted_style_request",
}


class S3Source:
    """Objects below a prefix of a bucket.

    Without keys or a role in the environment requests are anonymous, unless ``AWS_SKIP_SIGNATURE=false`` asks for
    the identity of the machine.

    Args:
        url: ``s3://bucket/prefix``.
        patience: Limits and tries.
        env: The ``AWS_*`` variables.
        revision: The pinned revision, or empty.

    Raises:
        ConfigurationError: The address or a variable is wrong.
    """

    def __init__(self, url: str, patience: Patience, env: Mapping[str, str], revision: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigurationError(
                "The path of an s3 source is no address of a bucket.",
                code="bad_address",
                hint="It has the form s3://bucket/prefix; keys come from the environment.",
            )
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._patience = patience
        self._env = dict(env)
        self._pinned = revision
        self._store_: S3Store | None = None
        self._lock = threading.Lock()
        self._listing: tuple[RemoteFile, ...] | None = None

    @property
    def revision(self) -> str:
        """Hash over keys, sizes and ETags."""
        return listing_hash(self.files())

    def files(self) -> tuple[RemoteFile, ...]:
        """Every object below the prefix, by path.

        Raises:
            SourceUnreachable: No answer after three tries.
            ConfigurationError: There is no such bucket, or it is not for us.
            IntegrityError: The bucket has changed since its revision was pinned, or lists too much.
        """
        if self._listing is None:
            found = self._patience.repeat(self._name, self._list_once)
            listing = checked_listing(found, self._patience.limits.max_files)
            check_pin(self._pinned, listing_hash(listing))
            self._listing = listing
        return self._listing

    def fetch(self, file: RemoteFile, part: Path, on_bytes: OnBytes | None = None) -> None:
        """Bring one object to ``part``; see :class:`gas.datasets.sources.base.Source`."""
        safe_path(file.path)
        with PartFile(part, file, self._patience.limits, on_bytes) as target:
            self._patience.repeat(self._name, lambda: self._fetch_once(file, target))

    def close(self) -> None:
        """Drop the connections."""
        self._store_ = None

    @property
    def _name(self) -> str:
        return f"The bucket {self._bucket}"

    def _list_once(self) -> list[RemoteFile]:
        import obstore

        store, most, found = self._store(), self._patience.limits.max_files, []
        try:
            for page in obstore.list(store, prefix=self._prefix or None):
                for meta in page:
                    path = meta["path"][len(self._prefix) :].lstrip("/")
                    # A key that ends with a slash stands for a folder in some consoles.
                    if path and not meta["path"].endswith("/"):
                        found.append(RemoteFile(path, meta["size"], None, meta["e_tag"] or ""))
                if len(found) > most:
                    break
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise self._meaning(error, self._prefix) from error
        return found

    def _fetch_once(self, file: RemoteFile, part: PartFile) -> None:
        import obstore

        store = self._store()
        key = f"{self._prefix}/{file.path}" if self._prefix else file.path
        try:
            while file.size is None or part.size < file.size:
                options: dict[str, Any] = {"range": (part.size, part.size + _RANGE)}
                if file.version:
                    options["if_match"] = file.version
                # mypy can't see that the dict is obstore's TypedDict, which exists for type checkers only.
                result = obstore.get(store, key, options=options)  # type: ignore[arg-type]
                start, _ = result.range
                if start != part.size or (file.version and result.meta["e_tag"] != file.version):
                    raise Interrupted("it went on at another place than asked for")
                whole = result.meta["size"]
                for chunk in result.stream(min_chunk_size=1 << 20):
                    part.write(bytes(chunk))
                if file.size is None and part.size >= whole:
                    break
        except obstore.exceptions.PreconditionError as error:
            raise part.refuse("was replaced since it was listed") from error
        except (OSError, ValueError, obstore.exceptions.BaseError) as error:
            raise self._meaning(error, file.path) from error
        part.finish()

    def _meaning(self, error: Exception, path: str) -> Interrupted | ConfigurationError:
        """What an error of obstore means; its own text holds addresses and is not passed on."""
        from obstore import exceptions

        label = ascii(path[:80])
        # Listings have no errors of their own kind: the status is in the text only.
        found = _STATUS.search(str(error)[:4096])
        status = found[1] if found else ""
        if isinstance(error, exceptions.NotFoundError | FileNotFoundError) or status == "404":
            return ConfigurationError(f"{self._name} has no {label}.", code="source_missing", hint="Is the name right?")
        denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if denied or status in ("401", "403"):
            return ConfigurationError(
                f"{self._name} refuses access to {label}.",
                code="source_forbidden",
                hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket.",
            )
        return Interrupted(f"it answered with status {status}" if status else "it did not answer as it should")

    def _store(self) -> S3Store:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        with self._lock:
            if self._store_ is None:
                try:
                    self._store_ = S3Store(
                        self._bucket,
                        config=self._config(),  # type: ignore[arg-type]
                        client_options={
                            "allow_http": self._env.get("AWS_ENDPOINT_URL", "").startswith("http://")
                            or self._env.get("AWS_ENDPOINT_URL_S3", "").startswith("http://"),
                            "connect_timeout": timedelta(seconds=self._patience.limits.connect_seconds),
                            "timeout": timedelta(seconds=_RANGE_SECONDS),
                        },
                        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
                    )
                except (BaseError, ValueError, OSError) as error:
                    raise ConfigurationError(
                        "The AWS variables of the environment don't make a connection to a bucket.", code="bad_address"
                    ) from error
            return self._store_

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            setting: self._env[name] for name, setting in _SETTINGS.items() if self._env.get(name)
        }
        config.setdefault("region", "us-east-1")
        skip = self._env.get("AWS_SKIP_SIGNATURE", "").lower()
        if skip in ("true", "1") or (not skip and not any(self._env.get(name) for name in _OWN_IDENTITY)):
            config["skip_signature"] = True
        return config
