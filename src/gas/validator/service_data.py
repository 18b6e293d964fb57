"""The service ``sn34-data``: real data sets are fetched and refreshed, weeks are published, the media store is pruned.

Two loops that never wait for each other, for a data set may take hours. What fails is written down with the time of its
next try, and the others go on. All state is in the database: a service that was killed goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from gas.clock import Clock
from gas.errors import GasError, InfrastructureError
from gas.storage.blobs import BlobStore
from gas.storage.database import Database
from gas.validator.ground import Ground, ServiceState
from gas.validator.pruning import Pruner, needed_by_rounds
from gas.validator.publishing import Publisher
from gas.validator.settings import ValidatorSettings
from gas.validator.store import MediaStore, MediumSource, SourceLimits
from gas.validator.targets import check_target, open_target

if TYPE_CHECKING:
    from gas.datasets.entries import DatasetEntry
    from gas.datasets.store import DataStore

__all__ = ["DataKeeper", "NamedSet", "limits_of", "named_sets", "publish_env", "run"]

_BEAT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 60.0
_PRUNE_SECONDS: Final = 3600.0
_FIRST_RETRY: Final = 300.0
_LONGEST_RETRY: Final = 6 * 3600.0
_GB: Final = 10**9
_STOPPING: Final = "stopping"


@dataclass(frozen=True, slots=True)
class NamedSet:
    """A data set that is to be kept fresh, and the folder that its relative path counts from."""

    entry: DatasetEntry
    base: Path


def limits_of(settings: ValidatorSettings) -> dict[str, SourceLimits]:
    """What media may take, by their source."""
    return {
        MediumSource.MINER.value: SourceLimits(int(settings.media_max_gb * _GB)),
        MediumSource.LOCAL.value: SourceLimits(int(settings.local_media_max_gb * _GB)),
    }


def publish_env(settings: ValidatorSettings, env: Mapping[str, str]) -> dict[str, str]:
    """The environment for :func:`gas.validator.targets.open_target`, with the operator's token of the hub."""
    token = settings.hf_token.get_secret_value()
    return {**env, **({"HF_TOKEN": token} if token else {})}


def named_sets(settings: ValidatorSettings, store: DataStore) -> list[NamedSet]:
    """The data sets that the settings name, in the order of their registries; of one name the first counts.

    Raises:
        ConfigurationError: A registry is missing or wrong.
    """
    from gas.datasets.registry import builtin_registries, builtin_registry, load_registry

    globs = _words(settings.data_sets)
    found: dict[str, NamedSet] = {}
    for word in _words(settings.data_registries):
        if word == "yours":
            sets = [NamedSet(entry, store.registry_path.parent) for entry in store.entries()]
        elif word in builtin_registries():
            sets = [NamedSet(entry, Path()) for entry in builtin_registry(word).datasets]
        else:
            path = Path(word)
            sets = [NamedSet(entry, path.parent) for entry in load_registry(path).datasets]
        for one in sets:
            if any(fnmatchcase(one.entry.name, glob) for glob in globs):
                found.setdefault(one.entry.name, one)
    return list(found.values())


