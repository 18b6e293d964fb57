"""What one epoch reads and what it yields, and their JSON form.

Source: specification "Chain", section 2 (golden vectors: their shape is the JSON form read and written here).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError
from gas.scoring.fixedpoint import U16_MAX, Fixed

__all__ = ["EpochInputs", "EpochOutputs", "SparseRows", "inputs_from_json", "inputs_to_json", "outputs_to_json"]

MAX_NEURONS: Final = 16_384
# Sums and products of two values within these limits stay within int64.
_MAX_BLOCK: Final = 2**40
_MAX_STAKE: Final = 2**60


@dataclass(frozen=True, slots=True)
class SparseRows:
    """A matrix of u16 by rows; an entry that is stored as 0 is not the same as one that is absent.

    Attributes:
        row: Row of each entry, int64; entries are sorted by (row, column) and no pair occurs twice.
        column: Column of each entry, int64.
        value: Each entry, int64 in [0, 65535].
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    value: NDArray[np.int64]

    @classmethod
    def from_rows(cls, rows: Mapping[int, Sequence[tuple[int, int]]]) -> Self:
        """Build from ``{row: [(column, value), ...]}``."""
        entries = sorted((i, j, v) for i, entries in rows.items() for j, v in entries)
        table = np.array(entries, dtype=np.int64).reshape(-1, 3)
        return cls(row=table[:, 0], column=table[:, 1], value=table[:, 2])

    @classmethod
    def from_dense(cls, matrix: NDArray[np.integer], present: NDArray[np.bool_] | None = None) -> Self:
        """Build from a matrix; entries are those marked in ``present``, or the non-zero ones."""
        row, column = np.nonzero(matrix if present is None else present)
        return cls(row=row, column=column, value=matrix[row, column].astype(np.int64))

    def to_rows(self, n: int) -> dict[int, list[tuple[int, int]]]:
        """``{row: [(column, value), ...]}`` with a key for each of the n rows."""
        rows: dict[int, list[tuple[int, int]]] = {i: [] for i in range(n)}
        for i, j, v in zip(self.row.tolist(), self.column.tolist(), self.value.tolist(), strict=True):
            rows[i].append((j, v))
        return rows

    def check(self, name: str, n: int) -> None:
        """Raise :class:`~gas.errors.ConfigurationError` unless this is a part of an n x n matrix of u16."""
        parts = (self.row, self.column, self.value)
        if any(part.dtype != np.int64 or part.ndim != 1 or part.size != self.row.size for part in parts):
            raise _refused(name, "needs as many rows as columns and values, all int64")
        if not self.row.size:
            return
        if self.row.min() < 0 or self.row.max() >= n or self.column.min() < 0 or self.column.max() >= n:
            raise _refused(name, f"names a uid outside 0..{n - 1}")
        if self.value.min() < 0 or self.value.max() > U16_MAX:
            raise _refused(name, f"has a value outside 0..{U16_MAX}")
        if (np.diff(self.row * n + self.column) <= 0).any():
            raise _refused(name, "names one column twice in a row, or is not sorted")


