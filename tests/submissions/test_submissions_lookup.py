"""Which whole numbers are tables of hashes, and which are what honest models carry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.submissions.lookup import holds_hashes

_RNG = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (_RNG.integers(0, 2**63 - 1, 1000, dtype=np.int64), "I64", True),
        (_RNG.integers(-(2**63), 0, 1000, dtype=np.int64), "I64", True),
        (_RNG.integers(0, 2**64 - 1, 300, dtype=np.uint64), "U64", True),
        (_RNG.integers(0, 2**63 - 1, 255, dtype=np.int64), "I64", False),
        (np.arange(100_000, dtype=np.int64), "I64", False),
        (np.full(10_000, 2**63 - 1, dtype=np.int64), "I64", False),
        (_RNG.integers(0, 2**31, 10_000, dtype=np.int64), "I64", False),
        (_RNG.normal(size=10_000), "F64", False),
    ],
)
def test_only_many_wide_whole_numbers_are_hashes(values: np.ndarray, dtype: str, expected: bool) -> None:
    assert holds_hashes([memoryview(values.tobytes())], dtype) is expected


@given(st.lists(st.integers(-(2**32) + 1, 2**32 - 1), max_size=400))
def test_numbers_of_32_bits_never_are(numbers: list[int]) -> None:
    assert not holds_hashes([memoryview(np.array(numbers, np.int64).tobytes())], "I64")
