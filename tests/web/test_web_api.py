"""The control plane over HTTP: what it takes, what it refuses, what it shows to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from functools import wraps
from typing import Any

import pytest
from arena_fakes import SIGNER

from gas.arena.receipts import sign_receipt
from gas.chain.keys import signer_from_seed
from gas.errors import RequestRefused
from gas.protocol.client import encode_multipart
from gas.protocol.epistula import sign_request
from gas.storage.tables import ExecutorRow, JudgementRow, MediumRow, RoundRow, RunRow, SubmissionRow

OpenSite = Callable[..., AbstractAsyncContextManager[Any]]

ALICE = signer_from_seed(b"\x01" * 32)
BOB = signer_from_seed(b"\x02" * 32)
STRANGER = signer_from_seed(b"\x03" * 32)


def run_async(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def refused(call: Awaitable[object]) -> tuple[int, str]:
    with pytest.raises(RequestRefused) as error:
        await call
    return error.value.status, error.value.error_code


def form(content: bytes = b"w1", **fields: str) -> tuple[bytes, str]:
    return encode_multipart({"modality": "image", **fields}, {"zip": ("model.zip", content, "application/zip")})


def headers(body: bytes, content_type: str, site: Any, uuid: str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8") -> Any:
    signed = sign_request(ALICE, body, signed_for=SIGNER.ss58_address, now_ms=int(site.clock.time() * 1000), uuid=uuid)
    return {**signed, "Content-Type": content_type}


@run_async
async def test_a_signed_package_is_taken_once_with_one_key(open_site: OpenSite) -> None:
    async with open_site() as site:
        taken = await site.push(ALICE, b"w1", vertical="human")
        assert (taken["status"], taken["slot"], taken["slots"]) == (201, 1, 3)
        assert set(taken) == {"status", "model_id", "key", "sha256", "slot", "slots"}
        body, kind = form()
        again = await site.http.post("/api/v1/submissions", content=body, headers=headers(body, kind, site))
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "content_known"
        assert again.json()["error"]["key"] == taken["key"]
        assert len(site.files_left()) == 1


@run_async
async def test_a_refused_package_answers_every_reason_and_stays_visible_to_its_author(open_site: OpenSite) -> None:
    async with open_site() as site:
        body, kind = form(b"bad")
        answer = await site.http.post("/api/v1/submissions", content=body, headers=headers(body, kind, site))
        assert answer.status_code == 422
        reason = {"code": "import_not_allowed", "message": "socket is not allowed.", "file": "model.py", "line": 3}
        assert answer.json()["error"]["reasons"] == [reason]
        mine = (await site.client(ALICE).get("http://arena/api/v1/submissions", signed_for=SIGNER.ss58_address)).json()
        assert [(s["state"], s["reasons"]) for s in mine] == [("rejected", [reason])]
        assert site.files_left() == []


@run_async
async def test_unsigned_wrongly_signed_and_replayed_requests_leave_no_file(open_site: OpenSite) -> None:
    async with open_site() as site:
        body, kind = form()

        async def post(content: bytes, sent: dict[str, str]) -> tuple[int, str]:
            answer = await site.http.post("/api/v1/submissions", content=content, headers=sent)
            return answer.status_code, answer.json()["error"]["code"]

        good = headers(body, kind, site)
        assert await post(body, {"Content-Type": kind}) == (400, "unknown_version")
        assert await post(body + b" ", good) == (400, "bad_signature")
        assert await post(body, {**good, "Epistula-Signed-For": BOB.ss58_address}) == (400, "not_for_us")
        assert await post(body, {**good, "Epistula-Signed-By": STRANGER.ss58_address}) == (401, "unknown_signer")
        assert await post(body, {**good, "Epistula-Signed-By": BOB.ss58_address}) == (400, "bad_signature")
        site.clock.advance(16)
        assert await post(body, good) == (400, "stale_timestamp")
        assert site.files_left() == []
        good = headers(body, kind, site)
        assert (await site.http.post("/api/v1/submissions", content=body, headers=good)).status_code == 201
        assert await post(body, good) == (409, "replayed")
        assert len(site.files_left()) == 1


@run_async
async def test_bad_forms_are_refused_with_a_code_and_leave_no_file(open_site: OpenSite) -> None:
    async with open_site(max_upload_bytes=1000) as site:
        file = ("model.zip", b"w1", "application/zip")
        whole, kind = form()
        cases: list[tuple[bytes, str, int, str]] = [
            (*encode_multipart({}, {"zip": file}), 422, "bad_form"),
            (*encode_multipart({"modality": "smell"}, {"zip": file}), 422, "bad_form"),
            (*encode_multipart({"modality": "image"}, {"other": file}), 422, "bad_form"),
            (*encode_multipart({"modality": "image", "x": "y"}, {"zip": file}), 422, "bad_form"),
            (*encode_multipart({"modality": "i" * 300}, {"zip": file}), 422, "bad_form"),
            (*encode_multipart({"modality": "audio", "vertical": "human"}, {"zip": file}), 422, "vertical"),
            (*encode_multipart({"modality": "image"}, {"zip": ("m.zip", b"", "x/y")}), 422, "package_rejected"),
            (*encode_multipart({"modality": "image"}, {"zip": ("m.zip", b"x" * 1001, "x/y")}), 413, "too_large"),
            (*encode_multipart({"modality": "image"}, {"zip": ("m.zip", b"x" * 99_999, "x/y")}), 413, "body_too_large"),
            (whole[:-10], kind, 422, "bad_form"),
            (b"", kind, 422, "bad_form"),
            (b"PK\x03\x04", "application/zip", 415, "not_multipart"),
            (whole, "multipart/form-data", 415, "not_multipart"),
            (whole, "multipart/form-data; boundary=" + "b" * 400, 422, "bad_form"),
        ]  # fmt: skip
        for number, (body, content_type, status, code) in enumerate(cases):
            sent = headers(body, content_type, site, uuid=f"6ba7b810-9dad-11d1-80b4-{number:012x}")
            answer = await site.http.post("/api/v1/submissions", content=body, headers=sent)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), number
            assert site.files_left() == [], number


@run_async
async def test_slots_run_out_and_a_withdrawal_frees_one(open_site: OpenSite) -> None:
    async with open_site(slots=1) as site:
        taken = await site.push(ALICE, b"w1")
        assert await refused(site.push(ALICE, b"w2")) == (429, "no_slot")
        url, us = f"http://arena/api/v1/submissions/{taken['model_id']}", SIGNER.ss58_address
        assert await refused(site.client(BOB).send("DELETE", url, signed_for=us)) == (404, "unknown_submission")
        assert (await site.client(ALICE).send("DELETE", url, signed_for=us)).status == 204
        assert await refused(site.client(ALICE).send("DELETE", url, signed_for=us)) == (409, "illegal_transition")
        assert (await site.push(ALICE, b"w2"))["status"] == 201


@run_async
async def test_submissions_are_shown_to_their_author_only(open_site: OpenSite) -> None:
    async with open_site() as site:
        taken = await site.push(ALICE, b"w1")
        url, us = "http://arena/api/v1/submissions", SIGNER.ss58_address
        mine = (await site.client(ALICE).get(f"{url}?modality=image", signed_for=us)).json()
        assert [s["model_id"] for s in mine] == [taken["model_id"]]
        assert (await site.client(ALICE).get(f"{url}?modality=audio", signed_for=us)).json() == []
        assert (await site.client(BOB).get(url, signed_for=us)).json() == []
        one = (await site.client(ALICE).get(f"{url}/{taken['model_id']}", signed_for=us)).json()
        assert (one["state"], one["runs"]) == ("scanning", [])
        stranger = site.client(BOB).get(f"{url}/{taken['model_id']}", signed_for=us)
        assert await refused(stranger) == (404, "unknown_submission")
        assert (await site.http.get(url)).status_code == 400
        assert (await site.http.get(f"{url}?modality=smell")).status_code == 422


def played_round(site: Any, state: str) -> None:
    """One scored run of Alice, who was fooled by one of two media."""
    receipt = sign_receipt({"run_id": "run-1"}, SIGNER)
    with site.arena.database.write() as session:
        session.add(
            SubmissionRow(
                id="s1", hotkey=ALICE.ss58_address, key="k", sha256="0" * 64, size=1, modality="image", name="sharp",
                vertical="general", state="scored", state_since=0.0, reasons=[], created_at=0.0, attempts=2,
                committed_block=4, weights_sha256="1" * 64,
            )
        )  # fmt: skip
        session.add(
            RoundRow(
                id="r1", modality="image", seed="99", state=state, plan_blob="1" * 64, data_hash="2" * 64,
                parameters={}, code_version="1", opened_at=0.0, closed_at=9.0 if state == "closed" else None,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            RunRow(
                id="run-1", submission_id="s1", round_id="r1", kind="full", state="done", tier="NAMESPACES",
                metrics={"sn34_score": 0.75}, receipt=receipt, started_at=1.0, finished_at=2.0,
            )
        )  # fmt: skip
        for index in range(2):
            session.add(
                MediumRow(
                    sha256=f"{index:064x}", validator="v", generator="g", task_id="t", modality="image",
                    media_type="synthetic", width=1, height=1, mime="image/png", verified_at=0.0,
                )
            )  # fmt: skip
        session.flush()
        for index in range(2):
            session.add(JudgementRow(media_sha256=f"{index:064x}", run_id="run-1", fooled=index == 0))


@run_async
async def test_scores_of_an_open_round_are_the_authors_alone(open_site: OpenSite) -> None:
    async with open_site() as site:
        played_round(site, "open")
        us = SIGNER.ss58_address
        public = (await site.http.get("/api/v1/runs/run-1")).json()
        assert (public["state"], "metrics" in public) == ("done", False)
        assert (await site.http.get("/api/v1/runs/run-1/receipt")).status_code == 404
        others = await site.client(BOB).get("http://arena/api/v1/runs/run-1", signed_for=us)
        assert "metrics" not in others.json()
        own = await site.client(ALICE).get("http://arena/api/v1/runs/run-1", signed_for=us)
        assert own.json()["metrics"] == {"sn34_score": 0.75}
        board = (await site.http.get("/api/v1/leaderboard/image")).json()
        assert board["standings"] == []
        assert board["open_round"]["submissions"] == [
            {"hotkey": ALICE.ss58_address, "name": "sharp", "state": "scored"}
        ]
        assert "0.75" not in str(board)
        assert board["open_round"]["seed"] is None
        assert (await site.http.get("/api/v1/generators")).json()[0]["judged"] == 0


@run_async
async def test_a_closed_round_is_public(open_site: OpenSite) -> None:
    async with open_site() as site:
        played_round(site, "closed")
        board = (await site.http.get("/api/v1/leaderboard/image")).json()
        assert [(s["rank"], s["name"], s["score"]) for s in board["standings"]] == [(1, "sharp", 0.75)]
        assert board["round"]["seed"] == "99"
        assert (await site.http.get("/api/v1/runs/run-1")).json()["metrics"] == {"sn34_score": 0.75}
        assert (await site.http.get("/api/v1/runs/run-1/receipt")).json()["signer"] == SIGNER.ss58_address
        generators = (await site.http.get("/api/v1/generators")).json()
        assert generators == [{"hotkey": "g", "verified": 2, "refused": 0, "fooled": 1, "judged": 2}]
        assert (await site.http.get("/api/v1/rounds")).json()[0]["round_id"] == "r1"
        stats = (await site.http.get("/api/v1/stats")).json()
        assert (stats["submissions"], stats["runs"], stats["judgements"]) == ({"scored": 1}, 1, 2)
        assert (await site.http.get("/api/v1/runs/unknown")).json()["error"]["code"] == "unknown_run"
        assert (await site.http.get("/api/v1/leaderboard/smell")).status_code == 422


@run_async
async def test_health_readiness_and_metrics_tell_the_operator(open_site: OpenSite) -> None:
    async with open_site() as site:
        assert (await site.http.get("/healthz")).json() == {"status": "ok"}
        assert (await site.http.get("/readyz")).json() == {"ready": True, "checks": {"database": True, "chain": True}}
        await site.push(ALICE, b"w1")
        await site.http.get("/api/v1/runs/some-strangers-label")
        text = (await site.http.get("/metrics")).text
        assert 'gas_submissions{state="scanning"} 1' in text
        assert 'gas_http_requests_total{endpoint="submit",status="201"} 1.0' in text
        assert "some-strangers-label" not in text
        site.chain.down = True
        site.clock.advance(7200)
        unready = await site.http.get("/readyz")
        assert unready.status_code == 503
        assert unready.json()["checks"] == {"database": True, "chain": False}
        assert (await site.http.get("/api/v1/openapi.json")).status_code == 200


@run_async
async def test_readiness_waits_for_a_worker_where_one_belongs(open_site: OpenSite) -> None:
    async with open_site(worker_lease_seconds=60.0) as site:
        assert (await site.http.get("/readyz")).json()["checks"]["worker"] is False
        with site.arena.database.write() as session:
            session.add(ExecutorRow(id="w", host="h", pid=1, process_started="", heartbeat_at=site.clock.time()))
        assert (await site.http.get("/readyz")).status_code == 200
        site.clock.advance(61)
        assert (await site.http.get("/readyz")).status_code == 503
