from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from gas.errors import MediaRejected  # noqa: E402
from gas.media.audio import decode_audio, load_audio, preprocess_audio  # noqa: E402
from gas.media.encode import encode_flac, encode_mp4  # noqa: E402
from gas.media.image import preprocess_image  # noqa: E402
from gas.media.limits import MediaLimits  # noqa: E402
from gas.media.probe import probe_medium  # noqa: E402
from gas.media.video import VideoReader, decode_video, frame_indices, load_video, preprocess_video  # noqa: E402
from gas.media.wav import plain_wav  # noqa: E402


def wav(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str = "PCM_16") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def tone(seconds: float, rate: int, hertz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def clip(
    frames: int, rate: int = 10, size: tuple[int, int] = (64, 48), container: str = "mp4", codec: str = "mpeg4"
) -> bytes:
    out = io.BytesIO()
    with av.open(out, mode="w", format=container) as file:
        stream = file.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        stream.bit_rate = 2_000_000
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), 10 * i % 250, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


def levels(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in frames]


def test_channels_are_averaged_and_lossless_sound_comes_back() -> None:
    left, right = tone(0.5, 16_000), tone(0.5, 16_000, 700)
    mono, rate = decode_audio(wav(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert rate == 16_000
    assert np.allclose(mono, (left + right) / 2, atol=1e-6)
    flac, _ = decode_audio(wav(left, kind="FLAC"))
    assert np.allclose(flac, left, atol=1e-4)


def test_resampling_keeps_the_tone_and_the_length_is_exact() -> None:
    out = preprocess_audio(tone(6.0, 44_100), 44_100)
    assert out.shape == (96_000,)
    assert out.dtype == np.float32
    assert int(np.argmax(np.abs(np.fft.rfft(out)))) == 440 * 6
    assert np.abs(out[1000:-1000] - tone(6.0, 16_000)[1000:-1000]).max() < 0.01


def test_long_sound_is_cut_in_the_centre_and_short_sound_ends_in_zeros() -> None:
    ramp = np.linspace(-1, 1, 160_000, dtype=np.float32)
    assert np.array_equal(preprocess_audio(ramp, 16_000), ramp[32_000:128_000])
    short = preprocess_audio(ramp[:1000], 16_000)
    assert np.array_equal(short[:1000], ramp[:1000])
    assert not short[1000:].any()


def test_sound_beyond_the_limits_or_broken_is_refused() -> None:
    good = wav(tone(2, 16_000))
    for data, limits, code in (
        (good, MediaLimits(max_seconds=1), "too_large"),
        (good, MediaLimits(max_bytes=100), "too_large"),
        (wav(np.zeros((100, 8))), MediaLimits(max_channels=2), "too_large"),
        (wav(np.zeros(0)), MediaLimits(), "undecodable"),
        (good[:30], MediaLimits(), "undecodable"),
        (wav(np.full(100, np.nan), subtype="FLOAT"), MediaLimits(), "undecodable"),
        (b"hello", MediaLimits(), "unsupported"),
        (b"#EXTM3U\n/etc/passwd\n", MediaLimits(), "unsupported"),
    ):
        with pytest.raises(MediaRejected) as caught:
            decode_audio(data, limits)
        assert caught.value.error_code == code


def test_the_first_frames_or_frames_at_a_rate_are_taken() -> None:
    data = clip(20, rate=10)
    assert levels(decode_video(data, 4)) == [0, 1, 2, 3]
    assert levels(decode_video(data, 4, frame_rate=2)) == [0, 5, 10, 15]
    assert levels(decode_video(data, 4, frame_rate=20)) == [0, 0, 1, 1]
    assert levels(decode_video(clip(5, container="avi"), 3)) == [0, 1, 2]


def test_a_short_video_repeats_its_last_frame() -> None:
    frames = decode_video(clip(3), 8)
    assert len(frames) == 3
    batch = preprocess_video(frames, (32, 32), 8)
    assert batch.shape == (8, 3, 32, 32)
    assert np.array_equal(batch[1], preprocess_image(frames[1], (32, 32)))
    assert all(np.array_equal(batch[i], batch[2]) for i in range(2, 8))


def test_video_beyond_the_limits_or_broken_is_refused() -> None:
    data = clip(5)
    for bad, limits, code in (
        (data, MediaLimits(max_pixels=1000), "too_large"),
        (data, MediaLimits(max_side=50), "too_large"),
        (data[:200], MediaLimits(), "undecodable"),
        (b"RIFF\0\0\0\0AVI " + b"\0" * 100, MediaLimits(), "undecodable"),
        (b"#EXTM3U\n", MediaLimits(), "unsupported"),
    ):
        with pytest.raises(MediaRejected) as caught:
            decode_video(bad, 4, limits=limits)
        assert caught.value.error_code == code
    assert len(decode_video(data, 16, limits=MediaLimits(max_frames=2))) == 2


@given(st.integers(1, 64), st.floats(0.1, 120), st.floats(1, 120))
def test_frame_indices_start_at_zero_and_never_fall(count: int, rate: float, source: float) -> None:
    indices = frame_indices(count, rate, source)
    assert len(indices) == count
    assert indices[0] == 0
    assert indices == sorted(indices)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=10))
