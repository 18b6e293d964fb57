"""Where a pushed model is weak, in sentences: per source, per generator and per distortion.

The figures come from an arena, which is somebody else's: whatever is not of the form that is expected is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from gas.bench.report.robustness import point_words
from gas.submissions.text import printable

__all__ = ["Share", "WeakPoints", "curves_of", "error_text", "model_lines", "weak_points"]

_WEAKEST: Final = 6


@dataclass(frozen=True, slots=True)
class Share:
    """How many answers were right.

    Attributes:
        name: Source, generator, or kind of distortion.
        right: Right answers.
        count: Answers, at least 1.
        media_type: ``real``, ``synthetic`` or ``semisynthetic``; empty where both classes are meant.
    """

    name: str
    right: int
    count: int
    media_type: str = ""

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        found: dict[str, object] = {"name": self.name, "right": self.right, "count": self.count}
        return {**found, "media_type": self.media_type} if self.media_type else found


@dataclass(frozen=True, slots=True)
class WeakPoints:
    """One run's right answers, the weakest first.

    Attributes:
        sources: Of real media.
        generators: Of fakes.
        distortions: Of public media that the exam showed distorted, beginning with the same media as they are.
        strengths: Score of these by strength of distortion, 0 (none) to 3; None where there is no score.
        media: How many media were distorted.
    """

    sources: tuple[Share, ...] = ()
    generators: tuple[Share, ...] = ()
    distortions: tuple[Share, ...] = ()
    strengths: tuple[float | None, ...] = ()
    media: int = 0

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "sources": [one.as_dict() for one in self.sources],
            "generators": [one.as_dict() for one in self.generators],
            "distortions": [one.as_dict() for one in self.distortions],
            "sn34_by_strength": list(self.strengths),
            "distorted_media": self.media,
        }


def weak_points(metrics: Mapping[str, Any], modality: str) -> WeakPoints:
    """Read a run's metrics.

    Args:
        metrics: As the arena tells them.
        modality: ``image``, ``video`` or ``audio``.
    """
    shares = [one for row in _rows(metrics.get("sources")) if (one := _share(row, "source")) is not None]
    shares.sort(key=lambda one: (one.right / one.count, one.name))
    curves, words = curves_of(metrics), point_words(modality)
    kinds = [
        Share(words.get(point["name"], point["name"]), point["correct"], point["count"])
        for point in (curves["groups"] if curves else ())
        if point["count"]
    ]
    if curves is not None and curves["levels"] and curves["levels"][0]["count"]:
        plain = curves["levels"][0]
        kinds.sort(key=lambda one: one.right / one.count)
        kinds.insert(0, Share(words["level 0"], plain["correct"], plain["count"]))
    return WeakPoints(
        tuple(one for one in shares if one.media_type == "real"),
        tuple(one for one in shares if one.media_type != "real"),
        tuple(kinds),
        tuple(point["sn34"] for point in curves["levels"]) if curves else (),
        curves["samples"] if curves else 0,
    )


def curves_of(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """The curves of an exam in the form of :class:`gas.bench.levels.RobustnessCurves`; None for anything else."""
    found = metrics.get("robustness_curves")
    if not isinstance(found, Mapping) or not all(_is_count(found.get(name)) for name in ("samples", "model_errors")):
        return None
    levels, groups = ([_point(row) for row in _rows(found.get(name))] for name in ("levels", "groups"))
    levels = [point for number, point in enumerate(levels) if point is not None and point["level"] == number]
    return {
        "samples": found["samples"],
        "model_errors": found["model_errors"],
        "version": printable(str(found.get("version")))[:40],
        "levels": levels,
        "groups": [point for point in groups if point is not None],
    } if levels else None  # fmt: skip


def model_lines(found: Mapping[str, Any]) -> list[tuple[int, str]]:
    """All that is known of a model but its errors, in sentences, each with its depth.

    Args:
        found: A submission with its runs, as the arena tells it to its author.

    Returns:
        Depth 0 for the model, 1 for a run's headings, 2 for what is under them.
    """
    from gas.cli.push import push_lines, run_scores, waiting_lines

    out = []
    for reason in found.get("reasons") or ():
        where = f"{reason['file']}:{reason['line']}: " if reason.get("file") and reason.get("line") else ""
        out.append((0, f"{where}{reason['message']} [{reason['code']}]"))
    if found.get("error"):
        out.append((0, f"our fault: {found['error'].get('message')} The slot is free again; push once more."))
    out += [(0, line) for line in (*waiting_lines(found), *push_lines(found))]
    if near := found.get("near_weights"):
        text = (
            f"look-alike: weights at a distance of {near['distance']:.4f} from {near['submission']} of another "
            f"hotkey; {near['tensors_apart']} of {near['tensors']} tensors are your own"
        )
        out.append((0, text))
    for run in found.get("runs") or ():
        metrics = run.get("metrics") or {}
        out.append((0, f"{run['kind']}: {run['state']}{run_scores(metrics)}"))
        if run["kind"] == "full" and run["state"] == "done" and run.get("run_id"):
            out.append(
                (1, f"its receipt, once the round is closed: gascli receipt get {printable(str(run['run_id']))}")
            )
        out += _weak_lines(metrics, str(found.get("modality")))
    return out


def error_text(error: Mapping[str, Any]) -> str:
    """One of the worst errors, in a sentence."""
    called = "fake" if error["media_type"] == "real" else "real"
    sure = error["p_fake"] if called == "fake" else 1 - error["p_fake"]
    return f"{error['media_type']}, of {error['source']}: called {called}, {sure:.1%} sure"


def _weak_lines(metrics: Mapping[str, Any], modality: str) -> list[tuple[int, str]]:
    weak = weak_points(metrics, modality)
    out: list[tuple[int, str]] = []
    if metrics.get("model_errors"):
        counts = ", ".join(f"{count} {code}" for code, count in metrics["model_errors"].items())
        out.append((1, f"failures that count as wrong: {counts}"))
    for title, shares in (("per source of real media", weak.sources), ("per generator", weak.generators)):
        if shares:
            more = f", the weakest {_WEAKEST} of {len(shares)}" if len(shares) > _WEAKEST else ""
            out.append((1, f"{title}{more}:"))
            out += [(2, _share_text(one)) for one in shares[:_WEAKEST]]
    lines = [_share_text(one) for one in weak.distortions]
    if any(score is not None for score in weak.strengths):
        scores = ", ".join("-" if score is None else f"{score:.3f}" for score in weak.strengths)
        lines.append(f"sn34 by strength, from none to all at once: {scores}")
    base, robust, again = metrics.get("base"), metrics.get("robust"), metrics.get("reencoding")
    if base and robust and base.get("accuracy") is not None and robust.get("accuracy") is not None:
        lines.append(f"{base['accuracy']:4.0%} right of {base['n']:3}  media as they are")
        lines.append(
            f"{robust['accuracy']:4.0%} right of {robust['n']:3}  media after sharing: smaller, compressed twice"
        )
    if again and again.get("asked"):
        lines.append(f"{again['flipped']} of {again['asked']} answers changed when pictures were compressed once more")
    if lines:
        about = f" (the same {weak.media} public media each time; no part of the score)" if weak.media else ""
        out.append((1, f"per distortion{about}:"))
        out += [(2, line) for line in lines]
    return out


def _share_text(one: Share) -> str:
    kind = f" ({one.media_type})" if one.media_type == "semisynthetic" else ""
    return f"{one.right / one.count:4.0%} right of {one.count:3}  {one.name}{kind}"


def _rows(value: object) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _share(row: Mapping[str, Any], name: str) -> Share | None:
    right, count, kind = row.get("correct"), row.get("count"), row.get("media_type")
    if not _is_count(right) or not _is_count(count) or right > count or count == 0:
        return None
    return Share(printable(str(row.get(name)))[:80], right, count, printable(str(kind))[:20])


def _point(row: Mapping[str, Any]) -> dict[str, Any] | None:
    level = row.get("level")
    if not all(_is_count(row.get(name)) for name in ("count", "correct")) or row["correct"] > row["count"]:
        return None
    if level is not None and not _is_count(level):
        return None
    rates = {name: _rate(row.get(name)) for name in ("tpr", "tnr", "sn34", "low", "high")}
    name = printable(str(row.get("name")))[:40]
    return {"name": name, "level": level, "count": row["count"], "correct": row["correct"], **rates}


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
