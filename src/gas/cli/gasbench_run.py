"""``gasbench run``: one model a modality on data sets of one's own, with a report; killed, it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gas.cli.bench_text import answer_bar, print_metrics, print_troubles
from gas.errors import ConfigurationError, GasError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gas.bench.public import BenchRun, Watch
    from gas.bench.runs import Progress
    from gas.bench.settings import BenchSettings
    from gas.bench.shards import ShardNews
    from gas.datasets.store_fetch import FetchProgress
    from gas.types import Modality

__all__ = ["run_command"]


def run_command(
    image_model: Annotated[
        list[Path] | None, typer.Option(help="Zip, folder or .onnx file of a model of images; may be given again.")
    ] = None,
    video_model: Annotated[list[Path] | None, typer.Option(help="The same for videos.")] = None,
    audio_model: Annotated[list[Path] | None, typer.Option(help="The same for sounds.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="A few samples of every class.")] = False,
    small: Annotated[bool, typer.Option("--small", help="As many as the entrance exam takes; the default.")] = False,
    full: Annotated[bool, typer.Option("--full", help="As many as a round takes.")] = False,
    dataset_config: Annotated[
        Path | None,
        typer.Option(
            help="Registry (YAML) of the data sets, or photos, packages, stamps, public; your home's by default."
        ),
    ] = None,
    holdout_config: Annotated[Path | None, typer.Option(help="Registry of sets that count as held out.")] = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder of fetched data and decoded media; your home by default.")
    ] = None,
    results_dir: Annotated[
        Path | None, typer.Option(help="Where each run gets a folder; `results` in your home by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Most samples in a batch.")] = 32,
    gasstation_only: Annotated[
        bool, typer.Option("--gasstation-only", help="Only fakes from the network's own generators.")
    ] = False,
    robustness: Annotated[
        int, typer.Option(min=0, help="Samples a data set that are asked again after the sharing chain.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw, the order and the bootstrap.")] = 0,
    executor: Annotated[
        str,
        typer.Option(
            help="Where the run is computed: local, ray, or a cluster's address (host:port, ray://host:port)."
        ),
    ] = "local",
    processes: Annotated[int | None, typer.Option(min=1, help="Model processes; as many as cores by default.")] = None,
    device: Annotated[
        str, typer.Option(help="Where the model computes: auto (a graphics card where there is one), cpu or cuda.")
    ] = "auto",
    trust_model: Annotated[
        bool, typer.Option("--trust-model", help="Your own model only: go on where nothing isolates.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Run anew although the same run is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Benchmark a model in the sandbox on data sets of your own; several models run one after another.

    Of several models one that fails costs the others nothing.

    Missing data are fetched, a plan is drawn by content and seed, and the run's folder gets results.json,
    records.parquet, plan.parquet and report.html. Killed, the same command goes on where it was. On a cluster, several
    models of one modality run side by side.
    """
    from gas.bench.public import check_run, run
    from gas.bench.settings import BenchSettings
    from gas.types import Modality

    models = {Modality.IMAGE: image_model, Modality.VIDEO: video_model, Modality.AUDIO: audio_model}
    asked = [(modality, model) for modality, some in models.items() for model in some or ()]
    modes = [name for name, wanted in (("debug", debug), ("small", small), ("full", full)) if wanted]
    if not asked:
        raise ConfigurationError(
            "No model is named.", code="no_model", hint="Give --image-model, --video-model or --audio-model."
        )
    if len(modes) > 1:
        raise ConfigurationError(f"A run is {' or '.join(modes)}, not both.", code="unknown_mode")
    settings = BenchSettings(
        mode=modes[0] if modes else "small",
        dataset_config=dataset_config,
        holdout_config=holdout_config,
        cache_dir=cache_dir,
        results_dir=results_dir,
        batch_size=batch_size,
        gasstation_only=gasstation_only,
        robustness=robustness,
        seed=seed,
        executor=executor,
        processes=processes,
        trust_model=trust_model,
        again=again,
        device=device,
    )
    if len(asked) > 1:
        for modality, model in asked:
            check_run(model, modality, settings)
    done: list[BenchRun] = []
    failed: list[dict[str, str]] = []

    def fails(model: Path, error: GasError) -> None:
        failed.append({"model_path": str(model), **error.as_dict()})
        typer.echo(f"gasbench: {model.name}: {error}", err=True)

    try:
        for modality in dict.fromkeys(modality for modality, _ in asked):
            some = [model for kind, model in asked if kind is modality]
            if settings.executor != "local" and len(some) > 1:
                for model, one in zip(some, _side_by_side(some, modality, settings, not as_json), strict=True):
                    if isinstance(one, GasError):
                        fails(model, one)
                    else:
                        done.append(one)
                        _show(one, not as_json)
                continue
            for model in some:
                try:
                    with _watched(not as_json) as watch:
                        done.append(run(model, modality, settings, watch=watch))
                except GasError as error:
                    if len(asked) == 1:
                        raise
                    fails(model, error)
                else:
                    _show(done[-1], not as_json)
    except KeyboardInterrupt:
        typer.echo("gasbench: interrupted; the same command goes on where it was.", err=True)
        raise
    if as_json:
        runs = {"runs": [one.results for one in done]}
        typer.echo(json.dumps({**runs, "failed": failed} if failed else runs, allow_nan=False))
    if failed:
        raise typer.Exit(1)


