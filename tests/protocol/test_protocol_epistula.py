"""Signed requests: who gets in, who is refused, and in which order."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.chain.keys import signer_from_seed, verify
from gas.errors import RequestRefused
from gas.protocol.epistula import ReplayGuard, Standing, sign_request, verify_request

ANN, BOB, ME = (signer_from_seed(bytes([n]) * 32) for n in (1, 2, 3))
NOW = 1_700_000_000_123
UUID = "0f0e0d0c-0b0a-4908-8706-050403020100"
KNOWN = {ANN.ss58_address: Standing(1, 100, True), BOB.ss58_address: Standing(2, 10, False)}


def check(headers, body=b"hello", *, guard=None, now=NOW, **options) -> str:
    options = {"min_stake": 50, "need_permit": True, **options}
    return verify_request(
        headers,
        body,
        receiver=ME.ss58_address,
        now_ms=now,
        standing=KNOWN.get,
        guard=guard or ReplayGuard(),
        **options,
    )


def good(signer=ANN, body=b"hello", *, to=ME.ss58_address, at=NOW, uuid=UUID) -> dict[str, str]:
    return sign_request(signer, body, signed_for=to, now_ms=at, uuid=uuid)


def refusal(headers, body=b"hello", **options) -> tuple[int, str]:
    with pytest.raises(RequestRefused) as error:
        check(headers, body, **options)
    return error.value.status, error.value.error_code


def test_a_good_request_gets_in() -> None:
    assert check(good()) == ANN.ss58_address
    assert check({k.upper(): v for k, v in good().items()}) == ANN.ss58_address


def test_the_signed_text_is_what_other_peers_sign() -> None:
    headers = good()
    text = f"{hashlib.sha256(b'hello').hexdigest()}.{UUID}.{NOW}.{ME.ss58_address}"
    signature = bytes.fromhex(headers["Epistula-Request-Signature"].removeprefix("0x"))
    assert verify(ANN.ss58_address, text.encode(), signature)
    assert headers["Epistula-Version"] == "2"


def test_secret_signatures_are_over_the_interval_as_python_prints_the_float() -> None:
    headers = good()
    interval = 1_700_000_010_000
    for index, moment in enumerate((interval - 1, interval, interval + 1)):
        text = f"{moment}.0.{ME.ss58_address}"
        assert text.startswith("17000000") and ".0." in text
        signature = bytes.fromhex(headers[f"Epistula-Secret-Signature-{index}"].removeprefix("0x"))
        assert verify(ANN.ss58_address, text.encode(), signature)
    assert not any("Secret" in name for name in good(to=""))


def wrong_signature(headers: dict[str, str]) -> None:
    headers["Epistula-Request-Signature"] = "0x" + "ab" * 64


# In the order of the specification; each spoils a good request in one way only.
FAULTS: list[tuple[str, int, Callable[[dict[str, str]], None]]] = [
    ("unknown_version", 400, lambda h: h.update({"Epistula-Version": "1"})),
    ("not_for_us", 400, lambda h: h.update({"Epistula-Signed-For": BOB.ss58_address})),
    ("unknown_signer", 401, lambda h: h.update({"Epistula-Signed-By": ME.ss58_address})),
    ("no_permit", 401, lambda h: h.update({"Epistula-Signed-By": BOB.ss58_address})),
    ("stale_timestamp", 400, lambda h: h.update({"Epistula-Timestamp": str(NOW - 15_001)})),
    ("bad_uuid", 400, lambda h: h.update({"Epistula-Uuid": "x"})),
    ("bad_signature", 400, wrong_signature),
]


@pytest.mark.parametrize(("code", "status", "spoil"), FAULTS, ids=[f[0] for f in FAULTS])
def test_each_fault_is_refused_with_its_own_status_and_code(code, status, spoil) -> None:
    headers = good()
    spoil(headers)
    assert refusal(headers) == (status, code)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (a, b)
        for a, b in itertools.combinations(FAULTS, 2)
        # An unknown signer and one without a permit are two values of one header.
        if (a[0], b[0]) != ("unknown_signer", "no_permit")
    ],
    ids=lambda fault: fault[0],
)
def test_of_two_faults_the_earlier_in_the_order_is_named(first, second) -> None:
    headers = good()
    second[2](headers)
    first[2](headers)
    assert refusal(headers) == (first[1], first[0])


def test_a_replay_is_refused_with_409_and_only_after_its_signature_is_checked() -> None:
    guard = ReplayGuard()
    headers = good()
    check(headers, guard=guard)
    assert refusal(headers, guard=guard) == (409, "replayed")
    assert refusal(headers, b"other body", guard=guard) == (400, "bad_signature")
    assert refusal(headers, guard=guard, now=NOW + 15_000) == (409, "replayed")
    assert refusal(headers, guard=guard, now=NOW + 15_001) == (400, "stale_timestamp")


def test_a_replay_to_another_receiver_is_refused() -> None:
    assert refusal(good(to=BOB.ss58_address)) == (400, "not_for_us")


def test_the_same_uuid_from_another_signer_is_no_replay() -> None:
    guard = ReplayGuard()
    check(good(), guard=guard)
    assert check(good(BOB), guard=guard, min_stake=0, need_permit=False) == BOB.ss58_address


def test_a_forged_request_takes_no_memory_and_does_not_block_the_real_one() -> None:
    guard = ReplayGuard()
    headers = good()
    forged = {**headers}
    wrong_signature(forged)
    assert refusal(forged, guard=guard) == (400, "bad_signature")
    assert guard.remembered == 0
    assert check(headers, guard=guard) == ANN.ss58_address


def test_memory_is_bounded_per_signer_and_freed_after_the_window() -> None:
    guard = ReplayGuard(per_signer=3)
    for number in range(3):
        check(good(uuid=UUID[:-1] + str(number)), guard=guard)
    assert refusal(good(uuid=UUID[:-1] + "7"), guard=guard) == (429, "too_many_requests")
    assert guard.remembered == 3
    later = NOW + 15_001
    check(good(uuid=UUID[:-1] + "8", at=later), guard=guard, now=later)
    assert guard.remembered == 1


def test_the_number_of_signers_is_bounded_too() -> None:
    guard = ReplayGuard(signers=1)
    check(good(), guard=guard)
    with pytest.raises(RequestRefused) as error:
        check(good(BOB), guard=guard, min_stake=0, need_permit=False)
    assert error.value.status == 429
    later = NOW + 15_001
    check(good(BOB, at=later), guard=guard, now=later, min_stake=0, need_permit=False)


def test_a_receivers_clock_that_is_set_back_opens_no_door_to_a_replay() -> None:
    guard = ReplayGuard()
    headers = good()
    check(headers, guard=guard)
    later = NOW + 60_000
    check(good(uuid=UUID[:-1] + "1", at=later), guard=guard, now=later)
    assert refusal(headers, guard=guard, now=NOW) == (400, "stale_timestamp")


def test_a_request_for_nobody_in_particular_gets_in_only_where_that_will_do() -> None:
    headers = good(to="")
    assert refusal(headers) == (400, "not_for_us")
    assert check(headers, accept_unaddressed=True) == ANN.ss58_address
    assert refusal(good(to=BOB.ss58_address), accept_unaddressed=True) == (400, "not_for_us")


@pytest.mark.parametrize("timestamp", ["", "x", "-1", "1e3", "1_7", " 1700000000123", "٣", "9" * 40, str(NOW) + ".0"])
def test_a_time_stamp_that_is_no_plain_number_is_stale(timestamp: str) -> None:
    assert refusal({**good(), "Epistula-Timestamp": timestamp}) == (400, "stale_timestamp")


@pytest.mark.parametrize("offset", [-15_000, 0, 15_000])
def test_fifteen_seconds_either_way_are_allowed(offset: int) -> None:
    assert check(good(at=NOW + offset)) == ANN.ss58_address


def test_no_headers_at_all_and_doubled_headers_are_refused() -> None:
    from starlette.datastructures import Headers

    assert refusal({}) == (400, "unknown_version")
    raw = [(k.lower().encode(), v.encode()) for k, v in good().items()]
    assert check(Headers(raw=raw)) == ANN.ss58_address
    twice = Headers(raw=[*raw, (b"epistula-signed-by", BOB.ss58_address.encode())])
    assert refusal(twice) == (400, "unknown_version")


@settings(max_examples=40)
@given(body=st.binary(max_size=300), other=st.binary(max_size=300))
def test_only_the_very_body_that_was_signed_gets_in(body: bytes, other: bytes) -> None:
    headers = good(body=body)
    assert check(headers, body) == ANN.ss58_address
    if other != body:
        assert refusal(headers, other) == (400, "bad_signature")


@settings(max_examples=60)
@given(st.sampled_from(sorted(good())), st.text(st.characters(codec="latin-1"), max_size=140))
def test_a_header_that_is_changed_in_any_way_never_gets_in_as_the_signer(name: str, value: str) -> None:
    headers = good()
    if "Secret" in name or headers[name] == value:
        return
    headers[name] = value
    with pytest.raises(RequestRefused) as error:
        check(headers)
    assert value not in str(error.value) or len(value) < 4


def test_refusals_say_nothing_of_the_request() -> None:
    headers = good()
    for _, _, spoil in FAULTS:
        bad = {**headers}
        spoil(bad)
        with pytest.raises(RequestRefused) as error:
            check(bad)
        text = str(error.value.as_dict())
        assert not any(value in text for value in bad.values() if len(value) > 3)
