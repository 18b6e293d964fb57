"""One history for all sounds of a round, so that nothing beside the sound tells its label.

Real recordings come at every rate, band, length, level and codec; synthetic speech at one rate, full scale, with
silence of exact zeros. Every sound of a round, real or fake, goes through the same steps, with parameters from the
same distributions:

1. The project's one decode to mono; the centre of the length asked for. Shorter ones are refused: zeros at an end, or
   a repetition, would tell.
2. The band is limited to a width drawn evenly from 0.85 to 0.95 of what the poorest source has (a telephone recording
   of 8 kHz holds 4 kHz, so that is the default), and begins at 160 to 200 Hz: telephones and many recorders cut off
   what lies below, synthesis leaves a rumble there that no listener hears. The rate becomes 16 kHz: all have the same
   empty bands above and below, and no resampler's traces of their own.
3. The mean is taken off (recorders have an offset, synthesis has none), and the gain is set so that the effective value
   lies at a level drawn evenly from -28 to -22 dB of full scale, unless the peak would pass -1 dB: then it is the peak
   that lies there. A gain changes nothing that a listener would call the sound's meaning, and without it speech
   synthesis is told by its habit of filling the scale. It is one number for the whole sound: nothing is compressed,
   gated or made equally loud from one moment to the next. Nothing is amplified more than a hundredfold, and a sound
   without anything in it is refused.
4. One MP3 round trip (LAME, constant bit rate) at one of five bit rates, so that every sound's last lossy coder is
   the same.
5. Dither of one step (triangular), so that digital silence is nobody's habit, and 16-bit PCM in a plain WAV.

As for pictures the draws depend on the round's seed and the medium's origin, and a caller that knows the whole set
deals the bit rates out by ``rank``. The price: what lies outside of the band is lost to every detector alike.
"""

from __future__ import annotations

import io
import wave
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.clock import derive_rng
from gas.errors import MediaRejected
from gas.media.audio import decode_audio
from gas.media.distortions.codecs import mp3, resample
from gas.media.limits import DEFAULT_LIMITS, MediaLimits

__all__ = ["AUDIO_NORMALISATION", "CLIP_SECONDS", "MIN_SOURCE_RATE", "SOUND_RATE", "normalise_audio"]

SOUND_RATE: Final = 16_000
"""Sample rate of every normalised sound, Hz."""

MIN_SOURCE_RATE: Final = 8_000
"""Sounds with a lower rate are refused; Hz."""

CLIP_SECONDS: Final = 2.0
"""Length of a normalised sound where nothing else is asked for."""

_BAND: Final = (0.85, 0.95)
_LOW: Final = (160.0, 200.0)
_RISE: Final = 60.0
_LEVEL: Final = (-28.0, -22.0)
_PEAK: Final = -1.0
_MOST_GAIN: Final = 100.0
_KBPS: Final = (32, 40, 48, 56, 64)
_STEP: Final = 1 / 32768

AUDIO_NORMALISATION: Final = "mono centre band(160-200Hz, .85-.95) 16kHz level(-28--22dB) mp3(32-64) dither pcm16"
"""Name of the steps for a round's parameters; changes whenever they do."""


def normalise_audio(
    data_or_sound: bytes | tuple[NDArray[np.float32], int],
    *,
    seed: int,
    origin: str,
    seconds: float = CLIP_SECONDS,
    poorest_rate: int = MIN_SOURCE_RATE,
    rank: int | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> bytes:
    """The sound as it enters a round.

    Args:
        data_or_sound: An encoded sound from anywhere, or float32 samples (n,) with their rate in Hz.
        seed: Of the round.
        origin: Hex SHA-256 of the medium that this one derives from, or of the medium itself.
        seconds: Length of the result.
        poorest_rate: Lowest sample rate among the round's sources, 8,000 to 16,000 Hz; the band of all is cut to it.
        rank: As for :func:`~gas.datasets.normalise.normalise_image`; decides the bit rate.
        limits: What the decoding may cost.

    Returns:
        A WAV, mono, 16 bit, 16 kHz, of exactly the length asked for; the same arguments give the same bytes for one
        build of LAME and soxr.

    Raises:
        MediaRejected: Not decodable, ``too_short``, ``low_rate`` (below ``poorest_rate``), or ``silent``.
        ValueError: ``poorest_rate`` out of range, or no length.
    """
    if not MIN_SOURCE_RATE <= poorest_rate <= SOUND_RATE or seconds <= 0:
        raise ValueError("The poorest rate lies between 8,000 and 16,000 Hz, and a sound has a length.")
    sound, rate = decode_audio(data_or_sound, limits) if isinstance(data_or_sound, bytes) else data_or_sound
    if rate < poorest_rate:
        raise MediaRejected(f"The sound has {rate:,} Hz; a round needs at least {poorest_rate:,} Hz.", code="low_rate")
    wanted = round(seconds * rate)
    if len(sound) < wanted:
        raise MediaRejected(
            f"The sound is {len(sound) / rate:.1f} seconds long; a round needs {seconds:g}.", code="too_short"
        )
    rng = derive_rng(seed, "normalise", origin)
    width = poorest_rate / 2 * float(rng.uniform(*_BAND))
    level = float(rng.uniform(*_LEVEL))
    drawn = int(rng.integers(len(_KBPS)))
    dither = (rng.random(round(seconds * SOUND_RATE)) - rng.random(round(seconds * SOUND_RATE))) * _STEP
    low = float(rng.uniform(*_LOW))
    if rank is not None:
        drawn = int(derive_rng(seed, "encodings", "audio").permutation(len(_KBPS))[rank % len(_KBPS)])

    start = (len(sound) - wanted) // 2
    cut = _sized(resample(sound[start : start + wanted], rate, SOUND_RATE), len(dither))
    coded = mp3(_levelled(_within(cut, low, width), level), SOUND_RATE, _KBPS[drawn])
    steps = np.round((coded.astype(np.float64) + dither) / _STEP)
    return _wav(np.clip(steps, -32768, 32767).astype("<i2"))


def _sized(sound: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Cut, or put zeros at the end: the rounding of a resampling is a sample at most."""
    return np.pad(sound[:length], (0, max(0, length - len(sound))))


def _within(sound: NDArray[np.float32], low: float, width: float) -> NDArray[np.float64]:
    """What lies from ``low`` to ``width`` Hz; a raised-cosine slope of 60 Hz leads up to it, one of 200 Hz down."""
    frequencies = np.fft.rfftfreq(len(sound), 1 / SOUND_RATE)
    rise = np.clip((frequencies - low + _RISE) / _RISE, 0, 1)
    fall = np.clip((width - frequencies) / 200, 0, 1)
    kept = (0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * fall))
    return np.fft.irfft(np.fft.rfft(sound.astype(np.float64)) * kept, len(sound))


def _levelled(sound: NDArray[np.float64], level: float) -> NDArray[np.float32]:
    sound = sound - sound.mean()
    effective, peak = float(np.sqrt(np.mean(sound**2))), float(np.abs(sound).max())
    if effective < _STEP:
        raise MediaRejected("There is nothing to hear in the sound.", code="silent")
    gain = min(10 ** (level / 20) / effective, 10 ** (_PEAK / 20) / peak, _MOST_GAIN)
    return (sound * gain).astype(np.float32)


def _wav(samples: NDArray[np.int16]) -> bytes:
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE)
        file.writeframes(samples.tobytes())
    return sink.getvalue()
