"""``gascli v generate``: the validator's own media, made by the local models of a registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from gas.generation.registry import LocalModel
    from gas.generation.registry_run import LocalFailure, ModelUse

__all__ = ["generate"]

_MOST_PROMPTS: Final = 16 * 1024 * 1024
_PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp")
_MOST_PHOTOS: Final = 100_000


def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the media; what is there is kept.")] = Path(
        "local-media"
    ),
    models: Annotated[Path | None, typer.Option(help="Registry (YAML); the one that ships by default.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Model, task (t2i, i2i, inpaint, t2v, i2v, tts) or tag; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Media of each model.")] = 4,
    photos: Annotated[Path | None, typer.Option(help="Folder of real photos, for models that start from one.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="File with a prompt a line; templates by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same media.")] = 0,
    per_turn: Annotated[int, typer.Option(min=1, help="Media of a model before another has its turn.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads to compute with on a CPU.")] = 1,
    downloads: Annotated[bool, typer.Option("--allow-downloads", help="Fetch models by hub name.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the registry.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make media with local models, one model loaded at a time, and write them with a manifest.

    Exit status: 0 all made, 1 some failed, 2 could not be done.
    """
    from gas.cli.data_text import progress_bar
    from gas.clock import SystemClock
    from gas.generation.registry import builtin_models, load_models
    from gas.generation.registry_files import MediaFolder
    from gas.generation.registry_plan import plan_jobs, plan_turns
    from gas.generation.registry_run import LocalFailure, load_local, run_turns

    known = builtin_models() if models is None else load_models(models)
    if list_only:
        _print_models(known, as_json)
        return
    chosen = _chosen(known, only or [])
    sources = _pictures(photos) if photos is not None else []
    skipped = [model.name for model in chosen if model.task.needs_source and not sources]
    chosen = [model for model in chosen if model.name not in skipped]
    texts = _prompts(prompts) if prompts is not None else []
    clock = SystemClock()
    failures: list[LocalFailure] = []
    with MediaFolder(out) as folder, progress_bar(not as_json) as report:
        uses = folder.uses()
        planned = {
            model.name: plan_jobs(model, count, seed=seed, prompts=texts, photos=[path.name for path in sources])
            for model in chosen
        }
        missing = {name: [job for job in jobs if job.id not in folder.done] for name, jobs in planned.items()}
        total, already = (
            sum(map(len, missing.values())),
            sum(map(len, planned.values())) - sum(map(len, missing.values())),
        )
        made, lost, last = 0, 0, ""
        try:
            for result in run_turns(
                plan_turns(chosen, missing, per_turn),
                photos=sources,
                clock=clock,
                uses=uses,
                device=device,
                load=lambda model: load_local(model, threads=threads, device=device, downloads=downloads),
            ):
                if isinstance(result, LocalFailure):
                    failures.append(result)
                    lost += result.jobs
                else:
                    folder.add(result)
                    made += 1
                if result.model.name != last:
                    # What was learnt is kept even if the run is killed.
                    folder.keep_uses(uses)
                    last = result.model.name
                if report:
                    report(result.model.name, made + lost, total)
        finally:
            folder.keep_uses(uses)
    names = [model.name for model in chosen]
    _print_run(out, made, already, lost, failures, skipped, {n: uses[n] for n in names if n in uses}, as_json)
    if lost:
        raise typer.Exit(1)


def _chosen(known: tuple[LocalModel, ...], only: list[str]) -> list[LocalModel]:
    from gas.errors import ConfigurationError

    if not only:
        return [model for model in known if model.enabled]
    for word in only:
        if not any(word in (model.name, model.task.value, *model.tags) for model in known):
            raise ConfigurationError(
                f"No model, task or tag is called {word[:64]!r}.",
                code="model_unknown",
                hint="`gascli v generate --list` names them.",
            )
    return [model for model in known if {model.name, model.task.value, *model.tags} & set(only)]


def _pictures(folder: Path) -> list[Path]:
    from gas.errors import ConfigurationError

    found = (
        sorted(p for p in folder.rglob("*") if p.suffix.lower() in _PICTURES and p.is_file()) if folder.is_dir() else []
    )
    if not found:
        raise ConfigurationError(
            f"There is no photo in {folder}.", code="no_photos", hint="Put JPEG, PNG or WebP files there."
        )
    return found[:_MOST_PHOTOS]


def _prompts(path: Path) -> list[str]:
    from gas.errors import ConfigurationError

    try:
        if path.stat().st_size > _MOST_PROMPTS:
            raise ConfigurationError(f"{path} is larger than {_MOST_PROMPTS // 2**20} MiB.", code="prompts_unreadable")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} can't be read as a text.", code="prompts_unreadable") from error
    found = [line.strip()[:1000] for line in lines if line.strip()]
    if not found:
        raise ConfigurationError(f"There is no prompt in {path}.", code="prompts_unreadable")
    return found


def _print_models(known: tuple[LocalModel, ...], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"models": [model.model_dump(mode="json") for model in known]}))
        return
    for model in known:
        needs = ", needs --photos" if model.task.needs_source else ""
        off = "" if model.enabled else ", only when named"
        typer.echo(f"{model.name:28} {model.task.value:8} {model.media_type.value:14} {model.pipeline}{needs}{off}")


def _print_run(
    out: Path,
    made: int,
    already: int,
    lost: int,
    failures: list[LocalFailure],
    skipped: list[str],
    uses: dict[str, ModelUse],
    as_json: bool,
) -> None:
    if as_json:
        told = [
            {"model": f.model.name, "jobs": f.jobs, "id": f.job.id if f.job else None, "error": f.error.as_dict()}
            for f in failures
        ]
        costs = {
            name: {"media": u.media, "seconds": round(u.seconds, 2), "peak_bytes": u.peak_bytes, "batch": u.batch}
            for name, u in uses.items()
        }
        result = {"folder": str(out), "made": made, "already": already, "failed": lost, "skipped": skipped}
        typer.echo(json.dumps({**result, "failures": told, "models": costs}))
        return
    there = f", {already:,} were there already" if already else ""
    typer.echo(f"{out}: {made:,} media made{there}{f', {lost:,} failed' if lost else ''}; see manifest.jsonl.")
    for name, use in uses.items():
        if use.media:
            typer.echo(
                f"  {name:28} {use.media:6,} media  {use.seconds / use.media:7.2f} s each  "
                f"{use.load_seconds / max(1, use.loads):6.2f} s to load  {use.peak_bytes / 1e6:8,.0f} MB at most"
            )
    for failure in failures:
        typer.echo(f"  {failure.model.name}: {failure.jobs} failed. {failure.error}", err=True)
    if skipped:
        typer.echo(f"  left out, because they start from photos (--photos FOLDER): {', '.join(skipped)}", err=True)
