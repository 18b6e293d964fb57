"""Packages that travel in pieces: cut off, gone on with, announced wrongly, too large, somebody else's."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from arena_fakes import SIGNER

from gas.arena.push import push, submission_status
from gas.arena.pushes import PushLabel
from gas.chain.base import Commitment
from gas.chain.keys import signer_from_seed
from gas.clock import ManualClock
from gas.errors import RequestRefused
from gas.types import Hotkey, Modality, Vertical
from gas.web.chunked import CHUNK_BYTES, Pieces

HOTKEY = "5Alice"
ALICE = signer_from_seed(b"\x01" * 32)
COMPETITION = (Modality.IMAGE, Vertical.GENERAL)


class Accepted:
    """Static checks that find nothing."""

    def require(self) -> None:
        return None


class OneCommitment:
    """The part of a chain that a push needs."""

    data: str | None = None

    async def get_commitment(self, netuid: int, hotkey: str) -> Commitment | None:
        return None if self.data is None else Commitment(Hotkey(hotkey), self.data, 7)

    async def set_commitment(self, netuid: int, data: str) -> None:
        self.data = data


def pieces(tmp_path: Path, **options: int) -> Pieces:
    return Pieces(tmp_path / "uploads", ManualClock(), **{"max_bytes": 1000, **options})


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_cut_off_upload_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = bytes(range(250))
    assert pieces(tmp_path).append(HOTKEY, sha(data), 0, data[:100]) == 100
    later = pieces(tmp_path)
    assert later.offset(HOTKEY, sha(data)) == 100
    assert later.append(HOTKEY, sha(data), 100, data[100:]) == 250
    taken = later.take(HOTKEY, sha(data))
    assert taken.read_bytes() == data


def test_a_piece_whose_answer_was_lost_is_not_written_twice(tmp_path: Path) -> None:
    desk, data = pieces(tmp_path), b"x" * 10
    for _ in range(3):
        assert desk.append(HOTKEY, sha(data), 0, data) == 10
    assert desk.take(HOTKEY, sha(data)).read_bytes() == data


@pytest.mark.parametrize(
    ("offset", "size", "code"), [(5, 10, "wrong_offset"), (0, 2000, "too_large"), (-1, 1, "too_large")]
)
def test_a_piece_in_the_wrong_place_is_refused(tmp_path: Path, offset: int, size: int, code: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        pieces(tmp_path).append(HOTKEY, sha(b""), offset, b"x" * size)
    assert refused.value.error_code == code


def test_what_is_not_what_was_announced_is_thrown_away(tmp_path: Path) -> None:
    desk = pieces(tmp_path)
    desk.append(HOTKEY, sha(b"promised"), 0, b"something")
    with pytest.raises(RequestRefused) as refused:
        desk.take(HOTKEY, sha(b"promised"))
    assert refused.value.error_code == "wrong_hash"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63])
def test_only_a_hash_names_an_upload(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        pieces(tmp_path).offset(HOTKEY, name)
    assert refused.value.error_code == "bad_upload"


def test_nobody_gets_at_anothers_upload_and_a_pile_does_not_grow(tmp_path: Path) -> None:
    desk = pieces(tmp_path, per_hotkey=2)
    contents = [bytes([k]) * 20 for k in range(5)]
    for content in contents:
        desk.append(HOTKEY, sha(content), 0, content[:10])
    assert len(list(tmp_path.rglob("*.part"))) == 2
    assert desk.offset("5Bob", sha(contents[-1])) == 0


def test_what_nobody_goes_on_with_is_swept(tmp_path: Path) -> None:
    desk = pieces(tmp_path)
    desk.append(HOTKEY, sha(b"x"), 0, b"y")
    written = next(tmp_path.rglob("*.part")).stat().st_mtime
    desk.clock = ManualClock(written + 25 * 3600)
    desk.sweep()
    assert list(tmp_path.rglob("*.part")) == []


def test_a_large_package_is_pushed_in_pieces_after_an_interruption(
    open_site: Callable[..., AbstractAsyncContextManager], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gas.arena.push.check", lambda *_, **__: Accepted())
    package = tmp_path / "large.zip"
    package.write_bytes(b"weights " + bytes(9 * 2**20))

    async def story() -> None:
        async with open_site() as site:
            client, chain = site.client(ALICE), OneCommitment()
            sent = client.send
            calls: list[str] = []

            async def cut(method: str, url: str, **options: object) -> object:
                calls.append(method)
                if method == "PUT" and calls.count("PUT") == 2 and "cut" not in calls:
                    calls.append("cut")
                    raise ConnectionAbortedError
                return await sent(method, url, **options)

            monkeypatch.setattr(client, "send", cut)
            arguments = {
                "url": "http://arena",
                "arena_hotkey": SIGNER.ss58_address,
                "hotkey": ALICE.ss58_address,
                "netuid": 1,
                "client": client,
                "chain": chain,
                "label": PushLabel("ab" * 16, frozenset({Modality.IMAGE, Modality.AUDIO})),
            }
            with pytest.raises(ConnectionAbortedError):
                await push(package, *COMPETITION, **arguments)
            seen: list[tuple[int, int]] = []
            pushed = await push(
                package, *COMPETITION, **arguments, on_upload=lambda done, all_: seen.append((done, all_))
            )
            assert pushed.created
            size = package.stat().st_size
            assert seen == [(2 * CHUNK_BYTES, size), (size, size)]
            assert not list((tmp_path / "uploads").rglob("*.part"))
            again = await push(package, *COMPETITION, **arguments)
            assert (again.created, again.receipt.key) == (False, pushed.receipt.key)
            found = await submission_status(client, "http://arena", SIGNER.ss58_address, pushed.receipt.model_id)
            assert found["push"] == {
                "push_id": "ab" * 16, "modalities": ["audio", "image"], "exams": {}, "accuracy": None, "needed": 0.0,
                "waiting_for": ["audio"], "left_out": ["image"],
            }  # fmt: skip

    asyncio.run(story())
