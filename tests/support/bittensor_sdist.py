"""A real runtime's metadata and golden bytes, taken from the source package of the network's own SDK.

The package is fetched once by pip with its hash pinned, and kept in a cache folder; nothing of it is installed,
imported or committed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

__all__ = ["golden", "sdist"]

_VERSION: Final = "11.3.0"
_SHA256: Final = "8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3"
_MEMBER: Final = f"bittensor-{_VERSION}/tests/fixtures/golden.json"
_DOWNLOAD_SECONDS: Final = 240


@functools.cache
def golden() -> dict[str, Any]:
    """The fixture ``tests/fixtures/golden.json``: metadata (V14 and V15 as hex) of a runtime, and what it encodes to.

    Its sections: ``network``, ``metadata``, ``storage_keys``, ``calls``, ``signature_payloads``, ``extrinsics``,
    ``constants``, ``receipt``, ``storage_values``, ``events``, ``query_maps``, ``runtime_calls``, ``block``.

    Raises:
        RuntimeError: The package can't be fetched, or isn't the pinned one.
    """
    with tarfile.open(sdist()) as package:
        member = package.extractfile(_MEMBER)
        if member is None:
            raise RuntimeError(f"The source package has no {_MEMBER}.")
        found: dict[str, Any] = json.load(member)
        return found


def sdist() -> Path:
    """The source package's file, fetched if it isn't in the cache ``GAS_TEST_CACHE`` (``~/.cache/gas/tests``).

    Raises:
        RuntimeError: The package can't be fetched, or isn't the pinned one.
    """
    cache = Path(os.environ.get("GAS_TEST_CACHE") or Path.home() / ".cache" / "gas" / "tests")
    target = cache / f"bittensor-{_VERSION}.tar.gz"
    if target.is_file() and _sha256(target) == _SHA256:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"bittensor=={_VERSION} --hash=sha256:{_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "bittensor"]
        command += ["--require-hashes", "--requirement", str(wanted), "--dest", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
        found = Path(folder) / target.name
        if done.returncode or not found.is_file() or _sha256(found) != _SHA256:
            raise RuntimeError(f"pip can't fetch the source package bittensor {_VERSION}: {done.stderr[-500:]}")
        # Two workers may fetch at once; each puts the same whole file in place.
        found.replace(target)
    return target


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
