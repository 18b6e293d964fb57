"""Drawing by content: which media come first, and how many each set gives. Nothing but numbers.

The place of a medium in the drawing is :func:`mix` of the first eight bytes of its SHA-256 with a 64-bit key that
is derived from the seed. The place depends on nothing else: not on the machine, the file system, the order of rows,
nor on which other media there are. A set gives the media with the lowest places, so that a larger quota only adds.

:func:`mix` is splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), a
bijection: two media share a place only when their hashes begin with the same eight bytes. It is no cipher. That is
no weakness here: the hash is already uniform, and a seed is made known only when the data are frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gas.clock import derive_seed
from gas.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["fill", "hash_words", "mix", "places"]

_HEX_DIGITS: Final = 64
_WORD_DIGITS: Final = 16
_ROWS_AT_ONCE: Final = 1 << 16
_NO_DIGIT: Final = 255

_DIGIT: Final = np.full(256, _NO_DIGIT, np.uint8)
_DIGIT[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16, dtype=np.uint8)


def mix(words: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """splitmix64 of ``word XOR key``.

    Args:
        words: uint64, any shape.
        key: In [0, 2**64).

    Returns:
        uint64 of the same shape: ``z = (word ^ key) + 0x9E3779B97F4A7C15``,
        ``z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9``, ``z = (z ^ z >> 27) * 0x94D049BB133111EB``, ``z ^ z >> 31``,
        all modulo 2**64.
    """
    z = words ^ np.uint64(key)
    z += np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def places(words: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.uint64]:
    """:func:`mix` under the key ``derive_seed(seed, "plan", purpose)``; lower comes first."""
    return mix(words, derive_seed(seed, "plan", purpose))


def hash_words(column: pa.ChunkedArray | pa.Array, name: str = "sha256") -> NDArray[np.uint64]:
    """The first eight bytes of each SHA-256 of a column.

    Args:
        column: Strings of 64 lower-case hex digits, without nulls.
        name: The column's name, for the error.

    Returns:
        uint64 (n,), the bytes read as a big-endian number.

    Raises:
        ConfigurationError: A value is missing or is no hash (``bad_candidates``).
    """
    out = np.empty(len(column), np.uint64)
    at = 0
    for characters in _characters(column, name):
        digits = _DIGIT[characters]
        if (digits == _NO_DIGIT).any():
            raise _no_hash(name)
        head = digits[:, :_WORD_DIGITS]
        octets = np.ascontiguousarray(head[:, 0::2] << 4 | head[:, 1::2])
        out[at : at + len(octets)] = octets.view(">u8").reshape(-1)
        at += len(octets)
    return out


def fill(names: Sequence[str], sizes: Sequence[int], weights: Sequence[int], total: int, seed: int) -> list[int]:
    """Share ``total`` out: every set the same number for each unit of its weight, and none more than it has.

    What a small set can't give goes to the others. The shares are exact fractions; what rounding leaves over goes
    one each to the largest remainders, equal ones in an order drawn from the seed and the name.

    Args:
        names: Of the sets, distinct.
        sizes: What each has, not negative.
        weights: Positive.
        total: To give; less is given when the sets hold less.
        seed: Decides between equal remainders.

    Returns:
        For each set what it gives; the sum is ``min(total, sum(sizes))``.
    """
    total = max(0, min(total, sum(sizes)))
    shares = [Fraction(size) for size in sizes]
    budget, weight = total, sum(weights)
    # Poorest first: whoever has less than its share gives all, and the level rises for those that remain.
    for index in sorted(range(len(sizes)), key=lambda i: Fraction(sizes[i], weights[i])):
        shares[index] = min(Fraction(sizes[index]), Fraction(budget * weights[index], weight))
        if shares[index] < sizes[index]:
            level = Fraction(budget, weight)
            for other in range(len(sizes)):
                shares[other] = min(Fraction(sizes[other]), level * weights[other])
            break
        budget -= sizes[index]
        weight -= weights[index]
    given = [int(share) for share in shares]
    left = total - sum(given)
    rest = [i for i in range(len(sizes)) if given[i] < sizes[i]]
    rest.sort(key=lambda i: (given[i] - shares[i], derive_seed(seed, "plan", "remainder", names[i]), names[i]))
    for index in rest[:left]:
        given[index] += 1
    return given


def _characters(column: pa.ChunkedArray | pa.Array, name: str) -> Iterator[NDArray[np.uint8]]:
    """The column's characters, uint8 (rows, 64), some rows at a time and without copying them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        for start in range(0, len(chunk), _ROWS_AT_ONCE):
            rows = chunk.slice(start, _ROWS_AT_ONCE)
            if pa.types.is_dictionary(rows.type):
                rows = rows.dictionary_decode()
            try:
                rows = rows.cast(pa.large_string())
            except pa.ArrowException as error:
                raise _no_hash(name) from error
            lengths = pc.min_max(pc.binary_length(rows)).as_py()
            if rows.null_count or lengths != {"min": _HEX_DIGITS, "max": _HEX_DIGITS}:
                raise _no_hash(name)
            offsets = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1]
            data = np.frombuffer(rows.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
            yield data.reshape(-1, _HEX_DIGITS)


def _no_hash(name: str) -> ConfigurationError:
    return ConfigurationError(f"The column {name} holds something that is no SHA-256.", code="bad_candidates")
