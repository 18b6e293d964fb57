"""Pictures: from bytes to RGB arrays, to a model's input, and back to bytes.

The decoder and the preprocessing are the only ones of the project, so that a training set, an exam and a
benchmark see the same pixels.

What is covered: size limits before a pixel is decoded, truncated and corrupted files, decompression bombs in
size and in scans, every format but the ones listed. What is not: a flaw inside libjpeg, libpng or libwebp, and
a decoder that hangs; for media from strangers there is :mod:`gas.media.guard`.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from gas.errors import MediaRejected
from gas.media.jpeg import Scratch, count_scans, decode_jpeg, plain_header
from gas.media.limits import DEFAULT_LIMITS, MediaLimits
from gas.media.png import decode_png
from gas.media.webp import decode_webp

__all__ = [
    "IMAGE_MIMES",
    "RGB",
    "crop_box",
    "decode_image",
    "decode_mask",
    "encode_jpeg",
    "encode_png",
    "encode_png_mask",
    "encode_webp",
    "load_image",
    "opened_image",
    "preprocess_image",
    "preprocess_mask",
    "probe_image",
    "resize_crop",
    "sniff_mime",
]

RGB = NDArray[np.uint8]
"""A picture: uint8, (height, width, 3), red first."""

_FORMATS: Final = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
}
IMAGE_MIMES: Final = frozenset(_FORMATS)
"""Content types that :func:`decode_image` takes."""

# Pillow's parsers raise any of these on bytes that somebody has tampered with; programming errors of ours in
# this module would be hidden too, which is why the functions under the handler are kept this small.
_DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    UserWarning,
    struct.error,
    zlib.error,
)
_BOMBS: Final = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def sniff_mime(data: bytes) -> str | None:
    """Content type by the first bytes; names and declared types are not to be trusted.

    Args:
        data: The medium, or at least its first 32 bytes; a FLAC behind an ID3 tag is known by the whole medium only.

    Returns:
        One of the picture, video and audio types that the project knows, or None.
    """
    head = data[:32]
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"BM"):
        return "image/bmp"
    if head.startswith(b"RIFF"):
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"M4A ", b"M4B "):
            return "audio/mp4"
        return None if head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1") else "video/mp4"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "video/webm"
    if head.startswith(b"fLaC"):
        return "audio/flac"
    if head.startswith(b"OggS"):
        return "audio/ogg"
    if head.startswith(b"ID3") and len(head) > 10:
        # ID3v2: the size is four bytes of seven bits. C2PA puts a FLAC's manifest into such a tag before it.
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return "audio/flac" if data[10 + size : 14 + size] == b"fLaC" else "audio/mpeg"
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return None


def probe_image(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Width and height as displayed (after the EXIF rotation), without decoding a pixel.

    Raises:
        MediaRejected: ``unsupported``, ``undecodable`` or ``too_large``.
    """
    with _open(data, limits) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def decode_image(data: bytes, limits: MediaLimits = DEFAULT_LIMITS, scratch: Scratch | None = None) -> RGB:
    """Decode a picture from anywhere.

    The EXIF rotation is applied, alpha dropped (not blended), 16 bit reduced to its high byte, CMYK, palettes
    and grey converted by Pillow's rules; of an animation the first frame is taken.

    Args:
        data: An encoded JPEG, PNG, WebP, GIF or BMP; hostile until proven otherwise.
        limits: What the picture may cost.
        scratch: Room for the pixels, for who is done with them before the next picture.

    Returns:
        uint8, (height, width, 3), RGB, contiguous and writable.

    Raises:
        MediaRejected: ``unsupported`` (no such format), ``too_large`` (found before decoding), ``undecodable``
            (broken, truncated, empty) or ``too_much_memory``.
    """
    pixels = _decode(data, limits, scratch=scratch)
    return pixels if pixels.flags.c_contiguous and pixels.flags.writeable else np.array(pixels, order="C")


