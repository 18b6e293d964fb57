"""What the database knows of the generators: media and refusals of the last day, judgements of the last week."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Integer, and_, cast, exists, func, select
from sqlalchemy.orm import Session

from gas.scoring.generators import TIERS, ModalityTally, PaidMedium, image_tier, video_tier
from gas.storage.tables import ChallengeRow, JudgementRow, MediumRow, RunRow
from gas.types import Modality
from gas.validator.offences import ALLOWED_OFFENCES, offences_of
from gas.validator.owed import BUSY
from gas.validator.prints import SOLD_ELSEWHERE
from gas.validator.tasks import ChallengeState

__all__ = [
    "DAY",
    "ENDED",
    "GeneratorDay",
    "delivered_tier",
    "generator_days",
    "judged_media",
    "paid_medium",
    "requested_tier",
]

DAY: Final = 86_400.0
"""Seconds."""
_JUDGED_DAYS: Final = 7

ENDED: Final = (ChallengeState.VERIFIED, ChallengeState.REFUSED, ChallengeState.FAILED, ChallengeState.EXPIRED)
"""Ends of a challenge that count in the pass rate; one that failed by a fault of ours is in another state."""


@dataclass(slots=True)
class GeneratorDay:
    """One generator's last 24 hours.

    Attributes:
        tallies: By modality; one without any challenge that has ended is missing.
        settled: How many of its challenges have ended since the last epoch; those that it was too busy to take too.
        offences: By kind, see :mod:`gas.validator.offences`. Those beyond what is free count as refused in each
            modality's tally.
        sold_elsewhere: By modality, media that another validator had first; they are among the refused.
    """

    tallies: dict[Modality, ModalityTally] = field(default_factory=dict)
    settled: int = 0
    offences: dict[str, int] = field(default_factory=dict)
    sold_elsewhere: dict[Modality, int] = field(default_factory=dict)

    @property
    def verified(self) -> int:
        """Media that count."""
        return sum(len(tally.verified) for tally in self.tallies.values())

    @property
    def refused(self) -> int:
        """What did not come, or came to nothing."""
        return sum(tally.refused - self.penalty for tally in self.tallies.values())

    @property
    def penalty(self) -> int:
        """Failed verifications that its offences count as."""
        return max(0, sum(self.offences.values()) - ALLOWED_OFFENCES)


def generator_days(
    session: Session,
    validator: str,
    *,
    now: float,
    since: float,
    blocks: Mapping[str, int] | None = None,
) -> dict[str, GeneratorDay]:
    """The last 24 hours of every generator that was challenged in them.

    Args:
        session: Read session.
        validator: Whose challenges count.
        now: Seconds since the epoch.
        since: Time of the last epoch, for ``settled``.
        blocks: Block in which each hotkey took its slot: challenges drawn before it are another life's, and don't
            count.
    """
    ended = func.coalesce(ChallengeRow.settled_at, ChallengeRow.created_at)
    rows = session.execute(
        select(
            ChallengeRow.miner, ChallengeRow.modality, ChallengeRow.state, ChallengeRow.tier, ChallengeRow.parameters,
            ChallengeRow.block, ended, ChallengeRow.reasons, MediumRow.width, MediumRow.height,
            MediumRow.facts["tier"].as_string(),
        )
        .outerjoin(
            MediumRow,
            and_(MediumRow.sha256 == ChallengeRow.media_sha256, MediumRow.generator == ChallengeRow.miner),
        )
        .where(
            ChallengeRow.validator == validator,
            ChallengeRow.created_at > now - DAY,
            ChallengeRow.created_at <= now,
            ChallengeRow.state.in_([state.value for state in (*ENDED, ChallengeState.UNTAKEN)]),
        )
    ).tuples()  # fmt: skip
    verified: dict[tuple[str, Modality], list[PaidMedium]] = {}
    refused: dict[tuple[str, Modality], int] = {}
    days: dict[str, GeneratorDay] = {}
    offences = offences_of(session, validator, now=now)
    for miner, kind, state, tier, parameters, block, at, reasons, width, height, held in rows:
        if block is not None and block < (blocks or {}).get(miner, 0):
            continue
        untaken = state == ChallengeState.UNTAKEN.value
        if untaken and not any(reason.get("code") == BUSY for reason in reasons):
            continue
        modality = Modality(kind)
        key = miner, modality
        day = days.setdefault(miner, GeneratorDay(offences=offences.get(miner, {})))
        day.settled += at > since
        if untaken:
            continue
        # A verified challenge without its medium is no medium.
        if state == ChallengeState.VERIFIED.value and width is not None and height is not None:
            verified.setdefault(key, []).append(paid_medium(modality, tier, parameters, width, height, held))
        else:
            refused[key] = refused.get(key, 0) + 1
            if any(reason.get("code") == SOLD_ELSEWHERE for reason in reasons):
                day.sold_elsewhere[modality] = day.sold_elsewhere.get(modality, 0) + 1
    for miner, modality in verified.keys() | refused.keys():
        key = miner, modality
        failed = refused.get(key, 0) + days[miner].penalty
        days[miner].tallies[modality] = ModalityTally(tuple(verified.get(key, ())), failed)
    return days


def judged_media(session: Session, hotkeys: Collection[str], *, now: float) -> dict[str, tuple[int, int]]:
    """How often media fooled the models of benchmark runs that ended in the last 7 days, and how often not.

    What was withdrawn after all, because it was sold elsewhere before, is no medium of the generator's any more.

    Args:
        session: Read session.
        hotkeys: The generators.
        now: Seconds since the epoch.
    """
    rows = session.execute(
        select(MediumRow.generator, func.sum(cast(JudgementRow.fooled, Integer)), func.count())
        .join(JudgementRow, JudgementRow.media_sha256 == MediumRow.sha256)
        .join(RunRow, RunRow.id == JudgementRow.run_id)
        .where(
            RunRow.finished_at > now - _JUDGED_DAYS * DAY,
            RunRow.finished_at <= now,
            MediumRow.source == "miner",
            ~exists().where(
                ChallengeRow.validator == MediumRow.validator,
                ChallengeRow.miner == MediumRow.generator,
                ChallengeRow.task_id == MediumRow.task_id,
                ChallengeRow.state != ChallengeState.VERIFIED.value,
            ),
        )
        .group_by(MediumRow.generator)
    ).tuples()
    wanted = set(hotkeys)
    return {hotkey: (int(fooled or 0), int(all_ - (fooled or 0))) for hotkey, fooled, all_ in rows if hotkey in wanted}


def paid_medium(
    modality: Modality,
    tier: int | None,
    parameters: Mapping[str, Any],
    width: int,
    height: int,
    held: str | None = None,
) -> PaidMedium:
    """A verified medium as it is paid.

    A changed photo has the size of the photo, which nobody chose, and verification has seen to it that it has: what was
    asked for has been delivered, and the tier that was drawn is paid.

    Args:
        modality: Of the challenge.
        tier: As the challenge keeps it.
        parameters: Of the task.
        width: Pixels of the medium.
        height: Pixels of the medium.
        held: As in :func:`delivered_tier`.
    """
    requested = requested_tier(modality, tier, parameters)
    changed = bool(parameters.get("source_sha256"))
    return PaidMedium(requested, requested if changed else delivered_tier(modality, width, height, held))


def requested_tier(modality: Modality, tier: int | None, parameters: Mapping[str, Any]) -> int:
    """The tier that was asked for, as an index into :data:`gas.scoring.generators.TIERS`; the lowest when none was.

    Args:
        modality: Of the challenge.
        tier: As the challenge keeps it; None in challenges of older versions.
        parameters: Of the task; ``tier`` (an index) or ``resolution`` (a name) is looked at where ``tier`` is None.
    """
    names = TIERS[modality]
    if tier is None:
        given, name = parameters.get("tier"), parameters.get("resolution")
        if isinstance(given, int) and not isinstance(given, bool):
            tier = given
        elif isinstance(name, str) and name.lower() in [known.lower() for known in names]:
            tier = [known.lower() for known in names].index(name.lower())
    return min(max(tier or 0, 0), len(names) - 1)


def delivered_tier(modality: Modality, width: int, height: int, held: str | None = None) -> int:
    """The tier of a medium by its pixels; a sound has only one.

    Args:
        modality: Of the medium.
        width: Pixels.
        height: Pixels.
        held: Name of the tier whose detail it really holds, as verification found; None where that isn't known.
    """
    tier = 0
    if modality is not Modality.AUDIO:
        tier = image_tier(width, height) if modality is Modality.IMAGE else video_tier(width, height)
    names = TIERS[modality]
    return min(tier, names.index(held)) if held in names else tier
