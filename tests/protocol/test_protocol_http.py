"""The gate, the client and the errors over real HTTP semantics, in one process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

from gas.chain.base import Metagraph, Neuron
from gas.chain.keys import signer_from_seed
from gas.clock import ManualClock, SeededIds
from gas.errors import (
    ChainUnreachable,
    ConfigurationError,
    GasError,
    InfrastructureError,
    MediaRejected,
    PackageRejected,
    RateLimited,
    Reason,
    RequestRefused,
    StorageError,
)
from gas.protocol.client import PeerUnreachable, SignedClient, encode_multipart
from gas.protocol.epistula import ReplayGuard, sign_request
from gas.protocol.server import (
    EpistulaGate,
    MetagraphCache,
    error_response,
    install_error_handler,
    parse_multipart,
)

ANN, STRANGER, ME = (signer_from_seed(bytes([n]) * 32) for n in (1, 2, 3))
LIMIT = 1000


def neuron(uid: int, hotkey: str, permit: bool) -> Neuron:
    return Neuron(uid, hotkey, hotkey, 100, permit, None, 0, 0, 0.0, 0.0, 0.0, 0.0, 0, True)


class FakeChain:
    """Answers metagraph() only."""

    def __init__(self) -> None:
        self.hotkeys = [ANN.ss58_address]
        self.calls = 0
        self.down = False

    async def metagraph(self, netuid: int) -> Metagraph:
        self.calls += 1
        if self.down:
            raise ChainUnreachable("The node does not answer.")
        return Metagraph(netuid, 1, 0, tuple(neuron(i, h, True) for i, h in enumerate(self.hotkeys)))


class Service:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.chain = FakeChain()
        self.cache = MetagraphCache(self.chain, 1, self.clock)
        gate = EpistulaGate(ME.ss58_address, self.cache, self.clock, ReplayGuard(), need_permit=True)
        self.folder = folder
        self.read = 0
        self.app = FastAPI()
        install_error_handler(self.app)

        @self.app.post("/echo")
        async def echo(request: Request) -> dict[str, object]:
            signed = await gate.receive(request, limit=LIMIT)
            return {"hotkey": signed.hotkey, "size": len(signed.body), "sha256": signed.sha256}

        @self.app.post("/file")
        async def file(request: Request) -> dict[str, object]:
            signed = await gate.receive_to(request, folder / "upload", limit=LIMIT)
            form = await parse_multipart(request.headers["content-type"], folder / "upload")
            upload = form["zip"]
            assert not isinstance(upload, str)
            content = await upload.read()
            await form.close()
            return {"size": signed.size, "modality": form["modality"], "zip": content.decode()}

        @self.app.post("/broken")
        async def broken() -> None:
            raise StorageError("The database failed.")

        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app, raise_app_exceptions=False), base_url="http://service"
        )
        self.client = self.as_client(ANN)

    def as_client(self, signer) -> SignedClient:
        return SignedClient(signer, self.http, self.clock, SeededIds())


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_a_signed_body_arrives_as_it_was_sent(service: Service) -> None:
    async def work() -> None:
        answer = await service.client.post_json("/echo", {"a": 1}, signed_for=ME.ss58_address)
        assert answer.json() == {
            "hotkey": ANN.ss58_address,
            "size": 7,
            "sha256": hashlib.sha256(b'{"a":1}').hexdigest(),
        }

    asyncio.run(work())


def test_a_refusal_crosses_the_wire_with_status_code_and_hint(service: Service) -> None:
    async def work() -> None:
        with pytest.raises(RequestRefused) as error:
            await service.as_client(STRANGER).post_json("/echo", {}, signed_for=ME.ss58_address)
        assert (error.value.status, error.value.error_code) == (401, "unknown_signer")
        with pytest.raises(RequestRefused) as error:
            await service.client.post_json("/echo", {}, signed_for=STRANGER.ss58_address)
        assert (error.value.status, error.value.error_code) == (400, "not_for_us")
        unsigned = await service.http.post("/echo", content=b"x")
        assert unsigned.status_code == 400
        assert unsigned.json()["error"]["code"] == "unknown_version"
        assert unsigned.json()["error"]["hint"]

    asyncio.run(work())


def test_a_captured_request_that_is_sent_again_gets_409(service: Service) -> None:
    async def work() -> None:
        headers = sign_request(
            ANN,
            b"x",
            signed_for=ME.ss58_address,
            now_ms=int(service.clock.time() * 1000),
            uuid=SeededIds(5).new(),
        )
        first = await service.http.post("/echo", content=b"x", headers=headers)
        second = await service.http.post("/echo", content=b"x", headers=headers)
        assert (first.status_code, second.status_code) == (200, 409)

    asyncio.run(work())


async def endless(service: Service) -> AsyncIterator[bytes]:
    while True:
        service.read += 100
        yield b"x" * 100


def test_a_body_over_the_limit_is_refused_while_it_streams(service: Service) -> None:
    async def work() -> None:
        def headers() -> dict[str, str]:
            service.clock.advance(0.001)
            return sign_request(
                ANN,
                b"",
                signed_for=ME.ss58_address,
                now_ms=int(service.clock.time() * 1000),
                uuid=SeededIds(int(service.clock.now * 1000)).new(),
            )

        response = await service.http.post("/echo", content=endless(service), headers=headers())
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "body_too_large"
        assert service.read <= LIMIT + 300
        # An honest length is enough to refuse; one that lies changes nothing.
        declared = await service.http.post("/echo", content=b"x" * (LIMIT + 1), headers=headers())
        assert declared.status_code == 413
        service.read = 0
        liar = await service.http.post("/echo", content=endless(service), headers={**headers(), "Content-Length": "10"})
        assert liar.status_code == 413
        assert service.read <= LIMIT + 300

    asyncio.run(work())


def test_a_strangers_body_is_not_read_at_all(service: Service) -> None:
    async def work() -> None:
        response = await service.http.post("/echo", content=endless(service))
        assert response.status_code == 400
        assert service.read <= 100

    asyncio.run(work())


def test_a_refused_upload_leaves_no_file(service: Service) -> None:
    async def work() -> None:
        body, content_type = encode_multipart({"modality": "image"}, {"zip": ("a.zip", b"PK", "application/zip")})
        with pytest.raises(RequestRefused) as error:
            await service.client.send(
                "POST", "/file", body=b"x" * 2 * LIMIT, content_type=content_type, signed_for=ME.ss58_address
            )
        assert error.value.status == 413
        headers = sign_request(
            ANN,
            body + b"tampered",
            signed_for=ME.ss58_address,
            now_ms=int(service.clock.time() * 1000),
            uuid=SeededIds(9).new(),
        )
        response = await service.http.post("/file", content=body, headers={**headers, "Content-Type": content_type})
        assert response.json()["error"]["code"] == "bad_signature"
        assert not any(service.folder.iterdir())

    asyncio.run(work())


def test_a_form_is_signed_over_its_encoded_bytes(service: Service) -> None:
    async def work() -> None:
        answer = await service.client.post_multipart(
            "/file",
            {"modality": "image"},
            {"zip": ("a.zip", b"PK content", "application/zip")},
            signed_for=ME.ss58_address,
        )
        found = answer.json()
        assert isinstance(found, dict)
        assert (found["modality"], found["zip"]) == ("image", "PK content")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 50),
    ],
)
def test_a_form_that_is_none_is_refused(content_type: str, body: bytes) -> None:
    async def work() -> None:
        with pytest.raises(RequestRefused) as error:
            await (await parse_multipart(content_type, body)).close()
        assert (error.value.status, error.value.error_code) == (422, "bad_multipart")

    asyncio.run(work())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RequestRefused("No.", status=409, code="replayed"), 409, "replayed"),
        (MediaRejected("No.", code="duplicate"), 422, "duplicate"),
        (PackageRejected((Reason("x", "Bad.", "model.py", 3),)), 422, "package_rejected"),
        (StorageError("Ours."), 503, "storage"),
        (InfrastructureError("Ours."), 503, "infrastructure"),
        (RateLimited("Slowly.", blocks=3), 429, "rate_limited"),
        (ConfigurationError("The secret is in /etc/x."), 500, "configuration"),
        (GasError("Other."), 500, "error"),
    ],
)
def test_each_error_has_the_status_of_whose_fault_it_is(error: GasError, status: int, code: str) -> None:
    response = error_response(error)
    assert response.status_code == status
    assert f'"code":"{code}"'.encode() in bytes(response.body)
    assert b"/etc/x" not in bytes(response.body)


def test_a_package_refusal_lists_every_reason_with_file_and_line() -> None:
    body = bytes(error_response(PackageRejected((Reason("x", "Bad.", "model.py", 3),))).body)
    assert b'"reasons":[{"code":"x","message":"Bad.","file":"model.py","line":3}]' in body


def test_a_failure_of_the_peers_is_retried_only_when_asked_and_with_pauses(service: Service) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> None:
        client = SignedClient(ANN, service.http, service.clock, SeededIds(), sleep=sleep)
        with pytest.raises(PeerUnreachable) as error:
            await client.send("POST", "/broken")
        assert error.value.error_code == "peer_failed"
        assert pauses == []
        with pytest.raises(PeerUnreachable):
            await client.send("POST", "/broken", attempts=3)
        assert pauses == [0.5, 1.0]

    asyncio.run(work())


def test_each_attempt_has_a_fresh_uuid_so_that_a_retry_is_no_replay() -> None:
    uuids: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        uuids.append(request.headers["epistula-uuid"])
        if len(uuids) < 3:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=b"ok")

    async def no_pause(_: float) -> None:
        return None

    async def work() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
            client = SignedClient(ANN, http, ManualClock(), SeededIds(), sleep=no_pause)
            answer = await client.send("POST", "http://peer/?token=secret", attempts=3)
            assert answer.body == b"ok"
            with pytest.raises(PeerUnreachable) as error:
                uuids.clear()
                await client.send("POST", "http://peer/?token=secret")
            assert "secret" not in str(error.value)

    asyncio.run(work())
    assert len(set(uuids)) == len(uuids)


def test_hostile_answers_are_errors_of_the_peer() -> None:
    answers = {
        "/huge": httpx.Response(200, content=b"x" * 2000),
        "/moved": httpx.Response(302, headers={"Location": "http://elsewhere/"}),
        "/odd": httpx.Response(418, content=b"\xff not json"),
        "/deep": httpx.Response(200, content=b"[" * 100_000),
    }

    async def work() -> None:
        transport = httpx.MockTransport(lambda request: answers[request.url.path])
        async with httpx.AsyncClient(transport=transport) as http:
            client = SignedClient(ANN, http, ManualClock(), SeededIds())
            for path in ("/huge", "/moved"):
                with pytest.raises(PeerUnreachable):
                    await client.send("GET", f"http://peer{path}", max_answer=1000)
            with pytest.raises(RequestRefused) as error:
                await client.get("http://peer/odd")
            assert error.value.status == 418
            deep = await client.get("http://peer/deep")
            with pytest.raises(PeerUnreachable):
                deep.json()
            with pytest.raises(PeerUnreachable):
                await client.get("http://peer:bad/")

    asyncio.run(work())


def test_the_metagraph_is_fetched_once_a_minute_and_again_for_a_newcomer(service: Service) -> None:
    async def work() -> None:
        cache, chain, clock = service.cache, service.chain, service.clock
        assert await cache.standing(ANN.ss58_address) is not None
        assert await cache.standing(ANN.ss58_address) is not None
        assert chain.calls == 1
        chain.hotkeys.append(STRANGER.ss58_address)
        assert await cache.standing(STRANGER.ss58_address) is None
        assert chain.calls == 1
        clock.advance(3)
        assert await cache.standing(STRANGER.ss58_address) is not None
        assert chain.calls == 2
        for _ in range(20):
            assert await cache.standing("nobody") is None
        assert chain.calls == 2
        clock.advance(61)
        await cache.get()
        assert chain.calls == 3

    asyncio.run(work())


def test_strangers_share_one_look_at_a_slow_chain_and_nobody_known_waits_for_it(service: Service) -> None:
    going = asyncio.Event()

    async def slowly(netuid: int) -> Metagraph:
        service.chain.calls += 1
        began.set()
        await going.wait()
        service.clock.advance(10.0)
        return Metagraph(netuid, 1, 0, (neuron(0, ANN.ss58_address, True),))

    began = asyncio.Event()

    async def work() -> None:
        assert await service.cache.standing(ANN.ss58_address) is not None
        service.clock.advance(5.0)
        service.chain.metagraph = slowly  # type: ignore[method-assign]
        strangers = [asyncio.create_task(service.cache.standing(f"stranger {k}")) for k in range(20)]
        await began.wait()
        async with asyncio.timeout(10):
            assert await service.cache.standing(ANN.ss58_address) is not None
        going.set()
        assert await asyncio.gather(*strangers) == [None] * 20

    asyncio.run(work())
    assert service.chain.calls == 2


def test_a_chain_that_is_down_is_bridged_for_an_hour_and_then_ours_to_answer_for(service: Service) -> None:
    async def work() -> None:
        service.chain.down = True
        answer = await service.http.post("/echo", content=b"x")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "chain_unreachable"
        service.chain.down = False
        service.clock.advance(61)
        await service.cache.get()
        service.chain.down = True
        service.clock.advance(600)
        assert await service.cache.standing(ANN.ss58_address) is not None
        service.clock.advance(3601)
        with pytest.raises(ChainUnreachable):
            await service.cache.get()

    asyncio.run(work())
