"""Publishing to a data set of a Hugging Face hub, by the hub's own HTTP interface.

Used are ``POST /api/datasets/NAME/preupload/REVISION`` (is a file stored plainly or by LFS, and what is there now),
``POST /datasets/NAME.git/info/lfs/objects/batch`` (git-lfs's batch call: where to send the bytes, unless the hub has
them), ``PUT`` to the addresses that it gives, in one piece or in parts, its ``verify`` call, and
``POST /api/datasets/NAME/commit/REVISION`` (lines of JSON). A file that the commit would not change is not committed.

It speaks to httpx's transport and not to ``httpx.Client``, because the latter logs the addresses of requests, and
those of uploads carry signatures.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gas.clock import SystemClock
from gas.datasets.sources.client import is_web_address
from gas.datasets.sources.huggingface import check_repository
from gas.datasets.sources.transfer import Interrupted, Patience, TransferLimits
from gas.errors import ConfigurationError, IntegrityError
from gas.validator.target_base import checked_path

__all__ = ["HubTarget"]

_ENDPOINT: Final = "https://huggingface.co"
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SAMPLE: Final = 512
_CHUNK: Final = 1 << 20
_MAX_ANSWER: Final = 4 << 20
_MAX_PLAIN: Final = 10 << 20
_LFS: Final = {"accept": "application/vnd.git-lfs+json", "content-type": "application/vnd.git-lfs+json"}
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)

_Model = TypeVar("_Model", bound=BaseModel)


class _Lax(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Way(_Lax):
    path: str
    uploadMode: str = Field(pattern=r"^(lfs|regular)$")
    shouldIgnore: bool = False
    oid: str | None = None


class _Ways(_Lax):
    files: tuple[_Way, ...]


class _Action(_Lax):
    href: str
    header: dict[str, str | int] | None = None


class _Object(_Lax):
    oid: str
    actions: dict[str, _Action] | None = None
    error: dict[str, Any] | None = None


class _Batch(_Lax):
    objects: Annotated[tuple[_Object, ...], Field(min_length=1, max_length=1)]


class HubTarget:
    """One data set repository, which must exist.

    Args:
        name: ``owner/name``.
        env: ``HF_TOKEN`` must be set, ``HF_ENDPOINT`` may be; the proxies.
        revision: Branch.
        sleep: Waits between tries.

    Raises:
        ConfigurationError: The name or the endpoint is none; ``missing_key``: there is no token.
    """

    def __init__(
        self,
        name: str,
        env: Mapping[str, str],
        *,
        revision: str = "main",
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        check_repository(name, revision)
        token = env.get("HF_TOKEN", "").strip()
        if not token.isascii() or not token.isprintable() or not token:
            raise ConfigurationError(
                "HF_TOKEN is not set, or is no token.", code="missing_key", hint="The hub takes nothing without one."
            )
        self._endpoint = (env.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/")
        if not is_web_address(self._endpoint):
            raise ConfigurationError("HF_ENDPOINT is no web address.", code="bad_address")
        self.address = f"hf://{name}" + ("" if revision == "main" else f"?revision={quote(revision, safe='')}")
        self._name = name
        self._revision = quote(revision, safe="")
        self._secret = {"authorization": f"Bearer {token}"}
        self._patience = Patience(TransferLimits(), SystemClock(), sleep or time.sleep)
        lower = {key.lower(): value for key, value in env.items()}
        proxy = lower.get("https_proxy") if self._endpoint.startswith("https") else lower.get("http_proxy")
        try:
            self._transport = httpx.HTTPTransport(proxy=proxy or None)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise ConfigurationError("The proxy of the environment can't be used.", code="proxy") from error

    def put(self, path: str, file: Path, sha256: str) -> bool:
        """See :class:`gas.validator.targets.Target`: one commit for each file."""
        checked_path(path)
        size = file.stat().st_size
        way = self._way(path, file, size)
        if way.shouldIgnore:
            raise ConfigurationError(
                f"The data set's .gitignore leaves {path} out.", code="publish_refused", hint="Change it there."
            )
        if way.uploadMode == "lfs":
            if way.oid == sha256:
                return False
            self._upload(file, sha256, size)
            line = {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256, "size": size}}
        else:
            if size > _MAX_PLAIN:
                raise IntegrityError("The hub wants a large file in a commit.", code="bad_answer")
            content = file.read_bytes()
            if way.oid == _git_oid(content):
                return False
            encoded = base64.b64encode(content).decode()
            line = {"key": "file", "value": {"content": encoded, "path": path, "encoding": "base64"}}
        head = {"key": "header", "value": {"summary": f"Publish {path}", "description": ""}}
        body = b"".join(json.dumps(one).encode() + b"\n" for one in (head, line))
        self._ask(
            f"{self._endpoint}/api/datasets/{self._name}/commit/{self._revision}",
            body,
            {"content-type": "application/x-ndjson"},
        )
        return True

    def close(self) -> None:
        """Drop connections."""
        self._transport.close()

    def _way(self, path: str, file: Path, size: int) -> _Way:
        with file.open("rb") as source:
            sample = base64.b64encode(source.read(_SAMPLE)).decode()
        answer = self._json(
            _Ways,
            f"{self._endpoint}/api/datasets/{self._name}/preupload/{self._revision}",
            {"files": [{"path": path, "sample": sample, "size": size}]},
        )
        for way in answer.files:
            if way.path == path:
                # Nothing without bytes can be sent by LFS.
                return way if size else way.model_copy(update={"uploadMode": "regular"})
        raise IntegrityError("The hub doesn't say how a file is to be sent.", code="bad_answer")

    def _upload(self, file: Path, sha256: str, size: int) -> None:
        asked = {
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": [{"oid": sha256, "size": size}],
            "hash_algo": "sha256",
        }
        url = f"{self._endpoint}/datasets/{self._name}.git/info/lfs/objects/batch"
        found = self._json(_Batch, url, asked, _LFS).objects[0]
        if found.oid != sha256 or found.error is not None:
            raise IntegrityError("The hub refuses a large file.", code="publish_refused")
        if not found.actions or "upload" not in found.actions:
            return
        action = found.actions["upload"]
        header = {name: str(value) for name, value in (action.header or {}).items()}
        if "chunk_size" in header:
            self._send_parts(file, sha256, size, action.href, header)
        else:
            self._send(action.href, file, 0, size, header)
        verify = found.actions.get("verify")
        if verify is not None:
            self._ask(self._address(verify.href), json.dumps({"oid": sha256, "size": size}).encode(), _LFS)

    def _send_parts(self, file: Path, sha256: str, size: int, finish: str, header: Mapping[str, str]) -> None:
        numbered = sorted((int(name), url) for name, url in header.items() if name.isascii() and name.isdigit())
        chunk = int(header["chunk_size"]) if header["chunk_size"].isdigit() else 0
        if chunk < 1 or len(numbered) != -(-size // chunk):
            raise IntegrityError("The hub's parts don't make up the file.", code="bad_answer")
        parts = []
        for index, (number, url) in enumerate(numbered):
            start = index * chunk
            etag = self._send(url, file, start, min(chunk, size - start), {}).get("etag", "")
            if not etag:
                raise IntegrityError("The hub's store names no ETag of a part.", code="bad_answer")
            parts.append({"partNumber": number, "etag": etag})
        self._ask(self._address(finish), json.dumps({"oid": sha256, "parts": parts}).encode(), _LFS)

    def _send(self, url: str, file: Path, start: int, size: int, header: Mapping[str, str]) -> Mapping[str, str]:
        """Send a piece of the file to where the hub says; the token does not go there."""
        headers = {name: value for name, value in header.items() if name.lower() != "content-length"}
        headers["content-length"] = str(size)
        return self._patience.repeat(
            "The hub's store", lambda: self._once("PUT", self._address(url), headers, _piece(file, start, size))[1]
        )

    def _json(self, model: type[_Model], url: str, value: object, headers: Mapping[str, str] | None = None) -> _Model:
        body = self._ask(url, json.dumps(value).encode(), headers or {"content-type": "application/json"})
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise IntegrityError("The hub answers with something else than it should.", code="bad_answer") from error

    def _ask(self, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        own = {**headers, "content-length": str(len(body))}
        if _origin(url) == _origin(self._endpoint):
            own |= self._secret
        return self._patience.repeat("The hub", lambda: self._once("POST", url, own, body)[0])

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Iterator[bytes]
    ) -> tuple[bytes, Mapping[str, str]]:
        try:
            request = httpx.Request(
                method,
                url,
                headers={"user-agent": "gas", "accept-encoding": "identity", **headers},
                content=body,
                extensions={"timeout": _TIMEOUT.as_dict()},
            )
            response = self._transport.handle_request(request)
            try:
                found = bytearray()
                for piece in response.iter_raw():
                    found += piece
                    if len(found) > _MAX_ANSWER:
                        raise IntegrityError("The hub's answer is too large.", code="bad_answer")
            finally:
                response.close()
        except httpx.TimeoutException as error:
            raise Interrupted("it did not answer in time") from error
        except httpx.HTTPError as error:
            raise Interrupted("the connection broke off") from error
        except (httpx.InvalidURL, ValueError) as error:
            raise IntegrityError("The hub names an address that is none.", code="bad_answer") from error
        self._check(response)
        return bytes(found), {name.lower(): value for name, value in response.headers.items()}

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if 200 <= status < 300:
            return
        if status in _AGAIN:
            wait = response.headers.get("retry-after", "")
            raise Interrupted(f"it answered with status {status}", float(wait[:6]) if wait.isdecimal() else None)
        if status in (401, 403):
            raise ConfigurationError(
                f"The hub refuses to take files for {self._name} (status {status}).",
                code="publish_refused",
                hint="Does HF_TOKEN allow to write to this data set?",
            )
        if status == 404:
            raise ConfigurationError(
                f"The hub has no data set {self._name}.",
                code="publish_missing",
                hint="Create it there first; its name has the form OWNER/NAME.",
            )
        raise ConfigurationError(f"The hub answers with status {status}.", code="publish_refused")

    def _address(self, url: str) -> str:
        """An address that the hub gave, when it is one that may be used."""
        if not is_web_address(url) or (self._endpoint.startswith("https:") and not url.startswith("https:")):
            raise IntegrityError("The hub names an address that is not used.", code="bad_answer")
        return url


def _piece(file: Path, start: int, size: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(start)
        while size > 0 and (chunk := source.read(min(_CHUNK, size))):
            size -= len(chunk)
            yield chunk


def _git_oid(content: bytes) -> str:
    """Git's name of a plain file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
