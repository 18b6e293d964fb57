"""Whether a picture that was sent along was changed where it was asked for, and nowhere else.

What is covered: the delivery has the source's size, differs from it inside the mask by more than a filter could make
it, and equals it outside up to the noise of encoding it anew. What is not: whether what is new inside was generated or
taken from another photo; that is for the content credentials and the search for copies, which look at the inside alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from gas.media.image import RGB
from gas.media.masks import Mask

__all__ = ["ALIKE_INSIDE", "CHANGED_INSIDE", "MOST_OUTSIDE", "EditMeasures", "inner_box", "measure_edit"]

MOST_OUTSIDE: Final = 15.0
"""Largest change outside the mask, in grey levels of 255, see :attr:`EditMeasures.outside`."""

CHANGED_INSIDE: Final = 6.0
"""Least mean change inside the mask, in grey levels."""

ALIKE_INSIDE: Final = 0.9
"""From this correlation on the inside is the source's own, made lighter, softer or of another colour."""

_BLOCK: Final = 16
_RANK: Final = 0.99
_SHARES: Final = tuple(share / 20 for share in range(20, 5, -1))
_FULL: Final = 0.995
_FLAT: Final = 2.0
_COARSE: Final = 0.07


@dataclass(frozen=True, slots=True)
class EditMeasures:
    """How a picture differs from its source.

    Attributes:
        outside: Change outside the mask in grey levels, the largest of three: what all but a hundredth of the blocks of
            16 x 16 pixels stay below; a third of the most changed block; five times the mean shift of a channel. 0
            where the mask covers all.
        inside: Mean change inside, in grey levels of the channel that changed most.
        alike: Correlation of the brightness inside with the source's, in [0, 1], whatever its sign: the largest of
            three scales, the coarse one less .07; 1 for a single colour.
    """

    outside: float
    inside: float
    alike: float

    @property
    def changed_outside(self) -> bool:
        """Whether more than the mask was changed."""
        return self.outside > MOST_OUTSIDE

    @property
    def unchanged_inside(self) -> bool:
        """Whether what was to change is still the source."""
        return self.inside < CHANGED_INSIDE or self.alike >= ALIKE_INSIDE

    def as_dict(self) -> dict[str, float]:
        """JSON form."""
        return {"outside": round(self.outside, 3), "inside": round(self.inside, 3), "alike": round(self.alike, 4)}


def measure_edit(source: RGB, delivered: RGB, mask: Mask) -> EditMeasures:
    """Compare a changed picture with its source.

    Args:
        source: uint8, (h, w, 3).
        delivered: Of the same shape.
        mask: uint8 (h, w), 1 where it was to change, somewhere at least.

    Returns:
        The measures. A band of some pixels on both sides of the mask's border counts for neither side: encoders smear
        over it, and painters blend there.
    """
    band = max(4, min(mask.shape) // 64)
    kernel = np.ones((2 * band + 1, 2 * band + 1), np.uint8)
    inner = cv2.erode(mask, kernel, borderType=cv2.BORDER_REPLICATE)
    if not inner.any():
        inner = mask
    change = cv2.absdiff(cv2.blur(source, (3, 3)), cv2.blur(delivered, (3, 3)))
    most = cv2.max(cv2.max(change[..., 0], change[..., 1]), change[..., 2])
    rows, columns = np.nonzero(inner.any(axis=1))[0], np.nonzero(inner.any(axis=0))[0]
    part = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    chosen = inner[part].astype(bool)
    return EditMeasures(
        outside=_outside(source, delivered, most, cv2.dilate(mask, kernel)),
        inside=float(most[part][chosen].mean()),
        alike=_alike(source[part], delivered[part], chosen),
    )


def inner_box(mask: Mask) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of a box about the mask's middle that lies in the mask, as large as it may be.

    Args:
        mask: uint8 (h, w), 1 somewhere.
    """
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    best = top, left, bottom, right
    for share in _SHARES:
        half_y, half_x = share * (bottom - top) / 2, share * (right - left) / 2
        best = (
            *(int(middle_y - half_y), int(middle_x - half_x)),
            *(max(int(middle_y + half_y), int(middle_y - half_y) + 1),),
            *(max(int(middle_x + half_x), int(middle_x - half_x) + 1),),
        )
        if mask[best[0] : best[2], best[1] : best[3]].mean() >= _FULL:
            break
    return best


def _alike(before: RGB, after: RGB, chosen: NDArray[np.bool_]) -> float:
    """Largest correlation of the brightness at three scales: as it is, its fine and its coarse part."""
    pair = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) for rgb in (before, after)]
    if float(pair[1][chosen].std()) < _FLAT:
        # One colour is no picture, and nothing tells it from the source.
        return 1.0
    soft = [cv2.blur(grey, (9, 9)) for grey in pair]
    coarse = [cv2.blur(grey, (25, 25)) for grey in pair]
    fine = [grey - low for grey, low in zip(pair, soft, strict=True)]
    found = [abs(_correlation(one[chosen], other[chosen])) for one, other in (pair, fine, coarse)]
    return max(found[0], found[1], found[2] - _COARSE)


def _outside(source: RGB, delivered: RGB, change: NDArray[np.uint8], covered: Mask) -> float:
    free = np.asarray(covered == 0, np.uint8)
    if not free.any():
        return 0.0
    before, after = (np.array(cv2.mean(rgb, mask=free)[:3]) for rgb in (source, delivered))
    shift = float(np.abs(after - before).max())
    height, width = (side // _BLOCK * _BLOCK for side in change.shape)
    size = width // _BLOCK, height // _BLOCK
    if not height or not width:
        return max(5 * shift, float(cv2.mean(change, mask=free)[0]))
    means = cv2.resize(change[:height, :width].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    shares = cv2.resize(covered[:height, :width].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    blocks = means[shares == 0]
    return max(5 * shift, float(np.quantile(blocks, _RANK)), float(blocks.max()) / 3) if len(blocks) else 5 * shift


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Of two lists of values; 1 where one doesn't vary."""
    a, b = one - one.mean(), other - other.mean()
    length = float(np.sqrt(float((a * a).sum()) * float((b * b).sum())))
    return float((a * b).sum()) / length if length > 0 else 1.0