def _side_by_side(
    models: list[Path], modality: Modality, settings: BenchSettings, shown: bool
) -> tuple[BenchRun | GasError, ...]:
    """Several models on a cluster; a line for what matters, as many bars would say nothing."""
    from gas.bench.many import run_many
    from gas.bench.public import Watch

    def watch(model: Path) -> Watch:
        def on_start(folder: Path, known: int) -> None:
            if shown:
                typer.echo(
                    f"{model.name}: {folder}" + (f", going on after {known:,} answers" if known else ""), err=True
                )

        return Watch(on_start=on_start, on_shard=lambda news: _tell_shard(news, shown, f"{model.name}: "))

    return run_many(models, modality, settings, watch=watch)


def _tell_shard(news: ShardNews, shown: bool, about: str = "") -> None:
    """What a person wants to know of the shards: those whose machine is lost."""
    if shown and news.what == "lost":
        where = f" ({news.machine})" if news.machine else ""
        typer.echo(
            f"{about}Shard {news.number + 1} of {news.shards} has lost its machine{where}; it goes on elsewhere.",
            err=True,
        )


@contextmanager
def _watched(shown: bool) -> Iterator[Watch]:
    """Bars on the error stream: one for what is fetched, then one for the answers."""
    from contextlib import ExitStack

    from gas.bench.public import Watch
    from gas.cli.data_text import bytes_bar

    with ExitStack() as stack:
        fetching: dict[str, Callable[[FetchProgress], None] | None] = {}
        answers: list[Callable[..., None]] = []
        levels: list[Callable[..., None]] = []
        bars = ExitStack()
        stack.callback(bars.close)

        def on_fetch(now: FetchProgress) -> None:
            if now.name not in fetching:
                bars.close()
                fetching[now.name] = bars.enter_context(bytes_bar(shown, now.name))
            report = fetching[now.name]
            if report:
                report(now)

        def on_start(folder: Path, known: int) -> None:
            bars.close()
            if shown:
                going_on = f", going on after {known:,} answers" if known else ""
                typer.echo(f"Run folder: {folder}{going_on}", err=True)
            answers.append(bars.enter_context(answer_bar(shown)))

        def on_levels(now: Progress) -> None:
            if not levels:
                bars.close()
                levels.append(bars.enter_context(answer_bar(shown, "curves")))
            levels[0](now)

        yield Watch(on_fetch, on_start, lambda now: answers[0](now), on_levels, lambda news: _tell_shard(news, shown))


def _show(found: BenchRun, shown: bool) -> None:
    if not shown:
        return
    if not found.fresh:
        typer.echo("This run is done already; --again asks the model anew.", err=True)
    results = found.results
    about, figures = results["metadata"], results["results"]
    title = f"{results['validation']['package']['name']}, {about['modality']}, {about['mode']}, plan "
    print_metrics(f"{title}{results['dataset_info']['plan_id']}, sandbox {results['sandbox']['tier']}", found.metrics)
    print_troubles(
        {**results["errors"]["model"], **({"undecodable": figures["media_errors"]} if figures["media_errors"] else {})},
        results["sandbox"]["timings"],
        gave_up=results["sandbox"]["gave_up"],
        inconsistent=len(figures["inconsistent"]),
        reasked=figures["reasked"],
    )
    for name, row in results["dataset_info"]["datasets"].items():
        # Runs of an earlier version don't say it.
        if row.get("set_aside"):
            typer.echo(f"Set aside when {name} was fetched, as it can't be used: {row['set_aside']:,}")
    mean, tail = figures["avg_inference_time_ms"], figures["p95_inference_time_ms"]
    if mean is not None:
        typer.echo(f"{mean:.2f} ms a sample in the model, 95 % of them below {tail:.2f} ms")
    curves = figures.get("robustness_curves")
    if curves:
        scores = ", ".join("-" if point["sn34"] is None else f"{point['sn34']:.3f}" for point in curves["levels"])
        typer.echo(f"sn34 by level of distortion, 0 to 3: {scores} ({curves['samples']} samples)")
    typer.echo(f"Report: {found.folder / 'report.html'}")
