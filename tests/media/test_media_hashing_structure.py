"""Files of very many parts, and sound fingerprints and edges as pure functions."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from gas.errors import MediaRejected
from gas.media.detail import edge_steepness, measure_detail
from gas.media.encode import encode_mp4, encode_wav
from gas.media.hashing import pixel_key, placed_hashes
from gas.media.image import decode_image, encode_jpeg, encode_png, encode_webp
from gas.media.segments import SEGMENTS, find_segments
from gas.media.soundprint import overlap, sound_words
from gas.media.structure import check_parts

RGB = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize(
    "data",
    [
        encode_png(RGB),
        encode_jpeg(RGB),
        encode_webp(RGB),
        encode_mp4([RGB] * 5),
        encode_wav(np.zeros(100, np.float32), 8000),
    ],
)
def test_ordinary_files_have_few_parts(data):
    check_parts(data, most=100)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"a\0b") * 5000,
        b"\xff\xd8" + b"\xff\xe1\x00\x04ab" * 5000,
        b"RIFF\0\0\0\0WEBP" + (b"VP8 " + struct.pack("<I", 2) + b"ab") * 5000,
        b"RIFF\0\0\0\0WAVE" + (b"junk" + struct.pack("<I", 1) + b"a\0") * 5000,
        MP4 + b"\0\0\0\x08free" * 5000,
        MP4 + struct.pack(">I", 8 + 8 * 5000) + b"moov" + b"\0\0\0\x08trak" * 5000,
        MP4 + b"".join(struct.pack(">I", 8 * (5000 - at)) + b"moov" for at in range(5000)),
    ],
    ids=["png", "jpeg", "webp", "wav", "mp4", "mp4 tracks", "mp4 nested"],
)
def test_a_flood_of_parts_is_refused(data):
    with pytest.raises(MediaRejected) as refused:
        check_parts(data)
    assert refused.value.error_code == "too_large"


def test_broken_lengths_end_the_count():
    check_parts(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100)
    check_parts(MP4 + b"\0\0\0\x03free" * 9000)
    check_parts(MP4 + b"\0\0\0\x01free" + b"\0" * 100)


def melody(seed, rate=16_000, seconds=4):
    rng = np.random.default_rng(seed)
    t = np.arange(rate // 4) / rate
    notes = [np.sin(2 * np.pi * rng.uniform(300, 1900) * t) + rng.normal(0, 0.2, len(t)) for _ in range(4 * seconds)]
    return (0.3 * np.concatenate(notes)).astype(np.float32)


def test_fingerprints_of_one_sound_agree_and_of_two_do_not():
    one = sound_words(melody(1), 16_000)
    for changed in (0.2 * melody(1), -melody(1), melody(1)[3000:-5000]):
        rate, count = overlap(sound_words(changed.astype(np.float32), 16_000), one)
        assert rate < 0.12
        assert count > 60
    assert overlap(sound_words(melody(2), 16_000), one)[0] > 0.25


def test_too_short_or_silent_sounds_have_no_words():
    assert len(sound_words(np.zeros(100, np.float32), 16_000)) == 0
    silent = sound_words(np.zeros(32_000, np.float32), 16_000)
    assert overlap(silent, silent)[1] == 0
    assert overlap(silent[:0], silent) == (1.0, 0)


def test_edges_of_an_enlarged_picture_are_less_steep():
    blocks = np.kron(np.random.default_rng(2).integers(0, 256, (40, 40), dtype=np.uint8), np.ones((8, 8), np.uint8))
    sharp = edge_steepness(blocks)
    enlarged = edge_steepness(cv2.resize(blocks, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    assert sharp is not None
    assert enlarged is not None
    assert sharp > 0.9
    assert enlarged < 0.36


def test_a_picture_without_edges_says_nothing():
    assert edge_steepness(np.full((200, 200, 3), 90, np.uint8)) is None
    assert measure_detail(np.full((400, 400, 3), 90, np.uint8)).scale == 1.0


PHOTO = Path(skimage.__file__).parent / "data" / "motorcycle_left.png"


@pytest.fixture(scope="module")
def photo():
    """A sharp photo of 741 x 500 without traces of an encoder."""
    rgb = decode_image(PHOTO.read_bytes())
    return cv2.resize(rgb, None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("kernel", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("factor", [1.9, 3.0])
def test_an_enlarged_photo_holds_the_detail_of_a_smaller_one(photo, factor, kernel):
    enlarged = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=kernel)
    found = measure_detail(decode_image(encode_jpeg(enlarged, 92)))
    assert found.scale <= 0.67
    assert measure_detail(decode_image(encode_jpeg(photo, 92))).scale == 1.0


def test_a_sharpened_enlargement_is_told_by_its_rhythm(photo):
    enlarged = cv2.resize(photo, None, fx=1.9, fy=1.9, interpolation=cv2.INTER_CUBIC)
    sharpened = cv2.addWeighted(enlarged, 1.7, cv2.GaussianBlur(enlarged, (0, 0), 1.2), -0.7, 0)
    found = measure_detail(sharpened)
    assert found.rhythm > 8.5
    assert abs(found.scale - 1 / 1.9) < 0.02


@pytest.mark.parametrize("share", [0.8, 0.9375])
def test_a_photo_made_smaller_is_not_taken_for_enlarged(photo, share):
    shrunk = cv2.resize(photo, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    assert measure_detail(shrunk).scale == 1.0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (300, 700)])
def test_the_pixel_key_is_the_one_that_indexes_on_disk_hold(size):
    rgb = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    flat, prime, block = rgb.tobytes(), 0x9E3779B97F4A7C15, 1 << 16
    whole = len(flat) // 8
    words = np.frombuffer(flat[: 8 * whole], "<u8").tolist()
    state = (size[0] << 32 | size[1]) * prime + int.from_bytes(flat[8 * whole :], "big")
    for start in range(0, whole, block):
        part = words[start : start + block]
        total = sum((word ^ word >> 29) * (at * prime % 2**64 | 1) for at, word in enumerate(part, 1)) % 2**64
        state = ((state ^ state >> 31) * prime + total) % 2**64
    assert pixel_key(rgb) == state ^ state >> 29


def test_placed_hashes_are_signs_against_the_median_of_each_placing():
    grey = cv2.GaussianBlur(RGB[..., 0], (9, 9), 0)
    low = cv2.dct(grey.astype(np.float32))[:16, :16]
    odd = 1 - 2 * (np.arange(16) % 2)
    kinds = [kind * a * d for kind in (low, low.T) for d in (1, odd[:, None]) for a in (1, odd[None])]
    assert np.array_equal(placed_hashes(grey), [np.packbits((one > np.median(one)).ravel()) for one in kinds])


def test_a_pattern_of_hundreds_of_equal_corners_has_few_segments_apart_from_each_other():
    dot = cv2.GaussianBlur(np.eye(1, 256, 136, np.float32).reshape(16, 16), (0, 0), 2)
    places = find_segments(np.tile(5000 * dot, (8, 32)).astype(np.uint8)).places
    assert 0 < len(places) <= SEGMENTS
    apart = np.hypot(*(places[:, None, :2] - places[None, :, :2]).transpose(2, 0, 1)) + 99 * np.eye(len(places))
    assert (apart > 0.75 * np.maximum(places[:, None, 2], places[None, :, 2])).all()
