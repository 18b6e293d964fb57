"""Every factor of every weight of one epoch, as plain records that multiply out.

Source: specification "Scoring", sections 6 and 7. The records go into the database as JSON, so that a weight can be
explained long after the media behind it are gone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from gas.scoring.generators import (
    PriceTable,
    base_reward,
    generator_reward,
    price_multiplier,
    sample_size_factor,
    volume,
)
from gas.scoring.weights import EMA_ALPHA
from gas.types import Modality
from gas.validator.tallies import GeneratorDay

__all__ = ["GeneratorFactors", "ModalityFactors", "Pot", "Reckoning"]


@dataclass(frozen=True, slots=True)
class ModalityFactors:
    """One modality of a generator's last 24 hours: ``base`` is ``pass_rate * volume * price``.

    Attributes:
        share: Of the modality in the reward.
        verified: n.
        ended: Challenges that have ended, in any way that counts.
        pass_rate: p.
        volume: v.
        price: The price multiplier.
        base: Their product.
        tiers_requested: How many verified media were asked for in each tier, from the smallest up.
        tiers_delivered: How many came in each.
        offences: How many of ``ended`` are no challenges but offences beyond what is free.
        sold_elsewhere: How many of ``ended`` another validator had first.
    """

    share: float
    verified: int
    ended: int
    pass_rate: float
    volume: float
    price: float
    base: float
    tiers_requested: tuple[int, ...] = ()
    tiers_delivered: tuple[int, ...] = ()
    offences: int = 0
    sold_elsewhere: int = 0

    @classmethod
    def of(cls, day: GeneratorDay, modality: Modality, share: float, prices: PriceTable) -> Self:
        """The factors of one modality of a day."""
        tally = day.tallies[modality]
        count, tiers = len(tally.verified), range(len(prices.prices[modality]))
        return cls(
            share=share,
            verified=count,
            ended=count + tally.refused,
            pass_rate=tally.pass_rate,
            volume=volume(count),
            price=price_multiplier(tally.verified, modality, prices),
            base=base_reward(tally, modality, prices),
            tiers_requested=tuple(sum(m.requested == tier for m in tally.verified) for tier in tiers),
            tiers_delivered=tuple(sum(m.delivered == tier for m in tally.verified) for tier in tiers),
            offences=day.penalty,
            sold_elsewhere=day.sold_elsewhere.get(modality, 0),
        )


@dataclass(frozen=True, slots=True)
class GeneratorFactors:
    """One generator: ``reward`` is the sum of share * base over ``modalities``, times 1 + ``bonus``.

    Attributes:
        uid: Its slot.
        hotkey: Its key.
        modalities: By name.
        fooled: Judgements of the last 7 days in which its media were taken for real.
        judged: c, all of them.
        fool_rate: f; None when nothing was judged.
        sample_factor: s.
        silent: Whether nothing of it was verified for 24 hours: no bonus then.
        bonus: clip(f * s, 0, 2).
        reward: C_t.
        challenged: Whether challenges of it have ended since the last epoch; otherwise ``score`` stays ``previous``.
            Who could not be challenged for 24 hours counts as challenged, with a reward of 0: nobody keeps a score by
            hiding.
        replaced: Whether it has taken its slot since the last epoch: ``previous`` is 0.
        offences: Of the last 24 hours by kind, the free ones too, see :mod:`gas.validator.offences`.
        alpha: Of the moving average.
        previous: V_(t-1).
        score: V_t.
    """

    uid: int
    hotkey: str
    modalities: Mapping[str, ModalityFactors]
    fooled: int
    judged: int
    fool_rate: float | None
    sample_factor: float
    silent: bool
    bonus: float
    reward: float
    challenged: bool
    replaced: bool
    offences: Mapping[str, int] = field(default_factory=dict)
    alpha: float = EMA_ALPHA
    previous: float = 0.0
    score: float = 0.0

    @classmethod
    def of(
        cls,
        uid: int,
        hotkey: str,
        day: GeneratorDay | None,
        judged: tuple[int, int],
        shares: Mapping[Modality, float],
        prices: PriceTable,
        *,
        replaced: bool,
    ) -> Self:
        """The factors before the history is known.

        Args:
            uid: Its slot.
            hotkey: Its key.
            day: Its last 24 hours; None when it was not challenged in them.
            judged: How often it fooled, and how often not.
            shares: Of the modalities, summing to 1.
            prices: The table.
            replaced: Whether its slot is newer than the last epoch.
        """
        fooled, not_fooled = judged
        hidden, day = day is None, day or GeneratorDay()
        silent = day.verified == 0
        reward = generator_reward(day.tallies, shares, prices, fooled=fooled, not_fooled=not_fooled, silent=silent)
        return cls(
            uid=uid,
            hotkey=hotkey,
            modalities={
                modality.value: ModalityFactors.of(day, modality, shares.get(modality, 0.0), prices)
                for modality in sorted(day.tallies)
            },
            fooled=fooled,
            judged=fooled + not_fooled,
            fool_rate=reward.fool_rate,
            sample_factor=sample_size_factor(fooled + not_fooled),
            silent=silent,
            bonus=reward.bonus,
            reward=reward.reward,
            challenged=hidden or day.settled > 0,
            replaced=replaced,
            offences=dict(day.offences),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read :func:`dataclasses.asdict`'s form back."""
        modalities = {name: ModalityFactors(**one) for name, one in values["modalities"].items()}
        return cls(**{**values, "modalities": modalities})


