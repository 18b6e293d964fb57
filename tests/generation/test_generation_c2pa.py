import datetime
import io
import json
import stat

import numpy as np
import pytest
import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from typer.testing import CliRunner

from gas.cli import certificates
from gas.cli.c2pa import sign_command, verify_command
from gas.clock import ManualClock, SystemClock
from gas.errors import ConfigurationError, GasError, InfrastructureError
from gas.generation.signing import TestAuthority, load_leaf, load_leaf_files, sign_medium
from gas.media.audio import decode_audio
from gas.media.encode import encode_audio, encode_flac, encode_mp4, encode_wav
from gas.media.image import decode_image, encode_jpeg, encode_png, encode_webp
from gas.media.video import VideoReader
from gas.types import MediaType
from gas.verification.inspection import State, inspect_credentials, signed_type
from gas.verification.provenance import check_provenance

NOW = SystemClock().time()
PIXELS = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
SOUND = (np.sin(np.arange(16_000) / 20) * 0.3).astype(np.float32)


def gif():
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "GIF")
    return out.getvalue()


MEDIA = {
    "image/png": lambda: encode_png(PIXELS),
    "image/jpeg": lambda: encode_jpeg(PIXELS),
    "image/webp": lambda: encode_webp(PIXELS),
    "image/gif": gif,
    "video/mp4": lambda: encode_mp4([PIXELS] * 6),
    "audio/wav": lambda: encode_wav(SOUND, 16_000),
    "audio/flac": lambda: encode_flac(SOUND, 16_000),
    "audio/mpeg": lambda: encode_audio(SOUND, 16_000, "mp3"),
}


def decoded(data, mime):
    if mime.startswith("image"):
        return decode_image(data)
    if mime.startswith("video"):
        with VideoReader(data) as reader:
            return np.stack(list(reader))
    return decode_audio(data)[0]


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return TestAuthority(tmp_path_factory.mktemp("ca"), SystemClock())


@pytest.fixture(scope="session")
def leaf(authority):
    return authority.leaf("lab", "My Lab")


@pytest.mark.parametrize("mime", MEDIA)
def test_media_of_every_type_are_signed_read_back_and_keep_what_they_show(mime, authority, leaf):
    data = MEDIA[mime]()
    signed = sign_medium(data, mime, leaf, title="t", model="A model 1")
    found = inspect_credentials(signed, authority.anchors_pem)
    assert (found.state, found.mime) == (State.TRUSTED, mime)
    assert (found.issuer, found.model, found.declares_ai) == ("My Lab", "A model 1", True)
    assert check_provenance(signed, mime, authority.anchors_pem).issuer == "My Lab"
    assert np.array_equal(decoded(signed, mime), decoded(data, mime))


def test_semisynthetic_media_are_declared_as_composites_made_at_the_clocks_time(authority, leaf):
    clock = ManualClock(now=1_900_000_000.0)
    signed = sign_medium(
        encode_png(PIXELS), "image/png", leaf, title="t", model="m", media_type=MediaType.SEMISYNTHETIC, clock=clock
    )
    found = inspect_credentials(signed, authority.anchors_pem)
    assert found.source_type.endswith("/compositeWithTrainedAlgorithmicMedia")
    assert found.made_at == "2030-03-17T17:46:40Z"
    assert found.stamped_at == ""


def test_without_anchors_and_under_other_ones_nobody_is_trusted(tmp_path, leaf):
    signed = sign_medium(encode_png(PIXELS), "image/png", leaf, title="t", model="m")
    stranger = TestAuthority(tmp_path, SystemClock()).anchors_pem
    for anchors in (None, stranger):
        found = inspect_credentials(signed, anchors)
        assert found.state is State.VALID
        assert [reason.code for reason in found.reasons] == ["signingCredential.untrusted"]


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "video/mp4", "audio/wav", "audio/mpeg"])
def test_a_medium_that_was_changed_afterwards_is_invalid_and_says_why(mime, authority, leaf):
    signed = bytearray(sign_medium(MEDIA[mime](), mime, leaf, title="t", model="m"))
    # The manifest lies behind a WAV's samples, and before what the others hold.
    start = 2000 if mime == "audio/wav" else len(signed) - 600
    for place in range(start, start + 300):
        signed[place] ^= 0x55
    found = inspect_credentials(bytes(signed), authority.anchors_pem)
    assert found.state is State.INVALID
    assert found.reasons


def test_a_medium_without_credentials_is_none(authority):
    found = inspect_credentials(encode_png(PIXELS), authority.anchors_pem)
    assert found.state is State.NONE
    assert [reason.code for reason in found.reasons] == ["no_provenance"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"OggS" + bytes(60), b"ID3\x04\0\0\0\0\0"])
def test_what_is_no_medium_ends_in_a_sentence_and_nothing_else(data):
    try:
        assert inspect_credentials(data).state in (State.NONE, State.INVALID)
    except GasError as error:
        assert error.error_code == "unsupported"


def test_a_signed_flac_is_still_a_flac(leaf):
    assert signed_type(sign_medium(encode_flac(SOUND, 16_000), "audio/flac", leaf, title="", model="m")) == "audio/flac"


def test_a_medium_that_is_not_of_its_type_is_not_signed(leaf):
    with pytest.raises(InfrastructureError) as failed:
        sign_medium(b"no picture at all", "image/png", leaf, title="t", model="m")
    assert failed.value.error_code == "signing_failed"


