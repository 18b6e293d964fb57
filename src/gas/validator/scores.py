"""From verified media, judgements and rounds to weights, with a sentence for each reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy.orm import Session

from gas.errors import ConfigurationError
from gas.scoring.generators import GeneratorReward, PriceTable, generator_reward
from gas.scoring.weights import EmissionProfile, MinerClass, RoundEntry, network_weights, round_winner, update_scores
from gas.storage.database import Database
from gas.storage.tables import ScoreRow, ServiceStateRow
from gas.types import Modality
from gas.validator.tallies import DAY, GeneratorDay, generator_days, judged_media

__all__ = [
    "DetectorStanding",
    "GeneratorStanding",
    "WeightsPlan",
    "fold_scores",
    "generator_standing",
    "generator_standings",
    "plan_weights",
    "update_history",
    "weights_to_u16",
]

_U16 = 65_535
_FOLDED = "scores"
_KEY = "folded"


@dataclass(frozen=True, slots=True)
class DetectorStanding:
    """A detector at the end of a round.

    Attributes:
        uid: Slot of its author.
        name: For the reasons.
        modality: Its round.
        score: Its final score; None when unscored.
        committed_at: Block of its commitment.
    """

    uid: int
    name: str
    modality: Modality
    score: float | None
    committed_at: int


@dataclass(frozen=True, slots=True)
class GeneratorStanding:
    """A generator's last day, and what it is worth.

    Attributes:
        hotkey: Who it is.
        verified: Media verified in the last 24 hours.
        refused: Media refused, tasks failed or expired in the last 24 hours.
        fooled: Judgements of the last 7 days in which a detector took its medium for real.
        not_fooled: Judgements in which a detector saw through it.
        reward: The reward and its parts.
    """

    hotkey: str
    verified: int
    refused: int
    fooled: int
    not_fooled: int
    reward: GeneratorReward


@dataclass(frozen=True, slots=True)
class WeightsPlan:
    """Weights to be set.

    Attributes:
        weights: Share of each uid, summing to 1.
        reasons: Sentences that say why, by uid.
        winners: uid of the winner of each modality that has one.
    """

    weights: dict[int, float]
    reasons: dict[int, list[str]]
    winners: dict[Modality, int] = field(default_factory=dict)


def generator_standings(
    database: Database,
    validator: str,
    hotkeys: Sequence[str],
    *,
    now: float,
    shares: Mapping[Modality, float],
    prices: PriceTable,
) -> list[GeneratorStanding]:
    """What generators did in the last 24 hours, and how often they fooled in the last 7 days.

    Args:
        database: Challenges, media and judgements.
        validator: Whose challenges count.
        hotkeys: The generators, in the order of the result.
        now: Seconds since the epoch.
        shares: Share of each modality in the reward, summing to 1.
        prices: The round's price table.
    """
    with database.read() as session:
        days = generator_days(session, validator, now=now, since=now - DAY)
        judged = judged_media(session, hotkeys, now=now)
    return [generator_standing(h, days.get(h, GeneratorDay()), judged.get(h, (0, 0)), shares, prices) for h in hotkeys]


def generator_standing(
    hotkey: str,
    day: GeneratorDay,
    judged: tuple[int, int],
    shares: Mapping[Modality, float],
    prices: PriceTable,
) -> GeneratorStanding:
    """One generator's reward; ``judged`` is how often its media fooled detectors, and how often they did not."""
    fooled, not_fooled = judged
    reward = generator_reward(
        day.tallies, shares, prices, fooled=fooled, not_fooled=not_fooled, silent=day.verified == 0
    )
    return GeneratorStanding(hotkey, day.verified, day.refused, fooled, not_fooled, reward)


