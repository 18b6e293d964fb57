"""Plays a scenario, epoch by epoch, with the epoch that the ledger runs: :func:`gas.scoring.consensus.run_epoch`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gas.chain.lab.scenario import Scenario
from gas.chain.lab.strategies import STRATEGIES, View
from gas.clock import derive_rng
from gas.errors import ConfigurationError
from gas.scoring.consensus import EpochInputs, EpochOutputs, SparseRows, run_epoch, split_emission
from gas.types import RAO_PER_TAO

__all__ = ["Group", "History", "play"]

Floats = NDArray[np.float64]

_U16 = 65535


@dataclass(frozen=True, slots=True)
class Group:
    """A group of neurons: its name, its uids, and whether they validate."""

    name: str
    uids: tuple[int, ...]
    validates: bool


@dataclass(frozen=True, slots=True)
class History:
    """What happened; arrays have one row an epoch and one column a neuron, validators first.

    Attributes:
        scenario: What was played.
        groups: Validators' groups, then miners'.
        incentive: Share of the miners' half, 0..1.
        dividends: Share of the validators' half, 0..1.
        consensus: 0..1.
        validator_trust: 0..1.
        stake: Tao, before the epoch's pay.
        pay: Tao paid in the epoch.
        bonds: Share of each miner's bonds that each validator holds, (epochs, validators, miners).
    """

    scenario: Scenario
    groups: tuple[Group, ...]
    incentive: Floats
    dividends: Floats
    consensus: Floats
    validator_trust: Floats
    stake: Floats
    pay: Floats
    bonds: Floats

    def by_group(self, figures: Floats) -> dict[str, Floats]:
        """Sum over each group's neurons: (epochs, neurons) to name and (epochs,)."""
        return {group.name: figures[:, list(group.uids)].sum(axis=1) for group in self.groups}

    def yields(self) -> dict[str, Floats]:
        """Dividends of each validators' group for each tao staked, relative to all validators' average; (epochs,)."""
        paid, staked = self.by_group(self.dividends), self.by_group(self.stake)
        total = sum(staked[group.name] for group in self.groups if group.validates)
        return {
            group.name: paid[group.name] / np.maximum(staked[group.name], 1e-12) * total
            for group in self.groups
            if group.validates
        }


def play(scenario: Scenario, on_epoch: Callable[[int, int], None] | None = None) -> History:
    """Play all epochs.

    The order in an epoch is the chain's: validators set weights during it, then it is closed. Weights are u16, scaled
    so that the largest is 65535. Everything random comes from the scenario's seed.

    Args:
        scenario: What to play.
        on_epoch: Told the epochs done and their number.

    Returns:
        The whole history; the same scenario gives the same.

    Raises:
        ConfigurationError: A number that the epoch can't compute with.
    """
    table = _Table(scenario)
    rows = []
    for epoch in range(1, scenario.epochs + 1):
        rows.append(table.step(epoch))
        if on_epoch:
            on_epoch(epoch, scenario.epochs)
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return History(scenario, table.groups, *columns)


