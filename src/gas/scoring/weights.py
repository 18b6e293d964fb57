"""From scores to a validator's weights: history, shares of the emission, burn, and winner takes all.

Source: specification "Scoring", section 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gas.errors import ConfigurationError

__all__ = [
    "EMISSION_PROFILES",
    "EmissionProfile",
    "MinerClass",
    "RoundEntry",
    "network_weights",
    "round_winner",
    "update_scores",
]

EMA_ALPHA: Final = 0.02
"""How much of a miner's score the newest challenge makes up."""
CHAMPION_MARGIN: Final = 0.001
"""How much better than the champion a challenger must be."""
# Differences of scores carry rounding errors; a challenger exactly at the margin doesn't win by one.
_ROUNDING: Final = 1e-12


class MinerClass(StrEnum):
    """Who shares in the emission."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    GENERATOR = "generator"
    SEGMENTER = "segmenter"
    DETECTOR = "detector"
    SERVING = "serving"
    BURN = "burn"


@dataclass(frozen=True, slots=True)
class EmissionProfile:
    """How the emission is divided among classes.

    Attributes:
        name: Of the profile.
        shares: Non-negative share of each class, summing to 1; a class that is left out has none.

    Raises:
        gas.errors.ConfigurationError: A negative share, or a sum other than 1.
    """

    name: str
    shares: Mapping[MinerClass, float]

    def __post_init__(self) -> None:
        total = math.fsum(self.shares.values())
        if not all(0.0 <= share <= 1.0 for share in self.shares.values()) or abs(total - 1.0) > 1e-9:
            raise ConfigurationError(
                f"Emission profile {self.name!r}: shares must lie in [0, 1] and sum to 1, not to {total:.6g}."
            )

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, float]) -> EmissionProfile:
        """Read an operator's table.

        Raises:
            gas.errors.ConfigurationError: An unknown class, a negative share, or a sum other than 1.
        """
        known = set(MinerClass)
        unknown = [key for key in table if key not in known]
        if unknown:
            raise ConfigurationError(
                f"Emission profile {name!r}: there is no class {unknown[0]!r}.", hint=f"Known: {', '.join(MinerClass)}."
            )
        return cls(name=name, shares={MinerClass(key): float(share) for key, share in table.items()})


EMISSION_PROFILES: Final[Mapping[str, EmissionProfile]] = {
    name: EmissionProfile.from_table(name, table)
    for name, table in {
        "gas": {"image": 0.40, "video": 0.40, "audio": 0.04, "generator": 0.16, "burn": 0.0},
        "live": {"segmenter": 0.10, "detector": 0.90},
        "serving": {"serving": 1.0},
        "full": {
            "image": 0.28,
            "video": 0.24,
            "audio": 0.08,
            "generator": 0.16,
            "segmenter": 0.06,
            "detector": 0.08,
            "serving": 0.10,
            "burn": 0.0,
        },
    }.items()
}
"""The profiles that an operator can name; ``gas`` is the default."""


def update_scores(
    previous: ArrayLike,
    current: ArrayLike,
    challenged: ArrayLike,
    replaced: ArrayLike | None = None,
    alpha: float = EMA_ALPHA,
) -> NDArray[np.float64]:
    """V_t = alpha * C_t + (1 - alpha) * V_(t-1), for the miners that were challenged only.

    Args:
        previous: V_(t-1), shape (n,).
        current: C_t, shape (n,); ignored where nobody was challenged.
        challenged: Who was, shape (n,).
        replaced: Whose hotkey is new since the last time: V_(t-1) counts as 0; shape (n,).
        alpha: In [0, 1].
    """
    old = np.asarray(previous, dtype=np.float64)
    if replaced is not None:
        old = np.where(np.asarray(replaced, dtype=np.bool_), 0.0, old)
    new = alpha * np.asarray(current, dtype=np.float64) + (1.0 - alpha) * old
    return np.where(np.asarray(challenged, dtype=np.bool_), new, old)


@dataclass(frozen=True, slots=True)
class RoundEntry:
    """A detector in a round.

    Attributes:
        uid: Who is paid.
        score: Its final score in the round; None when unscored.
        committed_at: Block of its commitment on the chain.
    """

    uid: int
    score: float | None
    committed_at: int


def round_winner(
    entries: Iterable[RoundEntry], champion: RoundEntry | None = None, margin: float = CHAMPION_MARGIN
) -> RoundEntry | None:
    """Who takes the whole share of a modality until the next round ends.

    The best score of the round wins, on equal scores the earlier commitment (then the lower uid). A champion is
    displaced only by a score that is more than ``margin`` above its own.

    Args:
        entries: Of this round; unscored ones can't win.
        champion: Winner of the round before, with the score it defends: this round's if it took part. An unscored
            champion defends nothing.
        margin: At least 0.

    Returns:
        The winner; the champion's own entry when it stays; None when nobody has a score.
    """
    scored = [(entry.score, entry) for entry in entries if entry.score is not None]
    best = min(scored, key=lambda pair: (-pair[0], pair[1].committed_at, pair[1].uid), default=None)
    if champion is None or champion.score is None:
        return None if best is None else best[1]
    if best is None or best[0] - champion.score <= margin + _ROUNDING:
        return champion
    return best[1]


def network_weights(
    rewards: Mapping[MinerClass, Mapping[int, float]], profile: EmissionProfile, owner_uid: int
) -> dict[int, float]:
    """Weights of all uids, summing to 1.

    Within a class rewards are divided by their sum and scaled by the class's share. The share of a class with nobody
    to pay goes to ``burn``, the owner's uid, never silently to others.

    Args:
        rewards: Non-negative rewards by uid of each class; a winner-takes-all class has one entry.
        profile: Shares of the classes.
        owner_uid: Where burnt shares go.

    Returns:
        Positive weights by uid, in rising order of uid.

    Raises:
        ValueError: A reward that is negative or not finite: a bug upstream must not become pay.
    """
    weights: dict[int, float] = {}
    for miner_class, share in profile.shares.items():
        payees = {uid: float(reward) for uid, reward in rewards.get(miner_class, {}).items()}
        if not all(math.isfinite(reward) and reward >= 0.0 for reward in payees.values()):
            raise ValueError(f"Rewards of the class {miner_class.value!r} must be finite and not negative.")
        # Scaled by the largest first: a sum of huge rewards would overflow.
        top = max(payees.values(), default=0.0)
        if top <= 0.0 or miner_class is MinerClass.BURN:
            payees, top = {owner_uid: 1.0}, 1.0
        total = math.fsum(reward / top for reward in payees.values())
        for uid, reward in payees.items():
            weights[uid] = weights.get(uid, 0.0) + share * (reward / top) / total
    return {uid: weight for uid, weight in sorted(weights.items()) if weight > 0.0}
