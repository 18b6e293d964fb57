"""Deliveries of all kinds through all steps, decoded in a child process."""

from __future__ import annotations

import io
import json
import sys
from functools import cache
from pathlib import Path

import c2pa
import cv2
import numpy as np
import pytest
import skimage

sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))
from hostile_media import DECODES, HOSTILE

from gas.clock import ManualClock, SystemClock
from gas.generation.signing import TRAINED_ALGORITHMIC_MEDIA, TestAuthority, sign_medium
from gas.media.audio import decode_audio
from gas.media.encode import encode_audio, encode_flac, encode_mp4, encode_wav
from gas.media.image import decode_image, encode_jpeg, encode_png
from gas.media.limits import MediaLimits
from gas.types import Modality
from gas.verification.base import Asked, VerificationRules
from gas.verification.duplicates import MediaIndex, Seen
from gas.verification.examiner import Examiner
from gas.verification.pipeline import Verifier, early_refusal


@cache
def now() -> float:
    """When these tests began; not when they were collected, which may be half an hour before."""
    return SystemClock().time()


LIMITS = MediaLimits(max_bytes=4 * 2**20, max_decode_seconds=10.0, max_pixels=8_000_000, max_frames=64)


@pytest.fixture(scope="session")
def decoder(authority):
    with Examiner(authority.anchors_pem, LIMITS) as examiner:
        yield examiner


@pytest.fixture
def verifier(authority, decoder):
    return Verifier(MediaIndex(), authority.anchors_pem, limits=LIMITS, decoder=decoder)


@pytest.fixture(scope="session")
def leaf(authority):
    return authority.leaf("operator", "Operator One")


def asked(modality=Modality.IMAGE, *, created=None, **more):
    created = now() if created is None else created
    return Asked(modality, created, created + 100, created + 30, **more)


def codes(verdict):
    return [reason.code for reason in verdict.reasons]


def speech(seed, seconds=4.0, rate=16_000):
    """Chirps and pauses; two seeds have nothing in common."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(seconds * 8)):
        t = np.arange(rate // 8) / rate
        tones = sum(rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * rng.uniform(250, 2200) * t * (1 + t)) for _ in range(4))
        parts.append(tones * rng.uniform(0.2, 1) * np.hanning(len(t)) ** 0.3)
    return np.concatenate(parts).astype(np.float32)


def clip(seed, frames=20, side=160):
    """A camera moves over a picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    big = cv2.resize(noise, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(big[at * 4 : at * 4 + side, at * 6 : at * 6 + side]) for at in range(frames)]


def test_a_verdict_carries_what_the_store_needs_and_the_time_of_each_step(verifier, sign, make):
    verdict = verifier.judge(sign(make()), asked(prompt="a cat", parameters={"resolution": "2K"}, owner="v/m/1"))
    assert verdict.verified
    facts = json.loads(json.dumps(verdict.facts))
    assert (facts["width"], facts["height"], facts["mime"]) == (128, 128, "image/png")
    assert (facts["tier"], facts["requested_tier"], facts["paid_tier"], facts["tiers_below"]) == ("1K", "2K", "1K", 1)
    assert (facts["issuer"], facts["model"]) == ("Operator One", "a model")
    assert abs(facts["signed_at"] - SystemClock().time()) < 600
    assert list(facts["timings"]) == [step.name for step in verifier.steps]
    assert Seen.from_facts(verdict.sha256, facts).prompt == "a cat"


def test_a_delivery_judged_again_after_a_crash_is_no_copy_of_itself(verifier, sign, make):
    data = sign(make())
    mine = asked(owner="validator/miner/task")
    assert verifier.judge(data, mine).verified
    assert verifier.judge(data, mine).verified
    assert codes(verifier.judge(data, asked(owner="validator/thief/task"))) == ["duplicate"]


def test_an_image_made_long_before_its_challenge_is_refused(verifier, leaf, make):
    data = sign_medium(make(), "image/png", leaf, title="t", model="m", clock=ManualClock(now() - 7200))
    assert codes(verifier.judge(data, asked())) == ["signed_too_early"]


def test_an_image_from_the_future_is_refused(verifier, leaf, make):
    data = sign_medium(make(), "image/png", leaf, title="t", model="m", clock=ManualClock(now() + 7200))
    assert codes(verifier.judge(data, asked())) == ["signed_in_future"]


@pytest.mark.parametrize("seconds", [-500.0, 500.0])
def test_clocks_may_be_wrong_by_some_minutes(verifier, leaf, make, seconds):
    data = sign_medium(make(), "image/png", leaf, title="t", model="m", clock=ManualClock(now() + seconds))
    assert verifier.judge(data, asked()).verified


