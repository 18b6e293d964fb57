"""A node as the substrate library sees it: its encoding and decoding on our own connection.

Everything is read at the head, because a light node prunes older state, and everything of one read at one block.
Which calls, storage items and runtime interfaces exist is read from the metadata of the runtime at that head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from async_substrate_interface import AsyncSubstrateInterface
from async_substrate_interface.async_substrate import ResultHandler
from async_substrate_interface.errors import SubstrateRequestException
from async_substrate_interface.types import Runtime
from async_substrate_interface.utils.storage import StorageKey
from scalecodec.exceptions import InvalidScaleTypeValueException, RemainingScaleBytesNotEmptyException

from gas.chain.bittensor.rpc import Json, RpcConnection, RpcError
from gas.errors import ChainError, ChainRefused, ChainUnreachable

__all__ = ["ADDRESS_FORMAT", "Head", "Key", "Node", "hash_text", "header_number"]

ADDRESS_FORMAT: Final = 42
"""The network's SS58 address format."""

Key: TypeAlias = tuple[str, str, Sequence[Any]]
"""A storage item: pallet, name, parameters."""

_LOOKS: Final = 4
_BLOCK_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,8}")

# What the library's decoder raises on bytes that don't fit the metadata.
_DECODING_ERRORS: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    InvalidScaleTypeValueException,
    RemainingScaleBytesNotEmptyException,
)


