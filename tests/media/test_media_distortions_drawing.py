"""Spectrograms and contact sheets show what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gas.media.sheets import Panel, contact_sheet, film_strip, fit_into, overlay
from gas.media.spectrogram import mel_filters, plot_sound, power_spectrogram

RATE = 16000


def tone(frequency: float, seconds: float = 1.0, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(RATE * seconds)) / RATE)).astype(np.float32)


@pytest.mark.parametrize("frequency", [500.0, 1000.0, 4000.0])
def test_a_sine_is_one_row_of_the_spectrum_at_its_power(frequency: float) -> None:
    power = power_spectrogram(tone(frequency, amplitude=0.5), 512, 128)
    assert power.shape == (257, 1 + RATE // 128)
    middle = power[:, 60]
    assert int(middle.argmax()) == round(frequency * 512 / RATE)
    assert middle.max() == pytest.approx(0.25, rel=1e-3)
    assert np.delete(middle, range(int(middle.argmax()) - 2, int(middle.argmax()) + 3)).max() < 1e-5


def test_a_stretch_of_the_spectrum_is_the_windowed_fourier_transform_of_its_samples() -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    ours = power_spectrogram(sound, 256, 64)
    window = np.hanning(257)[:256]
    for column in (2, 10, 60):
        stretch = sound[64 * column - 128 : 64 * column + 128].astype(np.float64) * window
        assert np.allclose(ours[:, column], np.abs(np.fft.rfft(stretch) / 64) ** 2, atol=1e-12)


@given(bands=st.integers(2, 300), rate=st.sampled_from([8000, 16000, 44100]), window=st.sampled_from([256, 1024]))
@settings(max_examples=30, deadline=None)
def test_mel_bands_rise_in_frequency_and_average(bands: int, rate: int, window: int) -> None:
    filters = mel_filters(rate, window, bands)
    assert filters.shape == (bands, window // 2 + 1)
    assert (filters >= 0).all()
    assert np.allclose(filters.sum(axis=1), 1)
    centres = filters @ np.arange(window // 2 + 1)
    assert (np.diff(centres) > -1e-9).all()


def test_a_higher_tone_is_drawn_higher_and_a_quieter_one_darker() -> None:
    def bright_row(frequency: float) -> int:
        picture = plot_sound(tone(frequency), RATE)
        return int(picture[10:236, 300].astype(int).sum(axis=1).argmax())

    assert bright_row(4000) < bright_row(1000) < bright_row(250)
    loud, quiet = (plot_sound(tone(1000, amplitude=a), RATE)[10:200, 60:500].mean() for a in (1.0, 0.01))
    assert loud > quiet


@pytest.mark.parametrize("length", [1, 3, 100, 5000])
@pytest.mark.parametrize("rate", [1000, 8000, 384000])
def test_any_sound_can_be_drawn(length: int, rate: int) -> None:
    picture = plot_sound(np.zeros(length, np.float32), rate, 300, 220)
    assert picture.shape == (220, 300, 3)
    assert picture.dtype == np.uint8


def test_the_waveform_is_drawn_where_the_sound_is_loud() -> None:
    sound = np.concatenate([np.zeros(RATE, np.float32), tone(440)])
    picture = plot_sound(sound, RATE, 640, 360)
    wave = (picture[260:330] == (44, 96, 170)).all(axis=2).sum(axis=0)
    assert wave[330:560].mean() > 10 * max(1e-9, wave[60:290].mean()) / 2
    assert wave[330:560].min() > 20


def test_an_overlay_marks_the_mask_and_nothing_far_from_it() -> None:
    rgb = np.full((100, 100, 3), 128, np.uint8)
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1
    out = overlay(rgb, mask)
    assert np.array_equal(out[:30], rgb[:30])
    assert out[50, 50, 0] > 150 > out[50, 50, 1]
    with pytest.raises(ValueError, match="size"):
        overlay(rgb, mask[:50])


def test_pictures_shrink_to_fit_and_never_grow() -> None:
    assert fit_into(np.zeros((400, 800, 3), np.uint8), 200, 200).shape == (100, 200, 3)
    assert fit_into(np.zeros((40, 80, 3), np.uint8), 200, 200).shape == (40, 80, 3)
    assert fit_into(np.zeros((1, 5000, 3), np.uint8), 100, 100).shape == (1, 100, 3)


def test_a_film_strip_shows_the_first_and_the_last_frame() -> None:
    frames = [np.full((20, 30, 3), value, np.uint8) for value in range(0, 160, 10)]
    strip = film_strip(frames, 3, 40)
    assert strip.shape == (40, 3 * 60 + 2 * 3, 3)
    assert strip[0, 0, 0] == 0 and strip[0, -1, 0] == 150
    assert film_strip(frames[:1], 3, 40).shape == (40, 60, 3)


def test_a_sheet_holds_every_panel_as_it_is_and_its_caption_below() -> None:
    panels = [Panel(np.full((50, 80 + 10 * n, 3), 10 * n, np.uint8), f"panel {n} " * 6) for n in range(5)]
    sheet = contact_sheet(panels, 2, "a title")
    for n in range(5):
        found = (sheet == 10 * n).all(axis=2).sum()
        assert found >= 50 * (80 + 10 * n)
    below = sheet[-40:, :80]
    assert (below < 100).any()


def test_captions_that_cannot_be_wrapped_are_broken() -> None:
    sheet = contact_sheet([Panel(np.zeros((10, 12, 3), np.uint8), "x" * 200 + " " + "y" * 3)], 1)
    assert sheet.shape[1] == 12 + 2 * 14
    assert sheet.shape[0] > 500


def test_an_empty_sheet_is_refused() -> None:
    with pytest.raises(ValueError, match="panel"):
        contact_sheet([], 2)
