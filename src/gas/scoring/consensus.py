"""One epoch of Yuma consensus in 32.32 fixed point, bit for bit.

Source: specification "Chain", section 2; the comments number its steps. All matrices hold only the rows that matter
(validators), so an epoch costs O(validators x neurons), and every step is one or a few passes of integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gas.errors import ConfigurationError
from gas.scoring.epoch_data import (
    EpochInputs,
    EpochOutputs,
    SparseRows,
    inputs_from_json,
    inputs_to_json,
    outputs_to_json,
)
from gas.scoring.fixedpoint import FRACTION_BITS, ONE, U16_MAX, Fixed, div, mul, normalise, ratio, sigmoid, to_u16

__all__ = [
    "EmissionSplit",
    "EpochInputs",
    "EpochOutputs",
    "SparseRows",
    "inputs_from_json",
    "inputs_to_json",
    "outputs_to_json",
    "run_epoch",
    "split_emission",
]

OWNER_SHARE_PPM: Final = 180_000
"""The owner's share of the emission, in millionths: 18 %."""

Mask = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)


def run_epoch(inputs: EpochInputs) -> EpochOutputs:
    """Turn weights and stake into consensus, incentive, dividends, permits and bonds.

    A pure function: steps 1 to 9 of the specification's section 2; :func:`split_emission` is step 10.

    Args:
        inputs: State of the subnet; not modified.

    Returns:
        What the chain stores. An entry of 0 in ``bonds`` is a bond too small for u16, as the chain keeps it.
    """
    # 1. Who has set weights lately.
    active = inputs.last_update + inputs.activity_cutoff >= inputs.block
    # 2. Stake. Truncating 64.64 to 32.32 afterwards equals dividing in 32.32: a floor of a floor.
    stake = normalise(np.where(inputs.stake_raw < inputs.min_stake, 0, inputs.stake_raw))
    # 3. Permits from now on.
    new_permit = _top(stake, inputs.max_allowed_validators)
    # 4. Stake of those that are active and hold a permit now.
    active_stake = normalise(np.where(active & inputs.permit, stake, 0))

    # Rows that can't matter are left out: neither a permit (no weights) nor stored bonds.
    row_matters = inputs.permit.copy()
    row_matters[inputs.bonds.row] = True
    rows = np.flatnonzero(row_matters)
    row_stake = active_stake[rows, None]

    # 5. Weights.
    weights, has_weight = _weights(inputs, rows)
    # 6. Consensus.
    consensus = _weighted_median(weights, active_stake[rows], ratio(inputs.kappa, U16_MAX))
    # 7. Clipped weights, trust, incentive.
    clipped = np.minimum(weights, consensus)
    has_clipped = has_weight & ((consensus > 0) | (weights == 0))
    vtrust = np.zeros_like(stake)
    vtrust[rows] = clipped.sum(axis=1)
    rank = mul(clipped, row_stake).sum(axis=0)
    trust = div(rank, mul(weights, row_stake).sum(axis=0))
    incentive = normalise(rank)
    # 8. Weights that earn bonds.
    if inputs.bonds_penalty == U16_MAX:
        bonding, has_bonding = clipped, has_clipped
    elif inputs.bonds_penalty == 0:
        bonding, has_bonding = weights, has_weight
    else:
        bonding = weights + mul(clipped - weights, ratio(inputs.bonds_penalty, U16_MAX))
        has_bonding = bonding > 0
    # 9. Bonds and dividends.
    old = _old_bonds(inputs, rows)
    alpha = ONE - ratio(inputs.bonds_moving_avg, 10**6)
    row_dividends: Fixed
    if inputs.yuma3:
        old = div(old, U16_MAX)
        if inputs.liquid_alpha and consensus.any():
            average = _liquid_average(inputs, bonding, has_bonding, old, consensus)
        else:
            average = mul(bonding, alpha) + mul(old, ONE - alpha)
        stored = average
        row_dividends = mul(mul(normalise(average, axis=0), incentive).sum(axis=1), active_stake[rows])
    else:
        fresh = normalise(mul(bonding, row_stake), axis=0)
        average = mul(fresh, alpha) + mul(normalise(old, axis=0), ONE - alpha)
        owned = normalise(average, axis=0)
        stored = div(owned, owned.max(axis=0, initial=0))
        row_dividends = mul(owned, incentive).sum(axis=1)
    dividends = np.zeros_like(stake)
    dividends[rows] = normalise(row_dividends)

    return EpochOutputs(
        consensus=to_u16(consensus),
        incentive=to_u16(incentive),
        dividends=to_u16(dividends),
        vtrust=to_u16(vtrust),
        trust=to_u16(trust),
        permit=new_permit,
        active=active,
        stake=to_u16(stake),
        pruning=_pruning(incentive, dividends, active_stake, stake),
        bonds=_bonds_to_store(inputs, rows, new_permit, to_u16(stored), average > 0),
        incentive_fixed=incentive,
        dividends_fixed=dividends,
        active_stake_fixed=active_stake,
        stake_fixed=stake,
    )


