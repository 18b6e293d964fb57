"""Deliveries: where they may go, what ends them, and who is not held up by whom."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from miner_ground import key

from gas.clock import RandomIds, SystemClock
from gas.errors import RequestRefused
from gas.miners.delivery import Courier, DeliveryRules, read_verdict
from gas.miners.states import Task, TaskState, Verdict
from gas.miners.tasks import TaskStore
from gas.miners.webhooks import GuardedTransport, check_webhook, check_webhook_host, is_public
from gas.protocol.client import SignedClient

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PRIVATE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.9.9", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1",
    "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_known_in_every_form(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_as_public_as_the_one_that_it_carries(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if isinstance(address, ipaddress.IPv4Address):
        public = is_public(str(address))
        assert is_public(f"::ffff:{address}") == public
        assert public or not is_public(
            str(ipaddress.IPv6Address(int(ipaddress.ip_address("64:ff9b::")) + int(address)))
        )
        assert not (public and (address.is_private or address.is_loopback or address.is_multicast))


def test_public_addresses_are_public() -> None:
    assert all(is_public(address) for address in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8"))


@pytest.mark.parametrize(
    "url", ["http://x.lan/", "http://a.home.arpa/", "http://localhost./", "http://example.org/\n", "http://exämple.org/",
            "file:///etc/passwd", "http://example.org/#x", "http://" + "a" * 3000, "//example.org/x"],
)  # fmt: skip
def test_addresses_of_webhooks_that_make_no_sense_are_refused(url: str) -> None:
    with pytest.raises(RequestRefused) as refusal:
        check_webhook(url, allow_local=False)
    assert refusal.value.error_code == "bad_webhook"


def _resolver(*answers: list[str] | OSError) -> Any:
    left = list(answers)

    async def resolve(_host: str, _port: int) -> list[str]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    return resolve


def test_a_name_is_looked_at_again_when_the_connection_is_made() -> None:
    """Rebinding: public when the task is taken, private when the medium is sent."""
    resolve = _resolver(["93.184.216.34"], ["127.0.0.1"])
    reached: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reached.append(request)
        return httpx.Response(200)

    async def story() -> None:
        await check_webhook_host("http://rebind.example/x", resolve)
        async with httpx.AsyncClient(transport=GuardedTransport(resolve, httpx.MockTransport(answer))) as http:
            with pytest.raises(httpx.ConnectError):
                await http.post("http://rebind.example/x", content=b"medium")

    asyncio.run(story())
    assert reached == []


def test_the_connection_goes_to_the_address_that_was_looked_at_under_its_own_name() -> None:
    reached: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        reached.append(request)
        return httpx.Response(200)

    async def story() -> None:
        transport = GuardedTransport(_resolver(["93.184.216.34"]), httpx.MockTransport(answer))
        async with httpx.AsyncClient(transport=transport) as http:
            await http.post("https://hook.example:8443/x?y=1", content=b"medium")

    asyncio.run(story())
    (request,) = reached
    assert str(request.url) == "https://93.184.216.34:8443/x?y=1"
    assert request.headers["host"] == "hook.example:8443"
    assert request.extensions["sni_hostname"] == "hook.example"
    assert request.content == b"medium"


def test_a_name_that_can_not_be_resolved_is_left_to_the_delivery() -> None:
    asyncio.run(check_webhook_host("http://later.example/", _resolver(OSError("no such name"))))


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A raw server and its address; nothing of it is left afterwards."""
    at_work: set[asyncio.Task[Any]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        at_work.add(task)
        try:
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)
        # Sockets that were cut off are closed in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)


class Post:
    """A courier, a task that waits, and a raw server that plays the validator."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.store = TaskStore(folder, self.clock, RandomIds())

    def task(self, url: str, validator: str = "validator") -> Task:
        task = self.store.add(key(validator).ss58_address, "image", "p", {}, url, limit=99)
        assert task is not None
        self.store.generated(task.id, b"\x89PNG", "image/png")
        return task

    async def deliver(self, tasks: list[Task], **rules: Any) -> None:
        usual = {
            "first_pause_seconds": 0.01,
            "max_pause_seconds": 0.01,
            "timeout_seconds": 5.0,
            "max_age_seconds": 20.0,
        }
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            client = SignedClient(key("miner"), http, self.clock, RandomIds())
            courier = Courier(self.store, client, self.clock, DeliveryRules(**{**usual, **rules}))
            await asyncio.gather(*(courier.deliver(task.id) for task in tasks))

    def end(self, serve: Serve, **rules: Any) -> Task:
        """How a delivery to such a server ends."""

        async def run() -> Task:
            async with listening(serve) as url:
                task = self.task(url)
                await self.deliver([task], **rules)
            found = self.store.get(task.id)
            assert found is not None
            return found

        return asyncio.run(run())


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path)
    yield post
    post.store.close()


async def _request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
    await reader.readexactly(int(length.split(b":")[1]))


def answering(*answers: tuple[int, bytes, bytes]) -> Serve:
    """A server that gives these answers one after the other, the last one for good."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        status, headers, body = left.pop(0) if len(left) > 1 else left[0]
        length = len(body)
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n" % (status, length, headers)
        writer.write(head + body)
        writer.close()

    return serve


