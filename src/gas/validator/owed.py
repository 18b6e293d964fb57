"""Wishes that a miner was too busy to take: it is asked the very same again, so that none chooses what it is paid for.

A busy answer costs a miner nothing, and it has read the wish when it gives one. With another wish each time, whoever
says that it is busy to all but the best paid tier would earn more than who takes what comes. So a wish stays until the
miner takes it, or fails at it, which counts. Kept are the challenges' rows alone: a restart forgets nothing.

What is not covered: a miner that takes nothing of a kind for a whole day is asked something new then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.protocol.messages import EDITS
from gas.storage.tables import ChallengeRow
from gas.types import Hotkey, Modality
from gas.validator.tasks import ChallengeState

__all__ = ["BUSY", "OWED_SECONDS", "Wish", "kind_of", "owed_wishes"]

BUSY: Final = "busy"
"""Code of the reason why a challenge was not taken that the miner had no room for."""

OWED_SECONDS: Final = 86_400.0
"""So long a wish waits for its miner, counted from the last busy answer; pay looks back no farther."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a miner was asked for.

    Attributes:
        modality: Of the medium.
        tier: The one that is paid, an index into :data:`gas.scoring.generators.TIERS`.
        prompt: What it should show.
        prompt_id: The bank's.
        parameters: As the challenge's row keeps them, with the names of what was sent along.
    """

    modality: Modality
    tier: int
    prompt: str
    prompt_id: int
    parameters: Mapping[str, Any]


def kind_of(modality: str, parameters: Mapping[str, Any]) -> str:
    """What sort of work a challenge is: its modality, or :data:`gas.protocol.messages.EDITS` for a change."""
    return EDITS if parameters.get("source_sha256") else modality


def owed_wishes(
    session: Session, validator: str, miners: Collection[Hotkey], since: float
) -> dict[tuple[Hotkey, str], Wish]:
    """The wish of each kind, by hotkey and :func:`kind_of`, that a miner was too busy for and has not taken since.

    Args:
        session: Read session.
        validator: Who asks.
        miners: Of whom.
        since: Seconds since the epoch; what was asked before is forgotten.
    """
    # Without a prompt nothing was asked: the miner could not even be reached.
    asked = (
        ChallengeRow.validator == validator,
        ChallengeRow.miner.in_(miners),
        ChallengeRow.created_at >= since,
        ChallengeRow.prompt_id.is_not(None),
    )
    untaken = ChallengeRow.state == ChallengeState.UNTAKEN.value
    busy: dict[tuple[Hotkey, str], ChallengeRow] = {}
    for row in session.scalars(select(ChallengeRow).where(*asked, untaken).order_by(ChallengeRow.created_at)):
        if any(reason.get("code") == BUSY for reason in row.reasons):
            busy[Hotkey(row.miner), kind_of(row.modality, row.parameters)] = row
    if not busy:
        return {}
    taken: dict[tuple[Hotkey, str], tuple[float, int]] = {}
    others = select(
        ChallengeRow.miner, ChallengeRow.modality, ChallengeRow.parameters, ChallengeRow.created_at, ChallengeRow.block
    )
    owing = {miner for miner, _ in busy}
    for miner, modality, parameters, at, block in session.execute(
        others.where(*asked, ChallengeRow.miner.in_(owing), ~untaken)
    ).tuples():
        key = Hotkey(miner), kind_of(modality, parameters)
        last_at, last_block = taken.get(key, (0.0, -1))
        taken[key] = max(last_at, at), max(last_block, block or 0)
    found = {}
    for key, row in busy.items():
        at, block = taken.get(key, (0.0, -1))
        # Either clock may have been set back, ours or the chain's.
        if at <= row.created_at and block <= (row.block or 0) and row.prompt_id is not None:
            found[key] = Wish(Modality(row.modality), row.tier or 0, row.prompt, row.prompt_id, row.parameters)
    return found
