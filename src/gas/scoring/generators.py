"""Pay of generators: verified volume, price of what was asked, and how often their media fool the detectors.

Source: specification "Scoring", section 7.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np

from gas.errors import ConfigurationError
from gas.types import Modality

__all__ = [
    "TIERS",
    "GeneratorReward",
    "ModalityTally",
    "PaidMedium",
    "PriceTable",
    "base_reward",
    "default_prices",
    "draw_tier",
    "fool_bonus",
    "fool_rate",
    "generator_reward",
    "image_tier",
    "price_multiplier",
    "sample_size_factor",
    "video_tier",
    "volume",
]

TIERS: Final[Mapping[Modality, tuple[str, ...]]] = {
    Modality.IMAGE: ("1K", "2K", "4K"),
    Modality.VIDEO: ("480p", "720p", "1080p"),
    Modality.AUDIO: ("standard",),
}
"""Sizes that are priced, from the smallest up; a tier is an index into its modality's tuple."""

TIER_ODDS: Final = (0.4, 0.4, 0.2)
"""How often each tier is requested."""
SHORTFALL: Final = 0.6
"""What each tier below the requested one leaves of the price multiplier."""
DAILY_FULL: Final = 10
"""Media a day that count in full; beyond, volume grows with the logarithm."""
FOOL_SAMPLE: Final = 20
"""Judged media at which the fool rate counts in full."""
MAX_BONUS: Final = 2.0


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices that a round is paid by; part of its parameters, so that two validators never price one medium apart.

    Attributes:
        version: Name of the table.
        baseline: Price that counts as 1, for each modality.
        prices: Price of each tier, in the order of :data:`TIERS`.

    Raises:
        gas.errors.ConfigurationError: A modality or tier without a positive price.
    """

    version: str
    baseline: Mapping[Modality, float]
    prices: Mapping[Modality, tuple[float, ...]]

    def __post_init__(self) -> None:
        for modality, tiers in TIERS.items():
            values = (self.baseline.get(modality, 0.0), *self.prices.get(modality, ()))
            if len(values) != len(tiers) + 1 or not all(math.isfinite(v) and v > 0.0 for v in values):
                raise ConfigurationError(f"Price table {self.version!r}: {modality} needs a positive price a tier.")

    def relative(self, modality: Modality, tier: int) -> float:
        """Price of a tier over the modality's baseline."""
        return self.prices[modality][tier] / self.baseline[modality]


def default_prices() -> PriceTable:
    """The table that this version of the package carries."""
    raw = json.loads(resources.files("gas.scoring").joinpath("prices.json").read_text(encoding="utf-8"))
    return PriceTable(
        version=raw["version"],
        baseline={m: float(raw["baseline"][m.value]) for m in TIERS},
        prices={m: tuple(float(raw["prices"][m.value][name]) for name in names) for m, names in TIERS.items()},
    )


@dataclass(frozen=True, slots=True)
class PaidMedium:
    """A verified medium: the tier that was asked for and the one that came, as indices into :data:`TIERS`."""

    requested: int
    delivered: int


@dataclass(frozen=True, slots=True)
class ModalityTally:
    """A generator's last 24 hours in one modality.

    Attributes:
        verified: Media that passed verification.
        refused: How many did not.
    """

    verified: tuple[PaidMedium, ...] = ()
    refused: int = 0

    @property
    def pass_rate(self) -> float:
        """Share of delivered media that passed; 0 without any."""
        delivered = len(self.verified) + self.refused
        return len(self.verified) / delivered if delivered else 0.0


@dataclass(frozen=True, slots=True)
class GeneratorReward:
    """A generator's pay before normalisation, and where it comes from.

    Attributes:
        reward: (sum of share_m * base_m) * (1 + bonus), at least 0.
        base: base_m of each modality.
        fool_rate: Share of judged media that fooled the detectors; None when none was judged.
        bonus: In [0, 2].
    """

    reward: float
    base: Mapping[Modality, float]
    fool_rate: float | None
    bonus: float


def image_tier(width: int, height: int) -> int:
    """Tier of an image by its smaller side: from 3500 px 4K, from 1900 px 2K, else 1K."""
    side = min(width, height)
    return 2 if side >= 3500 else 1 if side >= 1900 else 0


