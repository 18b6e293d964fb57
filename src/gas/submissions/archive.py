"""A strict reader of zip files: one meaning for each byte, and limits that hold while it unpacks.

Covered: absolute paths, ``..``, links, devices, duplicate names, names that differ by case only, encryption,
entries that overlap or lie about their size or checksum, bytes that belong to no entry, a wrong number of top
folders, too many entries, too large a ratio, too much output.

Not covered: what the unpacked files mean; that is the matter of the other modules of this package.

Python's own ``zipfile`` trusts the central directory, reads it whole and tolerates bytes around the archive, so
two programs may see two different archives in one file. Here the central directory and the local headers must
agree, and together they must tile the file without gap or overlap.
"""

from __future__ import annotations

import io
import re
import shutil
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gas.errors import InfrastructureError, PackageRejected, Reason

__all__ = ["ArchiveEntry", "Limits", "Listing", "inspect_archive", "unpack"]

_EOCD: Final = struct.Struct("<4s4H2LH")
_EOCD64_LOCATOR: Final = struct.Struct("<4sLQL")
_EOCD64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_U16_MAX: Final = 0xFFFF
_U32_MAX: Final = 0xFFFFFFFF
_FLAG_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_FLAG_DESCRIPTOR: Final = 0x0008
_STORED: Final = 0
_DEFLATED: Final = 8
_CHUNK: Final = 1 << 20
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FIXED_NAMES: Final = frozenset({"model_config.yaml", "model.py", "config.json"})
_RATIO_FLOOR: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a package may measure; every number is a most.

    Attributes:
        packed_bytes: The zip file.
        unpacked_bytes: All unpacked files together.
        ratio: Unpacked over packed bytes, of one entry and of the whole; asked only above 1 MiB of output, because
            small text files squeeze well.
        entries: Entries of the archive, folders counted.
        config_bytes: ``model_config.yaml`` and ``config.json``, each.
        source_bytes: ``model.py``.
        header_bytes: Header of a safetensors file.
        tensors: Tensors of a safetensors file, or initializers of an ONNX file.
        onnx_fields: Protobuf fields of an ONNX file, a measure of what its objects take in memory.
        onnx_literal_bytes: Bytes of an ONNX file outside raw tensor data, which a parser may blow up eightfold.
    """

    packed_bytes: int = 2 * 2**30
    unpacked_bytes: int = 4 * 2**30
    ratio: float = 100.0
    entries: int = 16
    config_bytes: int = 64 * 2**10
    source_bytes: int = 256 * 2**10
    header_bytes: int = 8 * 2**20
    tensors: int = 100_000
    onnx_fields: int = 2_000_000
    onnx_literal_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One file of an archive.

    Attributes:
        name: File name without the top folder; one path component of safe ASCII characters.
        size: Declared unpacked size in bytes.
        packed: Size in the archive in bytes.
        crc: Declared CRC-32.
        method: 0 stored, 8 deflated.
        data_offset: Where its data starts in the archive.
    """

    name: str
    size: int
    packed: int
    crc: int
    method: int
    data_offset: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive holds, and what is wrong with it.

    Attributes:
        entries: The files that may be unpacked, in the order of the archive; empty when the archive is broken.
        broken: Reasons for which nothing of the archive may be unpacked.
        unexpected: Reasons about files that don't belong into a package; the others may still be looked at.
    """

    entries: tuple[ArchiveEntry, ...] = ()
    broken: tuple[Reason, ...] = ()
    unexpected: tuple[Reason, ...] = ()

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """All findings."""
        return self.broken + self.unexpected


class _Broken(Exception):
    """The archive can't be read on; carries the finding."""

    def __init__(self, code: str, message: str, name: str | None = None) -> None:
        super().__init__(message)
        self.reason = Reason(code, message, name)


def inspect_archive(source: Path | bytes, limits: Limits | None = None) -> Listing:
    """Read the structure of an archive without unpacking anything.

    Args:
        source: A zip file, or its bytes.
        limits: What it may measure.

    Raises:
        gas.errors.InfrastructureError: The file can't be read.
    """
    with _opened(source) as file:
        return _inspect(file, limits or Limits())


