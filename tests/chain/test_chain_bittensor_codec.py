"""What the adapter sends and reads is, byte for byte, what a real runtime's metadata makes of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from bittensor_sdist import golden

from gas.chain.bittensor.extrinsics import ERA_BLOCKS, Submitter, _Keypair, _Watched
from gas.chain.bittensor.node import Head, Node
from gas.chain.bittensor.refusals import dispatch_error_name
from gas.chain.bittensor.views import METAGRAPH_FIELDS, commitment, commitment_fields
from gas.chain.keys import is_address
from gas.errors import ChainRefused, ChainUnreachable

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
BOB = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty"
HEAD = "0x" + "11" * 32


class Recording:
    """Answers like the node from which the golden bytes were taken."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Any]]] = []
        self.storage = {entry["key_hex"]: entry["raw_hex"] for entry in golden()["storage_values"]}
        self.calls = {
            (f"{call['api']}_{call['method']}", call["encoded_params_hex"].removeprefix("0x")): call["raw_hex"]
            for call in golden()["runtime_calls"]
        }
        self.metadata: str | None = golden()["metadata"]["v15_hex"]
        self.older_metadata: str | None = None
        self.spec = 461

    async def request(self, method: str, params: Sequence[Any] = (), *, again: bool = True) -> Any:
        self.asked.append((method, list(params)))
        match method, list(params):
            case "chain_getBlockHash", []:
                return HEAD
            case "chain_getBlockHash", [0]:
                return golden()["network"]["genesis_hash"]
            case "chain_getBlockHash", [_]:
                return golden()["metadata"]["block_hash"]
            case "chain_getHeader", _:
                return {"number": "0x43", "parentHash": HEAD}
            case "state_getRuntimeVersion", _:
                return {"specVersion": self.spec, "transactionVersion": 1}
            case "state_call", ["Metadata_metadata_at_version", *_]:
                return self.metadata
            case "state_getMetadata", _:
                return self.older_metadata
            case "state_call", [name, data, *_]:
                return self.calls[name, data.removeprefix("0x")]
            case "chain_getBlock", _:
                return golden()["block"]["raw"]
            case "state_queryStorageAt", [keys, block_hash]:
                return [{"block": block_hash, "changes": [[key, self.storage.get(key)] for key in keys]}]
        raise AssertionError(method)


@pytest.fixture(scope="module")
def rpc() -> Recording:
    return Recording()


@pytest.fixture(scope="module")
def node(rpc: Recording) -> Node:
    return Node(rpc)


@pytest.fixture(scope="module")
def head(node: Node) -> Head:
    return asyncio.run(node.head())


def encode(node: Node, head: Head, pallet: str, name: str, params: dict[str, Any]) -> bytes:
    call = asyncio.run(Submitter(node).compose(head, pallet, name, params))
    return bytes(call.data.data)


# The others are made of calls inside of calls, which the adapter never sends.
PLAIN_CALLS = range(7)


@pytest.mark.parametrize("index", PLAIN_CALLS)
def test_a_call_is_encoded_as_the_network_encodes_it(node: Node, head: Head, index: int) -> None:
    call = golden()["calls"][index]
    assert encode(node, head, call["module"], call["function"], call["params"]).hex() == call["data_hex"][2:]


def test_weights_go_to_the_first_mechanism(node: Node, head: Head) -> None:
    plain = encode(
        node,
        head,
        "SubtensorModule",
        "set_weights",
        {"netuid": 1, "dests": [0, 1], "weights": [1, 2], "version_key": 3},
    )
    mechanism = encode(
        node,
        head,
        "SubtensorModule",
        "set_mechanism_weights",
        {"netuid": 1, "mecid": 0, "dests": [0, 1], "weights": [1, 2], "version_key": 3},
    )
    assert mechanism[2:4] == plain[2:4]
    assert mechanism[4:] == b"\0" + plain[4:]


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_signed_is_what_the_network_checks(node: Node, head: Head, which: int) -> None:
    wanted = golden()["signature_payloads"][which]

    async def work() -> bytes:
        call = await Submitter(node).compose(head, "Balances", "transfer_keep_alive", {"dest": BOB, "value": 12345})
        payload = await node.codec.generate_signature_payload(
            call, era=wanted["era"], nonce=wanted["nonce"], runtime=head.runtime
        )
        return bytes(payload.data)

    assert asyncio.run(work()).hex() == wanted["payload_hex"][2:]