def load_image(
    data: bytes,
    target: tuple[int, int],
    limits: MediaLimits = DEFAULT_LIMITS,
    out: NDArray[np.uint8] | None = None,
    scratch: Scratch | None = None,
) -> NDArray[np.uint8]:
    """A model's input straight from the file: :func:`preprocess_image` of :func:`decode_image`, pixel for pixel.

    Args:
        data: As for :func:`decode_image`.
        target: Height and width that the model asks for.
        limits: What the picture may cost.
        out: Where the input is to go, uint8 (3, H, W); a new array when left out.
        scratch: Room for decoded pixels, when there is an ``out``.

    Returns:
        uint8, (3, H, W), RGB, 0..255; ``out``, or a contiguous array.

    Raises:
        MediaRejected: As :func:`decode_image`; ``out`` is as it was then.
    """
    pixels = _decode(data, limits, padded=True, scratch=None if out is None else scratch)
    top, left, height, width = crop_box(pixels.shape[0], pixels.shape[1], target)
    return resize_crop(pixels[top : top + height, left : left + width], target, out)


def decode_mask(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decode the mask of a semisynthetic picture, as :func:`encode_png_mask` wrote it.

    Args:
        data: A picture of any format; colours become grey by Pillow's rules, 16 bit its high byte.
        limits: What the mask may cost.

    Returns:
        uint8, (height, width), writable. No camera rotation is applied: masks lie on the picture as decoded.

    Raises:
        MediaRejected: As :func:`decode_image`.
    """
    with _open(data, limits) as image:
        return np.array(_load(image, "L"))


def crop_box(height: int, width: int, target: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred crop of the target's aspect ratio (submissions.md, section 1).

    Args:
        height: Of the source, at least 1.
        width: Of the source, at least 1.
        target: Height and width that the model asks for.

    Returns:
        Top, left, height and width of the crop.
    """
    scale = min(height / target[0], width / target[1])
    crop_height = max(1, min(height, round(scale * target[0])))
    crop_width = max(1, min(width, round(scale * target[1])))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def preprocess_image(rgb: RGB, target: tuple[int, int]) -> NDArray[np.uint8]:
    """A model's input from a decoded picture: centred crop, then one bilinear resize without antialiasing.

    Args:
        rgb: uint8, (h, w, 3).
        target: Height and width that the model asks for.

    Returns:
        uint8, (3, H, W), RGB, 0..255, contiguous.
    """
    top, left, height, width = crop_box(rgb.shape[0], rgb.shape[1], target)
    return resize_crop(rgb[top : top + height, left : left + width], target)


def resize_crop(crop: RGB, target: tuple[int, int], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The second half of :func:`preprocess_image`, for who has only the part of a picture in :func:`crop_box`.

    Args:
        crop: uint8, (h, w, 3); a fourth channel is dropped.
        target: Height and width that the model asks for.
        out: Where the input is to go, uint8 (3, H, W); a new array when left out.

    Returns:
        uint8, (3, H, W), RGB; ``out``, or a contiguous array.
    """
    planes = _resize(crop, target, cv2.INTER_LINEAR)[..., :3].transpose(2, 0, 1)
    if out is None:
        return np.ascontiguousarray(planes)
    np.copyto(out, planes)
    return out


def preprocess_mask(mask: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.uint8]:
    """The same geometry for a mask of shape (h, w), by the nearest neighbour; returns (H, W)."""
    top, left, height, width = crop_box(mask.shape[0], mask.shape[1], target)
    return np.ascontiguousarray(_resize(mask[top : top + height, left : left + width], target, cv2.INTER_NEAREST))


def encode_jpeg(rgb: RGB, quality: int = 90, subsampling: Literal["444", "422", "420"] = "420") -> bytes:
    """Baseline JPEG without metadata.

    Args:
        rgb: uint8, (h, w, 3).
        quality: 1..100, libjpeg's scale.
        subsampling: Of the colour channels.
    """
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), quality=quality, colorspace="RGB", colorsubsampling=subsampling, fastdct=False
    )
    return encoded


def encode_png(rgb: RGB) -> bytes:
    """PNG without metadata; lossless."""
    return _save(rgb, "PNG")


def encode_png_mask(mask: NDArray[np.uint8]) -> bytes:
    """A mask as a grey PNG of 8 bits without metadata; lossless.

    Args:
        mask: uint8, (h, w); 0 outside, any other value inside.
    """
    return _save(mask, "PNG")


def encode_webp(rgb: RGB, quality: int = 80) -> bytes:
    """Lossy WebP without metadata; quality 0..100."""
    return _save(rgb, "WEBP", quality=quality, method=4)


def _save(rgb: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, format=kind, **options)
    return out.getvalue()


@contextmanager
def opened_image(data: bytes, limits: MediaLimits = DEFAULT_LIMITS) -> Iterator[tuple[Image.Image, int]]:
    """A picture's header as Pillow sees it, checked against the limits, and its EXIF orientation.

    Raises:
        MediaRejected: ``unsupported``, ``undecodable`` or ``too_large``; also when what is read of it inside the
            ``with`` block turns out to be broken.
    """
    with _open(data, limits) as image:
        orientation = _orientation(image)
        try:
            yield image, orientation
        except MediaRejected:
            raise
        except _DECODER_ERRORS as error:
            raise MediaRejected("The picture's header is broken.", code="undecodable") from error


def _open(data: bytes, limits: MediaLimits) -> Image.Image:
    """Parse the header only, and check what it declares."""
    limits.check_bytes(len(data))
    mime = sniff_mime(data)
    if mime not in _FORMATS:
        raise MediaRejected(
            "The picture is not a JPEG, PNG, WebP, GIF or BMP.", code="unsupported", hint="Send one of these formats."
        )
    try:
        image = Image.open(io.BytesIO(data), formats=[_FORMATS[mime]])
    except _BOMBS as error:
        raise MediaRejected("The picture declares too many pixels.", code="too_large") from error
    except _DECODER_ERRORS as error:
        raise MediaRejected("The picture's header is broken.", code="undecodable") from error
    except MemoryError as error:
        raise _out_of_memory() from error
    limits.check_size(*image.size)
    if mime == "image/jpeg":
        limits.check_scans(count_scans(data), image.width * image.height)
    return image


def _out_of_memory() -> MediaRejected:
    return MediaRejected("The picture needs more memory than there is.", code="too_much_memory")


def _decode(
    data: bytes, limits: MediaLimits, *, padded: bool = False, scratch: Scratch | None = None
) -> NDArray[np.uint8]:
    """As :func:`decode_image`, but the array may be a turned view, and have a fourth channel without meaning."""
    limits.check_bytes(len(data))
    header = plain_header(data)
    if header is not None:
        limits.check_size(header.width, header.height)
        if not header.one_scan:
            limits.check_scans(count_scans(data), header.width * header.height)
        room = None if scratch is None else scratch.room(header.width * header.height * (4 if padded else 3))
        pixels = decode_jpeg(data, padded=padded, room=room)
        if pixels is not None:
            return pixels
    else:
        plain = decode_webp(data, limits) if data.startswith(b"RIFF") else decode_png(data, limits)
        if plain is not None:
            return plain
    with _open(data, limits) as image:
        orientation = _orientation(image)
        fast = decode_jpeg(data, padded=padded) if image.format == "JPEG" and image.mode in ("RGB", "L") else None
        return _turn(_load(image, "RGB") if fast is None else fast, orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; a broken EXIF block means 1, the picture itself may still be good."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _load(image: Image.Image, mode: Literal["RGB", "L"]) -> NDArray[np.uint8]:
    try:
        image.load()
        if image.mode.startswith("I"):
            # Grey of 16 bits; Pillow's own conversion clips at 255 instead of scaling.
            grey = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
            return grey if mode == "L" else np.repeat(grey[:, :, None], 3, axis=2)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image.convert(mode))
    except _BOMBS as error:
        raise MediaRejected("The picture declares too many pixels.", code="too_large") from error
    except MemoryError as error:
        raise _out_of_memory() from error
    except _DECODER_ERRORS as error:
        raise MediaRejected("The picture is broken or truncated.", code="undecodable") from error


def _turn(pixels: RGB, orientation: int) -> RGB:
    """Undo the camera's rotation; orientations as in the EXIF standard."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _resize(crop: NDArray[np.uint8], target: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    # Rows may lie apart, pixels in a row may not: of a turned picture the crop is copied first.
    packed = crop.strides[1:] == (crop.shape[2], 1) if crop.ndim == 3 else crop.strides[1] == 1
    if not packed or crop.strides[0] < 0:
        crop = np.ascontiguousarray(crop)
    if crop.shape[:2] == target:
        return crop
    try:
        resized: NDArray[np.uint8] = cv2.resize(crop, (target[1], target[0]), interpolation=interpolation)
    except cv2.error as error:
        raise _out_of_memory() from error
    return resized
