"""Zips that try to get out of their folder, to be two things at once, or to grow."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib

from good_packages import onnx_model, package, refused, zip_of


def _patched(data: bytes, magic: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(magic) + offset
    return data[:at] + value + data[at + len(value) :]


def _with_mode(name: str, mode: int, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return out.getvalue()


@refused("zip_empty")
def empty_file() -> bytes:
    return b""


@refused("zip_empty")
def zip_without_files() -> bytes:
    return zip_of({})


@refused("zip_broken")
def not_a_zip() -> bytes:
    return b"this is not a zip file, however long it may be" * 10


@refused("zip_broken")
def cut_off() -> bytes:
    return package()[:-40]


@refused("zip_broken")
def bytes_before_the_archive() -> bytes:
    return b"#!/bin/sh\n" + package()


@refused("zip_broken")
def bytes_behind_the_archive() -> bytes:
    return package() + b"trailing"


@refused("absolute_path")
def absolute_path() -> bytes:
    return zip_of({"/etc/cron.d/model.py": "x"})


@refused("absolute_path")
def windows_drive() -> bytes:
    return zip_of({"C:/model.py": "x"})


@refused("parent_path")
def parent_path() -> bytes:
    return zip_of({"../model.py": "x"})


@refused("parent_path")
def parent_path_with_backslashes() -> bytes:
    return zip_of({"..\\model.py": "x"})


@refused("link")
def symbolic_link() -> bytes:
    return _with_mode("model.onnx", stat.S_IFLNK | 0o777, b"/etc/passwd")


@refused("special_file")
def device() -> bytes:
    return _with_mode("model.onnx", stat.S_IFCHR | 0o666, b"")


@refused("special_file")
def named_pipe() -> bytes:
    return _with_mode("model.onnx", stat.S_IFIFO | 0o666, b"")


@refused("nested_folder")
def nested_folders() -> bytes:
    return zip_of({"a/b/model.onnx": onnx_model()})


@refused("several_folders")
def two_top_folders() -> bytes:
    return zip_of({"a/model.py": "x", "b/model_config.yaml": "x"})


@refused("duplicate_name")
def same_name_twice() -> bytes:
    return zip_of({"model.py": "good", "model.pz": "evil"}).replace(b"model.pz", b"model.py")


@refused("case_collision")
def names_that_differ_by_case() -> bytes:
    return zip_of({"model.py": "good", "MODEL.py": "evil"})


@refused("unsafe_name")
def name_with_a_line_break() -> bytes:
    return zip_of({"model\n.py": "x"})


@refused("unsafe_name")
def name_with_a_null_byte() -> bytes:
    return zip_of({"modelX.onnx": "x"}).replace(b"modelX.onnx", b"model\0.onnx")


@refused("encrypted_entry")
def encrypted() -> bytes:
    data = bytearray(zip_of({"model.onnx": b"x" * 100}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    return bytes(data)


@refused("compression_method")
def unusual_compression() -> bytes:
    return zip_of({"model.onnx": b"x" * 100}, zipfile.ZIP_LZMA)


@refused("unexpected_file")
def shared_library() -> bytes:
    return zip_of({"model.onnx": onnx_model(), "libevil.so": b"\x7fELF"})


@refused("unexpected_file")
def second_python_file() -> bytes:
    return zip_of({"model.onnx": onnx_model(), "helper.py": "import os"})


@refused("unexpected_file")
def pickled_weights() -> bytes:
    return zip_of({"pytorch_model.bin": b"\x80\x04."})


@refused("too_many_entries")
def thousand_entries() -> bytes:
    return zip_of({f"m{i}.onnx": b"" for i in range(1000)})


@refused("ratio_too_large")
def squeezed_zeros() -> bytes:
    return zip_of({"model.onnx": bytes(30 * 2**20)})


@refused("onnx_broken")
def zip_within_a_zip() -> bytes:
    """Only the outer archive is unpacked: what lies within is no model."""
    return zip_of({"model.onnx": zip_of({"model.onnx": bytes(30 * 2**20)})})


@refused("unexpected_file")
def zip_beside_a_model() -> bytes:
    return zip_of({"model.onnx": onnx_model(), "more.zip": zip_of({"model.onnx": bytes(30 * 2**20)})})


@refused("size_mismatch")
def declares_less_than_it_unpacks_to() -> bytes:
    data = zip_of({"model.onnx": bytes(5000)})
    data = _patched(data, b"PK\x03\x04", 22, struct.pack("<L", 10))
    return _patched(data, b"PK\x01\x02", 24, struct.pack("<L", 10))


@refused("size_mismatch")
def declares_more_than_it_unpacks_to() -> bytes:
    data = zip_of({"model.onnx": bytes(5000)})
    data = _patched(data, b"PK\x03\x04", 22, struct.pack("<L", 6000))
    return _patched(data, b"PK\x01\x02", 24, struct.pack("<L", 6000))


@refused("size_mismatch")
def two_sizes_in_two_headers() -> bytes:
    return _patched(zip_of({"model.onnx": bytes(5000)}), b"PK\x03\x04", 22, struct.pack("<L", 10))


@refused("checksum_mismatch")
def wrong_checksum() -> bytes:
    data = zip_of({"model.onnx": bytes(5000)})
    data = _patched(data, b"PK\x03\x04", 14, b"\1\2\3\4")
    return _patched(data, b"PK\x01\x02", 16, b"\1\2\3\4")


@refused("header_mismatch")
def two_names_in_two_headers() -> bytes:
    data = zip_of({"model.onnx": bytes(100)})
    return _patched(data, b"PK\x03\x04", 30, b"evil1")


@refused("zip_broken")
def damaged_compression() -> bytes:
    data = zip_of({"model.onnx": b"some text " * 50})
    return _patched(data, b"model.onnx", 10, b"\xff\xff\xff\xff")


@refused("overlapping_entries")
def overlapping_entries() -> bytes:
    """Fifield's bomb in small: many entries, one kernel of compressed data."""
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = engine.compress(bytes(500)) + engine.flush()
    crc = zlib.crc32(bytes(500))
    names = [b"a.onnx", b"b.onnx"]
    local_b = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, crc, len(kernel), 500, 6, 0) + names[1]
    # The first entry quotes the second one's header as a stored block of its own compressed data.
    quoted = b"\0" + struct.pack("<HH", len(local_b), len(local_b) ^ 0xFFFF) + local_b + kernel
    crc_a = zlib.crc32(local_b + bytes(500))
    size_a = len(local_b) + 500
    local_a = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, crc_a, len(quoted), size_a, 6, 0) + names[0]
    body = local_a + quoted
    directory = b""
    for name, c, packed, size, offset in (
        (names[0], crc_a, len(quoted), size_a, 0),
        (names[1], crc, len(kernel), 500, len(local_a) + 5),
    ):
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 33, c, packed, size, 6, 0, 0, 0, 0, 0, offset
        )
        directory += name
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory), len(body), 0)


@refused("missing_file")
def no_configuration() -> bytes:
    return zip_of({"model.py": "x", "model.safetensors": b"x"})


@refused("missing_file")
def no_weights() -> bytes:
    return zip_of({"model.py": "x", "model_config.yaml": "x"})


@refused("several_models")
def two_models() -> bytes:
    return zip_of({"a.onnx": onnx_model(), "b.onnx": onnx_model()})


@refused("mixed_formats")
def onnx_beside_code() -> bytes:
    return zip_of({"a.onnx": onnx_model(), "model.py": "x"})


@refused("remote_code")
def remote_code_in_config_json() -> bytes:
    return zip_of({**_files(), "config.json": b'{"auto_map": {"AutoModel": "evil--repo"}}'})


def _files() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(package())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@refused("json_broken")
def config_json_that_nests_deeply() -> bytes:
    return zip_of({**_files(), "config.json": b"[" * 50_000})
