"""A local web server that stands for a provider of media: the part that all providers share.

A provider's own file says what its documentation says: paths, forms, answers, errors. Here are the wire, the key, the
record of what was asked, and what can go wrong with any of them. Faults are queued by the kind of call (``submit``,
``poll``, ``download``); each is used once, and the last of those marked ``forever`` again and again.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"


@dataclass
class Asked:
    """One request that arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def form(self) -> dict[str, Any]:
        """Parts of a form by name: text, or (file name, type, bytes) for a file."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        found: dict[str, Any] = {}
        for part in BytesParser(policy=HTTP).parsebytes(head + self.body).iter_parts():
            name = part.get_param("name", header="content-disposition")
            data = part.get_payload(decode=True)
            file = part.get_filename()
            found[str(name)] = (file, part.get_content_type(), data) if file else data.decode()
        return found


@dataclass
class Reply:
    """What is sent back, and what goes wrong with it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    hold: bool = False
    hang_up: bool = False
    endless: bool = False
    forever: bool = False

    @classmethod
    def of(cls, value: object, status: int = 200, **headers: str) -> Reply:
        """A JSON answer; underscores in header names become dashes."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})


class Peer:
    """A provider on a free port of this machine, while the ``with`` block runs."""

    key: ClassVar[str] = "sk-peer-0123456789abcdefghijklmnopqrstuv"
    prefix: ClassVar[str] = ""

    def __init__(self, media: dict[str, bytes]) -> None:
        self.media = dict(media)
        self.mimes = {"image": "image/png", "video": "video/mp4", "audio": "audio/mpeg"}
        self.seen: list[Asked] = []
        self.submits: list[Asked] = []
        self.waiting_polls = 1
        self.jobs: dict[str, tuple[str, int]] = {}
        self.faults: list[tuple[str, Reply]] = []
        self.url = ""
        self._released = threading.Event()
        self._lock = threading.Lock()

    # What a provider's own file says.

    def kind(self, asked: Asked) -> str:
        """``submit``, ``poll`` or ``download``."""
        raise KeyError(asked.path)

    def answer(self, asked: Asked) -> Reply:
        """What a good call gets."""
        raise KeyError(asked.path)

    def refusal(self, what: str, asked: Asked | None = None) -> Reply:
        """The documented answer for ``key``, ``credit``, ``moderation``, ``busy``, ``broken`` or ``invalid``."""
        raise KeyError(what)

    # What all share.

    def fail(self, kind: str, *replies: Reply) -> None:
        """Queue answers that the next calls of a kind get instead of the good one."""
        self.faults += [(kind, reply) for reply in replies]

    def begin(self, modality: str) -> str:
        """Begin a job; its id."""
        with self._lock:
            job = f"job-{len(self.jobs) + 1}"
            self.jobs[job] = (modality, self.waiting_polls)
        return job

    def advance(self, job: str) -> tuple[str, bool]:
        """Modality of a job, and whether it is done; every question brings it nearer to that."""
        with self._lock:
            modality, left = self.jobs[job]
            self.jobs[job] = (modality, left - 1)
        return modality, left <= 0

    def medium(self, modality: str, **headers: str) -> Reply:
        """The bytes of a medium."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return Reply(200, self.media[modality], {"Content-Type": self.mimes[modality], **named})

    def count(self, kind: str) -> int:
        """How many calls of a kind have arrived."""
        return sum(1 for asked in self.seen if self._kind(asked) == kind)

    def authorised(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == f"Bearer {self.key}"

    def needs_key(self, asked: Asked) -> bool:
        return True

    def _kind(self, asked: Asked) -> str:
        try:
            return self.kind(asked)
        except KeyError:
            return "unknown"

    def reply(self, asked: Asked) -> Reply:
        kind = self._kind(asked)
        with self._lock:
            self.seen.append(asked)
            if kind == "submit":
                self.submits.append(asked)
            at = next((n for n, (wanted, _) in enumerate(self.faults) if wanted == kind), None)
            fault = None
            if at is not None:
                fault = self.faults[at][1]
                if not fault.forever:
                    del self.faults[at]
        if self.needs_key(asked) and not self.authorised(asked):
            return self.refusal("key", asked)
        if fault is not None:
            return fault if not fault.hold or fault.body else Reply(hold=True)
        return self.answer(asked)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.peer = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{self.prefix}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    peer: Peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no error here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        peer = self.server.peer
        reply = peer.reply(Asked(self.command, parts.path.removeprefix(peer.prefix), parts.query, headers, body))
        try:
            self._send(reply)
        except OSError:
            self.close_connection = True

    def _send(self, reply: Reply) -> None:
        if reply.hold:
            self.server.peer._released.wait(20)
        if reply.hang_up or reply.hold:
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        length = {} if reply.endless else {"Content-Length": str(len(reply.body))}
        for name, value in {**length, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        while reply.endless:
            self.wfile.write(bytes(1 << 20))
        self.wfile.write(reply.body[: reply.cut])
        if reply.cut is not None:
            self.close_connection = True
