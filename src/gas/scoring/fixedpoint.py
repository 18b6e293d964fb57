"""Signed 32.32 fixed-point arithmetic on integer arrays, bit for bit as a chain's runtime does it.

A number x is held as ``floor(x * 2**32)`` in an ``int64``: 32 integer bits, 32 fractional bits. Nothing here is a
float, so two machines never disagree. The exact 128-bit product or dividend that the definition asks for is never
formed: products are put together from halves, and quotients found by long division in steps that fit into 63 bits.

Source: specification "Chain", section 2 (arithmetic of an epoch).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FRACTION_BITS", "ONE", "U16_MAX", "Fixed", "div", "exp", "mul", "normalise", "ratio", "sigmoid", "to_u16"]

Fixed = NDArray[np.int64]
"""An array of 32.32 numbers."""

FRACTION_BITS: Final = 32
ONE: Final = 1 << FRACTION_BITS
U16_MAX: Final = 65535

_LOW: Final = ONE - 1
_BLOCK: Final = 1 << 15

# e itself is a constant of 23 fractional bits in the runtime, and exp(1) returns it as it is.
_E: Final = 22_802_600 << 9
# The first exponent whose power series leaves the 31 integer bits at an intermediate product; from here on the
# runtime reports an overflow. A test finds the same number by bisection with unbounded integers.
_EXP_OVERFLOW: Final = 89_715_445_398


def mul(a: Fixed, b: Fixed | int) -> Fixed:
    """Product of two 32.32 numbers, rounded towards minus infinity.

    Args:
        a: Any shape; the true product must fit into 32.32.
        b: Shape that broadcasts with ``a``, or one number.

    Returns:
        ``floor(a * b / 2**32)``, int64.
    """
    b = np.asarray(b, dtype=np.int64)
    if _below_one(a) and _below_one(b):
        # Both are proper fractions: the whole product fits into 64 unsigned bits.
        return ((a.view(np.uint64) * b.view(np.uint64)) >> np.uint64(FRACTION_BITS)).view(np.int64)
    a_high, a_low = a >> FRACTION_BITS, a & _LOW
    b_high, b_low = b >> FRACTION_BITS, b & _LOW
    low = ((a_low.view(np.uint64) * b_low.view(np.uint64)) >> np.uint64(FRACTION_BITS)).view(np.int64)
    result: Fixed = ((a_high * b_high) << FRACTION_BITS) + a_high * b_low + a_low * b_high + low
    return result


def div(a: Fixed, b: Fixed | int) -> Fixed:
    """Quotient of two non-negative 32.32 numbers (or of two integers), truncated; x / 0 = 0.

    Args:
        a: Any shape, at least 0; the true quotient must fit into 32.32.
        b: Shape that broadcasts with ``a``, or one number; at least 0 and below 2**61.

    Returns:
        ``floor(a * 2**32 / b)``, int64.
    """
    b = np.asarray(b, dtype=np.int64)
    divisor = np.maximum(b, 1)
    if _below_one(a):
        quotient = ((a.view(np.uint64) << np.uint64(FRACTION_BITS)) // divisor.view(np.uint64)).view(np.int64)
    else:
        quotient, rest = np.divmod(a, divisor)
        step = 63 - int(divisor.max(initial=1)).bit_length()
        bits = FRACTION_BITS
        while bits:
            shift = min(step, bits)
            digit, rest = np.divmod(rest << shift, divisor)
            quotient = (quotient << shift) | digit
            bits -= shift
    return quotient if b.all() else np.where(b == 0, 0, quotient)


def ratio(numerator: int, denominator: int) -> int:
    """One constant: ``floor(numerator * 2**32 / denominator)``."""
    return (numerator << FRACTION_BITS) // denominator


def normalise(values: Fixed, *, axis: int | None = None) -> Fixed:
    """Divide by the sum, over all or along one axis; where the sum is 0 the values stay as they are (zeros).

    Args:
        values: Non-negative 32.32 numbers or integers (a common factor cancels).
        axis: 0 makes columns sum to 1, 1 makes rows sum to 1.

    Returns:
        32.32 numbers whose sums fall short of 1 by truncation only.
    """
    return div(values, values.sum(axis=axis, keepdims=axis is not None))


def to_u16(values: Fixed) -> NDArray[np.uint16]:
    """``floor(x * 65535)`` of proportions, clipped to [0, 65535]."""
    scaled: Fixed = np.clip((values * U16_MAX) >> FRACTION_BITS, 0, U16_MAX)
    return scaled.astype(np.uint16)


def exp(x: Fixed) -> Fixed:
    """Raise e to the power x by the runtime's power series of 31 terms; 0 where the series overflows.

    An overflow yields 0 for large positive *and* large negative exponents, because the runtime takes the reciprocal
    only of a finite series.

    Args:
        x: 32.32 numbers, any shape.

    Returns:
        32.32 numbers of the same shape.
    """
    flat = x.reshape(-1)
    result = np.empty_like(flat)
    # Blocks that stay in the processor's cache: 31 passes over a large matrix would each go through main memory.
    for start in range(0, flat.size, _BLOCK):
        result[start : start + _BLOCK] = _exp_block(flat[start : start + _BLOCK])
    return result.reshape(x.shape)


def sigmoid(x: Fixed) -> Fixed:
    """``1 / (1 + exp(-x))`` on 32.32 numbers of any shape, with the overflow rule of :func:`exp`."""
    return _reciprocal(ONE + exp(-x))


def _exp_block(x: Fixed) -> Fixed:
    magnitude = np.abs(x)
    overflow = magnitude >= _EXP_OVERFLOW
    magnitude = np.where(overflow, 0, magnitude)
    high, low = magnitude >> FRACTION_BITS, (magnitude & _LOW).view(np.uint64)
    term = magnitude.copy()
    total = term + ONE
    for i in range(2, FRACTION_BITS):
        # term * magnitude, both non-negative, below the overflow by construction.
        fraction = ((term & _LOW).view(np.uint64) * low) >> np.uint64(FRACTION_BITS)
        term = (term * high + (term >> FRACTION_BITS) * low.view(np.int64) + fraction.view(np.int64)) // i
        if not term.any():
            break
        total += term
    result = np.where(x < 0, _reciprocal(total), total)
    result[x == ONE] = _E
    result[overflow] = 0
    return result


def _reciprocal(x: Fixed) -> Fixed:
    """``floor(2**64 / x)`` for x above 1 in bits, in 64 bits: one less in the dividend misses exact quotients only."""
    divisor = x.view(np.uint64)
    quotient: NDArray[np.uint64] = np.uint64(2**64 - 1) // divisor
    exact: NDArray[np.uint64] = ((quotient + np.uint64(1)) * divisor == 0).astype(np.uint64)
    return (quotient + exact).view(np.int64)


def _below_one(x: NDArray[np.int64]) -> bool:
    return x.size == 0 or bool(x.min() >= 0 and x.max() < ONE)
