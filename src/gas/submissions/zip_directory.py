"""Read the directory of a zip file, so that each byte has one meaning.

The format: APPNOTE.TXT of PKWARE, 4.3 (structure) and 4.5.3 (sizes of 64 bits). Archives in several parts, comments
and bytes behind the archive are refused; the central directory and the local headers must agree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from gas.errors import Reason
from gas.submissions.limits import Limits
from gas.submissions.text import printable

__all__ = ["BrokenZip", "Directory", "RawEntry", "read_directory"]

_EOCD: Final = struct.Struct("<4s4H2LH")
_EOCD64_LOCATOR: Final = struct.Struct("<4sLQL")
_EOCD64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_U16_MAX: Final = 0xFFFF
_U32_MAX: Final = 0xFFFFFFFF
_FLAG_DESCRIPTOR: Final = 0x0008


class BrokenZip(Exception):
    """The archive can't be read on; carries the finding."""

    def __init__(self, code: str, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.reason = Reason(code, message, name)


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry as the directory declares it.

    Attributes:
        name: Its whole name; bytes beyond ASCII are written as escapes.
        size: Unpacked size in bytes.
        packed: Size in the archive in bytes.
        crc: CRC-32 of the unpacked bytes.
        method: 0 stored, 8 deflated, others exist.
        flags: General purpose bits.
        mode: Unix mode, or 0.
        header_offset: Where its local header starts.
        data_offset: Where its data starts.
        next_offset: Where its last byte, trailing record included, ends.
    """

    name: str
    size: int
    packed: int
    crc: int
    method: int
    flags: int
    mode: int
    header_offset: int
    data_offset: int
    next_offset: int

    @property
    def is_folder(self) -> bool:
        """Whether it stands for a folder."""
        return self.name.endswith("/")


@dataclass(frozen=True, slots=True)
class Directory:
    """Entries in the order of their bytes, and the offset at which they must end."""

    entries: tuple[RawEntry, ...]
    start: int


def read_directory(file: BinaryIO, size: int, limits: Limits) -> Directory:
    """Read the central directory and every local header.

    Args:
        file: The archive.
        size: Its length in bytes.
        limits: ``entries`` is asked before anything is read that grows with their number.

    Raises:
        BrokenZip: Codes ``zip_empty``, ``zip_broken``, ``too_many_entries``, ``header_mismatch``, ``size_mismatch``.
        OSError: Reading failed.
    """
    if size < _EOCD.size:
        raise BrokenZip("zip_empty" if size == 0 else "zip_broken", "This is not a zip file.")
    file.seek(size - _EOCD.size)
    magic, disk, cd_disk, here, count, cd_size, cd_start, comment = _EOCD.unpack(file.read(_EOCD.size))
    if magic != b"PK\x05\x06" or comment:
        raise BrokenZip("zip_broken", "This is not a zip file, it is cut off, or bytes follow the archive.")
    cd_end = size - _EOCD.size
    if count == _U16_MAX or cd_size == _U32_MAX or cd_start == _U32_MAX:
        disk, cd_disk, here, count, cd_size, cd_start, cd_end = _zip64_end(file, cd_end)
    if disk or cd_disk or here != count:
        raise BrokenZip("zip_broken", "Archives in several parts are not taken.")
    if count == 0:
        raise BrokenZip("zip_empty", "The zip holds no files.")
    if count > limits.entries:
        raise BrokenZip("too_many_entries", f"The zip has {count} entries; allowed are {limits.entries}.")
    if cd_start + cd_size != cd_end or cd_size > count * (_CENTRAL.size + 3 * _U16_MAX):
        raise BrokenZip("zip_broken", "The zip's directory is not where the zip says.")
    file.seek(cd_start)
    directory = file.read(cd_size)
    entries, at = [], 0
    for _ in range(count):
        entry, at = _central_entry(file, directory, at, cd_start)
        entries.append(entry)
    if at != len(directory):
        raise BrokenZip("zip_broken", "The zip's directory has more bytes than entries.")
    return Directory(tuple(sorted(entries, key=lambda e: e.header_offset)), cd_start)


def _zip64_end(file: BinaryIO, cd_end: int) -> tuple[int, int, int, int, int, int, int]:
    at = cd_end - _EOCD64_LOCATOR.size
    if at < _EOCD64.size:
        raise BrokenZip("zip_broken", "The zip's end is damaged.")
    file.seek(at)
    magic, _, offset, _ = _EOCD64_LOCATOR.unpack(file.read(_EOCD64_LOCATOR.size))
    if magic != b"PK\x06\x07" or offset != at - _EOCD64.size:
        raise BrokenZip("zip_broken", "The zip's end is damaged.")
    file.seek(offset)
    magic, length, _, _, disk, cd_disk, here, count, cd_size, cd_start = _EOCD64.unpack(file.read(_EOCD64.size))
    if magic != b"PK\x06\x06" or length != _EOCD64.size - 12:
        raise BrokenZip("zip_broken", "The zip's end is damaged.")
    return disk, cd_disk, here, count, cd_size, cd_start, offset


def _central_entry(file: BinaryIO, directory: bytes, at: int, cd_start: int) -> tuple[RawEntry, int]:
    if at + _CENTRAL.size > len(directory):
        raise BrokenZip("zip_broken", "The zip's directory is cut off.")
    fields = _CENTRAL.unpack_from(directory, at)
    magic, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, attributes, offset = (
        fields
    )
    end = at + _CENTRAL.size + n_name + n_extra + n_comment
    if magic != b"PK\x01\x02" or end > len(directory) or disk not in (0, _U16_MAX):
        raise BrokenZip("zip_broken", "The zip's directory is damaged.")
    raw_name = directory[at + _CENTRAL.size :][:n_name]
    extra = directory[at + _CENTRAL.size + n_name :][:n_extra]
    # Escapes hold a backslash, so that no escaped name passes for a good one.
    name = printable(raw_name.decode("ascii", "backslashreplace"))
    size, packed, offset = _zip64_sizes(extra, size, packed, offset, name)
    if offset + _LOCAL.size > cd_start:
        raise BrokenZip("zip_broken", "The entry lies outside of the zip.", name)
    file.seek(offset)
    local = _LOCAL.unpack(file.read(_LOCAL.size))
    l_magic, _, l_flags, l_method, _, _, l_crc, l_packed, l_size, l_name, l_extra = local
    local_name = file.read(l_name)
    local_extra = file.read(l_extra)
    if l_magic != b"PK\x03\x04" or local_name != raw_name or (l_flags ^ flags) & ~0x0806 or l_method != method:
        raise BrokenZip("header_mismatch", "The entry's two headers disagree.", name)
    if not flags & _FLAG_DESCRIPTOR:
        l_size, l_packed, _ = _zip64_sizes(local_extra, l_size, l_packed, 0, name)
        if (l_crc, l_packed, l_size) != (crc, packed, size):
            raise BrokenZip("size_mismatch", "The entry's two headers disagree about its size.", name)
    data = offset + _LOCAL.size + l_name + l_extra
    after = (
        data + packed + (_descriptor(file, data + packed, crc, packed, size, name) if flags & _FLAG_DESCRIPTOR else 0)
    )
    entry = RawEntry(name, size, packed, crc, method, flags, attributes >> 16, offset, data, after)
    return entry, end


def _zip64_sizes(extra: bytes, size: int, packed: int, offset: int, name: str) -> tuple[int, int, int]:
    if _U32_MAX not in (size, packed, offset):
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == 1:
            values = iter(struct.unpack(f"<{length // 8}Q", extra[at + 4 :][: length // 8 * 8].ljust(length // 8 * 8)))
            try:
                size = next(values) if size == _U32_MAX else size
                packed = next(values) if packed == _U32_MAX else packed
                offset = next(values) if offset == _U32_MAX else offset
            except StopIteration:
                break
            return size, packed, offset
        at += 4 + length
    raise BrokenZip("zip_broken", "The entry's size is missing.", name)


def _descriptor(file: BinaryIO, at: int, crc: int, packed: int, size: int, name: str) -> int:
    """Length in bytes of the data descriptor behind an entry, which must repeat the directory's figures."""
    file.seek(at)
    raw = file.read(24)
    for form in ("<LLL", "<LQQ"):
        body = struct.pack(form, crc, packed, size) if size <= _U32_MAX and packed <= _U32_MAX else b""
        if form == "<LQQ":
            body = struct.pack(form, crc, packed, size)
        for magic in (b"PK\x07\x08", b""):
            if body and raw.startswith(magic + body):
                return len(magic) + len(body)
    raise BrokenZip("size_mismatch", "The entry's trailing record disagrees about its size.", name)