def refusal(status: int, code: str) -> tuple[int, bytes, bytes]:
    return status, b"", json.dumps({"error": {"code": code, "message": "No."}}).encode()


OK = (200, b"", b'{"status": "refused", "reasons": [{"code": "duplicate"}, {"code": "BAD CODE"}, 7]}')


def test_a_redirect_is_not_followed_and_ends_the_delivery(post: Post) -> None:
    ended = post.end(answering((302, b"Location: http://127.0.0.1:1/secret\r\n", b""), OK))
    assert (ended.state, ended.error_code, ended.attempts) == (TaskState.FAILED, "webhook_redirected", 1)


def test_a_busy_validator_is_tried_again_and_its_verdict_is_kept(post: Post) -> None:
    ended = post.end(answering((503, b"", b""), (429, b"", b""), OK))
    assert (ended.state, ended.verdict, ended.reasons, ended.attempts) == (
        TaskState.DELIVERED, "refused", ["duplicate"], 3,
    )  # fmt: skip


def test_a_refusal_for_good_is_not_tried_again(post: Post) -> None:
    ended = post.end(answering(refusal(410, "too_late")))
    assert (ended.state, ended.error_code, ended.reasons, ended.attempts) == (
        TaskState.FAILED, "delivery_refused", ["too_late"], 1,
    )  # fmt: skip


def test_a_delivery_whose_answer_was_lost_counts_when_the_validator_has_it(post: Post) -> None:
    ended = post.end(answering((500, b"", b""), refusal(409, "already_delivered")))
    assert (ended.state, ended.error) == (TaskState.DELIVERED, None)


def test_a_peer_that_drips_or_closes_half_way_does_not_hold_a_delivery_for_ever(post: Post) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        try:
            while True:
                writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: 1\r\n"[:3])
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            writer.close()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    for serve in (drip, half):
        ended = post.end(serve, timeout_seconds=0.3, max_age_seconds=2.0)
        assert (ended.state, ended.error_code) == (TaskState.EXPIRED, "expired")
        assert ended.attempts


def test_a_slow_validator_does_not_hold_up_another_one(post: Post) -> None:
    async def story() -> list[str]:
        waiting = asyncio.Event()

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _request(reader)
            await waiting.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        ended: list[str] = []
        async with listening(slow) as held_up, listening(answering(OK)) as free:
            urls = [held_up, free]
            held = [post.task(urls[0], "validator") for _ in range(12)]
            quick = post.task(urls[1], "poor")
            async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
                client = SignedClient(key("miner"), http, post.clock, RandomIds())
                courier = Courier(post.store, client, post.clock, DeliveryRules())
                rest = [asyncio.create_task(courier.deliver(task.id)) for task in held]
                await courier.deliver(quick.id)
                ended.append(post.store.get(quick.id).state)  # type: ignore[union-attr]
                waiting.set()
                await asyncio.gather(*rest)
        return ended

    assert asyncio.run(story()) == ["delivered"]
    assert post.store.counts() == {"delivered": 13}


def test_a_medium_that_is_gone_from_the_disk_is_told_as_a_failure(post: Post) -> None:
    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def story() -> None:
        async with listening(serve) as url:
            task = post.task(url)
            for path in (post.store.folder / "outgoing").glob("??/*"):
                path.unlink()
            await post.deliver([task])

    asyncio.run(story())
    assert b"task-status: failed" in told[0]


@settings(max_examples=40)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(
        lambda value: json.dumps({"status": "refused", "reasons": value}).encode()
    )
)
def test_whatever_a_validator_answers_is_read_without_harm(body: bytes) -> None:
    verdict = read_verdict(body)
    assert verdict.status in ("", "verified", "refused")
    assert all(len(code) <= 64 for code in verdict.reasons)
    assert len(verdict.reasons) <= 16


def test_an_answer_that_says_nothing_is_no_verdict() -> None:
    assert read_verdict(b"<html>") == read_verdict(b"[]") == read_verdict(b'{"status": "great"}') == Verdict()
