"""Distortions of sound that need no codec: level, noise, room.

All take and give float32 (n,), mono, nominally in [-1, 1]: as many samples, at the same places, clipped to [-1, 1].
Sums and Fourier transforms run in float64; the results agree between machines up to the last places of float32,
and noise is the same for one version of NumPy.
"""

from __future__ import annotations

import numpy as np

from gas.media.distortions.codecs import Sound, fit

__all__ = ["add_noise", "gain", "impulse_response", "reverberate"]


def gain(sound: Sound, decibels: float) -> Sound:
    """Louder or quieter by ``decibels``, clipped as a converter would."""
    return fit(sound * np.float32(10 ** (decibels / 20)), len(sound))


def add_noise(sound: Sound, snr_db: float, rng: np.random.Generator) -> Sound:
    """Add white normal noise at a ratio of mean powers of ``snr_db`` decibels; silence stays silence.

    Args:
        sound: float32 (n,).
        snr_db: 10 log10(power of the sound / power of the noise), before clipping; the noise that is drawn is
            scaled to it exactly.
        rng: Where the noise comes from.
    """
    noise = rng.standard_normal(len(sound), dtype=np.float32).astype(np.float64)
    wanted, drawn = float(np.square(sound, dtype=np.float64).sum()), float(np.square(noise).sum())
    if not wanted or not drawn:
        return fit(sound, len(sound))
    noise *= np.sqrt(wanted / drawn / 10 ** (snr_db / 10))
    return fit((sound + noise).astype(np.float32), len(sound))


def impulse_response(rate: int, rt60: float, wet: float, rng: np.random.Generator) -> Sound:
    """A synthetic room: the direct sound, then noise that decays exponentially (Polack's model).

    Args:
        rate: Hz.
        rt60: Seconds in which the reverberation falls by 60 dB.
        wet: Energy of the reverberation as a share of the whole, 0..1.
        rng: Draws the room.

    Returns:
        float32 (n,) of unit energy, ``rt60`` seconds long; the direct sound is its first sample.

    Raises:
        ValueError: A parameter is out of range.
    """
    if rate < 1 or rt60 <= 0 or not 0 <= wet < 1:
        raise ValueError("A room needs a positive reverberation time, and a share of at least 0 and below 1.")
    length = max(2, round(rate * rt60))
    # -60 dB in amplitude is a factor of 1000 at the end.
    tail = rng.standard_normal(length - 1) * 10 ** (-3 * np.arange(1, length) / (rate * rt60))
    tail *= np.sqrt(wet / np.square(tail).sum())
    return np.concatenate([[np.sqrt(1 - wet)], tail]).astype(np.float32)


def reverberate(sound: Sound, rate: int, rt60: float, wet: float, rng: np.random.Generator) -> Sound:
    """The sound in a synthetic room (:func:`impulse_response`), at the loudness (RMS) that it had.

    What rings after the end is cut off; the direct sound stays where it was.
    """
    if not len(sound):
        return sound.copy()
    room = impulse_response(rate, rt60, wet, rng)
    size = 1 << (len(sound) + len(room) - 2).bit_length()
    rung = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(room, size), size)[: len(sound)]
    before, after = float(np.square(sound, dtype=np.float64).sum()), float(np.square(rung).sum())
    if after:
        rung *= np.sqrt(before / after)
    return fit(rung.astype(np.float32), len(sound))
