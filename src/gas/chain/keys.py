"""Keys and signatures: sr25519, in the ecosystem's own key files.

A wallet is a folder ``<wallets>/<name>`` with ``coldkey``, ``coldkeypub.txt`` and ``hotkeys/<hotkey>``, byte for byte
what ``btcli`` reads and writes. Services load a hotkey and nothing else; an encrypted key is never asked for.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from bittensor_wallet import Keyfile, Keypair, Wallet
from bittensor_wallet.errors import KeyFileError

from gas.errors import ConfigurationError
from gas.types import Hotkey

__all__ = [
    "KeySigner",
    "NewWallet",
    "Signer",
    "WalletView",
    "create_hotkey",
    "create_wallet",
    "ensure_wallet",
    "is_address",
    "list_wallets",
    "load_coldkey",
    "load_hotkey",
    "public_key",
    "signer_from_seed",
    "verify",
    "view_wallet",
]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SIGNATURE_BYTES = 64


class Signer(Protocol):
    """Whoever can sign for one SS58 address; the private key stays inside."""

    @property
    def ss58_address(self) -> Hotkey:
        """The signer's public address."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte sr25519 signature over ``message``."""
        ...


@dataclass(frozen=True, slots=True)
class KeySigner:
    """A signer whose key pair is in this process's memory; its text form shows the address only."""

    ss58_address: Hotkey
    _keypair: Keypair = field(repr=False, compare=False)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte sr25519 signature over ``message``."""
        return self._keypair.sign(bytes(message))


@dataclass(frozen=True, slots=True)
class WalletView:
    """The public side of a wallet.

    Attributes:
        name: Folder name.
        coldkey: SS58 address of the coldkey, or None when only hotkeys are on this machine.
        coldkey_encrypted: Whether the private coldkey is there and encrypted; None when it isn't there.
        hotkeys: Name and SS58 address of each hotkey, by name.
    """

    name: str
    coldkey: str | None
    coldkey_encrypted: bool | None
    hotkeys: dict[str, Hotkey]


@dataclass(frozen=True, slots=True)
class NewWallet:
    """What a creation leaves behind: the public view, and the phrases that its text form never shows.

    Attributes:
        view: Public side.
        coldkey_phrase: The words from which the coldkey can be restored; show them once, store them nowhere.
        hotkey_phrase: The same for the hotkey.
    """

    view: WalletView
    coldkey_phrase: str = field(repr=False)
    hotkey_phrase: str = field(repr=False)


def verify(ss58_address: str, message: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is the sr25519 signature of ``ss58_address`` over ``message``.

    Never raises: an address or a signature that makes no sense verifies nothing. An address in another network's
    spelling verifies nothing either, so that one key has one name.
    """
    if len(signature) != _SIGNATURE_BYTES or not is_address(ss58_address):
        return False
    try:
        return bool(Keypair(ss58_address=ss58_address).verify(bytes(message), bytes(signature)))
    except (ValueError, TypeError):
        return False


def is_address(text: str) -> bool:
    """Whether ``text`` is an SS58 address in the ecosystem's own format (42)."""
    if not 46 <= len(text) <= 50 or not text.isascii():
        return False
    try:
        return bool(Keypair(ss58_address=text).ss58_address == text)
    except (ValueError, TypeError):
        return False


def public_key(ss58_address: str) -> bytes:
    """The 32 bytes behind an SS58 address.

    Raises:
        ValueError: The address is not valid.
    """
    if not is_address(ss58_address):
        raise ValueError("Not an SS58 address.")
    return cast(bytes, Keypair(ss58_address=ss58_address).public_key)


def signer_from_seed(seed: bytes) -> KeySigner:
    """A signer derived from a 32-byte seed; the same seed gives the same key everywhere.

    Raises:
        ValueError: ``seed`` is not 32 bytes long.
    """
    if len(seed) != 32:
        raise ValueError("A key's seed has 32 bytes.")
    # The library's stub asks for bytes here, and its code for hex.
    return _signer(Keypair.create_from_seed(cast(bytes, "0x" + seed.hex())))


