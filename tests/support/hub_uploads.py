"""The hub peer of ``hub_peer``, with the calls by which files come to a Hugging Face data set.

It behaves as the hub's own client library expects: ``preupload`` says how a file is to be sent and what is there now,
git-lfs's batch call gives an address unless the bytes are known, uploads go there without the token, and a commit of a
large file needs its bytes to be there. Faults are queued by path ending and method.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_peer import COMMIT, REPOSITORY, HubPeer, Seen, _Handler, _Server, git_oid, sha256


@dataclass
class UploadPeer(HubPeer):
    """What was sent, and how.

    Attributes:
        stored: Bytes by SHA-256 that LFS holds, committed or not.
        commits: Summaries of the commits, in order.
        part_bytes: Files above this are sent in parts of that size; 0 for never.
        verified: SHA-256 that were confirmed by the verify call.
        broken: Endings of paths, by method, that are answered with a status once each.
    """

    stored: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    part_bytes: int = 0
    verified: list[str] = field(default_factory=list)
    broken: list[tuple[str, str, int]] = field(default_factory=list)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def break_once(self, method: str, ending: str, status: int) -> None:
        """Answer the next such request with a status and do nothing."""
        self.broken.append((method, ending, status))

    def sent(self, method: str) -> list[Seen]:
        """Requests of a method."""
        return [one for one in self.seen if one.method == method]


class _Uploads(_Handler):
    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def _take(self) -> None:
        peer: UploadPeer = self.server.peer  # type: ignore[assignment]
        self.cut = None
        data = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        with peer.lock:
            peer.seen.append(Seen(self.command, self.path, headers))
            for fault in peer.broken:
                if fault[0] == self.command and path.endswith(fault[1]):
                    peer.broken.remove(fault)
                    return self.answer(fault[2], b"no", {"Retry-After": "0"})
            if self.command == "PUT":
                return self._put(peer, path, data, headers)
            if headers.get("authorization") != f"Bearer {peer.token}":
                return self.answer(401, b"{}")
            return self._post(peer, path, json.loads(data) if b"ndjson" not in _kind(headers) else None, data)

    def _put(self, peer: UploadPeer, path: str, data: bytes, headers: dict[str, str]) -> None:
        if "authorization" in headers:
            # A presigned address refuses a second way of signing.
            return self.answer(400, b"InvalidArgument: only one auth mechanism allowed")
        _, _, oid, number = path.split("/")
        if number == "0":
            if sha256(data) != oid:
                return self.answer(400, b"BadDigest")
            peer.stored[oid] = data
        else:
            peer.parts.setdefault(oid, {})[int(number)] = data
        return self.answer(200, b"", {"ETag": f'"{sha256(data)[:8]}"'})

    def _post(self, peer: UploadPeer, path: str, value: Any, raw: bytes) -> None:
        if path == f"/api/datasets/{REPOSITORY}/preupload/main":
            return self._say({"files": [self._way(peer, one) for one in value["files"]]})
        if path == f"/datasets/{REPOSITORY}.git/info/lfs/objects/batch":
            return self._say({"transfer": "basic", "objects": [self._object(peer, one) for one in value["objects"]]})
        if path == "/lfs/verify":
            known = len(peer.stored.get(value["oid"], b"")) == value["size"]
            peer.verified.append(value["oid"])
            return self._say({}, 200 if known else 404)
        if path.startswith("/lfs/finish/"):
            parts = peer.parts.get(value["oid"], {})
            whole = b"".join(parts[one["partNumber"]] for one in value["parts"])
            if sha256(whole) != value["oid"]:
                return self._say({}, 400)
            peer.stored[value["oid"]] = whole
            return self._say({})
        if path == f"/api/datasets/{REPOSITORY}/commit/main":
            return self._commit(peer, [json.loads(line) for line in raw.splitlines()])
        return self._say({"error": "Repository not found"}, 404)

    def _way(self, peer: UploadPeer, one: dict[str, Any]) -> dict[str, Any]:
        large = one["path"].endswith(".parquet")
        there = peer.files.get(one["path"])
        oid = None if there is None else sha256(there) if large else git_oid(there)
        mode = "lfs" if large else "regular"
        return {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _object(self, peer: UploadPeer, one: dict[str, Any]) -> dict[str, Any]:
        oid, size = one["oid"], one["size"]
        if oid in peer.stored:
            return {"oid": oid, "size": size}
        verify = {"href": f"{peer.url}/lfs/verify", "header": {}}
        if peer.part_bytes and size > peer.part_bytes:
            count = -(-size // peer.part_bytes)
            header: dict[str, str] = {str(n): f"{peer.url}/lfs/{oid}/{n}" for n in range(1, count + 1)}
            upload = {"href": f"{peer.url}/lfs/finish/{oid}", "header": header | {"chunk_size": str(peer.part_bytes)}}
        else:
            upload = {"href": f"{peer.url}/lfs/{oid}/0"}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    def _commit(self, peer: UploadPeer, lines: list[dict[str, Any]]) -> None:
        new = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "lfsFile":
                if value["oid"] not in peer.stored:
                    return self._say({"error": "LFS pointer pointed to a file that does not exist"}, 400)
                new[value["path"]] = peer.stored[value["oid"]]
            else:
                new[value["path"]] = base64.b64decode(value["content"])
        peer.files.update(new)
        peer.commits.append(lines[0]["value"]["summary"])
        return self._say({"success": True, "commitOid": COMMIT, "commitUrl": f"{peer.url}/commit/{COMMIT}"})

    def _say(self, value: object, code: int = 200) -> None:
        self.answer(code, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _kind(headers: dict[str, str]) -> bytes:
    return headers.get("content-type", "").encode()


@contextmanager
def serve_uploads(**settings: Any) -> Iterator[UploadPeer]:
    """A hub with one empty data set that takes uploads while the block runs."""
    server = _Server(("127.0.0.1", 0), _Uploads)
    peer = UploadPeer({}, token="hf_test", **settings)
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    server.peer = peer
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
