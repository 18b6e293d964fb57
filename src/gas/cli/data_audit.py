"""``gascli data audit``: whether real and fake can be told apart without looking."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.cli.data_text import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from gas.datasets.audit import AuditResult
    from gas.datasets.plan_round import NormalOptions
    from gas.types import Modality

    _Progress = Callable[[str, int, int], None]

__all__ = ["audit_command"]

_COIN = 0.5


def audit_command(
    real: Annotated[Path | None, typer.Option(help="Folder of real media.")] = None,
    fake: Annotated[Path | None, typer.Option(help="Folder of fake media.")] = None,
    round_folder: Annotated[Path | None, typer.Option("--round", help="Folder of a frozen round.")] = None,
    blobs: Annotated[Path | None, typer.Option(help="Blob folder of the round; ROUND/blobs by default.")] = None,
    pair: Annotated[
        list[str] | None, typer.Option(metavar="REAL:FAKE", help="Two fetched data sets; may be repeated.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="image, video or audio; by the first medium of a folder by default.")
    ] = None,
    most: Annotated[int, typer.Option(min=10, help="Media of each class that are looked at.")] = 200,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of normalised sounds.")] = 2.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames of normalised clips.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the normalisation.")] = 0,
    home: Annotated[
        Path | None, typer.Option("--home", envvar="GAS_HOME", help="Home whose data sets these are.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether containers, codecs, sizes, rates, lengths or metadata give the labels away.

    Two folders or two fetched sets, as they are and after normalisation; a round, as it was frozen. Ends with 1 when
    a normalised pair, or a pair of the round, is above 55 % balanced accuracy.
    """
    from gas.datasets.plan_round import NormalOptions

    results: dict[str, AuditResult | None] = {}
    rejected: dict[str, dict[str, int]] = {}
    options = NormalOptions(seconds=seconds, frames=frames)
    if sum((real is not None or fake is not None, round_folder is not None, bool(pair))) != 1 or (blobs and pair):
        raise typer.BadParameter("Give --real and --fake, or --round, or --pair.")
    with progress_bar(not as_json) as report:
        if round_folder is not None:
            results = _audit_round(round_folder, blobs or round_folder / "blobs", seed, report)
            judged = list(results)
        elif pair:
            judged = []
            for text in pair:
                sides = _of_sets(text, home, most, seed)
                found, refused = _audit_sides(sides, seed, options, report)
                results |= {f"{text} {state}": result for state, result in found.items()}
                rejected |= {f"{text} {side}": codes for side, codes in refused.items()}
                judged.append(f"{text} normalised")
        else:
            if real is None or fake is None or blobs is not None:
                raise typer.BadParameter("Give both --real and --fake.")
            results, rejected = _audit_sides(_of_folders(real, fake, modality, most), seed, options, report)
            judged = ["normalised"]
    bad = any((result := results[name]) is not None and not result.passes for name in judged)
    if as_json:
        pairs = {name: _as_dict(result) for name, result in results.items()}
        typer.echo(json.dumps({"pairs": pairs, "rejected": rejected, "passes": not bad}))
    else:
        for name, result in results.items():
            typer.echo(f"{name:32} {_sentence(result)}")
        for side, codes in rejected.items():
            typer.echo(f"{side}: left out " + ", ".join(f"{count} {code}" for code, count in codes.items()))
    raise typer.Exit(1 if bad else 0)


@dataclass(slots=True)
class _Side:
    """One class of a pair: how many media there are, and a way to read them one at a time with their origins."""

    modality: Modality
    count: int
    media: Iterable[tuple[bytes, str]]
    raw: list[NDArray[np.float64]] = field(default_factory=list)
    normal: list[NDArray[np.float64]] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)


def _of_folders(real: Path, fake: Path, modality: str | None, most: int) -> dict[str, _Side]:
    from gas.clock import derive_seed
    from gas.datasets.audit import modality_of
    from gas.errors import ConfigurationError, MediaRejected
    from gas.storage.blobs import sha256_hex

    chosen = _modality(modality) if modality else None
    listed: dict[str, list[Path]] = {}
    for name, folder in (("real", real), ("fake", fake)):
        if not folder.is_dir():
            raise ConfigurationError(f"There is no folder {folder}.", code="folder_missing")
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        # A few of a big folder: drawn by name, since the first ones may be all of one kind.
        by_name = sorted(paths, key=lambda path: derive_seed(0, "audit", path.relative_to(folder).as_posix()))
        listed[name] = sorted(by_name[:most])
    for path in (path for paths in listed.values() for path in paths):
        if chosen is not None:
            break
        try:
            chosen = modality_of(path.read_bytes())
        except MediaRejected:
            continue
    if chosen is None:
        raise ConfigurationError("There are no media in the folders.", code="too_few")

    def media(paths: list[Path]) -> Iterable[tuple[bytes, str]]:
        for path in paths:
            data = path.read_bytes()
            yield data, sha256_hex(data)

    return {name: _Side(chosen, len(paths), media(paths)) for name, paths in listed.items()}


