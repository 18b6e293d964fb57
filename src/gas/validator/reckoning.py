"""From the database to one epoch's weights, by the specification "Scoring", sections 6 and 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from gas.arena.competitions import Competitions, default_competitions
from gas.arena.rounds import score_class, standings
from gas.chain.base import Metagraph
from gas.errors import ConfigurationError
from gas.scoring.generators import PriceTable, default_prices
from gas.scoring.weights import CHAMPION_MARGIN, EmissionProfile, MinerClass, network_weights, update_scores
from gas.storage.tables import RoundRow, ScoreRow
from gas.types import Modality, Vertical
from gas.validator.factors import GeneratorFactors, Pot, Reckoning
from gas.validator.scores import fold_scores
from gas.validator.tallies import DAY, generator_days, judged_media

__all__ = ["PayRules", "Since", "reckon", "reckon_generators", "weigh"]

_GENERATOR: Final = MinerClass.GENERATOR.value
_COMPETING: Final = tuple(MinerClass(modality.value) for modality in Modality)
_OTHERS: Final = (MinerClass.SEGMENTER, MinerClass.DETECTOR, MinerClass.SERVING)


@dataclass(frozen=True, slots=True)
class PayRules:
    """Parameters of the pay.

    Attributes:
        competitions: Whose winners are paid, and how verticals share.
        prices: Of generators' media.
        modality_shares: Of the modalities in a generator's reward, summing to 1; as the profile shares among the
            detectors of the modalities when None.
    """

    competitions: Competitions = field(default_factory=default_competitions)
    prices: PriceTable = field(default_factory=default_prices)
    modality_shares: Mapping[Modality, float] | None = None

    def shares(self, profile: EmissionProfile) -> Mapping[Modality, float]:
        """Share of each modality in a generator's reward."""
        if self.modality_shares is not None:
            return self.modality_shares
        found = {m: profile.shares.get(MinerClass(m.value), 0.0) for m in Modality}
        total = sum(found.values())
        return {m: share / total if total else 1 / len(found) for m, share in found.items()}


@dataclass(frozen=True, slots=True)
class Since:
    """When the last epoch was: seconds since the epoch, and its block; None before the first one."""

    at: float
    block: int | None


def reckon(
    session: Session,
    graph: Metagraph,
    *,
    validator: str,
    profile: EmissionProfile,
    rules: PayRules,
    block: int,
    now: float,
    since: Since | None,
    keep: bool,
) -> Reckoning:
    """One epoch's weights.

    Args:
        session: A write session when ``keep``, else a read session.
        graph: Who holds which slot.
        validator: Whose challenges count.
        profile: Shares of the classes.
        rules: Further parameters.
        block: Names the epoch.
        now: Seconds since the epoch.
        since: The last epoch.
        keep: Whether the scores enter the history; the caller sees to it that this happens once an epoch, in the
            transaction that says so.

    Raises:
        ConfigurationError: ``no_burn_slot``, as :func:`weigh`.
    """
    known = since or Since(now - DAY, None)
    generators = reckon_generators(
        session, graph, validator=validator, shares=rules.shares(profile), prices=rules.prices, now=now, since=known,
        keep=keep,
    )  # fmt: skip
    return weigh(session, graph, generators, profile=profile, rules=rules, block=block, now=now, since=known)


def reckon_generators(
    session: Session,
    graph: Metagraph,
    *,
    validator: str,
    shares: Mapping[Modality, float],
    prices: PriceTable,
    now: float,
    since: Since,
    keep: bool,
) -> tuple[GeneratorFactors, ...]:
    """All generators with a challenge in the last 24 hours or a score; parameters as in :func:`reckon`."""
    uids: dict[str, int] = {neuron.hotkey: neuron.uid for neuron in graph.neurons}
    # A slot that was taken after the last epoch belongs to somebody new, also when the hotkey was here before.
    fresh = {n.hotkey for n in graph.neurons if since.block is not None and n.registered_at > since.block}
    blocks: dict[str, int] = {neuron.hotkey: neuron.registered_at for neuron in graph.neurons}
    days = generator_days(session, validator, now=now, since=since.at, blocks=blocks)
    judged = judged_media(session, uids, now=now)
    rows = {row.hotkey: row for row in session.scalars(select(ScoreRow).where(ScoreRow.miner_class == _GENERATOR))}
    found = [
        GeneratorFactors.of(
            uids[hotkey], hotkey, days.get(hotkey), judged.get(hotkey, (0, 0)), shares, prices,
            replaced=hotkey in fresh,
        )
        for hotkey in sorted((days.keys() | rows.keys()) & uids.keys(), key=lambda h: uids[h])
    ]  # fmt: skip
    old = {g.hotkey: 0.0 if g.replaced or g.hotkey not in rows else rows[g.hotkey].value for g in found}
    rewards = {g.hotkey: g.reward for g in found if g.challenged}
    if keep:
        scores = fold_scores(session, rewards, now=now, replaced=fresh)
        for hotkey in fresh & rows.keys() - scores.keys():
            rows[hotkey].value, rows[hotkey].updated_at = 0.0, now
    else:
        new = update_scores([old[h] for h in rewards], list(rewards.values()), np.ones(len(rewards), dtype=bool))
        scores = {h: (old[h], float(value)) for h, value in zip(rewards, new, strict=True)}
    return tuple(replace(g, previous=old[g.hotkey], score=scores.get(g.hotkey, (0.0, old[g.hotkey]))[1]) for g in found)


