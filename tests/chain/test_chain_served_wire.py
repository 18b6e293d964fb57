"""Bad callers of a served ledger: each gets a typed error, and the ledger stays as it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gas.chain.local.calls import sign_call
from gas.chain.served.client import ServedChain
from gas.chain.served.server import LedgerServer, ServerLimits
from gas.chain.served.wire import MAX_REQUEST_BYTES, call_to_json, error_from_json, error_to_json
from gas.errors import ChainError, ChainRefused, ChainUnreachable, NotRegistered, RateLimited

TAO = 10**9

Scenario = Callable[[LedgerServer], Awaitable[None]]


def serve(town, scenario: Scenario, limits: ServerLimits | None = None) -> None:
    async def work() -> None:
        async with asyncio.timeout(60):
            async with LedgerServer(town.path, town.clock, port=0, limits=limits) as server:
                await scenario(server)

    asyncio.run(work())


async def say(peer: ClientConnection, message: Any) -> Any:
    await peer.send(message if isinstance(message, str | bytes) else json.dumps(message))
    return json.loads(await peer.recv())


def request(method: str, params: Any = None, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {} if params is None else params}


def transfer(town, amount: Any = TAO, *, nonce: int = 0, chain_id: str = "") -> dict[str, Any]:
    signed = sign_call(
        chain_id or town.ledger.chain_id,
        "transfer",
        {"address": town.cold("bob").ss58_address, "amount": amount},
        signer=town.cold("ann"),
        nonce=nonce,
    )
    return dict(call_to_json(signed))


@pytest.fixture
def town(found):
    town = found()
    town.join("ann")
    return town


def spoilt(town) -> dict[str, tuple[Any, str]]:
    """Calls that nobody with ann's key has signed for this ledger and this turn, and the code of their refusal."""
    good = transfer(town, nonce=1)
    return {
        "unsigned": ({**good, "signature": ""}, "bad_signature"),
        "without a signature": ({k: v for k, v in good.items() if k != "signature"}, "bad_signature"),
        "signed by another": ({**good, "signer": town.cold("bob").ss58_address}, "bad_signature"),
        "changed after signing": ({**good, "params": {**good["params"], "amount": 2 * TAO}}, "bad_signature"),
        "another call": ({**good, "call": "add_stake"}, "bad_signature"),
        "signed for another ledger": (transfer(town, nonce=1, chain_id="00" * 16), "bad_signature"),
        "half a signature": ({**good, "signature": good["signature"][:64]}, "bad_signature"),
        "signature of zeros": ({**good, "signature": "00" * 64}, "bad_signature"),
        "a cosigner that did not sign": ({**good, "cosigner": town.hot("bob").ss58_address}, "bad_signature"),
        "no hex": ({**good, "signature": "zz"}, "malformed_call"),
        "a signature that is a number": ({**good, "signature": 5}, "malformed_call"),
        "nonce below": (transfer(town, nonce=0), "bad_nonce"),
        "nonce ahead": (transfer(town, nonce=7), "bad_nonce"),
        "nonce -1": ({**good, "nonce": -1}, "malformed_call"),
        "huge nonce": ({**good, "nonce": 2**70}, "malformed_call"),
        "nonce that is true": ({**good, "nonce": True}, "malformed_call"),
        "params that are a list": ({**good, "params": [1]}, "malformed_call"),
        "negative": (transfer(town, -TAO, nonce=1), "malformed_call"),
        "zero": (transfer(town, 0, nonce=1), "malformed_call"),
        "huge": (transfer(town, 2**80, nonce=1), "malformed_call"),
        "more than there is": (transfer(town, 2**60, nonce=1), "insufficient_balance"),
        "unknown call": ({**good, "call": "mint_all"}, "unknown_call"),
        "call that is no text": ({**good, "call": ["transfer"]}, "malformed_call"),
        "signer with a lone surrogate": ({**good, "signer": "\ud800"}, "malformed_call"),
    }


def test_a_call_that_is_not_signed_as_it_should_be_moves_nothing(town) -> None:
    before, cases = town.ledger.totals(), spoilt(town)

    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as peer:
            for name, (call, code) in cases.items():
                answer = await say(peer, request("gas.submit", call))
                assert answer["error"]["data"]["code"] == code, name
            answer = await say(peer, request("gas.submit", transfer(town, nonce=1)))
            assert "error" not in answer
            replay = await say(peer, request("gas.submit", transfer(town, nonce=1)))
            assert replay["error"]["data"]["code"] == "bad_nonce"

    serve(town, scenario)
    assert town.ledger.totals() == before
    with town.ledger.read() as tx:
        assert tx.balance(town.cold("bob").ss58_address) == TAO