def test_strange_and_selfmade_certificates_are_refused(verifier, authority, stranger, make, tmp_path):
    strange = sign_medium(make(), "image/png", stranger.leaf("x", "X"), title="t", model="m")
    assert "untrusted_provenance" in codes(verifier.judge(strange, asked()))
    own = TestAuthority(tmp_path / "own", SystemClock(), name="GAS test authority").leaf("x", "Operator One")
    assert "untrusted_provenance" in codes(
        verifier.judge(sign_medium(make(), "image/png", own, title="t", model="m"), asked())
    )


def test_a_certificate_that_has_run_out_is_refused(verifier, authority, make):
    # Signing libraries refuse an expired one, so it runs out right after: it was valid for 365 days and two seconds.
    begin = SystemClock().time() - 365 * 86_400 + 2
    dying = TestAuthority(authority.folder, ManualClock(begin)).leaf("dying", "Operator Old")
    data = sign_medium(make(seed=9), "image/png", dying, title="t", model="m")
    out = SystemClock().time() + 20
    while verifier.judge(data, asked()).verified and SystemClock().time() < out:
        verifier = Verifier(MediaIndex(), authority.anchors_pem, limits=LIMITS, guarded=False)
    assert codes(verifier.judge(data, asked())) == ["untrusted_provenance"]


def test_stripped_and_signed_anew_is_a_duplicate_whoever_signs(verifier, authority, sign, make):
    assert verifier.judge(sign(make(seed=5)), asked()).verified
    thief = authority.leaf("thief", "Thief")
    stolen = encode_png(decode_image(sign(make(seed=5))))
    assert codes(verifier.judge(sign_medium(stolen, "image/png", thief, title="t", model="m"), asked())) == [
        "duplicate"
    ]


def test_a_prompt_that_the_picture_does_not_show_is_told_by_the_consensus(authority, decoder, sign, make):
    class Model:
        threshold = 0.25

        def __init__(self, name, score):
            self.name, self.score = name, score

        def score_pixels(self, rgb, prompt):
            return self.score if "cat" in prompt else 0.9

    models = [Model("one", 0.3), Model("two", 0.1), Model("three", 0.2)]
    judge = Verifier(MediaIndex(), authority.anchors_pem, limits=LIMITS, decoder=decoder, alignments=models)
    refused = judge.judge(sign(make()), asked(prompt="a cat"))
    assert codes(refused) == ["not_aligned"]
    assert refused.facts["alignment"] == {"one": 0.3, "two": 0.1, "three": 0.2}
    assert judge.judge(sign(make()), asked(prompt="a dog")).verified


def test_a_picture_that_was_enlarged_to_reach_a_tier_earns_no_more_by_it(authority, leaf):
    rgb = decode_image((Path(skimage.__file__).parent / "data" / "motorcycle_left.png").read_bytes())
    source = cv2.copyMakeBorder(rgb, 254, 254, 134, 133, cv2.BORDER_REFLECT)
    judge = Verifier(MediaIndex(), authority.anchors_pem, guarded=False)

    def verdict(pixels, tier):
        data = sign_medium(encode_jpeg(pixels, 92), "image/jpeg", leaf, title="t", model="m")
        return judge.judge(data, asked(parameters={"resolution": tier}))

    # 1,008 pixels enlarged by 1.9 are over the 1,900 of 2K.
    large = cv2.resize(source, None, fx=1.9, fy=1.9, interpolation=cv2.INTER_CUBIC)
    enlarged = verdict(large, "2K")
    assert (enlarged.facts["tier"], enlarged.facts["paid_tier"], enlarged.facts["tiers_below"]) == ("1K", "1K", 1)
    assert enlarged.facts["detail"] < 0.55
    soft = verdict(cv2.resize(source, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)[:1950, :1950], "2K")
    assert (soft.facts["paid_tier"], soft.facts["tiers_below"]) == ("1K", 1)
    tiles = np.tile(source, (2, 2, 1))
    sharp = verdict(tiles, "2K")
    assert "upscaled" not in codes(sharp)
    assert sharp.facts["paid_tier"] == "2K"
    assert "upscaled" not in codes(verdict(large, "1K"))


def test_a_video_is_verified_and_its_copies_are_not(verifier, leaf):
    def sent(frames, **options):
        data = encode_mp4(frames, 10.0, **options)
        return sign_medium(data, "video/mp4", leaf, title="t", model="m")

    wish = asked(Modality.VIDEO, parameters={"resolution": "480p", "duration": 2})
    verdict = verifier.judge(sent(clip(1)), wish)
    assert verdict.verified, verdict.reasons
    assert (verdict.facts["frame_count"], verdict.facts["length_seconds"], verdict.facts["tier"]) == (20, 2.0, "480p")
    assert codes(verifier.judge(sent(clip(1), crf=34), wish)) == ["near_duplicate"]
    assert codes(verifier.judge(sent([frame[:, ::-1] for frame in clip(1)]), wish)) == ["near_duplicate"]
    assert codes(verifier.judge(sent(clip(1)[::-1]), wish)) == ["near_duplicate"]
    assert verifier.judge(sent(clip(2)), wish).verified


