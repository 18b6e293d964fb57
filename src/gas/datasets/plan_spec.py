"""What a plan is to hold: its mode, its size, and which data sets may give to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

from gas.datasets.plan import DEFAULT_SHARES, check_shares
from gas.errors import ConfigurationError
from gas.types import Modality, Provenance

__all__ = ["ARENA_FACTOR", "FULL_SIZES", "SMALL_PER_SET", "SMALL_SIZE", "PlanMode", "PlanSpec"]


class PlanMode(StrEnum):
    """How much of the data a plan takes."""

    DEBUG = "debug"
    """A few samples of every class: of each media type of each data set."""
    SMALL = "small"
    """The entrance exam: about the same number of each data set."""
    FULL = "full"
    """A round."""


FULL_SIZES: Final[Mapping[Modality, int]] = MappingProxyType(
    {Modality.IMAGE: 55_000, Modality.VIDEO: 26_000, Modality.AUDIO: 37_000}
)
"""Samples of a full plan where nothing else is asked for."""

SMALL_SIZE: Final = 5_000
"""Samples of a small plan at most."""

SMALL_PER_SET: Final = 100
"""Samples that a small plan takes of a data set, as long as they keep within :data:`SMALL_SIZE`."""

_DEBUG_PER_CLASS: Final = 3

ARENA_FACTOR: Final = 5
"""An arena set gives so many times what another set gives."""


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What to draw.

    Attributes:
        modality: Only candidates of this modality count.
        mode: How much to take.
        seed: Not negative; every draw is derived from it.
        provenances: Provenance of each data set by name; a set that is not named is public.
        total: Samples at most; the mode's own number when left out; not for ``debug``.
        per_set: ``small``: samples of a data set; ``debug``: of each media type of a data set.
        shares: Share of the score of each provenance class (scoring.md, section 3); decides the weights only.
        include: Globs of data set names; empty means all.
        exclude: Globs of data set names to leave out.
        categories: Only media of these categories; empty means all.
        families: Only fake media of these generator families; empty means all. Real media have no family and stay.
        holdout_only: Only held-out sets.
        arena_only: Only sets of the arena; real media of other sets stay when the arena has none of its own.
        arena_factor: How many times the share of another set an arena set gives, at least 1.

    Raises:
        ConfigurationError: A number out of range, a total for ``debug``, shares that don't sum to 1, or both
            restrictions at once.
    """

    modality: Modality
    mode: PlanMode
    seed: int
    provenances: Mapping[str, Provenance] = field(default_factory=dict)
    total: int | None = None
    per_set: int | None = None
    shares: Mapping[Provenance, float] = field(default_factory=lambda: DEFAULT_SHARES)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    holdout_only: bool = False
    arena_only: bool = False
    arena_factor: int = ARENA_FACTOR

    def __post_init__(self) -> None:
        if self.seed < 0 or self.arena_factor < 1:
            raise ConfigurationError("A plan's seed is not negative, and its arena factor is at least 1.")
        if self.mode is PlanMode.DEBUG and self.total is not None:
            raise ConfigurationError("A debug plan takes some of every class; it has no total.")
        if any(number is not None and number < 1 for number in (self.total, self.per_set)):
            raise ConfigurationError("A plan's sizes are at least 1.")
        if self.holdout_only and self.arena_only:
            raise ConfigurationError("A plan is of holdouts only or of the arena only, not both.")
        check_shares({str(name): share for name, share in self.shares.items()})

    @property
    def most(self) -> int | None:
        """Samples that the plan may have; None for no bound."""
        if self.mode is PlanMode.DEBUG:
            return None
        return self.total or (SMALL_SIZE if self.mode is PlanMode.SMALL else FULL_SIZES[self.modality])

    @property
    def per_group(self) -> int | None:
        """Samples of one data set (of one of its media types for ``debug``); None for no bound."""
        if self.mode is PlanMode.FULL:
            return self.per_set
        return self.per_set or (SMALL_PER_SET if self.mode is PlanMode.SMALL else _DEBUG_PER_CLASS)

    def provenance_of(self, dataset: str) -> Provenance:
        """Provenance of a data set."""
        return self.provenances.get(dataset, Provenance.PUBLIC)

    def wants_set(self, dataset: str) -> bool:
        """Whether the name passes :attr:`include` and :attr:`exclude`."""
        return (not self.include or any(fnmatchcase(dataset, glob) for glob in self.include)) and not any(
            fnmatchcase(dataset, glob) for glob in self.exclude
        )

    def as_dict(self) -> dict[str, object]:
        """JSON form, without the provenances: each sample of the plan carries its own."""
        return {
            "total": self.most,
            "per_set": self.per_group,
            "shares": {str(name): share for name, share in sorted(self.shares.items())},
            "include": sorted(self.include),
            "exclude": sorted(self.exclude),
            "categories": sorted(self.categories),
            "families": sorted(self.families),
            "holdout_only": self.holdout_only,
            "arena_only": self.arena_only,
            "arena_factor": self.arena_factor,
        }
