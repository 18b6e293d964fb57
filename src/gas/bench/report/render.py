"""From :class:`ReportData` to one HTML file.

What is covered: every text is escaped by the template, pictures are embedded, and the page forbids itself scripts
and requests by its own content security policy, so that a hostile name stays a name. What is not: the pictures
are shown as they are; they must be thumbnails that we encoded ourselves.
"""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Final

from gas.bench.report.charts import SERIES, ScoreLine, calibration_chart, roc_chart, score_chart, swatch
from gas.bench.report.data import DetectorRow, ReportData, SourceRate
from gas.errors import StorageError
from gas.types import RAO_PER_TAO

__all__ = ["render_report", "write_report"]

_DASH: Final = "\N{EN DASH}"
_GOOD: Final = frozenset({"scored", "confirmed", "running", "queued"})
_BAD: Final = frozenset({"rejected", "exam_failed", "blocked", "failed"})
_GROUPS: Final = (("real", "Real"), ("synthetic", "Synthetic"), ("semisynthetic", "Semisynthetic"))


def write_report(path: Path, data: ReportData) -> None:
    """Write the report to ``path`` (aside, then renamed).

    Raises:
        gas.errors.StorageError: The file can't be written.
    """
    html = render_report(data)
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(html, encoding="utf-8", errors="replace")
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"The report could not be written ({error.strerror}).", code="report_unwritable") from error


def render_report(data: ReportData) -> str:
    """The report as one self-contained HTML page: no script, no request, light and dark."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("gas.bench.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        fixed=_fixed, percent=_percent, tao=_tao, shorten=_shorten, tone=_tone, base64=_base64, unit=_unit
    )
    scored = [row for row in data.detectors if row.scores is not None]
    lines = [
        ScoreLine(row.name, s.sn34, s.sn34_base, s.sn34_robust, s.ci95)
        for row in scored
        if (s := row.scores) is not None
    ]
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    return environment.get_template("template.html.j2").render(
        data=data,
        style=Markup(style),  # noqa: S704 - our own file
        scored=scored,
        swatches=[Markup(swatch(k)) for k in range(len(scored))],  # noqa: S704 - drawn by us, no foreign text
        series_of={row.name: f"s{k % SERIES + 1}" for k, row in enumerate(scored)},
        score_chart=Markup(score_chart(lines)) if lines else "",  # noqa: S704 - names are escaped by the chart
        roc_chart=Markup(roc_chart([(r.name, r.scores.roc) for r in scored if r.scores])),  # noqa: S704 - the same
        calibration_chart=Markup(  # noqa: S704 - the same
            calibration_chart([(r.name, r.scores.calibration) for r in scored if r.scores])
        ),
        heat=_heat(scored),
        total_rao=sum(p.rao for p in data.pay),
        top_rao=max((p.rao for p in data.pay), default=0),
    )


def _heat(scored: list[DetectorRow]) -> list[tuple[str, list[tuple[str, list[SourceRate | None]]]]]:
    """Rows of the heat table, grouped by kind: (group, [(source, a cell for each detector)])."""
    found = [
        {(rate.kind, rate.source): rate for rate in row.scores.rates} if row.scores is not None else {}
        for row in scored
    ]
    groups = []
    for kind, title in _GROUPS:
        sources = sorted({source for rates in found for k, source in rates if k == kind})
        if sources:
            groups.append((title, [(source, [rates.get((kind, source)) for rates in found]) for source in sources]))
    return groups


def _fixed(value: float | None, digits: int = 3) -> str:
    return _DASH if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return _DASH if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _tao(rao: int) -> str:
    return f"{rao / RAO_PER_TAO:,.4f} TAO".replace(",", " ")


def _shorten(address: str) -> str:
    return address if len(address) <= 16 else f"{address[:7]}…{address[-6:]}"


def _tone(state: str) -> str:
    return "good" if state in _GOOD else "bad" if state in _BAD else ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unit(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
