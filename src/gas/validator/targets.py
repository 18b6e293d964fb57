"""Where shards are published: a folder, a bucket that speaks S3, or a data set of a Hugging Face hub.

What is read back by ``gascli data add ... --source arena`` is named by the same address.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from gas.datasets.store_files import locked
from gas.errors import ConfigurationError, StorageError
from gas.storage.folder_blobs import flush_folder
from gas.validator.target_base import Target, checked_path

__all__ = ["FolderTarget", "S3Target", "check_target", "open_target"]

_MAX_ADDRESS: Final = 512
_PART: Final = 16 << 20
_HINT: Final = "Give a folder, s3://bucket/prefix?endpoint=https://host&region=name, or hf://OWNER/NAME."


def check_target(address: str, base: Path | None = None) -> str:
    """The address in the one form in which it is kept: a folder's is absolute.

    Args:
        address: As the operator writes it.
        base: From which a relative folder counts; the working folder when left out.

    Raises:
        ConfigurationError: ``publish_address``: it names no target, or carries a password. It is not repeated.
    """
    try:
        parts = urlsplit(address)
        bad = not address.strip() or len(address) > _MAX_ADDRESS or not address.isprintable()
        if "://" in address:
            options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
            bad |= parts.scheme not in ("s3", "hf") or bool(parts.fragment) or "@" in parts.netloc or not parts.netloc
            bad |= not options.keys() <= ({"endpoint", "region"} if parts.scheme == "s3" else {"revision"})
            bad |= any("@" in value or len(values) > 1 for values in options.values() for value in values)
    except ValueError:
        bad = True
    if bad:
        # It is not repeated: somebody may have put a password into it.
        raise ConfigurationError("The address to publish to can't be used.", code="publish_address", hint=_HINT)
    if "://" in address:
        return address.rstrip("/")
    return str(((base or Path()) / address).absolute())


def open_target(address: str, env: Mapping[str, str], *, sleep: Callable[[float], None] | None = None) -> Target:
    """The target of an address.

    Args:
        address: From :func:`check_target`.
        env: The ``AWS_*`` variables; ``HF_TOKEN`` and ``HF_ENDPOINT``; the proxies.
        sleep: Waits between tries of the hub.

    Raises:
        ConfigurationError: ``publish_address``; or the environment lacks what is needed.
    """
    parts = urlsplit(address)
    options = parse_qs(parts.query)
    if "://" not in address:
        return FolderTarget(Path(address))
    if parts.scheme == "s3":
        endpoint, region = (options.get(name, [""])[0] for name in ("endpoint", "region"))
        return S3Target(address, parts.netloc, parts.path.strip("/"), endpoint, region, env)
    from gas.validator.target_hub import HubTarget

    name = parts.netloc + parts.path
    return HubTarget(name, env, revision=options.get("revision", ["main"])[0], sleep=sleep)


class FolderTarget:
    """A folder of this machine, made when it is missing.

    A file is written aside, flushed to disk and renamed; a killed writer leaves at most one hidden file, which the
    next one overwrites.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = str(root)

    def put(self, path: str, file: Path, sha256: str) -> bool:
        """See :class:`Target`."""
        target = self._root / checked_path(path)
        with locked(self._root / ".publishing"):
            try:
                if target.is_file() and target.stat().st_size == file.stat().st_size and _digest(target) == sha256:
                    return False
                target.parent.mkdir(parents=True, exist_ok=True)
                aside = self._root / ".part"
                with file.open("rb") as source, aside.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                    sink.flush()
                    os.fsync(sink.fileno())
                aside.replace(target)
                flush_folder(target.parent)
            except OSError as error:
                raise StorageError(
                    f"A shard can't be written ({error.strerror}).", code="publish_failed", hint="Is the disk full?"
                ) from error
        return True

    def close(self) -> None:
        """Nothing is kept open."""


class S3Target:
    """Objects below a prefix of a bucket. Large ones go up in parts and are seen when they are whole.

    Args:
        address: Shown and kept.
        bucket: Its name.
        prefix: Folder inside the bucket; empty for none.
        endpoint: Of the server; empty for the environment's.
        region: Of the bucket; empty for the environment's.
        env: The ``AWS_*`` variables.
    """

    def __init__(
        self, address: str, bucket: str, prefix: str, endpoint: str, region: str, env: Mapping[str, str]
    ) -> None:
        try:
            from gas.storage.s3_blobs import open_bucket
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"The package {error.name} is not installed.", code="not_installed", hint="Install gas[bench]."
            ) from error
        self.address = address
        self._prefix = f"{prefix}/" if prefix else ""
        self._store = open_bucket(bucket, endpoint=endpoint, region=region, env=env)

    def put(self, path: str, file: Path, sha256: str) -> bool:
        """See :class:`Target`; what is there can't be told by its SHA-256, so it is always sent."""
        import obstore
        from obstore.exceptions import BaseError

        from gas.storage.s3_blobs import bucket_error

        key = self._prefix + checked_path(path)
        small = file.stat().st_size <= _PART
        try:
            with file.open("rb") as source:
                if small:
                    obstore.put(self._store, key, source.read(), use_multipart=False)
                else:
                    obstore.put(self._store, key, source, chunk_size=_PART, max_concurrency=2)
        except (BaseError, OSError, ValueError) as error:
            raise bucket_error(error, sha256) from None
        return True

    def close(self) -> None:
        """Nothing to do: obstore keeps its own connections."""


def _digest(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
