"""Fit the light prompt alignment on the photos' ``train`` split; takes seconds.

    python training/alignment.py

Prints the accuracy over five folds, by groups of related photos, and writes the weights fitted on all of them. The same
photos print the same figures again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from gas.clock import derive_seed
from gas.datasets.photos import SPLIT_SEED, gather
from gas.datasets.registry import builtin_registry
from gas.datasets.sources.packages import default_material_dir
from gas.generation.library import category_shown
from gas.verification.alignment import CATEGORIES, features

WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "gas" / "verification" / "alignment.safetensors"
FOLDS = 5
RIDGE = 3e-3


def fit(x: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression with balanced classes, by plain gradient descent with momentum."""
    counts = np.bincount(y, minlength=len(CATEGORIES))
    weight = (len(y) / len(CATEGORIES) / np.maximum(counts, 1))[y][:, None] ** 0.5
    target = np.eye(len(CATEGORIES))[y]
    w, b = np.zeros((x.shape[1], len(CATEGORIES))), np.zeros(len(CATEGORIES))
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    for _ in range(1500):
        logits = x @ w + b
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        error = weight * (p / p.sum(axis=1, keepdims=True) - target) / len(y)
        vw, vb = 0.9 * vw - 0.2 * (x.T @ error + RIDGE * w), 0.9 * vb - 0.2 * error.sum(axis=0)
        w, b = w + vw, b + vb
    return w, b


def main() -> None:
    """Cross-validate, fit on everything, write."""
    fetched = {entry.name for entry in builtin_registry().datasets if entry.source == "npm"}
    photos = [p for p in gather(default_material_dir()).split(SPLIT_SEED)["train"] if p.package in fetched]
    raw = np.stack([features(photo.decode()) for photo in photos])
    y = np.array([CATEGORIES.index(category_shown(photo)) for photo in photos])
    mean, scale = raw.mean(axis=0), raw.std(axis=0) + 1e-3
    x = (raw - mean) / scale
    fold = np.array([derive_seed(0, "fold", photo.group) % FOLDS for photo in photos])
    guess = np.empty_like(y)
    for held in range(FOLDS):
        w, b = fit(x[fold != held], y[fold != held])
        guess[fold == held] = (x[fold == held] @ w + b).argmax(axis=1)
    by_class = {c.value: f"{np.mean(guess[y == i] == i):.3f} of {np.sum(y == i)}" for i, c in enumerate(CATEGORIES)}
    print(f"photos {len(y)}  accuracy {np.mean(guess == y):.4f}  by category {by_class}")
    w, b = fit(x, y)
    WEIGHTS.write_bytes(
        save({k: v.astype(np.float32) for k, v in (("weight", w), ("bias", b), ("mean", mean), ("scale", scale))})
    )
    print(f"{WEIGHTS.name}: {WEIGHTS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