def weigh(
    session: Session,
    graph: Metagraph,
    generators: Sequence[GeneratorFactors],
    *,
    profile: EmissionProfile,
    rules: PayRules,
    block: int,
    now: float,
    since: Since,
) -> Reckoning:
    """Weights of an epoch whose generators are reckoned; parameters as in :func:`reckon`."""
    uids: dict[str, int] = {neuron.hotkey: neuron.uid for neuron in graph.neurons}
    owner = graph.owner_uid
    pots = [
        _pot(session, modality, vertical, part, profile.shares[MinerClass(modality.value)], uids)
        for modality in Modality
        if profile.shares.get(MinerClass(modality.value), 0.0) > 0
        for vertical, part in sorted(rules.competitions.shares(modality).items())
    ]
    rewards: dict[MinerClass, dict[int, float]] = {_class: {} for _class in _COMPETING}
    for pot in pots:
        payees = rewards[MinerClass(pot.modality)]
        uid = owner if pot.paid_uid is None else pot.paid_uid
        payees[uid] = payees.get(uid, 0.0) + pot.part
    rewards[MinerClass.GENERATOR] = {g.uid: g.score for g in generators}
    others = {c: _scores(session, c, uids) for c in _OTHERS if profile.shares.get(c, 0.0) > 0}
    weights = network_weights({**rewards, **others}, profile, owner)
    if owner < 0 and owner in weights:
        raise ConfigurationError(
            f"{weights[owner]:.0%} of the emission has nobody to be paid to, and can't be burnt: the subnet's "
            "owner holds no slot.",
            code="no_burn_slot",
            hint="Register the owner's hotkey on the subnet, or take a profile whose classes all have somebody to pay.",
        )
    named = {*weights, *(g.uid for g in generators), *(uid for found in others.values() for uid in found)}
    named |= {entry["uid"] for pot in pots for entry in pot.entries if entry["uid"] is not None}
    return Reckoning(
        epoch=block,
        at=now,
        since=since.at,
        profile=profile.name,
        shares={c.value: share for c, share in profile.shares.items() if share > 0},
        prices=rules.prices.version,
        owner_uid=owner,
        weights=weights,
        generators=tuple(generators),
        pots=tuple(pots),
        others={c.value: found for c, found in others.items()},
        hotkeys={n.uid: n.hotkey for n in graph.neurons if n.uid in named},
    )


def _scores(session: Session, miner_class: MinerClass, uids: Mapping[str, int]) -> dict[int, float]:
    rows = session.scalars(select(ScoreRow).where(ScoreRow.miner_class == miner_class.value))
    return {uids[row.hotkey]: max(0.0, row.value) for row in rows if row.hotkey in uids}


def _pot(
    session: Session, modality: Modality, vertical: Vertical, part: float, share: float, uids: Mapping[str, int]
) -> Pot:
    rounds = session.scalars(
        select(RoundRow)
        .where(RoundRow.modality == modality.value, RoundRow.vertical == vertical.value, RoundRow.state == "closed")
        .order_by(RoundRow.closed_at.desc())
        .limit(2)
    ).all()
    outcome: dict[str, Any] = (rounds[0].outcome or {}) if rounds else {}
    said: dict[str, Any] = outcome.get("winner") or {}
    before = ((rounds[1].outcome or {}) if len(rounds) > 1 else {}).get("winner")
    # The row of scores decides who is paid; the round's outcome only says how that came about.
    row = session.scalars(select(ScoreRow).where(ScoreRow.miner_class == score_class(modality, vertical))).first()
    winner = None
    if row is not None:
        name = said.get("name", "") if said.get("hotkey") == row.hotkey else ""
        winner = {"hotkey": row.hotkey, "uid": uids.get(row.hotkey), "name": name, "score": row.value}
    entries: dict[str, dict[str, Any]] = {}
    for entry in standings(session, rounds[0].id) if rounds else ():
        if entry.duplicate_of is None:
            about = {"hotkey": entry.hotkey, "uid": uids.get(entry.hotkey), "name": entry.name, "score": entry.score}
            entries.setdefault(entry.hotkey, about)
    champion = {name: before.get(name) for name in ("hotkey", "name", "score")} if before else None
    return Pot(
        modality=modality.value,
        vertical=vertical.value,
        class_share=share,
        part=part,
        share=share * part,
        round=rounds[0].id if rounds else None,
        margin=float(outcome.get("margin", CHAMPION_MARGIN)),
        winner=winner,
        champion=champion,
        stayed=bool(winner and champion and winner["hotkey"] == champion["hotkey"]),
        entries=tuple(entries.values()),
    )
