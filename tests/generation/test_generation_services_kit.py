"""What the hosted services are built from: addresses, waiting times, sizes, calls that go wrong on the wire."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support" / "providers"))

import asyncio
import base64
import gzip
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_peer import PAGE, Asked, Peer, Reply
from pydantic import SecretStr
from services_suite import sample_media

from gas.clock import ManualClock
from gas.errors import ConfigurationError, MediaRejected, RequestRefused, ServiceUnavailable
from gas.generation.base import GenerationTask
from gas.generation.services.kit.addresses import check_address, check_resolved, is_private, redirected
from gas.generation.services.kit.base import Ticket
from gas.generation.services.kit.http import Body, ProviderClient
from gas.generation.services.kit.media import check_medium, from_base64, from_data_url
from gas.generation.services.kit.replies import LONGEST_WAIT, Account, read_problem, retry_after
from gas.generation.services.kit.settings import ProviderSettings, ServiceSettings
from gas.generation.services.kit.sizes import choose, free_size, offers_by_area, read_wish
from gas.types import MediaType, Modality

T = TypeVar("T")
ACCOUNT = Account("Peer", "PEER_KEY", "PEER_URL")
NOW = 1_764_000_000.0


class FilePeer(Peer):
    """Gives its picture at ``/file``, and redirects from ``/to/N`` to ``/to/N-1`` and then there."""

    def kind(self, asked: Asked) -> str:
        return "submit" if asked.method == "POST" else "download"

    def needs_key(self, asked: Asked) -> bool:
        return False

    def answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/to/"):
            left = int(asked.path.removeprefix("/to/"))
            return Reply(302, headers={"Location": f"/to/{left - 1}" if left else "/file"})
        return self.medium("image")


def use(peer: Peer, act: Callable[[ProviderClient], Awaitable[T]]) -> T:
    async def run() -> T:
        settings = ProviderSettings(service_retry_pause=0, service_timeout=20)
        client = ProviderClient(
            ACCOUNT, peer.url, SecretStr(peer.key), settings, clock=ManualClock(), verdict=lambda _: None
        )
        try:
            return await act(client)
        finally:
            await client.close()

    return asyncio.run(run())


def fetch(peer: Peer, path: str = "/file") -> bytes:
    return use(peer, lambda client: client.bring(path, Modality.IMAGE))[0]


# Addresses.


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "printer",
        "db.internal",
        "nas.local",
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.9",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fc00::2",
        "::ffff:127.0.0.1",
        "LOCALHOST.",
    ],
)
def test_hosts_of_this_machine_and_of_private_networks_are_known(host: str) -> None:
    assert is_private(host)
    literal = f"[{host}]" if ":" in host else host
    with pytest.raises(ServiceUnavailable, match="private network"):
        check_address(f"https://{literal}/made.png", "https://api.provider.com/v1")
    assert check_address(f"http://{literal}/made.png", "http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.provider.com/x",
        "ftp://cdn.provider.com/x",
        "file:///etc/passwd",
        "https://u:p@cdn.provider.com/x",
        "https://",
        "https:///x",
        "data:image/png;base64,AA==",
        "//cdn.provider.com/x",
        "https://[::1",
        "x" * 9000,
    ],
)
def test_a_public_provider_leads_to_encrypted_public_addresses_only(url: str) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        check_address(url, "https://api.provider.com/v1")
    assert caught.value.error_code == "provider_failed" and caught.value.retry_after is None


def test_a_name_that_stands_for_a_private_address_is_refused() -> None:
    check_resolved(["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
    for address in ("10.0.0.1", "::1", "fe80::1%eth0"):
        with pytest.raises(ServiceUnavailable):
            check_resolved(["93.184.216.34", address])


@pytest.mark.parametrize(
    "location", ["http://cdn.provider.com/x", "https://127.0.0.1/x", "gopher://x.com/", "http://["]
)
def test_redirects_are_checked_again(location: str) -> None:
    with pytest.raises(ServiceUnavailable):
        redirected("https://cdn.provider.com/a", location, "https://api.provider.com")
    assert redirected("https://cdn.provider.com/a", "/b", "https://api.provider.com") == "https://cdn.provider.com/b"


@pytest.mark.parametrize("host", ["a" * 70 + ".com", "xn--zzzzzzzzzzzz--.com", "exa mple.com", "münchen.de", "a..b"])
def test_names_that_are_none_are_told_as_that(host: str) -> None:
    with FilePeer(sample_media()) as peer, pytest.raises(ServiceUnavailable) as caught:
        use(peer, lambda client: client.bring(f"http://{host}/made.png", Modality.IMAGE))
    assert caught.value.error_code == "provider_failed"


def test_a_name_is_looked_up_before_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 0))]

    with FilePeer(sample_media()) as peer:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        peer.url = "https://api.provider.com/v1"
        with pytest.raises(ServiceUnavailable, match="private network"):
            use(peer, lambda client: client.bring("https://cdn.provider.com/made.png", Modality.IMAGE))
        assert asked == ["cdn.provider.com"]
        assert peer.seen == []


# Downloads.


def test_redirects_are_followed_a_few_times_and_not_for_ever() -> None:
    with FilePeer(sample_media()) as peer:
        assert fetch(peer, "/to/1") == peer.media["image"]
        with pytest.raises(ServiceUnavailable, match="without an end"):
            fetch(peer, "/to/9")


def test_a_redirect_to_another_address_takes_no_key_along() -> None:
    with FilePeer(sample_media()) as peer, FilePeer(sample_media()) as other:
        peer.fail("download", Reply(307, headers={"Location": f"{other.url}/file"}))
        assert fetch(peer) == other.media["image"]
        assert peer.seen[0].headers["authorization"] == f"Bearer {peer.key}"
        assert "authorization" not in other.seen[0].headers


def test_a_download_without_an_end_is_left_off() -> None:
    with FilePeer(sample_media()) as peer:
        peer.fail("download", Reply(endless=True, headers={"Connection": "close"}))
        with pytest.raises(ServiceUnavailable, match="bytes"):
            fetch(peer)
        assert len(peer.seen) == 1


def test_an_answer_that_is_compressed_unasked_is_unpacked_within_the_limit() -> None:
    with FilePeer(sample_media()) as peer:
        packed = gzip.compress(peer.media["image"])
        peer.fail("download", Reply(200, packed, {"Content-Encoding": "gzip", "Content-Type": "image/png"}))
        assert fetch(peer) == peer.media["image"]
        bomb = gzip.compress(bytes(20_000_000))
        peer.fail("submit", Reply(200, bomb, {"Content-Encoding": "gzip"}))
        with pytest.raises(ServiceUnavailable, match="more than 1,000,000 bytes"):
            use(peer, lambda client: client.order("/x", Body(json={}), limit=1_000_000))
        peer.fail("download", Reply(200, b"packed", {"Content-Encoding": "br"}))
        with pytest.raises(ServiceUnavailable, match="compressed"):
            fetch(peer)


def test_a_clip_where_a_picture_was_asked_for_is_none_and_isnt_fetched_again() -> None:
    with FilePeer(sample_media()) as peer:
        peer.media["image"] = peer.media["video"]
        with pytest.raises(ServiceUnavailable) as caught:
            fetch(peer)
        assert caught.value.retry_after is None and len(peer.seen) == 1


def test_a_refused_download_waits_as_long_as_it_is_told() -> None:
    with FilePeer(sample_media()) as peer:
        peer.fail(
            "download", Reply(429, headers={"Retry-After": "12"}), Reply(200, PAGE, {"Content-Type": "text/html"})
        )
        with pytest.raises(ServiceUnavailable) as caught:
            fetch(peer)
        assert (caught.value.error_code, caught.value.retry_after) == ("provider_busy", 12)
        with pytest.raises(ServiceUnavailable, match="web page") as caught:
            fetch(peer)
        assert caught.value.retry_after is not None


def test_the_answers_beginning_decides_even_when_its_body_breaks_off() -> None:
    with FilePeer(sample_media()) as peer:
        peer.fail("submit", Reply(429, b"x" * 4000, {"Retry-After": "9"}, cut=10))
        with pytest.raises(ServiceUnavailable) as caught:
            use(peer, lambda client: client.order("/x", Body(json={}), limit=100))
        assert (caught.value.error_code, caught.value.retry_after) == ("provider_busy", 9)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_order_is_never_redirected(status: int) -> None:
    with FilePeer(sample_media()) as peer, FilePeer(sample_media()) as other:
        peer.fail("submit", Reply(status, headers={"Location": f"{other.url}/x"}))
        with pytest.raises(ServiceUnavailable, match="PEER_URL") as caught:
            use(peer, lambda client: client.order("/x", Body(json={}), limit=100))
        assert caught.value.error_code == "provider_account" and other.seen == []


# Waiting times and problems.


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=40)))
def test_no_header_makes_us_wait_for_less_than_a_second_or_more_than_an_hour(headers: dict[str, str]) -> None:
    wait = retry_after(headers, NOW)
    assert wait is None or 1 <= wait <= LONGEST_WAIT


@given(st.integers(1, 3600))
def test_seconds_milliseconds_and_dates_mean_the_same(seconds: int) -> None:
    until = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert retry_after({"retry-after": str(seconds)}, NOW) == seconds
    assert retry_after({"retry-after-ms": str(seconds * 1000)}, NOW) == seconds
    assert retry_after({"retry-after": until}, NOW) == seconds
    there = format_datetime(datetime.fromtimestamp(NOW + 500, UTC), usegmt=True)
    later = format_datetime(datetime.fromtimestamp(NOW + 500 + seconds, UTC), usegmt=True)
    assert retry_after({"retry-after": later, "date": there}, NOW) == seconds


@given(st.binary(max_size=200))
def test_any_body_can_be_an_error(body: bytes) -> None:
    assert read_problem(400, {}, body, now=NOW).status == 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "type", "errors", "metadata", "name"]), inner
            )
        ),
        max_leaves=8,
    )
)
def test_any_json_can_be_an_error(value: object) -> None:
    problem = read_problem(500, {}, json.dumps(value).encode(), now=NOW, key="sk-1")
    assert len(problem.message) <= 300 and problem.message.isprintable()


def test_what_looks_like_a_key_is_taken_out_of_what_the_provider_says() -> None:
    said = b'{"error": {"message": "key hunter2 of sk-proj-***abcd, \\u001b[31m Bearer x", "code": "c"}}'
    coded = read_problem(400, {}, b'{"error": {"code": "hunter2", "type": "sk-Live-1"}}', now=NOW, key="hunter2")
    assert coded.names == frozenset()
    assert read_problem(401, {}, said, now=NOW, key="hunter2").message == "key *** of *** [31m *** x"


# Settings.


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"OPENAI_API_KEY=\xff\xfe")
    with pytest.raises(ConfigurationError, match="can't be read"):
        ServiceSettings(file).read(ProviderSettings)


# Media.


def test_media_are_known_by_their_bytes() -> None:
    for modality in Modality:
        assert check_medium(sample_media()[modality], modality).startswith(modality.value)
        for other in set(Modality) - {modality}:
            with pytest.raises(MediaRejected):
                check_medium(sample_media()[other], modality)


@given(st.text(max_size=60))
def test_only_base64_is_read_as_base64(text: str) -> None:
    data = from_base64(text)
    assert data is None or base64.b64encode(data).decode() == text or base64.b64decode(text) == data
    assert from_data_url(f"data:image/png;base64,{base64.b64encode(text.encode()).decode()}") in (text.encode(), None)


@given(st.sampled_from(Modality), st.integers(0, 4000), st.integers(0, 4000), st.binary(max_size=12))
def test_a_damaged_medium_is_taken_or_refused_and_nothing_else(kind: Modality, at: int, end: int, junk: bytes) -> None:
    data = sample_media()[kind]
    damaged = data[: at % len(data)] + junk + data[at % len(data) + len(junk) :]
    try:
        check_medium(damaged[: len(data) - end % len(data)], kind)
    except MediaRejected as error:
        assert error.error_code in ("unsupported", "undecodable", "too_large", "too_slow")


# Jobs.


@given(
    st.sampled_from(Modality),
    st.sampled_from(MediaType),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_./:~-]{0,60}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,80}", fullmatch=True),
)
def test_a_ticket_survives_being_written(modality: Modality, kind: MediaType, model: str, job: str) -> None:
    ticket = Ticket(modality, kind, model, job)
    assert Ticket.parse(str(ticket)) == ticket


@given(st.text(max_size=80))
def test_other_texts_are_no_tickets_or_harmless_ones(text: str) -> None:
    try:
        ticket = Ticket.parse(text)
    except ServiceUnavailable:
        return
    assert str(ticket) == text and "/" not in ticket.id and not ticket.id.startswith(".")


# Sizes.


SIZES = st.one_of(
    st.fixed_dictionaries({"width": st.integers(16, 8192), "height": st.integers(16, 8192)}),
    st.fixed_dictionaries({"tier": st.integers(0, 2), "aspect_ratio": st.sampled_from(["1:1", "16:9", "2:3", "1:3"])}),
    st.fixed_dictionaries({"resolution": st.sampled_from(["1K", "2k", "4K", "720p", "1080p", 500, 3000, "700x900"])}),
    st.just({}),
)


@given(SIZES)
def test_a_free_size_is_within_the_bounds_and_meets_what_was_asked_in_numbers(parameters: dict[str, object]) -> None:
    wish = read_wish(GenerationTask(Modality.IMAGE, "x", 1, parameters))
    try:
        width, height = free_size(wish, step=16, longest=3840, least_pixels=655_360, most_pixels=3840 * 2160)
    except RequestRefused as error:
        assert error.error_code == "unsupported_parameters"
        assert wish.width > 1 or not 1 / 3 <= wish.ratio <= 3
        return
    assert width % 16 == height % 16 == 0
    assert max(width, height) <= 3840
    assert 655_360 <= width * height <= 3840 * 2160
    if wish.width:
        assert width >= wish.width and height >= wish.height


@given(SIZES)
def test_the_smallest_size_that_is_enough_is_chosen(parameters: dict[str, object]) -> None:
    wish = read_wish(GenerationTask(Modality.IMAGE, "x", 1, parameters))
    offers = [one for side in (1024, 2048, 4096) for one in offers_by_area(("1:1", "16:9", "2:3"), side * side)]
    try:
        chosen = choose(wish, offers)
    except RequestRefused as error:
        assert error.error_code == "unsupported_parameters" and wish.named_ratio
        return
    same_shape = [one for one in offers if one.name == chosen.name]
    enough = [one for one in same_shape if wish.is_met_by(one.width, one.height)]
    if enough:
        assert chosen == min(enough, key=lambda one: one.width)
    else:
        assert chosen == max(same_shape, key=lambda one: one.width) and not wish.width


PARAMETERS = st.sampled_from(
    [
        "resolution",
        "tier",
        "width",
        "height",
        "aspect_ratio",
        "seed",
        "duration",
        "voice",
        "negative_prompt",
        "strength",
        "steps",
    ]
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers())


@given(st.sampled_from(Modality), st.dictionaries(PARAMETERS, VALUES))
def test_any_parameters_are_a_wish_or_refused(modality: Modality, parameters: dict[str, object]) -> None:
    extras = ("duration", "voice", "negative_prompt", "strength")
    try:
        wish = read_wish(GenerationTask(modality, "x", -(10**30), parameters), extras)
    except RequestRefused as error:
        assert (error.status, error.error_code) == (422, "unsupported_parameters")
        return
    assert 0 <= wish.seed < 2**32 - 1
    assert 0.1 <= wish.ratio <= 512
    assert wish.width == 0 or 16 <= min(wish.width, wish.height) <= max(wish.width, wish.height) <= 9999


@pytest.mark.parametrize(
    "parameters",
    [
        {"tier": True},
        {"tier": -1},
        {"resolution": "huge"},
        {"resolution": "1x1x1"},
        {"resolution": 4.5},
        {"width": 64},
        {"aspect_ratio": "0:1"},
        {"aspect_ratio": "nan:1"},
        {"aspect_ratio": "1:0"},
        {"seed": True},
        {"seed": 1.5},
        {"width": "64", "height": 64},
        {"voice": "nova"},
        {"duration": 5},
        {"resolution": True},
    ],
)
def test_wishes_that_make_no_sense_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(RequestRefused) as caught:
        read_wish(GenerationTask(Modality.IMAGE, "x", 1, parameters))
    assert (caught.value.status, caught.value.error_code) == (422, "unsupported_parameters")
