"""Media out of zip files, without unpacking to disk.

Covered: encryption, overlapping entries, headers that disagree, entries that lie about size or checksum, bombs,
archives in archives, millions of entries, names that lead elsewhere, names in any encoding. Unlike the reader of
submitted packages this one is tolerant of what public data sets carry: comments, gaps, prefixes, unknown extras. The
format: APPNOTE.TXT of PKWARE, 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from gas.datasets.formats.base import FormatLimits, RawItem, Wanted, broken, clean_label, is_mask, mask_path, set_aside
from gas.datasets.formats.magic import is_container

__all__ = ["read_zip"]

_END: Final = struct.Struct("<4s4H2LH")
_END64_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_U16: Final = 0xFFFF
_U32: Final = 0xFFFFFFFF
_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_UTF8: Final = 0x0800
_LINK: Final = 0o120000
_STORED: Final = 0
_DEFLATED: Final = 8
_CHUNK: Final = 1 << 18
_FREE_MEMBER: Final = 1 << 20
_FREE_TOTAL: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class _Directory:
    start: int
    size: int
    count: int
    # Bytes in front of the archive, which its offsets don't know of.
    shift: int


@dataclass(frozen=True, slots=True)
class _Entry:
    label: str
    is_folder: bool
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    mode: int
    offset: int


def read_zip(file: Path, name: str, wanted: Wanted, limits: FormatLimits) -> Iterator[RawItem]:
    """The wanted files of a zip, in the order of its directory.

    Raises:
        MediaRejected: ``archive``: broken, overlapping, or beyond a limit.
        OSError: The file can't be read.
    """
    with file.open("rb") as archive, file.open("rb") as index:
        end = archive.seek(0, 2)
        directory = _directory(archive, end, name, limits)
        masks = _survey(index, directory, name, wanted)
        budget = _Budget(name, min(limits.max_total_bytes, _FREE_TOTAL + end * limits.max_ratio))
        for entry in _entries(index, directory, name):
            if entry.is_folder or not wanted.takes(entry.label):
                continue
            if wanted.mask_column and is_mask(entry.label, wanted.mask_column):
                continue
            path = f"{name}!{entry.label}"
            data = _read(archive, entry, path, limits, budget)
            if isinstance(data, RawItem):
                yield data
                continue
            mask = masks.get(mask_path(entry.label, wanted.mask_column)) if masks else None
            found = _read(archive, mask, path, limits, budget) if mask is not None else None
            if isinstance(found, RawItem):
                reason = found.error.message if found.error else ""
                yield set_aside(path, "bad_mask", f"Its mask can't be had: {reason}")
                continue
            yield _item(path, data, found)


class _Budget:
    """Unpacked bytes that are left to an archive."""

    def __init__(self, name: str, left: int) -> None:
        self._name = name
        self._left = left

    def spend(self, count: int) -> None:
        """Take bytes off."""
        self._left -= count
        if self._left < 0:
            raise broken(self._name, "unpacks to far more than its size allows")


def _item(path: str, data: bytes, mask: bytes | None) -> RawItem:
    if is_container(data[:512]):
        return set_aside(path, "nested_archive", "It is an archive inside the archive; those are not opened.")
    return RawItem(path, data, mask=mask)


def _directory(file: IO[bytes], end: int, name: str, limits: FormatLimits) -> _Directory:
    """Find the central directory."""
    tail_size = min(end, _END.size + _U16)
    file.seek(end - tail_size)
    tail = file.read(tail_size)
    at = len(tail)
    while True:
        at = tail.rfind(b"PK\x05\x06", 0, at)
        if at < 0:
            raise broken(name, "is cut off: a zip's end is missing")
        # The same four bytes may stand in a comment; the record's own comment ends with the file.
        if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            break
    _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(tail, at)
    directory_end = end - tail_size + at
    if count == _U16 or size == _U32 or start == _U32:
        locator_at = directory_end - _END64_LOCATOR.size
        file.seek(max(0, locator_at))
        raw = file.read(_END64_LOCATOR.size)
        if locator_at >= 0 and raw[:4] == b"PK\x06\x07":
            _, _, where, _ = _END64_LOCATOR.unpack(raw)
            # Bytes in front of the archive shift the record too: it is looked for right before its locator as well.
            for directory_end in (where, locator_at - _END64.size):
                if not 0 <= directory_end <= locator_at - _END64.size:
                    continue
                file.seek(directory_end)
                raw = file.read(_END64.size)
                if raw[:4] == b"PK\x06\x06":
                    _, _, _, _, disk, first_disk, here, count, size, start = _END64.unpack(raw)
                    break
            else:
                raise broken(name, "is damaged: a zip's end can't be read")
    if disk or first_disk or here != count:
        raise broken(name, "is one part of a zip in several parts")
    if count > limits.max_members:
        raise broken(name, f"has {count:,} entries; {limits.max_members:,} are allowed")
    if size > limits.max_directory_bytes or size < count * _CENTRAL.size:
        raise broken(name, "has a directory that is larger than allowed, or smaller than its entries")
    shift = directory_end - size - start
    if shift < 0:
        raise broken(name, "is damaged: its directory is not where the zip says")
    return _Directory(start + shift, size, count, shift)


def _survey(file: IO[bytes], directory: _Directory, name: str, wanted: Wanted) -> dict[str, _Entry]:
    """Refuse entries that overlap, and find the masks.

    The bytes of an entry are at least its header, its name and its packed data; what comes before the next entry
    must hold these. This is the check that ends bombs made of many entries over the same bytes.
    """
    offsets, ends = array("Q"), array("Q")
    masks: dict[str, _Entry] = {}
    for entry in _entries(file, directory, name):
        offsets.append(entry.offset)
        ends.append(entry.offset + _LOCAL.size + entry.packed)
        if wanted.mask_column and not entry.is_folder and is_mask(entry.label, wanted.mask_column):
            masks.setdefault(entry.label, entry)
    if offsets:
        starts, stops = np.frombuffer(offsets, np.uint64), np.frombuffer(ends, np.uint64)
        order = np.argsort(starts, kind="stable")
        starts, stops = starts[order], stops[order]
        if bool((stops[:-1] > starts[1:]).any()) or int(stops[-1]) > directory.start:
            raise broken(name, "has entries that overlap each other or its directory")
    return masks


def _entries(file: IO[bytes], directory: _Directory, name: str) -> Iterator[_Entry]:
    """The directory's entries one after the other, without holding them."""
    file.seek(directory.start)
    end = directory.start + directory.size
    for number in range(directory.count):
        raw = file.read(_CENTRAL.size)
        if len(raw) < _CENTRAL.size or raw[:4] != b"PK\x01\x02":
            raise broken(name, "is damaged: its directory can't be read")
        _, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, _, _, attributes, offset = (
            _CENTRAL.unpack(raw)
        )
        raw_name, extra = file.read(n_name), file.read(n_extra)
        file.seek(n_comment, 1)
        if file.tell() > end:
            raise broken(name, "is damaged: its directory can't be read")
        if _U32 in (size, packed, offset):
            size, packed, offset = _sizes64(extra, size, packed, offset, name)
        offset += directory.shift
        # Python's integers don't overflow, but the survey's 64-bit columns would.
        if max(offset, packed, size) >= 1 << 62:
            raise broken(name, "is damaged: an entry has a size that is none")
        text = raw_name.decode("utf-8" if flags & _UTF8 else "cp437", "backslashreplace")
        label = clean_label(text, f"entry-{number + 1}")
        folder = text.endswith(("/", "\\"))
        yield _Entry(label, folder, flags, method, crc, packed, size, attributes >> 16, offset)


