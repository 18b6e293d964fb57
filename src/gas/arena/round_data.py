"""A competition's round and its exam, drawn from the data store by the competition's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gas.arena.competitions import Competition, RoundRules
from gas.clock import derive_seed
from gas.datasets.plan import Round
from gas.datasets.plan_draw import CANDIDATE_COLUMNS, draw_plan, slim
from gas.datasets.plan_round import FrozenPlan, NormalOptions, freeze_plan, poorest_rate
from gas.datasets.plan_spec import PlanMode, PlanSpec
from gas.datasets.store import DataStore
from gas.errors import ConfigurationError
from gas.storage.blobs import BlobStore
from gas.types import Provenance

__all__ = ["RoundData", "draw_competition"]


@dataclass(frozen=True, slots=True)
class RoundData:
    """What a competition runs on.

    Attributes:
        round: The frozen round.
        exam: Its small plan, of public data only: an author can prepare for it at home.
        rejected: Number of media that were drawn and could not be taken, by the code of the reason.
    """

    round: Round
    exam: Round
    rejected: dict[str, int]


def draw_competition(
    store: DataStore,
    blobs: BlobStore,
    competition: Competition,
    *,
    seed: int,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> RoundData:
    """Draw, normalise and freeze a round and its exam.

    Args:
        store: Data sets that have been fetched.
        blobs: Where normalised media go: the arena's.
        competition: Its rules say what is drawn.
        seed: Not negative. It decides every draw, so it stays secret until the round is closed.
        on_progress: Told the step, how many media are done and how many there are.

    Raises:
        ConfigurationError: ``empty_round`` or ``one_class``: there is too little to draw from.
        gas.errors.StorageError: A medium can't be read or stored.
    """
    provenances = store.provenances()
    public = tuple(name for name, kind in provenances.items() if kind is Provenance.PUBLIC)

    def made(rules: RoundRules, seed: int, names: tuple[str, ...], step: str) -> FrozenPlan:
        chosen = tuple(n for n in names if not rules.include or any(fnmatchcase(n, glob) for glob in rules.include))
        if not chosen:
            hint = "Fetch some: gascli data fetch NAME; gascli data list names them."
            if names:
                hint = (
                    f"Of {len(names)} that are fetched, none is called like its `include`: {', '.join(rules.include)}."
                )
            raise ConfigurationError(
                f"There is no data set for {step} of {competition.name}.", code="empty_round", hint=hint
            )
        import pyarrow as pa

        spec = PlanSpec(
            modality=competition.modality,
            mode=PlanMode(rules.mode),
            seed=seed,
            provenances=provenances,
            total=rules.total if rules.mode != PlanMode.DEBUG else None,
            exclude=rules.exclude,
            categories=rules.categories,
        )
        tables = [slim(store.table(name, CANDIDATE_COLUMNS, use=False)) for name in chosen]
        plan = draw_plan(pa.concat_tables(tables), spec)
        store.touch(sorted(set(plan.table["dataset"].to_pylist())))
        return freeze_plan(
            plan,
            store.get,
            blobs.put,
            {"robustness_per_dataset": rules.robustness, "competition": competition.name},
            options=NormalOptions(rules.size, rules.frames, rules.seconds, poorest_rate(plan, store)),
            on_progress=None if on_progress is None else lambda _, done, total: on_progress(step, done, total),
        )

    exam = made(competition.exam, derive_seed(seed, "exam") >> 1, public, "the exam")
    whole = made(competition.round, seed, tuple(provenances), "the round")
    rejected: dict[str, int] = {}
    for code in (*exam.rejected.values(), *whole.rejected.values()):
        rejected[code] = rejected.get(code, 0) + 1
    return RoundData(whole.round, exam.round, rejected)