def create_wallet(wallets: Path, name: str, hotkey: str = "default", *, password: str | None = None) -> NewWallet:
    """Make a wallet with one hotkey; it appears whole or not at all.

    Args:
        wallets: Folder of all wallets; made if it is missing.
        name: The wallet's name.
        hotkey: The hotkey's name.
        password: Encrypts the coldkey; None leaves it readable, which is for tests and demonstrations only.

    Returns:
        The public view and the phrases.

    Raises:
        ConfigurationError: A name is not acceptable (``bad_name``), or the wallet exists (``wallet_exists``).
    """
    target = _folder(wallets, name)
    _check_name(hotkey)
    if target.exists():
        raise ConfigurationError(f"Wallet {name!r} exists already.", code="wallet_exists", hint="Choose another name.")
    cold_phrase, hot_phrase = Keypair.generate_mnemonic(12), Keypair.generate_mnemonic(12)
    with _staging(wallets) as staging:
        wallet = Wallet(name=name, hotkey=hotkey, path=str(staging))
        wallet.regenerate_coldkey(
            mnemonic=cold_phrase, use_password=password is not None, coldkey_password=password, suppress=True
        )
        wallet.regenerate_hotkey(mnemonic=hot_phrase, use_password=False, suppress=True)
        _protect(staging / name)
        try:
            (staging / name).rename(target)
        except OSError as error:
            # Renaming onto a folder that another process has made meanwhile fails; theirs stays.
            raise ConfigurationError(f"Wallet {name!r} exists already.", code="wallet_exists") from error
    return NewWallet(view_wallet(wallets, name), cold_phrase, hot_phrase)


def create_hotkey(wallets: Path, name: str, hotkey: str) -> Hotkey:
    """Add a hotkey to a wallet; returns its address.

    Raises:
        ConfigurationError: A name is not acceptable, the wallet is missing, or the hotkey exists (``wallet_exists``).
    """
    folder = _folder(wallets, name) / "hotkeys"
    _check_name(hotkey)
    if not folder.parent.is_dir():
        raise ConfigurationError(f"There is no wallet {name!r}.", code="wallet_missing")
    if (folder / hotkey).exists():
        raise ConfigurationError(f"Hotkey {name}/{hotkey} exists already.", code="wallet_exists")
    with _staging(wallets) as staging:
        wallet = Wallet(name=name, hotkey=hotkey, path=str(staging))
        wallet.regenerate_hotkey(mnemonic=Keypair.generate_mnemonic(12), use_password=False, suppress=True)
        _protect(staging / name)
        folder.mkdir(mode=0o700, exist_ok=True)
        made = staging / name / "hotkeys"
        # The private file comes last: a hotkey counts as there when its private file is.
        for file in sorted(made.iterdir(), key=lambda path: path.name == hotkey):
            file.rename(folder / file.name)
    return load_hotkey(wallets, name, hotkey).ss58_address


def ensure_wallet(wallets: Path, name: str, hotkey: str = "default") -> WalletView:
    """The wallet with an unencrypted coldkey and this hotkey, made as far as it is missing (for demonstrations)."""
    folder = _folder(wallets, name)
    if not folder.exists():
        return create_wallet(wallets, name, hotkey).view
    if not (folder / "hotkeys" / hotkey).exists():
        create_hotkey(wallets, name, hotkey)
    return view_wallet(wallets, name)


def load_hotkey(wallets: Path, name: str, hotkey: str = "default") -> KeySigner:
    """The hotkey's signer; all that a service ever needs.

    Raises:
        ConfigurationError: It is missing (``wallet_missing``), encrypted (``key_encrypted``) or no key file
            (``key_unreadable``).
    """
    _check_name(hotkey)
    return _load(
        _folder(wallets, name) / "hotkeys" / hotkey,
        f"hotkey {name}/{hotkey}",
        encrypted_hint="Services work with an unencrypted hotkey.",
    )


