"""The history of scores, and weights in the chain's form."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from sqlalchemy.orm import Session

from gas.errors import ConfigurationError
from gas.scoring.weights import MinerClass, update_scores
from gas.storage.tables import ScoreRow

__all__ = ["fold_scores", "weights_to_u16"]

_U16 = 65_535


def fold_scores(
    session: Session, rewards: Mapping[str, float], *, now: float, replaced: Collection[str] = ()
) -> dict[str, tuple[float, float]]:
    """V_t = alpha * C_t + (1 - alpha) * V_(t-1) of challenged generators, within the caller's transaction.

    Args:
        session: Write session; the caller sees to it that an epoch is folded once.
        rewards: C_t by hotkey.
        now: Seconds since the epoch.
        replaced: Hotkeys that have taken their slot since the last time: they start at 0.

    Returns:
        (V_(t-1), V_t) by hotkey.
    """
    hotkeys, kind = list(rewards), MinerClass.GENERATOR.value
    rows = {h: session.get(ScoreRow, (h, kind)) for h in hotkeys}
    previous = [row.value if row and h not in replaced else 0.0 for h, row in rows.items()]
    new = update_scores(previous, [rewards[h] for h in hotkeys], np.ones(len(hotkeys), dtype=bool))
    for hotkey, value in zip(hotkeys, new, strict=True):
        session.merge(ScoreRow(hotkey=hotkey, miner_class=kind, value=float(value), updated_at=now))
    return {h: (float(v), float(n)) for h, v, n in zip(hotkeys, previous, new, strict=True)}


def weights_to_u16(weights: Mapping[int, float]) -> tuple[list[int], list[int]]:
    """Weights as the chain takes them: the largest becomes 65535, and what rounds to 0 is left out.

    Raises:
        ConfigurationError: No weight is positive.
    """
    top = max(weights.values(), default=0.0)
    if top <= 0.0:
        raise ConfigurationError("There is no weight to set.")
    pairs = [(uid, round(weight / top * _U16)) for uid, weight in sorted(weights.items())]
    return [uid for uid, value in pairs if value], [value for _, value in pairs if value]