@dataclass(frozen=True, slots=True)
class EpochInputs:
    """State of a subnet when its epoch is due; every array has one entry a uid.

    Attributes:
        n: Number of neurons, at most 16384.
        stake_raw: alpha + tao * tao_weight, in rao, int64; the sum stays below 2**60.
        min_stake: Stake below this counts as 0.
        weights: As set by the validators, in u16.
        bonds: As stored by the previous epoch, in u16.
        last_update: Block of the last weights, int64.
        block_at_registration: Block in which the slot was taken, int64.
        permit: Current validator permits.
        block: Block of the epoch.
        tempo: Blocks between epochs.
        activity_cutoff: Weights older than this many blocks make a validator inactive.
        kappa: Majority of stake, as a share of 65535.
        bonds_moving_avg: Inertia of the bonds, as a share of 10**6.
        bonds_penalty: How far out-of-consensus weights are cut for bonds, as a share of 65535.
        max_allowed_validators: Permits that will be given.
        owner_uid: The owner's slot, whose self-weight counts; None when the owner has none.
        yuma3: Bonds by the third version of the rule.
        liquid_alpha: A moving average of its own for each pair; third version only.
        alpha_values: Its lower and upper bound, as shares of 65535.
        alpha_sigmoid_steepness: Its steepness, in hundredths, int16.

    Raises:
        gas.errors.ConfigurationError: A field is out of range; the message names it.
    """

    n: int
    stake_raw: NDArray[np.int64]
    min_stake: int
    weights: SparseRows
    bonds: SparseRows
    last_update: NDArray[np.int64]
    block_at_registration: NDArray[np.int64]
    permit: NDArray[np.bool_]
    block: int
    tempo: int
    activity_cutoff: int
    kappa: int
    bonds_moving_avg: int
    bonds_penalty: int
    max_allowed_validators: int
    owner_uid: int | None
    yuma3: bool
    liquid_alpha: bool
    alpha_values: tuple[int, int]
    alpha_sigmoid_steepness: int

    def __post_init__(self) -> None:
        _check_range("n", self.n, 0, MAX_NEURONS)
        for name in ("stake_raw", "last_update", "block_at_registration", "permit"):
            if getattr(self, name).shape != (self.n,):
                raise _refused(name, f"needs {self.n} entries, one a uid")
            if getattr(self, name).dtype != (np.bool_ if name == "permit" else np.int64):
                raise _refused(name, "needs to be an array of int64, or of bool for permits")
        for name, limit in (
            ("stake_raw", _MAX_STAKE),
            ("last_update", _MAX_BLOCK),
            ("block_at_registration", _MAX_BLOCK),
        ):
            values = getattr(self, name)
            if values.size and (values.min() < 0 or values.max() > limit):
                raise _refused(name, f"has a value outside 0..{limit}")
        # Summed as float, which can't wrap around; the limit leaves room enough for its rounding.
        if self.stake_raw.sum(dtype=np.float64) > _MAX_STAKE:
            raise _refused("stake_raw", f"sums to more than {_MAX_STAKE} rao")
        self.weights.check("weights", self.n)
        self.bonds.check("bonds", self.n)
        for name, value, limit in (
            ("min_stake", self.min_stake, _MAX_STAKE),
            ("block", self.block, _MAX_BLOCK),
            ("tempo", self.tempo, _MAX_BLOCK),
            ("activity_cutoff", self.activity_cutoff, _MAX_BLOCK),
            ("kappa", self.kappa, U16_MAX),
            ("bonds_moving_avg", self.bonds_moving_avg, 10**6),
            ("bonds_penalty", self.bonds_penalty, U16_MAX),
            ("max_allowed_validators", self.max_allowed_validators, U16_MAX),
            ("alpha_values", self.alpha_values[0], self.alpha_values[1]),
            ("alpha_values", self.alpha_values[1], U16_MAX),
        ):
            _check_range(name, value, 0, limit)
        _check_range("alpha_sigmoid_steepness", self.alpha_sigmoid_steepness, -32768, 32767)
        if self.owner_uid is not None:
            _check_range("owner_uid", self.owner_uid, 0, self.n - 1)


@dataclass(frozen=True, slots=True)
class EpochOutputs:
    """What the epoch writes back; arrays of u16 are what the chain stores, one entry a uid.

    Attributes:
        consensus: Stake-weighted median of each column of weights.
        incentive: Miners' shares of their half, summing to at most 1.
        dividends: Validators' shares of their half, summing to at most 1.
        vtrust: How much of each validator's weights is within consensus.
        trust: How much of each miner's rank is within consensus.
        permit: Permits from now on.
        active: Who has set weights lately.
        stake: Shares of the stake.
        pruning: Who is pruned last, scaled so that the largest is 65535.
        bonds: Bonds to store.
        incentive_fixed: ``incentive`` in 32.32, before the cut to u16.
        dividends_fixed: ``dividends`` in 32.32.
        active_stake_fixed: Shares of the stake of active validators in 32.32.
        stake_fixed: ``stake`` in 32.32.
    """

    consensus: NDArray[np.uint16]
    incentive: NDArray[np.uint16]
    dividends: NDArray[np.uint16]
    vtrust: NDArray[np.uint16]
    trust: NDArray[np.uint16]
    permit: NDArray[np.bool_]
    active: NDArray[np.bool_]
    stake: NDArray[np.uint16]
    pruning: NDArray[np.uint16]
    bonds: SparseRows
    incentive_fixed: Fixed
    dividends_fixed: Fixed
    active_stake_fixed: Fixed
    stake_fixed: Fixed