def load_coldkey(wallets: Path, name: str, *, password: str | None = None) -> KeySigner:
    """A coldkey's signer, for commands that move money; nothing is ever asked for here.

    Args:
        wallets: Folder of all wallets.
        name: The wallet's name.
        password: Opens an encrypted coldkey, which takes seconds by design; not needed for an unencrypted one.

    Raises:
        ConfigurationError: As :func:`load_hotkey`; an encrypted coldkey without a password is refused
            (``key_encrypted``), and so is a password that doesn't open it (``wrong_password``).
    """
    return _load(
        _folder(wallets, name) / "coldkey",
        f"coldkey of {name}",
        password,
        encrypted_hint="Its password is asked for in a terminal, or named with --password-env or --password-file.",
    )


def view_wallet(wallets: Path, name: str) -> WalletView:
    """The public side of one wallet, without opening a private key that is encrypted.

    Raises:
        ConfigurationError: There is no such wallet, or a file in it is no key file.
    """
    folder = _folder(wallets, name)
    if not folder.is_dir():
        raise ConfigurationError(f"There is no wallet {name!r}.", code="wallet_missing")
    private = folder / "coldkey"
    hotkeys: dict[str, Hotkey] = {}
    keys = folder / "hotkeys"
    for file in sorted(keys.iterdir()) if keys.is_dir() else ():
        if file.is_file() and not file.name.endswith("pub.txt") and _NAME.fullmatch(file.name):
            hotkeys[file.name] = _public_address(keys, file.name)
    public = folder / "coldkeypub.txt"
    return WalletView(
        name=name,
        coldkey=_read_address(public) if public.exists() else None,
        coldkey_encrypted=bool(Keyfile(path=str(private)).is_encrypted()) if private.exists() else None,
        hotkeys=hotkeys,
    )


def list_wallets(wallets: Path) -> tuple[WalletView, ...]:
    """The public side of every wallet in the folder, by name; empty when there is no folder."""
    if not wallets.is_dir():
        return ()
    names = sorted(path.name for path in wallets.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))
    return tuple(view_wallet(wallets, name) for name in names)


def _signer(keypair: Keypair) -> KeySigner:
    return KeySigner(Hotkey(str(keypair.ss58_address)), keypair)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("pub.txt"):
        raise ConfigurationError(
            "The name of a wallet or a hotkey has 1 to 64 letters, digits, dots, dashes and underscores.",
            code="bad_name",
        )


def _folder(wallets: Path, name: str) -> Path:
    _check_name(name)
    return wallets / name


@contextmanager
def _staging(wallets: Path) -> Iterator[Path]:
    """A private folder beside the wallets; what is left in it at the end vanishes."""
    wallets.mkdir(mode=0o700, parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=wallets))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _protect(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(stat.S_IRWXU if path.is_dir() else stat.S_IRUSR | stat.S_IWUSR)


def _load(path: Path, what: str, password: str | None = None, *, encrypted_hint: str) -> KeySigner:
    if not path.is_file():
        raise ConfigurationError(
            f"There is no {what}.", code="wallet_missing", hint="Make one with `gascli wallet new`, or with btcli."
        )
    file = Keyfile(path=str(path))
    try:
        encrypted = bool(file.is_encrypted())
        if encrypted and password is None:
            raise ConfigurationError(f"The {what} is encrypted.", code="key_encrypted", hint=encrypted_hint)
        return _signer(file.get_keypair(password) if encrypted else file.get_keypair())
    except (KeyFileError, ValueError):
        # The library's message may quote what the file holds, so it is not passed on.
        if password is not None:
            raise ConfigurationError(
                f"The password does not open the {what}.", code="wrong_password", hint="Or the key file is damaged."
            ) from None
        raise ConfigurationError(f"The {what} is no readable key file.", code="key_unreadable") from None


def _public_address(folder: Path, hotkey: str) -> Hotkey:
    for file in (folder / f"{hotkey}pub.txt", folder / hotkey):
        if file.exists() and not Keyfile(path=str(file)).is_encrypted():
            return _read_address(file)
    raise ConfigurationError(f"Hotkey {hotkey!r} has no readable public part.", code="key_unreadable")


def _read_address(file: Path) -> Hotkey:
    try:
        address = json.loads(file.read_bytes())["ss58Address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file.name} is no readable key file.", code="key_unreadable") from error
    if not isinstance(address, str) or not is_address(address):
        raise ConfigurationError(f"{file.name} names no SS58 address.", code="key_unreadable")
    return Hotkey(address)
