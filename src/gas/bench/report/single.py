"""The page of one run: figures, curves, sources, and the media that misled the model most.

What is covered: every text is escaped, pictures are embedded, and the page forbids itself scripts and requests. What
is not: the media are decoded here, within the limits of :mod:`gas.media.limits`; one that can't be is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gas.bench.batches import Pass
from gas.bench.metrics import RunMetrics
from gas.bench.records import SampleRecord
from gas.bench.report.charts import ScoreLine, calibration_chart, roc_chart, score_chart
from gas.bench.report.data import Picture
from gas.bench.report.detail import det_chart, histogram_chart, rate_chart
from gas.bench.report.plots import legend, page
from gas.bench.report.robustness import robustness_section
from gas.bench.report.thumbnails import thumbnail
from gas.bench.summary import detector_scores
from gas.datasets.plan import Round
from gas.errors import MediaRejected, StorageError
from gas.types import Modality, Sample, SampleStatus

__all__ = ["render_single_report", "view_of", "worst_errors", "write_single_report"]

_FIGURES: Final = (
    ("sn34 score", "sn34_score"),
    ("MCC", "mcc"),
    ("Brier", "brier"),
    ("Accuracy", "accuracy"),
    ("AUC", "roc_auc"),
    ("EER", "eer"),
    ("ECE", "ece"),
)
_BINS: Final = 20
_SOURCES: Final = 40
_WORST: Final = 12
_SIDES: Final = {Modality.IMAGE: 192, Modality.VIDEO: 1020, Modality.AUDIO: 480}
"""Longer side of a medium's picture on the page, pixels."""


def write_single_report(
    path: Path,
    results: Mapping[str, Any],
    records: Sequence[SampleRecord],
    metrics: RunMetrics,
    round_: Round,
    media: Callable[[str], bytes],
) -> None:
    """Write the page (aside, then renamed); arguments as for :func:`render_single_report`.

    Raises:
        StorageError: The file can't be written (``report_unwritable``).
    """
    html = render_single_report(results, records, metrics, round_, media)
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(html, encoding="utf-8", errors="replace")
        aside.replace(path)
    except OSError as error:
        raise StorageError(f"The report could not be written ({error.strerror}).", code="report_unwritable") from error


def render_single_report(
    results: Mapping[str, Any],
    records: Sequence[SampleRecord],
    metrics: RunMetrics,
    round_: Round,
    media: Callable[[str], bytes],
) -> str:
    """One self-contained HTML page: no script, no request, light and dark.

    Args:
        results: Of :func:`gas.bench.results.make_results`.
        records: Of the run.
        metrics: Of the run.
        round_: That it ran on.
        media: Encoded bytes of a sample, asked for the few that are shown.
    """
    about = results["metadata"]
    scores = detector_scores(metrics, records, round_)
    modality = Modality(about["modality"])
    name = results["validation"]["package"]["name"]
    body = [_facts(results), _passes(name, metrics)]
    if scores.roc:
        body.append(
            '<section><h2>Curves</h2><div class="pair">'
            + _card("ROC", "How many fakes are caught for each share of real media wrongly accused.",
                    roc_chart([(name, scores.roc)]))
            + _card("DET", "The same as misses against false alarms, stretched where errors are rare.",
                    det_chart(scores.roc))
            + _card("Calibration", "Does “80 % fake” come true 80 % of the time? On the diagonal it does.",
                    calibration_chart([(name, scores.calibration)]))
            + _card("Scores", "Share of the answers by p_fake, real and fake media apart.",
                    _histogram(records, round_))
            + "</div></section>"
        )  # fmt: skip
    body.append(robustness_section(results["results"].get("robustness_curves"), str(modality)))
    body += [_sources(metrics), _table(results)]
    for title, lead, fake in (
        ("Fakes taken for real", "Fakes with the lowest p_fake, worst first.", True),
        ("Real media accused", "Real media with the highest p_fake, worst first.", False),
    ):
        shown = worst_errors(records, round_, media, modality, fake=fake)
        if shown:
            body.append(f'<section><h2>{title}</h2><p class="lead">{lead}</p>{_gallery(shown, modality)}</section>')
    body.append(_record(results))
    subtitle = f"{modality}, {about['mode']}, {about['timestamp']}, plan {results['dataset_info']['plan_id']}"
    return page(f"Benchmark of {name}", subtitle, "\n".join(part for part in body if part))


