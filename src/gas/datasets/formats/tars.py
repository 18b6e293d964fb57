"""Media out of tar files, plain or compressed, read from front to back without unpacking to disk.

Covered: wrong checksums, names and extended headers of any length, sizes that are none, millions of members, links,
devices, sparse files, truncation. The format: POSIX.1-2001 (pax) and GNU's long names; Python's ``tarfile`` is not
used because it reads an extended header of any declared size into memory and keeps every member.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gas.datasets.formats.base import FormatLimits, RawItem, Wanted, broken, clean_label, is_mask, mask_path, set_aside
from gas.datasets.formats.magic import is_container, is_tar_header, tar_number
from gas.datasets.formats.streams import Stream, open_stream

__all__ = ["read_tar"]

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_REGULAR: Final = frozenset({b"0", b"\0", b"7"})
_REFUSED: Final = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"6": "device", b"S": "sparse"}
_REFUSALS: Final = {
    "link": "It is a link; links in archives are not followed.",
    "device": "It is a device, not a file.",
    "sparse": "It is stored as a sparse file, which is not read.",
}
_MAX_HEADER: Final = 64 * 1024
_MAX_SIZE: Final = 1 << 50


@dataclass(slots=True)
class _Member:
    label: str
    size: int
    refused: str = ""


@dataclass(slots=True)
class _Extended:
    """What headers before a member say about it."""

    name: bytes | None = None
    size: int | None = None
    refused: str = ""


def read_tar(file: Path, name: str, wanted: Wanted, limits: FormatLimits) -> Iterator[RawItem]:
    """The wanted regular files of a tar, in its order; media wait for their masks.

    Raises:
        MediaRejected: ``archive``: broken, truncated, or beyond a limit.
        OSError: The file can't be read.
    """
    pairs = _Pairs(wanted.mask_column, limits) if wanted.mask_column else None
    with open_stream(file, limits, name) as stream:
        for member in _members(stream, name, limits):
            path = f"{name}!{member.label}"
            is_a_mask = pairs is not None and pairs.is_mask(member.label)
            is_readable = not member.refused and member.size <= limits.max_item_bytes
            if is_a_mask and is_readable and pairs is not None:
                yield from pairs.add_mask(member.label, _take(stream, member.size, name))
                continue
            if is_a_mask or not is_readable or not wanted.takes(member.label):
                _skip(stream, member.size, name)
                if not is_a_mask and wanted.takes(member.label):
                    yield _refusal(path, member, limits)
                continue
            data = _take(stream, member.size, name)
            if pairs is None:
                yield _item(path, data)
            else:
                yield from pairs.add_medium(member.label, path, data)
    if pairs is not None:
        yield from pairs.rest()


def _refusal(path: str, member: _Member, limits: FormatLimits) -> RawItem:
    if member.refused:
        return set_aside(path, member.refused, _REFUSALS.get(member.refused, "Its header can't be read."))
    return set_aside(path, "too_large", f"It has more than the allowed {limits.max_item_bytes:,} bytes.")


def _item(path: str, data: bytes, mask: bytes | None = None) -> RawItem:
    if not data:
        return set_aside(path, "empty", "It has no bytes.")
    if is_container(data[:_BLOCK]):
        return set_aside(path, "nested_archive", "It is an archive inside the archive; those are not opened.")
    return RawItem(path, data, mask=mask)


def _members(stream: Stream, name: str, limits: FormatLimits) -> Iterator[_Member]:
    """Headers of regular files and of what is refused; the caller reads or skips the bytes after each."""
    extended = _Extended()
    count = 0
    spent = 0
    while True:
        block = stream.read(_BLOCK)
        if not block or block == _ZEROS:
            if extended.name is not None:
                raise broken(name, "ends in the middle of a member")
            return
        if not is_tar_header(block):
            raise broken(name, "is damaged: a header has the wrong checksum")
        count += 1
        if count > limits.max_members:
            raise broken(name, f"has more than the allowed {limits.max_members:,} members")
        size, kind = tar_number(block[124:136]), block[156:157]
        if size is None or size > _MAX_SIZE:
            raise broken(name, "is damaged: a member has a size that is none")
        if kind in b"LxXgK":
            spent += size
            if spent > limits.max_directory_bytes:
                raise broken(name, "has longer headers than allowed")
            _extend(stream, kind, size, extended, name)
            continue
        raw = extended.name if extended.name is not None else _plain_name(block)
        size = extended.size if extended.size is not None else size
        refused = extended.refused or _REFUSED.get(kind, "")
        extended = _Extended()
        is_folder = kind == b"5" or raw.endswith(b"/")
        # Links and devices have no bytes of their own, whatever their header says.
        held = 0 if kind in b"123456" else size
        if is_folder or (kind not in _REGULAR and kind not in _REFUSED):
            _skip(stream, held, name)
            continue
        yield _Member(clean_label(raw.decode("utf-8", "backslashreplace"), f"member-{count}"), held, refused)


def _extend(stream: Stream, kind: bytes, size: int, extended: _Extended, name: str) -> None:
    """Take over what an extended header says about the next member."""
    if kind in b"gK" or size > _MAX_HEADER:
        _skip(stream, size, name)
        if kind in b"xXL":
            extended.refused = "header"
        return
    body = _take(stream, size, name)
    if kind == b"L":
        extended.name = body.split(b"\0", 1)[0]
        return
    for key, value in _records(body, name):
        if key == b"path":
            extended.name = value
        elif key == b"size":
            if not value.isdigit() or len(value) > 16 or int(value) > _MAX_SIZE:
                raise broken(name, "is damaged: a member has a size that is none")
            extended.size = int(value)
        elif key.startswith(b"GNU.sparse."):
            extended.refused = "sparse"


def _records(body: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(body) and body[at] != 0:
        space = body.find(b" ", at, at + 20)
        digits = body[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        if end <= space or end > len(body) or body[end - 1 : end] != b"\n":
            raise broken(name, "is damaged: an extended header can't be read")
        key, _, value = body[space + 1 : end - 1].partition(b"=")
        yield key, value
        at = end


def _plain_name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _skip(stream: Stream, size: int, name: str) -> None:
    if not stream.skip(_padded(size)):
        raise broken(name, "is cut off")


def _take(stream: Stream, size: int, name: str) -> bytes:
    data = stream.read(size)
    # Some writers leave the last padding out; only the bytes themselves must be there.
    if len(data) != size:
        raise broken(name, "is cut off")
    stream.skip(_padded(size) - size)
    return data


class _Pairs:
    """Media and masks that wait for each other while the archive goes by."""

    def __init__(self, pattern: str, limits: FormatLimits) -> None:
        self._pattern = pattern
        self._limits = limits
        self._media: dict[str, tuple[str, bytes]] = {}
        self._masks: dict[str, bytes] = {}
        self._held = 0

    def is_mask(self, label: str) -> bool:
        """Whether a member is a mask by its path."""
        return is_mask(label, self._pattern)

    def add_mask(self, label: str, data: bytes) -> Iterator[RawItem]:
        """A mask went by."""
        if label in self._media:
            path, medium = self._media.pop(label)
            self._held -= len(medium)
            yield _item(path, medium, data)
        elif label not in self._masks:
            self._masks[label] = data
            self._held += len(data)
            # Masks without a medium are nothing to report; the oldest go first.
            while self._held > self._limits.max_pending_bytes and self._masks:
                self._held -= len(self._masks.pop(next(iter(self._masks))))
            yield from self._make_room()

    def add_medium(self, label: str, path: str, data: bytes) -> Iterator[RawItem]:
        """A medium went by."""
        mask = mask_path(label, self._pattern)
        if mask in self._masks:
            found = self._masks.pop(mask)
            self._held -= len(found)
            yield _item(path, data, found)
        elif mask in self._media:
            yield set_aside(path, "duplicate", "Another medium of the archive has the same mask.")
        else:
            self._media[mask] = (path, data)
            self._held += len(data)
            yield from self._make_room()

    def rest(self) -> Iterator[RawItem]:
        """Media that have no mask."""
        for path, data in self._media.values():
            yield _item(path, data)
        self._media.clear()

    def _make_room(self) -> Iterator[RawItem]:
        while self._held > self._limits.max_pending_bytes and self._media:
            path, data = self._media.pop(next(iter(self._media)))
            self._held -= len(data)
            yield set_aside(path, "mask_too_far", "Its mask lies too far away in the archive to wait for it.")
