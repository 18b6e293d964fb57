"""The data of a run: which sets its registries name, fetched when they are missing, and a plan drawn from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gas.bench.settings import BenchSettings
from gas.config import HomeSettings
from gas.datasets.entries import DatasetEntry
from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
from gas.datasets.plan_file import Plan
from gas.datasets.plan_spec import PlanMode, PlanSpec
from gas.datasets.registry import builtin_registries, builtin_registry, load_registry
from gas.datasets.sources.open import open_source
from gas.datasets.store import DataStore, open_store
from gas.datasets.store_fetch import FetchOptions, FetchProgress
from gas.errors import ConfigurationError
from gas.types import MediaType, Modality, Provenance

__all__ = ["BenchSet", "draw", "fetch_sets", "sets_of", "store_of"]


@dataclass(frozen=True, slots=True)
class BenchSet:
    """A data set that a run may draw from.

    Attributes:
        entry: What its registry says.
        base: Folder that a ``folder`` source's path is relative to.
        provenance: As what its media count.
    """

    entry: DatasetEntry
    base: Path
    provenance: Provenance


def store_of(settings: BenchSettings) -> DataStore:
    """The data store of a run: that of the cache folder, or of the home."""
    return open_store(settings.cache_dir)


def sets_of(settings: BenchSettings, modality: Modality, store: DataStore) -> tuple[BenchSet, ...]:
    """The data sets of a run, in the order of their names.

    Args:
        settings: Name the registries.
        modality: Only sets of this one count.
        store: Without a registry, its complete sets count too.

    Raises:
        ConfigurationError: A registry is wrong or missing (``registry_invalid``), a name is in both (``name_taken``),
            there is no set of the modality (``empty_round``), or only real or only fake ones (``one_class``).
    """
    found: dict[str, BenchSet] = {}
    if settings.dataset_config is None:
        where = "the home's registry"
        for name in store.names():
            entry = store.manifest(name).entry
            found[name] = BenchSet(entry, store.registry_path.parent, _provenance(entry))
        registry = HomeSettings().home / "data" / "registry.yaml"
        if registry.exists():
            found |= {e.name: BenchSet(e, registry.parent, _provenance(e)) for e in load_registry(registry).datasets}
    else:
        where = str(settings.dataset_config)
        entries, base = _registry(settings.dataset_config)
        found = {entry.name: BenchSet(entry, base, _provenance(entry)) for entry in entries}
    if settings.holdout_config is not None:
        where = f"{where} and {settings.holdout_config}"
        entries, base = _registry(settings.holdout_config)
        for entry in entries:
            if settings.dataset_config is not None and entry.name in found:
                raise ConfigurationError(
                    f"The data set {entry.name} is in both registries.",
                    code="name_taken",
                    hint="A set is held out or it is not: take it out of one of them, or rename it.",
                )
            found[entry.name] = BenchSet(entry, base, Provenance.HOLDOUT)
    chosen = tuple(found[name] for name in sorted(found) if found[name].entry.modality is modality)
    if settings.gasstation_only:
        chosen = tuple(s for s in chosen if _arena(s) or s.entry.media_type is MediaType.REAL)
    _check(chosen, modality, where, arena_only=settings.gasstation_only)
    return chosen


def fetch_sets(
    store: DataStore, sets: Iterable[BenchSet], on_fetch: Callable[[FetchProgress], None] | None = None
) -> None:
    """Fetch the sets that are not in the store yet.

    Raises:
        gas.errors.GasError: As :meth:`gas.datasets.store.DataStore.fetch`; what has arrived is kept.
    """
    here = set(store.names())
    for one in sets:
        if one.entry.name in here and store.manifest(one.entry.name).entry.digest == one.entry.digest:
            continue
        source = open_source(one.entry, one.base, os.environ)
        try:
            store.fetch(one.entry, source, FetchOptions(on_progress=on_fetch))
        finally:
            source.close()


def draw(store: DataStore, sets: Iterable[BenchSet], modality: Modality, settings: BenchSettings) -> Plan:
    """Draw the plan of a run from fetched sets: by content and seed only.

    Raises:
        ConfigurationError: As :func:`gas.datasets.plan_draw.draw_plan`.
        gas.errors.StorageError: A table can't be read.
    """
    import pyarrow as pa

    provenances: Mapping[str, Provenance] = {one.entry.name: one.provenance for one in sets}
    spec = PlanSpec(
        modality=modality,
        mode=PlanMode(settings.mode),
        seed=settings.seed,
        provenances=provenances,
        arena_only=settings.gasstation_only,
    )
    return draw_plan(pa.concat_tables([slim(store.table(name, CANDIDATE_COLUMNS)) for name in provenances]), spec)


def _registry(path: Path) -> tuple[tuple[DatasetEntry, ...], Path]:
    if str(path) in builtin_registries() and not path.exists():
        return builtin_registry(str(path)).datasets, Path()
    return load_registry(path).datasets, path.parent


def _provenance(entry: DatasetEntry) -> Provenance:
    if entry.source == "arena":
        return Provenance.ARENA
    return Provenance.HOLDOUT if entry.holdout else Provenance.PUBLIC


def _arena(one: BenchSet) -> bool:
    return one.provenance is Provenance.ARENA


def _check(sets: tuple[BenchSet, ...], modality: Modality, where: str, *, arena_only: bool) -> None:
    """Refuse before the download what can't become a plan."""
    if not sets:
        raise ConfigurationError(
            f"There is no data set of {modality} in {where}.",
            code="empty_round",
            hint="Name a registry with --dataset-config, or add sets with `gascli data add`.",
        )
    if arena_only and not any(_arena(one) for one in sets):
        raise ConfigurationError(
            f"There is no arena set of {modality} in {where}.",
            code="empty_round",
            hint="Add one whose `source` is `arena`, or leave out --gasstation-only.",
        )
    kinds = {one.entry.media_type is MediaType.REAL for one in sets}
    # An arena's shards may hold both kinds, whatever the entry says.
    if len(kinds) == 1 and not any(_arena(one) for one in sets):
        present, missing = ("real", "fake") if True in kinds else ("fake", "real")
        media_type = "synthetic" if missing == "fake" else "real"
        raise ConfigurationError(
            f"All data sets of {modality} in {where} are {present}, so there is no score.",
            code="one_class",
            hint=f"Add a {missing} one: an entry with `modality: {modality}` and `media_type: {media_type}`.",
        )