def issue(folder, key, *, begins=-1, ends=10, ca=False, signs=True, usages=True, name="own"):
    """A self-made certificate and its key."""
    now = datetime.datetime.fromtimestamp(NOW, tz=datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Own Ltd")])
    issuer = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Somebody")])
    names = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only crl_sign"
    flags = dict.fromkeys(names.split(), False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=signs, key_cert_sign=not signs, **flags), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    kind = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    (folder / f"{name}.pem").write_bytes(builder.sign(key, kind).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
    return folder / f"{name}.pem", folder / f"{name}.key"


@pytest.mark.parametrize(
    ("more", "code", "word"),
    [
        ({"begins": -20, "ends": -10}, "certificate_expired", "ran out on"),
        ({"begins": 5}, "certificate_not_yet_valid", "valid from"),
        ({"ca": True}, "certificate_unfit", "authority's own"),
        ({"signs": False}, "certificate_unfit", "not for signatures"),
        ({"usages": False}, "certificate_unfit", "doesn't say what it is for"),
    ],
)
def test_a_certificate_that_cannot_sign_today_is_refused_when_it_is_loaded(tmp_path, more, code, word):
    files = issue(tmp_path, ec.generate_private_key(ec.SECP256R1()), **more)
    with pytest.raises(ConfigurationError, match=word) as refused:
        load_leaf_files(*files)
    assert refused.value.error_code == code


def test_a_certificate_runs_out_by_the_clock_that_is_given(tmp_path):
    TestAuthority(tmp_path, ManualClock(now=NOW)).leaf("op", "Lab", days=3)
    assert load_leaf(tmp_path, "op", ManualClock(now=NOW)).expires_at == pytest.approx(NOW + 3 * 86_400, abs=2)
    with pytest.raises(ConfigurationError) as refused:
        load_leaf(tmp_path, "op", ManualClock(now=NOW + 4 * 86_400))
    assert refused.value.error_code == "certificate_expired"
    assert "cert new --renew" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP384R1()), "es384"),
        (lambda: rsa.generate_private_key(65537, 2048), "ps256"),
        (ed25519.Ed25519PrivateKey.generate, "ed25519"),
    ],
)
def test_certificates_of_other_kinds_sign_too(tmp_path, key, algorithm):
    leaf = load_leaf_files(*issue(tmp_path, key()))
    assert leaf.algorithm == algorithm
    signed = sign_medium(encode_png(PIXELS), "image/png", leaf, title="t", model="m")
    assert inspect_credentials(signed).state is State.VALID


def test_a_key_on_an_unknown_curve_or_missing_files_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="curve"):
        load_leaf_files(*issue(tmp_path, ec.generate_private_key(ec.SECP256K1())))
    with pytest.raises(ConfigurationError, match=r"there is no nobody\.pem"):
        load_leaf(tmp_path, "nobody")


def test_a_chain_keeps_what_stands_between_the_signer_and_the_root(tmp_path, authority):
    certificate, key = issue(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    between, _ = issue(tmp_path, ec.generate_private_key(ec.SECP256R1()), name="between")
    certificate.write_bytes(certificate.read_bytes() + between.read_bytes() + authority.anchors_pem)
    assert load_leaf_files(certificate, key).chain_pem.count(b"BEGIN CERTIFICATE") == 2


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.add_typer(certificates.app, name="cert")
    app.command("sign-c2pa")(sign_command)
    app.command("verify-c2pa")(verify_command)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_user_makes_a_certificate_signs_a_file_and_checks_it(run, tmp_path):
    made = run("cert", "new", "authority", "--organisation", "My Lab", "--json")
    assert json.loads(made.stdout)["new_authority"] is True
    assert stat.S_IMODE((tmp_path / "authority" / "miner.key").stat().st_mode) == 0o600
    assert "fit to sign media" in run("cert", "show", "authority/miner.pem").stdout
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS))
    assert run("sign-c2pa", "a.png", "--model", "X 1").exit_code == 0
    done = run("verify-c2pa", "a.signed.png", "--trust", "authority/root.pem", "--verbose")
    assert done.exit_code == 0
    for word in ("Trusted", "My Lab", "X 1", "trainedAlgorithmicMedia", "assertion.dataHash.match"):
        assert word in done.stdout
    told = json.loads(run("verify-c2pa", "a.signed.png", "--json").stdout)
    assert (told["state"], told["issuer"]) == ("Valid", "My Lab")


def test_exit_statuses_tell_trusted_untrusted_and_unchecked_apart(run, tmp_path):
    run("cert", "new")
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS))
    (tmp_path / "t.txt").write_text("hello")
    run("sign-c2pa", "a.png")
    assert run("verify-c2pa", "a.signed.png").exit_code == 1
    assert run("verify-c2pa", "a.png", "--trust", "authority/root.pem").exit_code == 1
    for words in (["missing.png"], ["t.txt"], ["a.signed.png", "--trust", "t.txt"], ["."]):
        assert run("verify-c2pa", *words).exit_code == 2


def test_a_credential_is_replaced_only_when_that_is_asked_for(run, tmp_path):
    run("cert", "new")
    key = (tmp_path / "authority" / "miner.key").read_bytes()
    root = (tmp_path / "authority" / "root.pem").read_bytes()
    again = run("cert", "new")
    assert isinstance(again.exception, ConfigurationError)
    assert again.exception.error_code == "certificate_exists"
    assert (tmp_path / "authority" / "miner.key").read_bytes() == key
    assert run("cert", "new", "--renew").exit_code == 0
    assert (tmp_path / "authority" / "miner.key").read_bytes() != key
    assert (tmp_path / "authority" / "root.pem").read_bytes() == root


def test_a_file_is_never_signed_over_itself(run, tmp_path):
    run("cert", "new")
    (tmp_path / "a.png").write_bytes(encode_png(PIXELS))
    refused = run("sign-c2pa", "a.png", "--out", "a.png")
    assert isinstance(refused.exception, ConfigurationError)
    assert (tmp_path / "a.png").read_bytes() == encode_png(PIXELS)