def _of_sets(text: str, home: Path | None, most: int, seed: int) -> dict[str, _Side]:
    from gas.clock import derive_seed
    from gas.datasets.store import open_store
    from gas.errors import ConfigurationError
    from gas.types import MediaType, Modality

    names = text.split(":")
    if len(names) != 2:
        raise typer.BadParameter(f"{text!r} is not REAL:FAKE.")
    store = open_store(home)
    sides: dict[str, _Side] = {}
    for side, name in zip(("real", "fake"), names, strict=True):
        table = store.table(name, ["sha256", "origin", "modality", "media_type"])
        rows = [row for row in table.to_pylist() if MediaType(row["media_type"]).is_fake == (side == "fake")]
        if not rows:
            raise ConfigurationError(f"The data set {name} has no {side} media.", code="one_class")
        rows.sort(key=lambda row: derive_seed(seed, "audit", row["sha256"]))
        media = ((store.get(row["sha256"]), row["origin"]) for row in rows[:most])
        sides[side] = _Side(Modality(rows[0]["modality"]), min(most, len(rows)), media)
    if sides["real"].modality is not sides["fake"].modality:
        raise ConfigurationError(f"The data sets {names[0]} and {names[1]} are of two modalities.")
    return sides


def _audit_sides(
    sides: dict[str, _Side], seed: int, options: NormalOptions, report: _Progress | None
) -> tuple[dict[str, AuditResult | None], dict[str, dict[str, int]]]:
    """Audit a pair as it is and normalised, on the media that can be normalised."""
    import numpy as np

    from gas.datasets.audit import MIN_MEDIA, audit_features, side_features
    from gas.datasets.plan_round import normalise
    from gas.errors import ConfigurationError, MediaRejected

    total, done = sum(side.count for side in sides.values()), 0
    for side in sides.values():
        for data, origin in side.media:
            done += 1
            if report:
                report("normalising", done, total)
            try:
                raw = side_features(data, side.modality)
                made = normalise(data, side.modality, seed=seed, origin=origin, rank=len(side.origins), options=options)
            except MediaRejected as error:
                side.rejected[error.error_code] += 1
                continue
            side.raw.append(raw)
            side.normal.append(side_features(made, side.modality))
            side.origins.append(origin)
    rejected = {name: dict(sorted(side.rejected.items())) for name, side in sides.items() if side.rejected}
    real, fake = sides["real"], sides["fake"]
    if min(len(real.origins), len(fake.origins)) < MIN_MEDIA:
        raise ConfigurationError(
            f"An audit needs at least {MIN_MEDIA} media of each class that can be normalised; there are "
            f"{len(real.origins)} real and {len(fake.origins)} fake ones.",
            code="too_few",
        )

    def audited(x_real: list[NDArray[np.float64]], x_fake: list[NDArray[np.float64]]) -> AuditResult:
        return audit_features(
            np.stack(x_real),
            np.stack(x_fake),
            real.modality,
            real_groups=real.origins,
            fake_groups=fake.origins,
            seed=seed,
        )

    return {"as it is": audited(real.raw, fake.raw), "normalised": audited(real.normal, fake.normal)}, rejected


def _audit_round(folder: Path, blobs: Path, seed: int, report: _Progress | None) -> dict[str, AuditResult | None]:
    from gas.datasets.audit import audit_round
    from gas.datasets.plan import read_round
    from gas.storage.blobs import FolderBlobs

    return audit_round(read_round(folder).samples, FolderBlobs(blobs).get, seed, on_progress=report)


def _modality(text: str) -> Modality:
    from gas.types import Modality

    try:
        return Modality(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(Modality)}.") from None


def _as_dict(result: AuditResult | None) -> dict[str, object] | None:
    if result is None:
        return None
    return {
        "balanced_accuracy": result.balanced_accuracy,
        "interval": [result.low, result.high],
        "real": result.real,
        "fake": result.fake,
        "telling": dict(result.telling),
        "passes": result.passes,
    }


def _sentence(result: AuditResult | None) -> str:
    if result is None:
        return "too few media to tell"
    text = (
        f"{result.balanced_accuracy:.1%} balanced accuracy ({result.low:.1%} to {result.high:.1%}), "
        f"{result.real} real, {result.fake} fake"
    )
    if result.high < _COIN:
        text += "; below a coin, since the encodings were dealt out evenly"
    if result.telling:
        text += "; telling: " + ", ".join(f"{name} {score:.0%}" for name, score in result.telling)
    return text
