import io
import stat

import numpy as np
import pytest
from PIL import Image

from gas.clock import ManualClock, SystemClock
from gas.errors import ConfigurationError, InfrastructureError
from gas.generation.signing import TestAuthority, load_leaf, sign_medium


@pytest.fixture
def png():
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_keys_are_readable_by_their_owner_only(tmp_path):
    authority = TestAuthority(tmp_path / "ca", SystemClock())
    authority.leaf("operator-1", "Operator One")
    for name in ("root.key", "operator-1.key"):
        assert stat.S_IMODE((tmp_path / "ca" / name).stat().st_mode) == 0o600


def test_an_authority_and_its_leaves_are_found_again(tmp_path):
    first = TestAuthority(tmp_path, SystemClock())
    leaf = first.leaf("operator", "Operator One")
    second = TestAuthority(tmp_path, SystemClock())
    assert second.anchors_pem == first.anchors_pem
    assert second.leaf("operator", "Somebody Else") == leaf
    assert load_leaf(tmp_path, "operator").organisation == "Operator One"


def test_a_key_does_not_show_in_a_representation(tmp_path):
    leaf = TestAuthority(tmp_path, SystemClock()).leaf("operator", "Operator One")
    assert "PRIVATE" not in repr(leaf)


def test_a_kill_between_key_and_certificate_leaves_a_folder_that_works(tmp_path):
    (tmp_path / "root.key").write_bytes(b"half of")
    (tmp_path / "root.key.new").write_bytes(b"half of")
    leaf = TestAuthority(tmp_path, SystemClock()).leaf("operator", "Operator One")
    assert leaf.organisation == "Operator One"


def test_signing_keeps_the_pixels(tmp_path, png):
    leaf = TestAuthority(tmp_path, SystemClock()).leaf("operator", "Operator One")
    signed = sign_medium(png, "image/png", leaf, title="task", model="a model")
    assert signed != png
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(signed))), np.asarray(Image.open(io.BytesIO(png))))


def test_a_type_that_cannot_carry_credentials_is_refused(tmp_path, png):
    leaf = TestAuthority(tmp_path, SystemClock()).leaf("operator", "Operator One")
    with pytest.raises(ConfigurationError) as refused:
        sign_medium(png, "text/plain", leaf, title="task", model="a model")
    assert refused.value.error_code == "mime_not_signable"


@pytest.mark.parametrize("name", ["", "root", "../escape", "a/b", "a.b"])
def test_a_credential_name_that_is_no_plain_name_is_refused(tmp_path, name):
    authority = TestAuthority(tmp_path, ManualClock())
    with pytest.raises(ConfigurationError):
        authority.leaf(name, "Operator One")


def test_a_key_of_another_certificate_is_refused(tmp_path):
    authority = TestAuthority(tmp_path, SystemClock())
    authority.leaf("one", "Operator One")
    authority.leaf("two", "Operator Two")
    (tmp_path / "one.key").write_bytes((tmp_path / "two.key").read_bytes())
    with pytest.raises(ConfigurationError, match="does not belong"):
        load_leaf(tmp_path, "one")


def test_a_damaged_certificate_is_refused(tmp_path):
    TestAuthority(tmp_path, SystemClock())
    (tmp_path / "root.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(ConfigurationError, match="damaged"):
        TestAuthority(tmp_path, SystemClock())


def test_a_certificate_that_has_run_out_signs_nothing(tmp_path, png):
    leaf = TestAuthority(tmp_path, ManualClock(now=1_500_000_000.0)).leaf("operator", "Operator One")
    with pytest.raises(InfrastructureError) as failed:
        sign_medium(png, "image/png", leaf, title="task", model="a model")
    assert failed.value.error_code == "signing_failed"
