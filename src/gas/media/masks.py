"""Masks of semisynthetic media: a PNG for a picture, a zip of one PNG a frame for a clip."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gas.errors import MediaRejected
from gas.media.image import decode_mask as decode_grey
from gas.media.image import encode_png_mask, sniff_mime
from gas.media.limits import DEFAULT_LIMITS, MediaLimits

__all__ = ["Mask", "decode_mask", "decode_masks", "encode_mask", "encode_masks"]

Mask = NDArray[np.uint8]
"""Which pixels were changed: uint8 (h, w), 0 for untouched."""


def decode_mask(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> Mask:
    """Read the mask of a picture.

    Args:
        data: PNG; where the picture was changed, brighter than half of the mask's brightest grey, so that masks of
            0 and 1 and masks of 0 and 255 are read alike. Hostile.
        limits: As for a picture.

    Returns:
        uint8 (h, w): 1 where the picture was changed, else 0.

    Raises:
        MediaRejected: ``unsupported`` (no PNG), ``too_large`` or ``undecodable``.
    """
    limits.check_bytes(len(data))
    if sniff_mime(data) != "image/png":
        raise MediaRejected("The mask is not a PNG.", code="unsupported", hint="Masks are kept without losses.")
    grey = decode_grey(data, limits)
    return np.asarray(grey > grey.max() // 2, dtype=np.uint8)


def decode_masks(data: bytes, count: int, limits: MediaLimits = DEFAULT_LIMITS) -> list[Mask]:
    """Read the masks of a clip's first frames.

    Args:
        data: A zip of PNG files, one a frame, in the order of their names; hostile. A single PNG counts for
            every frame.
        count: How many frames.
        limits: On the zip, on each PNG and on what the PNGs unpack to together; and on the number of files.

    Returns:
        ``count`` masks as of :func:`decode_mask`.

    Raises:
        MediaRejected: ``unsupported``, ``too_large``, ``undecodable``, or ``mask_mismatch`` (fewer than frames).
    """
    limits.check_bytes(len(data))
    if not data.startswith(b"PK\x03\x04"):
        return [decode_mask(data, limits)] * count
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = sorted((entry for entry in archive.infolist() if not entry.is_dir()), key=lambda e: e.filename)
            if len(entries) > limits.max_frames:
                raise MediaRejected(f"The clip has more than {limits.max_frames} masks.", code="too_large")
            if len(entries) < count:
                raise MediaRejected(
                    f"The clip has {count} frames, but {len(entries)} masks.",
                    code="mask_mismatch",
                    hint="Store one PNG a frame.",
                )
            left, masks = limits.max_bytes, []
            for entry in entries[:count]:
                # The declared size may lie; what is read is what counts.
                with archive.open(entry) as file:
                    png = file.read(left + 1)
                left -= len(png)
                if left < 0:
                    raise MediaRejected("The masks unpack to too many bytes.", code="too_large")
                masks.append(decode_mask(png, limits))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise MediaRejected("The zip of masks is broken.", code="undecodable") from error
    return masks


def encode_mask(mask: Mask) -> bytes:
    """PNG of 8 bits; any value but 0 becomes white."""
    return encode_png_mask(np.where(mask > 0, np.uint8(255), np.uint8(0)))


def encode_masks(masks: Sequence[Mask]) -> bytes:
    """A zip of one PNG a frame (``000000.png`` ...); the same masks give the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for index, mask in enumerate(masks):
            archive.writestr(zipfile.ZipInfo(f"{index:06}.png", (1980, 1, 1, 0, 0, 0)), encode_mask(mask))
    return out.getvalue()