def _sizes64(extra: bytes, size: int, packed: int, offset: int, name: str) -> tuple[int, int, int]:
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            usable = min(length, len(extra) - at - 4) // 8
            values = list(struct.unpack_from(f"<{usable}Q", extra, at + 4))
            out = []
            for value in (size, packed, offset):
                if value == _U32:
                    if not values:
                        raise broken(name, "is damaged: an entry's size is missing")
                    value = values.pop(0)
                out.append(value)
            return out[0], out[1], out[2]
        at += 4 + length
    raise broken(name, "is damaged: an entry's size is missing")


def _read(file: IO[bytes], entry: _Entry, path: str, limits: FormatLimits, budget: _Budget) -> bytes | RawItem:
    """The bytes of one entry, or why they can't be had."""
    if entry.flags & _ENCRYPTED:
        return set_aside(path, "encrypted", "It is encrypted.")
    if entry.mode & 0o170000 == _LINK:
        return set_aside(path, "link", "It is a link; links in archives are not followed.")
    if entry.method not in (_STORED, _DEFLATED):
        return set_aside(path, "method", f"It is packed by method {entry.method}; only stored and deflated are read.")
    if entry.size > limits.max_item_bytes:
        return set_aside(path, "too_large", f"It has {entry.size:,} bytes; {limits.max_item_bytes:,} are allowed.")
    if entry.size == 0:
        return set_aside(path, "empty", "It has no bytes.")
    if entry.size > _FREE_MEMBER and entry.size > entry.packed * limits.max_ratio:
        return set_aside(path, "ratio", f"It would unpack to more than {limits.max_ratio} times its size.")
    file.seek(entry.offset)
    raw = file.read(_LOCAL.size)
    if len(raw) < _LOCAL.size or raw[:4] != b"PK\x03\x04":
        return set_aside(path, "header_mismatch", "It is not where the zip's directory says.")
    _, _, flags, method, *_, n_name, n_extra = _LOCAL.unpack(raw)
    if method != entry.method or flags & _ENCRYPTED:
        return set_aside(path, "header_mismatch", "Its two headers disagree.")
    file.seek(n_name + n_extra, 1)
    data = _unpack(file, entry)
    budget.spend(len(data))
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        return set_aside(path, "checksum", "Its bytes are not those that the zip's directory promises.")
    return data


def _unpack(file: IO[bytes], entry: _Entry) -> bytes:
    """At most one byte more than declared; fewer when the data are broken."""
    if entry.method == _STORED:
        return file.read(min(entry.packed, entry.size + 1))
    inflater = zlib.decompressobj(-15)
    out, left = bytearray(), entry.packed
    try:
        while left and not inflater.eof and len(out) <= entry.size:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                break
            left -= len(chunk)
            out += inflater.decompress(chunk, entry.size + 1 - len(out))
            while inflater.unconsumed_tail and len(out) <= entry.size:
                out += inflater.decompress(inflater.unconsumed_tail, entry.size + 1 - len(out))
        if not inflater.eof and len(out) <= entry.size:
            out += inflater.decompress(b"", entry.size + 1 - len(out))
    except zlib.error:
        return b""
    return bytes(out)
