from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")
pytest.importorskip("soundfile")

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))
from hostile_media import DECODES, HOSTILE, picture, tone

from gas.errors import InfrastructureError, MediaRejected
from gas.media import guard as guard_module
from gas.media.audio import decode_audio, load_audio
from gas.media.encode import encode_mp4, encode_wav
from gas.media.guard import GuardedDecoder
from gas.media.image import decode_image, encode_jpeg, load_image
from gas.media.limits import MediaLimits
from gas.media.probe import probe_medium
from gas.media.video import decode_video, load_video

IMAGE = encode_jpeg(picture(101, 77))
VIDEO = encode_mp4([picture(48, 64, i) for i in range(20)])
SOUND = encode_wav(tone(2.0), 16_000)

SERVE_WITH = "import os, time; from gas.media import guard_child, image\n{}\nguard_child.serve()"


@pytest.fixture(scope="module")
def guard() -> Iterator[GuardedDecoder]:
    with GuardedDecoder(MediaLimits(max_memory=400_000_000)) as decoder:
        yield decoder


def code_of(decoder: GuardedDecoder, data: bytes) -> str:
    with pytest.raises(MediaRejected) as caught:
        decoder.decode_image(data)
    return caught.value.error_code


def child_with(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """From now on a child runs ``code`` before it serves."""
    monkeypatch.setattr(guard_module, "_command", lambda _: [sys.executable, "-P", "-c", SERVE_WITH.format(code)])


def test_a_guarded_decoder_gives_the_same_as_the_decoders_themselves(guard: GuardedDecoder) -> None:
    assert np.array_equal(guard.decode_image(IMAGE), decode_image(IMAGE))
    assert np.array_equal(guard.load_image(IMAGE, (32, 24)), load_image(IMAGE, (32, 24)))
    ours, theirs = guard.decode_video(VIDEO, 5, 10.0), decode_video(VIDEO, 5, 10.0)
    assert len(ours) == len(theirs) == 5
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert np.array_equal(guard.load_video(VIDEO, (32, 32), 4), load_video(VIDEO, (32, 32), 4))
    samples, rate = guard.decode_audio(SOUND)
    assert rate == 16_000
    assert np.array_equal(samples, decode_audio(SOUND)[0])
    assert np.array_equal(guard.load_audio(SOUND, 8000, 0.5), load_audio(SOUND, 8000, 0.5))
    for data, modality in ((IMAGE, "image"), (VIDEO, "video"), (SOUND, "audio")):
        assert guard.probe_medium(data, modality) == probe_medium(data, modality)


def test_hostile_media_get_their_answers_and_the_decoder_lives_on(guard: GuardedDecoder) -> None:
    for case in HOSTILE.values():
        ask = {"image": guard.decode_image, "video": guard.decode_video, "audio": guard.decode_audio}[case.modality]
        try:
            ask(case.make())
            answer = DECODES
        except MediaRejected as refusal:
            answer = refusal.error_code
        assert answer in case.answers, case.name
    assert np.array_equal(guard.decode_image(IMAGE), decode_image(IMAGE))


def test_too_much_memory_is_refused_and_the_next_medium_is_decoded() -> None:
    out = io.BytesIO()
    Image.new("L", (7000, 7000)).save(out, format="PNG")
    jpeg = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(jpeg, format="JPEG")
    with GuardedDecoder(MediaLimits(max_memory=40_000_000)) as small:
        assert code_of(small, out.getvalue()) == "too_much_memory"
        assert code_of(small, jpeg.getvalue()) == "too_much_memory"
        assert np.array_equal(small.decode_image(IMAGE), decode_image(IMAGE))


def test_a_decoder_that_hangs_is_killed_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    child_with(monkeypatch, "image.decode_image = lambda *_: time.sleep(600)")
    with GuardedDecoder(MediaLimits(max_decode_seconds=0.2)) as impatient:
        assert code_of(impatient, IMAGE) == "too_slow"


def test_a_decoder_that_spins_is_killed_by_the_kernel_when_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spin = "def spin(*_):\n    os.kill(os.getpid(), 24)\n    time.sleep(600)\nimage.decode_image = spin"
    child_with(monkeypatch, spin)
    with GuardedDecoder() as patient:
        assert code_of(patient, IMAGE) == "too_slow"


def test_a_crash_is_the_mediums_fault_and_is_tried_on_a_fresh_child(monkeypatch: pytest.MonkeyPatch) -> None:
    child_with(monkeypatch, "image.decode_image = lambda *_: os.abort()")
    with GuardedDecoder() as decoder:
        assert np.array_equal(decoder.load_image(IMAGE, (8, 8)), load_image(IMAGE, (8, 8)))
        assert code_of(decoder, IMAGE) == "decoder_crashed"
        assert np.array_equal(decoder.load_image(IMAGE, (8, 8)), load_image(IMAGE, (8, 8)))


def test_a_child_that_died_while_it_was_idle_is_not_the_next_mediums_fault() -> None:
    with GuardedDecoder() as decoder:
        assert decoder.load_image(IMAGE, (8, 8)).shape == (3, 8, 8)
        worker = decoder._slots.queue[-1]
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert np.array_equal(decoder.decode_image(IMAGE), decode_image(IMAGE))


@pytest.mark.parametrize(
    "answer",
    [
        "{'arrays': [{'dtype': 'uint8', 'shape': [9, 9]}], 'value': {}}",
        "{'arrays': [{'dtype': 'uint8', 'shape': [100000, 100000, 3]}], 'value': {}}",
        "{'code': 'you_owe_me_money'}",
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    lie = (
        "write = guard_child._write\n"
        f"guard_child._write = lambda to, header, _: write(to, header if 'ready' in header else {answer}, "
        "[image.np.zeros((9, 9), image.np.uint8)])"
    )
    child_with(monkeypatch, lie.replace("image.np.zeros", "guard_child.np.zeros").replace("image.np", "guard_child.np"))
    monkeypatch.setattr(guard_module, "_START_SECONDS", 30.0)
    with GuardedDecoder(MediaLimits(max_decode_seconds=10)) as decoder:
        with pytest.raises((MediaRejected, InfrastructureError)) as caught:
            decoder.decode_image(IMAGE)
        assert caught.value.error_code == "decoder_crashed"


def test_children_are_replaced_after_their_share_and_closed_decoders_say_so() -> None:
    decoder = GuardedDecoder(media_per_worker=1)
    pids = set()
    for _ in range(2):
        assert decoder.load_image(IMAGE, (8, 8)).shape == (3, 8, 8)
        pids.add(decoder._slots.queue[-1])
    assert pids == {None}
    decoder.close()
    with pytest.raises(InfrastructureError):
        decoder.decode_image(IMAGE)


def test_threads_share_the_children() -> None:
    expected = load_image(IMAGE, (16, 16))
    right: list[bool] = []
    with GuardedDecoder(workers=2) as decoder:

        def work() -> None:
            for _ in range(10):
                right.append(np.array_equal(decoder.load_image(IMAGE, (16, 16)), expected))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert right == [True] * 40


def test_a_child_that_cannot_start_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "_command", lambda _: [sys.executable, "-c", "pass"])
    with GuardedDecoder() as decoder, pytest.raises(InfrastructureError):
        decoder.decode_image(IMAGE)
    monkeypatch.setattr(guard_module, "_command", lambda _: ["/nonexistent/python"])
    with GuardedDecoder() as decoder, pytest.raises(InfrastructureError):
        decoder.decode_image(IMAGE)