@pytest.mark.parametrize("which", [0, 1])
def test_a_signed_call_is_what_the_network_takes(node: Node, head: Head, which: int) -> None:
    wanted = golden()["extrinsics"][which]
    signed: list[bytes] = []

    class Alice:
        ss58_address = ALICE

        def sign(self, message: bytes) -> bytes:
            signed.append(message)
            return bytes.fromhex(wanted["signature_hex"][2:])

    async def work() -> bytes:
        call = await Submitter(node).compose(head, "Balances", "transfer_keep_alive", {"dest": BOB, "value": 12345})
        era = wanted["era"] if wanted["era"] != "00" else None
        extrinsic = await node.codec.create_signed_extrinsic(call, _Keypair(Alice()), era=era, nonce=wanted["nonce"])
        return bytes(extrinsic.data.data)

    assert asyncio.run(work()).hex() == wanted["extrinsic_hex"][2:]
    assert len(signed) == 1


def test_a_calls_outcome_is_read_from_its_block(node: Node, rpc: Recording) -> None:
    receipt = golden()["receipt"]
    data = golden()["block"]["raw"]["block"]["extrinsics"][receipt["extrinsic_idx"]]
    key = asyncio.run(node.codec.create_storage_key("System", "Events", [])).to_hex()
    before = dict(rpc.storage)
    rpc.storage[key] = golden()["events"]["raw_hex"]
    try:
        done = asyncio.run(Submitter(node)._outcome(receipt["block_hash"], _Watched(data, 60, 60 + ERA_BLOCKS)))
        with pytest.raises(ChainUnreachable):
            asyncio.run(Submitter(node)._outcome(receipt["block_hash"], _Watched("0x00", 60, 60 + ERA_BLOCKS)))
    finally:
        rpc.storage = before
    assert (done.block, done.block_hash) == (67, receipt["block_hash"])
    assert list(done.events) == receipt["triggered_events"]


def test_storage_is_asked_for_under_the_networks_keys(node: Node, rpc: Recording, head: Head) -> None:
    wanted = [
        entry for entry in golden()["storage_keys"] if head.has_storage(entry["pallet"], entry["storage_function"])
    ]
    assert len(wanted) == len(golden()["storage_keys"])
    rpc.asked.clear()
    for entry in wanted:
        key = asyncio.run(node.codec.create_storage_key(entry["pallet"], entry["storage_function"], entry["params"]))
        assert key.to_hex() == entry["key_hex"]


def test_storage_is_read_as_it_is(node: Node, head: Head) -> None:
    entries = golden()["storage_values"]
    values = asyncio.run(
        node.storage(head, [(entry["pallet"], entry["storage_function"], entry["params"]) for entry in entries])
    )
    assert values == [entry["decoded"] for entry in entries]


def test_storage_that_is_not_set_gives_its_default_and_unknown_storage_nothing(node: Node, head: Head) -> None:
    values = asyncio.run(
        node.storage(
            head,
            [
                ("SubtensorModule", "Uids", [1, ALICE]),
                ("SubtensorModule", "ValidatorTrust", [1]),
                ("SubtensorModule", "NoSuchItem", [1]),
                ("NoSuchPallet", "Item", []),
                ("SubtensorModule", "AlphaValues", [1]),
            ],
        )
    )
    assert values == [None, [], None, None, (45875, 58982)]


