import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gas.scoring import fixedpoint
from gas.scoring.fixedpoint import ONE, div, exp, mul, normalise, ratio, sigmoid, to_u16

proportions = st.one_of(st.sampled_from([0, 1, ONE - 1, ONE]), st.integers(0, ONE))


def array(*values):
    return np.array(values, dtype=np.int64)


@given(st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_product_is_the_exact_one_rounded_down(a, b):
    assert mul(array(a), array(b))[0] == a * b >> 32
    assert mul(array(a), b)[0] == a * b >> 32


@given(proportions, proportions)
def test_product_of_proportions_is_exact_up_to_one(a, b):
    assert mul(array(a), array(b))[0] == a * b >> 32


@given(st.integers(0, 2**48), st.integers(0, 2**60))
def test_quotient_is_the_exact_one_truncated_and_zero_by_zero(a, b):
    b = max(b, a >> 20)
    assert div(array(a), array(b))[0] == ((a << 32) // b if b else 0)


@given(st.lists(st.integers(0, 2**54), min_size=1, max_size=20))
def test_normalised_stakes_equal_64_64_truncated_to_32_32(stakes):
    total = sum(stakes)
    expected = [(s << 64) // total >> 32 for s in stakes] if total else stakes
    assert normalise(np.array(stakes, dtype=np.int64)).tolist() == expected


def test_zero_sums_stay_zero_along_each_axis():
    matrix = array(0, 0, 3, 1).reshape(2, 2)
    assert normalise(matrix, axis=1).tolist() == [[0, 0], [3 * ONE // 4, ONE // 4]]
    assert normalise(matrix, axis=0).tolist() == [[0, 0], [ONE, ONE]]


def test_proportions_become_u16_by_rounding_down():
    assert to_u16(array(0, 1, ONE // 2, ONE - 1, ONE, 2 * ONE, -1)).tolist() == [0, 0, 32767, 65534, 65535, 65535, 0]
    assert ratio(65535, 65535) == ONE


def test_exponential_is_close_to_the_real_one():
    x = np.linspace(-8, 8, 321)
    found = exp((x * ONE).astype(np.int64)) / ONE
    # Within a few units of 2**-32 each term; exp(1) is a constant of 23 bits.
    assert np.allclose(found, np.exp(x), rtol=3e-7, atol=1e-8)


def test_exponential_of_zero_and_one_are_the_runtimes_constants():
    assert exp(array(0, ONE)).tolist() == [ONE, int(math.e * 2**23) << 9]


def test_overflow_starts_where_unbounded_integers_say_so():
    def overflows(x):
        total, term = x + ONE, x
        for i in range(2, 32):
            term = term * x >> 32
            if term >= 2**63:
                return True
            term //= i
            total += term
        return total >= 2**63

    limit = fixedpoint._EXP_OVERFLOW
    assert overflows(limit) and not overflows(limit - 1)
    assert exp(array(limit, -limit)).tolist() == [0, 0]
    assert exp(array(limit - 1))[0] > 2**61


def test_sigmoid_is_one_half_at_zero_and_rises_to_one():
    values = sigmoid(array(-5 * ONE, 0, 5 * ONE))
    assert values[1] == ONE // 2
    assert np.allclose(values / ONE, [0.006692851, 0.5, 0.993307149], atol=1e-6)
