"""The diversity report as one page of HTML with drawings in SVG: no script, no font, nothing fetched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gas.generation.prompts.compose import BANDS
from gas.generation.prompts.diversity import Diversity, ReportedPrompt
from gas.generation.prompts.terms import Register

__all__ = ["diversity_page"]

_COLOURS: Final = {"image": "#2f6fde", "video": "#d9622b", "audio": "#2a9d6f"}
_STYLE: Final = """
body{font:15px/1.45 system-ui,sans-serif;color:#1c2430;background:#f6f7f9;margin:0;padding:28px}
main{max-width:1120px;margin:auto}h1{font-size:24px;margin:0 0 4px}h2{font-size:16px;margin:0 0 10px}
p{margin:0 0 14px;color:#56606e}.cards{display:grid;grid-template-columns:repeat(6,1fr);gap:12px;margin:18px 0}
.card,section{background:#fff;border:1px solid #e1e5ea;border-radius:10px;padding:14px 16px}
.card b{display:block;font-size:22px}.card span{color:#56606e;font-size:13px}
.grid{display:grid;grid-template-columns:1fr 1fr;gap:12px}section{min-width:0}svg{width:100%;height:auto;display:block}
text{font:12px system-ui,sans-serif;fill:#1c2430}.dim{fill:#6b7583}
table{border-collapse:collapse;width:100%;font-size:13px}
td{border-top:1px solid #e8ebef;padding:6px 8px;vertical-align:top}td:first-child{white-space:nowrap;color:#56606e}
.wide{grid-column:1/-1}.key i{display:inline-block;width:10px;height:10px;border-radius:5px;margin:0 5px 0 12px}
@media(max-width:760px){body{padding:14px}.grid{grid-template-columns:1fr}.cards{grid-template-columns:1fr 1fr}}
"""


def diversity_page(found: Diversity, prompts: Sequence[ReportedPrompt], vectors: NDArray[np.float32]) -> str:
    """The page.

    Args:
        found: The figures.
        prompts: What they were measured on.
        vectors: Theirs, float32 (n, 384).
    """
    cards = (
        (f"{found.count:,}", "prompts"),
        (f"{found.vocabulary:,}", "different words"),
        (f"{found.distinct['3']:.0%}", "of the 3-grams are different"),
        (f"{found.mean_similarity:.2f}", "mean cosine of all pairs"),
        (f"{found.near_repeats:,}", f"near repeats (cosine from {found.threshold:g})"),
        (f"{found.cells} / {found.possible_cells}", "kinds (modality, register, length)"),
    )
    boxes = "".join(f'<div class="card"><b>{value}</b><span>{label}</span></div>' for value, label in cards)
    key = "".join(
        f'<i style="background:{_COLOURS[name]}"></i>{name} {count:,}' for name, count in found.by_modality.items()
    )
    pairs = "".join(
        f"<tr><td>{float(str(pair['similarity'])):.2f}</td><td>{escape(str(pair['one']))}</td>"
        f"<td>{escape(str(pair['other']))}</td></tr>"
        for pair in found.nearest_pairs[:5]
    )
    parts = (
        f"<section><h2>How near the nearest other prompt is</h2>{_histogram(found)}</section>"
        f'<section><h2>Where the prompts lie</h2>{_map(prompts, vectors)}<p class="key">{key}</p></section>'
        f'<section class="wide"><h2>Prompts by register and length</h2>{_heat(prompts)}</section>'
        f"<section><h2>Length bands</h2>{_bars(found.by_length)}</section>"
        f"<section><h2>Sources</h2>{_bars(found.by_source)}</section>"
        f'<section class="wide"><h2>The nearest pairs</h2><table>{pairs}</table></section>'
    )
    about = (
        f"Cosines by {escape(found.embedder)}, within each modality. Self-BLEU {found.self_bleu:.2f}, mean length "
        f"{found.mean_words:.1f} words, evenness of the registers {found.register_evenness:.2f}."
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width,initial-scale=1"><title>Diversity of prompts</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>Diversity of prompts</h1><p>{about}</p>"
        f'<div class="cards">{boxes}</div><div class="grid">{parts}</div></main></body></html>\n'
    )


def _histogram(found: Diversity) -> str:
    bins, most = found.nearest_histogram, max([*found.nearest_histogram, 1])
    step, base = 24, 190
    out = ['<svg viewBox="0 0 520 226" role="img" aria-label="Histogram of nearest cosines">']
    for at, count in enumerate(bins):
        height = 165 * count / most
        colour = "#c0392b" if at / len(bins) >= found.threshold - 1e-9 else "#2f6fde"
        x = 20 + at * step
        out.append(f'<rect x="{x}" y="{base - height:.1f}" width="{step - 3}" height="{height:.1f}" fill="{colour}"/>')
        if count:
            out.append(
                f'<text x="{x + 10}" y="{base - height - 5:.1f}" text-anchor="middle" class="dim">{count}</text>'
            )
    out += [
        f'<text x="{20 + at * step}" y="{base + 17}" text-anchor="middle">{at / len(bins):.1f}</text>'
        for at in range(0, len(bins) + 1, 4)
    ]
    out.append(f'<line x1="20" x2="500" y1="{base}" y2="{base}" stroke="#9aa3af"/>')
    out.append('<text x="260" y="222" text-anchor="middle" class="dim">cosine to the nearest other prompt</text></svg>')
    return "".join(out)


def _map(prompts: Sequence[ReportedPrompt], vectors: NDArray[np.float32]) -> str:
    """The two directions in which the vectors differ most (principal components)."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    if len(vectors) < 3:
        return ""
    _, axes = np.linalg.eigh(centred.T @ centred)
    flat = centred @ axes[:, -2:]
    low, high = flat.min(axis=0), flat.max(axis=0)
    places = (flat - low) / np.maximum(high - low, 1e-9)
    step = max(1, len(prompts) // 3000)
    dots = "".join(
        f'<circle cx="{12 + 496 * x:.1f}" cy="{10 + 200 * y:.1f}" r="2.4" fill="{_COLOURS[prompt.modality]}"/>'
        for prompt, (y, x) in zip(prompts[::step], places[::step], strict=True)
    )
    return f'<svg viewBox="0 0 520 222" role="img" aria-label="Map of the prompts"><g opacity=".55">{dots}</g></svg>'


def _heat(prompts: Sequence[ReportedPrompt]) -> str:
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for prompt in prompts:
        counts[prompt.register, prompt.length] += 1
    registers = [register.value for register in Register if any(counts[register.value, band] for band in BANDS)]
    bands = [band.value for band in BANDS]
    most = max([*counts.values(), 1])
    width = 1000 / max(len(registers), 1)
    out = [f'<svg viewBox="0 0 1080 {100 + 34 * len(bands)}" role="img" aria-label="Registers and lengths">']
    for row, band in enumerate(bands):
        y = 8 + row * 34
        out.append(f'<text x="64" y="{y + 20}" text-anchor="end">{band}</text>')
        for column, register in enumerate(registers):
            count, x = counts[register, band], 72 + column * width
            shade = 0.06 + 0.84 * count / most
            out.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width - 3:.1f}" height="30" rx="4" fill="#2f6fde" '
                f'fill-opacity="{shade:.2f}"/><text x="{x + width / 2 - 1:.1f}" y="{y + 20}" text-anchor="middle" '
                f'style="fill:{"#fff" if shade > 0.55 else "#1c2430"}">{count}</text>'
            )
    for column, register in enumerate(registers):
        x, y = 72 + (column + 0.5) * width, 24 + 34 * len(bands)
        name = escape(register.replace("_", " "))
        out.append(f'<text x="{x:.1f}" y="{y}" text-anchor="end" transform="rotate(-40 {x:.1f} {y})">{name}</text>')
    return "".join([*out, "</svg>"])


def _bars(counts: Mapping[str, int]) -> str:
    shown = list(counts.items())[:10]
    most = max([count for _, count in shown] or [1])
    out = [f'<svg viewBox="0 0 520 {26 * len(shown) + 6}" role="img" aria-label="Counts">']
    for row, (name, count) in enumerate(shown):
        y, width = 4 + row * 26, 290 * count / most
        out.append(f'<text x="170" y="{y + 15}" text-anchor="end">{escape(name[:26])}</text>')
        out.append(f'<rect x="178" y="{y}" width="{width:.1f}" height="20" rx="3" fill="#2f6fde"/>')
        out.append(f'<text x="{184 + width:.1f}" y="{y + 15}">{count:,}</text>')
    return "".join([*out, "</svg>"])