def video_tier(width: int, height: int) -> int:
    """Tier of a video by its pixels a frame: from 1,760,000 1080p, from 780,000 720p, else 480p."""
    pixels = width * height
    return 2 if pixels >= 1_760_000 else 1 if pixels >= 780_000 else 0


def draw_tier(rng: np.random.Generator, modality: Modality) -> int:
    """The tier to request: .4, .4, .2 from the smallest up; 0 where there is only one."""
    if len(TIERS[modality]) == 1:
        return 0
    return int(rng.choice(len(TIER_ODDS), p=TIER_ODDS))


def volume(verified: int) -> float:
    """Return v = min(n, 10) + max(0, log2(max(1, n - 9))): ten media in full, then one more for each doubling."""
    return min(verified, DAILY_FULL) + max(0.0, math.log2(max(1, verified - DAILY_FULL + 1)))


def price_multiplier(media: Sequence[PaidMedium], modality: Modality, prices: PriceTable) -> float:
    """Mean over verified media of sqrt(price / baseline) * 0.6^(tiers below the requested one); 1 without media.

    The tier paid is the smaller of the delivered and the requested one: nobody is paid for size not asked for.
    """
    if not media:
        return 1.0
    values = [
        math.sqrt(prices.relative(modality, min(m.delivered, m.requested)))
        * SHORTFALL ** max(0, m.requested - m.delivered)
        for m in media
    ]
    return math.fsum(values) / len(values)


def base_reward(tally: ModalityTally, modality: Modality, prices: PriceTable) -> float:
    """Return base = pass rate * volume * price multiplier."""
    return tally.pass_rate * volume(len(tally.verified)) * price_multiplier(tally.verified, modality, prices)


def fool_rate(fooled: int, not_fooled: int) -> float | None:
    """Return f = fooled / (fooled + not fooled); None when nothing was judged."""
    judged = fooled + not_fooled
    return fooled / judged if judged else None


def sample_size_factor(judged: int) -> float:
    """Return s = max(.5, c/20) below 20 judged media, min(2, 1 + ln(c/20)) from 20 on: more evidence, more bonus."""
    if judged < FOOL_SAMPLE:
        return max(0.5, judged / FOOL_SAMPLE)
    return min(2.0, 1.0 + math.log(judged / FOOL_SAMPLE))


def fool_bonus(fooled: int, not_fooled: int, *, silent: bool = False) -> float:
    """Return bonus = clip(f * s, 0, 2); 0 when nothing was judged, or for a generator that was silent for 24 hours.

    Args:
        fooled: Media that detectors took for real in benchmark runs of the last 7 days.
        not_fooled: Media that they saw through.
        silent: Whether the generator delivered nothing for 24 hours.
    """
    rate = fool_rate(fooled, not_fooled)
    if rate is None or silent:
        return 0.0
    return min(MAX_BONUS, max(0.0, rate * sample_size_factor(fooled + not_fooled)))


def generator_reward(
    tallies: Mapping[Modality, ModalityTally],
    shares: Mapping[Modality, float],
    prices: PriceTable,
    *,
    fooled: int,
    not_fooled: int,
    silent: bool = False,
) -> GeneratorReward:
    """Return reward = (sum over modalities of share_m * base_m) * (1 + bonus).

    Args:
        tallies: The last 24 hours, by modality; a missing one is empty.
        shares: share_m, summing to 1.
        prices: The round's table.
        fooled: Media judged in the last 7 days that fooled.
        not_fooled: Media judged in the last 7 days that did not.
        silent: Whether nothing was delivered for 24 hours.

    Raises:
        gas.errors.ConfigurationError: Shares that are negative or don't sum to 1.
    """
    if min(shares.values(), default=-1.0) < 0.0 or abs(sum(shares.values()) - 1.0) > 1e-9:
        raise ConfigurationError("Generators: the modalities' shares must not be negative and must sum to 1.")
    base = {m: base_reward(tallies.get(m, ModalityTally()), m, prices) for m in shares}
    bonus = fool_bonus(fooled, not_fooled, silent=silent)
    return GeneratorReward(
        reward=math.fsum(shares[m] * base[m] for m in shares) * (1.0 + bonus),
        base=base,
        fool_rate=fool_rate(fooled, not_fooled),
        bonus=bonus,
    )
