"""The audit of a round's data: can real and fake be told apart without looking at the picture?

A small classifier is trained on what a decoder sees beside the pixels: container, size, aspect ratio,
quantisation tables, subsampling, bit depth, metadata. Its cross-validated balanced accuracy should be that of a
coin. The length of the file is *not* among the features: at equal tables it measures the picture's content.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gas.clock import derive_rng, derive_seed
from gas.errors import ConfigurationError, MediaRejected
from gas.media.image import probe_image, sniff_mime
from gas.types import Modality, Sample

__all__ = ["FEATURES", "LIMIT", "MIN_MEDIA", "AuditResult", "audit_pair", "audit_round", "side_features"]

LIMIT: Final = 0.55
"""Highest balanced accuracy that a normalised round may show (submissions.md, section 6)."""

FEATURES: Final = (
    "is_jpeg",
    "is_png",
    "is_webp",
    "is_other",
    "width",
    "height",
    "aspect",
    "channels",
    "bits",
    "luma_table_sum",
    "luma_table_first",
    "luma_table_last",
    "chroma_table_sum",
    "tables",
    "subsampling_h",
    "subsampling_v",
    "progressive",
    "has_exif",
    "has_icc",
    "has_comment",
    "has_density",
    "other_metadata",
)
"""Names of the side features, in the order of :func:`side_features`."""

MIN_MEDIA: Final = 10
"""Of each class; with fewer the audit says nothing."""

_BINS: Final = 8
_FOLDS: Final = 5
_REPEATS: Final = 4


@dataclass(frozen=True, slots=True)
class AuditResult:
    """How well side features alone tell real from fake.

    Attributes:
        balanced_accuracy: Cross-validated, 0..1; .5 is a coin. Where parameters are dealt out evenly, not
            drawn, it lies below: the fold that is left out lacks just what the others have more of. That is no
            leak, since nobody sees the labels of the others.
        low: Lower end of its 95 % interval (normal approximation).
        high: Upper end.
        real: Number of real media.
        fake: Number of fake media.
        telling: The single features that tell most, with the balanced accuracy that each reaches alone.
    """

    balanced_accuracy: float
    low: float
    high: float
    real: int
    fake: int
    telling: tuple[tuple[str, float], ...]

    @property
    def passes(self) -> bool:
        """Whether the pair keeps within :data:`LIMIT`."""
        return self.balanced_accuracy <= LIMIT


def side_features(data: bytes) -> NDArray[np.float64]:
    """What a decoder sees of a picture beside its pixels.

    Args:
        data: An encoded picture.

    Returns:
        float64, one value for each of :data:`FEATURES`.

    Raises:
        MediaRejected: Not a picture.
    """
    mime = sniff_mime(data)
    width, height = probe_image(data)
    try:
        with Image.open(io.BytesIO(data)) as image:
            tables: dict[int, list[int]] = getattr(image, "quantization", None) or {}
            layers = getattr(image, "layer", None) or []
            info = image.info
            known = {"exif", "icc_profile", "comment", "dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density"}
            known |= {"progressive", "progression", "loop", "duration", "background", "timestamp"}
            values = {
                "is_jpeg": mime == "image/jpeg",
                "is_png": mime == "image/png",
                "is_webp": mime == "image/webp",
                "is_other": mime not in ("image/jpeg", "image/png", "image/webp"),
                "width": math.log2(width),
                "height": math.log2(height),
                "aspect": math.log2(width / height),
                "channels": len(image.getbands()),
                "bits": 16 if "16" in image.mode or image.mode == "I" else 8,
                "luma_table_sum": sum(tables.get(0, [])),
                "luma_table_first": next(iter(tables.get(0, [])), 0),
                "luma_table_last": tables[0][-1] if tables.get(0) else 0,
                "chroma_table_sum": sum(tables.get(1, [])),
                "tables": len(tables),
                "subsampling_h": layers[0][1] if layers else 0,
                "subsampling_v": layers[0][2] if layers else 0,
                "progressive": "progressive" in info,
                "has_exif": "exif" in info,
                "has_icc": "icc_profile" in info,
                "has_comment": "comment" in info,
                "has_density": "dpi" in info,
                "other_metadata": len(set(info) - known),
            }
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaRejected("The picture's header is broken.", code="undecodable") from error
    return np.array([float(values[name]) for name in FEATURES])


def audit_pair(
    real: Sequence[bytes],
    fake: Sequence[bytes],
    *,
    real_groups: Sequence[str] | None = None,
    fake_groups: Sequence[str] | None = None,
    seed: int = 0,
) -> AuditResult:
    """Train the tiny classifier on one pair of sets and cross-validate it.

    Each feature is cut into up to eight bins (so that a narrower distribution is seen as well as a shifted one),
    and a ridge-penalised logistic regression with balanced classes is fitted by Newton's method; five folds,
    four times over with other folds.

    Args:
        real: Encoded real media.
        fake: Encoded fake media.
        real_groups: Origin of each real medium; media of one origin share a fold. Each its own when left out.
        fake_groups: Origin of each fake medium.
        seed: Of the folds.

    Raises:
        ConfigurationError: Fewer than ten media in a class.
        MediaRejected: A medium is no picture.
    """
    if min(len(real), len(fake)) < MIN_MEDIA:
        raise ConfigurationError(f"An audit needs at least {MIN_MEDIA} media of each class.", code="too_few")
    x = np.stack([side_features(data) for data in (*real, *fake)])
    y = np.array([0.0] * len(real) + [1.0] * len(fake))
    groups = [
        *(real_groups or [f"real-{i}" for i in range(len(real))]),
        *(fake_groups or [f"fake-{i}" for i in range(len(fake))]),
    ]
    score = _cross_validate(x, y, groups, seed, _REPEATS)
    alone = [
        (name, _cross_validate(x[:, [column]], y, groups, seed, 1))
        for column, name in enumerate(FEATURES)
        if np.ptp(x[:, column]) > 0
    ]
    telling = sorted((pair for pair in alone if pair[1] > LIMIT), key=lambda pair: -pair[1])[:5]
    # Variance of the mean of two independent rates.
    spread = 1.96 * 0.5 * math.sqrt(score * (1 - score) * (1 / len(real) + 1 / len(fake)))
    return AuditResult(score, max(0.0, score - spread), min(1.0, score + spread), len(real), len(fake), tuple(telling))


def audit_round(samples: Iterable[Sample], get: Callable[[str], bytes], seed: int = 0) -> dict[str, AuditResult | None]:
    """Audit every pair of a round: all its real images against each data set of fake ones.

    Args:
        samples: Of the round; other modalities are left aside, and so is a medium that can't be decoded.
        get: Fetches a medium by its sample id, e.g. ``blobs.get``.
        seed: Of the folds.

    Returns:
        By data set of the fake media; None where a class has fewer than ten media.
    """
    real: list[tuple[bytes, str]] = []
    fake: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.sample_id):
        if sample.modality is not Modality.IMAGE:
            continue
        data = get(sample.sample_id)
        try:
            probe_image(data)
        except MediaRejected:
            continue
        (fake[sample.dataset] if sample.media_type.is_fake else real).append((data, sample.origin))
    return {
        name: audit_pair(
            [data for data, _ in real],
            [data for data, _ in media],
            real_groups=[origin for _, origin in real],
            fake_groups=[origin for _, origin in media],
            seed=seed,
        )
        if min(len(real), len(media)) >= MIN_MEDIA
        else None
        for name, media in sorted(fake.items())
    }


def _cross_validate(
    x: NDArray[np.float64], y: NDArray[np.float64], groups: Sequence[str], seed: int, repeats: int
) -> float:
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
        # No opinion is a coin: where the answer is exactly even, neither class may profit.
        coin = derive_rng(seed, "coin", repeat).random(len(y)) < 0.5
        says_fake = np.where(np.abs(answers) < 1e-9, coin, answers > 0)
        scores.append(0.5 * (float(says_fake[y == 1].mean()) + float((~says_fake[y == 0]).mean())))
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
