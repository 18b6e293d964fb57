"""WAV without libsndfile: the plain kind of 16 bits, which most are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PlainWav", "plain_wav"]

_PCM: Final = 1
_UNITS: Final = np.float32(1 / 32768)


@dataclass(frozen=True, slots=True)
class PlainWav:
    """A WAV whose samples lie in the file as they are.

    Attributes:
        rate: Hz.
        samples: int16, (frames, channels): a view of the file.
    """

    rate: int
    samples: NDArray[np.int16]

    def mono(self, start: int, stop: int) -> NDArray[np.float32]:
        """The mean of the channels from one frame to before another: float32, (stop - start,), in [-1, 1)."""
        # A power of two: every 16-bit value is exact, and the same as libsndfile's.
        part = np.multiply(self.samples[start:stop], _UNITS, dtype=np.float32)
        total = part[:, 0]
        for channel in range(1, part.shape[1]):
            total = total + part[:, channel]
        if part.shape[1] > 1:
            total = total / np.float32(part.shape[1])
        return np.asarray(total, np.float32)


def plain_wav(data: bytes) -> PlainWav | None:
    """What a WAV holds that libsndfile is not needed for; None for others.

    That is one of 16-bit PCM with a list of words before its samples at most, nothing behind them, and sizes that
    agree with the file's. Every other file, and every file with an oddity, takes the slow way.
    """
    if len(data) < 44 or data[:4] != b"RIFF" or data[8:16] != b"WAVEfmt ":
        return None
    if struct.unpack_from("<I", data, 4)[0] != len(data) - 8:
        return None
    size, kind, channels, rate, _, block, bits = struct.unpack_from("<IHHIIHH", data, 16)
    if size != 16 or kind != _PCM or bits != 16 or channels < 1 or block != 2 * channels:
        return None
    at = 36
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"data":
            if length == 0 or length % block or at + length != len(data):
                return None
            return PlainWav(rate, np.frombuffer(data, "<i2", length // 2, at).reshape(-1, channels))
        if name != b"LIST" or length % 2:
            return None
        at += length
    return None