def _top(stake: Fixed, k: int) -> Mask:
    """Step 3: the k largest, of which none is 0; on ties the higher uid wins."""
    best = np.zeros(stake.shape, dtype=np.bool_)
    if k:
        best[np.argsort(stake, kind="stable")[-k:]] = True
    return best & (stake > 0)


def _weights(inputs: EpochInputs, rows: NDArray[np.int64]) -> tuple[Fixed, Mask]:
    """Step 5: row-normalised weights of permitted validators, and which entries exist at all (some may be 0)."""
    given = inputs.weights
    keep = inputs.permit[given.row] & ((given.row != given.column) | (given.row == inputs.owner_uid))
    keep &= inputs.last_update[given.row] > inputs.block_at_registration[given.column]
    raw = _scatter(given.value, given, keep, rows, inputs.n)
    exists = _scatter(np.ones(given.value.shape, dtype=np.bool_), given, keep, rows, inputs.n)
    return normalise(raw, axis=1), exists


def _weighted_median(weights: Fixed, stake: Fixed, kappa: int) -> Fixed:
    """Step 6: stake-weighted median of each column over the rows with stake.

    The specification's quickselect compares integer sums of stake, and such sums don't depend on the order of
    addition; so its answer is the smallest weight w such that the stake at or below w exceeds the minority, or the
    largest weight when there is none, and sorting every column at once finds it.

    Args:
        weights: 32.32, shape (rows, columns).
        stake: 32.32, shape (rows,).
        kappa: Majority, 32.32.

    Returns:
        32.32, shape (columns,); zeros when nobody has stake.
    """
    voters = stake > 0
    count = int(voters.sum())
    if count == 0:
        return np.zeros(weights.shape[1], dtype=np.int64)
    share = normalise(stake[voters])
    minority = int(share.sum()) - kappa
    # The row's number in the low bits turns the sort of one integer array into a stable argsort.
    bits = count.bit_length()
    keys = np.ascontiguousarray(weights[voters].T) << bits
    keys |= np.arange(count)
    keys.sort(axis=1)
    order = keys & ((1 << bits) - 1)
    beyond = np.cumsum(share[order], axis=1) > minority
    position = np.where(beyond[:, -1], beyond.argmax(axis=1), count - 1)
    median: Fixed = keys[np.arange(keys.shape[0]), position] >> bits
    return median


def _old_bonds(inputs: EpochInputs, rows: NDArray[np.int64]) -> Fixed:
    """Step 9: stored bonds, in u16, without those to neurons that came after the last epoch."""
    kept = max(0, inputs.block - inputs.tempo) > inputs.block_at_registration[inputs.bonds.column]
    return _scatter(inputs.bonds.value, inputs.bonds, kept, rows, inputs.n)


def _scatter(
    values: NDArray[Scalar], places: SparseRows, keep: Mask, rows: NDArray[np.int64], n: int
) -> NDArray[Scalar]:
    """Spread the kept values over a matrix of (rows that matter) x n."""
    start = np.zeros(n, dtype=np.int64)
    start[rows] = np.arange(rows.size) * n
    dense = np.zeros(rows.size * n, dtype=values.dtype)
    dense[(start[places.row] + places.column)[keep]] = values[keep]
    return dense.reshape(rows.size, n)