def test_a_video_of_another_length_and_a_still_are_refused(verifier, leaf):
    short = sign_medium(encode_mp4(clip(3), 10.0), "video/mp4", leaf, title="t", model="m")
    assert codes(verifier.judge(short, asked(Modality.VIDEO, parameters={"duration": 10}))) == ["wrong_duration"]
    still = sign_medium(encode_mp4(clip(3, frames=1), 10.0), "video/mp4", leaf, title="t", model="m")
    assert codes(verifier.judge(still, asked(Modality.VIDEO))) == ["wrong_duration"]


def test_a_video_longer_than_allowed_or_cut_off_is_refused(verifier):
    long = encode_mp4([np.full((32, 32, 3), at, np.uint8) for at in range(70)], 10.0)
    assert "too_large" in codes(verifier.judge(long, asked(Modality.VIDEO)))
    data = encode_mp4(clip(4), 10.0)
    assert "undecodable" in codes(verifier.judge(data[: len(data) // 2], asked(Modality.VIDEO)))


def test_a_sound_is_verified_and_its_copies_are_not(verifier, leaf):
    def sent(data, mime="audio/wav"):
        return verifier.judge(sign_medium(data, mime, leaf, title="t", model="m"), asked(Modality.AUDIO))

    sound = speech(1)
    first = sent(encode_wav(sound, 16_000))
    assert first.verified, first.reasons
    assert first.facts["length_seconds"] == 4.0
    assert codes(sent(encode_wav(0.3 * sound, 16_000))) == ["near_duplicate"]
    assert codes(sent(encode_wav(sound[5000:-3000], 16_000))) == ["near_duplicate"]
    assert codes(sent(encode_wav(decode_audio(encode_audio(sound, 16_000, "mp3"))[0], 16_000))) == ["near_duplicate"]
    assert "near_duplicate" in codes(verifier.judge(encode_flac(sound, 16_000), asked(Modality.AUDIO)))
    assert sent(encode_wav(speech(2), 16_000)).verified


def test_the_wrong_modality_is_refused_both_ways(verifier, make):
    assert codes(verifier.judge(make(), asked(Modality.AUDIO)))[0] == "wrong_modality"
    assert codes(verifier.judge(encode_wav(speech(1, 1.0), 16_000), asked()))[0] == "wrong_modality"


@pytest.mark.parametrize("name", sorted(name for name, one in HOSTILE.items() if one.modality in set(Modality)))
def test_no_hostile_medium_is_verified_or_ends_the_verifier(verifier, name):
    medium = HOSTILE[name]
    verdict = verifier.judge(medium.make(), asked(Modality(medium.modality)))
    assert not verdict.verified
    if DECODES not in medium.answers:
        assert verdict.width == 0
        assert "accept" in verdict.facts["skipped"]


def test_a_medium_is_judged_well_after_one_that_crashed(verifier, sign, make):
    assert not verifier.judge(HOSTILE["gif_bomb_by_its_screen"].make(), asked()).verified
    assert verifier.judge(sign(make()), asked()).verified


def test_too_many_bytes_or_the_wrong_type_are_known_early(make):
    limits = MediaLimits(max_bytes=1000)
    head = make()[:64]
    assert early_refusal(head, 500, Modality.IMAGE, limits) is None
    assert early_refusal(head, None, Modality.IMAGE, limits) is None
    assert early_refusal(head, 10 * 2**30, Modality.IMAGE, limits).code == "too_large"
    assert early_refusal(head, 500, Modality.AUDIO, limits).code == "wrong_modality"
    assert early_refusal(b"<html>", 500, Modality.IMAGE, limits).code == "undecodable"


def test_credentials_without_a_time_can_be_refused(authority, decoder, make):
    action = {"action": "c2pa.created", "digitalSourceType": TRAINED_ALGORITHMIC_MEDIA}
    assertion = {"label": "c2pa.actions.v2", "data": {"actions": [action]}}
    definition = {"claim_generator_info": [{"name": "x"}], "format": "image/png", "assertions": [assertion]}
    leaf = authority.leaf("operator", "Operator One")
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, leaf.chain_pem, leaf.key_pem, None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(definition)) as builder:
        builder.sign(signer, "image/png", io.BytesIO(make()), out)
    options = {"limits": LIMITS, "decoder": decoder}
    lenient = Verifier(MediaIndex(), authority.anchors_pem, **options).judge(out.getvalue(), asked())
    assert lenient.verified
    assert (lenient.facts["signed_at"], lenient.facts["model"]) == (None, "x")
    rules = VerificationRules(need_signing_time=True)
    strict = Verifier(MediaIndex(), authority.anchors_pem, rules=rules, **options).judge(out.getvalue(), asked())
    assert codes(strict) == ["no_signing_time"]
