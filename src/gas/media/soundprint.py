"""A spectral fingerprint of sound that survives other codecs, levels and cuts.

Source: Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (2002): 33 bands between 300 and 2,000 Hz,
one bit for each pair of neighbouring bands: whether their difference in energy grew since the frame before. What it
doesn't survive: another speed or pitch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import soxr  # type: ignore[import-untyped]
from numpy.typing import NDArray

__all__ = ["SHORTEST", "WORDS_A_SECOND", "overlap", "sound_words"]

_RATE: Final = 5000
_FRAME: Final = 1856
_HOP: Final = 116
_BANDS: Final = 33
_LOWEST: Final = 300.0
_HIGHEST: Final = 2000.0
_QUIET: Final = 1e-3
_TRIES: Final = 24

SHORTEST: Final = 24
"""Over so few words nothing is said of two sounds."""
WORDS_A_SECOND: Final = _RATE / _HOP
"""Words of a fingerprint per second of sound, about 43."""


def sound_words(mono: NDArray[np.float32], rate: int) -> NDArray[np.uint32]:
    """The fingerprint.

    Args:
        mono: float32, (n,), in [-1, 1].
        rate: Samples a second.

    Returns:
        uint32, one word each 23 ms; 0 where it is quiet (more than 60 dB below the loudest frame). Empty for less
        than half a second.
    """
    slow = np.asarray(soxr.resample(mono, rate, _RATE, quality="MQ"), np.float32) if rate != _RATE else mono
    if len(slow) < _FRAME + _HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(slow, _FRAME)[::_HOP]
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1) * _FRAME / _RATE
    cuts = np.round(edges).astype(int)
    window = np.hanning(_FRAME).astype(np.float32)
    energies = np.empty((len(frames), _BANDS), np.float64)
    for start in range(0, len(frames), 256):
        power = np.abs(np.fft.rfft(frames[start : start + 256] * window, axis=1)) ** 2
        energies[start : start + 256] = np.add.reduceat(power, cuts[:-1], axis=1)[:, :_BANDS]
    change = np.diff(energies, axis=1)
    bits = np.diff(change, axis=0) > 0
    packed = np.packbits(bits, axis=1)
    words: NDArray[np.uint32] = np.ascontiguousarray(packed).view(">u4").reshape(-1).astype(np.uint32)
    loud = energies.sum(axis=1)
    words[loud[1:] < _QUIET**2 * max(float(loud.max()), 1e-12)] = 0
    return words


def overlap(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> tuple[float, int]:
    """How alike two fingerprints are where one is laid over the other best.

    Args:
        one: uint32, (n,), of :func:`sound_words`.
        other: uint32, (m,).

    Returns:
        The share of bits that differ, in [0, 1], about 0.5 for unrelated sounds, and over how many words it was
        counted. (1.0, 0) when no word of one is near to a word of the other.
    """
    best = (1.0, 0)
    if not len(one) or not len(other):
        return best
    step = max(1, len(one) // 256)
    apart = np.bitwise_count(one[::step, None] ^ other[None])
    apart[one[::step] == 0] = 32
    apart[:, other == 0] = 32
    left, right = np.nonzero(apart <= 4)
    shifts, counts = np.unique(right - left * step, return_counts=True)
    for shift in shifts[np.argsort(-counts)[:_TRIES]].tolist():
        a = one[max(0, -shift) : len(other) - shift]
        b = other[max(0, shift) : max(0, shift) + len(a)]
        a = a[: len(b)]
        told = (a != 0) & (b != 0)
        count = int(told.sum())
        if count >= SHORTEST:
            rate = float(np.bitwise_count(a[told] ^ b[told]).mean() / 32)
            if rate < best[0]:
                best = (rate, count)
    return best
