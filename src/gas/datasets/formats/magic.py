"""First bytes: what a file is, whatever it is called."""

from __future__ import annotations

from typing import Final

__all__ = ["COMPRESSED", "HEAD", "PARQUET", "ZIP", "is_container", "is_tar_header", "tar_number"]

HEAD: Final = 512
"""Bytes that are enough to tell."""

COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of the compressions that are understood."""

PARQUET: Final = (b"PAR1", b"PARE")
"""First bytes of Parquet tables; the second of those whose metadata are encrypted."""

ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of zips; the second of empty ones."""


def is_container(head: bytes) -> bool:
    """Whether bytes begin like an archive, a table or something compressed, none of which is a medium.

    Args:
        head: At least :data:`HEAD` bytes, or all there are.
    """
    return head.startswith((*PARQUET, *ZIP, *COMPRESSED)) or is_tar_header(head[:HEAD])


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a member's header, by their checksum."""
    if len(block) < HEAD or block.startswith(b"\0"):
        return False
    declared = tar_number(block[148:156])
    return declared is not None and declared == sum(block[:148]) + 8 * 0x20 + sum(block[156:HEAD])


def tar_number(raw: bytes) -> int | None:
    """An octal number, or one of GNU's in base 256; None when it is neither or negative."""
    if raw[:1] == b"\x80":
        return int.from_bytes(raw[1:], "big")
    text = raw.strip(b" \0")
    try:
        return int(text, 8) if text.isdigit() else (0 if not text else None)
    except ValueError:
        return None
