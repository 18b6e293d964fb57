from __future__ import annotations

import cv2
import numpy as np
import pytest

from gas.datasets.audit import FEATURES, audit_pair, audit_round, side_features
from gas.datasets.normalise import normalise_image
from gas.errors import ConfigurationError, MediaRejected
from gas.media.image import decode_image, encode_jpeg, encode_png, encode_webp
from gas.types import MediaType, Modality, Provenance, Sample


def photo(seed: int, height: int = 300, width: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(base + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def high_frequencies(rgb: np.ndarray) -> float:
    """Share of the spectrum's energy above five eighths of the Nyquist frequency."""
    grey = rgb.astype(np.float64).mean(axis=2)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))) ** 2
    yy, xx = np.indices(spectrum.shape)
    centre = spectrum.shape[0] / 2
    far = np.maximum(abs(yy - centre), abs(xx - centre)) > 0.8 * centre
    return float(spectrum[far].sum() / spectrum.sum())


def test_the_result_is_a_plain_jpeg_of_the_size_asked_for() -> None:
    data = normalise_image(encode_png(photo(1)), seed=1, origin="a" * 64)
    assert data.startswith(b"\xff\xd8\xff")
    assert decode_image(data).shape == (256, 256, 3)
    assert b"Exif" not in data
    assert decode_image(normalise_image(photo(1), seed=1, origin="a", size=128)).shape == (128, 128, 3)


def test_bytes_and_pixels_of_one_picture_give_the_same_result_again_and_again() -> None:
    rgb = photo(2)
    first = normalise_image(rgb, seed=1, origin="x")
    assert first == normalise_image(encode_png(rgb), seed=1, origin="x")
    assert first != normalise_image(rgb, seed=2, origin="x")
    assert first != normalise_image(rgb, seed=1, origin="y")


def test_all_sizes_end_with_the_same_limit_on_detail() -> None:
    rng = np.random.default_rng(0)
    shares = [
        high_frequencies(
            decode_image(normalise_image(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), seed=1, origin="o"))
        )
        for side in (172, 256, 512, 1024)
    ]
    noise = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert max(shares) < 0.05 < 0.3 < high_frequencies(noise)


def test_the_picture_stays_the_picture() -> None:
    rgb = cv2.GaussianBlur(photo(3, 512, 512), (0, 0), 6)
    out = decode_image(normalise_image(rgb, seed=1, origin="o"))
    expected = cv2.resize(rgb, (256, 256), interpolation=cv2.INTER_AREA)
    assert np.abs(out.astype(int) - expected).mean() < 3


def test_tiny_and_broken_media_are_refused() -> None:
    with pytest.raises(MediaRejected) as caught:
        normalise_image(photo(1, 63, 100), seed=1, origin="o")
    assert caught.value.error_code == "too_small"
    with pytest.raises(MediaRejected):
        normalise_image(b"no picture", seed=1, origin="o")


def test_the_audit_sees_containers_sizes_and_tables_and_not_after_normalisation() -> None:
    real = [encode_jpeg(photo(i, 200 + i, 300), 70 + i % 20) for i in range(40)]
    fake = [encode_png(photo(100 + i, 256, 256)) for i in range(40)]
    raw = audit_pair(real, fake)
    assert raw.balanced_accuracy > 0.95
    assert not raw.passes
    assert "is_jpeg" in dict(raw.telling)
    clean = audit_pair(
        [normalise_image(data, seed=4, origin=f"r{i}", rank=i) for i, data in enumerate(real)],
        [normalise_image(data, seed=4, origin=f"f{i}", rank=i) for i, data in enumerate(fake)],
    )
    assert clean.passes
    assert clean.low < 0.5


def test_the_audit_sees_a_narrower_quality_and_one_hidden_comment() -> None:
    pictures = [photo(i, 96, 96) for i in range(80)]
    real = [encode_jpeg(rgb, 60 + i % 40) for i, rgb in enumerate(pictures)]
    fake = [encode_jpeg(rgb, 78 + i % 4) for i, rgb in enumerate(pictures)]
    assert audit_pair(real, fake).balanced_accuracy > 0.7
    comment = b"\xff\xfe\x00\x07made\0"
    marked = [data[:2] + comment + data[2:] for data in real]
    result = audit_pair(real, marked)
    assert result.telling[0][0] == "has_comment"


def test_the_same_distribution_on_both_sides_looks_like_a_coin() -> None:
    scores = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        media = [encode_jpeg(photo(0, 64, 64), int(rng.integers(60, 96))) for _ in range(200)]
        scores.append(audit_pair(media[:100], media[100:], seed=seed).balanced_accuracy)
    assert abs(np.mean(scores) - 0.5) < 0.06


def test_an_audit_of_too_few_media_is_refused() -> None:
    media = [encode_webp(photo(i, 64, 64)) for i in range(9)]
    with pytest.raises(ConfigurationError):
        audit_pair(media, media)


def test_side_features_have_their_names() -> None:
    named = dict(zip(FEATURES, side_features(encode_jpeg(photo(1, 64, 128), 80, "444")), strict=True))
    assert named["is_jpeg"] == 1
    assert named["width"] == 7
    assert named["height"] == 6
    assert named["subsampling_h"] == 1
    assert dict(zip(FEATURES, side_features(encode_png(photo(1, 64, 64))), strict=True))["is_png"] == 1


def test_a_round_is_audited_pair_by_pair() -> None:
    media: dict[str, bytes] = {}
    samples = []
    for i in range(45):
        kind = (MediaType.REAL, MediaType.SYNTHETIC, MediaType.SEMISYNTHETIC)[i % 3]
        name = f"{i:064x}"
        media[name] = (
            encode_jpeg(photo(i, 64, 64), 80) if kind is not MediaType.SEMISYNTHETIC else encode_png(photo(i, 64, 64))
        )
        samples.append(Sample(name, Modality.IMAGE, kind, Provenance.ARENA, f"set-{kind}", "s", name))
    media["f" * 64] = b"broken"
    samples.append(Sample("f" * 64, Modality.IMAGE, MediaType.REAL, Provenance.PUBLIC, "d", "s", "f" * 64))
    results = audit_round(samples, media.__getitem__)
    assert set(results) == {"set-synthetic", "set-semisynthetic"}
    assert results["set-semisynthetic"] is not None
    assert results["set-semisynthetic"].balanced_accuracy == 1
    assert results["set-synthetic"] is not None
    assert results["set-synthetic"].low < 0.5
    assert audit_round(samples[:12], media.__getitem__)["set-synthetic"] is None
