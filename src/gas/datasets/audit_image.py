"""What a decoder sees of a picture beside its pixels."""

from __future__ import annotations

import io
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gas.errors import MediaRejected
from gas.media.image import probe_image, sniff_mime

__all__ = ["IMAGE_FEATURES", "image_features"]

IMAGE_FEATURES: Final = (
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
"""Names of the features, in the order of :func:`image_features`."""


def image_features(data: bytes) -> NDArray[np.float64]:
    """What a decoder sees of a picture beside its pixels.

    Args:
        data: An encoded picture.

    Returns:
        float64, one value for each of :data:`IMAGE_FEATURES`.

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
    return np.array([float(values[name]) for name in IMAGE_FEATURES])
