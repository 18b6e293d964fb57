import io
import json
import struct
import zlib
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gas.clock import SystemClock
from gas.media.limits import MediaLimits
from gas.types import Modality
from gas.verification.duplicates import DuplicateIndex, Seen
from gas.verification.pipeline import verify_medium

KNOWN_CODES = {
    "too_large",
    "undecodable",
    "wrong_modality",
    "stale",
    "no_provenance",
    "untrusted_provenance",
    "not_ai_declared",
    "duplicate",
    "near_duplicate",
    "signed_too_early",
    "signed_in_future",
}


@cache
def now() -> float:
    """When these tests began; not when they were collected, which may be half an hour before."""
    return SystemClock().time()


@pytest.fixture
def judge(authority):
    index = DuplicateIndex()

    def call(data, *, delivered_at=30.0, modality=Modality.IMAGE, limits=None, anchors=None):
        options = {"limits": limits} if limits else {}
        return verify_medium(
            data,
            modality=modality,
            created_at=now(),
            deadline=now() + 100,
            delivered_at=now() + delivered_at,
            index=index,
            anchors_pem=authority.anchors_pem if anchors is None else anchors,
            **options,
        )

    call.index = index
    return call


def codes(verdict):
    return [reason.code for reason in verdict.reasons]


def huge_png(width=20_000, height=20_000):
    """A valid PNG of a few kilobytes that would take over a gigabyte decoded."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(b"\0" * (3 * width + 1)) for _ in range(50)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_good_delivery_is_verified(judge, sign, make):
    verdict = judge(sign(make()))
    assert verdict.verified
    assert (verdict.width, verdict.height, verdict.issuer) == (128, 128, "Operator One")
    assert verdict.facts["model"] == "a model"
    assert verdict.facts["seconds"] == 30.0
    assert len(judge.index) == 1


def test_facts_are_enough_to_build_the_index_again(judge, sign, make, authority):
    signed = sign(make())
    first = judge(signed)
    seen = Seen.from_facts(first.sha256, json.loads(json.dumps(first.facts)))
    again = verify_medium(
        signed, modality=Modality.IMAGE, created_at=now(), deadline=now() + 9, delivered_at=now() + 1,
        index=DuplicateIndex([seen]), anchors_pem=authority.anchors_pem,
    )  # fmt: skip
    assert codes(again) == ["duplicate"]


def test_the_same_bytes_again_are_a_duplicate(judge, sign, make):
    signed = sign(make())
    assert judge(signed).verified
    verdict = judge(signed)
    assert codes(verdict) == ["duplicate"]
    assert verdict.facts["duplicate_of"] == verdict.sha256


def test_the_same_pixels_signed_anew_are_a_duplicate(judge, sign, make):
    first = judge(sign(make()))
    verdict = judge(sign(make()))
    assert codes(verdict) == ["duplicate"]
    assert verdict.facts["duplicate_of"] == first.sha256


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_a_copy_encoded_anew_is_a_near_duplicate(judge, sign, make, quality):
    assert judge(sign(make())).verified
    assert codes(judge(sign(make(kind="JPEG", quality=quality), "image/jpeg"))) == ["near_duplicate"]


def test_a_copy_of_another_size_is_a_near_duplicate(judge, sign, make):
    assert judge(sign(make())).verified
    small = Image.open(io.BytesIO(make())).resize((96, 96))
    out = io.BytesIO()
    small.save(out, "PNG")
    assert codes(judge(sign(out.getvalue()))) == ["near_duplicate"]


def test_different_pictures_are_all_verified(judge, sign, make):
    assert all(judge(sign(make(seed))).verified for seed in range(20))


def test_a_late_delivery_is_stale_and_does_not_block_the_picture(judge, sign, make):
    signed = sign(make())
    assert codes(judge(signed, delivered_at=100.5)) == ["stale"]
    assert judge(signed, delivered_at=100.0).verified


def test_an_unsigned_picture_is_refused(judge, make):
    assert codes(judge(make())) == ["no_provenance"]


def test_a_picture_signed_under_another_authority_is_refused(judge, stranger, sign, make):
    verdict = judge(sign(make()), anchors=stranger.anchors_pem)
    assert codes(verdict) == ["untrusted_provenance"]
    assert verdict.issuer is None


def test_bytes_changed_after_signing_are_refused(judge, sign, make):
    signed = bytearray(sign(make(kind="JPEG", quality=90), "image/jpeg"))
    signed[-200] ^= 0x01
    assert "untrusted_provenance" in codes(judge(bytes(signed)))


def test_a_picture_of_20000_by_20000_pixels_is_refused_undecoded(judge):
    verdict = judge(huge_png())
    assert codes(verdict) == ["too_large", "no_provenance"]
    assert set(verdict.facts["skipped"]) >= {"shape", "copies", "accept"}
    assert (verdict.width, verdict.height) == (0, 0)


def test_a_truncated_jpeg_is_refused(judge, sign, make):
    data = make(kind="JPEG", quality=90)
    assert codes(judge(data[: len(data) // 2])) == ["undecodable", "no_provenance"]
    signed = sign(data, "image/jpeg")
    assert codes(judge(signed[: len(signed) - 1500])) == ["undecodable", "untrusted_provenance"]


def test_more_bytes_than_allowed_are_refused_unread(judge, sign, make):
    verdict = judge(sign(make()), limits=MediaLimits(max_bytes=1000))
    assert codes(verdict) == ["too_large", "no_provenance"]


@pytest.mark.parametrize(
    "data", [b"\0\0\0\x18ftypisom" + b"\0" * 100, b"RIFF\0\0\0\0WAVEfmt " + b"\0" * 100, b"fLaC" + b"\0" * 100]
)
def test_sound_and_video_are_of_the_wrong_modality(judge, data):
    assert "wrong_modality" in codes(judge(data))


@pytest.mark.parametrize("data", [b"", b"hello", b"%PDF-1.7", b"<svg/>"])
def test_what_is_no_medium_is_undecodable(judge, data):
    assert codes(judge(data)) == ["undecodable", "no_provenance"]


def test_all_reasons_are_told_at_once(judge, make):
    broken = make(kind="JPEG")[:800]
    assert codes(judge(broken, delivered_at=999.0)) == ["stale", "undecodable", "no_provenance"]


def test_a_refused_picture_does_not_take_its_place_in_the_index(judge, sign, make):
    assert not judge(make()).verified
    assert len(judge.index) == 0
    assert judge(sign(make())).verified


def test_a_copy_is_named_beside_other_reasons(judge, sign, make):
    assert judge(sign(make())).verified
    assert codes(judge(make(), delivered_at=300.0)) == ["stale", "no_provenance", "duplicate"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_a_delivery_crashes_the_judge(judge, sign, make, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    original = sign(make(kind=kind), f"image/{kind.lower()}")
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 20))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    verdict = judge(bytes(damaged))
    assert set(codes(verdict)) <= KNOWN_CODES
