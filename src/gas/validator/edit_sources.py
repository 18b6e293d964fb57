"""What a challenge for semisynthetic media is made of: a real photo whose rights allow it, and a mask drawn on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np

from gas.clock import Clock
from gas.datasets.items import Item, items_from_table
from gas.datasets.store import DataStore
from gas.errors import GasError, MediaRejected, StorageError
from gas.media.image import RGB, decode_image, encode_png
from gas.media.masks import Mask, encode_mask
from gas.types import MediaType, Modality
from gas.validator.edit_blobs import EditBlobs
from gas.verification.edits import inner_box

__all__ = ["EditSource", "EditSources", "draw_region", "may_be_changed"]

_MOST_SIDE: Final = 1280
_LEAST_SIDE: Final = 256
_LIST_SECONDS: Final = 900.0
_MOST_ITEMS: Final = 5_000
_TRIES: Final = 8
_PLACES: Final = 12
_LEAST_DETAIL: Final = 8.0
_LEAST_ROOM: Final = 56
"""Sides of the box inside a mask by which copies of what is new there are found, pixels."""
_FREE: Final = re.compile(
    r"(CC0-1\.0|CC-BY(-SA)?-\d\.\d|PDDL-1\.0|ODC-By-1\.0|Unlicense|0BSD|MIT(-0)?|Apache-2\.0|BSD-[23]-Clause|ISC|Zlib"
    r"|(A|L)?GPL-\d\.\d(-only|-or-later|\+)?|LicenseRef-Public-?Domain)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class EditSource:
    """One picture to be changed.

    Attributes:
        image: PNG, without anything but pixels; at most 1280 pixels a side.
        mask: PNG of the same size, white where it is to change.
        image_sha256: Of the PNG; its name among the blobs.
        mask_sha256: The same of the mask.
        origin: ``dataset``, ``sha256`` and ``licence`` of the photo.
    """

    image: bytes = field(repr=False)
    mask: bytes = field(repr=False)
    image_sha256: str
    mask_sha256: str
    origin: dict[str, str]

    def parameters(self) -> dict[str, Any]:
        """What the challenge's row keeps; nothing of it is sent."""
        return {"source_sha256": self.image_sha256, "mask_sha256": self.mask_sha256, "source": dict(self.origin)}


class EditSources:
    """Draws pictures to be changed from the real photos of a data store.

    Args:
        data: The store; what another process fetches is seen within a quarter of an hour.
        blobs: Keeps the pictures and their masks until the answer is judged.
        clock: For looking again.
    """

    def __init__(self, data: DataStore, blobs: EditBlobs, clock: Clock) -> None:
        self._data = data
        self._blobs = blobs
        self._clock = clock
        self._items: Sequence[Item] = ()
        self._looked: float | None = None

    def draw(self, rng: np.random.Generator) -> EditSource | None:
        """A photo and a mask, both among the blobs from now on; None where there is no photo that would do.

        Raises:
            gas.errors.StorageError: The blobs can't be written.
        """
        items = self._photos(rng)
        for at in rng.permutation(len(items))[:_TRIES]:
            item = items[int(at)]
            try:
                rgb = _fitted(decode_image(self._data.read(item)))
            except (MediaRejected, StorageError):
                # The data service looks after damaged sets.
                continue
            mask = draw_region(rgb, rng) if min(rgb.shape[:2]) >= _LEAST_SIDE else None
            if mask is None:
                continue
            image, drawn = encode_png(rgb), encode_mask(mask)
            origin = {"dataset": item.dataset, "sha256": item.sha256, "licence": item.licence}
            source, region = self._blobs.put([image, drawn])
            return EditSource(image, drawn, source, region, origin)
        return None

    def again(self, parameters: Mapping[str, Any]) -> EditSource | None:
        """The picture and mask of an earlier challenge; None where they are gone.

        Args:
            parameters: What :meth:`EditSource.parameters` gave.

        Raises:
            gas.errors.StorageError: The blobs can't be read.
        """
        source, region = str(parameters["source_sha256"]), str(parameters["mask_sha256"])
        parts = self._blobs.get([source, region])
        return EditSource(*parts, source, region, dict(parameters["source"])) if parts is not None else None

    def _photos(self, rng: np.random.Generator) -> Sequence[Item]:
        now = self._clock.monotonic()
        if self._looked is not None and now - self._looked < _LIST_SECONDS:
            return self._items
        found: list[Item] = []
        for name in self._data.names():
            try:
                table = self._data.table(name)
            except GasError:
                # Fetched anew just now, or damaged: the data service looks after it.
                continue
            if table.num_rows > _MOST_ITEMS:
                table = table.take(np.sort(rng.choice(table.num_rows, _MOST_ITEMS, replace=False)))
            found += [item for item in items_from_table(table) if _fit(item)]
        self._items, self._looked = found, now
        return found


