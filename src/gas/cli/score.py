"""``gascli score``: every metric of a detector, for anyone's predictions in a CSV file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from gas.errors import ConfigurationError
from gas.scoring.detection import DetectionMetrics, evaluate_detection
from gas.types import MediaType, Provenance

__all__ = ["Predictions", "read_predictions", "score"]

COLUMNS: Final = ("label", "p_fake", "weight", "source", "provenance")
LABELS: Final = {
    "0": 0,
    "1": 1,
    "2": 1,
    MediaType.REAL.value: 0,
    MediaType.SYNTHETIC.value: 1,
    MediaType.SEMISYNTHETIC.value: 1,
    "fake": 1,
}
_FORMAT_HINT: Final = "Columns: label, p_fake; optionally weight, source, provenance."

ROWS: Final = (
    ("sn34_score", "sn34 score", "0 to 1, higher is better"),
    ("mcc", "MCC", "Matthews correlation, -1 to 1"),
    ("brier", "Brier score", "mean squared error, lower is better; 0.25 is a coin's"),
    ("accuracy", "accuracy", "share of right decisions"),
    ("balanced_accuracy", "balanced accuracy", "mean of TPR and TNR"),
    ("log_loss", "log loss", "nats, lower is better"),
    ("roc_auc", "ROC AUC", "chance that a fake scores above a real one"),
    ("average_precision", "average precision", "area under precision over recall"),
    ("eer", "equal error rate", "where false alarms equal misses, lower is better"),
    ("ece", "calibration error", "15 bins, lower is better"),
    ("tpr_at_fpr_01", "TPR at 1 % FPR", "fakes found at one false alarm in a hundred"),
    ("tpr_at_fpr_05", "TPR at 5 % FPR", "fakes found at one false alarm in twenty"),
)


@dataclass(slots=True)
class Predictions:
    """A file's columns; a list of an absent column is None.

    Attributes:
        labels: 0 real, 1 fake.
        p_fake: In [0, 1].
        weights: Finite, not negative.
        sources: Clusters of the bootstrap.
        provenances: public, holdout or arena.
    """

    labels: list[int] = field(default_factory=list)
    p_fake: list[float] = field(default_factory=list)
    weights: list[float] | None = None
    sources: list[str] | None = None
    provenances: list[str] | None = None


def score(
    file: Annotated[Path, typer.Argument(help="CSV with the columns label, p_fake[, weight, source, provenance].")],
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Score predictions: sn34_score and everything that is reported beside it.

    A label is 0 or real, 1 or synthetic or fake, 2 or semisynthetic. The interval draws whole sources, where there is
    such a column.

    Raises:
        gas.errors.ConfigurationError: The file can't be read, or a line of it is wrong.
    """
    predictions = read_predictions(file)
    groups = {
        kind: values
        for kind, values in (("source", predictions.sources), ("provenance", predictions.provenances))
        if values is not None
    }
    metrics = evaluate_detection(
        predictions.labels,
        predictions.p_fake,
        weights=predictions.weights,
        sources=predictions.sources,
        groups=groups,
        seed=seed,
    )
    if json_output:
        typer.echo(json.dumps(metrics.as_dict(), allow_nan=False))
    else:
        _show(metrics, Console())


def read_predictions(file: Path) -> Predictions:
    """Read a CSV file of predictions.

    Raises:
        gas.errors.ConfigurationError: Not readable, no UTF-8, a column is missing or unknown, or a value is wrong; the
            message names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _parse(file.name, stream)
    except OSError as error:
        raise ConfigurationError(f"{file.name} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file.name} is no UTF-8 text.", hint=_FORMAT_HINT) from error


def _parse(name: str, stream: Iterator[str]) -> Predictions:
    reader = csv.reader(stream, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(name, header)
        out = Predictions(
            weights=[] if "weight" in header else None,
            sources=[] if "source" in header else None,
            provenances=[] if "provenance" in header else None,
        )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise ConfigurationError(
                    f"{name}, line {reader.line_num}: {len(cells)} values under {len(header)} columns."
                )
            _add(
                out, dict(zip(header, (cell.strip() for cell in cells), strict=True)), f"{name}, line {reader.line_num}"
            )
    except csv.Error as error:
        raise ConfigurationError(f"{name}, line {reader.line_num}: no CSV: {error}.", hint=_FORMAT_HINT) from error
    return out


def _check_header(name: str, header: list[str]) -> None:
    for column in ("label", "p_fake"):
        if column not in header:
            raise ConfigurationError(f"{name}, line 1: there is no column {column!r}.", hint=_FORMAT_HINT)
    for column in header:
        if column not in COLUMNS:
            raise ConfigurationError(f"{name}, line 1: there is no use for a column {column!r}.", hint=_FORMAT_HINT)
        if header.count(column) > 1:
            raise ConfigurationError(f"{name}, line 1: two columns are named {column!r}.")


def _add(out: Predictions, row: dict[str, str], where: str) -> None:
    label = LABELS.get(row["label"].lower())
    if label is None:
        raise ConfigurationError(
            f"{where}: {row['label'][:40]!r} is no label.", hint="0, 1, 2, real, synthetic, semisynthetic or fake."
        )
    out.labels.append(label)
    p_fake = _number(row["p_fake"], "p_fake", where)
    if p_fake > 1.0:
        raise ConfigurationError(f"{where}: p_fake must lie in [0, 1], not {row['p_fake'][:40]}.")
    out.p_fake.append(p_fake)
    if out.weights is not None:
        out.weights.append(_number(row["weight"], "weight", where))
    if out.sources is not None:
        out.sources.append(row["source"])
    if out.provenances is not None:
        provenance = row["provenance"].lower()
        if provenance not in set(Provenance):
            raise ConfigurationError(
                f"{where}: {row['provenance'][:40]!r} is no provenance.", hint=f"{', '.join(Provenance)}."
            )
        out.provenances.append(provenance)


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0.0:
        raise ConfigurationError(f"{where}: {column} must be a finite number, not negative, not {text[:40]!r}.")
    return value


def _show(metrics: DetectionMetrics, console: Console) -> None:
    table = Table(title=f"{metrics.n} samples")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for key, name, meaning in ROWS:
        value = getattr(metrics, key)
        shown = "none" if value is None else f"{value:.4f}"
        if key == "sn34_score" and metrics.sn34_ci95 is not None:
            low, high = metrics.sn34_ci95
            shown += f" [{low:.4f}, {high:.4f}]"
        table.add_row(name, shown, meaning)
    console.print(table)
    if metrics.unscored is not None:
        console.print(f"Unscored: {metrics.unscored}", markup=False)
    if metrics.interval.skipped:
        console.print(
            f"The interval leaves out {metrics.interval.skipped} resamples that lacked a class.", markup=False
        )
    if metrics.worst_group is not None:
        worst = metrics.worst_group
        console.print(
            f"Weakest: {worst.rate.upper()} {worst.value:.4f} on {worst.kind} {worst.name!r} ({worst.n} samples).",
            markup=False,
        )
