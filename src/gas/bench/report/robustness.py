"""The page's robustness curves: the score by strength of distortion, and right answers by kind of distortion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from gas.bench.report.charts import dash_of, series_class, title_of
from gas.bench.report.detail import rate_chart
from gas.bench.report.plots import legend

__all__ = ["level_chart", "point_words", "robustness_section"]

_WIDTH, _HEIGHT = 760, 320
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 14, 20, 62
_TICKS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_PICTURES: Final = {
    "level 0": "as it is",
    "level 1": "geometry",
    "level 2": "+ colour",
    "level 3": "+ noise, codec",
    "blocks": "blocks averaged or shuffled",
    "blur": "blur, out of focus or moved",
    "codec": "compression",
    "colour": "brightness, contrast, hue",
    "geometry": "cut, mirrored, turned, scaled",
    "noise": "noise",
}
_SOUNDS: Final = {
    "level 0": "as it is",
    "level 1": "loudness, rate",
    "level 2": "+ noise, room",
    "level 3": "+ codec",
    "codec": "MP3, Opus, telephone",
    "level": "loudness, sample rate",
    "room": "noise, reverberation",
}
_LINES: Final = (("sn34 score", "sn34"), ("fakes caught", "tpr"), ("real media passed", "tnr"))


def point_words(modality: str) -> Mapping[str, str]:
    """What each point of the curves is, in words, by its name.

    Args:
        modality: ``image``, ``video`` or ``audio``.
    """
    return _SOUNDS if modality == "audio" else _PICTURES


def robustness_section(curves: Mapping[str, Any] | None, modality: str) -> str:
    """The section with both charts; nothing when the curves were not measured.

    Args:
        curves: JSON form of :class:`gas.bench.levels.RobustnessCurves`.
        modality: ``image``, ``video`` or ``audio``.
    """
    if curves is None:
        return ""
    words = point_words(modality)
    levels, groups = curves["levels"], curves["groups"]
    lead = (
        f"{curves['samples']:,} samples, as many real as fake, shown again with the distortions of the project's table "
        f"({curves['version']}). Whiskers are 95 % intervals over the originals: few samples, so wide ones. "
        "No part of the score."
    )
    rows = [
        (words.get(point["name"], point["name"]), point["correct"], point["count"], int(number > 0))
        for number, point in enumerate([levels[0], *sorted(groups, key=_share)])
        if point["count"]
    ]
    strength = level_chart(levels, [words.get(point["name"], point["name"]) for point in levels])
    names = legend([(name, number) for number, (name, _) in enumerate(_LINES)])
    errors = curves["model_errors"]
    failed = f'<p class="lead">The model failed on {errors:,} of these showings.</p>' if errors else ""
    return (
        f'<section><h2>Robustness</h2><p class="lead">{escape(lead)}</p>{failed}<div class="stack">'
        '<div class="card wide"><h3>By strength</h3><p class="lead">Each level holds what the one before it does.</p>'
        f"{strength}{names}</div>"
        '<div class="card wide"><h3>By kind</h3><p class="lead">Right answers with one kind of distortion alone, '
        f"weakest first, below those on the undistorted media.</p>{rate_chart(rows)}</div></div></section>"
    )


def level_chart(points: Sequence[Mapping[str, Any]], words: Sequence[str]) -> str:
    """Score, fakes caught and real media passed over the levels of distortion; the score with its interval.

    Args:
        points: Of each level, in order: ``level``, ``count``, and ``sn34``, ``low``, ``high``, ``tpr``, ``tnr``,
            each in [0, 1] or None.
        words: What each level is.
    """
    across, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    inset = across / (2 * max(1, len(points)))

    def x(number: int) -> float:
        return round(_LEFT + inset + (across - 2 * inset) * number / max(1, len(points) - 1), 1)

    def y(value: float) -> float:
        return round(_TOP + tall * (1 - min(1.0, max(0.0, value))), 1)

    body = []
    for tick in _TICKS:
        body.append(f'<line class="grid" x1="{_LEFT}" y1="{y(tick)}" x2="{_WIDTH - _RIGHT}" y2="{y(tick)}"/>')
        body.append(f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    for number, (point, word) in enumerate(zip(points, words, strict=True)):
        foot = _HEIGHT - _BOTTOM + 17
        body.append(f'<text class="tick" x="{x(number)}" y="{foot}" text-anchor="middle">{point["level"]}</text>')
        body.append(f'<text class="tick" x="{x(number)}" y="{foot + 15}" text-anchor="middle">{escape(word)}</text>')
    body.append(
        f'<text class="axis" x="{_LEFT + across / 2}" y="{_HEIGHT - 8}" text-anchor="middle">Level of distortion</text>'
    )
    for series, (name, key) in enumerate(_LINES):
        known = [(x(n), y(point[key]), point) for n, point in enumerate(points) if point[key] is not None]
        if series == 0:
            for at, _, point in known:
                if point["low"] is not None and point["high"] is not None:
                    low, high = y(point["low"]), y(point["high"])
                    body.append(
                        f'<path class="{series_class(0)}" d="M{at - 6} {high}H{at + 6}M{at} {high}V{low}'
                        f'M{at - 6} {low}H{at + 6}" fill="none" stroke="var(--c)" stroke-width="1.4"/>'
                    )
        path = " ".join(f"{at},{up}" for at, up, _ in known)
        body.append(f'<polyline class="line {series_class(series)}" points="{path}"{dash_of(series)}/>')
        for at, up, point in known:
            note = title_of(f"{name} at level {point['level']}: {point[key]:.3f} of {point['count']} samples")
            body.append(f'<circle class="dot {series_class(series)}" cx="{at}" cy="{up}" r="4">{note}</circle>')
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Score by level of distortion">'
        f"{''.join(body)}</svg>"
    )


def _share(point: Mapping[str, Any]) -> float:
    return float(point["correct"] / point["count"]) if point["count"] else 0.0
