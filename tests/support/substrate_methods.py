"""The JSON-RPC methods of a node; a method's name here is the node's own."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bittensor_sdist import golden
from scale_metadata import compact
from substrate_blocks import Block, Blocks
from substrate_extrinsics import Refusal
from subtensor_info import RuntimeCalls
from websockets.asyncio.server import ServerConnection

from gas.chain.keys import public_key

__all__ = ["Client", "Methods"]


@dataclass
class Client:
    """One connection: its subscriptions, and what it is still to be told."""

    socket: ServerConnection
    heads: dict[str, str] = field(default_factory=dict)
    watched: dict[str, bytes] = field(default_factory=dict)
    after: list[Callable[[], None]] = field(default_factory=list)
    outbox: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def notify(self, method: str, subscription: str, result: Any) -> None:
        params = {"subscription": subscription, "result": result}
        self.outbox.put_nowait(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))

    def tell(self, block: Block, forked: bool) -> None:
        """Tell of a new block, and of what was waited for in it; first, if ``forked``, of one that is taken back."""
        for subscription, method in self.heads.items():
            self.notify(method, subscription, block.header)
        digest, done = "0x" + block.hash.hex(), {extrinsic.hash for extrinsic in block.included}
        for subscription, watched in list(self.watched.items()):
            if watched in done:
                del self.watched[subscription]
                lost = "0x" + "ee" * 32
                told = [{"inBlock": lost}, {"retracted": lost}] if forked else []
                for status in ({"broadcast": ["12D3KooW"]}, *told, {"inBlock": digest}, {"finalized": digest}):
                    self.notify("author_extrinsicUpdate", subscription, status)


class Methods:
    """Answers requests.

    Args:
        chain: The blocks.
        accepted: Called after an extrinsic has got into the pool and its sender has been told so.
    """

    def __init__(self, chain: Blocks, accepted: Callable[[], None]) -> None:
        self._chain, self._accepted = chain, accepted
        self.lies: dict[str, Any] = {}
        self._ids = (hashlib.sha256(str(i).encode()).hexdigest()[:16] for i in itertools.count())
        self.names = sorted(name for name in dir(self) if "_" in name[1:] and not name.startswith("_"))

    def answer(self, client: Client, asked: Any) -> dict[str, Any]:
        """The answer to one request."""
        if not isinstance(asked, dict) or "method" not in asked:
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid request"}}
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.get("id")}
        if asked["method"] not in self.names:
            return answer | {"error": {"code": -32601, "message": "Method not found"}}
        if asked["method"] in self.lies:
            return answer | {"result": self.lies[asked["method"]]}
        try:
            return answer | {"result": getattr(self, asked["method"])(client, *(asked.get("params") or []))}
        except Refusal as refusal:
            error: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
            return answer | {"error": error | ({"data": refusal.data} if refusal.data else {})}
        except (TypeError, ValueError) as error:
            return answer | {"error": {"code": -32602, "message": "Invalid params", "data": str(error)}}

    def system_chain(self, _: Client) -> str:
        return "Bittensor"

    def system_name(self, _: Client) -> str:
        return "Subtensor Node"

    def system_version(self, _: Client) -> str:
        return "4.0.0-dev"

    def system_properties(self, _: Client) -> dict[str, Any]:
        return {"isEthereum": False, "ss58Format": 42, "tokenDecimals": 9, "tokenSymbol": "TAO"}

    def system_health(self, _: Client) -> dict[str, Any]:
        return {"peers": 1, "isSyncing": False, "shouldHavePeers": True}

    def rpc_methods(self, _: Client) -> dict[str, Any]:
        return {"methods": self.names}

    def chain_getBlockHash(self, _: Client, number: int | str | None = None) -> str | None:
        head = self._chain.head.number
        wanted = head if number is None else int(number, 16) if isinstance(number, str) else number
        return "0x" + self._chain.blocks[wanted].hash.hex() if 0 <= wanted <= head else None

    def chain_getHead(self, client: Client) -> str | None:
        return self.chain_getBlockHash(client)

    def chain_getFinalizedHead(self, client: Client) -> str | None:
        return self.chain_getBlockHash(client)

    def chain_getHeader(self, _: Client, digest: str | None = None) -> dict[str, Any] | None:
        return self._chain.block(digest).header if digest is None or digest in self._chain.by_hash else None

    def chain_getBlock(self, _: Client, digest: str | None = None) -> dict[str, Any] | None:
        if digest is not None and digest not in self._chain.by_hash:
            return None
        block = self._chain.block(digest)
        extrinsics = ["0x" + extrinsic.hex() for extrinsic in block.extrinsics]
        return {"block": {"header": block.header, "extrinsics": extrinsics}, "justifications": None}

    def chain_subscribeNewHeads(self, client: Client) -> str:
        return self._subscribe(client, "chain_newHead")

    def chain_subscribeFinalizedHeads(self, client: Client) -> str:
        return self._subscribe(client, "chain_finalizedHead")

    def chain_unsubscribeNewHeads(self, client: Client, subscription: str) -> bool:
        return client.heads.pop(subscription, None) is not None

    def chain_unsubscribeFinalizedHeads(self, client: Client, subscription: str) -> bool:
        return client.heads.pop(subscription, None) is not None

    def _subscribe(self, client: Client, method: str) -> str:
        subscription = next(self._ids)

        def begin() -> None:
            client.heads[subscription] = method
            client.notify(method, subscription, self._chain.head.header)

        client.after.append(begin)
        return subscription

    def state_getRuntimeVersion(self, _: Client, digest: str | None = None) -> dict[str, Any]:
        self._chain.block(digest)
        return {
            "specName": "node-subtensor",
            "implName": "node-subtensor",
            "authoringVersion": 1,
            "specVersion": self._chain.rules.spec_version,
            "implVersion": 1,
            "apis": [],
            "transactionVersion": self._chain.rules.transaction_version,
            "stateVersion": 1,
        }

    def state_subscribeRuntimeVersion(self, client: Client) -> str:
        subscription = next(self._ids)
        version = self.state_getRuntimeVersion(client)
        client.after.append(lambda: client.notify("state_runtimeVersion", subscription, version))
        return subscription

    def state_getMetadata(self, _: Client, digest: str | None = None) -> str:
        self._chain.block(digest)
        return str(golden()["metadata"]["v14_hex"])

    def state_getStorage(self, _: Client, key: str, digest: str | None = None) -> str | None:
        value = self._chain.state(digest).entry(bytes.fromhex(key[2:]))
        return None if value is None else "0x" + value.hex()

    def state_getStorageAt(self, client: Client, key: str, digest: str | None = None) -> str | None:
        return self.state_getStorage(client, key, digest)

    def state_queryStorageAt(self, client: Client, keys: list[str], digest: str | None = None) -> list[dict[str, Any]]:
        block = self._chain.block(digest)
        changes = [[key, self.state_getStorage(client, key, digest)] for key in keys]
        return [{"block": "0x" + block.hash.hex(), "changes": changes}]

    def state_getKeysPaged(
        self, _: Client, prefix: str, count: int, start: str | None = None, digest: str | None = None
    ) -> list[str]:
        keys = ["0x" + key.hex() for key in self._chain.state(digest).keys(bytes.fromhex(prefix[2:]))]
        return [key for key in keys if start is None or key > start][:count]

    def state_call(self, _: Client, name: str, arguments: str, digest: str | None = None) -> str:
        data = bytes.fromhex(arguments[2:])
        if name == "Metadata_metadata_at_version":
            self._chain.block(digest)
            raw = self._chain.raw_metadata
            return "0x01" + (compact(len(raw)) + raw).hex() if int.from_bytes(data, "little") == 15 else "0x00"
        value = RuntimeCalls(self._chain.state(digest)).call(name, data)
        if value is None:
            raise Refusal(4003, f"Client error: Execution failed: Other: Exported method {name} is not found")
        return "0x" + value.hex()

    def account_nextIndex(self, _: Client, who: str) -> int:
        return self._chain.next_index(public_key(who))

    def system_accountNextIndex(self, client: Client, who: str) -> int:
        return self.account_nextIndex(client, who)

    def author_pendingExtrinsics(self, _: Client) -> list[str]:
        return ["0x" + extrinsic.raw.hex() for extrinsic in self._chain.pool]

    def author_submitExtrinsic(self, client: Client, text: str) -> str:
        extrinsic = self._chain.accept(bytes.fromhex(text[2:]))
        client.after.append(self._accepted)
        return "0x" + extrinsic.hash.hex()

    def author_submitAndWatchExtrinsic(self, client: Client, text: str) -> str:
        subscription = next(self._ids)
        extrinsic = self._chain.accept(bytes.fromhex(text[2:]))

        def begin() -> None:
            client.watched[subscription] = extrinsic.hash
            status = "ready" if self._chain.next_ready() is not None else "future"
            client.notify("author_extrinsicUpdate", subscription, status)
            self._accepted()

        client.after.append(begin)
        return subscription

    def author_unwatchExtrinsic(self, client: Client, subscription: str) -> bool:
        return client.watched.pop(subscription, None) is not None
