"""Bodies of uploads: whose are read before the signature is known, how many, how long, and while the disk has room."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from arena_fakes import SIGNER

from gas.chain.keys import signer_from_seed
from gas.clock import RandomIds
from gas.protocol.epistula import sign_request
from gas.web import room

URL = "http://arena/api/v1/submissions"
ALICE = signer_from_seed(b"\x01" * 32)
BOB = signer_from_seed(b"\x02" * 32)
Sites = Callable[..., AbstractAsyncContextManager[Any]]


def run_async(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def headers(site: Any, length: int, secrets: Callable[[dict[str, str]], Mapping[str, str]]) -> dict[str, str]:
    """Headers of a form that names Alice; whoever has seen one of her requests can write all but the secret ones."""
    made = sign_request(
        ALICE, b"", signed_for=SIGNER.ss58_address, now_ms=int(site.clock.time() * 1000), uuid=RandomIds().new()
    )
    return {**secrets(made), "content-length": str(length), "content-type": "multipart/form-data; boundary=x"}


def without(made: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in made.items() if "Secret" not in name}


def forged(made: dict[str, str]) -> dict[str, str]:
    other = sign_request(BOB, b"", signed_for=SIGNER.ss58_address, now_ms=0, uuid="x")
    return {name: other[name] if "Secret" in name else value for name, value in made.items()}


@pytest.mark.parametrize("secrets", [without, forged])
@run_async
async def test_nothing_large_is_read_from_who_has_not_proven_its_key(open_site: Sites, secrets: Any) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"x" * 1000

    async with open_site() as site:
        answer = await site.http.post(URL, content=body(), headers=headers(site, 17 * 2**20, secrets))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "not_proven")
        assert "in pieces" in answer.json()["error"]["hint"]
        assert read == []
        assert site.files_left() == []


@run_async
async def test_who_has_is_taken_whole(open_site: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "UNPROVEN_BYTES", 200)
    async with open_site() as site:
        assert (await site.push(ALICE, b"weights " + b"x" * 5000))["status"] == 201


@run_async
async def test_strangers_take_no_place_from_authors(open_site: Sites) -> None:
    started, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        started.release()
        await go_on.wait()
        yield b"x"

    async with open_site() as site, asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(site.http.post(URL, content=body(), headers=headers(site, 1, without))) for _ in range(8)
        ]
        for _ in waiting:
            await started.acquire()
        late = await site.http.post(URL, content=body(), headers=headers(site, 1, without))
        assert (late.status_code, late.json()["error"]["code"]) == (503, "busy")
        assert late.headers["retry-after"]
        assert (await site.push(BOB, b"weights"))["status"] == 201
        go_on.set()
    assert {task.result().json()["error"]["code"] for task in waiting} == {"bad_signature"}


@run_async
async def test_a_body_that_never_ends_is_given_up(open_site: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_START_SECONDS", 0.05)
    monkeypatch.setattr(room, "_BYTES_A_SECOND", 2**60)

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with open_site() as site:
        answer: httpx.Response = await site.http.post(URL, content=body(), headers=headers(site, 9, dict))
        assert (answer.status_code, answer.json()["error"]["code"]) == (408, "body_slow")
        assert site.files_left() == []


@run_async
async def test_a_full_disk_is_left_alone(open_site: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=room.RESERVE_BYTES + 100))
    async with open_site() as site:
        answer = await site.http.post(URL, content=b"x" * 90, headers=headers(site, 90, dict))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_room")
        piece = await site.http.put(f"http://arena/api/v1/uploads/{'0' * 64}", content=b"x" * 90, headers={
            **sign_request(ALICE, b"x" * 90, signed_for=SIGNER.ss58_address,
                           now_ms=int(site.clock.time() * 1000), uuid=RandomIds().new()),
            "upload-offset": "0",
        })  # fmt: skip
        assert (piece.status_code, piece.json()["error"]["code"]) == (503, "no_room")
        assert site.files_left() == []
