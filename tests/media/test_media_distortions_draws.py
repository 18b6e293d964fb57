"""Levels, seeds, masks and clips: what a draw is, and what moves with what."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.errors import MediaRejected
from gas.media.distortions.apply import apply_audio, apply_image, apply_video
from gas.media.distortions.table import KINDS, LEVELS, Distortion, Step, draw_distortion, steps_of
from gas.media.distortions.video import encode_h264, h264
from gas.media.image import encode_jpeg, encode_png, encode_png_mask, preprocess_image, preprocess_mask
from gas.media.limits import MediaLimits
from gas.media.masks import decode_mask, decode_masks, encode_mask, encode_masks
from gas.media.video import decode_video
from gas.types import Modality

IDS = [f"{number:064x}" for number in range(60)]
PICTURE_KINDS = [kind.name for kind in steps_of(Modality.IMAGE)]
GROUPS = {
    Modality.IMAGE: ({"geometry"}, {"colour"}, {"noise", "blur", "blocks", "codec"}),
    Modality.VIDEO: ({"geometry"}, {"colour"}, {"noise", "blur", "blocks", "codec"}),
    Modality.AUDIO: ({"level"}, {"room"}, {"codec"}),
}


def drawn_shape(height: int = 150, width: int = 210, shift: int = 0, down: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A dark picture with a bright shape that has no symmetry, and the shape's mask."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (90 + shift, 70 + down), 34, 1, -1)
    cv2.rectangle(mask, (90 + shift, 70 + down), (150 + shift, 90 + down), 1, -1)
    rgb = np.full((height, width, 3), 40, np.uint8)
    rgb[mask > 0] = (210, 200, 190)
    return rgb, mask


def bright(rgb: np.ndarray) -> np.ndarray:
    grey = rgb.mean(axis=2)
    return grey > (grey.min() + grey.max()) / 2


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one > 0, other > 0
    return float((one & other).sum() / (one | other).sum())


def only(name: str, modality: Modality = Modality.IMAGE) -> Distortion:
    return Distortion(modality, (KINDS[name].step(),))


@pytest.mark.parametrize("modality", Modality)
def test_level_0_is_the_medium_as_it_is_and_each_level_adds_its_own_group(modality: Modality) -> None:
    assert draw_distortion(0, 1, IDS[0], modality).steps == ()
    for sample_id in IDS:
        below: tuple[Step, ...] = ()
        for level in (1, 2, 3):
            drawn = draw_distortion(level, 1, sample_id, modality)
            assert drawn.steps[: len(below)] == below
            added = {KINDS[step.name].group for step in drawn.steps[len(below) :]}
            assert added and added <= GROUPS[modality][level - 1]
            below = drawn.steps


@pytest.mark.parametrize("modality", Modality)
def test_draws_depend_on_seed_and_sample_and_on_nothing_else(modality: Modality) -> None:
    drawn = [draw_distortion(3, 5, sample_id, modality) for sample_id in IDS]
    assert drawn == [draw_distortion(3, 5, sample_id, modality) for sample_id in IDS]
    assert len({item.name for item in drawn}) > 0.9 * len(IDS)
    assert draw_distortion(3, 6, IDS[0], modality) != drawn[0]


def test_every_kind_that_levels_use_is_really_drawn() -> None:
    for modality in Modality:
        seen = {step.name for sample_id in IDS for step in draw_distortion(3, 2, sample_id, modality).steps}
        never = {kind.name for kind in steps_of(modality)} - seen
        assert never <= {"quarter_turn"} | ({"jpeg", "webp"} if modality is Modality.VIDEO else set())


def test_this_draw_stays_what_it_is_until_the_version_changes() -> None:
    drawn = draw_distortion(2, 0, "a" * 64, Modality.AUDIO)
    assert drawn.version == "d1"
    assert drawn.name == (
        "d1 level 2: gain(decibels=-7.8478) resample(via_rate=24000) noise(snr_db=31.0356, seed=3251849562) "
        "reverberation(rt60=0.2264, wet=0.314, seed=1876213321)"
    )


def test_there_is_no_level_4() -> None:
    for level in (-1, 4):
        with pytest.raises(ValueError, match="no level"):
            draw_distortion(level, 0, IDS[0], Modality.IMAGE)


@given(level=st.sampled_from(LEVELS), seed=st.integers(0, 2**64 - 1), modality=st.sampled_from(list(Modality)))
@settings(max_examples=60, deadline=None)
def test_a_distortion_survives_json(level: int, seed: int, modality: Modality) -> None:
    drawn = draw_distortion(level, seed, IDS[3], modality)
    again = Distortion.from_dict(json.loads(json.dumps(drawn.as_dict())))
    assert again == drawn
    assert again.name == drawn.name


@pytest.mark.parametrize(
    "change",
    [
        {"version": "d0"},
        {"level": 9},
        {"modality": "smell"},
        {"steps": "jpeg"},
        {"steps": ["jpeg"]},
        {"steps": [{"name": "melt"}]},
        {"steps": [{"name": "mp3", "kbps": 64}]},
        {"steps": [{"name": "jpeg"}]},
        {"steps": [{"name": "jpeg", "quality": 50, "size": 1}]},
        {"steps": [{"name": "jpeg", "quality": [1]}]},
    ],
)
def test_a_distortion_that_is_not_ours_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Distortion.from_dict({**only("jpeg").as_dict(), **change})


@pytest.mark.parametrize("name", PICTURE_KINDS)
def test_the_mask_follows_the_picture_through_every_distortion(name: str) -> None:
    rgb, mask = drawn_shape()
    assert overlap(bright(rgb), mask) == 1
    out, moved = apply_image(rgb, only(name), mask)
    assert moved is not None
    assert moved.shape == out.shape[:2]
    assert set(np.unique(moved)) <= {0, 1}
    if KINDS[name].moves:
        assert moved.shape != mask.shape or overlap(moved, mask) < 0.95
    else:
        assert np.array_equal(moved, mask)
    assert overlap(bright(cv2.GaussianBlur(out, (0, 0), 1)), moved) > (0.8 if KINDS[name].group == "blocks" else 0.9)


@pytest.mark.parametrize("level", LEVELS)
def test_the_mask_follows_the_picture_through_every_level_and_into_the_model(level: int) -> None:
    rgb, mask = drawn_shape(300, 400, shift=95, down=75)
    found = []
    for sample_id in IDS[:25]:
        drawn = draw_distortion(level, 8, sample_id, Modality.IMAGE)
        out, moved = apply_image(rgb, drawn, mask)
        assert moved is not None
        assert moved.shape == out.shape[:2]
        seen = preprocess_image(out, (128, 128)).transpose(1, 2, 0)
        found.append(overlap(bright(cv2.GaussianBlur(seen, (0, 0), 1)), preprocess_mask(moved, (128, 128))))
    assert np.median(found) > 0.9
    assert min(found) > 0.7


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    sample_id=st.text(max_size=8),
    modality=st.sampled_from([Modality.IMAGE, Modality.VIDEO]),
)
@settings(max_examples=60, deadline=None)
def test_pictures_and_clips_of_any_size_survive_any_draw(
    height: int, width: int, sample_id: str, modality: Modality
) -> None:
    rng = np.random.default_rng(height * 64 + width)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 2, (height, width), dtype=np.uint8)
    drawn = draw_distortion(3, 0, sample_id, modality)
    if modality is Modality.IMAGE:
        frame, moved = apply_image(rgb, drawn, mask)
        frames, masks = [frame], [moved]
    else:
        frames, masks = apply_video([rgb, rgb], drawn, [mask, mask])  # type: ignore[assignment]
    for frame, moved in zip(frames, masks, strict=True):
        assert frame.dtype == np.uint8 and frame.ndim == 3
        assert moved is not None
        assert moved.shape == frame.shape[:2] and min(moved.shape) >= 1
        assert set(np.unique(moved)) <= {0, 1}


@given(length=st.integers(0, 3000), rate=st.sampled_from([1000, 8000, 22050, 384000]), sample_id=st.text(max_size=8))
@settings(max_examples=40, deadline=None)
def test_sounds_of_any_length_and_rate_survive_any_draw(length: int, rate: int, sample_id: str) -> None:
    sound = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    out = apply_audio(sound, rate, draw_distortion(3, 0, sample_id, Modality.AUDIO))
    assert out.shape == sound.shape and out.dtype == np.float32
    assert np.isfinite(out).all()
    assert (np.abs(out) <= 1).all()


def test_without_a_mask_there_is_none_and_the_input_stays_untouched() -> None:
    rgb, mask = drawn_shape()
    kept, kept_mask = rgb.copy(), mask.copy()
    for name in PICTURE_KINDS:
        assert apply_image(rgb, only(name))[1] is None
        apply_image(rgb, only(name), mask)
    assert np.array_equal(rgb, kept) and np.array_equal(mask, kept_mask)


@pytest.mark.parametrize("name", PICTURE_KINDS)
def test_every_distortion_is_repeatable_and_does_something(name: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    out, _ = apply_image(rgb, only(name))
    assert out.dtype == np.uint8 and out.flags.c_contiguous
    assert np.array_equal(out, apply_image(rgb, only(name))[0])
    assert out.shape != rgb.shape or not np.array_equal(out, rgb)


def test_a_distortion_for_another_medium_is_refused() -> None:
    rgb, mask = drawn_shape()
    with pytest.raises(ValueError, match="audio"):
        apply_image(rgb, only("gain", Modality.AUDIO))
    with pytest.raises(ValueError, match="no distortion"):
        apply_image(rgb, only("h264"))
    with pytest.raises(ValueError, match="can't be applied"):
        apply_audio(np.zeros(10, np.float32), 16000, only("jpeg"))
    with pytest.raises(ValueError, match="mask"):
        apply_image(rgb, only("flip"), mask[:-1])


def clip(count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    pairs = [drawn_shape(shift=3 * index) for index in range(count)]
    return [rgb for rgb, _ in pairs], [mask for _, mask in pairs]


@pytest.mark.parametrize("name", [kind.name for kind in steps_of(Modality.VIDEO)])
def test_a_clip_gets_the_same_parameters_on_every_frame_and_keeps_its_masks(name: str) -> None:
    frames, masks = clip()
    out, moved = apply_video(frames, only(name, Modality.VIDEO), masks)
    assert moved is not None
    assert len(out) == len(moved) == len(frames)
    for frame, mask in zip(out, moved, strict=True):
        assert mask.shape == frame.shape[:2]
        assert overlap(bright(cv2.GaussianBlur(frame, (0, 0), 1)), mask) > 0.75
    if name not in ("h264", "gaussian_noise"):
        alone = [apply_image(frame, only(name), mask) for frame, mask in zip(frames, masks, strict=True)]
        for (frame, mask), got, got_mask in zip(alone, out, moved, strict=True):
            assert np.array_equal(frame, got) and np.array_equal(mask, got_mask)


def test_noise_on_a_clip_has_one_strength_and_another_draw_on_each_frame() -> None:
    frames = [np.full((80, 100, 3), 128, np.uint8)] * 3
    out, _ = apply_video(frames, only("gaussian_noise", Modality.VIDEO))
    noise = [frame.astype(float) - 128 for frame in out]
    assert [n.std() for n in noise] == pytest.approx([20, 20, 20], rel=0.03)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.03


def test_h264_really_is_h264_and_a_higher_factor_loses_more() -> None:
    frames, _ = clip()
    data = encode_h264([np.ascontiguousarray(frame[:150, :210]) for frame in frames], 23)
    assert data[4:8] == b"ftyp" and b"avc1" in data and b"x264" in data
    assert len(decode_video(data)) == len(frames)
    losses = [
        np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(h264(frames, crf), frames, strict=True)])
        for crf in (10, 30, 48)
    ]
    assert losses == sorted(losses)
    assert losses[0] < 3
    assert len(encode_h264(frames, 45)) < len(encode_h264(frames, 15))


def test_h264_predicts_between_frames_which_pictures_alone_cannot() -> None:
    still = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    one, many = len(encode_h264([still], 23)), len(encode_h264([still] * 12, 23))
    assert many < 2 * one


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (17, 33), (64, 63)])
def test_h264_takes_odd_and_tiny_sizes_and_gives_them_back(shape: tuple[int, int]) -> None:
    frames = [np.full((*shape, 3), value, np.uint8) for value in (60, 90, 120)]
    out = h264(frames, 18)
    assert [frame.shape for frame in out] == [(*shape, 3)] * 3
    assert [int(frame.mean()) for frame in out] == pytest.approx([60, 90, 120], abs=4)


def test_a_clip_that_changes_its_size_becomes_two_streams() -> None:
    frames, _ = clip(4)
    out = h264([*frames[:2], *(frame[:100, :120] for frame in frames[2:])], 30)
    assert [frame.shape for frame in out] == [(150, 210, 3)] * 2 + [(100, 120, 3)] * 2
    assert h264([], 30) == []


def test_h264_refuses_what_it_cannot_encode() -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    for frames, crf in (([], 23), ([frame, frame[:2]], 23), ([frame[:3]], 23), ([frame], 60)):
        with pytest.raises(ValueError, match=r"frames|even"):
            encode_h264(frames, crf)


def test_masks_survive_their_files() -> None:
    _, masks = clip(3)
    assert np.array_equal(decode_mask(encode_mask(masks[0])), masks[0])
    assert np.array_equal(decode_mask(encode_png_mask(masks[0])), masks[0])
    assert not decode_mask(encode_mask(np.zeros((4, 5), np.uint8))).any()
    data = encode_masks(masks)
    assert data == encode_masks(masks)
    assert all(np.array_equal(a, b) for a, b in zip(decode_masks(data, 3), masks, strict=True))
    assert len(decode_masks(data, 2)) == 2
    same = decode_masks(encode_mask(masks[1]), 4)
    assert len(same) == 4 and np.array_equal(same[3], masks[1])


def refused(code: str, data: bytes, count: int = 1, limits: MediaLimits | None = None) -> None:
    with pytest.raises(MediaRejected) as caught:
        decode_masks(data, count, limits or MediaLimits())
    assert caught.value.error_code == code


def test_masks_that_are_none_are_refused() -> None:
    rgb, mask = drawn_shape()
    refused("undecodable", b"")
    refused("unsupported", b"hello")
    refused("unsupported", encode_jpeg(rgb))
    refused("undecodable", encode_mask(mask)[:40])
    zipped = encode_masks([mask, mask])
    refused("undecodable", zipped[:60])
    refused("mask_mismatch", zipped, 3)
    refused("too_large", zipped, 1, MediaLimits(max_frames=1))
    refused("too_large", encode_png(rgb), 1, MediaLimits(max_pixels=100))


def test_a_zip_of_masks_cannot_unpack_to_more_than_is_allowed() -> None:
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", b"\x89PNG\r\n\x1a\n" + bytes(1_000_000))
    refused("too_large", out.getvalue(), 1, MediaLimits(max_bytes=100_000))


def test_a_version_that_is_unknown_is_not_read() -> None:
    with pytest.raises(ValueError, match="version"):
        Distortion.from_dict(replace(only("jpeg"), version="d9").as_dict())
