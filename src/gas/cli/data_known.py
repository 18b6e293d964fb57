"""Which data sets the commands know: the home's own registry, and those that ship."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gas.errors import ConfigurationError

if TYPE_CHECKING:
    from gas.datasets.entries import DatasetEntry
    from gas.datasets.sources.base import Source
    from gas.datasets.store import DataStore

__all__ = ["Known", "chosen", "fetched", "files_here", "known_sets", "opened", "pinned_blobs"]


@dataclass(frozen=True, slots=True)
class Known:
    """A data set that can be fetched.

    Attributes:
        entry: What its registry says.
        base: Folder that a ``folder`` source's path is relative to.
        registry: Which registry: ``yours``, the name of a built-in one, or of a file.
    """

    entry: DatasetEntry
    base: Path
    registry: str


def known_sets(store: DataStore, registry: Path | None = None) -> dict[str, Known]:
    """Every data set by name: of one registry, or the home's own first and then those that ship.

    Args:
        store: Of the home.
        registry: A file, or the name of one that ships.

    Raises:
        ConfigurationError: A registry is wrong.
    """
    from gas.datasets.registry import builtin_registries, builtin_registry, load_registry

    if registry is not None and str(registry) in builtin_registries() and not registry.exists():
        return {e.name: Known(e, Path(), str(registry)) for e in builtin_registry(str(registry)).datasets}
    if registry is not None and not registry.exists() and registry.parent == Path():
        shipped = builtin_registries()
        close = difflib.get_close_matches(str(registry), shipped, n=1)
        raise ConfigurationError(
            f"There is no registry {registry.name[:100]!r}{f' (did you mean {close[0]!r}?)' if close else ''}.",
            code="registry_unknown",
            hint=f"Give a file, or one that ships: {', '.join(sorted(shipped))}.",
        )
    if registry is not None:
        return {e.name: Known(e, registry.parent, registry.name) for e in load_registry(registry).datasets}
    known = {e.name: Known(e, store.registry_path.parent, "yours") for e in store.entries()}
    for name in sorted(builtin_registries(), key=lambda name: (name == "public", name)):
        for entry in builtin_registry(name).datasets:
            known.setdefault(entry.name, Known(entry, Path(), name))
    return known


def chosen(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The names, once each.

    Raises:
        ConfigurationError: ``set_unknown``; says which was probably meant.
    """
    choices = list(known)
    out = list(dict.fromkeys(names))
    for name in out:
        if name not in choices:
            close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
            raise ConfigurationError(
                f"There is no data set {name[:100]!r}{f' (did you mean {close[0]!r}?)' if close else ''}.",
                code="set_unknown",
                hint="`gascli data list` names them.",
            )
    return out


def fetched(store: DataStore, names: Iterable[str]) -> list[str]:
    """The complete sets of that name; all where none is given.

    Raises:
        ConfigurationError: ``set_unknown``, or none is here.
    """
    here = store.names()
    if not here:
        raise ConfigurationError(
            f"No data set was fetched into {store.folder}.", code="not_fetched", hint="Run `gascli data fetch NAME`."
        )
    return chosen(names, here) or list(here)


def files_here(known: Known, material: Path) -> int:
    """Files of a package or a folder that need no fetch, or that the photos' fetch has brought."""
    from gas.datasets.sources.packages import PACKED, files_of, is_fetched

    entry = known.entry
    if entry.source == "folder":
        path = known.base / entry.path
        return len(files_of(entry.model_copy(update={"path": str(path)}), material)) if path.is_dir() else 0
    if entry.source == "python" or (entry.source in PACKED and is_fetched(entry, material)):
        return len(files_of(entry, material))
    return 0


@contextmanager
def opened(known: Known, material: Path | None) -> Iterator[Source]:
    """The source of a data set; tokens and proxies are taken from the environment."""
    from gas.datasets.sources.open import open_source

    source = open_source(known.entry, known.base, os.environ, material_dir=material)
    try:
        yield source
    finally:
        source.close()


def pinned_blobs(home: Path, plans: Iterable[Path] = ()) -> frozenset[str]:
    """SHA-256 of the media that open rounds of the home, and the plans that are named, need.

    Raises:
        ConfigurationError: A plan can't be read.
        StorageError: A round can't be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gas.config import HomeSettings

    pinned: set[str] = set()
    for plan in plans:
        try:
            schema = pq.read_schema(plan)
            names = [name for name in ("sha256", "sample_id", "mask_sha256") if name in schema.names]
            if not names:
                raise ConfigurationError(f"{plan.name} is no plan: it has no column sha256.", code="plan_unreadable")
            for column in pq.read_table(plan, columns=names).columns:
                pinned.update(value for value in column.to_pylist() if value)
        except (OSError, pa.ArrowException) as error:
            raise ConfigurationError(f"The plan {plan} can't be read.", code="plan_unreadable") from error
    settings = HomeSettings(home=home)
    if settings.database_url or (home / "gas.db").exists():
        pinned |= _open_rounds(settings.resolved_database_url, settings.blobs_path)
    return frozenset(pinned)


def _open_rounds(url: str, blobs: Path) -> set[str]:
    from sqlalchemy import select

    from gas.arena.rounds import load_round
    from gas.storage.blobs import FolderBlobs
    from gas.storage.database import open_database
    from gas.storage.tables import RoundRow

    database = open_database(url)
    try:
        with database.read() as session:
            still_open = select(RoundRow.plan_blob, RoundRow.exam_blob).where(RoundRow.closed_at.is_(None))
            names = [name for row in session.execute(still_open) for name in row if name]
    finally:
        database.close()
    store, needed = FolderBlobs(blobs), set[str]()
    for name in names:
        round_ = load_round(store, name)
        masks = round_.parameters.get("masks")
        needed.update(sample.sample_id for sample in round_.samples)
        needed.update(str(mask) for mask in (masks.values() if isinstance(masks, dict) else ()))
    return needed