def test_mutated_media_decode_or_are_refused(sound: bool, changes: list[tuple[float, int]]) -> None:
    data = bytearray(WAV if sound else CLIP)
    for where, value in changes:
        data[int(where * len(data))] = value
    try:
        decode_audio(bytes(data)) if sound else decode_video(bytes(data), 3)
    except MediaRejected as refusal:
        assert refusal.error_code in ("undecodable", "too_large", "unsupported")


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["mp4", "matroska", "flac", "wav"]),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0.3, 1),
)
def test_mutated_and_cut_media_get_the_same_answer_each_time(
    kind: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(MUTATED[kind])
    for where, value in changes:
        data[int(where * len(data))] = value
    cut = bytes(data[: int(kept * len(data)) + 1])
    limits = MediaLimits(max_pixels=1_000_000)

    def answer() -> object:
        try:
            if kind in ("mp4", "matroska"):
                return load_video(cut, (16, 16), 4, 5.0, limits).tobytes()
            return load_audio(cut, 8000, 0.1, limits).tobytes()
        except MediaRejected as refusal:
            return refusal.error_code

    first = answer()
    assert first == answer()
    assert isinstance(first, bytes) or first in ("undecodable", "too_large", "unsupported")
    try:
        probe_medium(cut, "video" if kind in ("mp4", "matroska") else "audio", limits)
    except MediaRejected as refusal:
        assert refusal.error_code in ("undecodable", "too_large", "unsupported")


def test_sampled_frames_are_found_without_decoding_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode_mp4([np.full((48, 64, 3), 5 * i, np.uint8) for i in range(40)], 30, keyframes=10)

    def refuse(*_: object) -> None:
        raise AssertionError("decodes from the start")

    expected = decode_video(data, 40)[::10]
    monkeypatch.setattr(VideoReader, "in_order", refuse)
    assert all(np.array_equal(a, b) for a, b in zip(decode_video(data, 4, 3.0), expected, strict=True))


def test_the_centre_of_a_long_sound_is_read_and_its_cut_off_end_is_noticed() -> None:
    ramp = np.linspace(-0.9, 0.9, 160_000, dtype=np.float32)
    for data in (wav(ramp, subtype="FLOAT"), encode_flac(ramp, 16_000)):
        assert np.abs(load_audio(data, 16_000, 2.0) - ramp[64_000:96_000]).max() < 1e-4
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 160_000).astype(np.float32)
    cut_off = encode_flac(noise, 16_000)[:-2000]
    for way in (decode_audio, load_audio):
        with pytest.raises(MediaRejected) as caught:
            way(cut_off)
        assert caught.value.error_code == "undecodable"


def test_many_channels_are_averaged_and_impossible_rates_are_refused() -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1000, 7)).astype(np.float32)
    assert np.allclose(decode_audio(wav(sound, subtype="FLOAT"))[0], sound.mean(axis=1), atol=1e-6)
    with pytest.raises(MediaRejected) as caught:
        load_audio(wav(tone(1, 500), 500))
    assert caught.value.error_code == "too_large"


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_a_plain_wav_gives_the_samples_that_libsndfile_gives(channels: int, seconds: float) -> None:
    noise = np.random.default_rng(channels).uniform(-1, 1, (round(seconds * 22_050), channels))
    plain = wav(noise, 22_050)
    assert plain_wav(plain) is not None
    odd = plain + b"note\x02\x00\x00\x00hi"
    odd = odd[:4] + (len(odd) - 8).to_bytes(4, "little") + odd[8:]
    assert plain_wav(odd) is None, "libsndfile decides where anything is unusual"
    for one, other in zip(decode_audio(plain), decode_audio(odd), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(load_audio(plain, 8000, 1.0), load_audio(odd, 8000, 1.0))


@pytest.mark.parametrize("cut", [10, 30, 43, 44, 45, 500])
def test_a_wav_that_is_cut_off_is_never_read_as_a_plain_one(cut: int) -> None:
    assert plain_wav(wav(tone(0.05, 8000), 8000)[:cut]) is None


WAV = wav(tone(0.05, 8000), 8000)
CLIP = clip(4, size=(32, 32))
FRAMES = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(10)]
MUTATED = {
    "mp4": encode_mp4(FRAMES, 30, keyframes=4),
    "matroska": clip(10, 30, (32, 32), "matroska", "libx264"),
    "flac": encode_flac(tone(0.3, 8000), 8000),
    "wav": wav(tone(0.3, 8000), 8000),
}
