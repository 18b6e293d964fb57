"""Pay and metrics of segmenters: masks that mark what is fake in an image.

Source: specification "Scoring", section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gas.scoring.curves import roc_auc

__all__ = ["MaskScore", "SegmentationMetrics", "evaluate_masks", "score_mask", "segmenter_reward"]

THRESHOLD: Final = 0.5
"""A pixel above this is marked as fake."""
WINDOW: Final = 200
"""How many of the latest masks are paid."""


@dataclass(frozen=True, slots=True)
class MaskScore:
    """How well one mask fits.

    Attributes:
        iou: Intersection over union, in [0, 1]; 0 for a mask that is refused.
        refused: Why the mask is refused; None when it is fine.
        pixel_f1: F1 of the pixels; None for an authentic image, which has no fake pixel to find.
        pixel_auc: AUC of the unthresholded mask; None where the image is all authentic or all fake, or refused.
    """

    iou: float
    refused: str | None
    pixel_f1: float | None
    pixel_auc: float | None


@dataclass(frozen=True, slots=True)
class SegmentationMetrics:
    """Means over images; each leaves out the images that don't define it, and None means that there was none."""

    n: int
    refused: int
    iou: float | None
    pixel_f1: float | None
    pixel_auc: float | None


def score_mask(mask: ArrayLike, truth: ArrayLike) -> MaskScore:
    """Compare a mask with the truth.

    Args:
        mask: The segmenter's, shape (H, W), in [0, 1]; a pixel above 0.5 is marked.
        truth: Shape (H, W); a pixel above 0.5 is fake.

    Returns:
        IoU = |mask and truth| / |mask or truth|, 1 when both are empty. A mask of another size, or with values that
        are not finite or outside [0, 1], has IoU 0 and pixel F1 0 (authentic images aside), and the reason.
    """
    target = np.asarray(truth, dtype=np.float64) > THRESHOLD
    try:
        given = np.asarray(mask, dtype=np.float64)
    except (TypeError, ValueError):
        return _refused("The mask is no rectangle of numbers.", target)
    if given.shape != target.shape:
        return _refused(f"The mask has the size {given.shape}, the image {target.shape}.", target)
    if not np.isfinite(given).all():
        return _refused("The mask has values that are not finite.", target)
    if given.size and (given.min() < 0.0 or given.max() > 1.0):
        return _refused("The mask has values outside [0, 1].", target)
    marked = given > THRESHOLD
    both, either = int((marked & target).sum()), int((marked | target).sum())
    return MaskScore(
        iou=both / either if either else 1.0,
        refused=None,
        pixel_f1=2.0 * both / (both + either) if target.any() else None,
        pixel_auc=roc_auc(target.reshape(-1), given.reshape(-1)),
    )


def segmenter_reward(ious: Sequence[float], window: int = WINDOW) -> float:
    """Mean IoU of the latest masks (oldest first); 0 without any."""
    recent = ious[-window:]
    return float(np.mean(recent)) if recent else 0.0


def evaluate_masks(scores: Sequence[MaskScore]) -> SegmentationMetrics:
    """Means over images: authentic ones count in IoU, and are left out of pixel F1 and pixel AUC."""
    return SegmentationMetrics(
        n=len(scores),
        refused=sum(score.refused is not None for score in scores),
        iou=_mean([score.iou for score in scores]),
        pixel_f1=_mean([score.pixel_f1 for score in scores]),
        pixel_auc=_mean([score.pixel_auc for score in scores]),
    )


def _refused(reason: str, target: NDArray[np.bool_]) -> MaskScore:
    return MaskScore(iou=0.0, refused=reason, pixel_f1=0.0 if target.any() else None, pixel_auc=None)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
