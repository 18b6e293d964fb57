"""One miner's weight, taken apart: every factor, in a form in which the numbers multiply out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from gas.errors import ConfigurationError
from gas.scoring.generators import TIERS
from gas.scoring.weights import MinerClass
from gas.types import Modality
from gas.validator.factors import GeneratorFactors, Pot, Reckoning
from gas.validator.offences import ALLOWED_OFFENCES

__all__ = ["explain", "lines_of", "sentences"]

_BURN: Final = "burn"


def explain(reckoning: Reckoning, uid: int) -> dict[str, Any]:
    """All parts of one uid's weight.

    Args:
        reckoning: The epoch.
        uid: Whose weight.

    Returns:
        JSON: ``uid``, ``hotkey``, ``weight``, ``epoch``, ``at``, ``profile``, ``prices`` and ``parts``. The weights
        of the parts add up to ``weight``. A part of the class ``generator`` has the factors of
        :class:`gas.validator.factors.GeneratorFactors`, ``class_share``, ``class_total`` (all generators' scores) and
        ``weight`` = ``class_share * score / class_total``. A part of a detector has its competition, ``round``,
        ``score``, ``champion``, ``margin``, ``needed`` and ``share``, and ``weight`` = ``share`` for the winner, else
        0. A part ``burn`` names what had nobody to be paid to.

    Raises:
        ConfigurationError: ``unknown_uid``: nobody of that uid was weighed in this epoch.
    """
    parts = list(_parts(reckoning, uid))
    if not parts and uid not in reckoning.hotkeys:
        named = ", ".join(str(known) for known in sorted(reckoning.hotkeys)[:40])
        raise ConfigurationError(
            f"Nobody of uid {uid} was challenged, ran in a round or was paid.",
            code="unknown_uid",
            hint=f"Known: {named}." if named else "Nobody has been weighed yet.",
        )
    return {
        "uid": uid,
        "hotkey": reckoning.hotkeys.get(uid),
        "weight": reckoning.weights.get(uid, 0.0),
        "epoch": reckoning.epoch,
        "at": reckoning.at,
        "profile": reckoning.profile,
        "prices": reckoning.prices,
        "parts": parts,
    }


def sentences(reckoning: Reckoning) -> dict[int, list[str]]:
    """Why each uid gets what it gets, one sentence a part."""
    found = {uid: [_sentence(part) for part in _parts(reckoning, uid)] for uid in sorted(reckoning.hotkeys)}
    if reckoning.owner_uid not in found and reckoning.weights.get(reckoning.owner_uid):
        found[reckoning.owner_uid] = [_sentence(part) for part in _parts(reckoning, reckoning.owner_uid)]
    return {uid: lines for uid, lines in found.items() if lines}


def lines_of(explained: dict[str, Any]) -> Iterator[str]:
    """An explanation for people, line by line."""
    yield f"uid {explained['uid']}  {explained['hotkey'] or ''}  weight {explained['weight']:.6f}".replace("    ", "  ")
    yield (
        f"epoch {explained['epoch']}, profile {explained['profile']}, prices of {explained['prices']}"
        if explained["epoch"]
        else f"profile {explained['profile']}"
    )
    for part in explained["parts"]:
        yield ""
        yield _sentence(part)
        if part["class"] == MinerClass.GENERATOR.value:
            yield from _generator_lines(part)
        elif part["class"] in list(Modality):
            yield from _detector_lines(part)
    if len(explained["parts"]) > 1:
        sums = " + ".join(f"{part['weight']:.6f}" for part in explained["parts"])
        yield ""
        yield f"weight = {sums} = {explained['weight']:.6f}"


def _parts(reckoning: Reckoning, uid: int) -> Iterator[dict[str, Any]]:
    total = math.fsum(g.score for g in reckoning.generators)
    share = reckoning.shares.get(MinerClass.GENERATOR.value, 0.0)
    for generator in reckoning.generators:
        if generator.uid == uid:
            yield _generator(generator, share, total)
    for pot in reckoning.pots:
        own = next((entry for entry in pot.entries if entry["uid"] == uid), None)
        if own is not None or pot.paid_uid == uid:
            yield _detector(pot, uid, own)
    for name, scores in reckoning.others.items():
        if uid in scores:
            sum_, part = math.fsum(scores.values()), reckoning.shares[name]
            weight = part * scores[uid] / sum_ if sum_ else 0.0
            yield {"class": name, "class_share": part, "score": scores[uid], "class_total": sum_, "weight": weight}
    if uid == reckoning.owner_uid:
        pieces = list(_burnt(reckoning, total))
        if pieces:
            yield {"class": _BURN, "pieces": pieces, "weight": math.fsum(piece["share"] for piece in pieces)}


def _generator(generator: GeneratorFactors, share: float, total: float) -> dict[str, Any]:
    return {
        "class": MinerClass.GENERATOR.value,
        "class_share": share,
        **asdict(generator),
        "class_total": total,
        "weight": share * generator.score / total if total else 0.0,
    }


def _detector(pot: Pot, uid: int, own: dict[str, Any] | None) -> dict[str, Any]:
    won = pot.paid_uid == uid
    winner = pot.winner or {}
    return {
        "class": pot.modality,
        "vertical": pot.vertical,
        "class_share": pot.class_share,
        "part": pot.part,
        "share": pot.share,
        "round": pot.round,
        "score": own["score"] if own is not None else winner.get("score"),
        "name": own["name"] if own is not None else winner.get("name", ""),
        "winner": pot.winner,
        "champion": pot.champion,
        "stayed": pot.stayed,
        "margin": pot.margin,
        # What a model had to exceed: the best of the others, or the champion's score and the margin.
        "needed": winner["score"] + pot.margin if pot.stayed and winner.get("score") is not None and not won else None,
        "won": won,
        "weight": pot.share if won else 0.0,
    }


def _burnt(reckoning: Reckoning, generators: float) -> Iterator[dict[str, Any]]:
    """What had nobody to be paid to."""
    competing = {modality.value for modality in Modality}
    for name, share in reckoning.shares.items():
        if name in competing:
            pots = [pot for pot in reckoning.pots if pot.modality == name]
            for pot in pots:
                if pot.paid_uid is None:
                    yield {"what": f"{name} ({pot.vertical})", "share": pot.share}
            if not pots:
                yield {"what": name, "share": share}
        elif name == MinerClass.GENERATOR.value:
            if generators <= 0:
                yield {"what": name, "share": share}
        elif not any(reckoning.others.get(name, {}).values()):
            yield {"what": name, "share": share}


def _sentence(part: dict[str, Any]) -> str:
    kind, weight = part["class"], part["weight"]
    if kind == _BURN:
        named = ", ".join(f"{piece['what']} {piece['share']:.1%}" for piece in part["pieces"])
        return f"Nobody to pay for {named}: burnt."
    if kind == MinerClass.GENERATOR.value:
        fraction = part["score"] / part["class_total"] if part["class_total"] else 0.0
        return f"{fraction:.1%} of the generators' scores: as much of their {part['class_share']:.0%}, {weight:.4%}."
    if kind not in list(Modality):
        fraction = part["score"] / part["class_total"] if part["class_total"] else 0.0
        return f"{fraction:.1%} of the scores of {kind}: as much of its {part['class_share']:.0%}, {weight:.4%}."
    where = f"{kind} ({part['vertical']})"
    score = "no score" if part["score"] is None else f"sn34 {part['score']:.4f}"
    if part["won"]:
        how = "stays the champion" if part["stayed"] else "has the best score"
        return f"{part['name'] or 'Its model'} {how} of {where}, {score}: winner takes the whole {part['share']:.1%}."
    return f"{score}: not the best of {where}, no pay."


def _generator_lines(part: dict[str, Any]) -> Iterator[str]:
    if part["offences"]:
        named = ", ".join(f"{kind} {count}" for kind, count in sorted(part["offences"].items()))
        yield f"  deliveries in vain, signed by it, in 24 h: {named}"
    for name, one in part["modalities"].items():
        yield (
            f"  {name}: {one['verified']} verified of {one['ended']} in 24 h, "
            f"base = p {one['pass_rate']:.4f} * v {one['volume']:.4f} * price {one['price']:.4f} = {one['base']:.4f}, "
            f"share {one['share']:.4f}"
        )
        if one["sold_elsewhere"]:
            yield f"    {one['sold_elsewhere']} of them another validator had first: they count as refused"
        if one["offences"]:
            yield f"    {one['offences']} of them are offences beyond the {ALLOWED_OFFENCES} that are free"
        tiers = TIERS[Modality(name)]
        if one["verified"] and len(tiers) > 1:
            asked = ", ".join(f"{n} x {tier}" for n, tier in zip(one["tiers_requested"], tiers, strict=True) if n)
            came = ", ".join(f"{n} x {tier}" for n, tier in zip(one["tiers_delivered"], tiers, strict=True) if n)
            yield f"    asked for {asked}; came {came}"
    if part["silent"]:
        yield "  bonus = 0: nothing verified for 24 h"
    elif part["fool_rate"] is None:
        yield "  bonus = 0: no benchmark run of the last 7 days has judged its media"
    else:
        yield (
            f"  bonus = f {part['fool_rate']:.4f} ({part['fooled']} of c {part['judged']}) * s "
            f"{part['sample_factor']:.4f} = {part['bonus']:.4f} (at most 2)"
        )
    bases = " + ".join(f"{one['share']:.4f} * {one['base']:.4f}" for one in part["modalities"].values()) or "0"
    yield f"  reward C = ({bases}) * (1 + {part['bonus']:.4f}) = {part['reward']:.6f}"
    why = " (its slot is new: it starts at 0)" if part["replaced"] else ""
    if part["challenged"]:
        alpha = part["alpha"]
        yield (
            f"  score V = {alpha:g} * {part['reward']:.6f} + {1 - alpha:g} * {part['previous']:.6f} = "
            f"{part['score']:.6f}{why}"
        )
    else:
        yield f"  score V = {part['score']:.6f}, as before: no challenge has ended since the last epoch{why}"
    yield (
        f"  weight = {part['class_share']:.4f} * {part['score']:.6f} / {part['class_total']:.6f} = {part['weight']:.6f}"
    )


def _detector_lines(part: dict[str, Any]) -> Iterator[str]:
    yield f"  round {part['round'] or '(none)'}, margin {part['margin']:g}"
    for label in ("winner", "champion"):
        one = part[label]
        if one is not None:
            score = "unscored" if one["score"] is None else f"{one['score']:.4f}"
            before = "champion before" if label == "champion" else label
            yield f"  {before}: {one['name'] or one['hotkey']}, {score}"
    if part["needed"] is not None:
        yield f"  to displace the champion a score above {part['needed']:.4f} is needed"
    yield (
        f"  weight = {part['class_share']:.4f} * {part['part']:.4f} = {part['weight']:.6f}"
        if part["won"]
        else f"  weight = 0 of {part['share']:.4f}"
    )
