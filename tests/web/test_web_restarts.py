"""A control plane that is killed while packages come in: nothing that it took is lost, and nothing is taken twice."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from postgres import service_url
from served_home import AUTHOR, CLOCK, Home, brightness_detector, found_home, wait_for, zipped
from sqlalchemy import select

from gas.cli.processes import stop
from gas.clock import RandomIds
from gas.errors import RequestRefused
from gas.protocol.client import PeerUnreachable, SignedClient
from gas.storage.database import open_database
from gas.storage.tables import SubmissionRow
from gas.types import Vertical

pytestmark = pytest.mark.slow

_EACH = 3


class Authors:
    """Hands packages in, all at once, each until the arena has answered for good."""

    def __init__(self, home: Home, server: subprocess.Popen[bytes], packages: list[tuple[Path, Vertical]]) -> None:
        self.home, self.server, self.packages = home, server, packages
        self.url = home.url(server)
        self.taken: list[str] = []
        self.known = 0
        self._lock = threading.Lock()

    async def all(self) -> None:
        await asyncio.gather(*(self._hand_in(package, vertical) for package, vertical in self.packages))

    async def _hand_in(self, package: Path, vertical: Vertical) -> None:
        content = await asyncio.to_thread(package.read_bytes)
        async with httpx.AsyncClient(timeout=30) as http:
            client = SignedClient(AUTHOR, http, CLOCK, RandomIds())
            while True:
                try:
                    answer = await client.post_multipart(
                        f"{self.url}/api/v1/submissions",
                        {"modality": "image", "vertical": vertical.value},
                        {"zip": ("m.zip", content, "application/zip")},
                        signed_for=self.home.validator.ss58_address,
                    )
                except PeerUnreachable:
                    await asyncio.to_thread(self._revive)
                    continue
                except RequestRefused as refused:
                    assert refused.error_code == "content_known", refused.message
                    self.known += 1
                    return
                found = answer.json()
                assert isinstance(found, dict)
                self.taken.append(str(found["model_id"]))
                if len(self.taken) == 1:
                    # Others are under way at this moment.
                    self.server.send_signal(signal.SIGKILL)
                    self.server.wait()
                return

    def _revive(self) -> None:
        """The first that notices starts the service again; the others wait for it."""
        with self._lock:
            if self.server.poll() is not None:
                self.server = self.home.serve("--no-worker")
                self.url = self.home.url(self.server)


def test_a_killed_control_plane_loses_nothing_that_it_has_taken(tmp_path: Path) -> None:
    home = found_home(tmp_path / "home")
    packages = [
        (zipped(tmp_path / f"{vertical}-{number}.zip", {f"{vertical}{number}.onnx": brightness_detector()}), vertical)
        for vertical in Vertical
        for number in range(_EACH)
    ]
    authors = Authors(home, home.serve("--no-worker"), packages)
    database = open_database(service_url(home.path))

    def rows() -> list[SubmissionRow]:
        with database.read() as session:
            return list(session.scalars(select(SubmissionRow)))

    try:
        asyncio.run(authors.all())
        assert authors.server.poll() is None
        assert len(authors.taken) + authors.known == len(packages)
        # What was taken but not looked at any more is looked at after the start.
        wait_for(lambda: all(row.weights_sha256 is not None for row in rows()))
        found = rows()
        assert {row.id for row in found} >= set(authors.taken)
        assert len(found) == len({row.sha256 for row in found}) == len(packages)
        assert {row.state for row in found} == {"scanning"}
        assert all((home.path / "blobs").rglob(f"*{str(row.zip_blob)[4:]}*") for row in found)
        assert stop(authors.server) == 0
    finally:
        authors.server.kill()
        authors.server.wait()
        database.close()
    assert list((home.path / "arena" / "incoming").glob("*")) == []