def worst_errors(
    records: Sequence[SampleRecord],
    round_: Round,
    media: Callable[[str], bytes],
    modality: Modality,
    *,
    fake: bool,
    count: int = _WORST,
) -> tuple[Picture, ...]:
    """The samples that misled the model most, worst first, as small pictures.

    Args:
        records: Of one run.
        round_: That it ran on.
        media: Encoded bytes of a sample.
        modality: Of all samples.
        fake: True for fakes taken for real, False for real media called fake.
        count: How many at most. Failures of the model don't count, and media that can't be read are left out.
    """
    samples = {sample.sample_id: sample for sample in round_.samples}
    wrong: list[tuple[float, str, Sample]] = [
        (abs(r.p_fake - float(fake)), r.sample_id, sample)
        for r in records
        if r.variant is Pass.BASE
        and r.status is SampleStatus.OK
        and r.p_fake is not None
        and r.fake is not fake
        and (sample := samples[r.sample_id]).media_type.is_fake is fake
    ]
    out: list[Picture] = []
    for error, sample_id, sample in sorted(wrong, key=lambda row: (-row[0], row[1])):
        if len(out) == count:
            break
        try:
            pixels = view_of(media(sample_id), modality)
        except (MediaRejected, StorageError):
            # The figures stand without the picture.
            continue
        said = 1 - error if fake else error
        jpeg = thumbnail(pixels, side=_SIDES[modality])
        out.append(Picture(jpeg, sample.source, str(sample.media_type), (("p_fake", said),), sample_id))
    return tuple(out)


def view_of(data: bytes, modality: Modality) -> NDArray[np.uint8]:
    """A picture of a medium: the picture itself, a strip of six frames, or a spectrogram.

    Returns:
        uint8, (H, W, 3), RGB.

    Raises:
        MediaRejected: It can't be decoded.
    """
    if modality is Modality.IMAGE:
        from gas.media.image import decode_image

        return decode_image(data)
    if modality is Modality.VIDEO:
        from gas.media.sheets import film_strip
        from gas.media.video import decode_video

        return film_strip(decode_video(data, 24), 6, 170)
    from gas.media.audio import decode_audio
    from gas.media.spectrogram import plot_sound

    sound, rate = decode_audio(data)
    return plot_sound(sound, rate, 480, 270)


def _facts(results: Mapping[str, Any]) -> str:
    figures, interval = results["results"], results["results"]["sn34_ci95"]
    drawn = f"{figures['sn34_ci95_clusters']:,} {figures['sn34_ci95_by']}s"
    between = f"base pass: 95 % between {interval[0]:.3f} and {interval[1]:.3f}, {drawn}" if interval else ""
    unscored = figures["unscored"] or ""
    timings = results["sandbox"]["timings"]
    errors = f"{figures['model_errors']:,} model errors, {figures['media_errors']:,} undecodable"
    rows = [
        ("Score", _fixed(results["overall_score"]), between or unscored),
        ("Accuracy", _fixed(figures["accuracy"]), f"{figures['correct_predictions']:,} right"),
        ("MCC", _fixed(figures["binary_mcc"]), f"Brier {_fixed(figures['binary_brier'])}"),
        ("AUC", _fixed(figures["roc_auc"]), f"EER {_fixed(figures['eer'])}"),
        ("Samples", f"{figures['total_samples']:,}", errors),
        ("Speed", f"{timings['samples_per_second']:,.0f}/s", f"{_milliseconds(figures)} a sample in the model"),
    ]
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in rows
    )
    return f'<dl class="facts">{cells}</dl>'


def _passes(name: str, metrics: RunMetrics) -> str:
    base, robust = metrics.base, metrics.robust
    line = ScoreLine(
        name, metrics.final, base.sn34_score, None if robust is None else robust.sn34_score, base.sn34_ci95
    )
    after = "The dot is the score, the band the interval of the base pass. "
    after += (
        "The solid mark is the base pass, the dashed one what comes of the sharing chain, for which "
        f"{robust.n:,} of the {base.n:,} samples were asked again."
        if robust
        else "Nothing was asked again after the sharing chain."
    )
    chart = f'<div class="card wide">{score_chart([line])}</div>'
    rows = ""
    for label, key in _FIGURES if robust else ():
        first, second = getattr(base, key), getattr(robust, key)
        change = "-" if first is None or second is None else f"{second - first:+.3f}"
        rows += (
            f"<tr><th>{label}</th><td class='n'>{_fixed(first)}</td><td class='n'>{_fixed(second)}</td>"
            f"<td class='n'>{change}</td></tr>"
        )
    head = "<tr><th></th><th class='n'>Base</th><th class='n'>After sharing</th><th class='n'>Change</th></tr>"
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>' if rows else ""
    return f'<section><h2>Score</h2><p class="lead">{after}</p><div class="stack">{chart}{table}</div></section>'