@pytest.mark.parametrize("which", range(4))
def test_runtime_calls_are_read_as_they_are(node: Node, head: Head, which: int) -> None:
    call = golden()["runtime_calls"][which]
    found = asyncio.run(node.call(head, call["api"], call["method"], call["params"]))
    expected = call["decoded"]
    if call["method"] == "get_neurons_lite":
        # JSON has no tuples.
        found[0]["stake"] = [list(pair) for pair in found[0]["stake"]]
    assert found == expected


def test_everything_is_read_at_the_head(node: Node, rpc: Recording) -> None:
    rpc.asked.clear()

    async def work() -> None:
        head = await node.head()
        await node.call(head, "SubnetInfoRuntimeApi", "get_subnet_hyperparams", [1])
        await node.storage(head, [("SubtensorModule", "Tempo", [1]), ("System", "Number", [])])

    asyncio.run(work())
    assert [(method, params[-1]) for method, params in rpc.asked if params] == [
        ("state_getRuntimeVersion", HEAD),
        ("state_call", HEAD),
        ("state_queryStorageAt", HEAD),
    ]


def test_a_new_runtime_brings_its_metadata() -> None:
    rpc = Recording()

    async def work() -> None:
        node = Node(rpc)
        first = await node.head()
        assert (await node.head()).runtime is first.runtime
        rpc.spec = 462
        assert (await node.head()).runtime is not first.runtime

    asyncio.run(work())
    assert sum(params[:1] == ["Metadata_metadata_at_version"] for _, params in rpc.asked) == 2


def test_what_a_runtime_has_is_read_from_its_metadata(head: Head) -> None:
    assert head.has_call("SubtensorModule", "commit_timelocked_mechanism_weights")
    assert not head.has_call("SubtensorModule", "commit_carrier_pigeon")
    assert not head.has_call("NoSuchPallet", "set_weights")
    assert head.has_method("SubnetInfoRuntimeApi", "get_selective_metagraph")
    assert not head.has_method("SubnetInfoRuntimeApi", "get_everything")
    assert head.constant("Aura", "SlotDuration") == 250
    assert head.constant("Aura", "NoSuchConstant") is None


@pytest.mark.parametrize("method", ["get_metagraph", "get_selective_metagraph"])
def test_the_networks_metagraph_has_every_field_that_is_read(head: Head, method: str) -> None:
    fields = head.result_fields("SubnetInfoRuntimeApi", method)
    assert fields[:3] == ["netuid", "name", "symbol"]
    assert set(METAGRAPH_FIELDS) <= set(fields)


def test_module_errors_are_named_by_the_metadata(head: Head) -> None:
    index = next(i for i in range(256) if head.module_error(i, 0) == "RootNetworkDoesNotExist")
    error = {"Module": {"index": index, "error": "0x0f000000"}}
    assert dispatch_error_name(error, head.module_error) == "NeuronNoValidatorPermit"
    assert (
        dispatch_error_name({"Module": {"index": 251, "error": "0x00000000"}}, head.module_error) == "Module251Error0"
    )


@pytest.mark.parametrize("text", ["", "a", "0x6162", "héllo", "x" * 128, '{"key":"a","hash":"0011"}'])
def test_a_commitment_comes_back_as_it_went(node: Node, head: Head, text: str) -> None:
    data = encode(node, head, "Commitments", "set_commitment", {"netuid": 1, "info": commitment_fields(text.encode())})
    stored = (10**9).to_bytes(8, "little") + (77).to_bytes(4, "little") + data[4:]
    pallet = head.runtime.metadata.get_metadata_pallet("Commitments")
    kind = pallet.get_storage_function("CommitmentOf").get_value_type_string()
    found = asyncio.run(node.codec.decode_scale(kind, stored, runtime=head.runtime)).value
    read = commitment(ALICE, found)
    assert read is not None
    assert (read.hotkey, read.data, read.block) == (ALICE, text, 77)


