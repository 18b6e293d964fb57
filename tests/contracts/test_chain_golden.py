"""The test peer's own codec gives, byte for byte, what a real node gave: otherwise the peer would prove nothing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from bittensor_sdist import golden
from scale_hashes import twox_128
from scale_metadata import Metadata, Reader, compact
from substrate_blocks import real_metadata, real_rules
from substrate_extrinsics import Extrinsic, signed_payload

from gas.chain.keys import public_key


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def key_part(value: Any) -> Any:
    if isinstance(value, str):
        return raw(value) if value.startswith("0x") else public_key(value)
    return value


@pytest.fixture(scope="module")
def metadata() -> Metadata:
    return real_metadata()[1]


def test_storage_keys_are_the_networks(metadata: Metadata) -> None:
    for entry in golden()["storage_keys"]:
        item = metadata.item(entry["pallet"], entry["storage_function"])
        keys = tuple(key_part(value) for value in entry["params"])
        assert metadata.storage_key(item, *keys) == raw(entry["key_hex"]), entry
        assert metadata.read_key(raw(entry["key_hex"])) == (item, keys)


def test_storage_values_are_the_networks(metadata: Metadata) -> None:
    entries = [entry for entry in golden()["storage_values"] if entry["raw_hex"]]
    assert len(entries) >= 7
    for entry in [*entries, {"pallet": "System", "storage_function": "Events", **golden()["events"]}]:
        ty = metadata.item(entry["pallet"], entry["storage_function"]).value
        reader = Reader(raw(entry["raw_hex"]))
        value = metadata.decode(ty, reader)
        assert reader.left == 0
        assert metadata.encode(ty, value) == raw(entry["raw_hex"])
        if isinstance(entry["decoded"], int):
            assert value == entry["decoded"]


def test_runtime_calls_are_the_networks(metadata: Metadata) -> None:
    for entry in golden()["runtime_calls"]:
        inputs, output = metadata.apis[f"{entry['api']}_{entry['method']}"]
        given = b"".join(
            metadata.encode(ty, key_part(value)) for ty, value in zip(inputs, entry["params"], strict=True)
        )
        assert given == raw(entry["encoded_params_hex"])
        reader = Reader(raw(entry["raw_hex"]))
        assert metadata.encode(output, metadata.decode(output, reader)) == raw(entry["raw_hex"])
        assert reader.left == 0


def test_the_nodes_hyperparameters_are_read_as_the_sdk_reads_them(metadata: Metadata) -> None:
    (entry,) = [one for one in golden()["runtime_calls"] if one["method"] == "get_subnet_hyperparams"]
    _, output = metadata.apis["SubnetInfoRuntimeApi_get_subnet_hyperparams"]
    assert metadata.decode(output, Reader(raw(entry["raw_hex"]))) == entry["decoded"]


def test_calls_are_the_networks(metadata: Metadata) -> None:
    for entry in golden()["calls"]:
        reader = Reader(raw(entry["data_hex"]))
        call = metadata.read_call(reader)
        assert (call.pallet, call.name, reader.left) == (entry["module"], entry["function"], 0)
        assert metadata.encode(metadata.outer_call, (call.pallet, (call.name, call.args))) == raw(entry["data_hex"])


def test_what_is_signed_is_what_the_network_signs(metadata: Metadata) -> None:
    for entry in golden()["signature_payloads"]:
        era, mortality = b"\0", real_rules().genesis
        if entry["era"] != "00":
            period, birth = entry["era"]["period"], entry["era"]["current"]
            era = (period.bit_length() - 2 | birth % period << 4).to_bytes(2, "little")
            mortality = raw(entry["era_birth_block_hash"])
        extra = era + compact(entry["nonce"]) + compact(entry["tip"]) + b"\0"
        payload = signed_payload(metadata, real_rules(), raw(entry["call_data_hex"]), extra, mortality)
        assert payload == raw(entry["payload_hex"])


def test_extrinsics_have_the_networks_hashes(metadata: Metadata) -> None:
    for entry in golden()["extrinsics"]:
        data = raw(entry["extrinsic_hex"])
        call = metadata.read_call(Reader(raw(entry["call_data_hex"])))
        extrinsic = Extrinsic(data, raw(entry["public_key_hex"]), entry["nonce"], call)
        assert extrinsic.hash == raw(entry["extrinsic_hash"])
        assert extrinsic.hash == hashlib.blake2b(data, digest_size=32).digest()


def test_errors_have_the_networks_indices(metadata: Metadata) -> None:
    module, error = metadata.error_index("SubtensorModule", "SettingWeightsTooFast")
    assert module == metadata.pallets["SubtensorModule"].index == 7
    assert error == 29
    with pytest.raises(StopIteration):
        metadata.error_index("SubtensorModule", "NoSuchError")


def test_a_pallets_name_hashes_to_its_known_prefix() -> None:
    assert twox_128(b"System").hex() == "26aa394eea5630e07c48ae0c9558cef7"
    # xxHash64's published answer for a text of more than 32 bytes, which takes the other branch.
    assert twox_128(b"Nobody inspects the spammish repetition")[7::-1].hex() == "fbcea83c8a378bf1"


def test_a_hidden_call_is_gone_and_everything_else_is_as_it_was() -> None:
    whole, metadata = real_metadata()
    hidden, changed = real_metadata(("set_mechanism_weights",))
    assert len(hidden) == len(whole)

    def calls(found: Metadata) -> list[str]:
        pallet = found.pallets["SubtensorModule"]
        assert pallet.call is not None
        return [variant[0] for variant in found.types[pallet.call][1]]

    assert [name for name in calls(metadata) if name not in calls(changed)] == ["set_mechanism_weights"]
    assert len(calls(metadata)) == len(calls(changed))
