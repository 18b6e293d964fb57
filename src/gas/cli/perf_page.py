"""The page of ``gascli d perf --page``: where pushed models are weak, as charts, and their worst errors in pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from gas.bench.report.detail import rate_chart
from gas.bench.report.plots import legend, page
from gas.bench.report.robustness import robustness_section
from gas.cli.perf_text import curves_of, error_text, model_lines, weak_points

__all__ = ["perf_page"]

_MOST: Final = 40
_SERIES: Final = {"real": 0, "synthetic": 1, "semisynthetic": 2}
_STRIPS: Final = {"video": " strips film", "audio": " strips"}


def perf_page(models: Sequence[Mapping[str, Any]]) -> str:
    """One self-contained page: no script, no request; everything that came from the arena is escaped.

    Args:
        models: As the arena tells them, each with ``errors``: its worst errors with ``jpeg``, base64.
    """
    body = "\n".join(part for one in models for part in _model(one)) or "<p>This hotkey has pushed nothing.</p>"
    return page("Where the models are weak", "Pictures are of public media only, the worst errors first.", body)


def _model(one: Mapping[str, Any]) -> list[str]:
    title = escape(f"{one.get('name') or one['model_id']}, {one['modality']}, {one['state']}")
    facts = "".join(f"<p>{escape(line)}</p>" for depth, line in model_lines(one) if depth == 0)
    parts = [f'<section><h2>{title}</h2><p class="lead">{escape(str(one["model_id"]))}</p>{facts}</section>']
    for run in one.get("runs") or ():
        metrics = run.get("metrics") or {}
        parts.append(_sources(str(run["kind"]), metrics, str(one["modality"])))
        parts.append(robustness_section(curves_of(metrics), str(one["modality"])))
    if one["errors"]:
        figures = "".join(_figure(error) for error in one["errors"])
        kind = _STRIPS.get(str(one["modality"]), "")
        parts.append(f'<section><h2>Worst errors</h2><div class="pictures{kind}">{figures}</div></section>')
    elif one.get("runs"):
        parts.append("<section><h2>Worst errors</h2><p>No errors to show.</p></section>")
    return [part for part in parts if part]


def _sources(kind: str, metrics: Mapping[str, Any], modality: str) -> str:
    weak = weak_points(metrics, modality)
    shares = (*weak.sources, *weak.generators)
    if not shares:
        return ""
    shown = sorted(shares, key=lambda share: share.right / share.count)[:_MOST]
    rows = [(share.name, share.right, share.count, _SERIES.get(share.media_type, 0)) for share in shown]
    more = f" The weakest {_MOST} of {len(shares):,} are shown." if len(shares) > _MOST else ""
    names = legend([(name, number) for name, number in _SERIES.items() if any(s.media_type == name for s in shown)])
    what = "the exam" if kind == "exam" else "the full run"
    lead = f"Right answers in {what} for each source of real media and each generator, weakest first.{more}"
    return (
        f'<section><h2>Sources and generators</h2><p class="lead">{lead}</p>'
        f'<div class="card wide">{rate_chart(rows)}{names}</div></section>'
    )


def _figure(error: Mapping[str, Any]) -> str:
    picture = f'<img alt="" src="data:image/jpeg;base64,{error["jpeg"]}">'
    return f"<figure>{picture}<figcaption>{escape(error_text(error))}</figcaption></figure>"