NONSENSE = [
    "",
    "{",
    "[]",
    "null",
    "5",
    '"gas.block"',
    "[" * 100_000,
    '{"id": 1e999}',
    '{"jsonrpc": "2.0", "id": NaN, "method": "gas.block"}',
    '{"id": ' + "9" * 6000 + "}",
    '{"id": null, "method": "gas.block"}',
    '{"id": {}, "method": "gas.block"}',
    '{"id": 1, "method": 5}',
    '{"id": 1, "method": "gas.block", "params": [1]}',
    '{"id": 1, "method": "gas.block", "params": "x"}',
    '{"id": "' + "x" * 100 + '", "method": "gas.block"}',
    b"\x00\xff",
    '[{"id": 1, "method": "gas.block"}]',
]


def test_what_is_no_request_is_answered_with_an_error_and_the_talk_goes_on(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as peer:
            for message in NONSENSE:
                answer = await say(peer, message)
                assert answer["error"]["data"]["code"] == "malformed_request", message[:40]
                assert answer["error"]["code"] in (-32700, -32600)
            assert (await say(peer, request("gas.block")))["result"] == 0

    serve(town, scenario)


@pytest.mark.parametrize(
    ("method", "params", "code", "number"),
    [
        ("gas.mint", {}, "unknown_method", -32601),
        ("", {}, "unknown_method", -32601),
        ("__init__", {}, "unknown_method", -32601),
        ("gas.metagraph", {}, "malformed_call", -32602),
        ("gas.metagraph", {"netuid": "1"}, "malformed_call", -32602),
        ("gas.metagraph", {"netuid": -1}, "malformed_call", -32602),
        ("gas.metagraph", {"netuid": 2**80}, "malformed_call", -32602),
        ("gas.metagraph", {"netuid": 9}, "unknown_subnet", -32000),
        ("gas.balance", {"address": "nobody"}, "malformed_call", -32602),
        ("gas.balance", {"address": "'; DROP TABLE accounts; --"}, "malformed_call", -32602),
        ("gas.commitment", {"netuid": 1, "hotkey": None}, "malformed_call", -32602),
        ("gas.emissions", {"netuid": 1, "since_epoch": -1}, "malformed_call", -32602),
        ("gas.submit", {}, "malformed_call", -32602),
    ],
)
def test_a_request_that_asks_for_what_is_not_there_says_so(
    town, method: str, params: dict[str, Any], code: str, number: int
) -> None:
    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as peer:
            error = (await say(peer, request(method, params)))["error"]
            assert (error["data"]["code"], error["code"]) == (code, number)
            assert error["message"]

    serve(town, scenario)


def test_a_call_that_is_too_large_is_refused_and_a_frame_that_is_too_large_ends_one_connection(town) -> None:
    large = {**transfer(town, nonce=1), "params": {"data": "x" * 300_000}}

    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as peer, connect(server.address) as other:
            answer = await say(peer, request("gas.submit", large))
            assert answer["error"]["data"]["code"] == "malformed_call"
            with pytest.raises(ConnectionClosed) as closed:
                await peer.send(" " * (MAX_REQUEST_BYTES + 1))
                await peer.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
            assert (await say(other, request("gas.block")))["result"] == 0

    serve(town, scenario)


def test_a_million_weights_are_refused_before_they_are_sent_and_after(town) -> None:
    many = list(range(65536)) * 15 + list(range(16960))
    assert len(many) == 10**6

    async def scenario(server: LedgerServer) -> None:
        chain = ServedChain(server.address, town.hot("ann"), town.clock)
        try:
            with pytest.raises(ChainRefused) as refused:
                await chain.set_weights(1, many, many)
            assert refused.value.error_code == "malformed_call"
            # As many as fit into a call are refused by the ledger itself.
            with pytest.raises(ChainRefused) as refused:
                await chain.set_weights(1, [1] * 20_000, [1] * 20_000)
            assert "4096" in refused.value.message
            assert await chain.block() == 0
        finally:
            await chain.close()

    serve(town, scenario)


def test_a_flood_is_answered_message_by_message_and_hurts_nobody_else(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as flooding, connect(server.address) as polite:
            for number in range(300):
                await flooding.send(json.dumps(request("gas.metagraph", {"netuid": 1}, number)))
            assert (await say(polite, request("gas.block")))["result"] == 0
            answers = [json.loads(await flooding.recv()) for _ in range(300)]
            assert {answer["id"] for answer in answers} == set(range(300))
            refused = [answer["error"]["data"]["code"] for answer in answers if "error" in answer]
            assert set(refused) == {"too_busy"}
            assert len(refused) < 300

    serve(town, scenario, ServerLimits(waiting=2))


def test_more_connections_than_the_server_takes_are_told_to_come_later(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as first:
            await say(first, request("gas.block"))
            chain = ServedChain(server.address, town.hot("ann"), town.clock)
            with pytest.raises(ChainUnreachable) as busy:
                await chain.block()
            assert busy.value.error_code == "chain_busy"

    serve(town, scenario, ServerLimits(connections=1))


def test_an_idle_connection_is_closed_and_a_client_opens_a_new_one_when_it_needs_it(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        chain = ServedChain(server.address, town.hot("ann"), town.clock)
        async with connect(server.address) as peer:
            assert await chain.block() == 0
            with pytest.raises(ConnectionClosed) as closed:
                await peer.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.reason == "idle"
            assert await chain.block() == 0
            await chain.close()

    serve(town, scenario, ServerLimits(idle_seconds=0.05))


def test_who_knocks_with_something_else_is_turned_away_in_silence(town, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario(server: LedgerServer) -> None:
        for said in (b"\x16\x03\x01 hello\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 100_000, b""):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(said)
            writer.write_eof()
            with suppress(ConnectionError):
                await reader.read()
            writer.close()
        async with connect(server.address) as peer:
            assert (await say(peer, request("gas.block")))["result"] == 0

    serve(town, scenario)
    assert capfd.readouterr().err == ""


def test_a_page_in_a_browser_gets_no_connection(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        with pytest.raises(InvalidStatus) as refused:
            await connect(server.address, origin="http://example.com").__aenter__()
        assert refused.value.response.status_code == 403

    serve(town, scenario)


def test_refusals_arrive_as_the_errors_that_the_ledger_raised(found) -> None:
    town = found(weights_rate_limit=7)
    town.join("ann", stake=TAO)

    async def scenario(server: LedgerServer) -> None:
        ann = ServedChain(server.address, town.hot("ann"), town.clock)
        bob = ServedChain(server.address, town.hot("bob"), town.clock)
        with pytest.raises(RateLimited) as limited:
            await ann.set_weights(1, [1], [1])
        assert limited.value.blocks == 7
        assert "7 blocks" in str(limited.value)
        with pytest.raises(NotRegistered) as missing:
            await bob.set_commitment(1, "x")
        assert missing.value.hint == "Register it first."
        await ann.close()
        await bob.close()

    serve(town, scenario)


def test_only_the_root_moves_the_blocks_of_a_served_ledger(town) -> None:
    async def scenario(server: LedgerServer) -> None:
        ann = ServedChain(server.address, None, town.clock, coldkey=town.cold("ann"))
        root = ServedChain(server.address, None, town.clock, coldkey=town.root)
        for call in (ann.pause, ann.resume, lambda: ann.advance(1)):
            with pytest.raises(ChainRefused) as refused:
                await call()
            assert refused.value.error_code == "not_root"
        assert await root.block() == 0
        assert await root.advance(25) == 25
        assert (await root.standing(1)).epochs == 2
        with pytest.raises(ChainRefused) as far:
            await root.advance(10**9)
        assert far.value.error_code == "too_far"
        await root.resume()
        assert not (await root.standing(1)).manual
        with pytest.raises(ChainRefused) as running:
            await root.advance(1)
        assert running.value.error_code == "not_manual"
        await root.pause()
        assert await root.block() == 25
        await ann.close()
        await root.close()

    serve(town, scenario)


def test_an_errors_text_from_the_wire_can_not_steer_a_terminal() -> None:
    hostile = {"kind": "ChainRefused", "code": "x; rm", "message": "\x1b[2J\r\nyes" + "a" * 5000, "hint": "\u202e"}
    error = error_from_json({"code": -1, "message": "x", "data": hostile})
    assert error.message.startswith("?[2J??yes")
    assert len(error.message) <= 500
    assert error.error_code == "chain_refused"
    assert error.hint == "?"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "code", "message", "hint", "blocks", "data"]), x, max_size=6)
        ),
        max_leaves=8,
    )
)
def test_whatever_a_server_sends_as_an_error_becomes_one(value: Any) -> None:
    assert isinstance(error_from_json(value), ChainError)


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("Too soon.", blocks=3),
        NotRegistered("No.", hint="Register."),
        ChainRefused("No.", code="duplicate_uids"),
        ChainUnreachable("Gone.", code="disk_full"),
    ],
)
def test_an_error_crosses_the_wire_unchanged(error: ChainError) -> None:
    back = error_from_json(
        {"code": -32000, "message": error.message, "data": json.loads(json.dumps(error_to_json(error)))}
    )
    assert type(back) is type(error)
    assert back.as_dict() == error.as_dict()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(max_size=60)
        | st.binary(max_size=60)
        | st.builds(
            lambda m, p: json.dumps(request(m, p)),
            st.sampled_from(["gas.submit", "gas.nonce", "gas.metagraph", "gas.included", "gas.weights"]),
            st.dictionaries(
                st.sampled_from(["netuid", "address", "signer", "nonce", "params", "call", "signature", "cosigner"]),
                st.none() | st.integers() | st.text(max_size=10) | st.lists(st.integers(), max_size=2),
            ),
        ),
        max_size=12,
    )
)
def test_no_message_brings_the_server_down(town, messages: list[str | bytes]) -> None:
    async def scenario(server: LedgerServer) -> None:
        async with connect(server.address) as peer:
            for message in messages:
                answer = await say(peer, message)
                assert "result" in answer or answer["error"]["data"]["code"]
            assert (await say(peer, request("gas.block")))["result"] == 0

    before = town.ledger.totals()
    serve(town, scenario)
    assert town.ledger.totals() == before