@pytest.mark.parametrize(
    "params",
    [
        {"netuid": 65536, "mecid": 0, "dests": [0], "weights": [1], "version_key": 0},
        {"netuid": 1, "mecid": 0, "dests": [-1], "weights": [1], "version_key": 0},
        {"netuid": 1, "mecid": 0, "dests": [0], "weights": [65536], "version_key": 0},
        {"netuid": 1, "mecid": 0, "dests": [0], "weights": [1], "version_key": 2**64},
        {"netuid": 1, "dests": [0], "weights": [1], "version_key": 0},
        {"netuid": 1, "mecid": 0, "dests": "all", "weights": [1], "version_key": 0},
    ],
)
def test_what_no_call_can_carry_is_refused(node: Node, head: Head, params: dict[str, Any]) -> None:
    with pytest.raises(ChainRefused) as refused:
        encode(node, head, "SubtensorModule", "set_mechanism_weights", params)
    assert refused.value.error_code == "malformed_call"


def test_a_call_that_the_network_does_not_have_is_refused(node: Node, head: Head) -> None:
    with pytest.raises(ChainRefused) as refused:
        encode(node, head, "SubtensorModule", "print_money", {})
    assert refused.value.error_code == "unknown_call"


@pytest.mark.parametrize("metadata", [None, "0x", "0x00", "0x01", "0x01b69a17006d657461ff", "no hex", 7])
def test_metadata_that_makes_no_sense_is_a_node_that_does_not_answer(metadata: Any) -> None:
    rpc = Recording()
    rpc.metadata = metadata
    with pytest.raises(ChainUnreachable):
        asyncio.run(Node(rpc).head())


def test_a_runtime_that_shows_only_the_older_metadata_still_has_its_calls(rpc: Recording) -> None:
    rpc = Recording()
    rpc.metadata, rpc.older_metadata = "0x00", golden()["metadata"]["v14_hex"]
    node = Node(rpc)
    head = asyncio.run(node.head())
    call = golden()["calls"][5]
    assert encode(node, head, call["module"], call["function"], call["params"]).hex() == call["data_hex"][2:]
    with pytest.raises(ChainRefused) as refused:
        asyncio.run(node.call(head, "SubnetInfoRuntimeApi", "get_metagraph", [1]))
    assert refused.value.error_code == "unsupported_runtime"


@pytest.mark.parametrize("answer", [None, "", "0x", "0xzz", "0x01", "0x01" + "ff" * 40, 5])
def test_a_runtime_calls_nonsense_is_a_node_that_does_not_answer(node: Node, rpc: Recording, head: Head, answer: Any):
    before = dict(rpc.calls)
    rpc.calls["SubnetInfoRuntimeApi_get_subnet_hyperparams", "0100"] = answer
    try:
        with pytest.raises(ChainUnreachable):
            asyncio.run(node.call(head, "SubnetInfoRuntimeApi", "get_subnet_hyperparams", [1]))
    finally:
        rpc.calls = before


@pytest.mark.parametrize("answer", ["0x", "0xzz", "nothing", 5, [1]])
def test_a_storage_items_nonsense_is_a_node_that_does_not_answer(node: Node, rpc: Recording, head: Head, answer: Any):
    key = asyncio.run(node.codec.create_storage_key("SubtensorModule", "SubnetOwner", [1])).to_hex()
    before = dict(rpc.storage)
    rpc.storage[key] = answer
    try:
        with pytest.raises(ChainUnreachable):
            asyncio.run(node.storage(head, [("SubtensorModule", "SubnetOwner", [1])]))
    finally:
        rpc.storage = before


def test_addresses_are_the_ecosystems(node: Node, head: Head) -> None:
    (owner,) = asyncio.run(node.storage(head, [("SubtensorModule", "SubnetOwner", [1])]))
    assert is_address(owner)
