"""Every decoder against the library that it is built on, on random media."""

from __future__ import annotations

import io
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")

from gas.media.audio import decode_audio, load_audio, preprocess_audio  # noqa: E402
from gas.media.encode import encode_audio, encode_mp4, encode_wav  # noqa: E402
from gas.media.image import crop_box, decode_image, load_image, preprocess_image  # noqa: E402
from gas.media.probe import probe_medium  # noqa: E402
from gas.media.video import decode_video, frame_indices, load_video, preprocess_video, video_reader  # noqa: E402

SIDES = st.integers(1, 80)
TARGETS = st.tuples(st.integers(1, 64), st.integers(1, 64))


def picture(height: int, width: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
    return np.clip(smooth + rng.integers(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return out.getvalue()


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["JPEG", "JPEG", "PNG", "WEBP", "GIF", "BMP"]))
    modes = {
        "JPEG": ["RGB", "L", "CMYK"],
        "PNG": ["RGB", "L", "RGBA", "LA", "P", "1"],
        "WEBP": ["RGB", "RGBA"],
        "GIF": ["RGB", "L", "P"],
        "BMP": ["RGB", "L", "P", "1"],
    }
    image = Image.fromarray(picture(draw(SIDES), draw(SIDES), draw(st.integers(0, 99))))
    image = image.convert(draw(st.sampled_from(modes[kind])))
    options: dict[str, object] = {}
    if kind == "JPEG":
        options |= {"quality": draw(st.integers(1, 100)), "progressive": draw(st.booleans())}
        options |= {"subsampling": draw(st.sampled_from([0, 1, 2])), "optimize": draw(st.booleans())}
        options |= {"restart_marker_rows": draw(st.sampled_from([0, 1]))}
    if kind == "WEBP":
        options |= {"quality": draw(st.integers(0, 100)), "lossless": draw(st.booleans()), "method": 0}
    if kind in ("JPEG", "PNG", "WEBP") and draw(st.booleans()):
        exif = Image.Exif()
        exif[0x0112] = draw(st.integers(1, 8))
        options["exif"] = exif
    if kind in ("JPEG", "PNG") and draw(st.booleans()):
        options["icc_profile"] = b"x" * draw(st.integers(1, 200))
    return saved(image, kind, **options)


@settings(max_examples=250)
@given(pictures(), TARGETS)
def test_pictures_are_those_of_pillow(data: bytes, target: tuple[int, int]) -> None:
    with Image.open(io.BytesIO(data)) as opened:
        reference = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    ours = decode_image(data)
    assert np.array_equal(ours, reference)
    assert ours.flags.writeable
    assert ours.flags.c_contiguous
    top, left, height, width = crop_box(*reference.shape[:2], target)
    crop = np.ascontiguousarray(reference[top : top + height, left : left + width])
    resized = cv2.resize(crop, (target[1], target[0]), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(load_image(data, target), resized.transpose(2, 0, 1))
    assert np.array_equal(preprocess_image(ours, target), resized.transpose(2, 0, 1))
    info = probe_medium(data, "image")
    assert (info.height, info.width) == reference.shape[:2]


def clip(codec: str, container: str, count: int, size: tuple[int, int], rate: Fraction, seed: int, gop: int) -> bytes:
    extra = {
        "libx264": {"preset": "veryfast", "bf": str(seed % 4), "x264-params": f"open-gop={seed % 2}"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    }.get(codec, {})
    out = io.BytesIO()
    with av.open(out, mode="w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, options={"g": str(gop), "threads": "1", **extra})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        background = picture(size[1], size[0] + 3 * count, seed)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(background[:, 3 * index : 3 * index + size[0]].copy(), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def plain_frames(data: bytes) -> tuple[list[np.ndarray], float]:
    with av.open(io.BytesIO(data)) as file:
        rate = float(file.streams.video[0].average_rate)
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)], rate


FORMATS = [
    ("libx264", "mp4"),
    ("libx264", "matroska"),
    ("libx264", "avi"),
    ("mpeg4", "mp4"),
    ("mpeg4", "avi"),
    ("libvpx-vp9", "webm"),
]


@settings(max_examples=60)
@given(
    st.sampled_from(FORMATS),
    st.integers(1, 40),
    st.tuples(st.integers(8, 90), st.integers(8, 60)).map(lambda size: (2 * size[0], 2 * size[1])),
    st.sampled_from([Fraction(10), Fraction(24), Fraction(30), Fraction(30000, 1001)]),
    st.integers(0, 9),
    st.sampled_from([1, 4, 12, 250]),
    st.integers(1, 10),
    st.sampled_from([None, 1.0, 2.5, 7.0, 29.0, 60.0]),
    TARGETS,
)
@example(("libx264", "mp4"), 40, (64, 48), Fraction(30), 3, 4, 8, 7.0, (24, 40))
@example(("libx264", "avi"), 20, (160, 34), Fraction(30), 2, 250, 8, 7.0, (32, 32))
def test_frames_are_those_of_a_plain_decode_from_the_start(
    form: tuple[str, str],
    count: int,
    size: tuple[int, int],
    rate: Fraction,
    seed: int,
    gop: int,
    wanted: int,
    frame_rate: float | None,
    target: tuple[int, int],
) -> None:
    data = clip(*form, count, size, rate, seed, gop)
    reference, source_rate = plain_frames(data)
    expected = [reference[i] for i in frame_indices(wanted, frame_rate, source_rate) if i < len(reference)]
    frames = decode_video(data, wanted, frame_rate)
    assert len(frames) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(frames, expected, strict=True))
    model_input = load_video(data, target, wanted, frame_rate)
    assert np.array_equal(model_input, preprocess_video(expected, target, wanted))
    with video_reader(data) as reader:
        assert reader.rate == pytest.approx(source_rate)
        everything = list(reader)
    assert len(everything) == len(reference)
    assert all(np.array_equal(a, b) for a, b in zip(everything, reference, strict=True))


def test_a_telephones_rotation_is_applied() -> None:
    data = encode_mp4([picture(48, 64, seed) for seed in range(6)])
    reference, _ = plain_frames(data)
    plain = struct_matrix(1, 0, 0, 1)
    assert data.count(plain) == 2
    for matrix, quarters in (((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)):
        at = data.rindex(plain)
        turned = data[:at] + struct_matrix(*matrix) + data[at + 36 :]
        for got, frame in zip(decode_video(turned, 3), reference, strict=False):
            assert np.array_equal(got, np.rot90(frame, quarters))
        expected = preprocess_video([np.rot90(frame, quarters) for frame in reference], (32, 24), 2)
        assert np.array_equal(load_video(turned, (32, 24), 2), expected)


def struct_matrix(a: int, b: int, c: int, d: int) -> bytes:
    """A display matrix of an MP4: 16.16 fixed point, the last column 2.30."""
    rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    return b"".join(value.to_bytes(4, "big", signed=True) for value in rows)


SUBTYPES = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]


@settings(max_examples=120)
@given(
    st.sampled_from(SUBTYPES),
    st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    st.integers(1, 2),
    st.integers(1, 60_000),
    st.integers(0, 99),
    st.sampled_from([8000, 16_000, 22_050, 44_100]),
    st.sampled_from([0.05, 0.3, 1.0]),
)
@example(("WAV", "PCM_16"), 44_100, 2, 60_000, 0, 16_000, 0.3)
@example(("FLAC", "PCM_16"), 48_000, 1, 59_999, 1, 16_000, 0.3)
@example(("WAV", "FLOAT"), 8000, 2, 50_000, 2, 44_100, 1.0)
def test_samples_are_those_of_soundfile_and_the_centre_is_that_of_the_whole(
    form: tuple[str, str], rate: int, channels: int, count: int, seed: int, target_rate: int, seconds: float
) -> None:
    sound = np.random.default_rng(seed).uniform(-0.9, 0.9, (count, channels)).astype(np.float32)
    out = io.BytesIO()
    soundfile.write(out, sound, rate, format=form[0], subtype=form[1])
    data = out.getvalue()
    reference, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    samples, got_rate = decode_audio(data)
    assert got_rate == rate
    assert samples.shape == (len(reference),)
    assert np.abs(samples - reference.mean(axis=1)).max() < 1e-6
    whole = preprocess_audio(samples, rate, target_rate=target_rate, seconds=seconds)
    assert np.abs(load_audio(data, target_rate, seconds) - whole).max() < 1e-4
    length = round(target_rate * seconds)
    if rate != target_rate and len(reference) > 2 * seconds * rate:
        resampled = soxr.resample(reference.mean(axis=1), rate, target_rate, quality="HQ")
        start = (len(resampled) - length) // 2
        assert np.abs(whole - resampled[start : start + length].clip(-1, 1)).max() < 1e-5


@pytest.mark.parametrize("codec", ["mp3", "opus", "aac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_sound_keeps_its_tone_and_is_the_same_each_time(codec: str, channels: int) -> None:
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 24_000)).astype(np.float32)
    sound = np.repeat(tone[:, None], channels, axis=1) if channels == 2 else tone
    data = encode_audio(sound, 24_000, codec)
    assert data == encode_audio(sound, 24_000, codec)
    samples, rate = decode_audio(data)
    spectrum = np.abs(np.fft.rfft(samples[rate // 4 : rate // 4 + rate]))
    assert int(np.argmax(spectrum)) == 440
    assert 1.9 < len(samples) / rate < 2.2
    info = probe_medium(data, "audio")
    assert info.channels == channels
    assert info.rate == rate


def test_encoded_video_has_the_same_bytes_each_time_and_even_sides() -> None:
    frames = [picture(33, 47, seed) for seed in range(5)]
    for codec in ("h264", "mpeg4"):
        data = encode_mp4(frames, 25, crf=4, codec=codec)
        assert data == encode_mp4(frames, 25, crf=4, codec=codec)
        info = probe_medium(data, "video")
        assert (info.width, info.height, info.frames, info.rate, info.codec) == (48, 34, 5, 25.0, codec)
        assert info.seconds == pytest.approx(0.2)
        back = decode_video(data, 5)
        assert len(back) == 5
        error = np.mean([np.abs(a[:33, :47].astype(int) - b).mean() for a, b in zip(back, frames, strict=True)])
        assert error < 12
    with pytest.raises(ValueError, match="one size"):
        encode_mp4([frames[0], frames[1][:10]])
    with pytest.raises(ValueError, match="at least one"):
        encode_mp4([])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW"])
def test_wav_comes_back_as_good_as_its_bits(subtype: str) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)
    data = encode_wav(sound, 8000, subtype)
    assert data == encode_wav(sound, 8000, subtype)
    back, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert rate == 8000
    worst = {"PCM_16": 1e-4, "PCM_24": 1e-6, "FLOAT": 0, "ULAW": 0.04, "ALAW": 0.04}[subtype]
    assert np.abs(back - sound).max() <= worst
    assert probe_medium(data, "audio").frames == 500