@dataclass(frozen=True, slots=True)
class Pot:
    """A share of the emission for which detectors compete; the winner takes all, and without one it is burnt.

    Attributes:
        modality: Of the competition.
        vertical: Of the competition.
        class_share: Of the modality in the emission.
        part: Of this competition in the modality.
        share: Their product.
        round: The newest round that has ended; None when there was none.
        margin: By how much a challenger had to beat the champion.
        winner: ``{"hotkey", "uid", "name", "score"}`` of who holds the share; ``uid`` is None when the hotkey holds
            no slot any more. None when nobody won.
        champion: The same of the round before, without the slot.
        stayed: Whether the winner was the champion before.
        entries: Best score of each hotkey in the round, the best first.
    """

    modality: str
    vertical: str
    class_share: float
    part: float
    share: float
    round: str | None
    margin: float
    winner: dict[str, Any] | None
    champion: dict[str, Any] | None
    stayed: bool
    entries: tuple[dict[str, Any], ...] = ()

    @property
    def paid_uid(self) -> int | None:
        """Who is paid; None when the share is burnt."""
        return None if self.winner is None else self.winner["uid"]


@dataclass(frozen=True, slots=True)
class Reckoning:
    """One epoch's weights with all that led to them.

    Attributes:
        epoch: Its name: the block at which it was reckoned.
        at: Seconds since the epoch.
        since: Time of the reckoning before, or 24 hours earlier.
        profile: Name of the emission profile.
        shares: Of each class.
        prices: Version of the price table.
        owner_uid: To whom burnt shares go.
        weights: By uid, summing to 1.
        generators: Everybody with a score or a challenge.
        pots: Of the detectors' competitions.
        others: Scores by uid of further classes.
        hotkeys: By uid, of everybody who is named here.
    """

    epoch: int
    at: float
    since: float
    profile: str
    shares: Mapping[str, float]
    prices: str
    owner_uid: int
    weights: Mapping[int, float]
    generators: tuple[GeneratorFactors, ...]
    pots: tuple[Pot, ...]
    others: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    hotkeys: Mapping[int, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON form; uids become text."""
        return {
            **asdict(self),
            "weights": {str(uid): weight for uid, weight in self.weights.items()},
            "others": {name: {str(u): v for u, v in scores.items()} for name, scores in self.others.items()},
            "hotkeys": {str(uid): hotkey for uid, hotkey in self.hotkeys.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read the JSON form back."""
        return cls(
            **{
                **values,
                "weights": {int(uid): weight for uid, weight in values["weights"].items()},
                "generators": tuple(GeneratorFactors.from_dict(one) for one in values["generators"]),
                "pots": tuple(Pot(**one) for one in values["pots"]),
                "others": {name: {int(u): v for u, v in found.items()} for name, found in values["others"].items()},
                "hotkeys": {int(uid): hotkey for uid, hotkey in values["hotkeys"].items()},
            }
        )
