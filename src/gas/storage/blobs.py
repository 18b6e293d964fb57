"""Blobs: immutable bytes under the name of their SHA-256, in a folder or in a bucket."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from gas.errors import ConfigurationError
from gas.storage.blob_base import BlobStore, checked_name, sha256_hex
from gas.storage.folder_blobs import FolderBlobs

__all__ = ["BlobStore", "FolderBlobs", "checked_name", "open_blobs", "sha256_hex"]


def open_blobs(url: str | Path, env: Mapping[str, str] | None = None) -> BlobStore:
    """The blob store at an address.

    Args:
        url: A folder, or ``s3://bucket/prefix?endpoint=https://host:port&region=name`` (prefix and options may be
            left out). Keys have no place in it.
        env: The ``AWS_*`` variables with the keys; the process's environment when left out.

    Raises:
        gas.errors.ConfigurationError: ``blobs_address``: the address names no store, or carries what it may not;
            ``not_installed``: obstore is missing.
    """
    text = str(url)
    if isinstance(url, Path) or "://" not in text:
        return FolderBlobs(Path(url))
    # No message repeats the address: somebody may have put keys into it.
    try:
        parts = urlsplit(text)
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
        endpoint = urlsplit(options.get("endpoint", ["https://"])[0])
        bad = parts.scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", parts.netloc)
        bad |= bool(parts.fragment) or not options.keys() <= {"endpoint", "region"}
        bad |= any(len(values) > 1 for values in options.values())
        bad |= endpoint.scheme not in ("http", "https") or "@" in endpoint.netloc
        bad |= "endpoint" in options and not endpoint.hostname
    except ValueError:
        bad = True
    if bad:
        raise ConfigurationError(
            "The address of the blobs can't be used.",
            code="blobs_address",
            hint="Give a folder, or s3://bucket/prefix?endpoint=https://host:port&region=name; "
            "keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    try:
        from gas.storage.s3_blobs import S3Blobs
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The package {error.name} is not installed.", code="not_installed", hint="Install gas[bench]."
        ) from error
    return S3Blobs(
        parts.netloc,
        parts.path,
        endpoint=options.get("endpoint", [""])[0],
        region=options.get("region", [""])[0],
        env=os.environ if env is None else env,
    )
