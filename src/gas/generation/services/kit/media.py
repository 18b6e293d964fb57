"""Media on their way to and from a provider: checked when they come, put into its forms when they go."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gas.errors import MediaRejected
from gas.generation.base import SourceImage
from gas.types import Modality

if TYPE_CHECKING:
    from gas.generation.sources import Canvas

__all__ = ["MOST_BYTES", "Source", "check_medium", "from_base64", "from_data_url", "open_for_sending"]

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one medium from a provider."""

_TAKEN: Final = {
    Modality.IMAGE: frozenset({"image/png", "image/jpeg", "image/webp"}),
    Modality.VIDEO: frozenset({"video/mp4", "video/webm"}),
    Modality.AUDIO: frozenset({"audio/mpeg", "audio/wav", "audio/flac", "audio/ogg", "audio/mp4"}),
}
_DATA_URL: Final = re.compile(r"data:[a-zA-Z0-9.+/-]*(?:;[a-zA-Z0-9=.+-]+)*;base64,")


def check_medium(data: bytes, modality: Modality) -> str:
    """Make sure that a provider's medium is one: its first bytes, its header, and of a picture every pixel.

    Args:
        data: Untrusted.
        modality: What it must be.

    Returns:
        Its content type, by its bytes.

    Raises:
        MediaRejected: ``unsupported`` (something else), ``undecodable`` (broken, perhaps cut off) or ``too_large``.
    """
    from gas.media.image import decode_image, sniff_mime
    from gas.media.probe import probe_medium

    mime = sniff_mime(data)
    if mime is None or mime not in _TAKEN[modality]:
        raise MediaRejected(f"it is no {modality} of a known format.", code="unsupported")
    if modality is Modality.IMAGE:
        decode_image(data)
    else:
        probe_medium(data, modality)
    return mime


def from_base64(text: object) -> bytes | None:
    """The bytes of a base64 text; None where it is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def from_data_url(url: str) -> bytes | None:
    """The bytes of a ``data:...;base64,`` address; None where it is none."""
    found = _DATA_URL.match(url[:256])
    return from_base64(url[found.end() :]) if found else None


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to be changed, decoded, checked and ready to be sent; nothing of the original file is left.

    Attributes:
        width: Pixels.
        height: Pixels.
        png: The picture.
        mask_png: Grey, white where the picture is to change; None for everywhere.
        cut_out_png: Colour with alpha 0 where the picture is to change and 255 elsewhere; None for everywhere.
    """

    width: int
    height: int
    png: bytes
    mask_png: bytes | None
    cut_out_png: bytes | None
    _canvas: Canvas

    def data_url(self, most_bytes: int = 5_000_000) -> str:
        """The picture as an address of its own, losslessly where that is short enough, else as a JPEG.

        Args:
            most_bytes: Length of the longest address that the provider takes.
        """
        from gas.media.image import encode_jpeg

        kind, data = "png", self.png
        if len(data) * 4 // 3 > most_bytes - 64:
            kind, data = "jpeg", encode_jpeg(self._canvas.pixels, 92)
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def png_of(self, width: int, height: int) -> bytes:
        """The picture's middle, cut and scaled to another size, as a PNG.

        Args:
            width: Pixels.
            height: Pixels.
        """
        from gas.generation.sources import resized
        from gas.media.image import crop_box, encode_png

        pixels = self._canvas.pixels
        top, left, crop_height, crop_width = crop_box(pixels.shape[0], pixels.shape[1], (height, width))
        return encode_png(resized(pixels[top : top + crop_height, left : left + crop_width], width, height))

    def grown_mask(self, pixels: int) -> bytes | None:
        """The mask, widened in all directions, as a PNG; None without one.

        Args:
            pixels: By how much.
        """
        if self._canvas.mask is None:
            return None
        import cv2
        import numpy as np

        from gas.media.image import encode_png_mask

        kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
        return encode_png_mask(np.asarray(cv2.dilate(self._canvas.mask, kernel) * 255, dtype=np.uint8))


def open_for_sending(source: SourceImage, *, most_pixels: int) -> Source:
    """Decode a source and write it anew, without the metadata of the file it came in.

    Args:
        source: Untrusted.
        most_pixels: A larger picture is shrunk to this many.

    Raises:
        RequestRefused: 422 ``bad_source`` or ``bad_mask``.
    """
    import numpy as np
    from PIL import Image

    from gas.generation.sources import open_source
    from gas.media.image import encode_png, encode_png_mask

    canvas = open_source(source, most_pixels)
    height, width = canvas.pixels.shape[:2]
    mask_png = cut_out_png = None
    if canvas.mask is not None:
        mask_png = encode_png_mask(np.asarray(canvas.mask * 255, dtype=np.uint8))
        alpha = np.asarray((1 - canvas.mask) * 255, dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(np.dstack([canvas.pixels, alpha]), "RGBA").save(out, format="PNG")
        cut_out_png = out.getvalue()
    return Source(width, height, encode_png(canvas.pixels), mask_png, cut_out_png, canvas)
