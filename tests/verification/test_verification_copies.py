"""Copies of real photos, changed as a thief would change them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import sklearn.datasets

from gas.media.hashing import HASH_BITS, distances, picture_hash, pixel_key, placed_hashes, thumbnail
from gas.media.image import decode_image, encode_jpeg
from gas.media.segments import agreement, find_segments, mirrored
from gas.types import Modality
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.prints import print_frames, print_picture

SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")
SKLEARN = ("china.jpg", "flower.jpg")


@pytest.fixture(scope="session")
def photos():
    """Eight photographs of at most 640 pixels."""
    folder = Path(skimage.__file__).parent / "data"
    other = Path(sklearn.datasets.__file__).parent / "images"
    paths = [folder / name for name in SKIMAGE] + [other / name for name in SKLEARN]
    return [thumbnail(decode_image(path.read_bytes()), 400) for path in paths]


def seen(rgb, name, **more):
    frame = print_picture(rgb)
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Seen(digest, int.from_bytes(frame.upright.tobytes(), "big"), frames=(frame,), **more)


@pytest.fixture(scope="session")
def store(photos):
    index = MediaIndex()
    for at, photo in enumerate(photos):
        assert index.claim(seen(photo, f"photo {at}")) is None, "real photos are no copies of one another"
    return index


def crop(rgb, share, corner=(0.3, 0.6)):
    height, width = rgb.shape[:2]
    h, w = round(height * (1 - share)), round(width * (1 - share))
    top, left = round((height - h) * corner[0]), round((width - w) * corner[1])
    return rgb[top : top + h, left : left + w]


def hue(rgb, degrees):
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + degrees // 2) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def linear(rgb, factor, offset):
    return np.clip(rgb * float(factor) + offset, 0, 255).astype(np.uint8)


def framed(rgb):
    height, width = rgb.shape[:2]
    sides = (height // 10, height // 20, width // 20, width // 20)
    return cv2.copyMakeBorder(rgb, *sides, cv2.BORDER_CONSTANT, value=(30, 30, 40))


CHANGES = {
    "encoded at quality 50": lambda rgb: decode_image(encode_jpeg(rgb, 50)),
    "encoded at quality 20": lambda rgb: decode_image(encode_jpeg(rgb, 20)),
    "a tenth cropped": lambda rgb: crop(rgb, 0.1),
    "a quarter cropped": lambda rgb: crop(rgb, 0.25),
    "mirrored": lambda rgb: rgb[:, ::-1],
    "mirrored and cropped": lambda rgb: crop(rgb, 0.1)[:, ::-1],
    "another hue": lambda rgb: hue(rgb, 60),
    "brighter": lambda rgb: linear(rgb, 1, 40),
    "more contrast": lambda rgb: linear(rgb, 1.5, -60),
    "less contrast": lambda rgb: linear(rgb, 0.5, 60),
    "grey": lambda rgb: np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
    "turned by a quarter": lambda rgb: np.rot90(rgb),
    "upside down": lambda rgb: rgb[::-1, ::-1],
    "half the size": lambda rgb: cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "one and a half the size": lambda rgb: cv2.resize(rgb, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC),
    "squashed": lambda rgb: cv2.resize(rgb, (rgb.shape[1], round(rgb.shape[0] * 0.85))),
    "a screen shot with a border": framed,
    "noisy": lambda rgb: np.clip(rgb + np.random.default_rng(1).normal(0, 10, rgb.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_a_photo_is_found(store, photos, change):
    found = 0
    for at, photo in enumerate(photos):
        copy = np.ascontiguousarray(CHANGES[change](photo))
        match = store.duplicate_of(seen(copy, f"{change} {at}"))
        assert match is None or match.sha256 == hashlib.sha256(f"photo {at}".encode()).hexdigest()
        found += match is not None
    # One in eight may slip through: a star field has few corners that stay.
    assert found >= len(photos) - 1


def test_a_mirrored_copy_is_told_as_such(store, photos):
    match = store.duplicate_of(seen(np.ascontiguousarray(photos[0][:, ::-1]), "mirrored"))
    assert match is not None
    assert match.placing == "mirrored"


@pytest.mark.parametrize(
    ("lay", "place"), [(lambda p: p[:, ::-1], 1), (lambda p: p[::-1], 2), (lambda p: p[::-1, ::-1], 3)]
)
def test_hashes_of_all_placings_are_those_of_the_laid_picture(photos, lay, place):
    for photo in photos:
        placed = placed_hashes(photo)
        laid = picture_hash(np.ascontiguousarray(lay(photo)))
        assert distances(placed[place], laid) <= 4
        assert placed.shape == (8, HASH_BITS // 8)


def test_turned_pictures_have_hashes_of_the_turned_placings(photos):
    for photo in photos:
        turned = picture_hash(np.ascontiguousarray(np.rot90(photo)))
        assert distances(placed_hashes(photo), turned).min() <= 4


def test_unrelated_photos_are_far_apart_by_every_measure(photos):
    prints = [print_picture(photo) for photo in photos]
    for at, one in enumerate(prints):
        for other in prints[:at]:
            assert distances(one.hashes, other.upright).min() > 40
            assert agreement(one.segments, other.segments) <= 2
            assert agreement(mirrored(one.segments), other.segments) <= 2


def test_mirrored_segments_are_those_of_the_mirrored_picture(photos):
    for photo in photos[:4]:
        there = find_segments(np.ascontiguousarray(photo[:, ::-1]))
        assert agreement(mirrored(find_segments(photo)), there) >= 8


def test_a_picture_of_one_colour_has_no_segments_and_harms_nobody(store):
    blank = np.full((200, 300, 3), 127, np.uint8)
    assert len(find_segments(blank)) == 0
    assert store.duplicate_of(seen(blank, "blank")) is None


def test_the_pixel_key_tells_pictures_and_shapes_apart(photos):
    rgb = photos[0]
    changed = rgb.copy()
    changed[5, 5, 0] ^= 1
    keys = {pixel_key(one) for one in (rgb, changed, rgb[:, ::-1], rgb[::-1], rgb.reshape(rgb.shape[0] // 2, -1, 3))}
    assert len(keys) == 5
    assert pixel_key(rgb.copy()) == pixel_key(rgb)
    assert all(0 <= key < 2**64 for key in keys)


def test_a_photo_of_the_validators_own_store_signed_as_ones_own_is_found(photos):
    index = MediaIndex()
    index.add(seen(photos[0], "a data set's photo"))
    match = index.claim(seen(decode_image(encode_jpeg(photos[0], 70)), "stolen", prompt="an astronaut"))
    assert match is not None
    assert not match.exact


def test_facts_keep_segments_and_words_through_json(photos):
    medium = seen(photos[1], "cat", prompt="a cat", owner="v/m/t")
    again = Seen.from_facts(medium.sha256, medium.as_facts())
    index = MediaIndex()
    index.add(again)
    assert index.duplicate_of(seen(crop(photos[1], 0.1), "copy")) is not None
    assert (again.prompt, again.owner, again.phash) == ("a cat", "v/m/t", medium.phash)


def moving(photos, order=range(10)):
    """Frames of a made-up video: a slow pan over five photos."""
    frames = []
    for at in order:
        photo = cv2.resize(photos[at // 2], (360, 240))
        frames.append(photo[:, 20 * (at % 2) : 20 * (at % 2) + 320])
    return frames


def video(frames, name):
    prints = print_frames(frames)
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Seen(digest, int.from_bytes(prints[0].upright.tobytes(), "big"), frames=prints, modality=Modality.VIDEO)


def test_a_video_is_found_encoded_anew_mirrored_or_shuffled(photos):
    index = MediaIndex()
    frames = moving(photos)[1::2]
    assert index.claim(video(frames, "first")) is None
    assert index.claim(video([decode_image(encode_jpeg(f, 40)) for f in frames], "encoded")) is not None
    assert index.claim(video([np.ascontiguousarray(f[:, ::-1]) for f in frames], "mirrored")) is not None
    assert index.claim(video(frames[::-1], "shuffled")) is not None
    assert index.claim(video([crop(f, 0.1) for f in frames], "cropped")) is not None


def test_videos_that_share_one_scene_are_two(photos):
    index = MediaIndex()
    frames = moving(photos)[1::2]
    assert index.claim(video(frames, "first")) is None
    others = [cv2.resize(photo, (320, 240)) for photo in photos[5:8]]
    assert index.claim(video([frames[0], *others, others[0][::-1].copy()], "second")) is None


def test_fades_to_black_are_no_copies_of_one_another(photos):
    black = np.zeros((240, 320, 3), np.uint8)
    index = MediaIndex()
    one, two = (cv2.resize(photo, (320, 240)) for photo in photos[:2])
    assert index.claim(video([black, black, one, black, black], "first")) is None
    assert index.claim(video([black, black, two, black, black], "second")) is None
