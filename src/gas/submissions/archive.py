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
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from gas.errors import InfrastructureError, PackageRejected, Reason
from gas.submissions.limits import Limits
from gas.submissions.parts import Part
from gas.submissions.zip_directory import BrokenZip, Directory, RawEntry, read_directory

__all__ = ["ArchiveEntry", "Limits", "Listing", "inspect_archive", "unpack"]

_FLAG_ENCRYPTED: Final = 0x0001 | 0x0040 | 0x2000
_STORED: Final = 0
_DEFLATED: Final = 8
_CHUNK: Final = 1 << 20
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FIXED_NAMES: Final = frozenset({"model_config.yaml", "model.py", "config.json"})
_RATIO_FLOOR: Final = 1 << 20
_WRONG_SUM: Final = "The entry's bytes don't match its checksum."


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
            raise _refused("checksum_mismatch", _WRONG_SUM, entry.name)


def is_stored(entry: ArchiveEntry) -> bool:
    """Whether an entry's bytes lie in the archive as they are."""
    return entry.method == _STORED


def check_sum(path: Path, entry: ArchiveEntry) -> None:
    """Check a stored entry where it lies, without writing it anywhere.

    Args:
        path: The archive.
        entry: From :func:`inspect_archive` of the same archive.

    Raises:
        gas.errors.PackageRejected: ``checksum_mismatch``.
        gas.errors.InfrastructureError: The archive can't be read, or has changed.
    """
    crc, buffer = 0, memoryview(bytearray(_CHUNK))
    with Part(path, entry.data_offset, entry.size, entry.name).open() as reader:
        for chunk in reader.chunks(0, entry.size, buffer):
            crc = zlib.crc32(chunk, crc)
    if crc != entry.crc:
        raise _refused("checksum_mismatch", _WRONG_SUM, entry.name)


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
            raise BrokenZip("packed_too_large", f"The zip has {size} bytes; allowed are {limits.packed_bytes}.")
        raw = read_directory(file, size, limits)
    except BrokenZip as broken:
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


def _check_tiling(raw: Directory, _: Limits) -> list[Reason]:
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


def _check_sizes(raw: Directory, limits: Limits) -> list[Reason]:
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


def _check_names(raw: Directory, _: Limits) -> list[Reason]:
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


def _check_name(entry: RawEntry) -> list[Reason]:
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