def _liquid_average(inputs: EpochInputs, bonding: Fixed, exists: Mask, old: Fixed, consensus: Fixed) -> Fixed:
    """Step 9, liquid alpha: each pair's own moving average; only entries of the weights that earn bonds live on."""
    low, high = (ratio(value, U16_MAX) for value in inputs.alpha_values)
    steepness = ratio(abs(inputs.alpha_sigmoid_steepness), 100)
    if inputs.alpha_sigmoid_steepness < 0:
        steepness = -steepness
    _, column = np.nonzero(exists)
    weight, bond = bonding[exists], old[exists]
    distance = np.clip(np.where(weight >= bond, weight - consensus[column], bond - weight), 0, ONE)
    # The runtime multiplies by the negative steepness and rounds down; sigmoid() negates once more, exactly.
    exponent = -mul(distance - ONE // 2, -steepness)
    alpha = np.clip(low + mul(sigmoid(exponent), high - low), low, high)
    average = np.zeros_like(bonding)
    average[exists] = np.minimum(mul(ONE - alpha, bond) + mul(alpha, weight), ONE)
    return average


def _bonds_to_store(
    inputs: EpochInputs, rows: NDArray[np.int64], new_permit: Mask, stored: NDArray[np.uint16], exists: Mask
) -> SparseRows:
    """Step 9: new permits store, lost ones are emptied, rows that had none and get none stay as they are."""
    untouched = ~(new_permit | inputs.permit)[inputs.bonds.row]
    i, j = np.nonzero(exists & new_permit[rows][:, None])
    row = np.concatenate([inputs.bonds.row[untouched], rows[i]])
    column = np.concatenate([inputs.bonds.column[untouched], j])
    value = np.concatenate([inputs.bonds.value[untouched], stored[i, j].astype(np.int64)])
    # Two runs that are sorted already, of different rows: merging keeps the columns of a row in order.
    order = np.argsort(row, kind="stable")
    return SparseRows(row=row[order], column=column[order], value=value[order])


def _pruning(incentive: Fixed, dividends: Fixed, active_stake: Fixed, stake: Fixed) -> NDArray[np.uint16]:
    """Emission per neuron, scaled so that the largest is 65535, rounded to the nearest."""
    if incentive.any() or dividends.any():
        share = normalise(incentive + dividends)
    else:
        share = active_stake if active_stake.any() else stake
    scaled = div(share * U16_MAX, share.max(initial=0))
    return ((scaled + ONE // 2) >> FRACTION_BITS).astype(np.uint16)


@dataclass(frozen=True, slots=True)
class EmissionSplit:
    """Who gets what of one epoch's emission, in rao; everything sums to exactly what was emitted.

    Attributes:
        owner: The owner's share, taken first.
        incentive: Miners' part, one entry a uid, int64; the owner's uid gets 0.
        dividends: Validators' part, one entry a uid, int64.
        burned: What the owner's hotkey would have earned as a miner, or everything when there is nobody to pay.
    """

    owner: int
    incentive: NDArray[np.int64]
    dividends: NDArray[np.int64]
    burned: int

    @property
    def total(self) -> int:
        """All parts together."""
        return self.owner + int(self.incentive.sum()) + int(self.dividends.sum()) + self.burned


def split_emission(
    outputs: EpochOutputs, emission: int, owner_uid: int | None, owner_share_ppm: int = OWNER_SHARE_PPM
) -> EmissionSplit:
    """Step 10: divide what an epoch emits.

    Incentive and dividends share in proportion to their values over both, which is half each when both are there;
    without either, active stake decides, else stake. What rounding down leaves over, less than one rao a head, goes to
    the largest remainders (on ties: miners before validators, then the lower uid).

    Args:
        outputs: Result of :func:`run_epoch`.
        emission: Rao emitted since the last epoch.
        owner_uid: The owner's slot, whose incentive is burned; None when the owner has none.
        owner_share_ppm: The owner's share in millionths, rounded down.

    Raises:
        gas.errors.ConfigurationError: A negative emission or a share above 1.
    """
    if not 0 <= emission < 2**62:
        raise ConfigurationError(f"An epoch can't emit {emission} rao.")
    if not 0 <= owner_share_ppm <= 10**6:
        raise ConfigurationError(f"The owner's share must be in 0..1000000 millionths, not {owner_share_ppm}.")
    n = outputs.stake_fixed.size
    owner = emission * owner_share_ppm // 10**6
    incentive, dividends = outputs.incentive_fixed, outputs.dividends_fixed
    if not (incentive.any() or dividends.any()):
        active_stake = outputs.active_stake_fixed
        dividends = active_stake if active_stake.any() else outputs.stake_fixed
    parts = _apportion(emission - owner, [*incentive.tolist(), *dividends.tolist()])
    miners, validators = np.array(parts[:n], dtype=np.int64), np.array(parts[n:], dtype=np.int64)
    burned = emission - owner - sum(parts)
    if owner_uid is not None:
        burned += int(miners[owner_uid])
        miners[owner_uid] = 0
    return EmissionSplit(owner=owner, incentive=miners, dividends=validators, burned=burned)


def _apportion(amount: int, shares: list[int]) -> list[int]:
    """Whole parts in proportion to ``shares`` that sum to ``amount`` (to 0 when all shares are 0)."""
    total = sum(shares)
    if total == 0:
        return [0] * len(shares)
    parts = [amount * share // total for share in shares]
    remainders = [amount * share % total for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: amount - sum(parts)]:
        parts[i] += 1
    return parts
