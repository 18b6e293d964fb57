"""Sources on the web when the web is at its worst: a local peer that misbehaves in one way at a time."""

from __future__ import annotations

import json
import logging
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from hub_peer import HubPeer, body, drop_after, endless, hang_up, redirect, serve, sha256, status

from gas.clock import ManualClock
from gas.datasets.sources.base import RemoteFile
from gas.datasets.sources.http import HttpSource
from gas.datasets.sources.transfer import Patience, TransferLimits, sidecar_of
from gas.errors import ConfigurationError, IntegrityError, SourceUnreachable

DATA = bytes(range(256)) * 400
FILES = {"a.bin": DATA, "sub/b.bin": b"small"}


class Waits:
    """A sleep that takes no time, and remembers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.seconds: list[float] = []
        self.opened: list[HttpSource] = []

    def http(self, url: str, env: dict[str, str] | None = None, revision: str = "", **limits: float) -> HttpSource:
        patience = Patience(TransferLimits(**limits), self.clock, self.sleep)  # type: ignore[arg-type]
        self.opened.append(HttpSource(url, patience, env or {}, revision))
        return self.opened[-1]

    def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def waits() -> Iterator[Waits]:
    waits = Waits()
    yield waits
    for source in waits.opened:
        source.close()


@pytest.fixture
def peer() -> Iterator[HubPeer]:
    with serve(FILES) as peer:
        yield peer


def index(peer: HubPeer, waits: Waits, **limits: float) -> HttpSource:
    return waits.http(f"{peer.url}/files/index.json", **limits)


def single(peer: HubPeer, waits: Waits, **limits: float) -> HttpSource:
    return waits.http(f"{peer.url}/files/a.bin", **limits)


A = RemoteFile("a.bin", len(DATA), sha256(DATA))


def test_a_transfer_that_breaks_off_goes_on_with_the_missing_bytes_only(
    peer: HubPeer, waits: Waits, tmp_path: Path
) -> None:
    peer.fail("a.bin", drop_after(70_000), drop_after(10_000))
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA
    ranges = [one.headers.get("range") for one in peer.asked("a.bin")]
    assert ranges == [None, "bytes=70000-", "bytes=80000-"]
    assert waits.seconds == [1.0, 2.0]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 30_000), max_size=6))
def test_wherever_it_breaks_off_the_file_comes_whole_and_no_byte_twice(
    peer: HubPeer, waits: Waits, tmp_path: Path, cuts: list[int]
) -> None:
    peer.faults.clear()
    peer.fail("a.bin", *[drop_after(cut) for cut in cuts])
    (tmp_path / "a.part").unlink(missing_ok=True)
    heard: list[int] = []
    index(peer, waits, tries=7).fetch(A, tmp_path / "a.part", heard.append)
    assert (tmp_path / "a.part").read_bytes() == DATA
    assert sum(heard) == len(DATA)


def test_after_three_broken_tries_the_error_is_clear_and_the_bytes_are_kept(
    peer: HubPeer, waits: Waits, tmp_path: Path
) -> None:
    peer.fail("a.bin", drop_after(30_000), drop_after(30_000), drop_after(30_000))
    with pytest.raises(SourceUnreachable) as broken:
        index(peer, waits).fetch(A, tmp_path / "a.part")
    assert "3 tries" in broken.value.message
    assert "kept" in str(broken.value.hint)
    assert (tmp_path / "a.part").read_bytes() == DATA[:90_000]
    assert len(waits.seconds) == 2
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert peer.asked("a.bin")[-1].headers["range"] == "bytes=90000-"
    assert (tmp_path / "a.part").read_bytes() == DATA


def test_a_server_that_never_answers_is_tried_three_times(peer: HubPeer, waits: Waits) -> None:
    peer.fail("index.json", hang_up, hang_up, hang_up)
    with pytest.raises(SourceUnreachable):
        index(peer, waits).files()
    assert len(peer.asked("index.json")) == 3


@pytest.mark.parametrize("code", [500, 502, 503, 504, 408])
def test_a_server_in_trouble_is_tried_again(peer: HubPeer, waits: Waits, code: int, tmp_path: Path) -> None:
    peer.fail("a.bin", status(code), status(code))
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert waits.seconds == [1.0, 2.0]


def test_retry_after_is_obeyed_in_both_its_forms_and_up_to_a_limit(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    later = (datetime.now(UTC) + timedelta(hours=10)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    peer.fail("a.bin", status(429, Retry_After="17"), status(503, Retry_After=later))
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert waits.seconds == [17.0, 120.0]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (404, "source_missing"),
        (410, "source_missing"),
        (401, "source_forbidden"),
        (403, "source_forbidden"),
        (400, "source_refused"),
    ],
)
def test_what_another_try_would_not_change_is_said_at_once(peer: HubPeer, waits: Waits, code: int, name: str) -> None:
    peer.fail("index.json", status(code))
    with pytest.raises(ConfigurationError) as refused:
        index(peer, waits).files()
    assert refused.value.error_code == name
    assert not waits.seconds


def test_a_file_with_another_hash_is_refused_and_removed(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    peer.fail("a.bin", body(b"x" * len(DATA)))
    part = tmp_path / "a.part"
    with pytest.raises(IntegrityError, match="hash"):
        index(peer, waits).fetch(A, part)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [DATA + b"x", DATA[:-1], b""])
def test_a_file_of_another_length_is_refused_and_removed(
    peer: HubPeer, waits: Waits, content: bytes, tmp_path: Path
) -> None:
    peer.fail("a.bin", body(content))
    with pytest.raises(IntegrityError, match="bytes"):
        index(peer, waits).fetch(A, tmp_path / "a.part")
    assert list(tmp_path.iterdir()) == []


def test_a_body_without_end_is_ended(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    peer.fail("a.bin", endless, endless)
    with pytest.raises(IntegrityError):
        index(peer, waits).fetch(A, tmp_path / "a.part")
    with pytest.raises(IntegrityError) as too_large:
        single(peer, waits, max_file_bytes=300_000).fetch(RemoteFile("a.bin"), tmp_path / "a.part")
    assert too_large.value.error_code == "too_large"
    assert list(tmp_path.iterdir()) == []


def test_a_log_in_page_is_not_taken_for_data(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    page = body(b"<html>Please log in", "text/html; charset=utf-8")
    peer.fail("a.bin", page)
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA
    (tmp_path / "a.part").unlink()
    peer.fail("a.bin", drop_after(50_000), page, page)
    with pytest.raises(SourceUnreachable, match="web page"):
        index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA[:50_000], "what had arrived before is kept"


def test_a_compressed_body_is_not_taken_for_the_file(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    peer.fail("a.bin", *[body(b"\x1f\x8b", Content_Encoding="gzip")] * 3)
    with pytest.raises(SourceUnreachable, match="compressed"):
        index(peer, waits).fetch(A, tmp_path / "a.part")
    assert all(one.headers["accept-encoding"] == "identity" for one in peer.seen)


def test_a_server_that_goes_on_at_the_wrong_place_is_noticed(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    def wrong_place(handler: object) -> bool:
        headers = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
        handler.answer(206, DATA, headers)  # type: ignore[attr-defined]
        return True

    peer.fail("a.bin", drop_after(50_000), wrong_place)
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA


def test_a_server_without_ranges_is_read_from_the_start_again(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    peer.ranges = False
    peer.fail("a.bin", drop_after(50_000))
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA


def test_a_file_that_became_shorter_is_read_from_the_start_again(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    peer.fail("a.bin", drop_after(50_000), hang_up, hang_up)
    source, file = single(peer, waits), RemoteFile("a.bin")
    with pytest.raises(SourceUnreachable):
        source.fetch(file, part)
    peer.files["a.bin"] = b"short"
    peer.etags = False
    source.fetch(file, part)
    assert part.read_bytes() == b"short"


def test_without_a_hash_only_the_same_etag_is_gone_on_with(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    source = single(peer, waits)
    (file,) = source.files()
    assert (file.size, file.sha256) == (len(DATA), None)
    peer.fail("a.bin", drop_after(50_000), hang_up, hang_up)
    with pytest.raises(SourceUnreachable):
        source.fetch(file, part)
    assert sidecar_of(part).exists()
    source.fetch(file, part)
    assert peer.asked("a.bin")[-1].headers["if-range"] == file.version
    assert part.read_bytes() == DATA

    part.unlink()
    peer.fail("a.bin", drop_after(50_000), hang_up, hang_up)
    with pytest.raises(SourceUnreachable):
        source.fetch(file, part)
    other = bytes(len(DATA))
    peer.files["a.bin"] = other
    source.fetch(file, part)
    assert part.read_bytes() == other, "the whole of the new version, not a mixture"


def test_bytes_that_turn_out_to_be_of_another_version_cost_one_try(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    peer.fail("a.bin", drop_after(50_000), hang_up, hang_up)
    with pytest.raises(SourceUnreachable):
        index(peer, waits).fetch(A, part)
    part.write_bytes(b"damaged" + part.read_bytes()[7:])
    index(peer, waits).fetch(A, part)
    assert part.read_bytes() == DATA


def test_a_transfer_that_nearly_stands_still_is_broken_off(peer: HubPeer, waits: Waits) -> None:
    class Slow(ManualClock):
        def monotonic(self) -> float:
            self.now += 100.0
            return self.now

    waits.clock = Slow()
    with pytest.raises(SourceUnreachable, match="near stop"):
        index(peer, waits, slow_rate=1e6).files()


def test_redirects_are_followed_but_not_for_ever(peer: HubPeer, waits: Waits, tmp_path: Path) -> None:
    peer.fail("a.bin", redirect("/files/a.bin", 307), redirect(f"{peer.url}/files/a.bin", 301))
    index(peer, waits).fetch(A, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA
    peer.fail("index.json", *[redirect("/files/index.json")] * 6)
    with pytest.raises(ConfigurationError, match="redirects"):
        index(peer, waits).files()


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "gopher://x"])
def test_redirects_to_something_else_than_the_web_are_refused(peer: HubPeer, waits: Waits, to: str) -> None:
    peer.fail("index.json", redirect(to))
    with pytest.raises(ConfigurationError) as refused:
        index(peer, waits).files()
    assert refused.value.error_code == "source_refused"


def test_a_public_server_can_not_redirect_into_the_own_network(peer: HubPeer, waits: Waits) -> None:
    # The peer plays a proxy, so that it can answer for a name that is public.
    peer.fail("index.json", redirect("http://169.254.169.254/latest/meta-data/"))
    source = waits.http("http://data.example.org/files/index.json", {"http_proxy": peer.url})
    with pytest.raises(ConfigurationError, match="own network"):
        source.files()
    assert len(peer.seen) == 1


def test_proxies_of_the_environment_are_used_unless_excepted(peer: HubPeer, waits: Waits) -> None:
    env = {"HTTP_PROXY": peer.url, "NO_PROXY": "127.0.0.1, .internal.example"}
    source = waits.http("http://data.example.org/files/index.json", env)
    assert [file.path for file in source.files()] == ["a.bin", "sub/b.bin"]
    assert peer.seen[0].path == "http://data.example.org/files/index.json"
    direct = waits.http(f"{peer.url}/files/index.json", env)
    direct.files()
    assert peer.seen[-1].path == "/files/index.json"


def test_credentials_go_to_the_first_host_only_and_into_no_log_or_error(
    peer: HubPeer, waits: Waits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host = peer.url.removeprefix("http://")
    with serve(FILES) as other:
        peer.fail("a.bin", redirect(f"{other.url}/files/a.bin"))
        source = waits.http(f"http://user:s3cret@{host}/files/index.json?sig=t0ken", {})
        source.fetch(source.files()[0], tmp_path / "a.part")
        assert peer.seen[0].headers["authorization"].startswith("Basic ")
        assert peer.seen[-1].path.endswith("/files/a.bin?sig=t0ken"), "a signature opens the files of an index too"
        assert "authorization" not in other.seen[0].headers
    peer.fail("index.json", status(403))
    with pytest.raises(ConfigurationError) as refused:
        waits.http(f"http://user:s3cret@{host}/files/index.json?sig=t0ken", {}).files()
    peer.fail("index.json", hang_up, hang_up, hang_up)
    with pytest.raises(SourceUnreachable) as gone:
        waits.http(f"http://user:s3cret@{host}/files/index.json?sig=t0ken", {}).files()
    for text in (caplog.text, str(refused.value), str(gone.value)):
        assert "s3cret" not in text
        assert "t0ken" not in text
        assert "dXNlcjpzM2NyZXQ" not in text, "base64 of user and password"


def test_an_encrypted_address_never_becomes_an_unencrypted_one(
    peer: HubPeer, waits: Waits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    class Downgrade(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{peer.url}/files/index.json")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Downgrade)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        source = waits.http(f"https://127.0.0.1:{server.server_address[1]}/index.json", {})
        with pytest.raises(ConfigurationError, match="unencrypted"):
            source.files()
        assert not peer.seen
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(SourceUnreachable):
            waits.http(f"https://127.0.0.1:{server.server_address[1]}/index.json", {}).files()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed(folder: Path) -> Path:
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "peer.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def listing(*files: object) -> bytes:
    return json.dumps({"version": 1, "files": list(files)}).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[" * 100_000,
        b"{}",
        b'{"version": 2, "files": []}',
        listing({"path": "../a"}),
        listing({"path": "/etc/passwd"}),
        listing({"path": "a//b"}),
        listing({"path": "a\\b"}),
        listing({"path": "a\nb"}),
        listing({"path": ""}),
        listing({"path": "x" * 2000}),
        listing({"path": "a"}, {"path": "a"}),
        listing({"path": "a", "size": -1}),
        listing({"path": "a", "size": "many"}),
        listing({"path": "a", "sha256": "abc"}),
        listing({"path": 7}),
    ],
)
def test_a_hostile_index_is_refused(peer: HubPeer, waits: Waits, content: bytes) -> None:
    peer.fail("index.json", body(content, "application/json"))
    with pytest.raises(IntegrityError):
        index(peer, waits).files()


def test_an_index_beyond_its_limits_is_refused(peer: HubPeer, waits: Waits) -> None:
    with pytest.raises(IntegrityError):
        index(peer, waits, max_listing_bytes=100).files()
    peer.fail("index.json", endless)
    with pytest.raises(IntegrityError):
        index(peer, waits).files()
    with pytest.raises(IntegrityError):
        index(peer, waits, max_files=1).files()


def test_a_text_index_may_tell_sizes(peer: HubPeer, waits: Waits) -> None:
    text = f"# comment\n{sha256(DATA)}\t{len(DATA)}\ta.bin\n\n{sha256(b'small')} *sub/b.bin\n"
    peer.fail("SHA256SUMS", body(text.encode(), "text/plain"), body(b"nonsense\n", "text/plain"))
    address = f"{peer.url}/files/SHA256SUMS"
    assert waits.http(address, {}).files() == (A, RemoteFile("sub/b.bin", None, sha256(b"small")))
    with pytest.raises(IntegrityError, match="Line 1"):
        waits.http(address, {}).files()


def test_a_single_file_behind_a_server_that_knows_no_head_still_comes(
    peer: HubPeer, waits: Waits, tmp_path: Path
) -> None:
    peer.heads = False
    source = single(peer, waits)
    (file,) = source.files()
    assert file == RemoteFile("a.bin")
    source.fetch(file, tmp_path / "a.part")
    assert (tmp_path / "a.part").read_bytes() == DATA


def test_a_pinned_index_that_has_changed_is_refused(peer: HubPeer, waits: Waits) -> None:
    revision = index(peer, waits).revision
    peer.files["c.bin"] = b"new"
    with pytest.raises(IntegrityError, match="changed"):
        waits.http(f"{peer.url}/files/index.json", {}, revision).files()
    with pytest.raises(ConfigurationError, match="revision"):
        waits.http(f"{peer.url}/files/index.json", {}, "main").files()


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "x/y", "http://", "file:///etc/passwd", "https:///x", "http://[", "http://x:99999/"]
)
def test_what_is_no_web_address_is_said_at_once(url: str, waits: Waits) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        waits.http(url)
    assert wrong.value.error_code == "bad_address"
