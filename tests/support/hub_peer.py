"""A local web server that behaves as the documentation of the hubs says, and misbehaves on request.

A peer serves files in three ways at once: plainly (``/files/PATH``, with ``/files/index.json`` and
``/files/SHA256SUMS``), as a Hugging Face hub (``/api/datasets/…``, ``/datasets/…/resolve/…``) and as a ModelScope hub
(``/api/v1/datasets/…``). Faults are queued by path ending; each is used once and then gone.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "abcd"
REPOSITORY = "owner/set"

Fault = Callable[["_Handler"], bool]
"""Does something wrong; True when the request is answered by that."""


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class HubPeer:
    """What the server offers, and what it has seen."""

    files: dict[str, bytes]
    token: str = ""
    large: int = 1000
    page: int = 1000
    heads: bool = True
    ranges: bool = True
    etags: bool = True
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, ending: str, *faults: Fault) -> None:
        """Queue faults for GET requests of paths with this ending."""
        self.faults += [(ending, fault) for fault in faults]

    def asked(self, ending: str, method: str = "GET") -> list[Seen]:
        """Requests of paths with this ending."""
        return [one for one in self.seen if one.method == method and urlsplit(one.path).path.endswith(ending)]


def status(code: int, **headers: str) -> Fault:
    """Answer with a status and nothing else."""

    def act(handler: _Handler) -> bool:
        handler.answer(code, b"no", {key.replace("_", "-"): value for key, value in headers.items()})
        return True

    return act


def body(content: bytes, kind: str = "application/octet-stream", **headers: str) -> Fault:
    """Answer with other bytes than asked for."""

    def act(handler: _Handler) -> bool:
        handler.answer(200, content, {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}})
        return True

    return act


def drop_after(count: int) -> Fault:
    """Promise the whole file, send some bytes of what was asked for and close the connection."""

    def act(handler: _Handler) -> bool:
        handler.cut = count
        return False

    return act


def redirect(to: str, code: int = 302) -> Fault:
    """Send the caller elsewhere."""

    def act(handler: _Handler) -> bool:
        handler.answer(code, b"", {"Location": to})
        return True

    return act


def hang_up(handler: _Handler) -> bool:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def endless(handler: _Handler) -> bool:
    """Send bytes until the caller has had enough."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/octet-stream")
    handler.send_header("Connection", "close")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(65536))
    except OSError:
        handler.close_connection = True
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    cut: int | None = None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._handle()

    def do_GET(self) -> None:
        self._handle()

    def answer(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.cut is not None:
            content = content[: self.cut]
            self.close_connection = True
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True

    def _handle(self) -> None:
        peer, self.cut = self.server.peer, None
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        with peer.lock:
            peer.seen.append(Seen(self.command, self.path, headers))
            wanted = [
                n for n, (ending, _) in enumerate(peer.faults) if (path + query.get("FilePath", "")).endswith(ending)
            ]
            fault = peer.faults.pop(wanted[0])[1] if wanted and self.command == "GET" else None
        if fault is not None and fault(self):
            return None
        if peer.token and headers.get("authorization") != f"Bearer {peer.token}":
            return self.answer(401, b"{}", {"X-Error-Code": "GatedRepo"})
        if path.startswith("/files/"):
            return self._plain(peer, path.removeprefix("/files/"))
        if path.startswith("/api/v1/datasets/"):
            return self._modelscope(peer, path, query)
        return self._huggingface(peer, path, query)

    def _plain(self, peer: HubPeer, path: str) -> None:
        if path == "index.json":
            listing = [{"path": p, "size": len(d), "sha256": sha256(d)} for p, d in peer.files.items()]
            return self.answer(200, json.dumps({"version": 1, "files": listing}).encode())
        if path == "SHA256SUMS":
            return self.answer(200, "".join(f"{sha256(d)}  {p}\n" for p, d in peer.files.items()).encode())
        if self.command == "HEAD" and not peer.heads:
            return self.answer(405, b"")
        return self._file(peer, peer.files.get(path))

    def _huggingface(self, peer: HubPeer, path: str, query: dict[str, str]) -> None:
        if path in (f"/api/datasets/{REPOSITORY}/revision/main", f"/api/datasets/{REPOSITORY}/revision/{COMMIT}"):
            return self.answer(200, json.dumps({"id": REPOSITORY, "sha": COMMIT}).encode())
        if path == f"/api/datasets/{REPOSITORY}/tree/{COMMIT}":
            at = int(query.get("cursor", "0"))
            entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0" * 40, "size": 0}]
            for name, data in sorted(peer.files.items()):
                entry = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
                if len(data) >= peer.large:
                    entry |= {"oid": "1" * 40, "lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}}
                entries.append(entry)
            size = min(peer.page, int(query["limit"]))
            headers = {"Content-Type": "application/json"}
            if at + size < len(entries):
                after = f"{peer.url}{path}?recursive=true&limit={size}&cursor={at + size}"
                headers["Link"] = f'<{after}>; rel="next"'
            return self.answer(200, json.dumps(entries[at : at + size]).encode(), headers)
        prefix = f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"
        if path.startswith(prefix):
            return self._file(peer, peer.files.get(path.removeprefix(prefix)))
        return self.answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

    def _modelscope(self, peer: HubPeer, path: str, query: dict[str, str]) -> None:
        if path == f"/api/v1/datasets/{REPOSITORY}/repo/tree" and query.get("Revision") == "master":
            size, page = min(peer.page, int(query["PageSize"])), int(query["PageNumber"])
            entries: list[dict[str, Any]] = [{"Type": "tree", "Path": "data", "Size": 0, "Sha256": ""}]
            for name, data in sorted(peer.files.items()):
                entries.append({"Type": "blob", "Path": name, "Size": len(data), "Sha256": sha256(data)})
            found = entries[(page - 1) * size : page * size]
            answer = {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": found}}
            return self.answer(200, json.dumps(answer).encode())
        if path == f"/api/v1/datasets/{REPOSITORY}/repo" and query.get("Revision") == "master":
            return self._file(peer, peer.files.get(query["FilePath"]))
        answer = {"Code": 10010205001, "Success": False, "Message": "dataset does not exist"}
        return self.answer(404, json.dumps(answer).encode())

    def _file(self, peer: HubPeer, data: bytes | None) -> None:
        if data is None:
            return self.answer(404, b"Entry not found")
        etag = f'"{sha256(data)[:16]}"'
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if peer.etags:
            headers["ETag"] = etag
        asked = self.headers.get("Range", "")
        fresh = self.headers.get("If-Range") in (None, etag)
        if not (asked.startswith("bytes=") and peer.ranges and fresh and self.command == "GET"):
            return self.answer(200, data, headers)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
        if start >= len(data):
            return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return self.answer(206, data[start:end], headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    peer: HubPeer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no error here."""


@contextmanager
def serve(files: dict[str, bytes], **settings: Any) -> Iterator[HubPeer]:
    """A peer that serves these files while the block runs."""
    server = _Server(("127.0.0.1", 0), _Handler)
    peer = HubPeer(dict(files), **settings)
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


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()
