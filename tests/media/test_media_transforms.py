from __future__ import annotations

import cv2
import numpy as np

from gas.media.hashing import hamming, hamming_matrix, perceptual_hash, pixel_sha256
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.media.transforms import (
    SHARING_CHAIN,
    halve_and_restore,
    jpeg,
    sharing_chain,
    sharing_chain_audio,
    sharing_chain_video,
    webp,
)


def scene(side: int = 512, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 20, (side, side, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def detail(rgb: np.ndarray) -> float:
    return float(cv2.Laplacian(rgb.astype(np.float32).mean(axis=2), cv2.CV_32F).var())


def blockiness(rgb: np.ndarray) -> float:
    grey = rgb.astype(np.float32).mean(axis=2)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    edges = np.arange(len(steps)) % 8 == 7
    return float(steps[edges].mean() / steps[~edges].mean())


def test_halving_removes_what_half_the_size_cannot_hold() -> None:
    rgb = scene()
    out = halve_and_restore(rgb)
    assert out.shape == rgb.shape
    assert detail(out) < 0.05 * detail(rgb)


def test_halving_stops_at_256_pixels() -> None:
    small = scene(256)
    assert np.array_equal(halve_and_restore(small), small)
    middle = scene(300)
    assert detail(halve_and_restore(middle)) > detail(halve_and_restore(scene(600)))
    wide = halve_and_restore(scene(900)[:300])
    assert wide.shape == (300, 900, 3)


def test_jpeg_really_is_jpeg_and_lower_quality_blocks_more() -> None:
    rgb = cv2.GaussianBlur(scene(), (0, 0), 1.5)
    assert blockiness(jpeg(rgb, 10)) > blockiness(jpeg(rgb, 90)) > 0.9
    assert blockiness(jpeg(rgb, 10)) > 1.3 * blockiness(rgb)
    errors = [float(np.abs(jpeg(rgb, q).astype(int) - rgb).mean()) for q in (30, 60, 95)]
    assert errors == sorted(errors, reverse=True)


def test_webp_is_lossy_and_keeps_the_shape() -> None:
    rgb = scene(255)
    out = webp(rgb, 75)
    assert out.shape == rgb.shape
    assert 0 < np.abs(out.astype(int) - rgb).mean() < 30


def test_the_sharing_chain_is_repeatable_lossy_and_keeps_the_picture() -> None:
    rgb = scene()
    out = sharing_chain(rgb)
    assert out.shape == rgb.shape
    assert np.array_equal(out, sharing_chain(rgb))
    assert detail(out) < 0.1 * detail(rgb)
    assert hamming(perceptual_hash(out), perceptual_hash(rgb)) <= 6
    at_256 = scene(256)
    assert not np.array_equal(sharing_chain(at_256), at_256)


def test_the_exact_hash_sees_pixels_not_containers() -> None:
    rgb = scene(64)
    assert pixel_sha256(decode_image(encode_png(rgb))) == pixel_sha256(rgb)
    changed = rgb.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_sha256(changed) != pixel_sha256(rgb)
    assert pixel_sha256(np.zeros((4, 9, 3), np.uint8)) != pixel_sha256(np.zeros((9, 4, 3), np.uint8))


def test_the_perceptual_hash_survives_reencoding_and_scaling_only() -> None:
    one, other = scene(seed=1), scene(seed=2)
    copy = decode_image(encode_jpeg(cv2.resize(one, (200, 200), interpolation=cv2.INTER_AREA), 40))
    assert hamming(perceptual_hash(one), perceptual_hash(copy)) <= 6
    assert hamming(perceptual_hash(one), perceptual_hash(other)) > 16
    assert 0 <= perceptual_hash(one) < 2**64


def test_the_matrix_of_distances_agrees_with_the_single_ones() -> None:
    hashes = [0, 1, 2**64 - 1, 0xF0F0]
    matrix = hamming_matrix(np.array(hashes, np.uint64))
    assert [[hamming(a, b) for b in hashes] for a in hashes] == matrix.tolist()


def test_the_sharing_chain_is_halving_jpeg_webp_jpeg_and_nothing_else() -> None:
    rgb = scene(400)
    assert np.array_equal(sharing_chain(rgb), jpeg(webp(jpeg(halve_and_restore(rgb), 55), 75), 80))
    assert SHARING_CHAIN == "halve-restore(256) jpeg(55) webp(75) jpeg(80)"


def test_the_chain_of_clips_loses_detail_and_keeps_frames_apart() -> None:
    frames = [np.ascontiguousarray(scene(300)[:, shift : shift + 280]) for shift in (0, 6, 12)]
    out = sharing_chain_video(frames)
    assert [frame.shape for frame in out] == [frame.shape for frame in frames]
    assert all(np.array_equal(a, b) for a, b in zip(out, sharing_chain_video(frames), strict=True))
    for before, after in zip(frames, out, strict=True):
        assert detail(after) < 0.1 * detail(before)
        assert hamming(perceptual_hash(after), perceptual_hash(before)) <= 6


def test_the_chain_of_sounds_thins_them_out_above_8_khz() -> None:
    rate = 44_100
    sound = (0.1 * np.random.default_rng(0).standard_normal(2 * rate)).astype(np.float32)
    out = sharing_chain_audio(sound, rate)
    power = [np.abs(np.fft.rfft(samples)) ** 2 for samples in (sound, out)]
    frequencies = np.fft.rfftfreq(len(sound), 1 / rate)
    kept = [float(p[(frequencies > 12_000)].sum() / p.sum()) for p in power]
    assert kept[1] < 0.01 < kept[0]
    assert len(out) == len(sound)