def _histogram(records: Sequence[SampleRecord], round_: Round) -> str:
    fakes = {sample.sample_id: sample.media_type.is_fake for sample in round_.samples}
    groups = []
    for title, fake in (("real", False), ("fake", True)):
        said = [
            r.p_fake
            for r in records
            if r.variant is Pass.BASE
            and r.status is SampleStatus.OK
            and r.p_fake is not None
            and fakes[r.sample_id] is fake
        ]
        groups.append((title, np.histogram(said, bins=_BINS, range=(0, 1))[0].tolist()))
    return histogram_chart(groups) + legend([(title, number) for number, (title, _) in enumerate(groups)])


def _sources(metrics: RunMetrics) -> str:
    series = {"real": 0, "synthetic": 1, "semisynthetic": 2}
    ranked = sorted(metrics.sources, key=lambda s: (s.correct / s.count, s.media_type, s.source))
    if not ranked:
        return ""
    rows = [(f"{s.source} ({s.media_type})", s.correct, s.count, series[s.media_type]) for s in ranked[:_SOURCES]]
    more = f" The weakest {_SOURCES} of {len(ranked):,} are shown." if len(ranked) > _SOURCES else ""
    lead = f"Share of right answers for each source, weakest first, with 95 % intervals (Wilson).{more}"
    names = legend([(kind, number) for kind, number in series.items() if any(s.media_type == kind for s in ranked)])
    return (
        f'<section><h2>Sources</h2><p class="lead">{lead}</p><div class="card wide">{rate_chart(rows)}{names}</div>'
        "</section>"
    )


def _table(results: Mapping[str, Any]) -> str:
    head = "<tr><th>Data set</th><th>Counts as</th><th class='n'>Samples</th><th class='n'>Right</th>"
    head += "<th class='n'>Fakes caught</th><th class='n'>Real passed</th><th class='n'>Model errors</th></tr>"
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(row['provenance'])}</td><td class='n'>{row['total']:,}</td>"
        f"<td class='n'>{_percent(row['accuracy'])}</td><td class='n'>{_percent(row['tpr'])}</td>"
        f"<td class='n'>{_percent(row['tnr'])}</td><td class='n'>{row['model_errors']:,}</td></tr>"
        for name, row in results["per_dataset_results"].items()
    )
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f'<section><h2>Data sets</h2><div class="scroll">{table}</div></section>'


def _gallery(pictures: Sequence[Picture], modality: Modality) -> str:
    figures = "".join(
        f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode("ascii")}" '
        f'alt="{escape(picture.kind)} from {escape(picture.source)}" loading="lazy"><figcaption>'
        f'<div class="truth">{escape(picture.kind)}: {escape(picture.source)}<br>'
        f'<code title="{escape(picture.sample_id)}">{escape(picture.sample_id[:12])}</code></div>'
        f'<div class="meter s1"><span>p_fake</span><span>{picture.p_fake[0][1]:.2f}</span>'
        f'<span class="bar"><i style="--v:{picture.p_fake[0][1]:.3f}"></i></span></div></figcaption></figure>'
        for picture in pictures
    )
    kind = {Modality.IMAGE: "", Modality.VIDEO: " strips film", Modality.AUDIO: " strips"}[modality]
    return f'<div class="pictures{kind}">{figures}</div>'


def _record(results: Mapping[str, Any]) -> str:
    about, data, sandbox = results["metadata"], results["dataset_info"], results["sandbox"]
    rows = [
        ("Run", about["run_id"]),
        ("Model", about["model_path"]),
        ("Plan", f"{data['plan_id']}, data hash {data['data_hash']}, seed {data['seed']}"),
        ("Records", results["results"]["records_sha256"]),
        ("Sandbox", f"tier {sandbox['tier']}, {sandbox['restarts']} restarts, executor {sandbox['executor']}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ]
    failures = ", ".join(f"{count:,} {code}" for code, count in results["errors"]["model"].items())
    if sandbox["gave_up"]:
        failures += "; the model died too often, and what it was not asked any more counts as wrong"
    if failures:
        rows.append(("Failures", failures))
    aside = {name: row["set_aside"] for name, row in data["datasets"].items() if row.get("set_aside")}
    if aside:
        rows.append(("Set aside", ", ".join(f"{count:,} of {name}" for name, count in aside.items())))
    cells = "".join(f"<dt>{escape(label)}</dt><dd>{escape(str(value))}</dd>" for label, value in rows)
    return f'<section><h2>Record</h2><dl class="record card">{cells}</dl></section>'


def _card(title: str, lead: str, chart: str) -> str:
    return f'<div class="card"><h3>{title}</h3><p class="lead">{lead}</p>{chart}</div>'


def _fixed(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _milliseconds(figures: Mapping[str, Any]) -> str:
    mean = figures["avg_inference_time_ms"]
    return "-" if mean is None else f"{mean:.2f} ms"
