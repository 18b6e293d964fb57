"""Plots for any page: lines over steps, bars over bins, and the bare page around them.

The same style sheet and series as the benchmark's report; pure functions from figures to text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources

from gas.bench.report.charts import dash_of, series_class, swatch, title_of

__all__ = ["bar_chart", "legend", "line_chart", "page"]

_WIDTH, _HEIGHT = 460, 260
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 12, 14, 46


def line_chart(
    lines: Sequence[tuple[str, int, Sequence[float]]], x_label: str, y_label: str, *, first: float = 0
) -> str:
    """Lines over equal steps, the ordinate from 0 to the largest value.

    Args:
        lines: Name, number of the series (its colour), and one finite value a step; all of one length, at least 1.
        x_label: Of the abscissa.
        y_label: Of the ordinate.
        first: Value of the abscissa at the first step; each step adds 1.

    Returns:
        An inline SVG.
    """
    steps = max(len(values) for _, _, values in lines)
    top = _nice(max((max(values) for _, _, values in lines), default=1.0))
    span = max(steps - 1, 1)
    ticks = [_x_tick(_at(tick - first, span), f"{tick:g}") for tick in _ticks(first, first + span)]
    body = [_frame(x_label, y_label, top), *ticks]
    for name, number, values in lines:
        points = " ".join(f"{_at(step, span)},{_up(value, top)}" for step, value in enumerate(values))
        body.append(
            f'<polyline class="line {series_class(number)}" points="{points}"{dash_of(number)}>'
            f"{title_of(name)}</polyline>"
        )
    return _svg(f"{y_label} by {x_label}", body)


def bar_chart(bars: Sequence[tuple[str, float]], x_label: str, y_label: str, *, series: int = 0) -> str:
    """One bar a bin.

    Args:
        bars: Label and value, not negative; at least one.
        x_label: Of the abscissa.
        y_label: Of the ordinate.
        series: Colour.

    Returns:
        An inline SVG.
    """
    top = _nice(max(value for _, value in bars))
    body = [_frame(x_label, y_label, top)]
    width = (_WIDTH - _LEFT - _RIGHT) / len(bars)
    every = math.ceil(len(bars) / 8)
    for k, (label, value) in enumerate(bars):
        left, y = _LEFT + k * width, _up(value, top)
        body.append(
            f'<rect class="dot {series_class(series)}" x="{left + 1:.1f}" y="{y}" width="{max(width - 2, 1):.1f}" '
            f'height="{_up(0, top) - y:.1f}">{title_of(f"{label}: {value:,.6g}")}</rect>'
        )
        if k % every == 0:
            body.append(_x_tick(left + width / 2, label))
    return _svg(f"{y_label} by {x_label}", body)


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Names beside the piece of line that stands for their series."""
    rows = "".join(f"<li>{swatch(number)}<span>{escape(name)}</span></li>" for name, number in names)
    return f'<ul class="legend">{rows}</ul>'


def page(title: str, subtitle: str, body: str) -> str:
    """One self-contained page in the style of the reports: no script, no request, light and dark.

    Args:
        title: Text.
        subtitle: Text.
        body: HTML; what is not ours in it must be escaped already.
    """
    style = resources.files("gas.bench.report").joinpath("style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p></header>\n{body}\n'
        "</main>\n</body>\n</html>\n"
    )


def _svg(label: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _frame(x_label: str, y_label: str, top: float) -> str:
    parts = []
    for tick in _ticks(0, top):
        y = _up(tick, top)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:,.6g}</text>')
    middle_x, middle_y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="axis" x="{middle_x}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text class="axis" x="13" y="{middle_y}" text-anchor="middle" transform="rotate(-90 13 {middle_y})">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _x_tick(x: float, label: str) -> str:
    y = _HEIGHT - _BOTTOM + 16
    return f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(label)}</text>'


def _at(step: float, steps: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * step / steps, 1)


def _up(value: float, top: float) -> float:
    share = min(1.0, max(0.0, value / top))
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)


def _nice(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5, 8 or 10 times a power of ten that is not below ``value``."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 4, 5, 8, 10) if step * power >= value * (1 - 1e-9))


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from ``low`` to ``high``."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    start = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(start, math.floor(high / step + 1e-9) + 1)]
