"""Keeps the prompt bank filled: composes new prompts from what the validator's own real media show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gas.clock import Clock, derive_rng
from gas.errors import ConfigurationError
from gas.generation.prompts.compose import Composer
from gas.storage.database import Database
from gas.types import Modality
from gas.validator.prompts import PromptBank, PromptFilter

if TYPE_CHECKING:
    from gas.generation.prompts.scenes import Scene

__all__ = ["PromptSupply"]

_CHUNK: Final = 32
_MOST_MEDIA: Final = 50
_SCENES_SECONDS: Final = 24 * 3600.0
_PATIENCE: Final = 600.0


@dataclass(slots=True)
class _Scenes:
    found: list[Scene] = field(default_factory=list)
    at: float | None = None


class PromptSupply:
    """Tops the bank up.

    Args:
        bank: The bank.
        home: Whose data store holds real media to be described.
        modalities: What prompts are needed for.
        low: Unused prompts of each modality below which new ones are composed.
        seed: Of what is composed.
        clock: For the pauses.
    """

    def __init__(
        self, bank: PromptBank, home: Path, modalities: Sequence[Modality], low: int, seed: int, clock: Clock
    ) -> None:
        self._bank = bank
        self._home = home
        self._modalities = tuple(modalities)
        self._low = low
        self._seed = seed
        self._clock = clock
        self._scenes = _Scenes()
        self._rounds = 0
        self._not_before: dict[Modality, float] = {}

    @classmethod
    def open(
        cls, database: Database, home: Path, modalities: Sequence[Modality], low: int, seed: int, clock: Clock
    ) -> PromptSupply:
        """A supply for the bank of a database, with the best embedder of this machine."""
        from gas.generation.prompts.embedding import open_embedder

        return cls(PromptBank(database, open_embedder(), clock), home, modalities, low, seed, clock)

    @property
    def bank(self) -> PromptBank:
        """The bank."""
        return self._bank

    def top_up(self) -> int:
        """Compose a few prompts of one modality that has too few; returns how many were taken, 0 when all have enough.

        Raises:
            gas.errors.StorageError: The database does not answer.
        """
        for modality in self._modalities:
            missing = self._low - self._bank.count(PromptFilter(modality), unused=True)
            if missing <= 0 or self._clock.monotonic() < self._not_before.get(modality, 0.0):
                continue
            self._rounds += 1
            rng = derive_rng(self._seed, "prompts", modality.value, self._rounds)
            taken = self._bank.fill(Composer(modality, self._described()), modality, rng, min(_CHUNK, missing)).taken
            if not taken:
                # All that comes to mind is there already; later there may be new media to describe.
                self._not_before[modality] = self._clock.monotonic() + _PATIENCE
                continue
            return taken
        return 0

    def _described(self) -> Sequence[Scene]:
        """Scenes of the validator's real media; none while it has none, and then they are made up."""
        from gas.generation.prompts.describe import open_describer, scenes_of
        from gas.generation.prompts.store_media import media_of_store

        now = self._clock.monotonic()
        if self._scenes.at is None or now - self._scenes.at > _SCENES_SECONDS:
            try:
                self._scenes.found = scenes_of(media_of_store(self._home, _MOST_MEDIA), open_describer())
            except ConfigurationError as error:
                if error.error_code != "no_media":
                    raise
                self._scenes.found = []
            # Without media it is worth another look soon.
            self._scenes.at = now if self._scenes.found else now - _SCENES_SECONDS + _PATIENCE
        return self._scenes.found
