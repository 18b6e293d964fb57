"""Charts of one run: detection error trade-off, score histograms, rates with their intervals.

Pure functions from figures to inline SVG, in the style of :mod:`gas.bench.report.charts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import NormalDist
from typing import Final

from gas.bench.report.charts import dash_of, series_class, title_of

__all__ = ["det_chart", "histogram_chart", "rate_chart", "wilson_interval"]

_LEFT, _TOP, _SIDE, _RIGHT, _BOTTOM = 58, 14, 320, 16, 50
_RATES: Final = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_LOWEST, _HIGHEST = _RATES[0], _RATES[-1]
_FIRST, _LAST = 1e-6, 1 - 1e-6
_DEVIATE: Final = NormalDist().inv_cdf
_Z95: Final = 1.959963984540054


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), in [0, 1].

    Args:
        correct: Successes.
        count: Trials, at least 1.
    """
    p, z2 = correct / count, _Z95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def det_chart(points: Sequence[tuple[float, float]]) -> str:
    """Misses against false alarms on axes of normal deviates, from 0.1 % to 80 %; better curves lie lower left.

    Args:
        points: (false positive rate, true positive rate) of a ROC.
    """
    body = []
    for tick in _RATES:
        at = _place(tick)
        x, y, label = round(_LEFT + at, 1), round(_TOP + _SIDE - at, 1), f"{100 * tick:g} %"
        body.append(f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{_TOP + _SIDE}"/>')
        body.append(f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{_LEFT + _SIDE}" y2="{y}"/>')
        body.append(f'<text class="tick" x="{x}" y="{_TOP + _SIDE + 17}" text-anchor="middle">{label}</text>')
        body.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>')
    middle = _TOP + _SIDE / 2
    body.append(
        f'<text class="axis" x="{_LEFT + _SIDE / 2}" y="{_TOP + _SIDE + 40}" text-anchor="middle">'
        "False alarms: real called fake</text>"
        f'<text class="axis" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        "Misses: fake called real</text>"
    )
    path = " ".join(f"{round(_place(fpr), 1)},{round(_SIDE - _place(1 - tpr), 1)}" for fpr, tpr in points)
    # A drawing of its own cuts off what lies outside the axes; drawn along their edge it would look like a curve.
    body.append(
        f'<svg x="{_LEFT}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" overflow="hidden">'
        f'<polyline class="line {series_class(0)}" points="{path}"/></svg>'
    )
    return _svg("Detection error trade-off", _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM, body)


def histogram_chart(groups: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Shares of answers by p_fake, one stepped line a group, each summing to 1.

    Args:
        groups: Name and counts in bins of equal width over [0, 1]; the same number of bins, at least 1.
    """
    shares = [(name, [count / (sum(counts) or 1) for count in counts]) for name, counts in groups]
    most = max((value for _, values in shares for value in values), default=1.0)
    top = next((step for step in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8) if step >= most), 1.0)
    bins = max((len(values) for _, values in shares), default=1)
    width, height = 394, 384
    left, right, up, down = 52, 14, 14, 50
    across, tall = width - left - right, height - up - down
    body = []
    for k in range(5):
        y = round(up + tall * (1 - k / 4), 1)
        body.append(f'<line class="grid" x1="{left}" y1="{y}" x2="{width - right}" y2="{y}"/>')
        body.append(f'<text class="tick" x="{left - 6}" y="{y + 4}" text-anchor="end">{100 * top * k / 4:.0f} %</text>')
    for k in range(6):
        x = round(left + across * k / 5, 1)
        body.append(f'<text class="tick" x="{x}" y="{up + tall + 16}" text-anchor="middle">{k / 5:g}</text>')
    body.append(f'<text class="axis" x="{left + across / 2}" y="{height - 8}" text-anchor="middle">p_fake</text>')
    for number, (name, values) in enumerate(shares):
        path = []
        for k, value in enumerate(values):
            y = round(up + tall * (1 - value / top), 1)
            path += [f"{round(left + across * (k + end) / bins, 1)},{y}" for end in (0, 1)]
        body.append(
            f'<polyline class="line {series_class(number)}" points="{" ".join(path)}"{dash_of(number)}>'
            f"{title_of(name)}</polyline>"
        )
    return _svg("Answers by class", width, height, body)


def rate_chart(rows: Sequence[tuple[str, int, int, int]]) -> str:
    """Share of right answers a row, as a bar with its 95 % interval.

    Args:
        rows: Name, right answers, answers (at least 1), and number of the series.
    """
    left, width, row, right = 250, 760, 26, 96
    span, height = width - left - right, row * len(rows) + 34
    bottom = row * len(rows) + 4
    body = []
    for k in range(6):
        x = round(left + span * k / 5, 1)
        body.append(f'<line class="grid" x1="{x}" y1="2" x2="{x}" y2="{bottom}"/>')
        body.append(f'<text class="tick" x="{x}" y="{bottom + 17}" text-anchor="middle">{20 * k} %</text>')
    for number, (name, correct, count, series) in enumerate(rows):
        y, share = 4 + row * number, correct / count
        low, high = wilson_interval(correct, count)
        note = title_of(f"{name}: {correct:,} of {count:,}, 95 % between {low:.1%} and {high:.1%}")
        shown = name if len(name) <= 34 else f"{name[:33]}…"
        middle = y + row / 2 - 2
        body.append(f'<text class="tick" x="{left - 8}" y="{middle + 4}" text-anchor="end">{escape(shown)}</text>')
        body.append(
            f'<rect class="dot {series_class(series)}" x="{left}" y="{y + 4}" width="{span * share:.1f}" '
            f'height="{row - 12}" opacity="0.75">{note}</rect>'
        )
        x1, x2 = round(left + span * low, 1), round(left + span * high, 1)
        body.append(
            f'<path d="M{x1} {middle - 5}V{middle + 5}M{x1} {middle}H{x2}M{x2} {middle - 5}V{middle + 5}" '
            f'fill="none" stroke="currentColor" stroke-width="1.4">{note}</path>'
        )
        body.append(
            f'<text class="tick" x="{width - right + 10}" y="{middle + 4}">{100 * share:.1f} % of {count:,}</text>'
        )
    return _svg("Right answers by source", width, height, body)


def _place(rate: float) -> float:
    low, high = _DEVIATE(_LOWEST), _DEVIATE(_HIGHEST)
    return _SIDE * (_DEVIATE(min(_LAST, max(_FIRST, rate))) - low) / (high - low)


def _svg(label: str, width: float, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )
