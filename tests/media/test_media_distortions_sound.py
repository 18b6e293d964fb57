"""Each distortion of sound does what its name says, and leaves the sound in its place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gas.clock import derive_rng
from gas.media.distortions import codecs, sound
from gas.media.transforms import sharing_chain_audio

RATES = (8000, 16000, 44100)
CHANGES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "mp3": lambda samples, rate: codecs.mp3(samples, rate, 48),
    "opus": lambda samples, rate: codecs.opus(samples, rate, 24),
    "mulaw": lambda samples, rate: codecs.telephone(samples, rate, "mulaw"),
    "amr": lambda samples, rate: codecs.telephone(samples, rate, "amr"),
    "resample": lambda samples, rate: codecs.resample_round_trip(samples, rate, 11025),
    "gain": lambda samples, rate: sound.gain(samples, -6),
    "noise": lambda samples, rate: sound.add_noise(samples, 20, derive_rng(1)),
    "reverberation": lambda samples, rate: sound.reverberate(samples, rate, 0.4, 0.3, derive_rng(1)),
    "sharing chain": sharing_chain_audio,
}


def voice(rate: int, seconds: float = 1.5, peak: float = 0.5) -> np.ndarray:
    """Harmonics of a gliding tone in syllables, and a hiss: a voice as codecs expect one."""
    rng = derive_rng(3, "voice")
    count = int(rate * seconds)
    time = np.arange(count) / rate
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.7 * time)) / rate
    tones = sum(np.sin(k * phase) / k for k in range(1, 1 + int(min(rate / 2, 6000) // 170)))
    syllables = np.interp(time, np.linspace(0, seconds, 14), rng.uniform(0.05, 1, 14))
    out = tones * syllables + 0.05 * rng.standard_normal(count)
    return (peak * out / np.abs(out).max()).astype(np.float32)


def delay(before: np.ndarray, after: np.ndarray) -> int:
    """Samples by which the second comes later, where their cross-correlation is largest."""
    size = 1 << (2 * len(before)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)), size)
    best = int(np.argmax(cross))
    return best if best < size // 2 else best - size


def band_power(samples: np.ndarray, rate: int, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    return float(power[(frequencies >= low) & (frequencies < high)].sum())


def decibels(ratio: float) -> float:
    return float(10 * np.log10(ratio + 1e-30))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", CHANGES)
def test_every_distortion_keeps_length_range_and_place(name: str, rate: int) -> None:
    before = voice(rate)
    after = CHANGES[name](before, rate)
    assert after.dtype == np.float32
    assert after.shape == before.shape
    assert np.abs(after).max() <= 1
    assert abs(delay(before, after)) <= rate / 4000
    assert not np.array_equal(before, after)
    assert np.array_equal(after, CHANGES[name](before, rate))


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("length", [1, 7, 500])
def test_short_sounds_and_silence_pass(name: str, length: int) -> None:
    for value in (0.0, 0.9):
        out = CHANGES[name](np.full(length, value, np.float32), 16000)
        assert out.shape == (length,)
        assert np.isfinite(out).all() and np.abs(out).max() <= 1


@pytest.mark.parametrize("name", CHANGES)
def test_an_overloaded_sound_stays_in_range(name: str) -> None:
    loud = np.clip(voice(16000, 0.5, peak=3.0), -1, 1)
    assert np.abs(CHANGES[name](loud, 16000)).max() <= 1


@pytest.mark.parametrize("name", ["mp3", "opus", "mulaw", "amr"])
def test_codecs_keep_the_last_moment(name: str) -> None:
    before = voice(16000)
    after = CHANGES[name](before, 16000)
    energies = [float(np.square(samples[-320:], dtype=np.float64).sum()) for samples in (before, after)]
    assert energies[1] > 0.15 * energies[0]


def test_mp3_cuts_the_highest_tones_and_loses_more_at_fewer_bits() -> None:
    before = (0.2 * derive_rng(2).standard_normal(44100 * 2)).clip(-1, 1).astype(np.float32)
    losses = []
    for kbps in (128, 64, 32):
        after = codecs.mp3(before, 44100, kbps)
        losses.append(float(np.abs(after - before).mean()))
    assert losses == sorted(losses)
    kept = [band_power(samples, 44100, 17000, 22050) for samples in (before, codecs.mp3(before, 44100, 64))]
    assert decibels(kept[1] / kept[0]) < -30
    kept = [band_power(samples, 44100, 200, 8000) for samples in (before, codecs.mp3(before, 44100, 64))]
    assert abs(decibels(kept[1] / kept[0])) < 3


def test_opus_follows_the_voice_and_at_few_bits_drops_what_lies_above_it() -> None:
    before = voice(48000, 2)
    good, poor = codecs.opus(before, 48000, 64), codecs.opus(before, 48000, 8)
    match = [float(np.corrcoef(before, after)[0, 1]) for after in (good, poor)]
    assert match[0] > 0.97 and match[0] > match[1] > 0.7
    top = [band_power(samples, 48000, 9000, 24000) for samples in (before, poor)]
    assert decibels(top[1] / top[0]) < -15


@pytest.mark.parametrize("codec", ["mulaw", "amr"])
def test_a_telephone_passes_300_to_3400_hz_and_little_else(codec: str) -> None:
    before = voice(16000, 3) + (0.02 * derive_rng(4).standard_normal(48000)).astype(np.float32)
    after = codecs.telephone(before, 16000, codec)  # type: ignore[arg-type]

    def change(low: float, high: float) -> float:
        return decibels(band_power(after, 16000, low, high) / band_power(before, 16000, low, high))

    assert abs(change(400, 1200)) < 3
    assert change(1200, 3200) > -8
    assert change(0, 180) < -15
    assert change(3700, 8000) < -20


def test_mulaw_has_the_levels_of_8_bits_and_amr_is_not_mulaw() -> None:
    before = voice(8000)
    mulaw, amr = (codecs.telephone(before, 8000, codec) for codec in ("mulaw", "amr"))  # type: ignore[arg-type]
    assert 100 < len(np.unique(mulaw)) <= 255
    assert np.corrcoef(mulaw, amr)[0, 1] > 0.6
    assert np.abs(mulaw - amr).mean() > 0.005
    with pytest.raises(ValueError, match="codec"):
        codecs.telephone(before, 8000, "gsm")  # type: ignore[arg-type]


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_has_the_ratio_it_says_and_no_colour(snr: float) -> None:
    before = voice(16000, peak=0.2)
    noise = sound.add_noise(before, snr, derive_rng(5)).astype(np.float64) - before
    assert decibels(np.square(before, dtype=np.float64).sum() / np.square(noise).sum()) == pytest.approx(snr, abs=0.05)
    halves = [band_power(noise, 16000, 0, 4000), band_power(noise, 16000, 4000, 8000)]
    assert abs(decibels(halves[0] / halves[1])) < 0.5
    assert not sound.add_noise(np.zeros(100, np.float32), snr, derive_rng(5)).any()


def test_a_room_decays_by_60_db_in_its_time() -> None:
    room = sound.impulse_response(16000, 0.5, 0.4, derive_rng(6))
    assert np.square(room, dtype=np.float64).sum() == pytest.approx(1, abs=1e-4)
    assert room[0] == pytest.approx(np.sqrt(0.6), abs=1e-4)
    # Schroeder's backward integration; the slope between -5 and -25 dB, extended to -60.
    left = np.cumsum(np.square(room[1:], dtype=np.float64)[::-1])[::-1]
    curve = 10 * np.log10(left / left[0])
    seconds = [float(np.argmax(curve < level)) / 16000 for level in (-5, -25)]
    assert 3 * (seconds[1] - seconds[0]) == pytest.approx(0.5, rel=0.1)


def test_reverberation_rings_on_after_a_click_and_not_before_it() -> None:
    click = np.zeros(16000, np.float32)
    click[4000] = 0.5
    out = sound.reverberate(click, 16000, 0.3, 0.5, derive_rng(7))
    assert np.abs(out[:4000]).max() < 1e-4
    assert int(np.argmax(np.abs(out))) == 4000
    early, late = (np.square(out[a:b], dtype=np.float64).sum() for a, b in ((4001, 5000), (7000, 8000)))
    assert early > 100 * late > 0
    before = voice(16000)
    after = sound.reverberate(before, 16000, 0.3, 0.5, derive_rng(7))
    assert np.std(after) == pytest.approx(np.std(before), rel=0.02)
    with pytest.raises(ValueError, match="positive"):
        sound.impulse_response(16000, 0, 0.5, derive_rng(7))


def test_gain_is_in_decibels_and_clips() -> None:
    before = voice(16000, peak=0.4)
    assert np.allclose(sound.gain(before, -20), before / 10, atol=1e-6)
    assert np.abs(sound.gain(before, 40)).max() == 1


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    before = (0.2 * derive_rng(8).standard_normal(32000)).clip(-1, 1).astype(np.float32)
    after = codecs.resample_round_trip(before, 16000, 8000)
    above = [band_power(samples, 16000, 4300, 8000) for samples in (before, after)]
    below = [band_power(samples, 16000, 0, 3500) for samples in (before, after)]
    assert decibels(above[1] / above[0]) < -50
    assert abs(decibels(below[1] / below[0])) < 0.1
    higher = codecs.resample_round_trip(before, 16000, 24000)
    assert np.corrcoef(before, higher)[0, 1] > 0.95
