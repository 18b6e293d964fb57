"""What crosses the wire, and what is not taken from it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.errors import RequestRefused
from gas.protocol.messages import (
    CommitmentPayload,
    GenerationRequest,
    MinerInfo,
    Prediction,
    SubmissionReceipt,
    TaskAccepted,
    parse_message,
)

SHA = hashlib.sha256(b"zip").hexdigest()


def test_a_peers_request_is_understood_with_its_further_fields() -> None:
    body = b'{"prompt": "a cat", "parameters": {"resolution": "720p", "steps": 4}, "new_field": [1]}'
    request = parse_message(GenerationRequest, body)
    assert request.prompt == "a cat"
    assert request.parameters.resolution == "720p"
    assert request.parameters.model_dump()["steps"] == 4


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"prompt": ""}',
        b'{"prompt": 5}',
        b'{"prompt": "x", "parameters": {"width": 1e9}}',
        b'{"prompt": "x", "parameters": {"seed": -1}}',
        b'{"prompt": "' + b"x" * 9000 + b'"}',
        b'{"prompt": "x", "parameters": {"blob": "' + b"x" * 20000 + b'"}}',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_not_acceptable_is_refused_with_422_and_without_its_content(body: bytes) -> None:
    with pytest.raises(RequestRefused) as error:
        parse_message(GenerationRequest, body)
    assert (error.value.status, error.value.error_code) == (422, "bad_message")
    assert "xxxx" not in str(error.value)


def test_messages_have_the_fields_of_the_specification() -> None:
    assert TaskAccepted(task_id="t").model_dump() == {"task_id": "t", "status": "pending"}
    receipt = SubmissionReceipt(model_id="m", key="k", sha256=SHA, slot=1, slots=3)
    assert set(receipt.model_dump()) == {"model_id", "key", "sha256", "slot", "slots"}
    info = MinerInfo(miner_type="GENERATOR", uid=3, hotkey="h", modalities=["image"], services={}, version="1")
    assert info.model_dump(mode="json")["miner_type"] == "GENERATOR"


@pytest.mark.parametrize(
    ("body", "p_fake"),
    [
        (b'{"prediction": 0.25}', 0.25),
        (b'{"prediction": [0.75, 0.25]}', 0.25),
        (b'{"prediction": [0.5, 0.25, 0.25]}', 0.5),
        (b'{"prediction": [0, 0]}', 0.5),
    ],
)
def test_a_prediction_has_one_two_or_three_values(body: bytes, p_fake: float) -> None:
    assert parse_message(Prediction, body).p_fake == pytest.approx(p_fake)


@pytest.mark.parametrize("value", ["NaN", "2", "-0.1", "[]", "[1]", "[1,0,0,0]", "[0.5, 1e999]", '"high"', "null"])
def test_a_prediction_that_is_no_probability_is_refused(value: str) -> None:
    with pytest.raises(RequestRefused):
        parse_message(Prediction, f'{{"prediction": {value}}}'.encode())


def test_a_commitment_is_compact_json_and_fits() -> None:
    payload = CommitmentPayload.of("k" * 64, SHA)
    text = payload.encode()
    assert text == '{"key":"' + "k" * 64 + '","hash":"' + SHA[:16] + '"}'
    assert len(text) <= 128
    assert CommitmentPayload.decode(text) == payload
    assert payload.matches("k" * 64, SHA)
    assert not payload.matches("k" * 64, "0" * 64)
    assert not payload.matches("other", SHA)


@given(st.text(max_size=200))
def test_whatever_somebody_commits_is_read_or_ignored(text: str) -> None:
    payload = CommitmentPayload.decode(text)
    assert payload is None or CommitmentPayload.decode(payload.encode()) == payload


@pytest.mark.parametrize("text", ['{"key":"a b","hash":"0011223344556677"}', '{"key":"a","hash":"00"}', "[1]", '"x"'])
def test_a_commitment_of_another_shape_is_none(text: str) -> None:
    assert CommitmentPayload.decode(text) is None
