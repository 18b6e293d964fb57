from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from gas.errors import MediaRejected
from gas.media.image import (
    crop_box,
    decode_image,
    decode_mask,
    encode_jpeg,
    encode_png,
    encode_png_mask,
    encode_webp,
    load_image,
    opened_image,
    preprocess_image,
    preprocess_mask,
    probe_image,
    sniff_mime,
)
from gas.media.jpeg import Scratch, plain_header
from gas.media.limits import MediaLimits
from gas.media.png import decode_png
from gas.media.probe import probe_medium
from gas.media.webp import decode_webp

SCRATCH = Scratch()


def picture(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def code_of(data: bytes, limits: MediaLimits | None = None) -> str:
    with pytest.raises(MediaRejected) as caught:
        decode_image(data, limits) if limits else decode_image(data)
    return caught.value.error_code


def test_lossless_formats_come_back_pixel_for_pixel() -> None:
    rgb = picture()
    assert np.array_equal(decode_image(encode_png(rgb)), rgb)
    for kind in ("BMP",):
        assert np.array_equal(decode_image(encoded(Image.fromarray(rgb), kind)), rgb)
    assert np.array_equal(decode_image(encoded(Image.fromarray(rgb), "WEBP", lossless=True)), rgb)


def test_the_fast_jpeg_path_gives_the_same_pixels_as_pillow() -> None:
    for subsampling in ("444", "422", "420"):
        for quality in (30, 75, 95):
            data = encode_jpeg(picture(101, 77, quality), quality, subsampling)
            assert np.array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    grey = encoded(Image.fromarray(picture()).convert("L"), "JPEG")
    assert np.array_equal(decode_image(grey), np.asarray(Image.open(io.BytesIO(grey)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_camera_rotation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(picture(40, 24)), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(decode_image(data), expected)
    assert probe_image(data) == (expected.shape[1], expected.shape[0])


def test_alpha_is_dropped_not_blended() -> None:
    rgba = np.dstack([picture(), np.full((48, 64), 3, np.uint8)])
    assert np.array_equal(decode_image(encoded(Image.fromarray(rgba), "PNG")), rgba[:, :, :3])


def test_sixteen_bit_grey_is_scaled_to_eight() -> None:
    ramp = np.arange(0, 65536, 256, dtype=np.uint16)[None, :].repeat(4, axis=0)
    out = decode_image(encoded(Image.fromarray(ramp), "PNG"))
    assert out.shape == (4, 256, 3)
    assert np.array_equal(out[0, :, 1], np.arange(256, dtype=np.uint8))


def test_cmyk_palettes_and_transparent_palettes_follow_pillow() -> None:
    source = Image.fromarray(picture())
    cmyk = encoded(source.convert("CMYK"), "JPEG")
    assert np.array_equal(decode_image(cmyk), np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")))
    palette = source.quantize(16)
    assert np.array_equal(decode_image(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    assert np.array_equal(
        decode_image(encoded(palette, "PNG", transparency=bytes(range(16)))), np.asarray(palette.convert("RGB"))
    )


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = decode_image(data)[5, 5]
        assert red > 200 > 60 > blue


def test_a_huge_png_is_refused_before_it_is_decoded() -> None:
    assert code_of(png_header(20_000, 20_000)) == "too_large"
    assert code_of(png_header(100_000, 100_000)) == "too_large"
    assert code_of(png_header(17_000, 10)) == "too_large"
    assert code_of(png_header(10_000, 9_500)) == "too_large"


def test_too_many_bytes_and_no_bytes_are_refused() -> None:
    assert code_of(encode_png(picture()), MediaLimits(max_bytes=100)) == "too_large"
    assert code_of(b"") == "undecodable"


def test_truncated_and_broken_files_are_undecodable() -> None:
    for data in (encode_jpeg(picture()), encode_png(picture()), encode_webp(picture())):
        assert code_of(data[: len(data) // 2]) == "undecodable"
    assert code_of(b"\xff\xd8\xff" + b"\0" * 50) == "undecodable"


def test_text_video_and_other_formats_are_unsupported() -> None:
    tiff = encoded(Image.fromarray(picture()), "TIFF")
    for data in (b"hello, I am a picture", tiff, b"\0\0\0\x18ftypisom" + b"\0" * 40, b"<svg></svg>"):
        assert code_of(data) == "unsupported"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = encode_jpeg(picture())
    at = data.index(b"\xff\xda")
    assert code_of(data[:at] + b"\xff\xda\x00\x04\x00\x00" * 1000 + data[at:]) == "too_large"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_picture() -> None:
    data = encoded(Image.fromarray(picture()), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + b"\x01" * 30)
    assert decode_image(data).shape == (48, 64, 3)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]))
def test_random_bytes_raise_nothing_but_a_refusal(body: bytes, magic: bytes) -> None:
    with pytest.raises(MediaRejected):
        decode_image(magic + body)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_mutated_pictures_decode_or_are_refused(kind: str, changes: list[tuple[float, int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = bytearray(encoded(Image.fromarray(picture(16, 16)), kind, **options))
    for where, value in changes:
        data[int(where * len(data))] = value
    try:
        rgb = decode_image(bytes(data), MediaLimits(max_pixels=10_000_000))
    except MediaRejected as refusal:
        assert refusal.error_code in ("undecodable", "too_large", "unsupported")
    else:
        assert rgb.dtype == np.uint8
        assert rgb.ndim == 3
        assert rgb.shape[2] == 3


def test_content_types_are_told_by_the_first_bytes() -> None:
    rgb = picture()
    assert sniff_mime(encode_jpeg(rgb)) == "image/jpeg"
    assert sniff_mime(encode_png(rgb)) == "image/png"
    assert sniff_mime(encode_webp(rgb)) == "image/webp"
    assert sniff_mime(b"RIFF\0\0\0\0WAVEfmt ") == "audio/wav"
    assert sniff_mime(b"\0\0\0\x20ftypisom") == "video/mp4"
    assert sniff_mime(b"\0\0\0\x20ftypavif") is None
    assert sniff_mime(b"fLaC") == "audio/flac"
    assert sniff_mime(b"PK\x03\x04") is None


@pytest.mark.parametrize(
    ("source", "target", "box"),
    [
        ((100, 200), (224, 224), (0, 50, 100, 100)),
        ((200, 100), (224, 224), (50, 0, 100, 100)),
        ((101, 100), (224, 224), (0, 0, 100, 100)),
        ((480, 640), (100, 300), (133, 0, 213, 640)),
        ((1, 1), (224, 300), (0, 0, 1, 1)),
        ((5, 1000), (300, 7), (0, 499, 5, 1)),
    ],
)
def test_the_crop_is_the_largest_centred_one(
    source: tuple[int, int], target: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    assert crop_box(*source, target) == box


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1024), st.integers(1, 1024))
def test_a_crop_lies_inside_the_picture_and_fills_one_side(h: int, w: int, th: int, tw: int) -> None:
    top, left, height, width = crop_box(h, w, (th, tw))
    assert 0 <= top <= h - height
    assert 0 <= left <= w - width
    assert height >= 1
    assert width >= 1
    assert height == h or width == w


def test_preprocessing_is_crop_then_one_bilinear_resize() -> None:
    rgb = picture(90, 160)
    out = preprocess_image(rgb, (32, 24))
    crop = rgb[0:90, 46 : 46 + 68]
    assert crop_box(90, 160, (32, 24)) == (0, 46, 90, 68)
    expected = cv2.resize(np.ascontiguousarray(crop), (24, 32), interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
    assert out.shape == (3, 32, 24)
    assert np.array_equal(out, expected)
    assert np.array_equal(preprocess_image(rgb, (90, 160)), rgb.transpose(2, 0, 1))


def test_a_mask_keeps_its_values() -> None:
    mask = np.zeros((50, 50), np.uint8)
    mask[10:30, 10:30] = 1
    out = preprocess_mask(mask, (224, 224))
    assert out.shape == (224, 224)
    assert set(np.unique(out)) == {0, 1}


def test_a_mask_comes_back_from_its_png_and_never_turns() -> None:
    mask = (np.random.default_rng(0).random((30, 41)) < 0.5).astype(np.uint8) * 255
    data = encode_png_mask(mask)
    assert np.array_equal(decode_mask(data), mask)
    assert decode_mask(data).flags.writeable
    assert np.array_equal(decode_mask(encoded(Image.fromarray(mask).convert("1"), "PNG")), mask)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decode_mask(encoded(Image.fromarray(mask), "PNG", exif=exif)), mask)
    with pytest.raises(MediaRejected):
        decode_mask(data[:40])


def test_the_short_way_is_taken_by_plain_jpegs_only() -> None:
    source = Image.fromarray(picture(20, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = plain_header(encode_jpeg(picture(20, 30)))
    assert plain is not None
    assert (plain.width, plain.height, plain.one_scan) == (30, 20, True)
    progressive = plain_header(encoded(source, "JPEG", progressive=True))
    assert progressive is not None
    assert not progressive.one_scan
    assert plain_header(encoded(source, "JPEG", comment=b"hello", icc_profile=b"x" * 99)) is not None
    plainly = encode_jpeg(picture(20, 30))
    signed = plainly[:2] + b"\xff\xeb\x00\x0cJP\0\0\0\0\0\0\0\0" + plainly[2:]
    assert plain_header(signed) == plain
    assert np.array_equal(decode_image(signed), np.asarray(Image.open(io.BytesIO(signed))))
    for other in (
        encoded(source, "JPEG", exif=exif),
        encoded(source, "JPEG", xmp=b"<x:xmpmeta/>"),
        encoded(source.convert("CMYK"), "JPEG"),
        encode_png(picture()),
        encode_jpeg(picture())[:100],
        b"",
    ):
        assert plain_header(other) is None


@pytest.mark.parametrize("size", [(1, 1), (17, 16), (33, 66)])
def test_a_plain_webp_has_pillows_pixels_without_pillow(size: tuple[int, int]) -> None:
    source = Image.fromarray(cv2.GaussianBlur(picture(*size), (5, 5), 0))
    for options in ({"quality": 1}, {"quality": 80}, {"quality": 95, "icc_profile": b"x" * 99}):
        data = encoded(source, "WEBP", **options)
        pixels = decode_webp(data, MediaLimits())
        assert pixels is not None
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert np.array_equal(decode_image(data), pixels)


def test_every_webp_that_is_not_plain_or_not_whole_is_left_to_pillow() -> None:
    source, plain, exif = Image.fromarray(picture(20, 30)), encode_webp(picture(20, 30)), Image.Exif()
    exif[0x0112] = 6
    for other in (
        encoded(source, "WEBP", exif=exif),
        encoded(source, "WEBP", xmp=b'<rdf:Description tiff:Orientation="6"/>'),
        encoded(source, "WEBP", lossless=True),
        encoded(source.convert("RGBA"), "WEBP", save_all=True, append_images=[Image.new("RGBA", (30, 20))]),
        plain[:-1],
        plain[:40],
        b"RIFF",
    ):
        assert decode_webp(other, MediaLimits()) is None
    with pytest.raises(MediaRejected):
        decode_webp(plain, MediaLimits(max_pixels=100))


def test_a_png_is_inflated_to_the_same_pixels_by_either_library(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = pytest.importorskip("isal.isal_zlib")
    for data in (encode_png(picture()), encode_png(picture(1, 1)), encode_png(np.zeros((300, 200, 3), np.uint8))):
        for broken in (data, data[:-30], data[:60] + b"\xff" + data[61:], data.replace(b"IDAT", b"IDAt")):
            found = []
            for library in (zlib, fast):
                monkeypatch.setattr("gas.media.png._inflater", lambda library=library: library)
                found.append(decode_png(broken, MediaLimits()))
            assert (found[0] is None) == (found[1] is None)
            assert found[0] is None or np.array_equal(*found)


def test_a_rotation_that_only_the_xmp_tells_is_applied_as_pillow_does() -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    data = encoded(Image.fromarray(picture(20, 30)), "JPEG", xmp=xmp)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape == (30, 20, 3)
    assert np.array_equal(decode_image(data), expected)
    assert load_image(data, (30, 20)).shape == (3, 30, 20)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150)),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["444", "420", "grey", "turned", "progressive", "png"]),
    st.booleans(),
)
def test_a_models_input_is_the_decoded_picture_cut_and_resized_pixel_for_pixel(
    size: tuple[int, int], target: tuple[int, int], kind: str, given_place: bool
) -> None:
    rgb = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), dtype=np.uint8)
    image, exif = Image.fromarray(rgb), Image.Exif()
    exif[0x0112] = 6
    data = {
        "444": lambda: encode_jpeg(rgb, 80, "444"),
        "420": lambda: encode_jpeg(rgb, 40),
        "grey": lambda: encoded(image.convert("L"), "JPEG"),
        "turned": lambda: encoded(image, "JPEG", exif=exif),
        "progressive": lambda: encoded(image, "JPEG", progressive=True),
        "png": lambda: encode_png(rgb),
    }[kind]()
    place = np.full((3, *target), 7, np.uint8) if given_place else None
    found = load_image(data, target, out=place, scratch=SCRATCH)
    assert place is None or found is place
    assert np.array_equal(found, preprocess_image(decode_image(data), target))


def test_scans_times_pixels_are_limited_and_ordinary_progressive_pictures_pass() -> None:
    data = encoded(Image.fromarray(picture(400, 300)), "JPEG", progressive=True)
    assert decode_image(data).shape == (400, 300, 3)
    assert code_of(data, MediaLimits(max_scan_pixels=500_000)) == "too_large"
    assert code_of(data, MediaLimits(max_scans=3)) == "too_large"


def test_a_picture_that_exceeds_the_memory_is_told_from_a_broken_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("gas.media.jpeg.simplejpeg.decode_jpeg", full)
    assert code_of(encode_jpeg(picture())) == "too_much_memory"
    monkeypatch.setattr(Image.Image, "convert", full)
    assert code_of(encoded(Image.fromarray(picture()), "BMP")) == "too_much_memory"


def test_a_pictures_header_is_told_without_decoding() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    data = encoded(Image.fromarray(picture(20, 30)), "JPEG", exif=exif, subsampling=1, progressive=True, comment=b"me")
    info = probe_medium(data, "image")
    assert (info.mime, info.codec, info.width, info.height) == ("image/jpeg", "jpeg", 20, 30)
    assert (info.orientation, info.subsampling, info.progressive, len(info.tables)) == (8, "422", True, 128)
    assert {"exif", "comment"} <= set(info.metadata)
    grey = probe_medium(encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "image")
    assert (grey.bits, grey.channels) == (16, 1)
    film = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "green")]
    animated = encoded(film[0], "WEBP", save_all=True, append_images=film[1:])
    assert probe_medium(animated, "image").frames == 3
    for wrong in ("video", "audio"):
        with pytest.raises(MediaRejected) as caught:
            probe_medium(data, wrong)
        assert caught.value.error_code == "unsupported"
    with pytest.raises(ValueError, match="smell"):
        probe_medium(data, "smell")


def test_what_breaks_while_a_header_is_read_is_a_refusal() -> None:
    with pytest.raises(MediaRejected), opened_image(encode_png(picture())) as (image, _):
        image.seek(5)
