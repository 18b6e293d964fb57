from __future__ import annotations

import io
import warnings
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.datasets.audit import FEATURES_OF, audit_features, modality_of, side_features
from gas.datasets.audit_classifier import cross_validate
from gas.datasets.audit_video import name_code
from gas.errors import ConfigurationError, MediaRejected
from gas.media.image import encode_jpeg, encode_png, encode_webp
from gas.types import Modality


def picture(side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (side, side))


def clip(container: str, codec: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as out:
        stream = out.add_stream(codec, rate=10, options={"threads": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(np.roll(picture(), index, axis=0), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return sink.getvalue()


def sound(kind: str) -> bytes:
    sink = io.BytesIO()
    soundfile.write(sink, np.random.default_rng(0).normal(0, 0.1, 4000), 8000, format=kind)
    return sink.getvalue()


MEDIA = {
    Modality.IMAGE: [encode_jpeg(picture()), encode_png(picture()), encode_webp(picture())],
    Modality.VIDEO: [clip("mp4", "libx264"), clip("webm", "libvpx"), clip("avi", "mpeg4")],
    Modality.AUDIO: [sound("WAV"), sound("FLAC"), sound("OGG"), sound("MP3")],
}
WHOLE = [(modality, data) for modality, media in MEDIA.items() for data in media]


@settings(max_examples=150)
@given(
    st.sampled_from(WHOLE),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    st.integers(1, 8000),
)
def test_a_tampered_medium_gives_numbers_or_a_refusal_and_nothing_else(
    medium: tuple[Modality, bytes], changes: list[tuple[int, int]], length: int
) -> None:
    modality, whole = medium
    data = bytearray(whole[:length])
    for place, value in changes:
        data[place % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = side_features(bytes(data), modality)
        except MediaRejected:
            return
    assert found.shape == (len(FEATURES_OF[modality]),)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("modality", "data"), WHOLE)
def test_whole_media_are_recognised_and_read_the_same_twice(modality: Modality, data: bytes) -> None:
    assert modality_of(data) is modality
    assert (side_features(data) == side_features(data, modality)).all()


@pytest.mark.parametrize("modality", list(Modality))
def test_a_medium_of_another_modality_is_refused(modality: Modality) -> None:
    for other, media in MEDIA.items():
        if other is not modality:
            with pytest.raises(MediaRejected):
                side_features(media[0], modality)
    with pytest.raises(MediaRejected):
        modality_of(b"nothing that anybody knows")


def test_names_become_stable_numbers_and_none_becomes_zero() -> None:
    assert name_code(None) == name_code("") == 0
    assert name_code("h264") == name_code("h264") != name_code("hevc")
    assert 1 <= name_code("\ud800 lone half") <= 4096


def test_the_classifier_finds_one_telling_column_among_noise_and_nothing_in_noise_alone() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(400, 5)), np.repeat([0.0, 1.0], 200)
    groups = [str(i) for i in range(400)]
    assert abs(cross_validate(x, y, groups, 0, 4) - 0.5) < 0.06
    x[y == 1, 3] = rng.choice([-3.0, 3.0], 200)
    assert cross_validate(x, y, groups, 0, 4) > 0.8


def test_equal_features_are_exactly_a_coin_whatever_the_sizes() -> None:
    width = len(FEATURES_OF[Modality.AUDIO])
    for real, fake in ((10, 10), (60, 24), (11, 200)):
        result = audit_features(np.ones((real, width)), np.ones((fake, width)), Modality.AUDIO)
        assert result.balanced_accuracy == pytest.approx(0.5)
        assert result.passes
        assert result.telling == ()
    with pytest.raises(ConfigurationError) as caught:
        audit_features(np.ones((9, width)), np.ones((20, width)), Modality.AUDIO)
    assert caught.value.error_code == "too_few"
