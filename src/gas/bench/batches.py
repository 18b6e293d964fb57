"""In which order and in which company a model sees the samples of a round.

The order is secret: it comes from the round's seed and a nonce of the run that no author can know. It is a uniform
draw over all samples, so that neither the place in a batch nor the batch's composition says anything: batches with
a fixed share of fakes would let a model rank its batch and cut in the middle. Base and robust passes and the
samples that are asked twice travel in one stream and look alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gas.clock import derive_rng
from gas.types import Sample

__all__ = ["Ask", "Pass", "choose_reasked", "choose_robust", "plan_batches"]


class Pass(StrEnum):
    """Which pixels of a sample are shown."""

    BASE = "base"
    ROBUST = "robust"


@dataclass(frozen=True, slots=True, order=True)
class Ask:
    """One showing of one sample.

    Attributes:
        index: Place of the sample in the round.
        variant: Base or robust pass.
        again: True for the audit's second showing, whose answer is compared and not scored.
    """

    index: int
    variant: Pass
    again: bool = False


def choose_robust(samples: Sequence[Sample], *, per_dataset: int, seed: int) -> tuple[int, ...]:
    """Indices of the samples that take part in the robustness pass: up to ``per_dataset`` a data set.

    The draw depends on the round's seed and the samples' hashes alone, so that every model of a round gets the
    same ones, whatever the order of ``samples``.
    """
    by_dataset: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_dataset.setdefault(sample.dataset, []).append(index)
    chosen: list[int] = []
    for dataset, indices in by_dataset.items():
        indices.sort(key=lambda i: samples[i].sample_id)
        order = derive_rng(seed, "robustness", dataset).permutation(len(indices))
        chosen += [indices[k] for k in order[:per_dataset]]
    return tuple(sorted(chosen))


def choose_reasked(count: int, *, share: float, least: int, seed: int, nonce: str) -> tuple[int, ...]:
    """Indices of the samples whose base pass is shown a second time: ``share`` of ``count``, ``least`` at least."""
    wanted = min(count, max(least, math.ceil(share * count)))
    order = derive_rng(seed, "reask", nonce).permutation(count)
    return tuple(sorted(int(i) for i in order[:wanted]))


def plan_batches(
    count: int,
    *,
    robust: Sequence[int] = (),
    reasked: Sequence[int] = (),
    batch_size: int,
    seed: int,
    nonce: str,
) -> tuple[tuple[Ask, ...], ...]:
    """Put every showing of a run into batches.

    Args:
        count: Samples of the round; each is shown once in the base pass.
        robust: Indices that are shown once more with robust pixels.
        reasked: Indices whose base pass is shown twice; the two showings are never in one batch.
        batch_size: Most showings in a batch, at least 1. Batches are filled evenly, so that none is tiny.
        seed: The round's seed.
        nonce: The run's secret.

    Returns:
        Batches of at most ``batch_size`` asks that differ by one in length at most. The same arguments give the
        same batches on every machine.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError("batch_size must be at least 1.")
    asks = [Ask(i, Pass.BASE) for i in range(count)]
    asks += [Ask(i, Pass.ROBUST) for i in robust]
    asks += [Ask(i, Pass.BASE, again=True) for i in reasked]
    if not asks:
        return ()
    rng = derive_rng(seed, "order", nonce)
    asks = [asks[k] for k in rng.permutation(len(asks))]
    number = max(math.ceil(len(asks) / batch_size), 2 if reasked else 1)
    batches: list[list[Ask]] = [asks[k::number] for k in range(number)]
    _part_twins(batches, asks)
    return tuple(tuple(batch) for batch in batches if batch)


def _part_twins(batches: list[list[Ask]], asks: Sequence[Ask]) -> None:
    """Exchange each second showing that landed beside its first one with an ask of another batch."""
    place = {ask: (k % len(batches), k // len(batches)) for k, ask in enumerate(asks)}
    for ask in asks:
        if not ask.again:
            continue
        mine, slot = place[ask]
        if place[Ask(ask.index, ask.variant)][0] != mine:
            continue
        for step in range(1, len(batches)):
            theirs = (mine + step) % len(batches)
            other_slot = next((s for s, other in enumerate(batches[theirs]) if _free(other, mine, place)), None)
            if other_slot is None:
                continue
            other = batches[theirs][other_slot]
            batches[mine][slot], batches[theirs][other_slot] = other, ask
            place[ask], place[other] = (theirs, other_slot), (mine, slot)
            break


def _free(ask: Ask, batch: int, place: dict[Ask, tuple[int, int]]) -> bool:
    """Whether ``ask`` may move to ``batch`` without meeting its own twin there."""
    twin = Ask(ask.index, ask.variant, again=not ask.again)
    return twin not in place or place[twin][0] != batch
