"""A small client of a node for tests: it founds networks on a development node, and says things no adapter would."""

from __future__ import annotations

import itertools
import json
from types import TracebackType
from typing import Any

from scale_metadata import Metadata, Reader, compact
from substrate_extrinsics import Rules, signed_payload
from websockets.sync.client import connect

from gas.chain.keys import Signer, public_key

__all__ = ["CallFailed", "NodeClient", "RpcError"]


class RpcError(Exception):
    """The node's error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('code')}: {error.get('message')}: {error.get('data')}")
        self.code, self.data = error.get("code"), str(error.get("data"))


class CallFailed(Exception):
    """A call that was included and failed; its text is ``Pallet.Error``."""


class NodeClient:
    """One connection; a context manager.

    Args:
        url: ``ws://`` or ``wss://``.
        seconds: How long a node may take to answer, or to include a call.
    """

    def __init__(self, url: str, seconds: float = 60.0) -> None:
        self._socket = connect(url, max_size=64 * 2**20, open_timeout=seconds, ping_interval=None)
        self._seconds = seconds
        self._ids = itertools.count(1)
        self._updates: list[dict[str, Any]] = []
        version = self.ask("state_getRuntimeVersion")
        option = Reader(bytes.fromhex(self.ask("state_call", "Metadata_metadata_at_version", "0x0f000000")[2:]))
        option.number(1)
        self.metadata = Metadata(option.blob())
        genesis = bytes.fromhex(self.ask("chain_getBlockHash", 0)[2:])
        self.rules = Rules(genesis, version["specVersion"], version["transactionVersion"])

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, method: str, *params: Any) -> Any:
        """One request's result.

        Raises:
            RpcError: The node refuses.
        """
        number = next(self._ids)
        self._socket.send(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}))
        while True:
            message = json.loads(self._socket.recv(self._seconds))
            if message.get("id") == number:
                if "error" in message:
                    raise RpcError(message["error"])
                return message["result"]
            self._updates.append(message)

    def update(self, subscription: str) -> Any:
        """The next notification of a subscription."""
        while True:
            for message in self._updates:
                if message["params"]["subscription"] == subscription:
                    self._updates.remove(message)
                    return message["params"]["result"]
            self._updates.append(json.loads(self._socket.recv(self._seconds)))

    def batch(self, *requests: tuple[str, list[Any]]) -> list[Any]:
        """The results of several requests in one message, in their order."""
        asked = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(requests)]
        self._socket.send(json.dumps(asked))
        answers = {one["id"]: one["result"] for one in json.loads(self._socket.recv(self._seconds))}
        return [answers[i] for i in range(len(requests))]

    def number(self) -> int:
        return int(self.ask("chain_getHeader")["number"], 16)

    def read(self, pallet: str, item: str, *keys: Any) -> Any:
        """A storage entry's value, or the item's default."""
        found = self.metadata.item(pallet, item)
        raw = self.ask("state_getStorage", "0x" + self.metadata.storage_key(found, *keys).hex())
        if raw is None:
            return None if found.optional else self.metadata.decode(found.value, Reader(found.default))
        return self.metadata.decode(found.value, Reader(bytes.fromhex(raw[2:])))

    def has(self, pallet: str, call: str) -> bool:
        """Whether the runtime has a call."""
        found = self.metadata.pallets.get(pallet)
        return found is not None and found.call is not None and any(v[0] == call for v in self._variants(found.call))

    def _variants(self, ty: int) -> list[Any]:
        return list(self.metadata.types[ty][1])

    def sign(
        self,
        signer: Signer,
        pallet: str,
        call: str,
        args: dict[str, Any],
        *,
        nonce: int | None = None,
        era: tuple[int, int] | None = None,
        rules: Rules | None = None,
    ) -> bytes:
        """A signed extrinsic's bytes.

        Args:
            signer: Whose.
            pallet: Of the call.
            call: Its name.
            args: Its arguments, as :mod:`scale_metadata` writes them.
            nonce: Another than the next.
            era: Period (a power of 2 from 4 to 4096) and birth block of a mortal extrinsic; None: it never dies.
            rules: Other than the node's, for a signature of another network.
        """
        meta = self.metadata
        encoded = meta.encode(meta.outer_call, (pallet, (call, args)))
        number = self.ask("account_nextIndex", signer.ss58_address) if nonce is None else nonce
        rules, lifetime = rules or self.rules, "00"
        mortality = rules.genesis
        if era is not None:
            period, birth = era
            lifetime = (period.bit_length() - 2 | (birth % period) << 4).to_bytes(2, "little").hex()
            mortality = bytes.fromhex(self.ask("chain_getBlockHash", birth)[2:])
        extra = b""
        for name, ty, _ in meta.extensions:
            if name == "CheckMortality":
                extra += bytes.fromhex(lifetime)
            else:
                extra += compact(number) if name == "CheckNonce" else meta.zero(ty)
        signature = signer.sign(signed_payload(meta, rules, encoded, extra, mortality))
        body = b"\x84" + meta.encode(meta.address, ("Id", public_key(signer.ss58_address)))
        body += meta.encode(meta.signature, ("Sr25519", signature)) + extra + encoded
        return compact(len(body)) + body

    def submit(self, raw: bytes) -> list[tuple[str, str, Any]]:
        """Send an extrinsic and wait until it is in a block; returns its events.

        Raises:
            RpcError: The pool refuses.
            CallFailed: It was included and failed.
        """
        text = "0x" + raw.hex()
        subscription = self.ask("author_submitAndWatchExtrinsic", text)
        while True:
            status = self.update(subscription)
            if isinstance(status, dict) and "inBlock" in status:
                digest = status["inBlock"]
                break
            if status not in ("ready", "future", "broadcast") and "broadcast" not in status:
                raise CallFailed(str(status))
        self.ask("author_unwatchExtrinsic", subscription)
        index = self.ask("chain_getBlock", digest)["block"]["extrinsics"].index(text)
        events = []
        for phase, pallet, name, fields in self.events(digest):
            if phase == ("ApplyExtrinsic", index):
                if name == "ExtrinsicFailed":
                    raise CallFailed(self._error(fields["dispatch_error"]))
                events.append((pallet, name, fields))
        return events

    def events(self, digest: str) -> list[tuple[Any, str, str, Any]]:
        """The events of a block: phase, pallet, name, fields."""
        item = self.metadata.item("System", "Events")
        raw = self.ask("state_getStorage", "0x" + item.prefix.hex(), digest)
        found = self.metadata.decode(item.value, Reader(bytes.fromhex(raw[2:])))
        return [(e["phase"], e["event"][0], *e["event"][1]) for e in found]

    def _error(self, error: tuple[str, Any]) -> str:
        kind, fields = error
        if kind != "Module":
            return kind
        pallet = next(p for p in self.metadata.pallets.values() if p.index == fields["index"])
        if pallet.error is None:
            return kind
        return f"{pallet.name}." + next(v[0] for v in self._variants(pallet.error) if v[2] == fields["error"][0])

    def call(self, signer: Signer, pallet: str, call: str, **args: Any) -> list[tuple[str, str, Any]]:
        """Sign, send, wait; returns the call's events."""
        return self.submit(self.sign(signer, pallet, call, args))

    def sudo(self, root: Signer, pallet: str, call: str, **args: Any) -> None:
        """A call by the network's sudo key.

        Raises:
            CallFailed: The inner call failed.
        """
        events = self.submit(self.sign(root, "Sudo", "sudo", {"call": (pallet, (call, args))}))
        for _, name, fields in events:
            if name == "Sudid" and fields["sudo_result"][0] != "Ok":
                raise CallFailed(f"{pallet}.{call}: {fields['sudo_result']}")
