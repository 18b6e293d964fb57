"""Sound as a picture: short-time spectrum and waveform, with their axes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gas.media.image import RGB

__all__ = ["mel_filters", "plot_sound", "power_spectrogram"]

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FLOOR_DB: Final = -90.0
_INK, _PAPER, _GRID, _WAVE = (40, 40, 44), (255, 255, 255), (150, 150, 156), (44, 96, 170)
# Black, violet, red, orange, pale yellow: darkness grows evenly with quietness, also in print.
_COLOURS: Final = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ]
)


def power_spectrogram(sound: NDArray[np.float32], window: int, hop: int) -> NDArray[np.float64]:
    """Power of each frequency in each stretch of time.

    Periodic Hann window, its middle at every multiple of ``hop`` (zeros outside the sound), scaled so that a sine
    of amplitude 1 at the middle of a bin gives 1 there.

    Args:
        sound: float32 (n,).
        window: Samples a stretch, even.
        hop: Samples from one stretch to the next.

    Returns:
        float64 (window / 2 + 1, 1 + n // hop); row k is k * rate / window Hz.
    """
    padded = np.pad(sound.astype(np.float64), window // 2)
    stretches = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectrum = np.fft.rfft(stretches * shape, axis=1) / (shape.sum() / 2)
    return np.asarray(np.square(np.abs(spectrum)).T, dtype=np.float64)


def mel_filters(rate: int, window: int, bands: int) -> NDArray[np.float64]:
    """Triangles of equal width on the mel scale, mel = 2595 log10(1 + f/700) (O'Shaughnessy).

    Where bins are wider than a triangle, the band takes the value between its two neighbouring bins.

    Args:
        rate: Hz.
        window: Of the spectrum.
        bands: How many, from 0 Hz to half the rate.

    Returns:
        float64 (bands, window / 2 + 1), each row summing to 1, so that a band's value is a mean power.
    """
    edges = _from_mel(np.linspace(0, _to_mel(rate / 2), bands + 2))
    bins = np.arange(window // 2 + 1) * rate / window
    width = rate / window
    rows = []
    for low, middle, high in zip(edges[:-2], edges[1:-1], edges[2:], strict=True):
        up = (bins - min(low, middle - width)) / max(middle - low, width)
        down = (max(high, middle + width) - bins) / max(high - middle, width)
        row = np.clip(np.minimum(up, down), 0, None)
        rows.append(row / row.sum())
    return np.stack(rows)


def plot_sound(sound: NDArray[np.float32], rate: int, width: int = 640, height: int = 360) -> RGB:
    """Mel spectrogram in dB with axes (seconds, kHz), and the waveform below it on the same axis of time.

    Args:
        sound: float32 (n,), at least one sample, in [-1, 1].
        rate: Hz.
        width: Of the picture, pixels, at least 240.
        height: Of the picture, pixels, at least 200.

    Returns:
        uint8, (height, width, 3). Colours run from -90 dB below the full scale (black) to 0 dB (pale yellow).
    """
    left, right, top, gap, bottom = 52, 58, 8, 12, 34
    across = width - left - right
    wave_height = (height - top - gap - bottom) // 4
    down = height - top - gap - bottom - wave_height
    picture = Image.new("RGB", (width, height), _PAPER)
    picture.paste(Image.fromarray(_spectrum_pixels(sound, rate, across, down)), (left, top))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    _draw_frequencies(draw, font, rate, (left, top, across, down))
    _draw_scale(picture, draw, font, (left + across + 10, top, down))
    _draw_wave(draw, font, sound, (left, top + down + gap, across, wave_height))
    _draw_seconds(draw, font, len(sound) / rate, (left, top + down + gap + wave_height, across))
    return np.asarray(picture, dtype=np.uint8)


def _to_mel(frequency: float) -> float:
    return float(2595 * np.log10(1 + frequency / 700))


def _from_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1), dtype=np.float64)


def _spectrum_pixels(sound: NDArray[np.float32], rate: int, across: int, down: int) -> RGB:
    window = 1 << max(6, round(np.log2(rate * 0.032)))
    # At most about two stretches a column: a long sound is looked at in places, not whole.
    hop = max(window // 8, len(sound) // (2 * across))
    mel = mel_filters(rate, window, down) @ power_spectrogram(sound, window, hop)
    level = np.clip(10 * np.log10(mel + 1e-12) / -_FLOOR_DB + 1, 0, 1)[::-1]
    columns = np.minimum(np.arange(across) * level.shape[1] // across, level.shape[1] - 1)
    return _colour(level[:, columns])


def _colour(level: NDArray[np.float64]) -> RGB:
    steps = np.linspace(0, 1, len(_COLOURS))
    channels = [np.interp(level, steps, _COLOURS[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(channels, axis=-1)), dtype=np.uint8)


def _draw_frequencies(
    draw: ImageDraw.ImageDraw,
    font: _Font,
    rate: int,
    box: tuple[int, int, int, int],
) -> None:
    left, top, _, down = box
    last = float("inf")
    for frequency in (0, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000):
        y = top + down - 1 - round(_to_mel(frequency) / _to_mel(rate / 2) * (down - 1))
        if y < top or last - y < 14:
            continue
        last = y
        draw.line((left - 4, y, left - 1, y), fill=_INK)
        draw.text((left - 7, y), f"{frequency / 1000:g}", fill=_INK, font=font, anchor="rm")
    draw.text((4, top), "kHz", fill=_INK, font=font)


def _draw_scale(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: _Font,
    box: tuple[int, int, int],
) -> None:
    left, top, down = box
    ramp = np.repeat(np.linspace(1, 0, down)[:, None], 10, axis=1)
    picture.paste(Image.fromarray(_colour(ramp)), (left, top))
    for decibels in (0, -30, -60, -90):
        y = top + round(decibels / _FLOOR_DB * (down - 1))
        draw.text(
            (left + 13, min(max(y, top + 5), top + down - 5)),
            f"{decibels} dB" if not decibels else f"{decibels}",
            fill=_INK,
            font=font,
            anchor="lm",
        )


def _draw_wave(
    draw: ImageDraw.ImageDraw,
    font: _Font,
    sound: NDArray[np.float32],
    box: tuple[int, int, int, int],
) -> None:
    left, top, across, down = box
    middle, half = top + down / 2, (down - 1) / 2
    draw.rectangle((left, top, left + across - 1, top + down - 1), outline=_GRID)
    draw.line((left, middle, left + across - 1, middle), fill=_GRID)
    for column in range(across):
        first = column * len(sound) // across
        part = sound[first : max(first + 1, (column + 1) * len(sound) // across)]
        high, low = (middle - half * min(1.0, max(-1.0, float(value))) for value in (part.max(), part.min()))
        draw.line((left + column, high, left + column, low), fill=_WAVE)
    for value, y in ((1, top + 5), (0, middle), (-1, top + down - 5)):
        draw.text((left - 7, y), f"{value}", fill=_INK, font=font, anchor="rm")


def _draw_seconds(
    draw: ImageDraw.ImageDraw,
    font: _Font,
    seconds: float,
    box: tuple[int, int, int],
) -> None:
    left, top, across = box
    rough = seconds / max(2, across // 70)
    scale = 10 ** np.floor(np.log10(rough))
    step = float(scale * next(factor for factor in (1, 2, 5, 10) if factor * scale >= rough * (1 - 1e-9)))
    for index in range(int(seconds / step) + 1):
        x = left + round(index * step / seconds * (across - 1))
        draw.line((x, top, x, top + 3), fill=_INK)
        draw.text((x, top + 5), f"{index * step:g}", fill=_INK, font=font, anchor="ma")
    draw.text((left + across / 2, top + 19), "seconds", fill=_INK, font=font, anchor="ma")
