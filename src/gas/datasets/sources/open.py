"""From a line of the registry to the source that it names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gas.clock import Clock, SystemClock
from gas.datasets.sources.base import Source
from gas.datasets.sources.transfer import Patience, TransferLimits
from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.datasets.registry import DatasetEntry

__all__ = ["open_source"]


def open_source(
    entry: DatasetEntry,
    base: Path,
    env: Mapping[str, str],
    *,
    clock: Clock | None = None,
    sleep: Callable[[float], None] | None = None,
    limits: TransferLimits | None = None,
    material_dir: Path | None = None,
) -> Source:
    """The source of a data set; nothing is asked of it yet.

    Args:
        entry: Names the source: ``source``, ``path`` and ``revision``, or the package.
        base: Folder of the registry file, from which relative paths count.
        env: Environment variables: tokens, keys, endpoints, proxies.
        clock: For time-outs.
        sleep: Waits between tries.
        limits: What the source may cost.
        material_dir: Where packages that are fetched lie.

    Raises:
        ConfigurationError: The path or the revision is none of this kind of source, or the folder is missing.
    """
    kind = str(entry.source)
    if kind in ("npm", "pypi", "debian", "python"):
        from gas.datasets.sources.packages import PackageSource, default_material_dir

        return PackageSource(entry, material_dir or default_material_dir())
    patience = Patience(limits or TransferLimits(), clock or SystemClock(), sleep or time.sleep)
    if kind == "arena":
        from gas.datasets.sources.arena import ArenaSource

        return ArenaSource(_of_path(entry.path, base, patience, env), entry.revision)
    return _of_kind(kind, entry.path, base, patience, env, entry.revision)


def _of_path(path: str, base: Path, patience: Patience, env: Mapping[str, str]) -> Source:
    """What the prefix of an arena lies on, by the look of it."""
    for kind in ("huggingface", "modelscope"):
        if path.startswith(f"{kind}:"):
            return _of_kind(kind, path.removeprefix(f"{kind}:"), base, patience, env, "")
    if path.startswith(("https://", "http://")):
        index = path if path.endswith((".json", ".txt", "SHA256SUMS")) else f"{path.rstrip('/')}/index.json"
        return _of_kind("http", index, base, patience, env, "")
    return _of_kind("s3" if path.startswith("s3://") else "folder", path, base, patience, env, "")


def _of_kind(kind: str, path: str, base: Path, patience: Patience, env: Mapping[str, str], revision: str) -> Source:
    if kind == "folder":
        from gas.datasets.sources.folder import FolderSource

        return FolderSource(base / path, patience.limits, revision)
    if kind == "http":
        from gas.datasets.sources.http import HttpSource

        return HttpSource(path, patience, env, revision)
    if kind == "huggingface":
        from gas.datasets.sources.huggingface import HuggingFaceSource

        return HuggingFaceSource(path, patience, env, revision)
    if kind == "modelscope":
        from gas.datasets.sources.modelscope import ModelScopeSource

        return ModelScopeSource(path, patience, env, revision)
    if kind == "s3":
        from gas.datasets.sources.s3 import S3Source

        return S3Source(path, patience, env, revision)
    raise ConfigurationError(f"There is no source of the kind {kind[:40]!a}.", code="bad_source")