def unpack(source: Path | bytes, dest: Path, limits: Limits | None = None) -> tuple[str, ...]:
    """Unpack a clean archive; the top folder, where there is one, is left out.

    Args:
        source: A zip file, or its bytes.
        dest: Folder to create; must not exist. Its parent must.
        limits: What the archive may measure; enforced while the bytes flow.

    Returns:
        Names of the files in ``dest``, in the order of the archive.

    Raises:
        gas.errors.PackageRejected: The archive is refused; ``dest`` does not exist then.
        gas.errors.InfrastructureError: A file can't be read or written, or ``dest`` exists.
    """
    limits = limits or Limits()
    if dest.exists():
        raise InfrastructureError(f"The folder {dest.name} to unpack into exists already.")
    with _opened(source) as file:
        listing = _inspect(file, limits)
        if listing.reasons:
            raise PackageRejected(listing.reasons)
        try:
            stage = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=dest.parent))
        except OSError as error:
            raise InfrastructureError(f"No folder can be made to unpack into: {error.strerror}.") from error
        try:
            extract(file, listing.entries, stage, limits)
            stage.rename(dest)
        except OSError as error:
            raise InfrastructureError(f"The package can't be unpacked: {error.strerror}.") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return tuple(entry.name for entry in listing.entries)


def extract(file: BinaryIO, entries: tuple[ArchiveEntry, ...], folder: Path, limits: Limits) -> None:
    """Write entries into an existing folder.

    Args:
        file: The archive.
        entries: What to write; from :func:`inspect_archive` of the same archive.
        folder: Where to; files made here are readable by the owner only and never replace others.
        limits: Most output and ratio; counted on real bytes, not on declared ones.

    Raises:
        gas.errors.PackageRejected: An entry lies about its size or checksum, or a limit is passed. Files written
            so far stay: the caller removes the folder.
        OSError: Reading or writing failed.
    """
    total = 0
    for entry in entries:
        crc = size = 0
        # "x" never follows or replaces what is there already.
        with (folder / entry.name).open("xb") as out:
            for chunk in _inflate(file, entry):
                size += len(chunk)
                total += len(chunk)
                if size > entry.size:
                    raise _refused("size_mismatch", "The entry unpacks to more than it declares.", entry.name)
                if total > limits.unpacked_bytes:
                    raise _refused("unpacked_too_large", _too_large(limits), entry.name)
                crc = zlib.crc32(chunk, crc)
                out.write(chunk)
        if size != entry.size:
            raise _refused("size_mismatch", f"The entry declares {entry.size} bytes and has {size}.", entry.name)
        if crc != entry.crc:
            raise _refused("checksum_mismatch", "The entry's bytes don't match its checksum.", entry.name)


def expected_name(name: str) -> bool:
    """Whether a file of this name can be part of a package."""
    return name in _FIXED_NAMES or name.endswith((".safetensors", ".onnx"))


def _refused(code: str, message: str, name: str | None = None) -> PackageRejected:
    return PackageRejected((Reason(code, message, name),))


def _too_large(limits: Limits) -> str:
    return f"The package unpacks to more than the allowed {limits.unpacked_bytes} bytes."


