"""Which of two runs on one round is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from gas.bench.batches import Pass
from gas.bench.metrics import clusters_of, compute_metrics
from gas.bench.records import SampleRecord
from gas.datasets.plan import Round, check_shares
from gas.errors import ConfigurationError
from gas.scoring.bootstrap import PairedDifference, paired_difference
from gas.scoring.sn34 import ALPHA, BETA, sample_weights

__all__ = ["Comparison", "compare"]

_LEAST_SOURCES: Final = 5
"""With fewer sources of a class than this, who is ahead in all draws of sources is ahead by luck all too often."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs, paired by sample.

    Attributes:
        samples: Samples of the base pass that both runs have an answer to (a model's failure is a wrong answer).
        base: Difference of the base pass's sn34_score; None when there is no score.
        first_final: Final score of the first run, robustness included.
        second_final: Final score of the second.
        only_first: Samples that only the first run gets right.
        only_second: Samples that only the second run gets right.
        clustered_by: What the bootstrap draws: ``source``, or ``original`` where there are too few sources.
    """

    samples: int
    base: PairedDifference | None
    first_final: float | None
    second_final: float | None
    only_first: int
    only_second: int
    clustered_by: str = "source"

    @property
    def verdict(self) -> str:
        """``first``, ``second``, or ``undecided`` when the interval of the difference holds zero."""
        if self.base is None or not self.base.sure:
            return "undecided"
        return "first" if self.base.difference > 0 else "second"

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {**asdict(self), "verdict": self.verdict}


def compare(first: Iterable[SampleRecord], second: Iterable[SampleRecord], round_: Round) -> Comparison:
    """Compare two runs on the same round by the paired cluster bootstrap.

    Args:
        first: Records of one run.
        second: Records of the other.
        round_: The round of both; its shares, exponents and seed are used.

    Raises:
        ConfigurationError: The records are not those of this round.
    """
    runs = tuple(first), tuple(second)
    finals = [compute_metrics(run, round_).final for run in runs]
    one, two = ({r.sample_id: r for r in run if r.variant is Pass.BASE} for run in runs)
    rows = [
        (sample, a.p_fake, a.fake, b.p_fake, b.fake)
        for sample in round_.samples
        if (a := one[sample.sample_id]).p_fake is not None and (b := two[sample.sample_id]).p_fake is not None
    ]
    if not rows:
        raise ConfigurationError("The runs have no answer in common.", code="other_round")
    samples = [row[0] for row in rows]
    labels = [int(sample.media_type.is_fake) for sample in samples]
    table = round_.parameters.get("shares")
    shares = {str(k): v for k, v in check_shares(table).items()} if isinstance(table, Mapping) else None
    decisions = [[bool(row[2]) for row in rows], [bool(row[4]) for row in rows]]
    alpha, beta = (round_.parameters.get(name, default) for name, default in (("alpha", ALPHA), ("beta", BETA)))
    clusters, clustered_by = clusters_of(samples, _LEAST_SOURCES)
    base = paired_difference(
        labels,
        ([row[1] for row in rows], decisions[0]),
        ([row[3] for row in rows], decisions[1]),
        sample_weights([sample.provenance for sample in samples], shares),
        clusters,
        seed=round_.seed,
        alpha=float(str(alpha)),
        beta=float(str(beta)),
    )
    right = [[d == bool(y) for d, y in zip(run, labels, strict=True)] for run in decisions]
    return Comparison(
        samples=len(rows),
        base=base,
        first_final=finals[0],
        second_final=finals[1],
        only_first=sum(a and not b for a, b in zip(*right, strict=True)),
        only_second=sum(b and not a for a, b in zip(*right, strict=True)),
        clustered_by=clustered_by,
    )