class DataKeeper:
    """The work of the service, each step a plain call that blocks.

    Args:
        settings: The operator's.
        database: Shared by the services.
        blobs: As above.
        clock: The time.
        state: What is found again after a restart.
        env: Environment variables: tokens, keys, endpoints, proxies.
        stopping: Asked often by what takes long; True ends it, and what was done is kept.
    """

    def __init__(
        self,
        settings: ValidatorSettings,
        database: Database,
        blobs: BlobStore,
        clock: Clock,
        state: ServiceState,
        env: Mapping[str, str],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._state = state
        self._env = env
        self._stopping = stopping
        self._log = structlog.get_logger("gas.data")

    def refresh(self) -> int:
        """Fetch every data set whose time has come; returns how many were asked.

        Raises:
            ConfigurationError: A registry is missing or wrong.
        """
        from gas.datasets.store import open_store

        store = open_store(self._settings.gas_home, self._clock)
        asked = 0
        for one in named_sets(self._settings, store):
            if self._stopping():
                break
            key = f"set/{one.entry.name}"
            before = self._state.get(key)
            if before.get("digest") == one.entry.digest and self._clock.time() < before.get("next", 0.0):
                continue
            self._state.put(key, self._refresh_one(store, one, before))
            asked += 1
        return asked

    def publish(self) -> list[str]:
        """Publish the weeks that are due; returns those that were."""
        if not self._settings.publish_target:
            return []
        before = self._state.get("publishing")
        if self._clock.time() < before.get("next", 0.0):
            return []
        try:
            target = open_target(check_target(self._settings.publish_target), publish_env(self._settings, self._env))
            try:
                publisher = Publisher(
                    self._database,
                    self._blobs,
                    target,
                    self._clock,
                    shard_bytes=self._settings.publish_shard_mb << 20,
                    scratch=self._settings.state_path / "publishing",
                )
                weeks = publisher.due()
                for week in weeks:
                    publisher.publish(week, lambda *_: self._go_on())
            finally:
                target.close()
        except GasError as error:
            self._failed("publishing", before, error)
            return []
        now = self._clock.time()
        self._state.put("publishing", {"at": now, "weeks": weeks or before.get("weeks", [])})
        return weeks

    def prune(self) -> None:
        """Prune the media store, once an hour."""
        before = self._state.get("prune")
        if self._clock.time() < before.get("next", 0.0):
            return
        limits = limits_of(self._settings)
        keep = self._settings.media_keep_days
        try:
            report = Pruner(self._database, self._blobs, self._clock, limits, keep_days=keep).prune()
        except GasError as error:
            self._failed("prune", before, error)
            return
        now = self._clock.time()
        self._state.put("prune", {"at": now, "next": now + _PRUNE_SECONDS, "report": report.as_dict()})

    def facts(self) -> dict[str, Any]:
        """For the heartbeat: how much media there are, and what fails."""
        stats = MediaStore(self._database, self._blobs, self._clock).stats()
        publishing = self._state.get("publishing")
        return {
            "media": sum(stats.media.values()),
            "bytes": sum(size for name, size in stats.bytes.items() if not name.endswith(("/pruned", "/lost"))),
            "published": publishing.get("weeks", [])[-1:],
            "publishing_error": publishing.get("error", ""),
        }

    def _refresh_one(self, store: DataStore, one: NamedSet, before: dict[str, Any]) -> dict[str, Any]:
        from gas.datasets.sources.open import open_source
        from gas.datasets.sources.packages import PACKED, default_material_dir, fetch
        from gas.datasets.store_fetch import FetchOptions

        entry = one.entry
        seen = {"digest": entry.digest, "at": self._clock.time()}
        try:
            if entry.source in PACKED:
                fetch([entry], default_material_dir())
            needed, _ = needed_by_rounds(self._database, self._blobs)
            options = FetchOptions(
                jobs=2,
                disk_budget=int(self._settings.data_max_gb * _GB),
                pinned=needed,
                refresh=True,
                on_progress=lambda _: self._go_on(),
            )
            source = open_source(entry, one.base, self._env, clock=self._clock)
            try:
                manifest = store.fetch(entry, source, options)
            finally:
                source.close()
        except GasError as error:
            if error.error_code == _STOPPING:
                return before | seen | {"next": 0.0}
            failures = int(before.get("failures", 0)) + 1
            wait = _wait(failures)
            self._log.warning("set_failed", name=entry.name, code=error.error_code, seconds=wait, failures=failures)
            told = {"error": error.error_code, "message": error.message[:500], "failures": failures}
            return {**seen, **told, "items": before.get("items"), "next": self._clock.time() + wait}
        self._log.info("set_fresh", name=entry.name, media=manifest.items, bytes=manifest.bytes)
        done = {"items": manifest.items, "bytes": manifest.bytes, "revision": manifest.revision}
        return {**seen, **done, "next": self._clock.time() + self._settings.data_refresh_hours * 3600.0}

    def _go_on(self) -> None:
        if self._stopping():
            raise InfrastructureError("The service is about to end.", code=_STOPPING)

    def _failed(self, key: str, before: dict[str, Any], error: GasError) -> None:
        if error.error_code == _STOPPING:
            return
        failures = int(before.get("failures", 0)) + 1
        wait = _wait(failures)
        self._log.warning(f"{key}_failed", code=error.error_code, message=error.message, seconds=wait)
        told = {"error": error.error_code, "message": error.message[:500], "failures": failures}
        now = self._clock.time()
        self._state.put(key, {**before, **told, "at": now, "next": now + wait})


async def run(ground: Ground) -> None:
    """Keep the data until told to stop.

    Args:
        ground: What the service stands on.

    Raises:
        ConfigurationError: A registry, or the address to publish to, is wrong.
        gas.errors.StorageError: The database or the blobs fail.
    """
    if ground.settings.publish_target:
        open_target(check_target(ground.settings.publish_target), publish_env(ground.settings, os.environ)).close()
    keeper = DataKeeper(
        ground.settings, ground.database, ground.blobs, ground.clock, ground.state, os.environ, ground.stop.is_set
    )

    async def store_loop() -> None:
        while not ground.stop.is_set():
            await asyncio.to_thread(keeper.publish)
            await asyncio.to_thread(keeper.prune)
            await ground.pause(_LOOK_SECONDS)

    async def data_loop() -> None:
        while not ground.stop.is_set():
            await asyncio.to_thread(keeper.refresh)
            await ground.pause(_LOOK_SECONDS)

    async def beat_loop() -> None:
        while not ground.stop.is_set():
            await asyncio.to_thread(lambda: ground.beat(**keeper.facts()))
            await ground.pause(_BEAT_SECONDS)

    tasks = [asyncio.ensure_future(loop()) for loop in (beat_loop, store_loop, data_loop)]
    try:
        # The first that breaks ends the service, with its own error: whoever supervises it starts it again.
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _wait(failures: int) -> float:
    """Seconds until the next try: doubled with each failure in a row."""
    return float(min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 20)))