def may_be_changed(licence: str) -> bool:
    """Whether a photo's licence lets anybody publish a changed copy of it, also where money is earned.

    Args:
        licence: SPDX expression; of alternatives (``OR``) one must do, of a sum (``AND``) all. What isn't known here
            doesn't, and neither does ``LicenseRef-unknown``.
    """
    alternatives = licence.replace("(", " ").replace(")", " ").split(" OR ")
    return any(
        all(_FREE.fullmatch(part.strip().split(" WITH ")[0]) for part in one.split(" AND "))
        for one in alternatives
        if one.strip()
    )


def draw_region(rgb: RGB, rng: np.random.Generator) -> Mask | None:
    """A region worth changing: of a dozen drawn ones the one with the most detail.

    Args:
        rgb: uint8, (h, w, 3).
        rng: Decides.

    Returns:
        uint8 (h, w), 1 inside: an ellipse, a box or a patch that covers about 3 to 27 % of the picture; None where the
        picture is plain everywhere, and nobody could say afterwards whether it was changed, or too small.
    """
    height, width = rgb.shape[:2]
    grey = rgb.mean(axis=2)
    best: tuple[float, Mask] | None = None
    for _ in range(_PLACES):
        mask = np.zeros((height, width), np.uint8)
        half = rng.uniform(0.12, 0.26, 2) * (width, height)
        x, y = (int(rng.uniform(part, side - part)) for part, side in zip(half, (width, height), strict=True))
        half_x, half_y = (max(8, int(part)) for part in half)
        kind = int(rng.integers(3))
        if kind == 0:
            cv2.ellipse(mask, (x, y), (half_x, half_y), float(rng.uniform(-20, 20)), 0, 360, 1, thickness=-1)
        elif kind == 1:
            cv2.rectangle(mask, (x - half_x, y - half_y), (x + half_x, y + half_y), 1, thickness=-1)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
            reach = rng.uniform(0.8, 1.0, 9)
            points = np.stack([x + half_x * reach * np.cos(turns), y + half_y * reach * np.sin(turns)], axis=1)
            cv2.fillPoly(mask, [cv2.convexHull(points.astype(np.int32))], 1)
        top, left, bottom, right = inner_box(mask) if mask.any() else (0, 0, 0, 0)
        roomy = min(bottom - top, right - left) >= _LEAST_ROOM and float(mask.mean()) <= 0.3
        detail = float(grey[mask.astype(bool)].std()) if roomy else 0.0
        if detail >= _LEAST_DETAIL and (best is None or detail > best[0]):
            best = detail, mask
    return None if best is None else best[1]


def _fit(item: Item) -> bool:
    sides = (item.width or 0, item.height or 0)
    return (
        item.media_type is MediaType.REAL
        and item.modality is Modality.IMAGE
        and (item.width is None or min(sides) >= _LEAST_SIDE)
        and may_be_changed(item.licence)
    )


def _fitted(rgb: RGB) -> RGB:
    """The picture, shrunk where it is large: everybody who changes it must be able to."""
    height, width = rgb.shape[:2]
    scale = _MOST_SIDE / max(height, width)
    if scale >= 1:
        return rgb
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: RGB = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return small
