"""The page of ``gascli data stats --html``: what data sets are made of, as bars; no script, no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gas.datasets.store_stats import Histogram, SetStats

__all__ = ["bar_chart", "histogram_chart", "stats_page"]

_MOST: Final = 12
_WIDTH, _ROW, _LEFT, _RIGHT = 460, 24, 150, 64
_STYLE: Final = ".column { fill: var(--s1); } .facts + .pair { margin-top: 16px; }"
_HISTOGRAMS: Final = (
    ("sizes", "Bytes a medium", "bytes"),
    ("sides", "Shorter side", "pixels"),
    ("aspects", "Width by height", "ratio"),
    ("lengths", "Length", "seconds"),
)


def bar_chart(label: str, counts: Mapping[str, int]) -> str:
    """One bar a value, most first; what is beyond twelve is summed up. Names are escaped."""
    rows = list(counts.items())
    if len(rows) > _MOST:
        rows = [*rows[: _MOST - 1], (f"{len(rows) - _MOST + 1} others", sum(n for _, n in rows[_MOST - 1 :]))]
    top = max((count for _, count in rows), default=0) or 1
    span = _WIDTH - _LEFT - _RIGHT
    body = []
    for number, (name, count) in enumerate(rows):
        y = number * _ROW + 4
        width = max(1.0, round(span * count / top, 1))
        shown = name if len(name) <= 22 else f"{name[:21]}…"
        body.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(shown)}</text>'
            f'<rect class="column" x="{_LEFT}" y="{y}" width="{width}" height="{_ROW - 7}" rx="2">'
            f"<title>{escape(name)}: {count:,}</title></rect>"
            f'<text class="tick" x="{_LEFT + width + 6}" y="{y + 13}">{count:,}</text>'
        )
    return _svg(label, len(rows) * _ROW + 6, body)


def histogram_chart(label: str, unit: str, histogram: Histogram) -> str:
    """Bars between the edges, with the edges under every third."""
    height, bottom, top = 190, 150, max(histogram.counts) or 1
    step = (_WIDTH - 40) / len(histogram.counts)
    body = []
    for number, count in enumerate(histogram.counts):
        tall = round(130 * count / top, 1)
        low, high = histogram.edges[number], histogram.edges[number + 1]
        body.append(
            f'<rect class="column" x="{20 + number * step + 1:.1f}" y="{bottom - tall}" width="{step - 2:.1f}" '
            f'height="{tall}"><title>{_short(low)} to {_short(high)} {escape(unit)}: {count:,}</title></rect>'
        )
    every = 3 if len(histogram.counts) > 4 else 1
    body += [
        f'<text class="tick" x="{20 + number * step:.1f}" y="{bottom + 16}" text-anchor="middle">'
        f"{_short(histogram.edges[number])}</text>"
        for number in range(0, len(histogram.edges), every)
    ]
    body.append(f'<line class="grid" x1="20" y1="{bottom}" x2="{_WIDTH - 20}" y2="{bottom}"/>')
    body.append(
        f'<text class="axis" x="{_WIDTH / 2}" y="{bottom + 36}" text-anchor="middle">'
        f"{escape(unit)}; the highest bar has {top:,}</text>"
    )
    return _svg(label, height, body)


def stats_page(title: str, sets: Mapping[str, SetStats], warnings: Sequence[str]) -> str:
    """One self-contained HTML page with a section a set.

    Args:
        title: Of the page.
        sets: Stats by the set's name.
        warnings: Sentences for the top of the page.
    """
    style = resources.files("gas.bench.report").joinpath("style.css").read_text(encoding="utf-8")
    sections = "".join(_section(name, stats) for name, stats in sets.items())
    notes = "".join(f'<p class="subtitle">{escape(text)}</p>' for text in warnings)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}\n{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{notes}{sections}</main></body></html>\n"
    )


def _section(name: str, stats: SetStats) -> str:
    facts = (
        ("Media", f"{stats.items:,}"),
        ("Bytes", f"{stats.bytes:,}"),
        ("Set aside", f"{sum(stats.rejected.values()):,}"),
        ("With masks", f"{stats.masks:,}"),
    )
    cards = [
        _card(text.capitalize(), bar_chart(text, counts))
        for key, text in (
            ("media_type", "class"),
            ("generator", "generator"),
            ("category", "category"),
            ("mime", "content type"),
            ("codec", "codec"),
            ("licence", "licence"),
        )
        if (counts := stats.counts[key])
    ]
    if stats.rates:
        cards.append(_card("Rate", bar_chart("rate", stats.rates)))
    for key, text, unit in _HISTOGRAMS:
        histogram = getattr(stats, key)
        if histogram is not None:
            cards.append(_card(text, histogram_chart(text, unit, histogram)))
    if stats.rejected:
        cards.append(_card("Set aside, by reason", bar_chart("rejected", stats.rejected)))
    shown = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts)
    charts = "".join(cards)
    return f'<section><h2>{escape(name)}</h2><dl class="facts">{shown}</dl><div class="pair">{charts}</div></section>'


def _card(title: str, chart: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{chart}</div>'


def _svg(label: str, height: int, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _short(value: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.3g} {letter}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