def inputs_from_json(data: object) -> EpochInputs:
    """Read the inputs of one epoch from decoded JSON.

    Args:
        data: An object with the fields of :class:`EpochInputs`; ``weights`` and ``bonds`` are
            ``{"uid": [[uid, value], ...]}``; ``owner_uid`` may be null; other fields are ignored.

    Raises:
        gas.errors.ConfigurationError: A field is missing, of the wrong type or out of range; names it.
    """
    if not isinstance(data, dict):
        raise ConfigurationError("The inputs of an epoch must be a JSON object.")
    missing = [name for name in EpochInputs.__dataclass_fields__ if name not in data]
    if missing:
        raise _refused(missing[0], "is missing")
    n = _integer("n", data["n"])
    _check_range("n", n, 0, MAX_NEURONS)
    alpha = _integers("alpha_values", data["alpha_values"])
    if len(alpha) != 2:
        raise _refused("alpha_values", "needs a lower and an upper bound")
    permit = data["permit"]
    if not isinstance(permit, list) or not all(isinstance(p, bool) for p in permit):
        raise _refused("permit", "must be a list of true and false")
    return EpochInputs(
        n=n,
        stake_raw=np.array(_integers("stake_raw", data["stake_raw"]), dtype=np.int64),
        min_stake=_integer("min_stake", data["min_stake"]),
        weights=_rows("weights", data["weights"]),
        bonds=_rows("bonds", data["bonds"]),
        last_update=np.array(_integers("last_update", data["last_update"]), dtype=np.int64),
        block_at_registration=np.array(
            _integers("block_at_registration", data["block_at_registration"]), dtype=np.int64
        ),
        permit=np.array(permit, dtype=np.bool_),
        block=_integer("block", data["block"]),
        tempo=_integer("tempo", data["tempo"]),
        activity_cutoff=_integer("activity_cutoff", data["activity_cutoff"]),
        kappa=_integer("kappa", data["kappa"]),
        bonds_moving_avg=_integer("bonds_moving_avg", data["bonds_moving_avg"]),
        bonds_penalty=_integer("bonds_penalty", data["bonds_penalty"]),
        max_allowed_validators=_integer("max_allowed_validators", data["max_allowed_validators"]),
        owner_uid=None if data["owner_uid"] is None else _integer("owner_uid", data["owner_uid"]),
        yuma3=_flag("yuma3", data["yuma3"]),
        liquid_alpha=_flag("liquid_alpha", data["liquid_alpha"]),
        alpha_values=(alpha[0], alpha[1]),
        alpha_sigmoid_steepness=_integer("alpha_sigmoid_steepness", data["alpha_sigmoid_steepness"]),
    )


def inputs_to_json(inputs: EpochInputs) -> dict[str, object]:
    """The JSON form that :func:`inputs_from_json` reads."""
    out: dict[str, object] = {}
    for name in EpochInputs.__dataclass_fields__:
        value = getattr(inputs, name)
        if isinstance(value, SparseRows):
            value = _rows_to_json(value, inputs.n)
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        elif isinstance(value, tuple):
            value = list(value)
        out[name] = value
    return out


def outputs_to_json(outputs: EpochOutputs) -> dict[str, object]:
    """What an epoch's caller wants to see: consensus, incentive, dividends, vtrust, permit, stake, bonds; in u16."""
    return {
        "consensus": outputs.consensus.tolist(),
        "incentive": outputs.incentive.tolist(),
        "dividends": outputs.dividends.tolist(),
        "vtrust": outputs.vtrust.tolist(),
        "permit": outputs.permit.tolist(),
        "stake": outputs.stake.tolist(),
        "bonds": _rows_to_json(outputs.bonds, len(outputs.stake)),
    }


def _rows_to_json(rows: SparseRows, n: int) -> dict[str, list[list[int]]]:
    return {str(i): [[j, v] for j, v in entries] for i, entries in rows.to_rows(n).items()}


def _rows(name: str, data: object) -> SparseRows:
    if not isinstance(data, dict):
        raise _refused(name, "must be an object of rows")
    rows: dict[int, list[tuple[int, int]]] = {}
    for key, entries in data.items():
        if not (isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 5):
            raise _refused(name, "has a row that is no uid")
        if not isinstance(entries, list) or int(key) in rows:
            raise _refused(f"{name}[{key}]", "must be one list of [uid, value] pairs")
        row: list[tuple[int, int]] = []
        for entry in entries:
            pair = _integers(f"{name}[{key}]", entry)
            if len(pair) != 2:
                raise _refused(f"{name}[{key}]", "must be a list of [uid, value] pairs")
            row.append((pair[0], pair[1]))
        rows[int(key)] = row
    return SparseRows.from_rows(rows)


def _integers(name: str, value: object) -> list[int]:
    if not isinstance(value, list):
        raise _refused(name, "must be a list of integers")
    return [_integer(name, v) for v in value]


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refused(name, "must be an integer")
    if abs(value) > _MAX_STAKE:
        raise _refused(name, "is too large")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _refused(name, "must be true or false")
    return value


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise _refused(name, f"must be in {low}..{high}, not {value}")


def _refused(name: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"Epoch input {name!r} {why}.")