class _Table:
    """The subnet between two epochs."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        validators = [group for group in scenario.validators for _ in range(group.count)]
        self._validators = validators
        self.groups = _groups(scenario)
        self._where = {group.name: np.array(group.uids) for group in self.groups}
        self._count = len(validators)
        self._miners = sum(group.count for group in scenario.miners)
        n = self._count + self._miners
        self._stake = np.zeros(n)
        self._stake[: self._count] = [group.stake for group in validators]
        self._quality, self._copy_of = self._qualities()
        self._permit = np.arange(n) < self._count
        self._last_update = np.zeros(n, np.int64)
        self._weights: list[Floats | None] = [None] * self._count
        self._bonds = SparseRows.from_rows({})
        self._public: deque[list[Floats | None]] = deque(maxlen=scenario.reveal_after + 1)

    def step(self, epoch: int) -> tuple[Floats, ...]:
        for event in self._scenario.events:
            if event.epoch == epoch:
                self._happen(event.group, event.quality, event.stake)
        block = epoch * self._scenario.rules.tempo
        revealed = self._public[0] if len(self._public) == self._public.maxlen else None
        fresh = [self._vote(epoch, number, revealed) for number in range(self._count)]
        for number, weights in enumerate(fresh):
            if weights is not None and weights.sum() > 0:
                self._weights[number] = weights
                self._last_update[number] = block - 1
        self._public.append(list(self._weights))
        outputs = run_epoch(self._inputs(block))
        split = split_emission(outputs, round(self._scenario.emission * RAO_PER_TAO), None, 0)
        pay = (split.incentive + split.dividends) / RAO_PER_TAO
        before = self._stake.copy()
        if self._scenario.compound:
            self._stake[: self._count] += split.dividends[: self._count] / RAO_PER_TAO
        self._permit, self._bonds = outputs.permit, outputs.bonds
        return self._row(outputs, before, pay)

    def _qualities(self) -> tuple[Floats, NDArray[np.int64]]:
        quality, copy_of = np.zeros(self._miners), np.arange(self._miners)
        for group in self._scenario.miners:
            own = self._where[group.name] - self._count
            rng = derive_rng(self._scenario.seed, "spread", group.name)
            quality[own] = np.clip(group.quality + group.spread * rng.standard_normal(len(own)), 0, 1)
        for group in self._scenario.miners:
            if group.copies_of:
                own, model = (self._where[name] - self._count for name in (group.name, group.copies_of))
                copy_of[own] = model[np.arange(len(own)) % len(model)]
        return quality, copy_of

    def _happen(self, group: str, quality: float | None, stake: float | None) -> None:
        uids = self._where[group]
        if quality is not None:
            self._quality[uids - self._count] = quality
        if stake is not None:
            self._stake[uids] = stake

    def _vote(self, epoch: int, number: int, revealed: list[Floats | None] | None) -> Floats | None:
        rules = self._validators[number]
        rng = derive_rng(self._scenario.seed, "measure", epoch, number)
        truth = self._quality[self._copy_of]
        measured = np.clip(truth + rules.noise * rng.standard_normal(self._miners), 0, 1)
        if rules.finds_copies:
            # One answer is measured once, however many hand it in.
            measured = measured[self._copy_of]
        favoured = np.zeros(self._miners, np.bool_)
        if rules.favours:
            favoured[self._where[rules.favours] - self._count] = True
        view = View(
            rules=rules,
            epoch=epoch,
            quality=measured,
            copy_of=self._copy_of,
            revealed=self._median(revealed, number),
            favoured=favoured,
            before=self._weights[number],
        )
        return STRATEGIES[rules.strategy](view)

    def _median(self, revealed: list[Floats | None] | None, number: int) -> Floats | None:
        others = [(w, self._stake[k]) for k, w in enumerate(revealed or []) if w is not None and k != number]
        if not others:
            return None
        rows = np.stack([w / w.sum() for w, _ in others])
        stake = np.array([s for _, s in others])
        order = np.argsort(rows, axis=0, kind="stable")
        reached = np.cumsum(stake[order], axis=0) >= stake.sum() / 2
        middle: Floats = np.take_along_axis(rows, order, axis=0)[reached.argmax(axis=0), np.arange(rows.shape[1])]
        return middle

    def _inputs(self, block: int) -> EpochInputs:
        rules, n = self._scenario.rules, self._count + self._miners
        matrix = np.zeros((n, n), np.int64)
        for number, weights in enumerate(self._weights):
            if weights is not None:
                matrix[number, self._count :] = np.floor(weights / weights.max() * _U16).astype(np.int64)
        rao = self._stake * RAO_PER_TAO
        if rao.sum() > 2**59:
            raise ConfigurationError("There is more stake in the scenario than an epoch can compute with.")
        return EpochInputs(
            n=n,
            stake_raw=rao.astype(np.int64),
            min_stake=0,
            weights=SparseRows.from_dense(matrix),
            bonds=self._bonds,
            last_update=self._last_update,
            block_at_registration=np.zeros(n, np.int64),
            permit=self._permit,
            block=block,
            tempo=rules.tempo,
            activity_cutoff=rules.activity_cutoff,
            kappa=rules.kappa,
            bonds_moving_avg=rules.bonds_moving_avg,
            bonds_penalty=rules.bonds_penalty,
            max_allowed_validators=rules.max_allowed_validators,
            owner_uid=None,
            yuma3=rules.yuma3,
            liquid_alpha=rules.liquid_alpha,
            alpha_values=(rules.alpha_low, rules.alpha_high),
            alpha_sigmoid_steepness=rules.alpha_sigmoid_steepness,
        )

    def _row(self, outputs: EpochOutputs, stake: Floats, pay: Floats) -> tuple[Floats, ...]:
        bonds = np.zeros((self._count, self._miners))
        held = outputs.bonds
        keep = (held.row < self._count) & (held.column >= self._count)
        bonds[held.row[keep], held.column[keep] - self._count] = held.value[keep]
        shares = bonds / np.maximum(bonds.sum(axis=0), 1)
        parts = (outputs.incentive, outputs.dividends, outputs.consensus, outputs.vtrust)
        # Shares of 65535 truncate, so their sum is a little below one; the pictures want shares of the whole.
        incentive, dividends, consensus, trust = (part.astype(np.float64) / _U16 for part in parts)
        return incentive, dividends, consensus, trust, stake, pay, shares


def _groups(scenario: Scenario) -> tuple[Group, ...]:
    groups, start = [], 0
    for validates, kind in ((True, scenario.validators), (False, scenario.miners)):
        for group in kind:
            groups.append(Group(group.name, tuple(range(start, start + group.count)), validates))
            start += group.count
    return tuple(groups)
