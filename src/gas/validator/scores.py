"""From verified media, judgements and rounds to weights, with a sentence for each reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.errors import ConfigurationError
from gas.scoring.generators import (
    GeneratorReward,
    ModalityTally,
    PaidMedium,
    PriceTable,
    generator_reward,
    image_tier,
    video_tier,
)
from gas.scoring.weights import EmissionProfile, MinerClass, RoundEntry, network_weights, round_winner, update_scores
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, JudgementRow, MediumRow, ScoreRow
from gas.types import Modality
from gas.validator.tasks import ChallengeState

__all__ = [
    "DetectorStanding",
    "GeneratorStanding",
    "WeightsPlan",
    "generator_standings",
    "plan_weights",
    "update_history",
    "weights_to_u16",
]

_DAY = 86_400.0
_JUDGED_DAYS = 7
_U16 = 65_535


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
    standings = []
    with database.read() as session:
        for hotkey in hotkeys:
            tallies = {m: _tally(session, validator, hotkey, m, now) for m in shares}
            fooled, not_fooled = _judged(session, hotkey, now)
            verified = sum(len(tally.verified) for tally in tallies.values())
            reward = generator_reward(
                tallies, shares, prices, fooled=fooled, not_fooled=not_fooled, silent=verified == 0
            )
            refused = sum(tally.refused for tally in tallies.values())
            standings.append(GeneratorStanding(hotkey, verified, refused, fooled, not_fooled, reward))
    return standings


def _tally(session: Session, validator: str, miner: str, modality: Modality, now: float) -> ModalityTally:
    ended = [
        state.value
        for state in (ChallengeState.VERIFIED, ChallengeState.REFUSED, ChallengeState.FAILED, ChallengeState.EXPIRED)
    ]
    rows = session.execute(
        select(ChallengeRow.state, ChallengeRow.parameters, MediumRow.width, MediumRow.height)
        .outerjoin(MediumRow, MediumRow.sha256 == ChallengeRow.media_sha256)
        .where(
            ChallengeRow.validator == validator,
            ChallengeRow.miner == miner,
            ChallengeRow.modality == modality.value,
            ChallengeRow.created_at > now - _DAY,
            ChallengeRow.state.in_(ended),
        )
    ).tuples()
    verified, refused = [], 0
    for state, parameters, width, height in rows:
        if state == ChallengeState.VERIFIED.value:
            requested = parameters.get("tier", 0)
            verified.append(PaidMedium(requested if isinstance(requested, int) else 0, _tier(modality, width, height)))
        else:
            refused += 1
    return ModalityTally(tuple(verified), refused)


def _tier(modality: Modality, width: int, height: int) -> int:
    if modality is Modality.IMAGE:
        return image_tier(width, height)
    return video_tier(width, height) if modality is Modality.VIDEO else 0


def _judged(session: Session, hotkey: str, now: float) -> tuple[int, int]:
    answers = session.scalars(
        select(JudgementRow.fooled)
        .join(MediumRow, MediumRow.sha256 == JudgementRow.media_sha256)
        .where(MediumRow.generator == hotkey, MediumRow.verified_at > now - _JUDGED_DAYS * _DAY)
    ).all()
    fooled = sum(answers)
    return fooled, len(answers) - fooled


def update_history(database: Database, rewards: Mapping[str, float], *, now: float) -> dict[str, float]:
    """Fold the rewards of the generators that were challenged into their score history.

    Args:
        database: Where the history is kept.
        rewards: This time's reward by hotkey.
        now: Seconds since the epoch.

    Returns:
        The new scores, by hotkey.
    """
    hotkeys = list(rewards)
    with database.write() as session:
        rows = {h: session.get(ScoreRow, (h, MinerClass.GENERATOR.value)) for h in hotkeys}
        previous = [row.value if row else 0.0 for row in rows.values()]
        new = update_scores(previous, [rewards[h] for h in hotkeys], np.ones(len(hotkeys), dtype=bool))
        for hotkey, value in zip(hotkeys, new, strict=True):
            session.merge(
                ScoreRow(hotkey=hotkey, miner_class=MinerClass.GENERATOR.value, value=float(value), updated_at=now)
            )
    return {h: float(v) for h, v in zip(hotkeys, new, strict=True)}


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
