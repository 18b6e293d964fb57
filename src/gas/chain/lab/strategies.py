"""What a validator does in an epoch: one pure function a strategy, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.chain.lab.scenario import ValidatorGroup

__all__ = ["STRATEGIES", "View"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class View:
    """What one validator knows when it sets weights.

    Attributes:
        rules: Its group.
        epoch: From 1.
        quality: What it would measure of each miner now, noise included, 0..1; (miners,).
        copy_of: For each miner the one whose answers it hands in; itself when it is no copy; (miners,).
        revealed: Stake-weighted median of the other validators' weights that are public, (miners,); None when there
            are none yet.
        favoured: The miners that it favours, (miners,).
        before: Its own last weights; None in its first epoch.
    """

    rules: ValidatorGroup
    epoch: int
    quality: Floats
    copy_of: NDArray[np.int64]
    revealed: Floats | None
    favoured: NDArray[np.bool_]
    before: Floats | None


Strategy = Callable[[View], Floats | None]


def honest(view: View) -> Floats:
    """Weights by measured quality; identical answers share one miner's weight when it looks for them."""
    weights = np.clip(view.quality, 0, None) ** view.rules.sharpness
    if view.rules.finds_copies:
        weights = weights / np.bincount(view.copy_of, minlength=len(weights))[view.copy_of]
    return weights


def lazy(view: View) -> Floats | None:
    """Measures in every ``every``-th epoch; in between its old weights stay, as if set anew."""
    return honest(view) if (view.epoch - 1) % view.rules.every == 0 or view.before is None else view.before


def copy(view: View) -> Floats | None:
    """The median of what others have revealed; nothing as long as nothing is public."""
    return view.revealed


def self_vote(view: View) -> Floats:
    """All weight on miners of its own."""
    return view.favoured.astype(np.float64)


def collude(view: View) -> Floats:
    """An honest vote with ``boost`` of the weight moved to the favoured."""
    truth, bribed = honest(view), view.favoured.astype(np.float64)
    boost = view.rules.boost
    return (1 - boost) * truth / max(float(truth.sum()), 1e-12) + boost * bribed / max(float(bribed.sum()), 1.0)


STRATEGIES: Final[Mapping[str, Strategy]] = MappingProxyType(
    {"honest": honest, "lazy": lazy, "copy": copy, "self-vote": self_vote, "collude": collude}
)
"""Strategies by the name that a scenario gives them; None means that no weights are set in this epoch."""