class _Library(AsyncSubstrateInterface):
    """The substrate library without its transport: every request goes through an :class:`RpcConnection`."""

    def __init__(self, rpc: RpcConnection) -> None:
        # The library gets no address, so that it can neither connect nor log it.
        super().__init__("", ss58_format=ADDRESS_FORMAT, chain_name="Bittensor")
        self._rpc = rpc
        self.current: Runtime | None = None

    async def rpc_request(
        self,
        method: str,
        params: list[Any] | None,
        result_handler: ResultHandler | None = None,  # noqa: ARG002
        block_hash: str | None = None,
        runtime: Runtime | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """One request in the library's shape; subscriptions are not for the library."""
        try:
            result = await self._rpc.request(method, [*(params or []), *([block_hash] if block_hash else [])])
        except RpcError as error:
            if method == "state_call" and "Metadata_metadata_at_version" in str(error):
                # The words by which the library knows that it has to ask for the older metadata.
                raise SubstrateRequestException(
                    "Client error: Execution failed: Other: Exported method Metadata_metadata_at_version is not found"
                ) from error
            raise
        if method in ("state_call", "state_getMetadata") and not isinstance(result, str):
            raise SubstrateRequestException(f"{method} gives no bytes.")
        return {"result": result}

    async def init_runtime(
        self,
        block_hash: str | None = None,  # noqa: ARG002
        block_id: int | None = None,  # noqa: ARG002
        init: bool = False,  # noqa: ARG002
    ) -> Runtime:
        """The runtime that :meth:`Node.head` found last."""
        if self.current is None:
            raise ChainError("No runtime is loaded.")
        return self.current

    async def get_parent_block_hash(self, block_hash: str) -> str:
        """The block itself: its parent's runtime explains its content, and we look at the state after it."""
        return block_hash


@dataclass(frozen=True, slots=True)
class Head:
    """The newest block and the runtime of its state."""

    block_hash: str
    runtime: Runtime

    def has_call(self, pallet: str, name: str) -> bool:
        """Whether the runtime has this call."""
        found = _pallet(self.runtime, pallet)
        return found is not None and any(call.name == name for call in found.calls or ())

    def has_storage(self, pallet: str, name: str) -> bool:
        """Whether the runtime has this storage item."""
        found = _pallet(self.runtime, pallet)
        return found is not None and found.get_storage_function(name) is not None

    def has_method(self, api: str, method: str) -> bool:
        """Whether the runtime has this method of a runtime interface."""
        # The library makes this map of metadata V15 only, which older runtimes don't have.
        return self.runtime.metadata_v15 is not None and method in self.runtime.runtime_api_map.get(api, {})

    def constant(self, pallet: str, name: str) -> int | None:
        """An unsigned integer constant, or None when the runtime has none of this name."""
        found = _pallet(self.runtime, pallet)
        for constant in (found.constants or ()) if found is not None else ():
            if constant.value["name"] == name:
                return int.from_bytes(bytes(constant.constant_value), "little")
        return None

    def result_fields(self, api: str, method: str) -> list[str]:
        """Names of the fields of the struct that a method returns, perhaps inside an ``Option``, in their order.

        Raises:
            ChainUnreachable: The metadata says that it returns something else.
        """
        registry = self.runtime.metadata.portable_registry
        types = registry.value["types"] if registry is not None else []
        try:
            definition = types[self.runtime.runtime_api_map[api][method]["output"]]["type"]["def"]
            if "variant" in definition:
                (some,) = (variant for variant in definition["variant"]["variants"] if variant["name"] == "Some")
                definition = types[some["fields"][0]["type"]]["type"]["def"]
            return [str(field["name"]) for field in definition["composite"]["fields"]]
        except _DECODING_ERRORS:
            raise _nonsense(f"{api}.{method}") from None

    def module_error(self, index: int, error: int) -> str:
        """Name of a module error, e.g. ``SubnetNotExists``; "" when the metadata doesn't know it."""
        try:
            found = self.runtime.metadata.get_module_error(module_index=index, error_index=error)
        except _DECODING_ERRORS:
            return ""
        return "" if found is None else str(found.name)


class Node:
    """Reads of one node.

    Args:
        rpc: The connection.
    """

    def __init__(self, rpc: RpcConnection) -> None:
        self.rpc = rpc
        self.codec = _Library(rpc)
        self._version = -1

    async def head(self) -> Head:
        """The newest block, with its runtime; the metadata (about 0.4 MB) is fetched once a runtime version.

        Raises:
            ChainUnreachable: No answer, or one that makes no sense.
        """
        for _ in range(_LOOKS):
            block_hash = hash_text(await self.ask("chain_getBlockHash"))
            version = await self.ask("state_getRuntimeVersion", block_hash)
            number = version.get("specVersion") if isinstance(version, dict) else None
            if type(number) is not int:
                raise _nonsense("its runtime's version")
            if self.codec.current is not None and number == self._version:
                return Head(block_hash, self.codec.current)
            try:
                self.codec.current = await self.codec.get_runtime_for_version(number, block_hash)
            except (*_DECODING_ERRORS, SubstrateRequestException, RpcError):
                raise _nonsense("its metadata") from None
            # Reading the metadata takes a second or more, after which this block may be pruned: look again.
            self._version = number
        raise _nonsense("its runtime's version each time")

    async def number(self) -> int:
        """The newest block's number.

        Raises:
            ChainUnreachable: No answer, or one that makes no sense.
        """
        return header_number(await self.ask("chain_getHeader"))

    async def storage(self, head: Head, keys: Sequence[Key]) -> list[Any]:
        """Values of storage items at a head, in the order of the keys, in one request.

        An item that the runtime does not have is None; so is an optional one that isn't set, while others give their
        default.

        Raises:
            ChainUnreachable: No answer, or one that makes no sense.
        """
        wanted: dict[int, StorageKey] = {}
        for index, (pallet, name, params) in enumerate(keys):
            if head.has_storage(pallet, name):
                wanted[index] = await self.codec.create_storage_key(pallet, name, list(params))
        try:
            pairs = await self.codec.query_multi(list(wanted.values()), head.block_hash, head.runtime)
        except (*_DECODING_ERRORS, RpcError):
            raise _nonsense("a storage item") from None
        found = {key.to_hex(): value for key, value in pairs}
        if len(found) != len({key.to_hex() for key in wanted.values()}):
            raise _nonsense("a storage item")
        return [found[wanted[index].to_hex()] if index in wanted else None for index in range(len(keys))]

    async def call(self, head: Head, api: str, method: str, params: Sequence[Any]) -> Any:
        """The decoded result of a runtime call at a head.

        Raises:
            ChainRefused: The runtime has no such method (``unsupported_runtime``).
            ChainUnreachable: No answer, or one that makes no sense.
        """
        if not head.has_method(api, method):
            raise ChainRefused(f"The network's runtime has no {api}.{method}.", code="unsupported_runtime")
        definition = head.runtime.runtime_api_map[api][method]
        data = b""
        for given, value in zip(definition["inputs"], params, strict=True):
            data += await self.codec.encode_scale(f"scale_info::{given['ty']}", value, runtime=head.runtime)
        answer = await self.ask("state_call", f"{api}_{method}", "0x" + data.hex(), head.block_hash)
        try:
            raw = bytes.fromhex(str(answer).removeprefix("0x"))
            decoded = await self.codec.decode_scale(f"scale_info::{definition['output']}", raw, runtime=head.runtime)
        except _DECODING_ERRORS:
            raise _nonsense(f"{api}.{method}") from None
        return decoded.value

    async def ask(self, method: str, *params: Json) -> Json:
        """The result of one request that the node has no reason to refuse.

        Raises:
            ChainUnreachable: No answer, or an error.
        """
        try:
            return await self.rpc.request(method, params)
        except RpcError as error:
            raise ChainUnreachable(
                f"The chain's node can't answer {method}: {error}", hint="Use another node."
            ) from None


def hash_text(value: Json) -> str:
    """A block's hash as the node gave it.

    Raises:
        ChainUnreachable: It is none.
    """
    if not isinstance(value, str) or len(value) != 66 or not value.startswith("0x"):
        raise _nonsense("a block's hash")
    return value


def header_number(header: Json) -> int:
    """The number in a block's header.

    Raises:
        ChainUnreachable: It is no header.
    """
    number = header.get("number") if isinstance(header, dict) else None
    # The network counts its blocks in 32 bits.
    if not isinstance(number, str) or not _BLOCK_NUMBER.fullmatch(number):
        raise _nonsense("a block's header")
    return int(number, 16)


def _pallet(runtime: Runtime, name: str) -> Any:
    return next((pallet for pallet in runtime.metadata.pallets if pallet.name == name), None)


def _nonsense(what: str) -> ChainUnreachable:
    return ChainUnreachable(
        f"The chain's node gives something else for {what}.", hint="Check --chain-endpoint, or use another node."
    )
