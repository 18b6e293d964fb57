"""Content credentials and measures come from a child process, whatever is thrown at it."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest

from gas.clock import SystemClock
from gas.errors import MediaRejected
from gas.media import guard as guard_module
from gas.media.image import decode_image, encode_jpeg
from gas.media.jpeg import Scratch
from gas.media.limits import MediaLimits
from gas.types import Modality
from gas.verification.base import Asked
from gas.verification.decoding import MediumDecoder
from gas.verification.duplicates import MediaIndex
from gas.verification.examiner import Examiner
from gas.verification.pipeline import Verifier
from gas.verification.provenance import TrustList

LIMITS = MediaLimits(max_decode_seconds=10.0)


@cache
def now() -> float:
    """When these tests began; not when they were collected, which may be half an hour before."""
    return SystemClock().time()


SERVE_WITH = (
    "import os, time\nfrom gas.media import guard_child\nfrom gas.verification import examiner_child, provenance\n"
    "provenance.TrustList.check = lambda *_: {}\nguard_child.serve(examiner_child.answers)"
)


@pytest.fixture(scope="module")
def examiner(authority):
    with Examiner(authority.anchors_pem, LIMITS) as one:
        yield one


def code_of(examiner, data, mime="image/png"):
    with pytest.raises(MediaRejected) as refused:
        examiner.check(data, mime)
    return refused.value.error_code


def test_the_child_says_what_this_process_would_say(examiner, authority, sign, make):
    data = sign(make())
    assert examiner.check(data, "image/png") == TrustList(authority.anchors_pem).check(data, "image/png")
    there, here = (one.decode(data, Modality.IMAGE, look=64, detail=True) for one in (examiner, MediumDecoder(LIMITS)))
    assert (there.size, there.pixels, there.detail) == (here.size, here.pixels, here.detail)
    assert np.array_equal(there.prints[0].hashes, here.prints[0].hashes)
    assert np.array_equal(there.prints[0].segments.hashes, here.prints[0].segments.hashes)
    assert np.array_equal(there.prints[0].segments.places, here.prints[0].segments.places)
    assert np.array_equal(there.pictures[0], here.pictures[0])


def test_pictures_that_share_the_room_for_their_pixels_are_measured_as_alone():
    rng = np.random.default_rng(5)
    sizes = ((160, 200), (96, 96), (300, 150), (160, 200))
    pictures = [encode_jpeg(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]
    sharing = MediumDecoder(LIMITS, Scratch())
    shown = sharing.decode(pictures[0], Modality.IMAGE, look=2**20).pictures[0]
    for data in pictures:
        there, alone = sharing.decode(data, Modality.IMAGE), MediumDecoder(LIMITS).decode(data, Modality.IMAGE)
        assert (there.size, there.pixels) == (alone.size, alone.pixels)
        assert np.array_equal(there.prints[0].hashes, alone.prints[0].hashes)
        assert np.array_equal(there.prints[0].segments.places, alone.prints[0].segments.places)
    # A picture that somebody will look at lies in none of the shared room.
    assert np.array_equal(shown, decode_image(pictures[0]))


def test_broken_boxes_of_credentials_are_refused_and_the_child_lives_on(examiner, sign, make):
    data = sign(make())
    at = data.index(b"caBX")
    length = int.from_bytes(data[at - 4 : at], "big")
    hostile = [data[: at + 4 + cut] for cut in (0, 4, 40, length // 2, length - 1)]
    for offset in (8, 12, 16, 24, 60, 200):
        for value in (b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"):
            hostile.append(data[: at + offset] + value + data[at + offset + 4 :])
    for damaged in hostile:
        try:
            examiner.check(damaged, "image/png")
        except MediaRejected as refused:
            assert refused.error_code in ("no_provenance", "untrusted_provenance", "unreadable_provenance")
    assert examiner.check(data, "image/png").issuer == "Operator One"


@pytest.mark.parametrize("deed", ["os.abort()", "time.sleep(600)"])
def test_a_parser_that_crashes_or_hangs_costs_the_medium_not_the_verifier(monkeypatch, authority, sign, make, deed):
    code = SERVE_WITH.format(deed)
    monkeypatch.setattr(guard_module, "_command", lambda _: [sys.executable, "-P", "-c", code])
    limits = MediaLimits(max_decode_seconds=1.0)
    data = sign(make())
    asked = Asked(Modality.IMAGE, now(), now() + 100, now() + 30)
    with Verifier(MediaIndex(), authority.anchors_pem, limits=limits) as verifier:
        refused = verifier.judge(data, asked)
        assert [reason.code for reason in refused.reasons] == ["unreadable_provenance"]
        assert refused.width == 128
        monkeypatch.undo()
        assert verifier.judge(data, asked).verified
