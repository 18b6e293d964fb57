"""The validator's own media: local models of a registry make them when nothing waits for verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog
from sqlalchemy import func, select

from gas.clock import Clock, derive_rng, derive_seed
from gas.datasets.store import DataStore
from gas.errors import ConfigurationError, MediaRejected, StorageError
from gas.generation.base import Pipeline
from gas.generation.registry import LocalModel
from gas.generation.registry_plan import LocalJob, Turn, plan_jobs
from gas.generation.registry_run import LocalFailure, LocalMedium, ModelUse, load_local, run_turns
from gas.storage.database import Database
from gas.storage.tables import MediumRow
from gas.types import Modality
from gas.validator.ground import ServiceState
from gas.validator.prompts import PromptBank, PromptFilter
from gas.validator.real_photos import real_photos
from gas.validator.store import MediaStore, MediumSource
from gas.verification.duplicates import MediaIndex, Seen

__all__ = ["LocalMaking"]

_HOUR: Final = 3600.0
_USES: Final = "local-models"
_MOST_PHOTOS: Final = 8
_GIVE_UP_SECONDS: Final = 6 * 3600.0


class LocalMaking:
    """Makes media one at a time, model by model, within limits.

    The hourly limit is divided equally among the enabled models; a model that fails is left alone for six hours.

    Args:
        models: Of the registry.
        store: Where media go.
        index: Of copies: nobody may sell the validator's own media to it.
        bank: Prompts.
        data: Real photos, for models that start from one.
        database: To see what was made lately.
        state: Where it is kept what was learnt about the models' memory.
        validator: Its hotkey.
        per_hour: Media an hour, all models together; below 1 a day is looked at instead.
        seed: Of all draws.
        clock: For the limits.
        device: What models run on.
        load: Loads a model.
    """

    def __init__(
        self,
        models: Sequence[LocalModel],
        store: MediaStore,
        index: MediaIndex,
        bank: PromptBank,
        data: DataStore,
        *,
        database: Database,
        state: ServiceState,
        validator: str,
        per_hour: float,
        seed: int,
        clock: Clock,
        device: str = "auto",
        load: Callable[[LocalModel], Pipeline] = load_local,
    ) -> None:
        self._models = [model for model in models if model.enabled]
        self._store = store
        self._index = index
        self._bank = bank
        self._data = data
        self._database = database
        self._state = state
        self._validator = validator
        self._span, whole = (_HOUR, per_hour) if per_hour >= 1 else (24 * _HOUR, 24 * per_hour)
        self._each = whole / max(1, len(self._models))
        self._seed = seed
        self._clock = clock
        self._device = device
        self._load = load
        self._uses = {name: ModelUse(**values) for name, values in state.get(_USES).items()}
        self._not_before: dict[str, float] = {}
        self._running: Iterator[LocalMedium | LocalFailure] | None = None
        self._scratch: TemporaryDirectory[str] | None = None
        self._rounds = 0
        self._log = structlog.get_logger("gas.validator")

    def close(self) -> None:
        """Let the loaded model go."""
        self._running = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def step(self) -> MediumRow | None:
        """Make one medium and keep it; None when nothing may be made now, or when it failed.

        Raises:
            gas.errors.StorageError: The store, the index or the database failed.
        """
        if self._running is None and not self._plan():
            return None
        made = next(self._running, None) if self._running is not None else None
        if made is None:
            self.close()
            self._state.put(_USES, {name: asdict(use) for name, use in self._uses.items()})
            return None
        if isinstance(made, LocalFailure):
            self._not_before[made.model.name] = self._clock.time() + _GIVE_UP_SECONDS
            self._log.warning("local_medium_failed", model=made.model.name, code=made.error.error_code, jobs=made.jobs)
            return None
        try:
            row = self._store.put_local(made, self._validator)
        except MediaRejected as error:
            self._log.warning("local_medium_unfit", model=made.model.name, code=error.error_code)
            return None
        except StorageError as error:
            if error.error_code == "store_full":
                self.close()
                return None
            raise
        if row.facts is not None:
            self._index.add(Seen.from_facts(row.sha256, row.facts))
        self._log.info("local_medium", model=made.model.name, seconds=round(made.seconds, 2), batch=made.batch)
        return row

    def _plan(self) -> bool:
        """Choose the model that has made the fewest of late, and give it a turn; whether there is one."""
        if self._store.room(MediumSource.LOCAL).full:
            return False
        counts = self._lately()
        now = self._clock.time()
        free = [
            (counts.get(model.name, 0), number, model)
            for number, model in enumerate(self._models)
            if counts.get(model.name, 0) < self._each and now >= self._not_before.get(model.name, 0.0)
        ]
        for count, _, model in sorted(free, key=lambda one: one[:2]):
            left = min(model.max_batch, max(1, int(self._each - count)))
            try:
                turn, photos = self._turn(model, left)
            except ConfigurationError as error:
                # No prompts or no photos yet; the other loops bring them.
                self._log.info("local_model_waits", model=model.name, code=error.error_code)
                self._not_before[model.name] = now + 60.0
                continue
            self._running = run_turns(
                [turn], photos=photos, clock=self._clock, uses=self._uses, device=self._device, load=self._load
            )
            return True
        return False

    def _turn(self, model: LocalModel, count: int) -> tuple[Turn, list[Path]]:
        self._rounds += 1
        seed = derive_seed(self._seed, "local", model.name, self._rounds)
        rng = derive_rng(seed, "draws")
        photos = self._photos(count, seed) if model.task.needs_source else []
        names = [path.name for path in photos]
        jobs: list[LocalJob] = []
        for number in range(count):
            prompt = self._bank.draw(rng, PromptFilter(_asked(model))).text
            jobs += plan_jobs(model, 1, seed=derive_seed(seed, number), prompts=[prompt], photos=names)
        return Turn(model, tuple(jobs)), photos

    def _photos(self, count: int, seed: int) -> list[Path]:
        items = list(real_photos(self._data))
        if not items:
            raise ConfigurationError("There are no real photos to start from.", code="no_photos")
        rng = derive_rng(seed, "photos")
        self.close()
        self._scratch = TemporaryDirectory(prefix="gas-photos-")
        found = []
        for at in rng.permutation(len(items))[: min(count, _MOST_PHOTOS)]:
            item = items[int(at)]
            path = Path(self._scratch.name, item.sha256)
            path.write_bytes(self._data.read(item))
            found.append(path)
        return found

    def _lately(self) -> dict[str, int]:
        """Media by name of the registry's model."""
        since = self._clock.time() - self._span
        name: Any = MediumRow.parameters["registry_model"].as_string()
        with self._database.read() as session:
            rows = session.execute(
                select(name, func.count())
                .where(MediumRow.source == MediumSource.LOCAL.value, MediumRow.verified_at > since)
                .group_by(name)
            ).tuples()
            return {str(found): int(count) for found, count in rows}


def _asked(model: LocalModel) -> Modality:
    return model.task.modality
