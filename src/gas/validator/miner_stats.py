"""What a validator knows of its miners: challenges, refusals, latency, tiers, and how often they fool detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import quantiles
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.scoring.generators import TIERS
from gas.storage.database import Database
from gas.storage.tables import ChallengeRow, MediumRow
from gas.types import Modality
from gas.validator.tallies import DAY, ENDED, judged_media, paid_medium
from gas.validator.tasks import ChallengeState

__all__ = ["Latency", "MinerStats", "miner_stats"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a challenge to its delivery."""

    count: int
    p50: float
    p90: float
    most: float


@dataclass(slots=True)
class MinerStats:
    """One miner.

    Attributes:
        hotkey: Who it is.
        uid: Its slot as of its newest challenge; None where that isn't known.
        states: Challenges by state.
        modalities: Verified media by modality.
        reasons: Refusals and failures by the code of each reason.
        pass_rate: Verified among those that have ended in a way that counts; None when none has.
        latency: Of deliveries; None without any.
        fooled: Judgements of the last 7 days in which its media were taken for real.
        judged: All judgements of the last 7 days.
        fool_rate: Their ratio; None when nothing was judged.
        tiers: By modality with more than one tier: verified media by ``requested`` and ``delivered`` tier.
        last_challenge: Seconds since the epoch.
        last_verified: Seconds since the epoch; None when nothing of it is verified.
    """

    hotkey: str
    uid: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    modalities: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    pass_rate: float | None = None
    latency: Latency | None = None
    fooled: int = 0
    judged: int = 0
    fool_rate: float | None = None
    tiers: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    last_challenge: float = 0.0
    last_verified: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def miner_stats(
    database: Database, validator: str, *, now: float, hours: float | None = 24.0, hotkey: str | None = None
) -> list[MinerStats]:
    """All miners that were challenged, in the order of their hotkeys.

    Args:
        database: Challenges, media and judgements.
        validator: Whose challenges.
        now: Seconds since the epoch.
        hours: Only challenges of the last so many hours; None for all.
        hotkey: Only this miner.
    """
    with database.read() as session:
        found = {key: _stats(key, rows) for key, rows in _rows(session, validator, now, hours, hotkey).items()}
        for key, (fooled, not_fooled) in judged_media(session, found, now=now).items():
            one = found[key]
            one.fooled, one.judged = fooled, fooled + not_fooled
            one.fool_rate = fooled / one.judged if one.judged else None
    return [found[key] for key in sorted(found)]


def _rows(
    session: Session, validator: str, now: float, hours: float | None, hotkey: str | None
) -> dict[str, list[Any]]:
    query = (
        select(
            ChallengeRow.miner, ChallengeRow.uid, ChallengeRow.modality, ChallengeRow.state, ChallengeRow.tier,
            ChallengeRow.parameters, ChallengeRow.created_at, ChallengeRow.delivered_at, ChallengeRow.reasons,
            MediumRow.width, MediumRow.height, MediumRow.facts["tier"].as_string().label("held"),
            MediumRow.verified_at,
        )
        .outerjoin(MediumRow, MediumRow.sha256 == ChallengeRow.media_sha256)
        .where(ChallengeRow.validator == validator)
        .order_by(ChallengeRow.created_at)
    )  # fmt: skip
    if hours is not None:
        query = query.where(ChallengeRow.created_at > now - hours / 24 * DAY)
    if hotkey is not None:
        query = query.where(ChallengeRow.miner == hotkey)
    found: dict[str, list[Any]] = {}
    for row in session.execute(query):
        found.setdefault(row.miner, []).append(row)
    return found


def _stats(hotkey: str, rows: list[Any]) -> MinerStats:
    states = Counter(row.state for row in rows)
    reasons: Counter[str] = Counter()
    modalities: Counter[str] = Counter()
    tiers: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        reasons.update(str(reason["code"]) for reason in row.reasons)
        if row.state == ChallengeState.EXPIRED.value and not row.reasons:
            reasons["expired"] += 1
        if row.state != ChallengeState.VERIFIED.value:
            continue
        modality = Modality(row.modality)
        modalities[modality.value] += 1
        names = TIERS[modality]
        if len(names) > 1 and row.width is not None:
            counts = tiers.setdefault(modality.value, {"requested": Counter(), "delivered": Counter()})
            paid = paid_medium(modality, row.tier, row.parameters, row.width, row.height, row.held)
            counts["requested"][names[paid.requested]] += 1
            counts["delivered"][names[paid.delivered]] += 1
    ended = sum(states[state.value] for state in ENDED)
    verified = states[ChallengeState.VERIFIED.value]
    return MinerStats(
        hotkey=hotkey,
        uid=next((row.uid for row in reversed(rows) if row.uid is not None), None),
        states=dict(sorted(states.items())),
        modalities=dict(sorted(modalities.items())),
        reasons=dict(reasons.most_common()),
        pass_rate=verified / ended if ended else None,
        latency=_latency(row.delivered_at - row.created_at for row in rows if row.delivered_at is not None),
        tiers={name: {kind: dict(counts) for kind, counts in both.items()} for name, both in tiers.items()},
        last_challenge=rows[-1].created_at,
        last_verified=max((row.verified_at for row in rows if row.verified_at is not None), default=None),
    )


def _latency(seconds: Iterable[float]) -> Latency | None:
    known = sorted(seconds)
    if not known:
        return None
    cuts = quantiles(known, n=10, method="inclusive") if len(known) > 1 else [known[0]] * 9
    return Latency(len(known), round(cuts[4], 3), round(cuts[8], 3), round(known[-1], 3))
