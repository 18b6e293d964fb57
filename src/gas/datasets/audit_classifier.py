"""The tiny classifier of the audit: side features in bins, logistic regression, cross-validation by origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.clock import derive_seed

__all__ = ["cross_validate"]

_BINS: Final = 8
_FOLDS: Final = 5


def cross_validate(
    x: NDArray[np.float64], y: NDArray[np.float64], groups: Sequence[str], seed: int, repeats: int
) -> float:
    """Balanced accuracy of the tiny classifier on media that it was not fitted to.

    Each feature is cut into up to eight bins (so that a narrower distribution is seen as well as a shifted one),
    and a ridge-penalised logistic regression with balanced classes is fitted by Newton's method; five folds.

    Args:
        x: Features, float64 (n, k).
        y: Labels, 0. or 1., float64 (n,); both occur.
        groups: Of each medium; those of one group share a fold.
        seed: Of the folds.
        repeats: How often, with other folds each time; the mean is returned.

    Returns:
        In 0..1.
    """
    scores = []
    for repeat in range(repeats):
        fold = np.array([derive_seed(seed, "fold", repeat, group) % _FOLDS for group in groups])
        answers = np.zeros(len(y))
        for k in range(_FOLDS):
            train, test = fold != k, fold == k
            if not test.any() or len(set(y[train])) < 2:
                continue
            edges = [_edges(column) for column in x[train].T]
            weights = _fit(_expand(x[train], edges), y[train])
            answers[test] = _expand(x[test], edges) @ weights
        # No opinion is a coin, of which the expected value counts: no set passes or fails by luck.
        says_fake = np.where(np.abs(answers) < 1e-9, 0.5, answers > 0)
        scores.append(0.5 * (float(says_fake[y == 1].mean()) + float((1 - says_fake[y == 0]).mean())))
    return float(np.mean(scores))


def _edges(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts between the values that occur, at most :data:`_BINS` bins."""
    values = np.unique(column)
    if len(values) > _BINS:
        values = np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)))
    cuts: NDArray[np.float64] = (values[1:] + values[:-1]) / 2
    return cuts


def _expand(x: NDArray[np.float64], edges: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    columns = [np.ones(len(x))]
    for column, cuts in zip(x.T, edges, strict=True):
        if len(cuts):
            bins = np.searchsorted(cuts, column)
            columns.extend((bins == k).astype(np.float64) for k in range(len(cuts) + 1))
    return np.stack(columns, axis=1)


def _fit(x: NDArray[np.float64], y: NDArray[np.float64], ridge: float = 1.0) -> NDArray[np.float64]:
    """Logistic regression with balanced classes, by Newton's method."""
    balance = np.where(y == 1, 0.5 / max(y.mean(), 1e-9), 0.5 / max(1 - y.mean(), 1e-9))
    penalty = ridge * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    w = np.zeros(x.shape[1])
    for _ in range(15):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (balance * (p - y)) + penalty @ w
        hessian = (x * (balance * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        w -= step
        if float(np.abs(step).max()) < 1e-8:
            break
    return w
