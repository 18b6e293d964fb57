"""One history for all media of a round, so that nothing beside the picture tells its label.

Real photos come as JPEG of every size and quality, generated media as PNG of one size: without care a detector
would learn containers, quantisation tables, sharpness and resampling traces instead of pictures. Every medium
of a round, real or fake, therefore goes through the same steps, with parameters from the same distributions:

1. The project's one decode; the largest centred square.
2. The square is shrunk, averaging areas, to a side drawn evenly from 0.53 to 0.625 of the final one (136 to 160
   pixels of 256). That is at most the smallest side that a photo may have, so every medium really is shrunk:
   all have the same limit on detail, and traces of earlier JPEG grids and of enlargement are averaged away.
3. It is enlarged (bicubic) to the final side: the periodic traces that any enlargement leaves are those of
   this step, drawn from one distribution for all media.
4. One baseline JPEG with a quality drawn evenly from 75 to 95 and a colour subsampling drawn from two, without
   any metadata.

The draws depend on the round's seed and the medium's *origin*, so a photo and what was made from it share them.
In a small set even fair draws differ by chance between the classes; a caller that knows the whole set gives each
medium its ``rank`` in its class, and the encodings are dealt out evenly instead of drawn.

Masks of semisynthetic pictures follow the crop and the size (:func:`normalise_mask`); videos and sounds have
:mod:`gas.datasets.normalise_video` and :mod:`gas.datasets.normalise_audio`.

What stays different are pictures: a generator that can't fill the band that step 2 leaves is caught for that, and
rightly so. The price: detail finer than a photo of 160 pixels holds is lost to every detector alike.
:mod:`gas.datasets.audit` measures that the side channels are gone.
"""

from __future__ import annotations

from typing import Final, Literal

import cv2
import numpy as np

from gas.clock import derive_rng
from gas.errors import MediaRejected
from gas.media.image import RGB, decode_image, encode_jpeg, preprocess_mask, probe_image
from gas.media.masks import decode_mask, encode_mask

__all__ = [
    "MIN_SOURCE_SIDE",
    "NORMALISATION",
    "draw_side",
    "normalise_image",
    "normalise_mask",
    "shrink_and_enlarge",
    "square_of",
]

MIN_SOURCE_SIDE: Final = 64
"""Media with a smaller side are refused: enlarged that much they would tell their class by nothing but blur."""

_WORK: Final = (0.53125, 0.625)
_SUBSAMPLING: Final[tuple[Literal["420", "444"], ...]] = ("420", "444")
_ENCODINGS: Final = tuple((quality, subsampling) for quality in range(75, 96) for subsampling in _SUBSAMPLING)

NORMALISATION: Final = "square area(.53-.625) cubic jpeg(75-95, 420|444)"
"""Name of the steps for a round's parameters; changes whenever they do."""


def normalise_image(
    data_or_rgb: bytes | RGB, *, seed: int, origin: str, size: int = 256, rank: int | None = None
) -> bytes:
    """The medium as it enters a round.

    Args:
        data_or_rgb: An encoded picture from anywhere, or decoded pixels, uint8 (h, w, 3).
        seed: Of the round.
        origin: Hex SHA-256 of the photo that the medium derives from, or of the medium itself.
        size: Side of the result, pixels, at least 32.
        rank: Position of the medium among those of its class and data set, in the order of their hashes;
            quality and subsampling then go through all combinations in one shuffled order.

    Returns:
        A JPEG of size x size pixels; the same arguments give the same bytes.

    Raises:
        MediaRejected: Not decodable, or ``too_small``.
    """
    rgb = decode_image(data_or_rgb) if isinstance(data_or_rgb, bytes) else data_or_rgb
    square = square_of(rgb)
    rng = derive_rng(seed, "normalise", origin)
    work = draw_side(rng, size)
    if rank is None:
        quality, subsampling = _ENCODINGS[int(rng.integers(len(_ENCODINGS)))]
    else:
        order = derive_rng(seed, "encodings").permutation(len(_ENCODINGS))
        quality, subsampling = _ENCODINGS[int(order[rank % len(_ENCODINGS)])]

    return encode_jpeg(shrink_and_enlarge(square, work, size), quality, subsampling)


def normalise_mask(mask: bytes, picture: bytes, *, size: int = 256) -> bytes:
    """The mask of a semisynthetic picture, moved as :func:`normalise_image` moves the picture.

    Args:
        mask: PNG of the picture's size as displayed; white where the picture was changed.
        picture: The encoded picture that it belongs to, for its size.
        size: Side of the result, pixels.

    Returns:
        A PNG of size x size pixels.

    Raises:
        MediaRejected: Not decodable, or ``mask_mismatch`` (the mask has another size than the picture).
    """
    found = decode_mask(mask)
    if found.shape != probe_image(picture)[::-1]:
        raise MediaRejected("The mask has another size than the picture.", code="mask_mismatch")
    return encode_mask(preprocess_mask(found, (size, size)))


def draw_side(rng: np.random.Generator, size: int) -> int:
    """The side to which a medium is shrunk on its way, pixels: 0.53 to 0.625 of the final one."""
    return int(rng.integers(round(_WORK[0] * size), round(_WORK[1] * size), endpoint=True))


def square_of(rgb: RGB) -> RGB:
    """The largest centred square.

    Raises:
        MediaRejected: ``too_small``: a side is below :data:`MIN_SOURCE_SIDE`.
    """
    height, width = rgb.shape[:2]
    side = min(height, width)
    if side < MIN_SOURCE_SIDE:
        raise MediaRejected(
            f"The picture has {width} x {height} pixels; a round needs at least {MIN_SOURCE_SIDE} a side.",
            code="too_small",
        )
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(rgb[top : top + side, left : left + side])


def shrink_and_enlarge(square: RGB, work: int, size: int) -> RGB:
    """A square picture by way of ``work`` pixels a side to ``size`` pixels a side."""
    small = cv2.resize(square, (work, work), interpolation=cv2.INTER_AREA if len(square) >= work else cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
