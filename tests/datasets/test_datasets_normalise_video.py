from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from gas.datasets.audit import audit_pair, side_features
from gas.datasets.audit_video import VIDEO_FEATURES
from gas.datasets.normalise_video import frame_step, normalise_video, normalise_video_masks
from gas.errors import MediaRejected
from gas.media.masks import decode_masks, encode_mask, encode_masks
from gas.media.video import decode_video
from gas.types import Modality


def scene(seed: int, frames: int, height: int, width: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    size = (width + 2 * frames, height + 2 * frames)
    base = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(base[2 * i : 2 * i + height, 2 * i : 2 * i + width]) for i in range(frames)]


def film(
    pictures: list[np.ndarray],
    *,
    rate: int = 25,
    codec: str = "libx264",
    container: str = "mp4",
    options: dict[str, str] | None = None,
    note: str | None = None,
) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format=container) as out:
        if note:
            out.metadata["comment"] = note
        stream = out.add_stream(codec, rate=rate, options={"threads": "1", **(options or {})})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return sink.getvalue()


def named(data: bytes) -> dict[str, float]:
    return dict(zip(VIDEO_FEATURES, side_features(data, Modality.VIDEO).tolist(), strict=True))


def test_the_result_is_a_plain_mp4_of_fixed_size_length_and_rate_without_its_makers_name() -> None:
    data = normalise_video(film(scene(1, 30, 120, 160), rate=30, note="made by me"), seed=1, origin="a", size=64)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.frames) == ("h264", 25, 24)
        assert (stream.width, stream.height, len(container.streams)) == (64, 64, 1)
    for name in (b"x264", b"Lavf", b"Lavc", b"made by me"):
        assert name not in data


def test_the_same_arguments_give_the_same_bytes_and_other_draws_others() -> None:
    source = film(scene(1, 26, 96, 128))
    first = normalise_video(source, seed=1, origin="a", size=64)
    assert first == normalise_video(source, seed=1, origin="a", size=64)
    assert len({first, *(normalise_video(source, seed=s, origin=o, size=64) for s, o in ((2, "a"), (1, "b")))}) == 3
    dealt = {normalise_video(source, seed=1, origin="a", size=64, frames=2, rank=rank) for rank in range(22)}
    assert len(dealt) == 22, "every encoding is dealt once before one comes again"


def test_what_lies_in_memory_does_not_change_the_bytes() -> None:
    source, rng = film(scene(4, 26, 96, 96)), np.random.default_rng(0)
    made = set()
    for _ in range(12):
        # Fills what the allocator will hand to the encoder next with other values each time.
        junk = [rng.integers(0, 255, int(size), dtype=np.uint8) for size in rng.integers(1000, 400_000, 30)]
        del junk
        made.add(normalise_video(source, seed=1, origin="a", size=64, rank=0))
    assert len(made) == 1


def test_the_picture_stays_the_picture() -> None:
    pictures = scene(2, 24, 128, 128)
    out = decode_video(normalise_video(film(pictures, options={"crf": "10"}), seed=3, origin="o", size=128), 24)
    for before, after in zip(pictures, out, strict=True):
        assert np.abs(before.astype(int) - after).mean() < 8


def test_fast_sources_are_thinned_and_no_frame_is_shown_twice() -> None:
    assert [frame_step(rate) for rate in (5, 24, 25, 30, 37, 50, 60, 120)] == [1, 1, 1, 1, 1, 2, 2, 5]
    grey = [np.full((64, 64, 3), 4 * i, np.uint8) for i in range(60)]
    fast = film(grey, rate=60, options={"crf": "1"})
    levels = [frame.mean() for frame in decode_video(normalise_video(fast, seed=1, origin="o", size=64), 24)]
    assert np.allclose(np.diff(levels), 8, atol=3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (film(scene(1, 23, 64, 64)), "too_short"),
        (film(scene(1, 40, 64, 64), rate=50), "too_short"),
        (film(scene(1, 24, 62, 80)), "too_small"),
        (b"no video at all", "unsupported"),
        (b"", "undecodable"),
        (film(scene(1, 24, 64, 64))[:300], "undecodable"),
    ],
)
def test_what_would_tell_its_class_or_is_broken_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(MediaRejected) as caught:
        normalise_video(data, seed=1, origin="o", size=64)
    assert caught.value.error_code == code


