"""The score of a run over what is answered so far: five sums that grow with every batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from gas.bench.answers import Outcome
from gas.bench.batches import Ask, Pass
from gas.datasets.plan import Round, check_shares
from gas.scoring.bootstrap import cluster_sums, scores_of_sums
from gas.scoring.sn34 import ALPHA, BETA, answers_from_logits, sample_weights, with_failures

__all__ = ["RunningScore"]

_FIGURES: Final = 5
_AT_ONCE: Final = 256


class RunningScore:
    """What the base pass is worth so far; not safe for several threads at once.

    Answers are counted some at a time, so that watching costs next to nothing: the figures lag behind by a twentieth
    of the run at most, and by nothing at its end.

    Args:
        round_: Its shares, exponents and samples.
        width: Number of logits of the model.
        classes: Names of the model's classes, when its package gives them.

    Attributes:
        accuracy: Weighted share of right decisions so far, in [0, 1]; None before the first.
        sn34: Score of the base pass so far, in [0, 1]; None while a class is missing.
    """

    def __init__(self, round_: Round, width: int, classes: Sequence[str] | None) -> None:
        table = round_.parameters.get("shares")
        shares = {str(k): v for k, v in check_shares(table).items()} if isinstance(table, Mapping) else None
        self._classes = classes
        self._labels = np.array([sample.media_type.is_fake for sample in round_.samples], np.float64)
        self._weights = sample_weights([sample.provenance for sample in round_.samples], shares)
        alpha, beta = (round_.parameters.get(name, default) for name, default in (("alpha", ALPHA), ("beta", BETA)))
        self._exponents = float(str(alpha)), float(str(beta))
        self._missing = np.full(width, np.nan, np.float32)
        self._sums = np.zeros(_FIGURES)
        self._pending: list[tuple[Ask, Outcome]] = []
        self.accuracy: float | None = None
        self.sn34: float | None = None
        self._left = len(round_.samples)
        self._every = max(1, min(_AT_ONCE, self._left // 20))

    def add(self, answers: Iterable[tuple[Ask, Outcome]]) -> None:
        """Count some answers; those of the robust pass, second showings and undecodable media are left out."""
        for ask, outcome in answers:
            if ask.variant is Pass.BASE and not ask.again:
                self._left -= 1
                if not outcome.media_error:
                    self._pending.append((ask, outcome))
        if self._pending and (self._left <= 0 or len(self._pending) >= self._every):
            self._count()

    def _count(self) -> None:
        rows = [ask.index for ask, _ in self._pending]
        logits = [self._missing if out.logits is None else out.logits for _, out in self._pending]
        labels = self._labels[rows]
        said = with_failures(answers_from_logits(np.stack(logits), self._classes), labels)
        decisions = said.fake.astype(np.float64)
        self._sums += cluster_sums(labels, said.p_fake, decisions, self._weights[rows], None).sum(axis=0)
        self._pending.clear()
        tp, fp, fn, tn, _ = self._sums
        total = tp + fp + fn + tn
        self.accuracy = float((tp + tn) / total) if total > 0 else None
        score = float(scores_of_sums(self._sums[None], *self._exponents)[0])
        self.sn34 = None if np.isnan(score) else score