@contextmanager
def _opened(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise InfrastructureError(f"The package {source.name} can't be read: {error.strerror}.") from error
    with file:
        yield file


def _inflate(file: BinaryIO, entry: ArchiveEntry) -> Iterator[bytes]:
    file.seek(entry.data_offset)
    left = entry.packed
    if entry.method == _STORED:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise _refused("zip_broken", "The entry is cut off.", entry.name)
            left -= len(chunk)
            yield chunk
        return
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while left and not engine.eof:
            raw = file.read(min(left, _CHUNK))
            if not raw:
                raise _refused("zip_broken", "The entry is cut off.", entry.name)
            left -= len(raw)
            while raw or not engine.eof:
                # max_length bounds each step, so that a bomb is noticed after one chunk and not after its whole burst.
                out = engine.decompress(raw, _CHUNK)
                yield out
                raw = engine.unconsumed_tail
                if not raw and len(out) < _CHUNK:
                    break
    except zlib.error:
        raise _refused("zip_broken", "The entry's compressed data is damaged.", entry.name) from None
    if not engine.eof or left or engine.unused_data:
        raise _refused("size_mismatch", "The entry's compressed data ends elsewhere than declared.", entry.name)


def _inspect(file: BinaryIO, limits: Limits) -> Listing:
    try:
        size = file.seek(0, io.SEEK_END)
        if size > limits.packed_bytes:
            raise _Broken("packed_too_large", f"The zip has {size} bytes; allowed are {limits.packed_bytes}.")
        raw = _central_directory(file, size, limits)
    except _Broken as broken:
        return Listing(broken=(broken.reason,))
    except OSError as error:
        raise InfrastructureError(f"The package can't be read: {error.strerror}.") from error
    broken_reasons: list[Reason] = []
    for check in (_check_tiling, _check_sizes, _check_names):
        broken_reasons += check(raw, limits)
    if broken_reasons:
        return Listing(broken=tuple(broken_reasons))
    files = [(e, e.name.rpartition("/")[2]) for e in raw.entries if not e.is_folder]
    entries = tuple(
        ArchiveEntry(base, e.size, e.packed, e.crc, e.method, e.data_offset) for e, base in files if expected_name(base)
    )
    unexpected = tuple(
        Reason("unexpected_file", "This file doesn't belong into a package: remove it.", e.name)
        for e, base in files
        if not expected_name(base)
    )
    return Listing(entries, unexpected=unexpected)


@dataclass(frozen=True, slots=True)
class _RawEntry:
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
        return self.name.endswith("/")


@dataclass(frozen=True, slots=True)
class _Directory:
    entries: tuple[_RawEntry, ...]
    start: int


def _central_directory(file: BinaryIO, size: int, limits: Limits) -> _Directory:
    if size < _EOCD.size:
        raise _Broken("zip_empty" if size == 0 else "zip_broken", "This is not a zip file.")
    file.seek(size - _EOCD.size)
    magic, disk, cd_disk, here, count, cd_size, cd_start, comment = _EOCD.unpack(file.read(_EOCD.size))
    if magic != b"PK\x05\x06" or comment:
        raise _Broken("zip_broken", "This is not a zip file, it is cut off, or bytes follow the archive.")
    cd_end = size - _EOCD.size
    if count == _U16_MAX or cd_size == _U32_MAX or cd_start == _U32_MAX:
        disk, cd_disk, here, count, cd_size, cd_start, cd_end = _zip64_end(file, cd_end)
    if disk or cd_disk or here != count:
        raise _Broken("zip_broken", "Archives in several parts are not taken.")
    if count == 0:
        raise _Broken("zip_empty", "The zip holds no files.")
    if count > limits.entries:
        raise _Broken("too_many_entries", f"The zip has {count} entries; allowed are {limits.entries}.")
    if cd_start + cd_size != cd_end or cd_size > count * (_CENTRAL.size + 3 * _U16_MAX):
        raise _Broken("zip_broken", "The zip's directory is not where the zip says.")
    file.seek(cd_start)
    directory = file.read(cd_size)
    entries, at = [], 0
    for _ in range(count):
        entry, at = _central_entry(file, directory, at, cd_start)
        entries.append(entry)
    if at != len(directory):
        raise _Broken("zip_broken", "The zip's directory has more bytes than entries.")
    return _Directory(tuple(sorted(entries, key=lambda e: e.header_offset)), cd_start)


def _zip64_end(file: BinaryIO, cd_end: int) -> tuple[int, int, int, int, int, int, int]:
    at = cd_end - _EOCD64_LOCATOR.size
    if at < _EOCD64.size:
        raise _Broken("zip_broken", "The zip's end is damaged.")
    file.seek(at)
    magic, _, offset, _ = _EOCD64_LOCATOR.unpack(file.read(_EOCD64_LOCATOR.size))
    if magic != b"PK\x06\x07" or offset != at - _EOCD64.size:
        raise _Broken("zip_broken", "The zip's end is damaged.")
    file.seek(offset)
    magic, length, _, _, disk, cd_disk, here, count, cd_size, cd_start = _EOCD64.unpack(file.read(_EOCD64.size))
    if magic != b"PK\x06\x06" or length != _EOCD64.size - 12:
        raise _Broken("zip_broken", "The zip's end is damaged.")
    return disk, cd_disk, here, count, cd_size, cd_start, offset


def _central_entry(file: BinaryIO, directory: bytes, at: int, cd_start: int) -> tuple[_RawEntry, int]:
    if at + _CENTRAL.size > len(directory):
        raise _Broken("zip_broken", "The zip's directory is cut off.")
    fields = _CENTRAL.unpack_from(directory, at)
    magic, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, attributes, offset = (
        fields
    )
    end = at + _CENTRAL.size + n_name + n_extra + n_comment
    if magic != b"PK\x01\x02" or end > len(directory) or disk not in (0, _U16_MAX):
        raise _Broken("zip_broken", "The zip's directory is damaged.")
    raw_name = directory[at + _CENTRAL.size :][:n_name]
    extra = directory[at + _CENTRAL.size + n_name :][:n_extra]
    name = raw_name.decode("ascii", "backslashreplace")
    size, packed, offset = _zip64_sizes(extra, size, packed, offset, name)
    if offset + _LOCAL.size > cd_start:
        raise _Broken("zip_broken", "The entry lies outside of the zip.", name)
    file.seek(offset)
    local = _LOCAL.unpack(file.read(_LOCAL.size))
    l_magic, _, l_flags, l_method, _, _, l_crc, l_packed, l_size, l_name, l_extra = local
    local_name = file.read(l_name)
    local_extra = file.read(l_extra)
    if l_magic != b"PK\x03\x04" or local_name != raw_name or (l_flags ^ flags) & ~0x0806 or l_method != method:
        raise _Broken("header_mismatch", "The entry's two headers disagree.", name)
    if not flags & _FLAG_DESCRIPTOR:
        l_size, l_packed, _ = _zip64_sizes(local_extra, l_size, l_packed, 0, name)
        if (l_crc, l_packed, l_size) != (crc, packed, size):
            raise _Broken("size_mismatch", "The entry's two headers disagree about its size.", name)
    data = offset + _LOCAL.size + l_name + l_extra
    after = (
        data + packed + (_descriptor(file, data + packed, crc, packed, size, name) if flags & _FLAG_DESCRIPTOR else 0)
    )
    entry = _RawEntry(name, size, packed, crc, method, flags, attributes >> 16, offset, data, after)
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
    raise _Broken("zip_broken", "The entry's size is missing.", name)


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
    raise _Broken("size_mismatch", "The entry's trailing record disagrees about its size.", name)


def _check_tiling(raw: _Directory, _: Limits) -> list[Reason]:
    at = 0
    for entry in raw.entries:
        if entry.header_offset < at:
            return [Reason("overlapping_entries", "Entries of the zip share bytes.", entry.name)]
        if entry.header_offset > at:
            return [Reason("zip_broken", "Bytes before this entry belong to no entry.", entry.name)]
        at = entry.next_offset
    if at > raw.start:
        return [Reason("overlapping_entries", "An entry of the zip runs into its directory.", raw.entries[-1].name)]
    if at < raw.start:
        return [Reason("zip_broken", "Bytes behind the last entry belong to no entry.")]
    return []


def _check_sizes(raw: _Directory, limits: Limits) -> list[Reason]:
    found = []
    for entry in raw.entries:
        if entry.flags & _FLAG_ENCRYPTED:
            found.append(Reason("encrypted_entry", "Encrypted entries are not taken.", entry.name))
        if entry.method not in (_STORED, _DEFLATED):
            found.append(Reason("compression_method", "Only stored and deflated entries are taken.", entry.name))
        if entry.method == _STORED and entry.size != entry.packed:
            found.append(Reason("size_mismatch", "A stored entry has two different sizes.", entry.name))
        if entry.is_folder and (entry.size or entry.packed > 2):
            found.append(Reason("folder_with_data", "A folder's entry has data.", entry.name))
        if entry.size > _RATIO_FLOOR and entry.size > limits.ratio * max(entry.packed, 1):
            found.append(Reason("ratio_too_large", f"The entry unpacks to over {limits.ratio:g} times.", entry.name))
    if sum(e.size for e in raw.entries) > limits.unpacked_bytes:
        found.append(Reason("unpacked_too_large", _too_large(limits)))
    return found


def _check_names(raw: _Directory, _: Limits) -> list[Reason]:
    found: list[Reason] = []
    seen: dict[str, str] = {}
    tops: set[str] = set()
    for entry in raw.entries:
        found += _check_name(entry)
        key = entry.name.rstrip("/").lower()
        if seen.get(key) == entry.name:
            found.append(Reason("duplicate_name", "Two entries have this name.", entry.name))
        elif key in seen:
            found.append(Reason("case_collision", f"The name differs from {seen[key]!r} by case only.", entry.name))
        seen[key] = entry.name
        top, slash, _rest = entry.name.partition("/")
        tops.add(top if slash else "")
    if not found and len(tops) > 1:
        found.append(Reason("several_folders", "All files must lie flat, or in one and the same top folder."))
    return found


def _check_name(entry: _RawEntry) -> list[Reason]:
    name = entry.name
    parts = name.rstrip("/").split("/")
    kind = stat.S_IFMT(entry.mode)
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name):
        return [Reason("absolute_path", "Absolute paths are not taken.", name)]
    if ".." in re.split(r"[/\\]", name):
        return [Reason("parent_path", "Paths with '..' are not taken.", name)]
    if kind == stat.S_IFLNK:
        return [Reason("link", "Links are not taken.", name)]
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not entry.is_folder):
        return [Reason("special_file", "Devices, pipes and the like are not taken.", name)]
    if len(parts) > 2 or (len(parts) == 2 and entry.is_folder):
        return [Reason("nested_folder", "Files lie flat or in one top folder, not deeper.", name)]
    if name.endswith("//") or not all(_SAFE_NAME.fullmatch(p) or _harmless_hidden(p) for p in parts):
        return [Reason("unsafe_name", "Names are made of letters, digits, '.', '_' and '-'.", name)]
    return []


def _harmless_hidden(part: str) -> bool:
    # Reported as an unexpected file, which tells the author more than an unsafe name would.
    return part == ".DS_Store"
