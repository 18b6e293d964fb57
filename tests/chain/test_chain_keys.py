"""Wallets and signatures."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from bittensor_wallet import Keypair, Wallet
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.chain.keys import (
    create_hotkey,
    create_wallet,
    ensure_wallet,
    is_address,
    list_wallets,
    load_coldkey,
    load_hotkey,
    public_key,
    signer_from_seed,
    verify,
    view_wallet,
)
from gas.errors import ConfigurationError

ANN, BOB = signer_from_seed(bytes(32)), signer_from_seed(bytes([1]) * 32)


@settings(max_examples=30)
@given(st.binary(max_size=500))
def test_a_signature_verifies_for_its_signer_and_message_only(message: bytes) -> None:
    signature = ANN.sign(message)
    assert verify(ANN.ss58_address, message, signature)
    assert not verify(BOB.ss58_address, message, signature)
    assert not verify(ANN.ss58_address, message + b"!", signature)


@settings(max_examples=30)
@given(st.binary(max_size=100), st.integers(0, 511))
def test_a_signature_with_one_bit_flipped_verifies_nothing(message: bytes, bit: int) -> None:
    signature = bytearray(ANN.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(ANN.ss58_address, message, bytes(signature))


@settings(max_examples=50)
@given(st.text(max_size=60), st.binary(max_size=20), st.binary(max_size=80))
def test_garbage_verifies_nothing_and_raises_nothing(address: str, message: bytes, signature: bytes) -> None:
    assert not verify(address, message, signature)
    assert not verify(ANN.ss58_address, message, signature)
    assert not verify(address, message, bytes(64))


def test_an_address_is_the_networks_own_spelling(tmp_path: Path) -> None:
    assert is_address(ANN.ss58_address)
    assert len(public_key(ANN.ss58_address)) == 32
    # The same key as Polkadot spells it.
    assert not is_address("1" + ANN.ss58_address[1:])
    with pytest.raises(ValueError, match="SS58"):
        public_key("nonsense")


def test_a_wallet_has_the_layout_and_the_files_of_btcli(tmp_path: Path) -> None:
    new = create_wallet(tmp_path, "ann", "mine")
    theirs = Wallet(name="ann", hotkey="mine", path=str(tmp_path))
    assert theirs.hotkey.ss58_address == new.view.hotkeys["mine"]
    assert theirs.coldkeypub.ss58_address == new.view.coldkey
    assert theirs.coldkey.ss58_address == new.view.coldkey
    assert Keypair.create_from_mnemonic(new.coldkey_phrase).ss58_address == new.view.coldkey
    signer = load_hotkey(tmp_path, "ann", "mine")
    assert verify(signer.ss58_address, b"hello", signer.sign(b"hello"))
    assert load_coldkey(tmp_path, "ann").ss58_address == new.view.coldkey


def test_a_wallet_that_their_tool_made_is_read(tmp_path: Path) -> None:
    theirs = Wallet(name="old", hotkey="hk", path=str(tmp_path))
    theirs.create_new_coldkey(use_password=False, suppress=True)
    theirs.create_new_hotkey(use_password=False, suppress=True)
    assert view_wallet(tmp_path, "old").hotkeys == {"hk": theirs.hotkey.ss58_address}
    assert load_hotkey(tmp_path, "old", "hk").ss58_address == theirs.hotkey.ss58_address


def test_key_files_are_their_owners_only_and_no_scratch_stays(tmp_path: Path) -> None:
    create_wallet(tmp_path / "wallets", "ann", "mine")
    create_hotkey(tmp_path / "wallets", "ann", "second")
    for path in (tmp_path / "wallets").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert [p.name for p in (tmp_path / "wallets").iterdir()] == ["ann"]


def test_phrases_and_keys_never_show_in_text_forms(tmp_path: Path) -> None:
    new = create_wallet(tmp_path, "ann")
    secret = json.loads((tmp_path / "ann" / "coldkey").read_text())["secretSeed"]
    shown = repr(new) + repr(load_coldkey(tmp_path, "ann")) + str(new)
    assert new.coldkey_phrase not in shown
    assert new.hotkey_phrase not in shown
    assert secret not in shown


@pytest.mark.slow
def test_an_encrypted_coldkey_is_never_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    create_wallet(tmp_path, "ann")
    # How the ecosystem's encrypted files begin; making a real one takes a gigabyte and seconds.
    (tmp_path / "ann" / "coldkey").write_bytes(b"$NACL" + bytes(range(200)))
    view = view_wallet(tmp_path, "ann")
    assert view.coldkey_encrypted is True
    with pytest.raises(ConfigurationError) as error:
        load_coldkey(tmp_path, "ann")
    assert error.value.error_code == "key_encrypted"
    assert load_hotkey(tmp_path, "ann").ss58_address == view.hotkeys["default"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\0b", "x" * 65, ".hidden", "kpub.txt"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    create_wallet(tmp_path, "ann")
    for work in (
        lambda: create_wallet(tmp_path, name),
        lambda: create_hotkey(tmp_path, "ann", name),
        lambda: load_hotkey(tmp_path, "ann", name),
        lambda: view_wallet(tmp_path, name),
    ):
        with pytest.raises(ConfigurationError) as error:
            work()
        assert error.value.error_code == "bad_name"


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b'{"privateKey":"0x12"}', b"\x00\xff"])
def test_a_broken_key_file_is_refused_without_its_content(tmp_path: Path, content: bytes) -> None:
    create_wallet(tmp_path, "ann")
    (tmp_path / "ann" / "hotkeys" / "default").write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        load_hotkey(tmp_path, "ann")
    assert error.value.error_code == "key_unreadable"
    assert error.value.__cause__ is None


def test_a_second_creation_changes_nothing_and_ensure_completes(tmp_path: Path) -> None:
    first = create_wallet(tmp_path, "ann").view
    with pytest.raises(ConfigurationError) as error:
        create_wallet(tmp_path, "ann")
    assert error.value.error_code == "wallet_exists"
    assert ensure_wallet(tmp_path, "ann") == first
    more = ensure_wallet(tmp_path, "ann", "second")
    assert more.coldkey == first.coldkey
    assert set(more.hotkeys) == {"default", "second"}
    ensure_wallet(tmp_path, "bob")
    assert [view.name for view in list_wallets(tmp_path)] == ["ann", "bob"]
    assert list_wallets(tmp_path / "nowhere") == ()


def test_a_missing_wallet_is_a_typed_error(tmp_path: Path) -> None:
    for work in (lambda: load_hotkey(tmp_path, "no"), lambda: view_wallet(tmp_path, "no")):
        with pytest.raises(ConfigurationError) as error:
            work()
        assert error.value.error_code == "wallet_missing"