def update_history(
    database: Database, rewards: Mapping[str, float], *, now: float, epoch: str | None = None
) -> dict[str, float]:
    """Fold the rewards of the generators that were challenged into their score history.

    Args:
        database: Where the history is kept.
        rewards: This time's reward by hotkey.
        now: Seconds since the epoch.
        epoch: Name of this time: folded once, however often it is asked for, also by one who was killed before it
            could write down that it is done. None folds whenever it is called.

    Returns:
        The new scores, by hotkey.
    """

    def work(session: Session) -> dict[str, float]:
        kept = session.get(ServiceStateRow, (_FOLDED, _KEY))
        if epoch is not None and kept is not None and kept.value.get("epoch") == epoch:
            return {str(hotkey): float(value) for hotkey, value in kept.value["scores"].items()}
        found = {h: score for h, (_, score) in fold_scores(session, rewards, now=now).items()}
        if epoch is not None:
            value = {"epoch": epoch, "scores": found}
            session.merge(ServiceStateRow(service=_FOLDED, key=_KEY, value=value, updated_at=now))
        return found

    return database.transact(work)


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


def plan_weights(
    detectors: Sequence[DetectorStanding],
    generators: Mapping[int, float],
    profile: EmissionProfile,
    owner_uid: int,
    champions: Mapping[Modality, RoundEntry] | None = None,
) -> WeightsPlan:
    """Who gets which share of the weights, and why.

    Args:
        detectors: Everybody who was in a round that has ended.
        generators: Score of each generator, by uid.
        profile: Shares of the classes.
        owner_uid: Where burnt shares go; negative when the owner's hotkey holds no slot.
        champions: Winners of the rounds before, with the scores that they defend.

    Raises:
        ConfigurationError: ``no_burn_slot``: a share has to be burnt, and the owner holds no slot. It must not go to
            others silently.
    """
    reasons: dict[int, list[str]] = {}
    rewards: dict[MinerClass, dict[int, float]] = {MinerClass.GENERATOR: dict(generators)}
    winners: dict[Modality, int] = {}
    names = {standing.uid: standing.name for standing in detectors}
    for modality in Modality:
        share = profile.shares.get(MinerClass(modality.value), 0.0)
        entries = [RoundEntry(d.uid, d.score, d.committed_at) for d in detectors if d.modality is modality]
        winner = round_winner(entries, (champions or {}).get(modality))
        if winner is not None and winner.score is not None:
            winners[modality] = winner.uid
            rewards[MinerClass(modality.value)] = {winner.uid: 1.0}
            why = f"{names.get(winner.uid, 'The champion')} has the best {modality} detector (sn34 {winner.score:.4f})"
            reasons.setdefault(winner.uid, []).append(f"{why}: winner takes the whole {share:.0%} of {modality}.")
        for entry in entries:
            if winner is not None and entry.uid != winner.uid:
                result = "no score" if entry.score is None else f"sn34 {entry.score:.4f}"
                reasons.setdefault(entry.uid, []).append(f"{result}: not the best {modality} detector, no pay.")
    total = sum(generators.values())
    pot = profile.shares.get(MinerClass.GENERATOR, 0.0)
    for uid, score in generators.items():
        part = score / total if total else 0.0
        reasons.setdefault(uid, []).append(f"{part:.1%} of the generators' scores: as much of their {pot:.0%}.")
    weights = network_weights(rewards, profile, owner_uid)
    if owner_uid < 0 and owner_uid in weights:
        raise ConfigurationError(
            f"{weights[owner_uid]:.0%} of the emission has nobody to be paid to, and can't be burnt: the subnet's "
            "owner holds no slot.",
            code="no_burn_slot",
            hint="Register the owner's hotkey on the subnet, or take a profile whose classes all have somebody to pay.",
        )
    unpaid = [c.value for c, share in profile.shares.items() if share > 0 and not any(rewards.get(c, {}).values())]
    if unpaid:
        reasons.setdefault(owner_uid, []).append(f"Nobody to pay for {', '.join(unpaid)}: burnt.")
    return WeightsPlan(weights, reasons, winners)


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
