"""Drawing a plan from everything that was fetched: which media, with which weight and which seed.

Steps, all on columns, so that a million candidates take seconds:

1. A medium that is there more than once counts once: the held-out copy before the arena's before a public one, then
   by data set and the other columns. Where the copies contradict each other about the media type, all of them are
   left out.
2. A medium outside the holdouts whose origin is also the origin of a held-out one is left out, so that adding public
   sets never changes what is held out, and no origin is on both sides.
3. The filters of the :class:`~gas.datasets.plan_spec.PlanSpec`. Steps 1 and 2 come before them: what a set may give
   does not depend on what else is asked for.
4. Real and fake media get half of the plan each. On each side every data set gives the same number, an arena set
   :data:`~gas.datasets.plan_spec.ARENA_FACTOR` times that, a small set all it has; inside a set synthetic and
   semisynthetic media share evenly. A side with too few media gives all of them, and the other one keeps to its half.
5. Inside a set the media with the lowest places are taken (:mod:`gas.datasets.drawing`).

So a set's draw depends on its own media and on the seed, and what other sets there are decides no more than how far
down the set's own order it goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gas import __version__
from gas.datasets.drawing import fill, hash_words, places
from gas.datasets.plan_spec import PlanMode, PlanSpec
from gas.errors import ConfigurationError
from gas.scoring.detection import sample_weights
from gas.types import MediaType, Provenance

if TYPE_CHECKING:
    import pyarrow as pa

    from gas.datasets.plan_file import Plan

__all__ = ["CANDIDATE_COLUMNS", "draw_plan", "slim"]

CANDIDATE_COLUMNS: Final = (
    "sha256",
    "dataset",
    "modality",
    "media_type",
    "mime",
    "source",
    "origin",
    "generator",
    "category",
    "mask_sha256",
    "hotkey",
)
"""Columns of :func:`~gas.datasets.items.item_schema` that a drawing reads; a table may have others."""

_TYPES: Final = tuple(str(media_type) for media_type in MediaType)
_REAL: Final = _TYPES.index(str(MediaType.REAL))
_ROWS_AT_ONCE: Final = 1 << 16
_RANKS: Final = (Provenance.HOLDOUT, Provenance.ARENA, Provenance.PUBLIC)

_Codes = NDArray[np.int32]
_Mask = NDArray[np.bool_]


def draw_plan(candidates: pa.Table, spec: PlanSpec, *, code_version: str = __version__) -> Plan:
    """Draw a plan.

    Args:
        candidates: Rows of :func:`~gas.datasets.items.item_schema`, in any order and of any modality; at least
            :data:`CANDIDATE_COLUMNS`. Text may be dictionary-encoded.
        spec: What to draw.
        code_version: Of the project, for the plan's description.

    Returns:
        The plan; the same for the same media, labels and spec, whatever the order of the rows.

    Raises:
        ConfigurationError: ``bad_candidates`` (a column is missing, or holds what it can't), ``empty_round``
            (nothing is left to draw from), ``one_class`` (only real or only fake media are left).
    """
    _check_columns(candidates)
    of_modality = _is(candidates, "modality", [str(spec.modality)])
    if not of_modality.all():
        candidates = candidates.filter(of_modality)
    sets, set_codes = _encoded(candidates, "dataset")
    kinds = _media_types(candidates)
    ranks = np.array([_RANKS.index(spec.provenance_of(name)) for name in sets], np.int8)
    words = hash_words(candidates["sha256"])
    dropped: dict[str, int] = {}
    # Media whose hashes begin with the same eight bytes share a place; this orders them, and is 0 for all others.
    tie = np.zeros(candidates.num_rows, np.int32)
    keep = _distinct(candidates, words, ranks[set_codes], kinds, tie, dropped)
    if (ranks == 0).any() and (ranks > 0).any():
        _untangle(candidates, keep, ranks[set_codes] == 0, dropped)
    keep &= _wanted(candidates, spec, sets, set_codes, ranks, kinds)

    groups = set_codes * np.int32(len(_TYPES)) + kinds
    counts = np.bincount(groups[keep], minlength=len(sets) * len(_TYPES)).reshape(len(sets), len(_TYPES))
    if not counts.any():
        raise ConfigurationError("Nothing is left to draw a plan from.", code="empty_round", hint=_hint(dropped))
    real = int(counts[:, _REAL].sum())
    if real in (0, counts.sum()):
        raise ConfigurationError(
            f"There are only {'real' if real else 'fake'} media to draw a plan from.",
            code="one_class",
            hint=_hint(dropped),
        )
    factors = np.where(ranks == _RANKS.index(Provenance.ARENA), spec.arena_factor, 1)
    quotas = _quotas(sets, counts, [int(factor) for factor in factors], spec)
    return _plan(candidates, _lowest(groups, words, tie, keep, quotas, spec.seed), spec, code_version, dropped)


def _hint(dropped: Mapping[str, int]) -> str:
    wrong = dropped.get("contradictory", 0)
    said = "Look at the filters, and at `gascli data list` for what has been fetched."
    return f"{wrong:,} rows were left out: their sets contradict each other about the media type. " * bool(wrong) + said


def slim(table: pa.Table) -> pa.Table:
    """What a drawing needs of a data set's table, in a form that takes little memory; read set by set, and join.

    Raises:
        ConfigurationError: ``bad_candidates``: a column is missing.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    _check_columns(table)
    table = table.select(CANDIDATE_COLUMNS)
    for index, name in enumerate(CANDIDATE_COLUMNS):
        if name in _FEW_VALUES and not pa.types.is_dictionary(table[name].type):
            table = table.set_column(index, name, pc.dictionary_encode(table[name].cast(pa.string())))
    # What the reading of one set has left behind would otherwise add up over a thousand sets.
    pa.default_memory_pool().release_unused()
    return table


_FEW_VALUES: Final = frozenset(CANDIDATE_COLUMNS) - {"sha256", "origin", "mask_sha256"}


def _check_columns(table: pa.Table) -> None:
    missing = [name for name in CANDIDATE_COLUMNS if name not in table.column_names]
    if missing:
        raise ConfigurationError(f"The candidates have no column {missing[0]}.", code="bad_candidates")


def _is(table: pa.Table, name: str, values: Sequence[str]) -> _Mask:
    known, codes = _encoded(table, name)
    return np.array([value in values for value in known], bool)[codes]


def _encoded(table: pa.Table, name: str) -> tuple[list[str], _Codes]:
    """Distinct values in their order, and the index of each row's value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[name]
    try:
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column.cast(pa.string()), null_encoding="encode")
        whole = column.unify_dictionaries().combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            whole = whole.chunk(0) if whole.num_chunks else pa.array([], pa.string()).dictionary_encode()
        values = [value or "" for value in whole.dictionary.cast(pa.string()).to_pylist()]
        codes = whole.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise ConfigurationError(f"The column {name} is no text.", code="bad_candidates") from error
    ordered = sorted({*values, ""})
    place = {value: index for index, value in enumerate(ordered)}
    return ordered, np.array([*(place[value] for value in values), place[""]], np.int32)[codes]


def _media_types(table: pa.Table) -> _Codes:
    known, codes = _encoded(table, "media_type")
    place = np.array([_TYPES.index(value) if value in _TYPES else -1 for value in known], np.int32)
    kinds = place[codes]
    if (kinds < 0).any():
        raise ConfigurationError(
            f"A media type is {known[int(codes[kinds < 0][0])]!r}, not one of {', '.join(_TYPES)}.",
            code="bad_candidates",
        )
    return kinds


def _distinct(
    table: pa.Table,
    words: NDArray[np.uint64],
    ranks: NDArray[np.int8],
    kinds: _Codes,
    tie: NDArray[np.int32],
    dropped: dict[str, int],
) -> _Mask:
    """Keep one row of each medium, and number the media of one place in ``tie`` by their hashes."""
    import pyarrow as pa

    keep = np.ones(len(words), bool)
    order = np.argsort(words, kind="stable")
    same = words[order[1:]] == words[order[:-1]]
    if not same.any():
        return keep
    rows = np.sort(order[np.concatenate([[False], same]) | np.concatenate([same, [False]])])
    part = table.select(CANDIDATE_COLUMNS).take(rows)
    part = pa.table({name: part[name].cast(pa.string()) for name in part.column_names})
    part = part.append_column("rank", pa.array(ranks[rows]))
    names = ["sha256", "rank", "dataset", *(n for n in CANDIDATE_COLUMNS if n not in _FIRST)]
    rows = rows[_sorted_rows(part, names)]
    hashes = table["sha256"].take(rows).to_pylist()
    first = np.array([True, *(a != b for a, b in zip(hashes[1:], hashes, strict=False))])
    keep[rows[~first]] = False
    medium = np.cumsum(first) - 1
    lowest = np.full(int(medium[-1]) + 1, len(_TYPES), np.int32)
    highest = np.full_like(lowest, -1)
    np.minimum.at(lowest, medium, kinds[rows])
    np.maximum.at(highest, medium, kinds[rows])
    contradictory = (lowest != highest)[medium]
    keep[rows[contradictory]] = False
    tie[rows] = medium
    dropped["contradictory"] = int(contradictory.sum())
    dropped["duplicate"] = int((~first & ~contradictory).sum())
    return keep


_FIRST: Final = ("sha256", "dataset")


def _sorted_rows(table: pa.Table, names: Sequence[str]) -> NDArray[np.int64]:
    """Indices that sort a table by the columns named, nulls last."""
    import pyarrow.compute as pc

    indices: NDArray[np.int64] = (
        pc.sort_indices(table, sort_keys=[(name, "ascending") for name in names]).to_numpy().astype(np.int64)
    )
    return indices


def _untangle(table: pa.Table, keep: _Mask, held: _Mask, dropped: dict[str, int]) -> None:
    """Leave out what shares its origin with a held-out medium and isn't held out itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    origins = hash_words(table["origin"], "origin")
    # Eight bytes first, which is quick; the few that agree in them are compared whole.
    near = np.flatnonzero(keep & ~held)
    near = near[_among(origins, near, np.unique(origins[keep & held]))]
    if len(near) == 0:
        return
    secret = np.flatnonzero(keep & held)
    secret = secret[np.isin(origins[secret], origins[near])]
    column = table["origin"]
    found = pc.is_in(
        column.take(near).cast(pa.string()), value_set=column.take(secret).cast(pa.string()).combine_chunks()
    )
    leaks = near[found.to_numpy()]
    keep[leaks] = False
    dropped["split_leak"] = len(leaks)


def _among(words: NDArray[np.uint64], rows: NDArray[np.intp], known: NDArray[np.uint64]) -> _Mask:
    """Which of the rows have a word that is among the sorted ones; some at a time, to need little memory."""
    out = np.zeros(len(rows), bool)
    for start in range(0, len(rows) if len(known) else 0, _ROWS_AT_ONCE):
        part = words[rows[start : start + _ROWS_AT_ONCE]]
        at = np.minimum(np.searchsorted(known, part), len(known) - 1)
        out[start : start + len(part)] = known[at] == part
    return out


def _wanted(
    table: pa.Table, spec: PlanSpec, sets: Sequence[str], set_codes: _Codes, ranks: NDArray[np.int8], kinds: _Codes
) -> _Mask:
    """Rows that pass the filters."""
    fake = kinds != _REAL
    of_set = np.array([spec.wants_set(name) for name in sets], bool)
    if spec.holdout_only:
        of_set &= ranks == _RANKS.index(Provenance.HOLDOUT)
    wanted: _Mask = of_set[set_codes]
    if spec.categories:
        wanted &= _is(table, "category", spec.categories)
    if spec.families:
        wanted &= ~fake | _is(table, "generator", spec.families)
    if spec.arena_only:
        arena = (ranks == _RANKS.index(Provenance.ARENA))[set_codes]
        has_real = bool((wanted & arena & ~fake).any())
        wanted &= arena | (~fake & (not has_real))
    return wanted


def _quotas(
    sets: Sequence[str], counts: NDArray[np.int64], factors: Sequence[int], spec: PlanSpec
) -> NDArray[np.int64]:
    """How many of each data set and media type, int64 (sets, media types)."""
    if spec.mode is PlanMode.DEBUG:
        return np.minimum(counts, spec.per_group or 1)
    out = np.zeros_like(counts)
    sides = {True: [_REAL], False: [kind for kind in range(len(_TYPES)) if kind != _REAL]}
    sizes = {real: counts[:, kinds].sum(axis=1) for real, kinds in sides.items()}
    most = int(counts.sum()) if spec.most is None else spec.most
    # The odd one is real: fakes are what there is most of.
    halves = {True: most - most // 2, False: most // 2}
    if spec.per_group is not None:
        bound = np.array(factors) * spec.per_group
        natural = max(int(np.minimum(sizes[real], bound).sum()) for real in sides)
        halves = {real: min(half, natural) for real, half in halves.items()}
    for real, kinds in sides.items():
        present = [int(row) for row in np.flatnonzero(sizes[real])]
        given = fill(
            [sets[row] for row in present],
            [int(sizes[real][row]) for row in present],
            [factors[row] for row in present],
            halves[real],
            spec.seed,
        )
        for row, amount in zip(present, given, strict=True):
            names = [f"{sets[row]}/{_TYPES[kind]}" for kind in kinds]
            out[row, kinds] = fill(names, [int(counts[row, k]) for k in kinds], [1] * len(kinds), amount, spec.seed)
    return out


def _lowest(
    groups: _Codes,
    words: NDArray[np.uint64],
    tie: NDArray[np.int32],
    keep: _Mask,
    quotas: NDArray[np.int64],
    seed: int,
) -> NDArray[np.int64]:
    """Rows with the lowest places of each group, as many as its quota says."""
    rows = np.flatnonzero(keep)
    rows = rows[np.lexsort((tie[rows], places(words[rows], seed, "place"), groups[rows]))]
    ordered = groups[rows]
    starts = np.searchsorted(ordered, ordered, side="left")
    return rows[np.arange(len(rows)) - starts < quotas.reshape(-1)[ordered]]


def _plan(
    candidates: pa.Table, rows: NDArray[np.int64], spec: PlanSpec, code_version: str, dropped: dict[str, int]
) -> Plan:
    import pyarrow as pa

    from gas.datasets.plan_file import PLAN_SCHEMA, Plan, plan_data_hash

    # A filter goes chunk by chunk, where taking rows by number would first join the chunks of a million rows.
    mask = np.zeros(candidates.num_rows, bool)
    mask[rows] = True
    drawn = candidates.select(CANDIDATE_COLUMNS).filter(mask)
    drawn = drawn.take(_sorted_rows(pa.table({"sha256": drawn["sha256"].cast(pa.string())}), ["sha256"]))
    provenances = [str(spec.provenance_of(name)) for name in drawn["dataset"].to_pylist()]
    weights = sample_weights(provenances, {str(name): share for name, share in spec.shares.items()})
    columns = {
        "sample_id": drawn["sha256"],
        "provenance": pa.array(provenances, pa.string()),
        "generator_hotkey": drawn["hotkey"],
        "weight": pa.array(weights, pa.float64()),
        "seed": pa.array(places(hash_words(drawn["sha256"]), spec.seed, "sample"), pa.uint64()),
    }
    try:
        table = pa.table(
            {f.name: columns.get(f.name, drawn[f.name] if f.name in drawn.column_names else None) for f in PLAN_SCHEMA}
        ).cast(PLAN_SCHEMA)
        table = table.combine_chunks()
        table.validate(full=True)
        if any(table[f.name].null_count for f in PLAN_SCHEMA if not f.nullable):
            raise ValueError("A value is missing.")
    except (pa.ArrowException, ValueError) as error:
        raise ConfigurationError("A candidate lacks a value that it needs.", code="bad_candidates") from error
    return Plan(
        table=table,
        modality=spec.modality,
        mode=spec.mode,
        seed=spec.seed,
        spec=spec.as_dict(),
        code_version=code_version,
        data_hash=plan_data_hash(table),
        dropped={reason: count for reason, count in sorted(dropped.items()) if count},
    )
