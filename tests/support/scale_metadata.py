"""A SCALE codec driven by a runtime's own metadata (version 15), independent of the libraries under test.

Values are plain Python: integers, ``bytes`` for sequences and arrays of u8, ``dict`` for named composites, the inner
value for a composite of one unnamed field, ``tuple`` for other composites, ``None`` or the value for an Option, and
``(name, value)`` for any other variant (its value is a dict when the fields have names).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from scale_hashes import key_hash, twox_128

__all__ = ["Call", "Metadata", "Reader", "StorageItem", "compact"]

_PRIMITIVES: Final = (
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "u256", "i8", "i16", "i32", "i64", "i128", "i256",
)  # fmt: skip
_HASHERS: Final = (
    "Blake2_128", "Blake2_256", "Blake2_128Concat", "Twox128", "Twox256", "Twox64Concat", "Identity",
)  # fmt: skip
_KEPT: Final = {"Blake2_128Concat": 16, "Twox64Concat": 8, "Identity": 0}


class Reader:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("The bytes end too early.")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        first = self.number(1)
        mode = first & 3
        if mode == 0:
            return first >> 2
        if mode == 1:
            return (first | self.number(1) << 8) >> 2
        if mode == 2:
            return (first | self.number(3) << 8) >> 2
        return self.number((first >> 2) + 4)

    def blob(self) -> bytes:
        return self.take(self.compact())

    def text(self) -> str:
        return self.blob().decode()

    def many(self, item: Callable[[], Any]) -> list[Any]:
        return [item() for _ in range(self.compact())]

    def option(self, item: Callable[[], Any]) -> Any:
        return item() if self.number(1) else None

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def compact(value: int) -> bytes:
    """SCALE's compact integer."""
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    if value < 1 << 30:
        return (value << 2 | 2).to_bytes(4, "little")
    size = max(4, (value.bit_length() + 7) // 8)
    return bytes([(size - 4) << 2 | 3]) + value.to_bytes(size, "little")


@dataclass(frozen=True)
class StorageItem:
    pallet: str
    name: str
    optional: bool
    hashers: tuple[str, ...]
    key: int | None
    value: int
    default: bytes
    prefix: bytes


@dataclass(frozen=True)
class Call:
    """A decoded call: ``pallet``, ``name`` and arguments by name."""

    pallet: str
    name: str
    args: dict[str, Any]


@dataclass
class _Pallet:
    name: str
    index: int
    call: int | None
    event: int | None
    error: int | None
    constants: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    storage: dict[str, StorageItem] = field(default_factory=dict)


class Metadata:
    """A runtime's metadata, and everything that can be encoded and decoded with it.

    Args:
        raw: The metadata, from its magic ``meta`` on, version 15.
    """

    def __init__(self, raw: bytes) -> None:
        r = Reader(raw)
        if r.take(5) != b"meta\x0f":
            raise ValueError("Not metadata of version 15.")
        self.types: dict[int, tuple[str, Any]] = {}
        self.paths: dict[int, tuple[str, ...]] = {}
        for _ in range(r.compact()):
            self._read_type(r)
        self.pallets = {p.name: p for p in r.many(lambda: self._read_pallet(r))}
        r.number(1)
        self.address, self.call, self.signature, self.extra = (r.compact() for _ in range(4))
        self.extensions: list[tuple[str, int, int]] = r.many(lambda: (r.text(), r.compact(), r.compact()))
        r.compact()
        self.apis: dict[str, tuple[tuple[int, ...], int]] = {}
        for _ in range(r.compact()):
            api = r.text()
            for _ in range(r.compact()):
                method = r.text()
                inputs = tuple(ty for _, ty in r.many(lambda: (r.text(), r.compact())))
                self.apis[f"{api}_{method}"] = (inputs, r.compact())
                r.many(r.text)
            r.many(r.text)
        self.outer_call, self.outer_event, self.outer_error = (r.compact() for _ in range(3))
        self._prefixes = {item.prefix: item for p in self.pallets.values() for item in p.storage.values()}

    def _read_type(self, r: Reader) -> None:
        number = r.compact()
        self.paths[number] = tuple(r.many(r.text))
        r.many(lambda: (r.text(), r.option(r.compact)))

        def read_field() -> tuple[str | None, int]:
            name, ty = r.option(r.text), r.compact()
            r.option(r.text)
            r.many(r.text)
            return name, ty

        def read_variant() -> tuple[str, list[tuple[str | None, int]], int]:
            name, fields, index = r.text(), r.many(read_field), r.number(1)
            r.many(r.text)
            return name, fields, index

        kind = r.number(1)
        shape: Any
        if kind == 0:
            shape = ("composite", r.many(read_field))
        elif kind == 1:
            variants = r.many(read_variant)
            shape = ("variant", variants)
        elif kind == 2:
            shape = ("sequence", r.compact())
        elif kind == 3:
            length = r.number(4)
            shape = ("array", (r.compact(), length))
        elif kind == 4:
            shape = ("composite", [(None, ty) for ty in r.many(r.compact)])
        elif kind == 5:
            shape = ("primitive", _PRIMITIVES[r.number(1)])
        elif kind == 6:
            shape = ("compact", r.compact())
        else:
            shape = ("bits", (r.compact(), r.compact()))
        self.types[number] = shape
        r.many(r.text)

    def _read_pallet(self, r: Reader) -> _Pallet:
        name = r.text()
        storage: dict[str, StorageItem] = {}
        if r.number(1):
            prefix = r.text()
            for _ in range(r.compact()):
                item = self._read_item(r, name, prefix)
                storage[item.name] = item
        call, event = r.option(r.compact), r.option(r.compact)
        constants = {}
        for _ in range(r.compact()):
            key, ty, value = r.text(), r.compact(), r.blob()
            r.many(r.text)
            constants[key] = (ty, value)
        error, index = r.option(r.compact), r.number(1)
        r.many(r.text)
        return _Pallet(name, index, call, event, error, constants, storage)

    @staticmethod
    def _read_item(r: Reader, pallet: str, prefix: str) -> StorageItem:
        name, optional = r.text(), r.number(1) == 0
        hashers: tuple[str, ...] = ()
        key = None
        if r.number(1):
            hashers, key = tuple(_HASHERS[i] for i in r.many(lambda: r.number(1))), r.compact()
        value, default = r.compact(), r.blob()
        r.many(r.text)
        whole = twox_128(prefix.encode()) + twox_128(name.encode())
        return StorageItem(pallet, name, optional, hashers, key, value, default, whole)

    # Values.

    def _is_bytes(self, ty: int) -> bool:
        return bool(self.types[ty] == ("primitive", "u8"))

    def decode(self, ty: int, r: Reader) -> Any:
        """Read one value of a type."""
        kind, shape = self.types[ty]
        if kind == "primitive":
            if shape == "str":
                return r.text()
            if shape == "bool":
                return bool(r.number(1))
            size = int(shape[1:]) // 8
            return int.from_bytes(r.take(size), "little", signed=shape[0] == "i")
        if kind == "compact":
            return r.compact()
        if kind == "sequence":
            return r.blob() if self._is_bytes(shape) else r.many(lambda: self.decode(shape, r))
        if kind == "array":
            inner, length = shape
            return r.take(length) if self._is_bytes(inner) else [self.decode(inner, r) for _ in range(length)]
        if kind == "composite":
            return self._decode_fields(shape, r)
        if kind == "variant":
            index = r.number(1)
            name, fields, _ = next((v for v in shape if v[2] == index), (None, [], 0))
            if name is None:
                raise ValueError(f"{self.paths[ty]} has no variant {index}.")
            if self.paths[ty] == ("Option",):
                return self.decode(fields[0][1], r) if fields else None
            return name, self._decode_fields(fields, r)
        raise ValueError(f"Type {ty} is not supported.")

    def _decode_fields(self, fields: list[tuple[str | None, int]], r: Reader) -> Any:
        if fields and fields[0][0] is not None:
            return {name: self.decode(ty, r) for name, ty in fields}
        values = tuple(self.decode(ty, r) for _, ty in fields)
        return values[0] if len(values) == 1 else values

    def encode(self, ty: int, value: Any) -> bytes:
        """The bytes of one value; the fields that a dict leaves out are zero (or empty, or None)."""
        kind, shape = self.types[ty]
        if kind == "primitive":
            if shape == "str":
                return compact(len(value.encode())) + bytes(value.encode())
            if shape == "bool":
                return bytes([bool(value)])
            return int(value).to_bytes(int(shape[1:]) // 8, "little", signed=shape[0] == "i")
        if kind == "compact":
            return compact(int(value))
        if kind == "sequence":
            if self._is_bytes(shape):
                return compact(len(value)) + bytes(value)
            return compact(len(value)) + b"".join(self.encode(shape, item) for item in value)
        if kind == "array":
            inner, length = shape
            if len(value) != length:
                raise ValueError(f"{length} items are needed, not {len(value)}.")
            return bytes(value) if self._is_bytes(inner) else b"".join(self.encode(inner, item) for item in value)
        if kind == "composite":
            return self._encode_fields(shape, value)
        if kind == "variant":
            if self.paths[ty] == ("Option",):
                return b"\0" if value is None else b"\1" + self.encode(shape[1][1][0][1], value)
            name, inner = (value, ()) if isinstance(value, str) else value
            fields, index = next((v[1], v[2]) for v in shape if v[0] == name)
            return bytes([index]) + self._encode_fields(fields, inner)
        raise ValueError(f"Type {ty} is not supported.")

    def _encode_fields(self, fields: list[tuple[str | None, int]], value: Any) -> bytes:
        if fields and fields[0][0] is not None:
            unknown = set(value) - {name for name, _ in fields}
            if unknown:
                raise ValueError(f"There are no fields {sorted(unknown)}.")
            return b"".join(
                self.encode(ty, value[name]) if name in value else self.zero(ty) for name, ty in fields if name
            )
        values = (value,) if len(fields) == 1 else value
        return b"".join(self.encode(ty, item) for (_, ty), item in zip(fields, values, strict=True))

    def zero(self, ty: int) -> bytes:
        """The bytes of a type's empty value."""
        kind, shape = self.types[ty]
        if kind == "primitive":
            return b"\0" * (1 if shape in ("str", "bool") else int(shape[1:]) // 8)
        if kind == "array":
            return self.zero(shape[0]) * int(shape[1])
        if kind == "composite":
            return b"".join(self.zero(inner) for _, inner in shape)
        if kind == "variant":
            _, fields, index = min(shape, key=lambda v: v[2])
            return bytes([index]) + b"".join(self.zero(inner) for _, inner in fields)
        return b"\0"

    # Storage, calls, errors.

    def item(self, pallet: str, name: str) -> StorageItem:
        return self.pallets[pallet].storage[name]

    def key_types(self, item: StorageItem) -> list[int]:
        if item.key is None:
            return []
        kind, shape = self.types[item.key]
        return [ty for _, ty in shape] if len(item.hashers) > 1 and kind == "composite" else [item.key]

    def storage_key(self, item: StorageItem, *keys: Any) -> bytes:
        """The key of one entry, or the prefix of those that begin with ``keys``."""
        parts = zip(item.hashers, self.key_types(item), keys, strict=False)
        return item.prefix + b"".join(key_hash(hasher, self.encode(ty, key)) for hasher, ty, key in parts)

    def read_key(self, key: bytes) -> tuple[StorageItem, tuple[Any, ...]] | None:
        """What a storage key names; None when there is no such item."""
        item = self._prefixes.get(key[:32])
        if item is None:
            return None
        r, values = Reader(key[32:]), []
        for hasher, ty in zip(item.hashers, self.key_types(item), strict=True):
            if not r.left:
                break
            r.take(_KEPT[hasher])
            values.append(self.decode(ty, r))
        return item, tuple(values)

    def read_call(self, r: Reader) -> Call:
        """Read one call of the runtime."""
        pallet, (name, args) = self.decode(self.outer_call, r)
        return Call(pallet, name, args if isinstance(args, dict) else {})

    def error_index(self, pallet: str, name: str) -> tuple[int, int]:
        """A module error's two indices."""
        found = self.pallets[pallet]
        if found.error is None:
            raise KeyError(name)
        return found.index, next(v[2] for v in self.types[found.error][1] if v[0] == name)
