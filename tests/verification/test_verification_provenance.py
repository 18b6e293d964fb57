import io
import json

import c2pa
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gas.errors import ConfigurationError, MediaRejected
from gas.generation.signing import TRAINED_ALGORITHMIC_MEDIA, sign_medium
from gas.media.image import decode_image
from gas.verification.provenance import check_anchors, check_provenance


def code_of(data, anchors, mime="image/png"):
    with pytest.raises(MediaRejected) as refused:
        check_provenance(data, mime, anchors)
    return refused.value.error_code


def signed_with(leaf, data, assertions, **manifest):
    """Sign with any assertions, as a hostile but certified operator could."""
    definition = {"claim_generator_info": [{"name": "x"}], "format": "image/png", "assertions": assertions, **manifest}
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, leaf.chain_pem, leaf.key_pem, None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(definition)) as builder:
        builder.sign(signer, "image/png", io.BytesIO(data), out)
    return out.getvalue()


def created(**fields):
    return [{"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created", **fields}]}}]


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
def test_a_signed_picture_is_trusted_and_names_its_signer(authority, make, sign, kind, mime):
    credentials = check_provenance(sign(make(kind=kind), mime), mime, authority.anchors_pem)
    assert credentials.issuer == "Operator One"
    assert credentials.model == "a model"
    assert credentials.source_type == TRAINED_ALGORITHMIC_MEDIA


def test_an_unsigned_picture_has_no_provenance(authority, make):
    assert code_of(make(), authority.anchors_pem) == "no_provenance"


def test_a_signature_of_another_authority_is_not_trusted(authority, stranger, sign, make):
    assert code_of(sign(make()), stranger.anchors_pem) == "untrusted_provenance"
    leaf = stranger.leaf("operator", "Operator One")
    forged = sign_medium(make(), "image/png", leaf, title="task", model="a model")
    assert code_of(forged, authority.anchors_pem) == "untrusted_provenance"


def test_pixels_changed_after_signing_are_found(authority, sign, make):
    signed = bytearray(sign(make(kind="JPEG", quality=90), "image/jpeg"))
    signed[-200] ^= 0x01
    assert code_of(bytes(signed), authority.anchors_pem, "image/jpeg") == "untrusted_provenance"


def test_credentials_of_one_picture_do_not_vouch_for_another(authority, sign, make):
    signed, other = sign(make(0)), make(1)
    at = signed.index(b"caBX") - 4
    chunk = signed[at : at + 12 + int.from_bytes(signed[at : at + 4], "big")]
    # Right behind the 8-byte signature and the 25-byte IHDR chunk, where the signer puts it too.
    moved = other[:33] + chunk + other[33:]
    assert code_of(moved, authority.anchors_pem) == "untrusted_provenance"


def test_a_trusted_manifest_that_does_not_declare_ai_is_refused(authority, make):
    leaf = authority.leaf("operator", "Operator One")
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    signed = signed_with(leaf, make(), created(digitalSourceType=camera))
    assert code_of(signed, authority.anchors_pem) == "not_ai_declared"


def test_declarations_outside_of_an_action_do_not_count(authority, make):
    leaf = authority.leaf("operator", "Operator One")
    camera = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    beside = {"label": "org.example.note", "data": {"actions": [{"digitalSourceType": TRAINED_ALGORITHMIC_MEDIA}]}}
    signed = signed_with(leaf, make(), [*created(digitalSourceType=camera), beside], title=TRAINED_ALGORITHMIC_MEDIA)
    assert code_of(signed, authority.anchors_pem) == "not_ai_declared"


def test_a_manifest_that_lies_elsewhere_is_not_fetched(authority, make):
    leaf = authority.leaf("operator", "Operator One")
    definition = {
        "claim_generator_info": [{"name": "x"}],
        "format": "image/png",
        "assertions": created(digitalSourceType=TRAINED_ALGORITHMIC_MEDIA),
    }
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, leaf.chain_pem, leaf.key_pem, None)
    out = io.BytesIO()
    with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(definition)) as builder:
        builder.set_no_embed()
        builder.set_remote_url("http://127.0.0.1:9/manifest.c2pa")
        builder.sign(signer, "image/png", io.BytesIO(make()), out)
    assert code_of(out.getvalue(), authority.anchors_pem) == "no_provenance"


@pytest.mark.parametrize("keep", [0, 1, 8, 60, 500, 2_000])
def test_a_truncated_signed_picture_is_refused(authority, sign, make, keep):
    assert code_of(sign(make())[:keep], authority.anchors_pem) in ("no_provenance", "untrusted_provenance")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_never_crashes_and_never_changes_what_is_trusted(authority, sign, make, data):
    original = sign(make())
    pixels = decode_image(original)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(original.index(b"caBX"), len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        credentials = check_provenance(bytes(damaged), "image/png", authority.anchors_pem)
    except MediaRejected as refused:
        assert refused.error_code in ("no_provenance", "untrusted_provenance", "not_ai_declared")
    else:
        # A PNG's check sum of the manifest's own chunk, for one, belongs to neither manifest nor picture.
        assert credentials == check_provenance(original, "image/png", authority.anchors_pem)
        try:
            assert np.array_equal(decode_image(bytes(damaged)), pixels)
        except MediaRejected as refused:
            assert refused.error_code == "undecodable"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=2_000), mime=st.sampled_from(["image/png", "image/jpeg", "video/mp4", "nonsense", ""]))
def test_any_bytes_of_any_type_are_refused(authority, data, mime):
    assert code_of(data, authority.anchors_pem, mime) in ("no_provenance", "untrusted_provenance")


def test_without_anchors_nothing_is_trusted(sign, make):
    assert code_of(sign(make()), b"") == "untrusted_provenance"


@pytest.mark.parametrize(
    "anchors", [b"", b"nonsense", b"\0", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"]
)
def test_anchors_that_are_no_certificates_are_found_at_start(anchors):
    with pytest.raises(ConfigurationError):
        check_anchors(anchors)


def test_good_anchors_pass(authority, stranger):
    check_anchors(authority.anchors_pem + stranger.anchors_pem)
