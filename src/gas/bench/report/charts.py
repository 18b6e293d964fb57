"""Charts as inline SVG: pure functions from figures to text, without a library.

Colours and fonts come from the page's style sheet (classes ``s1`` to ``s8`` for series), so that one drawing serves
light and dark. Series differ in dash and marker too, never in colour alone. Texts that are not ours are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gas.bench.report.data import CalibrationBin

__all__ = [
    "SERIES",
    "ScoreLine",
    "calibration_chart",
    "dash_of",
    "roc_chart",
    "score_chart",
    "series_class",
    "swatch",
    "title_of",
]

SERIES = 8
"""Number of distinct series styles; further series start again from the first."""

_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "5 2", "1 4", "8 2 2 2 2 2")
_LEFT, _TOP, _SIDE, _RIGHT, _BOTTOM = 58, 14, 320, 16, 50
_TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One line of the score chart; scores in [0, 1], None where there is none."""

    name: str
    score: float | None
    base: float | None
    robust: float | None
    ci95: tuple[float, float] | None


def roc_chart(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """ROC curves in one square: ``curves`` are (name, points (fpr, tpr)), in the order of the series."""
    body = [_unit_frame("False positive rate: real called fake", "True positive rate: fake caught")]
    body.append(f'<line class="chance" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    for number, (name, points) in enumerate(curves):
        path = " ".join(f"{_x(fpr)},{_y(tpr)}" for fpr, tpr in points)
        body.append(
            f'<polyline class="line {series_class(number)}" points="{path}"{dash_of(number)}>'
            f"{title_of(name)}</polyline>"
        )
    return _unit_svg("ROC curves", body)


def calibration_chart(curves: Sequence[tuple[str, Sequence[CalibrationBin]]]) -> str:
    """Reliability curves in one square; a marker's area grows with the bin's share of the samples."""
    body = [_unit_frame("Predicted probability of fake", "Observed share of fakes")]
    body.append(f'<line class="chance" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    for number, (name, bins) in enumerate(curves):
        path = " ".join(f"{_x(b.predicted)},{_y(b.observed)}" for b in bins)
        body.append(
            f'<polyline class="line {series_class(number)}" points="{path}"{dash_of(number)}>'
            f"{title_of(name)}</polyline>"
        )
        total = sum(b.count for b in bins) or 1
        for b in bins:
            radius = 2.5 + 7.5 * (b.count / total) ** 0.5
            note = f"{name}: says {b.predicted:.2f}, {b.observed:.0%} of {b.count} are fake"
            body.append(
                f'<circle class="dot {series_class(number)}" cx="{_x(b.predicted)}" cy="{_y(b.observed)}" '
                f'r="{radius:.1f}">{title_of(note)}</circle>'
            )
    return _unit_svg("Calibration curves", body)


def score_chart(lines: Sequence[ScoreLine]) -> str:
    """One row a detector: the final score as a dot, its interval as a whisker, base and robust as ticks."""
    left, width, row = 16, 640, 46
    span = width - left - 24
    height = row * len(lines) + 54

    def at(value: float) -> float:
        return round(left + span * min(1.0, max(0.0, value)), 1)

    bottom = row * len(lines) + 8
    body = []
    for tick in _TICKS:
        body.append(f'<line class="grid" x1="{at(tick)}" y1="6" x2="{at(tick)}" y2="{bottom}"/>')
        body.append(f'<text class="tick" x="{at(tick)}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    body.append(f'<text class="axis" x="{at(0.5)}" y="{bottom + 40}" text-anchor="middle">sn34 score</text>')
    for number, line in enumerate(lines):
        y = 8 + row * number + 32
        series = series_class(number)
        body.append(f'<text class="name" x="{left + 2}" y="{y - 14}">{escape(line.name)}</text>')
        if line.ci95 is not None:
            low, high = line.ci95
            note = title_of(f"{line.name}: 95 % interval {low:.3f} to {high:.3f}")
            body.append(
                f'<line class="whisker {series}" x1="{at(low)}" y1="{y}" x2="{at(high)}" y2="{y}">{note}</line>'
            )
        for label, value, shape in (("base", line.base, "base"), ("robust", line.robust, "robust")):
            if value is not None:
                note = title_of(f"{line.name}: {label} {value:.3f}")
                body.append(
                    f'<line class="mark {shape} {series}" x1="{at(value)}" y1="{y - 7}" x2="{at(value)}" y2="{y + 7}">'
                    f"{note}</line>"
                )
        if line.score is None:
            body.append(f'<text class="tick" x="{left + 2}" y="{y + 4}">unscored</text>')
            continue
        note = title_of(f"{line.name}: {line.score:.3f}")
        body.append(f'<circle class="dot {series}" cx="{at(line.score)}" cy="{y}" r="6">{note}</circle>')
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="Scores of the detectors">'
        f"{''.join(body)}</svg>"
    )


def swatch(number: int) -> str:
    """The piece of line that stands for series ``number`` in a legend."""
    return (
        '<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">'
        f'<line class="line {series_class(number)}" x1="1" y1="5" x2="29" y2="5"{dash_of(number)}/></svg>'
    )


def _unit_svg(label: str, body: Sequence[str]) -> str:
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _unit_frame(x_label: str, y_label: str) -> str:
    parts = []
    for tick in _TICKS:
        parts.append(f'<line class="grid" x1="{_x(tick)}" y1="{_y(0)}" x2="{_x(tick)}" y2="{_y(1)}"/>')
        parts.append(f'<line class="grid" x1="{_x(0)}" y1="{_y(tick)}" x2="{_x(1)}" y2="{_y(tick)}"/>')
        parts.append(f'<text class="tick" x="{_x(tick)}" y="{_y(0) + 17}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text class="tick" x="{_x(0) - 8}" y="{_y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    middle = _TOP + _SIDE / 2
    parts.append(
        f'<text class="axis" x="{_x(0.5)}" y="{_TOP + _SIDE + 40}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="axis" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _x(value: float) -> float:
    return round(_LEFT + _SIDE * min(1.0, max(0.0, value)), 1)


def _y(value: float) -> float:
    return round(_TOP + _SIDE * (1.0 - min(1.0, max(0.0, value))), 1)


def series_class(number: int) -> str:
    """CSS class of series ``number``."""
    return f"s{number % SERIES + 1}"


def dash_of(number: int) -> str:
    """The attribute that gives series ``number`` its dashes, with a space before it; empty for a full line."""
    dash = _DASHES[number % SERIES]
    return f' stroke-dasharray="{dash}"' if dash else ""


def title_of(text: str) -> str:
    """The text that shows when the pointer rests on a shape; escaped."""
    return f"<title>{escape(text)}</title>"
