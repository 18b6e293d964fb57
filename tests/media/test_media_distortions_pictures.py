"""Each distortion of pictures does what its name says: its effect is measured, not its arguments."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.media.distortions import colour, damage, geometry

RNG = np.random.Generator(np.random.PCG64(7))


def scene(height: int = 240, width: int = 320, seed: int = 0) -> np.ndarray:
    """Smooth colours, sharp shapes, a little grain; away from black and white."""
    rng = np.random.default_rng(seed)
    rgb = cv2.resize(rng.integers(60, 190, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(rgb, centre, int(rng.integers(5, 30)), [int(v) for v in rng.integers(60, 190, 3)], -1)
    return np.clip(rgb + rng.normal(0, 2, rgb.shape), 50, 205).astype(np.uint8)


def grey(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(np.float64) @ [0.299, 0.587, 0.114]


def high_frequencies(rgb: np.ndarray) -> float:
    """Share of the spectrum's energy above a quarter of the sampling rate."""
    # Faded out towards the border, which would otherwise count as an edge.
    fade = np.hanning(rgb.shape[0])[:, None] * np.hanning(rgb.shape[1])[None, :]
    spectrum = np.abs(np.fft.fft2((grey(rgb) - grey(rgb).mean()) * fade)) ** 2
    down, across = np.fft.fftfreq(rgb.shape[0])[:, None], np.fft.fftfreq(rgb.shape[1])[None, :]
    return float(spectrum[np.hypot(down, across) > 0.25].sum() / spectrum.sum())


def blockiness(rgb: np.ndarray, side: int = 8) -> float:
    """How much larger steps are across the lines of a grid than beside them."""
    ratios = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey(rgb), axis=axis)).mean(axis=1 - axis)
        on_grid = np.arange(len(steps)) % side == side - 1
        ratios.append(steps[on_grid].mean() / steps[~on_grid].mean())
    return float(np.mean(ratios))


def edges(rgb: np.ndarray) -> np.ndarray:
    steps = np.hypot(cv2.Sobel(grey(rgb), cv2.CV_64F, 1, 0), cv2.Sobel(grey(rgb), cv2.CV_64F, 0, 1))
    return steps > np.quantile(steps, 0.9)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_jpeg_leaves_the_8_by_8_grid_of_jpeg_and_lower_quality_more_of_it() -> None:
    rgb = cv2.GaussianBlur(scene(), (0, 0), 2)
    found = [blockiness(damage.jpeg(rgb, quality)) for quality in (95, 30, 10)]
    assert found == sorted(found)
    assert found[2] > 2 > 1.2 > blockiness(rgb)
    # Not any grid: steps across the lines of a grid of 7 are no larger than beside them.
    assert blockiness(damage.jpeg(rgb, 10), side=7) < 1.2


def test_jpeg_thins_colour_to_half_the_resolution() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (200, 60, 60), (60, 116, 200)
    out = damage.jpeg(stripes, 95).astype(int)
    assert np.abs(np.diff(out[:, :, 0] - out[:, :, 2], axis=1)).mean() < 30 < 280


def test_webp_loses_more_at_lower_quality_and_smooths_the_grid_that_jpeg_leaves() -> None:
    rgb = cv2.GaussianBlur(scene(), (0, 0), 2)
    losses = [np.abs(damage.webp(rgb, quality).astype(int) - rgb).mean() for quality in (90, 40, 5)]
    assert losses == sorted(losses)
    assert losses[0] > 0 and losses[2] < 10
    assert blockiness(damage.webp(rgb, 10)) < blockiness(damage.jpeg(rgb, 10))


@pytest.mark.parametrize("sigma", [2.0, 8.0, 20.0])
def test_noise_has_the_strength_it_says_and_no_pattern(sigma: float) -> None:
    flat = np.full((300, 300, 3), 128, np.uint8)
    noise = damage.gaussian_noise(flat, sigma, np.random.default_rng(1)).astype(float) - 128
    # Rounding to whole levels adds a variance of 1/12.
    assert noise.std() == pytest.approx(np.hypot(sigma, 12**-0.5), rel=0.02)
    assert abs(noise.mean()) < 0.02 * sigma
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.01


