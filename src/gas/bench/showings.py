"""What a run asks, all of it: the same on every machine that knows the round, the sizes and the run's secret."""

from __future__ import annotations

from dataclasses import dataclass

from gas.bench.batches import Ask, Pass, choose_reasked, choose_robust, plan_batches
from gas.bench.runs import RunConfig
from gas.datasets.plan import Round

__all__ = ["Showings", "showings_of"]


@dataclass(frozen=True, slots=True)
class Showings:
    """Every showing of a run.

    Attributes:
        asks: Those that are scored: the base pass, then the robust pass, each in the order of the round.
        twins: The audit's second showings.
        batches: All of them in the order and the company in which the model sees them.
    """

    asks: tuple[Ask, ...]
    twins: tuple[Ask, ...]
    batches: tuple[tuple[Ask, ...], ...]


def showings_of(round_: Round, config: RunConfig) -> Showings:
    """The showings of a run of ``config`` on ``round_``."""
    samples, seed = round_.samples, round_.seed
    robust = choose_robust(samples, per_dataset=config.robustness_per_dataset, seed=seed)
    reasked = choose_reasked(
        len(samples), share=config.reask_share, least=config.reask_least, seed=seed, nonce=config.nonce
    )
    return Showings(
        asks=(*(Ask(i, Pass.BASE) for i in range(len(samples))), *(Ask(i, Pass.ROBUST) for i in robust)),
        twins=tuple(Ask(i, Pass.BASE, again=True) for i in reasked),
        batches=plan_batches(
            len(samples),
            robust=robust,
            reasked=reasked,
            batch_size=config.batch_size,
            seed=seed,
            nonce=config.nonce,
        ),
    )
