"""Safetensors files that lie."""

from __future__ import annotations

import json
import struct

import numpy as np
from good_packages import net_weights, refused, safetensors_bytes, safetensors_with

_ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@refused("safetensors_header")
def empty_file() -> bytes:
    return b""


@refused("safetensors_header")
def pickle_called_safetensors() -> bytes:
    return b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."


@refused("safetensors_header")
def header_longer_than_the_file() -> bytes:
    return struct.pack("<Q", 2**63) + b"{}"


@refused("safetensors_header")
def header_of_many_megabytes() -> bytes:
    return safetensors_with(b"{" + b" " * (9 * 2**20) + b"}")


@refused("safetensors_header")
def header_with_leading_space() -> bytes:
    return safetensors_with(b" " + json.dumps({"a": _ONE}).encode(), bytes(8))


@refused("safetensors_header")
def header_that_nests_deeply() -> bytes:
    return safetensors_with(b'{"a":' + b"[" * 200_000)


@refused("safetensors_header")
def header_with_a_number_of_many_digits() -> bytes:
    return safetensors_with(b'{"a":{"dtype":"F32","shape":[' + b"9" * 100_000 + b'],"data_offsets":[0,8]}}', bytes(8))


@refused("safetensors_header")
def no_tensors() -> bytes:
    return safetensors_with({"__metadata__": {"format": "pt"}})


@refused("safetensors_header")
def metadata_that_is_no_text() -> bytes:
    return safetensors_with({"__metadata__": {"a": 1}, "a": _ONE}, bytes(8))


@refused("safetensors_header")
def negative_shape() -> bytes:
    return safetensors_with({"a": {**_ONE, "shape": [-1, -2]}}, bytes(8))


@refused("safetensors_header")
def boolean_shape() -> bytes:
    return safetensors_with({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, bytes(1))


@refused("safetensors_header")
def unknown_field() -> bytes:
    return safetensors_with({"a": {**_ONE, "file": "/etc/passwd"}}, bytes(8))


@refused("safetensors_duplicate")
def same_tensor_twice() -> bytes:
    entry = json.dumps(_ONE)
    return safetensors_with(f'{{"a":{entry},"a":{entry}}}'.encode(), bytes(8))


@refused("safetensors_dtype")
def unknown_dtype() -> bytes:
    return safetensors_with({"a": {**_ONE, "dtype": "OBJECT"}}, bytes(8))


@refused("safetensors_offsets")
def offsets_beyond_the_file() -> bytes:
    return safetensors_with({"a": {"dtype": "F32", "shape": [2**20], "data_offsets": [0, 2**22]}}, bytes(8))


@refused("safetensors_offsets")
def offsets_that_overlap() -> bytes:
    return safetensors_with({"a": _ONE, "b": {**_ONE, "data_offsets": [4, 12]}}, bytes(12))


@refused("safetensors_offsets")
def offsets_with_a_gap() -> bytes:
    return safetensors_with({"a": _ONE, "b": {**_ONE, "data_offsets": [16, 24]}}, bytes(24))


@refused("safetensors_offsets")
def three_offsets() -> bytes:
    return safetensors_with({"a": {**_ONE, "data_offsets": [0, 8, 8]}}, bytes(8))


@refused("safetensors_size")
def shape_that_makes_other_bytes() -> bytes:
    return safetensors_with({"a": {**_ONE, "shape": [3]}}, bytes(8))


@refused("safetensors_size")
def shape_that_overflows() -> bytes:
    return safetensors_with({"a": {**_ONE, "shape": [2**62, 2**62, 2]}}, bytes(8))


@refused("safetensors_trailing")
def bytes_behind_the_tensors() -> bytes:
    return safetensors_bytes() + b"payload"


@refused("lookup_table")
def table_of_hashes() -> bytes:
    keys = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 500, dtype=np.int64)
    return safetensors_bytes({**net_weights(), "positions": keys})