def test_noise_is_seeded() -> None:
    rgb = scene()
    one, same, other = (damage.gaussian_noise(rgb, 5, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_blur_takes_the_high_frequencies_and_spreads_a_point_as_far_as_it_says() -> None:
    rgb = scene()
    found = [high_frequencies(rgb), *(high_frequencies(damage.gaussian_blur(rgb, sigma)) for sigma in (0.7, 1.5))]
    assert found[1] < 0.5 * found[0] and found[2] < 0.1 * found[0]
    point = np.zeros((101, 101, 3), np.uint8)
    point[48:53, 48:53] = 255
    spread = grey(damage.gaussian_blur(point, 4.0))
    rows = np.arange(101) - 50
    # Variances add: a square of 5 pixels has (25 - 1) / 12.
    assert np.sqrt((spread.sum(axis=1) * rows**2).sum() / spread.sum()) == pytest.approx(np.sqrt(16 + 2), rel=0.05)


@pytest.mark.parametrize(("degrees", "along", "across"), [(0, 1, 0), (90, 0, 1), (180, 1, 0)])
def test_motion_blur_runs_along_its_line_and_not_across_it(degrees: float, along: int, across: int) -> None:
    noisy = np.repeat(np.random.default_rng(3).integers(0, 256, (128, 128, 1), dtype=np.uint8), 3, axis=2)
    out = grey(damage.motion_blur(noisy, 9, degrees))
    rough = [float(np.abs(np.diff(out, axis=axis)).mean()) for axis in (0, 1)]
    assert rough[along] < 0.35 * rough[across]


def test_motion_blur_at_45_degrees_draws_a_slanted_line_of_its_length() -> None:
    point = np.zeros((61, 61, 3), np.uint8)
    point[30, 30] = 255
    lit = np.argwhere(grey(damage.motion_blur(point, 15, 45)) > 3)
    assert np.corrcoef(lit[:, 0], -lit[:, 1])[0, 1] > 0.95
    assert 9 <= np.ptp(lit[:, 0]) <= 12


def test_block_mean_flattens_whole_blocks_to_their_mean_and_leaves_the_others() -> None:
    rgb = scene(100, 130)
    out = damage.block_mean(rgb, 16, 0.25, np.random.default_rng(0))
    changed = 0
    for top in range(0, 96, 16):
        for left in range(0, 128, 16):
            before, after = rgb[top : top + 16, left : left + 16], out[top : top + 16, left : left + 16]
            if not np.array_equal(before, after):
                changed += 1
                assert (after == after[0, 0]).all()
                assert np.abs(after[0, 0] - before.mean(axis=(0, 1))).max() <= 0.5
    assert changed == round(0.25 * 6 * 8)
    assert np.array_equal(out[96:], rgb[96:]) and np.array_equal(out[:, 128:], rgb[:, 128:])


def test_block_shuffle_moves_whole_blocks_and_changes_none() -> None:
    rgb = scene(96, 128)
    out = damage.block_shuffle(rgb, 32, 0.5, np.random.default_rng(0))

    def blocks(pixels: np.ndarray) -> list[bytes]:
        return [pixels[y : y + 32, x : x + 32].tobytes() for y in range(0, 96, 32) for x in range(0, 128, 32)]

    assert sorted(blocks(rgb)) == sorted(blocks(out))
    assert sum(a != b for a, b in zip(blocks(rgb), blocks(out), strict=True)) == 6
    least = damage.block_shuffle(rgb, 32, 0.01, np.random.default_rng(0))
    assert sum(a != b for a, b in zip(blocks(rgb), blocks(least), strict=True)) == 2


@pytest.mark.parametrize("function", [damage.block_mean, damage.block_shuffle])
def test_blocks_larger_than_the_picture_change_nothing(function: object) -> None:
    rgb = scene(20, 30)
    assert np.array_equal(function(rgb, 64, 0.5, np.random.default_rng(0)), rgb)  # type: ignore[operator]


@pytest.mark.parametrize(
    "change",
    [
        lambda rgb: colour.brightness(rgb, 1.2),
        lambda rgb: colour.contrast(rgb, 0.6),
        lambda rgb: colour.saturation(rgb, 0.3),
        lambda rgb: colour.hue(rgb, 15),
        lambda rgb: colour.gamma(rgb, 1.3),
    ],
)
def test_colour_distortions_change_values_and_leave_edges_where_they_are(change: object) -> None:
    rgb = scene()
    out = change(rgb)  # type: ignore[operator]
    assert np.abs(out.astype(int) - rgb).mean() > 2
    assert overlap(edges(rgb), edges(out)) > 0.8
    assert overlap(edges(rgb), edges(np.roll(out, 5, axis=1))) < 0.5


def test_brightness_multiplies_and_one_is_nothing() -> None:
    rgb = scene()
    assert np.array_equal(colour.brightness(rgb, 1), rgb)
    assert colour.brightness(rgb, 1.2).mean() == pytest.approx(1.2 * rgb.mean(), rel=0.01)
    assert colour.brightness(rgb, 9).max() == 255
    assert not colour.brightness(rgb, 0).any()


def test_contrast_scales_the_spread_and_keeps_the_mean() -> None:
    rgb = scene()
    out = colour.contrast(rgb, 0.5)
    assert grey(out).std() == pytest.approx(0.5 * grey(rgb).std(), rel=0.02)
    assert grey(out).mean() == pytest.approx(grey(rgb).mean(), abs=0.6)
    assert np.ptp(colour.contrast(rgb, 0)) == 0


def test_saturation_scales_colourfulness_and_keeps_luma() -> None:
    rgb = scene()
    out = colour.saturation(rgb, 0.4)
    assert np.abs(grey(out) - grey(rgb)).max() <= 0.6
    spread = [np.ptp(picture.astype(int), axis=2).mean() for picture in (rgb, out)]
    assert spread[1] == pytest.approx(0.4 * spread[0], rel=0.03)
    assert np.ptp(colour.saturation(rgb, 0).astype(int), axis=2).max() == 0


def test_hue_turns_colours_and_keeps_luma_and_a_full_turn_is_nothing() -> None:
    rgb = colour.saturation(scene(), 0.6)
    for degrees in (30, 90, 180):
        out = colour.hue(rgb, degrees)
        assert np.abs(grey(out) - grey(rgb)).max() <= 0.6
        assert np.abs(out.astype(int) - rgb).mean() > 3
    assert np.abs(colour.hue(rgb, 360).astype(int) - rgb).max() <= 1
    there_and_back = colour.hue(colour.hue(rgb, 40), -40)
    assert np.abs(there_and_back.astype(int) - rgb).max() <= 2
    flat = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.abs(colour.hue(flat, 77).astype(int) - flat).max() <= 1


def test_gamma_bends_the_middle_and_keeps_black_and_white() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    darker, lighter = colour.gamma(ramp, 2), colour.gamma(ramp, 0.5)
    assert darker[0, 0, 0] == 0 and darker[0, 255, 0] == 255
    assert darker[0, 128, 0] == round(255 * (128 / 255) ** 2)
    assert lighter[0, 128, 0] > 128 > darker[0, 128, 0]
    assert np.abs(colour.gamma(colour.gamma(ramp, 0.8), 1 / 0.8).astype(int) - ramp).max() <= 2
    with pytest.raises(ValueError, match="positive"):
        colour.gamma(ramp, 0)


@given(axis=st.sampled_from(["horizontal", "vertical"]), height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_a_flip_of_a_flip_is_the_picture(axis: str, height: int, width: int) -> None:
    rgb = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    once = geometry.flip(rgb, axis)  # type: ignore[arg-type]
    assert np.array_equal(geometry.flip(once, axis), rgb)  # type: ignore[arg-type]
    assert np.array_equal(once[0, 0], rgb[0, -1] if axis == "horizontal" else rgb[-1, 0])


@given(turns=st.integers(-5, 9))
@settings(max_examples=15, deadline=None)
def test_quarter_turns_lose_nothing(turns: int) -> None:
    rgb = scene(20, 30)
    out = geometry.quarter_turn(rgb, turns)
    assert out.shape[:2] == ((20, 30) if turns % 2 == 0 else (30, 20))
    assert np.array_equal(geometry.quarter_turn(out, -turns), rgb)


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    top=st.floats(0, 0.9),
    left=st.floats(0, 0.9),
    part=st.floats(0.01, 1),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_is_a_part_of_the_picture(height: int, width: int, top: float, left: float, part: float) -> None:
    rgb = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = geometry.crop(rgb, top, left, part * (1 - top), part * (1 - left))
    y, x = geometry.crop_window(rgb.shape, top, left, part * (1 - top), part * (1 - left))
    assert out.shape[0] >= 1 and out.shape[1] >= 1
    assert 0 <= y.start < y.stop <= height and 0 <= x.start < x.stop <= width
    assert np.array_equal(out, rgb[y, x])


def test_a_crop_outside_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="inside"):
        geometry.crop(scene(), 0.5, 0.0, 0.6, 1.0)


def test_a_resized_crop_enlarges_the_crop_to_the_old_size() -> None:
    rgb = cv2.GaussianBlur(scene(240, 320), (0, 0), 2)
    out = geometry.resized_crop(rgb, 0.25, 0.25, 0.5, 0.5)
    assert out.shape == rgb.shape
    again = cv2.resize(out, (160, 120), interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - rgb[60:180, 80:240]).mean() < 2


def test_a_rotation_turns_about_the_centre_by_its_angle_anticlockwise() -> None:
    rgb = np.zeros((201, 201, 3), np.uint8)
    cv2.line(rgb, (60, 100), (140, 100), (255, 255, 255), 3)
    lit = np.argwhere(geometry.rotate(rgb, 20)[..., 0] > 128)
    slope = np.polyfit(lit[:, 1], lit[:, 0], 1)[0]
    assert np.degrees(np.arctan(-slope)) == pytest.approx(20, abs=0.7)
    assert lit.mean(axis=0) == pytest.approx([100, 100], abs=0.7)


@given(degrees=st.floats(-45, 45), height=st.integers(8, 90), width=st.integers(8, 90))
@settings(max_examples=40, deadline=None)
def test_no_corner_is_empty_after_a_rotation(degrees: float, height: int, width: int) -> None:
    zoom = geometry.cover_zoom(height, width, degrees)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, zoom)
    back = cv2.invertAffineTransform(turn)
    for x in (0, width - 1):
        for y in (0, height - 1):
            at_x, at_y = back @ [x, y, 1]
            # Inside the picture's own pixels, whose centres are the whole numbers.
            assert -0.5 <= at_x <= width - 0.5 and -0.5 <= at_y <= height - 0.5


def test_a_picture_of_one_pixel_survives_everything() -> None:
    dot = np.full((1, 1, 3), 77, np.uint8)
    for out in (
        geometry.crop(dot, 0, 0, 0.5, 0.5),
        geometry.rotate(dot, 10),
        geometry.rescale(dot, 0.1),
        damage.gaussian_blur(dot, 2),
        damage.motion_blur(dot, 5, 30),
        damage.jpeg(dot, 50),
        damage.webp(dot, 50),
        damage.block_mean(dot, 8, 0.5, RNG),
        colour.contrast(dot, 0.5),
        colour.hue(dot, 50),
    ):
        assert out.shape == (1, 1, 3)
        assert out.dtype == np.uint8
