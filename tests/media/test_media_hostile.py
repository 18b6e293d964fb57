from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("soundfile")

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))
from hostile_media import DECODES, HOSTILE, Hostile, video_of_a_hundred_frames_with_three_that_decode

from gas.clock import ManualClock
from gas.errors import MediaRejected
from gas.media.audio import decode_audio, load_audio
from gas.media.encode import encode_mp4
from gas.media.image import decode_image, load_image, probe_image
from gas.media.limits import Deadline, MediaLimits
from gas.media.probe import probe_medium
from gas.media.video import VideoReader, decode_video, load_video, preprocess_video, video_reader

ALL = list(HOSTILE.values())


def answer(action: Callable[[], object]) -> str:
    try:
        action()
    except MediaRejected as refusal:
        return refusal.error_code
    return DECODES


def read_all(data: bytes) -> None:
    with video_reader(data) as frames:
        for _ in frames:
            pass


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read", "ignore:Image appears to be")
def test_each_hostile_medium_gets_its_answer_from_every_decoder(case: Hostile) -> None:
    data = case.make()
    ways: dict[str, list[Callable[[], object]]] = {
        "image": [lambda: decode_image(data), lambda: load_image(data, (32, 32))],
        "video": [
            lambda: decode_video(data, 4),
            lambda: decode_video(data, 4, 2.0),
            lambda: load_video(data, (32, 32), 4, 1.0),
            lambda: read_all(data),
        ],
        "audio": [lambda: decode_audio(data), lambda: load_audio(data, 8000, 0.2)],
    }
    for way in ways[case.modality]:
        assert answer(way) in case.answers
    # A header can be good where the rest is not, and never worse than the rest.
    assert answer(lambda: probe_medium(data, case.modality)) in case.answers | {DECODES}
    if case.modality == "image":
        assert answer(lambda: probe_image(data)) in case.answers | {DECODES}


def test_hostile_media_do_not_cost_more_memory_than_their_limits_allow() -> None:
    # The largest hostile picture that may decode has 25 megapixels: 100 MB in Pillow and 75 as RGB.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in ALL:
        data = case.make()
        if case.modality == "image":
            answer(lambda data=data: decode_image(data))
        elif case.modality == "video":
            answer(lambda data=data: decode_video(data, 4))
        else:
            answer(lambda data=data: decode_audio(data))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000


def test_a_video_that_breaks_after_three_frames_repeats_the_third() -> None:
    frames = decode_video(video_of_a_hundred_frames_with_three_that_decode(), 16)
    assert [round(float(frame.mean()) / 10) for frame in frames] == [0, 1, 2]
    batch = preprocess_video(frames, (32, 32), 16)
    assert all(np.array_equal(batch[i], batch[2]) for i in range(3, 16))
    assert np.array_equal(load_video(video_of_a_hundred_frames_with_three_that_decode(), (32, 32)), batch)


def test_a_decode_that_takes_too_long_is_ended() -> None:
    never = MediaLimits(max_decode_seconds=0)
    video = video_of_a_hundred_frames_with_three_that_decode()
    sound = HOSTILE["wav_that_says_it_is_shorter"].make()
    assert answer(lambda: decode_video(video, 4, limits=never)) == "too_slow"
    assert answer(lambda: decode_audio(sound, never)) == "too_slow"
    assert answer(lambda: probe_medium(video, "video", never)) == "too_slow"


def test_the_deadline_is_that_of_the_clock_and_is_looked_at_while_reading() -> None:
    clock = ManualClock()
    deadline = Deadline(5, clock)
    deadline.check()
    with VideoReader(encode_mp4([np.full((32, 32, 3), i, np.uint8) for i in range(10)]), deadline=deadline) as frames:
        assert next(iter(frames)).shape == (32, 32, 3)
        clock.advance(5)
        assert deadline.left == 0
        assert answer(lambda: list(frames)) == "too_slow"