def test_masks_move_with_their_frames() -> None:
    pictures, masks = [], []
    for i in range(48):
        picture, mask = np.zeros((96, 160, 3), np.uint8), np.zeros((96, 160), np.uint8)
        picture[30:60, 40 + i : 80 + i] = 255
        mask[30:60, 40 + i : 80 + i] = 1
        pictures.append(picture)
        masks.append(mask)
    source = film(pictures, rate=50, options={"crf": "5"})
    out = decode_video(normalise_video(source, seed=1, origin="o", size=128), 24)
    moved = decode_masks(normalise_video_masks(encode_masks(masks), source, size=128), 24)
    assert moved[0].shape == (128, 128)
    for frame, mask in zip(out, moved, strict=True):
        seen = frame.mean(axis=2) > 127
        assert (seen & (mask > 0)).sum() / (seen | (mask > 0)).sum() > 0.9
    one = normalise_video_masks(encode_mask(masks[0]), source, size=128)
    assert len({mask.tobytes() for mask in decode_masks(one, 24)}) == 1


def test_masks_of_another_size_or_number_are_refused() -> None:
    source = film(scene(1, 24, 64, 96))
    for count, shape in ((24, (64, 64)), (10, (64, 96))):
        with pytest.raises(MediaRejected) as caught:
            normalise_video_masks(encode_masks([np.ones(shape, np.uint8)] * count), source, size=64)
        assert caught.value.error_code == "mask_mismatch"


def test_the_audit_sees_containers_codecs_rates_and_lengths_and_not_after_normalisation() -> None:
    real = [film(scene(i, 24 + i % 5, 80, 96 + 2 * i), rate=30, note="holiday") for i in range(12)]
    fake = [
        film(scene(50 + i, 24, 64, 64), rate=25, codec="libvpx", container="webm", options={"deadline": "realtime"})
        for i in range(12)
    ]
    raw = audit_pair(real, fake)
    assert raw.balanced_accuracy == 1
    assert {"codec", "is_mp4"} & set(dict(raw.telling))
    clean = [
        [
            normalise_video(data, seed=2, origin=f"{side}{rank}", size=64, frames=16, rank=rank)
            for rank, data in enumerate(media)
        ]
        for side, media in (("r", real), ("f", fake))
    ]
    result = audit_pair(*clean)
    assert result.passes
    assert result.telling == ()


def test_side_features_say_what_the_header_says() -> None:
    found = named(film(scene(1, 30, 64, 128), rate=50, options={"g": "10", "sc_threshold": "0"}, note="x"))
    assert found["is_mp4"] == 1
    assert (found["width"], found["height"], found["aspect"]) == (7, 6, 1)
    assert found["key_spacing"] == 10
    assert found["key_share"] == pytest.approx(0.1)
    assert found["frame_rate"] == pytest.approx(np.log2(50))
    assert found["frames"] == pytest.approx(np.log2(31))
    assert found["encoder_note"] == 1
    plain = named(film(scene(1, 30, 64, 128), rate=50, options={"g": "10", "sc_threshold": "0"}))
    assert found["tags"] == plain["tags"] + 1
    assert named(film(scene(1, 5, 64, 64), codec="mpeg4", container="avi"))["is_avi"] == 1
    for broken in (b"", b"RIFF0000WAVEfmt ", film(scene(1, 5, 64, 64))[:200]):
        with pytest.raises(MediaRejected):
            named(broken)
