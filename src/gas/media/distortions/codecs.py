"""Sound through real codecs and back, in memory: MP3, Opus, and a telephone line.

All take and give float32 (n,), mono, nominally in [-1, 1]: as many samples, at the same places (the codecs' delays
are taken out), clipped to [-1, 1]. The same input gives the same output for one build of FFmpeg, LAME, libopus,
OpenCORE and soxr; their floating-point code may differ in the last places between kinds of processors.
"""

from __future__ import annotations

import io
from typing import Final, Literal, cast

import av
import numpy as np
import soxr  # type: ignore[import-untyped]
from av.audio.stream import AudioStream
from numpy.typing import NDArray

__all__ = ["MP3_RATES", "TELEPHONE_BAND", "Sound", "fit", "mp3", "opus", "resample", "resample_round_trip", "telephone"]

Sound = NDArray[np.float32]
"""Mono sound: float32 (n,), nominally in [-1, 1]."""

MP3_RATES: Final = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates that MP3 knows, Hz."""

TELEPHONE_BAND: Final = (300.0, 3400.0)
"""Pass band of a telephone line, Hz (ITU-T G.712)."""

_OPUS_RATE: Final = 48_000
_LINE_RATE: Final = 8000
# Encoder look-ahead that FFmpeg's decoder leaves in: 5 ms of AMR-NB (3GPP TS 26.090, section 4.4).
_AMR_DELAY: Final = 40
_AMR_FRAME: Final = 160
_SLOPE: Final = 100.0


def fit(sound: Sound, length: int) -> Sound:
    """Cut the end or put zeros there, so that ``length`` samples remain, and clip to [-1, 1]."""
    out = np.zeros(length, np.float32)
    cut = sound[:length]
    out[: len(cut)] = np.clip(cut, -1, 1)
    return out


def resample(sound: Sound, rate: int, target_rate: int) -> Sound:
    """Another sample rate (soxr, high quality), without delay; rates in Hz."""
    if rate == target_rate:
        return sound
    return np.asarray(soxr.resample(sound, rate, target_rate, quality="HQ"), dtype=np.float32)


def resample_round_trip(sound: Sound, rate: int, via_rate: int) -> Sound:
    """To another sample rate and back: below ``rate`` it removes what lies above ``via_rate / 2``; rates in Hz."""
    return fit(resample(resample(sound, rate, via_rate), via_rate, rate), len(sound))


def mp3(sound: Sound, rate: int, kbps: int) -> Sound:
    """Through MP3 (LAME, constant bit rate, mono) and back.

    Args:
        sound: float32 (n,).
        rate: Hz; where MP3 does not know it, the next higher one that it knows is used on the way.
        kbps: Kilobit a second; the encoder takes the nearest that MP3 knows at this sample rate.
    """
    via = next((known for known in MP3_RATES if known >= rate), MP3_RATES[-1])
    coded = _through(resample(sound, rate, via), via, "libmp3lame", "mp3", kbps * 1000)
    return fit(resample(coded, via, rate), len(sound))


def opus(sound: Sound, rate: int, kbps: int) -> Sound:
    """Through Opus (libopus, mono, 48 kHz, which is what it decodes to) and back.

    Args:
        sound: float32 (n,).
        rate: Hz.
        kbps: Kilobit a second, 6..256; messengers send speech with 16 to 32.
    """
    coded = _through(resample(sound, rate, _OPUS_RATE), _OPUS_RATE, "libopus", "ogg", kbps * 1000)
    return fit(resample(coded, _OPUS_RATE, rate), len(sound))


def telephone(sound: Sound, rate: int, codec: Literal["mulaw", "amr"] = "mulaw") -> Sound:
    """Through a telephone line: 300-3400 Hz, 8 kHz, and the codec of a land line or of a mobile.

    Args:
        sound: float32 (n,).
        rate: Hz.
        codec: ``mulaw`` (ITU-T G.711) or ``amr`` (AMR-NB, 12.2 kbit/s).

    Raises:
        ValueError: Another codec.
    """
    if codec not in ("mulaw", "amr"):
        raise ValueError(f"There is no telephone codec {codec!r} here.")
    line = _band_pass(resample(sound, rate, _LINE_RATE), _LINE_RATE, *TELEPHONE_BAND)
    if codec == "mulaw":
        line = _through(line, _LINE_RATE, "pcm_mulaw", "wav", None)
    else:
        padded = np.pad(line, (0, _AMR_FRAME + _AMR_DELAY))
        line = _through(padded, _LINE_RATE, "libopencore_amrnb", "amr", 12_200)[_AMR_DELAY:]
    return fit(resample(line, _LINE_RATE, rate), len(sound))


def _band_pass(sound: Sound, rate: int, low: float, high: float) -> Sound:
    """Zero-phase band pass; raised-cosine slopes of 100 Hz centred on the edges."""
    if not len(sound):
        return sound
    frequencies = np.fft.rfftfreq(len(sound), 1 / rate)
    rise = np.clip((frequencies - low) / _SLOPE + 0.5, 0, 1)
    fall = np.clip((high - frequencies) / _SLOPE + 0.5, 0, 1)
    gain = (0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * fall))
    return np.fft.irfft(np.fft.rfft(sound) * gain, len(sound)).astype(np.float32)


def _through(sound: Sound, rate: int, codec: str, container_format: str, bit_rate: int | None) -> Sound:
    """Encode into a file in memory and decode it; the container carries MP3's and Opus's delay, so both are exact."""
    if not len(sound):
        return sound
    sink = io.BytesIO()
    with av.open(sink, mode="w", format=container_format) as container:
        stream = cast(AudioStream, container.add_stream(codec, rate=rate))
        stream.codec_context.layout = "mono"
        if bit_rate is not None:
            stream.codec_context.bit_rate = bit_rate
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=rate)
        frame = av.AudioFrame.from_ndarray(np.clip(sound, -1, 1)[None, :], format="flt", layout="mono")
        frame.sample_rate = rate
        frame.pts = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    sink.seek(0)
    parts = []
    with av.open(sink, mode="r", format=container_format) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for decoded in container.decode(audio=0):
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(decoded)]
        parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
